# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running lab for tests: a new copy for each worker of pytest-xdist, which goes with it.

With LAB_PREFIX the first worker takes that copy as it is and leaves it, which is quicker while one works on a test.

Traffic goes to ports published on 127.0.0.1 or comes from a node, never to a container's own address.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible import module_utils

from tests.lab.connection.node import command
from tests.system.ansible_server import Server

ROOT = Path(__file__).resolve().parents[2]
LAB_PROGRAM = ROOT / "tests" / "lab" / "lab.py"
#: Where a node has the collection's modules for `Lab.module`.
LIBRARY = "/opt/modules"
#: How a program in a node ends that is killed there: as `docker exec` tells it, and nsenter.
KILLED = (128 + signal.SIGKILL, -signal.SIGKILL)
#: For Ansible, a quicker way into the nodes than docker's.
QUICK_CONNECTION = {"ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "tests/lab/connection"), "LAB_CONNECTION": "node"}
#: The files that take longest, which begin, so that no worker ends long after the others.
LONGEST = ("test_releases", "test_patch", "test_rollout", "test_playbooks", "test_service_restart")
os.environ["PATH"] = (
    f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the tools call each other by name
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files into the order in which the workers take them."""
    items.sort(key=lambda item: [*LONGEST, item.path.stem].index(item.path.stem))


def call(argv: list[str], timeout: float = 180, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program here and keep its output; bytes that are no UTF-8 come through as surrogates."""
    options.update(capture_output=True, encoding="utf-8", errors="surrogateescape", timeout=timeout)
    return subprocess.run(argv, check=False, **options)


class Client:
    """A strict client under way in ops1; `result` holds its line of JSON when its block has ended."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}


class Lab:
    """One running copy of the lab."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.clients = 0
        self.libraries: set[str] = set()
        self.ansible: Server | None = None

    def container(self, node: str) -> str:
        return f"{self.prefix}-{node}"

    def command(self, node: str, argv: list[str], **env: str) -> list[str]:
        """The argument list that runs another one in a node."""
        return command(self.container(node), argv, env=env)

    def exec(
        self, node: str, argv: list[str], timeout: float = 60, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run an argument list in a node; a failure shows the program's words unless `check` is false."""
        done = call(self.command(node, argv), input=stdin or "", timeout=timeout)
        failure = f"{node}: {argv} ended with {done.returncode}: {done.stdout}{done.stderr}"
        assert done.returncode == 0 or not check, failure
        return done

    def write(self, node: str, path: str, content: str) -> None:
        """Write a file in a node (its owner and mode stay when it exists)."""
        self.exec(node, ["tee", path], stdin=content)

    def read(self, node: str, path: str) -> str:
        return self.exec(node, ["cat", path]).stdout

    def program(self, *argv: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run lab.py."""
        return call([sys.executable, str(LAB_PROGRAM), *argv], timeout=timeout)

    def status(self, prefix: str | None = None) -> dict[str, dict[str, Any]]:
        """What `lab.py status --json` says: {node: {container, state, image, spec, ports}}."""
        done = self.program("status", "--json", "--prefix", prefix or self.prefix)
        found: dict[str, dict[str, Any]] = json.loads(done.stdout)
        return found

    def port(self, node: str, port: int) -> int:
        """The port on 127.0.0.1 under which a node's port is published."""
        line = call(["docker", "port", self.container(node), f"{port}/tcp"]).stdout
        return int(line.split()[0].rpartition(":")[2])

    def request(
        self, node: str, port: int, path: str, *, host: str = "", method: str = "GET", body: bytes | None = None,
        headers: dict[str, str] | None = None, timeout: float = 30,
    ) -> tuple[int, str]:  # fmt: skip
        """One HTTP request to a published port: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port(node, port), timeout=timeout)
        try:
            connection.request(method, path, body=body, headers={**({"Host": host} if host else {}), **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    @contextlib.contextmanager
    def strict_client(self, url: str, *, host: str, seconds: float = 60, **options: object) -> Iterator[Client]:
        """Send requests from ops1 while the block runs, at most `seconds`; options as of strict_client.py."""
        self.clients += 1
        flag = f"/tmp/strict-client-{os.getpid()}-{self.clients}"
        argv = ["python3", "/opt/lab/strict_client.py", "--url", url, "--host-header", host, "--until-file", flag]
        argv += ["--seconds", str(seconds)]
        for name, value in options.items():
            argv += [f"--{name.replace('_', '-')}", str(value)]
        client = Client()
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(self.command("ops1", argv), text=True, **pipes) as process:
            try:
                time.sleep(1.0)  # so that it has begun
                yield client
                time.sleep(1.0)  # and sees what comes after
            finally:
                self.exec("ops1", ["touch", flag])
                out, err = process.communicate(timeout=seconds + 30)
                self.exec("ops1", ["rm", "-f", flag])
        assert process.returncode == 0, err
        client.result = json.loads(out)

    def playbook(
        self, playbook: str | Path, *argv: str, inventory: Path = ROOT / "inventories" / "lab", timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run ansible-playbook on this copy's inventory, or another."""
        if self.ansible is None:
            self.ansible = Server({**QUICK_CONNECTION, "ANSIBLE_NOCOLOR": "1"})
        words = ["-i", str(inventory), str(playbook), *argv]
        return subprocess.CompletedProcess(words, *self.ansible.run(words, {"LAB_PREFIX": self.prefix}, timeout))

    @contextlib.contextmanager
    def controller(self, playbook: str, *argv: str, log: Path) -> Iterator[subprocess.Popen[str]]:
        """A controller of its own that can be killed; at the end of the block it is, if it still runs."""
        words = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            str(ROOT / "inventories" / "lab"),
            playbook,
        ]
        environment = {**os.environ, **QUICK_CONNECTION, "LAB_PREFIX": self.prefix, "ANSIBLE_NOCOLOR": "1"}
        with (
            log.open("w") as out,
            subprocess.Popen(
                [*words, *argv],
                cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            ) as process,
        ):  # fmt: skip
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def library(self, node: str) -> str:
        """Put the modules of this tree into a node, and return the directory for PYTHONPATH."""
        if node not in self.libraries:
            with tempfile.TemporaryDirectory() as directory:
                Path(directory).chmod(0o755)
                collection = Path(directory, "ansible_collections", "worklog", "maintenance")
                collection.mkdir(parents=True)
                Path(directory, "ansible").mkdir()
                Path(directory, "ansible", "__init__.py").touch()
                utils = Path(str(module_utils.__file__)).parent
                for source, target in ((ROOT / "plugins", collection), (utils, Path(directory, "ansible"))):
                    ignored = shutil.ignore_patterns("__pycache__", "powershell", "csharp")
                    shutil.copytree(source, target / source.name, ignore=ignored)
                self.exec(node, ["rm", "-rf", LIBRARY])
                copied = call(["docker", "cp", directory, f"{self.container(node)}:{LIBRARY}"])
                assert copied.returncode == 0, copied.stderr
            self.libraries.add(node)
        return LIBRARY

    def module(self, node: str, name: str, /, *flags: str, **options: Any) -> dict[str, Any]:
        """Run a module of the collection in a node, or here on `localhost`, and return its result.

        It gets its options as Ansible hands them to it, without the seconds that Ansible takes; the tests of playbooks
        and the scenarios of Molecule go through Ansible.

        A module that is killed has failed.

        :param flags: ``--check``, ``--diff`` and ``--become-user=NAME``, as of ansible-playbook.
        """
        options.update(_ansible_check_mode="--check" in flags, _ansible_diff="--diff" in flags)
        argv = ["python3", "-m", f"ansible_collections.worklog.maintenance.plugins.modules.{name}"]
        for flag in flags:
            if flag.startswith("--become-user="):
                argv = ["runuser", "--user", flag.partition("=")[2], "--", *argv]
        if node == "localhost":
            argv[0] = sys.executable
        else:
            argv = self.command(node, argv, PYTHONPATH=self.library(node))
        done = call(argv, input=json.dumps({"ANSIBLE_MODULE_ARGS": options}), timeout=300)
        if done.returncode in KILLED:
            return {"failed": True, "msg": done.stdout + done.stderr}
        try:
            result: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise AssertionError(done.stdout + done.stderr) from error
        result.setdefault("failed", False)
        assert done.returncode == (1 if result["failed"] else 0), done.stderr
        return result

    def wait_for(self, node: str, port: int, path: str = "/health", status: int = 200, timeout: float = 120) -> str:
        """Wait until a published port answers with a status; returns the body."""
        limit = time.monotonic() + timeout
        seen: tuple[int, str] | None = None
        while time.monotonic() < limit:
            with contextlib.suppress(OSError, http.client.HTTPException):
                seen = self.request(node, port, path, timeout=5)
                if seen[0] == status:
                    return seen[1]
            time.sleep(0.2)
        raise AssertionError(f"{node}:{port}{path} did not answer {status} within {timeout} s; last: {seen}")


class Restore:
    """Puts nodes back after a test, last change first, also when the test fails."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.steps: list[tuple[str, list[str]]] = []

    def run(self, node: str, argv: list[str]) -> None:
        """Run a command in a node when the test has ended."""
        self.steps.append((node, argv))

    def restart(self, node: str, unit: str) -> None:
        """Restart a service when the test has ended, also when systemd finds that it was started too often."""
        self.run(node, ["systemctl", "restart", unit])
        self.run(node, ["systemctl", "reset-failed", unit])

    def path(self, node: str, path: str) -> None:
        """Keep a file, link or tree as it is now (or its absence), and put it back when the test has ended."""
        if self.lab.exec(node, ["test", "-e", path, "-o", "-L", path], check=False).returncode:
            return self.run(node, ["rm", "-rf", "--", path])
        kept = f"/var/tmp/restore-{id(self):x}-{len(self.steps)}"
        self.lab.exec(node, ["rm", "-rf", kept])
        self.lab.exec(node, ["cp", "-a", "--", path, kept])
        self.run(node, ["mv", "--no-target-directory", "--", kept, path])
        self.run(node, ["rm", "-rf", "--", path])

    def undo(self) -> None:
        while self.steps:
            node, argv = self.steps.pop()
            self.lab.exec(node, argv)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A copy with all nodes well."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    given = os.environ.get("LAB_PREFIX", "") if worker == "gw0" else ""
    copy = Lab(given or f"system{worker}")
    fresh = [] if given else ["--fresh"]
    done = copy.program("up", "--prefix", copy.prefix, "--quiet", *fresh, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    yield copy
    if copy.ansible:
        copy.ansible.close()
    if not given:
        copy.program("down", "--prefix", copy.prefix)


@pytest.fixture
def restore(lab: Lab) -> Iterator[Restore]:
    """Registers what has to be put back after the test."""
    steps = Restore(lab)
    yield steps
    steps.undo()
