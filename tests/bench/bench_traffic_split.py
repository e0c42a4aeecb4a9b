# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a switch of the traffic and a drain cost, beside what else an Ansible user has, in one run on the lab.

    python3 tests/bench/bench_traffic_split.py [ROUNDS]

In each round everything goes from one application node to the other. On lb1 an include is replaced by
ansible.builtin.copy and nginx reloaded by a second task, as template and handler do, beside traffic_split with
nginx_include (proven by the new workers) and nginx_flag; on lb2 community.general.haproxy, where it is installed,
enables one server and drains the other, beside traffic_split. Times are medians of the tasks as Ansible sees them.
Then 20 requests of 3 s are under way when their side is drained, and it is printed how long after the last answer
each task was done.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
OURS, THEIRS = "worklog.maintenance.traffic_split", "community.general.haproxy"
INCLUDE, OWN = "/etc/nginx/conf.d/bench-split.conf", "/etc/nginx/conf.d/bench-own-split.conf"
FLAG = "/var/lib/lab-rotation/bench"
HOST = "worklog.example.test"
OUR_BACKEND = {"strategy": "haproxy", "backend": "worklog_api"}
BACKEND = {"socket": "/run/haproxy/admin.sock", "backend": "worklog_api", "wait": True}


def sides(first: int, *servers: str) -> list[dict[str, Any]]:
    shares = (first, 100 - first)
    return [
        {"name": name, "servers": [server], "percent": share, "marks": [node]}
        for name, node, server, share in zip(("blue", "green"), ("app1", "app2"), servers, shares)
    ]


def cases(theirs: bool) -> dict[str, tuple[str, Any]]:
    """What is compared: name → hosts, and the tasks that send a percentage to the first node."""
    probe = {"url": "http://127.0.0.1/whoami", "host": HOST, "header": "X-Node", "count": 50}

    def by_hand(first: int) -> list[dict[str, Any]]:
        on, off = ("app1", "app2") if first else ("app2", "app1")
        text = f"upstream bench {{\n    server {on}:8080;\n    server {off}:8080 down;\n}}\n"
        return [
            {"ansible.builtin.copy": {"content": text, "dest": INCLUDE, "mode": "0644"}},
            {"ansible.builtin.service": {"name": "nginx", "state": "reloaded"}},
        ]

    def nginx(strategy: str, **more: str) -> Any:
        return lambda first: [{OURS: {"strategy": strategy, "sides": sides(first, "app1:8080", "app2:8080"), **more}}]

    def haproxy(**more: Any) -> Any:
        return lambda first: [{OURS: {**OUR_BACKEND, "sides": sides(first, "app1", "app2"), **more}}]

    def community(first: int) -> list[dict[str, Any]]:
        on, off = ("app1", "app2") if first else ("app2", "app1")
        return [
            {THEIRS: {**BACKEND, "host": on, "state": "enabled"}},
            {THEIRS: {**BACKEND, "host": off, "state": "drain"}},
        ]

    found = {
        "nginx: copy, reload as a handler does": ("nginx", by_hand),
        "nginx: traffic_split nginx_include": ("nginx", nginx("nginx_include", path=OWN, upstream="bench_own")),
        "nginx: traffic_split nginx_flag": ("nginx", nginx("nginx_flag", path=FLAG)),
        "HAProxy: traffic_split": ("haproxy", haproxy()),
        "HAProxy: traffic_split, persist: none": ("haproxy", haproxy(persist="none")),
        "HAProxy: traffic_split, probe of 50 requests": ("haproxy", haproxy(probe=probe)),
    }
    if theirs:
        found["HAProxy: community.general.haproxy, two tasks"] = ("haproxy", community)
    return found


