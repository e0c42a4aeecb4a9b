# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an upgrade, a rollback and a canary that goes wrong take, beside plays of builtin modules that do it by hand.

    python3 tests/bench/bench_release.py [ROUNDS]      # default: 3; on the lab, with a client on each load balancer

Two plays are compared, each one host after the other: one that changes the link, restarts the service and waits for its
answer; and one that takes the host out of both load balancers meanwhile, by a flag of nginx and by
community.general.haproxy, where that is installed. The playbooks do as the lab's inventory says, which watches each
service for four seconds after its restart; they keep a journal, test the version and leave a record. Seconds are those
of ansible-playbook as a whole, medians. The clients never repeat a request.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.system.conftest import Lab  # noqa: E402

HOST = "worklog.example.test"
BACKEND = {"socket": "/run/haproxy/admin.sock", "backend": "worklog_api", "host": "{{ inventory_hostname }}"}
FLAG = "/var/lib/lab-rotation/{{ inventory_hostname }}.drain"
STATE = "/var/lib/worklog-maintenance/releases"
RECORDS = "/var/log/worklog-maintenance/records.jsonl"
RELEASES = "/srv/worklog/releases"
BAD = "1.9.9"
RATE = 50


def by_hand(version: str, balanced: bool) -> list[dict[str, Any]]:
    """The play that an operator would write of what everybody has."""

    def rotation(out: bool) -> list[dict[str, Any]]:
        flag = {"path": FLAG, "state": "touch" if out else "absent"}
        weight = {**BACKEND, "state": "drain", "drain": True} if out else {**BACKEND, "state": "enabled"}
        return [
            {"ansible.builtin.file": flag, "delegate_to": "lb1"},
            {"community.general.haproxy": {**weight, "wait": True, "wait_interval": 1}, "delegate_to": "lb2"},
        ]

    change = [
        {"ansible.builtin.file": {"src": f"releases/{version}", "dest": "/srv/worklog/current", "state": "link"}},
        {"ansible.builtin.systemd_service": {"name": "worklog-api", "state": "restarted"}},
        {
            "ansible.builtin.uri": {"url": "http://127.0.0.1:8080/health", "return_content": True},
            "register": "answer",
            "until": f"answer is success and answer.json.version == '{version}'",
            "retries": 60,
            "delay": 1,
        },
    ]
    tasks = [*rotation(True), *change, *rotation(False)] if balanced else change
    return [{"hosts": "app", "gather_facts": False, "become": True, "serial": 1, "tasks": tasks}]


