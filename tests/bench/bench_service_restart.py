# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What service_restart costs over a plain restart, in one run on a node of the lab.

    python3 tests/bench/bench_service_restart.py [ROUNDS]

In each round nginx on the node is restarted by `systemctl restart` (ansible.builtin.command), by
ansible.builtin.systemd_service, and by service_restart without and with everything it can look at (configuration test,
port, readiness, no watch). The times are those of the tasks as Ansible sees them; the medians and their ratios to
systemd_service are printed. The watch is a time to wait that one chooses; it is shown once, as it adds itself.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NODE = "lb1"
OURS = "worklog.maintenance.service_restart"
FULL = {"config_test": "nginx", "ports": [80], "ready": ["http://127.0.0.1/lb-health"]}
CASES: dict[str, dict[str, Any]] = {
    "systemctl restart": {"ansible.builtin.command": {"argv": ["systemctl", "restart", "nginx"]}},
    "ansible.builtin.systemd_service": {"ansible.builtin.systemd_service": {"name": "nginx", "state": "restarted"}},
    "service_restart, manager named, watch 0": {OURS: {"name": "nginx", "manager": "systemd", "watch": 0}},
    "service_restart, everything, watch 0": {OURS: {"name": "nginx", "watch": 0, **FULL}},
}
ONCE = {"service_restart, everything, watch 10 (default)": {OURS: {"name": "nginx", **FULL}}}


def seconds(task: dict[str, Any]) -> float:
    begin, end = (datetime.fromisoformat(task["task"]["duration"][side].rstrip("Z")) for side in ("start", "end"))
    return (end - begin).total_seconds()


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    tasks = [{"name": name, **action} for dummy in range(rounds + 1) for name, action in CASES.items()]
    tasks += [{"name": name, **action} for name, action in ONCE.items()]
    # the start limit of systemd allows five starts in ten seconds
    unlimited = {
        "name": "prepare",
        "ansible.builtin.copy": {
            "dest": "/run/systemd/system/nginx.service.d/bench.conf",
            "content": "[Unit]\nStartLimitIntervalSec=0\n",
            "mode": "0644",
        },
    }
    path = "/run/systemd/system/nginx.service.d"
    directory = {"ansible.builtin.file": {"path": path, "state": "directory", "mode": "0755"}}
    reload_units = {"ansible.builtin.systemd_service": {"daemon_reload": True}}
    remove = {"ansible.builtin.file": {"path": path, "state": "absent"}}
    play = {
        "hosts": NODE,
        "gather_facts": False,
        "tasks": [directory, unlimited, reload_units, *tasks, remove, reload_units],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as stream:
        json.dump([play], stream)
        stream.flush()
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/lab", stream.name],
            env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
            cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        return 1
    times: dict[str, list[float]] = {}
    for task in json.loads(done.stdout)["plays"][0]["tasks"]:
        times.setdefault(task["task"]["name"], []).append(seconds(task))
    base = statistics.median(times["ansible.builtin.systemd_service"][1:])
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Python {platform.python_version()}; {rounds} rounds after one to warm up")
    print(f"{'':50} {'median':>8} {'range':>15} {'ratio':>7}")
    for name in (*CASES, *ONCE):
        taken = times[name][1:] or times[name]
        span = f"{min(taken):.2f}-{max(taken):.2f} s"
        print(f"{name:50} {statistics.median(taken):6.2f} s {span:>15} {statistics.median(taken) / base:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
