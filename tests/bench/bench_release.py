# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an upgrade, a rollback and the end of a bad canary cost on the lab, beside a play that links and restarts.

    python3 tests/bench/bench_release.py [ROUNDS]

The worklog API goes from 1.0.0 to 1.1.0 and back on both application nodes, one after the other: by the playbooks
upgrade_in_place and rollback, and by a play of ansible.builtin.file, systemd and uri (link, restart, wait until it
answers), which is what most sites have. A strict client on each load balancer counts what it loses. Seconds are those
of the whole command. Then a version that fails three requests of ten is released as a canary: it is printed how long
after the decision of the gate the traffic was back. The lab (LAB_PREFIX) must be up.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.lab.day import clients, on  # noqa: E402

APPS, BALANCERS = ("app1", "app2"), ("lb1", "lb2")
HOST, STATE = "worklog.example.test", "/var/lib/worklog-maintenance/release-bench"
BEGIN = f"""
set -eu
rm -rf {STATE} /srv/worklog/releases/1.1.9
cp -a /srv/worklog/releases/1.1.0 /srv/worklog/releases/1.1.9
echo 1.1.9 >/srv/worklog/releases/1.1.9/VERSION
echo '{{"error_rate": 0.3}}' >/srv/worklog/releases/1.1.9/switches.json
ln -sfn releases/1.0.0 /srv/worklog/current
systemctl restart worklog-api
"""
GATE = {
    "host": "lb2",
    "sources": [{"type": "haproxy", "sockets": ["/run/haproxy/admin.sock"]}],
    "duration": 60,
    "metrics": [{"metric": "errors", "p0": "1%", "p1": "20%", "min_samples": 10}],
}
BY_HAND = [
    {
        "hosts": "app",
        "gather_facts": False,
        "become": True,
        "serial": 1,
        "tasks": [
            {"ansible.builtin.file": {
                "src": "releases/{{ version }}", "dest": "/srv/worklog/current", "state": "link", "force": True,
            }},
            {"ansible.builtin.systemd_service": {"name": "worklog-api", "state": "restarted"}},
            {"ansible.builtin.uri": {"url": "http://127.0.0.1:8080/health"},
             "register": "asked", "until": "asked is success", "retries": 30, "delay": 1},
        ],
    }
]  # fmt: skip


def definition(gate: bool) -> str:
    """The worklog API of the lab's inventory, without the backups, which a new lab does not have."""
    text = (ROOT / "inventories/lab/group_vars/all/releases.yml").read_text(encoding="utf-8")
    every: dict[str, Any] = yaml.safe_load(text)["release_applications"]
    one = {name: value for name, value in every["worklog-api"].items() if name not in ("backup", "gate")}
    one.update({"gate": GATE} if gate else {})
    one["requests"] = one["requests"][:1]  # what is wrong is to be found under traffic
    return json.dumps({"release_applications": {"worklog-api": one}})


def play(playbook: str, *argv: str, good: bool = True) -> tuple[float, int]:
    """Run a playbook with a client on each load balancer; return its seconds and how many requests were lost."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/lab", playbook, *argv]
    with clients(HOST, "/whoami", "--rate=40") as seen:
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
    if (done.returncode == 0) != good:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr}")
    return seconds, sum(one["failed"] for one in seen.values())


def ours(playbook: str, *variables: str, gate: bool = False) -> tuple[float, int]:
    given = ["release_application=worklog-api", f"release_state_directory={STATE}", *variables]
    words = [word for one in (*given, definition(gate)) for word in ("-e", one)]
    return play(f"worklog.maintenance.{playbook}", *words, good=not gate)


def live(version: str) -> None:
    for node in APPS:
        found = on(node, "readlink", "/srv/worklog/current").stdout.strip()
        if found != f"releases/{version}":
            raise SystemExit(f"{node} runs {found}, not {version}")


def begin() -> None:
    for node in APPS:
        on(node, "bash", "-c", BEGIN)
    for node in BALANCERS:
        on(node, "rm", "-rf", STATE)


def told(name: str, taken: Sequence[tuple[float, int]], base: float = 0.0) -> float:
    seconds = [one for one, _lost in taken]
    middle = statistics.median(seconds)
    ratio = f"{middle / base:5.2f}" if base else ""
    lost = sum(lost for _one, lost in taken)
    print(f"{name:32} {middle:6.1f} s  {min(seconds):5.1f}-{max(seconds):.1f} s {lost:6} {ratio}", flush=True)
    return middle


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {rounds} rounds")
    print(f"{'':32} {'median':>8}  {'range':>12} {'lost':>6} ratio")
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as stream:
        json.dump(BY_HAND, stream)
        stream.flush()
        begin()
        base = told(
            "link and restart, two hosts",
            [play(stream.name, "-e", f"version={one}") for _round in range(rounds) for one in ("1.1.0", "1.0.0")],
        )
    up, back = [], []
    for _round in range(rounds):
        begin()
        up.append(ours("upgrade_in_place", "release_version=1.1.0"))
        live("1.1.0")
        back.append(ours("rollback"))
        live("1.0.0")
    told("upgrade_in_place", up, base)
    told("rollback", back, base)

    seconds = []
    for _round in range(rounds):
        begin()
        ours("canary", "release_version=1.1.9", "canary_steps=25", gate=True)
        live("1.0.0")
        record = json.loads(on("app2", "tail", "-n1", "/var/log/worklog-maintenance/records.jsonl").stdout)
        seconds.append(record["recovery_seconds"])
    shown = ", ".join(f"{one:.2f}" for one in seconds)
    print(f"\na bad canary: from the decision of the gate until the traffic is back: {shown} s")
    begin()
    return 0


if __name__ == "__main__":
    sys.exit(main())