class Bench:
    """The lab, and what is done with it."""

    def __init__(self, directory: Path, theirs: bool) -> None:
        self.lab = Lab(os.environ.get("LAB_PREFIX") or "worklog")
        self.directory = directory
        self.theirs = theirs
        defined = yaml.safe_load((ROOT / "inventories/lab/group_vars/all/releases.yml").read_text(encoding="utf-8"))
        self.application = defined["release_applications"]["worklog-api"]
        del self.application["backup"]  # a lab that has just been made has none
        # what is wrong is to be found under traffic: the test of function asks for the health only
        self.application["requests"] = self.application["requests"][:1]

    def play(self, name: str, *argv: str, fails: bool = False) -> float:
        """Run a playbook; return its seconds."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/lab", name, *argv]
        environment = {**os.environ, "LAB_PREFIX": self.lab.prefix, "ANSIBLE_NOCOLOR": "1"}
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
        if bool(done.returncode) != fails:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return seconds

    def release(self, playbook: str, *, fails: bool = False, gated: bool = False, **variables: str) -> float:
        application = {name: value for name, value in self.application.items() if gated or name != "gate"}
        given = {
            "release_application": "worklog-api",
            "release_applications": {"worklog-api": application},
            **variables,
        }
        given["release_reason"] = "benchmark"
        return self.play(f"worklog.maintenance.{playbook}", "-e", json.dumps(given), fails=fails)

    def hand(self, version: str, balanced: bool) -> float:
        path = self.directory / "by_hand.json"
        path.write_text(json.dumps(by_hand(version, balanced)), encoding="utf-8")
        return self.play(str(path))

    def forget(self) -> None:
        """Both hosts run 1.0.0, nothing was ever released, and there is no bad version."""
        self.hand("1.0.0", self.theirs)
        for node in ("app1", "app2", "lb1", "lb2"):
            self.lab.exec(node, ["rm", "-rf", STATE, f"{RELEASES}/{BAD}", f"{RELEASES}/.{BAD}.json"])

    def spoil(self) -> None:
        """Put a version there that fails a fifth of its requests."""
        for node in ("app1", "app2"):
            self.lab.exec(node, ["cp", "-a", f"{RELEASES}/1.1.0", f"{RELEASES}/{BAD}"])
            for name, text in (("VERSION", BAD), ("switches.json", json.dumps({"error_rate": 0.2}))):
                self.lab.exec(node, ["tee", f"{RELEASES}/{BAD}/{name}"], stdin=text)

    def recovery(self) -> tuple[float, float]:
        """Seconds from the gate's decision until the last load balancer had been told, and until all is as before.

        The first is that of the record; to it is added what the journal of the host says, in whole seconds.
        """
        record = json.loads(self.lab.exec("app2", ["tail", "-n", "1", RECORDS]).stdout)
        ended = json.loads(self.lab.exec("app2", ["cat", f"{STATE}/worklog-api.json"]).stdout)["finished"][-1]
        (began,) = (one["at"] for one in ended["journal"] if one["step"] == "back")
        rest = datetime.fromisoformat(ended["ended"].rstrip("Z")) - datetime.fromisoformat(began.rstrip("Z"))
        return record["recovery_seconds"], record["recovery_seconds"] + rest.total_seconds()

    @contextlib.contextmanager
    def watched(self, seen: list[dict[str, Any]]) -> Iterator[None]:
        """A client on each load balancer; what they saw is added to a list, lb1 first."""
        with (
            self.lab.strict_client("http://lb1/whoami", host=HOST, seconds=300, rate=RATE) as one,
            self.lab.strict_client("http://lb2/whoami", host=HOST, seconds=300, rate=RATE) as two,
        ):
            yield
        seen += [one.result, two.result]


def row(name: str, seconds: list[float], seen: list[dict[str, Any]], note: str = "") -> None:
    span = f"{min(seconds):.1f}-{max(seconds):.1f} s"
    lost = " and ".join(str(sum(one["failed"] for one in seen[side::2])) for side in (0, 1))
    sent = sum(one["requests"] for one in seen)
    print(f"{name:52} {statistics.median(seconds):6.1f} s {span:>16} {lost:>12} of {sent:6} {note}", flush=True)


def there_and_back(bench: Bench, rounds: int, theirs: bool) -> None:
    """From 1.0.0 to 1.1.0 and back, by hand and by the playbooks."""
    simple, balanced = "by hand: link, restart", "by hand: out of the load balancers, link, restart"

    def upgrade() -> float:  # going back says that the version is bad
        return bench.release("upgrade_in_place", release_version="1.1.0", release_accept_bad="1.1.0")

    ways: dict[str, Callable[[], float]] = {
        simple: lambda: bench.hand("1.1.0", False),
        f"{simple}, back": lambda: bench.hand("1.0.0", False),
        balanced: lambda: bench.hand("1.1.0", True),
        f"{balanced}, back": lambda: bench.hand("1.0.0", True),
        "upgrade_in_place": upgrade,
        "rollback": lambda: bench.release("rollback"),
        "rollback, release_serial=100%": lambda: bench.release("rollback", release_serial="100%"),
    }
    names = [name for name in ways if theirs or balanced not in name]
    names.insert(-1, "upgrade_in_place")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _round in range(rounds):
        for name in names:
            with bench.watched(seen[name]):
                seconds[name].append(ways[name]())
    for name, taken in seconds.items():
        row(name, taken, seen[name])


def gone_wrong(bench: Bench, rounds: int) -> None:
    """A canary whose new version fails a fifth of its requests."""
    seconds: list[float] = []
    recovery: list[tuple[float, float]] = []
    seen: list[dict[str, Any]] = []
    bench.spoil()
    for _round in range(rounds):
        with bench.watched(seen):
            seconds.append(bench.release("canary", fails=True, gated=True, release_version=BAD, release_accept_bad=BAD))
        recovery.append(bench.recovery())
    told, whole = ([one[side] for one in recovery] for side in (0, 1))
    note = f"traffic back {statistics.median(told):.2f} s after the decision ({min(told):.2f}-{max(told):.2f})"
    note += f", all as before after {statistics.median(whole):.0f} s ({min(whole):.0f}-{max(whole):.0f})"
    row("canary that fails 20 % of its requests, aborted", seconds, seen, note)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    theirs = importlib.util.find_spec("ansible_collections.community.general.plugins.modules.haproxy") is not None
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Python {platform.python_version()}; {rounds} rounds, {RATE} requests/s on each load balancer")
    if not theirs:
        print("community.general.haproxy is not installed: the play by hand that uses it is left out")
    print(f"{'':52} {'median':>8} {'range':>16} {'requests lost on lb1 and lb2':>28}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), theirs)
        bench.forget()
        try:
            there_and_back(bench, rounds, theirs)
            gone_wrong(bench, rounds)
        finally:
            bench.forget()
    return 0


if __name__ == "__main__":
    sys.exit(main())
