# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook for tests, from a process that has imported it once.

Each run is a fork of a server that has imported Ansible and the plugins of the collection: otherwise every run, and
every worker of it, reads and compiles them anew, which takes more processor time than most playbooks of the tests do
themselves. Arguments, environment, output and exit code are those of the program.

`Server` is the client's side; run as a program this is the server: a request a line on stdin, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ansible_collections.worklog.maintenance.plugins"


class Server:
    """Runs playbooks one after the other.

    :param environment: what Ansible reads when it is imported, such as ANSIBLE_CONNECTION_PLUGINS.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {**os.environ, **environment}
        self.lock = threading.Lock()
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        argv = [sys.executable, "-m", "tests.system.ansible_server"]
        self.process = subprocess.Popen(argv, cwd=ROOT, env=self.environment, **pipes)

    def run(self, argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> tuple[int, str, str]:
        """Run ansible-playbook with these arguments; return its exit code and what it wrote.

        :raises subprocess.TimeoutExpired: when it did not end in time; it is ended then, with its workers.
        """
        assert self.process.stdin and self.process.stdout
        with self.lock, tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            request = {
                "argv": [*argv],
                "environment": {**self.environment, **environment},
                "files": [out.name, err.name],
            }
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            pid = int(self.process.stdout.readline())
            late = threading.Timer(timeout, kill, [pid])
            late.start()
            code = int(self.process.stdout.readline())
            late.cancel()
            if code == -signal.SIGKILL:
                raise subprocess.TimeoutExpired([*argv], timeout)
            text = [Path(one.name).read_text(encoding="utf-8", errors="surrogateescape") for one in (out, err)]
            return code, text[0], text[1]

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=120)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def prepare() -> None:
    """Import what every run needs."""
    import_module("ansible.cli.playbook")
    loader = import_module("ansible.plugins.loader")
    loader.init_plugin_loader()
    warnings.filterwarnings("ignore", "AnsibleCollectionFinder has already been configured")
    for kind in ("action", "filter"):
        for path in (ROOT / "plugins" / kind).glob("*.py"):
            import_module(f"{COLLECTION}.{kind}.{path.stem}")
    import_module("ansible_collections.community.docker.plugins.connection.docker")


def play(request: dict[str, Any]) -> None:
    """Be ansible-playbook."""
    code: Any = 1
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(request["environment"])
        for number, path in enumerate(["/dev/null", *request["files"]]):
            os.dup2(os.open(path, os.O_RDWR), number)
        sys.argv = ["ansible-playbook", *request["argv"]]
        import_module("ansible.cli.playbook").main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def main() -> None:
    prepare()
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            play(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