def play(hosts: str, items: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Run tasks and return name → begin and end of each, in seconds since 1970."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as stream:
        json.dump([{"hosts": hosts, "gather_facts": False, "tasks": items}], stream)
        stream.flush()
        done = subprocess.run(
            [str(BIN / "ansible-playbook"), "-i", "inventories/lab", stream.name],
            env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
            cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    times: dict[str, list[tuple[float, float]]] = {}
    for task in json.loads(done.stdout)["plays"][0]["tasks"]:
        at = (
            datetime.fromisoformat(task["task"]["duration"][side].rstrip("Z") + "+00:00") for side in ("start", "end")
        )
        begin, end = (one.timestamp() for one in at)
        times.setdefault(task["task"]["name"], []).append((begin, end))
    return times


def container(name: str) -> str:
    return f"{os.environ.get('LAB_PREFIX') or 'worklog'}-{name}"


def node(name: str, *argv: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", "exec", container(name), *argv], capture_output=True, text=True, timeout=120, check=False
    )
    if check and done.returncode:
        sys.exit(f"{name}: {argv}: {done.stdout}{done.stderr}")
    return done.stdout


def switches(rounds: int, theirs: bool) -> None:
    print(f"{'a switch, its tasks as Ansible sees them':46} {'median':>8} {'range':>16}")
    for name, (hosts, tasks) in cases(theirs).items():
        steps = [
            {"name": str(number), **step}
            for number in range(rounds + 1)
            for step in tasks(100 * (number % 2))
        ]  # fmt: skip
        taken = play(hosts, steps)
        values = [sum(end - begin for begin, end in taken[str(number)]) for number in range(1, rounds + 1)]
        span = f"{min(values):.2f}-{max(values):.2f} s"
        print(f"{name:46} {statistics.median(values):6.2f} s {span:>16}")


def drains(rounds: int, theirs: bool) -> None:
    """Twenty requests of 3 s are under way on app1 when it is drained: how late after the last answer is that done?"""
    actions: dict[str, dict[str, Any]] = {
        "traffic_split": {OURS: {**OUR_BACKEND, "sides": sides(0, "app1", "app2"), "drain": ["blue"]}}
    }
    if theirs:
        drain = {**BACKEND, "host": "app1", "state": "drain", "drain": True}
        actions["community.general.haproxy, its default wait"] = {THEIRS: drain}
        actions["community.general.haproxy, wait_interval: 1"] = {THEIRS: {**drain, "wait_interval": 1}}
    print(f"\n{'a drain of 20 requests of 3 s, done after':46} {'median':>8} {'lost':>6}")
    start = [{**one, "state": "ready"} for one in sides(100, "app1", "app2")]
    for name, action in actions.items():
        late, lost = [], 0
        for _round in range(rounds):
            play("haproxy", [{"name": "ready", OURS: {**OUR_BACKEND, "sides": start}}])
            argv = ["python3", "/opt/lab/strict_client.py", "--url", "http://lb2/hold?seconds=3", "--host-header", HOST]
            argv += ["--connections", "20", "--rate", "40", "--seconds", "0.5", "--log", "/tmp/bench-drain"]
            with subprocess.Popen(
                ["docker", "exec", container("ops1"), *argv], stdout=subprocess.PIPE, text=True
            ) as client:
                time.sleep(0.2)
                ((_begin, end),) = play("haproxy", [{"name": "drain", **action}])["drain"]
                lost += json.loads(client.communicate()[0])["failed"]
            log = node("ops1", "cat", "/tmp/bench-drain")
            late.append(end - max(float(line.split()[1]) for line in log.splitlines()))
        print(f"{name:46} {statistics.median(late):6.2f} s {lost:6}")


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    theirs = importlib.util.find_spec("ansible_collections.community.general.plugins.modules.haproxy") is not None
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Python {platform.python_version()}; {rounds} rounds after one to warm up")
    if not theirs:
        print("community.general.haproxy is not installed here, so there are no figures of it")
    site = f"server {{ listen 8099; location / {{ if (-f {FLAG}) {{ return 204; }} return 200; }} }}\n"
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    node("lb2", "cp", "-a", "/etc/haproxy/haproxy.cfg", "/var/tmp/bench-haproxy.cfg")
    try:
        node("lb1", "python3", "-c", code, "/etc/nginx/conf.d/bench-site.conf", site)
        node("lb1", "systemctl", "reload", "nginx")
        switches(rounds, theirs)
        drains(min(rounds, 3), theirs)
    finally:
        node("lb1", "rm", "-f", INCLUDE, OWN, FLAG, "/etc/nginx/conf.d/bench-site.conf", check=False)
        node("lb1", "systemctl", "reload", "nginx", check=False)
        node("lb2", "mv", "/var/tmp/bench-haproxy.cfg", "/etc/haproxy/haproxy.cfg", check=False)
        node("lb2", "systemctl", "restart", "haproxy", check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
