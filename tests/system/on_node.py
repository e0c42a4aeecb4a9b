# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of this collection run in a node as Ansible starts them there, without the time that Ansible takes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ansible import module_utils

from tests.system.conftest import ROOT, Lab, Restore, call

PLACE = "/opt/modules"

#: Runs a module once for each set of options and returns the results.
DRIVER = """
import json, subprocess, sys, time
results = []
for options in json.load(sys.stdin):
    started = time.time()
    argv = [*sys.argv[3:], "python3", "-m", sys.argv[2]]
    given = json.dumps({"ANSIBLE_MODULE_ARGS": options})
    done = subprocess.run(argv, input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not done.stdout.startswith("{") and not done.stdout.strip().startswith("{"):
        sys.exit(done.stdout + done.stderr)
    results.append({**json.loads(done.stdout), "started": started, "seconds": time.time() - started})
    time.sleep(float(sys.argv[1]))
print(json.dumps(results))
"""


def install(lab: Lab, steps: Restore, *nodes: str) -> None:
    """Put the collection and what it needs of Ansible into nodes."""
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / Path(PLACE).name
        collection = library / "ansible_collections" / "worklog" / "maintenance"
        collection.mkdir(parents=True)
        (library / "ansible").mkdir()
        (library / "ansible" / "__init__.py").touch()
        for source, target in (
            (str(ROOT / "plugins"), str(collection)),
            (str(Path(str(module_utils.__file__)).parent), str(library / "ansible")),
        ):
            assert call(["cp", "-r", source, target]).returncode == 0
        for node in nodes:
            steps.path(node, PLACE)
            assert call(["docker", "cp", str(library), f"{lab.container(node)}:/opt/"]).returncode == 0


def run(
    lab: Lab, node: str, module: str, options: list[dict[str, Any]], pause: float = 0, *before: str
) -> list[dict[str, Any]]:
    """Run a module once for each set of options; ``before`` is what starts it, such as another user."""
    command = ["docker", "exec", "--interactive", "--env", f"PYTHONPATH={PLACE}", lab.container(node)]
    name = f"ansible_collections.worklog.maintenance.plugins.modules.{module}"
    argv = [*command, "python3", "-c", DRIVER, str(pause), name, *before]
    done = call(argv, input=json.dumps(options), timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return list(json.loads(done.stdout))
