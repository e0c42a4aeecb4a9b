# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""traffic_split on a real nginx and HAProxy: what each strategy promises under load, and what failures leave behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Lab, Restore, call

ROOT = Path(__file__).resolve().parents[2]
MODULE = "ansible_collections.worklog.maintenance.plugins.modules.traffic_split"
#: How often a long campaign switches.
KILLS = int(os.environ.get("KILLS", "3"))
HOST = "worklog.example.test"
BLUE_GREEN = {"blue": ["app1"], "green": ["app2"]}

#: Runs the module in a node once for each set of options, as Ansible starts it there, and returns the results.
DRIVER = """
import json, subprocess, sys, time
results = []
for options in json.load(sys.stdin):
    started = time.time()
    argv = [*sys.argv[2:], "python3", "-m", MODULE]
    given = json.dumps({"ANSIBLE_MODULE_ARGS": options})
    done = subprocess.run(argv, input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not done.stdout.startswith("{") and not done.stdout.strip().startswith("{"):
        sys.exit(done.stdout + done.stderr)
    results.append({**json.loads(done.stdout), "started": started, "seconds": time.time() - started})
    time.sleep(float(sys.argv[1]))
print(json.dumps(results))
"""

ASK_HAPROXY = """
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect("/run/haproxy/admin.sock")
link.sendall(sys.argv[1].encode() + b"\\n")
print(link.makefile().read())
"""

SITES = """
upstream blue {
    server 127.0.0.1:9101 max_fails=0;
}
upstream green {
    server 127.0.0.1:9102 max_fails=0;
}
upstream linked {
    server unix:/run/two-sides/current.sock max_fails=0;
}
server {
    listen 80;
    server_name flagged.example.test;
    set $side blue;
    if (-f /var/lib/lab-rotation/green) {
        set $side green;
    }
    location / {
        proxy_pass http://$side;
    }
    location /socket {
        proxy_pass http://$side;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade;
    }
}
server {
    listen 80;
    server_name each.example.test;
    set $each blue;
    if (-f /var/lib/lab-rotation/blue.out) {
        set $each green;
    }
    if (-f /var/lib/lab-rotation/green.out) {
        set $each blue;
    }
    location / {
        proxy_pass http://$each;
    }
}
server {
    listen 80;
    server_name linked.example.test;
    location / {
        proxy_pass http://linked;
    }
}
server {
    listen 80;
    server_name weighted.example.test;
    location / {
        proxy_pass http://weighted;
    }
}
server {
    listen 80;
    server_name sticky.example.test;
    location / {
        proxy_pass http://$sticky_side;
    }
}
"""


class Balancers:
    """lb1 and lb2 with the module on them, and what it is asked there."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def many(self, node: str, options: list[dict[str, Any]], pause: float = 0, *before: str) -> list[dict[str, Any]]:
        path = f"PYTHONPATH={self.lab.library(node)}"
        command = ["docker", "exec", "--interactive", "--env", path, self.lab.container(node)]
        argv = [*command, "python3", "-c", f"MODULE = {MODULE!r}\n{DRIVER}", str(pause), *before]
        done = call(argv, input=json.dumps(options), timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return list(json.loads(done.stdout))

    def one(self, node: str, options: dict[str, Any], *before: str) -> dict[str, Any]:
        return self.many(node, [options], 0, *before)[0]

    def sh(self, node: str, *argv: str, check: bool = True) -> str:
        return self.lab.exec(node, list(argv), check=check).stdout

    def api(self, command: str) -> str:
        return self.sh("lb2", "python3", "-c", ASK_HAPROXY, command)

    def servers(self, backend: str = "worklog_api") -> dict[str, tuple[int, int]]:
        """Weight and administrative state of each server, as HAProxy itself tells them."""
        lines = self.api(f"show servers state {backend}").splitlines()
        rows = [line.split() for line in lines if len(line.split()) > 10 and not line.startswith("#")]
        return {row[3]: (int(row[7]), int(row[6])) for row in rows}

    def count(self, node: str, host: str, requests: int, header: str = "", path: str = "/whoami") -> dict[str, int]:
        """Which versions answer, asked by curl."""
        found: dict[str, int] = {}
        urls = ["--output", "/dev/null", f"http://127.0.0.1{path}"] * requests
        argv = ["curl", "--silent", "--max-time", "10", "--header", f"Host: {host}", "--write-out", "%header{x-node}\n"]
        argv += ["--header", header] if header else []
        for answer in self.sh(node, *argv, *urls).splitlines():
            found[answer] = found.get(answer, 0) + 1
        return found


def haproxy(shares: dict[str, float | None], **more: Any) -> dict[str, Any]:
    sides = []
    for name, percent in shares.items():
        side: dict[str, Any] = {"name": name, "servers": BLUE_GREEN.get(name, [])}
        sides.append({**side, "percent": percent} if percent is not None else side)
    return {"strategy": "haproxy", "backend": "worklog_api", "sides": sides, **more}


def probe(host: str, **more: Any) -> dict[str, Any]:
    return {"url": "http://127.0.0.1/whoami", "host": host, "header": "X-Node", **more}


def nginx(strategy: str, shares: dict[str, float | None], **more: Any) -> dict[str, Any]:
    where: dict[str, dict[str, Any]] = {
        "nginx_include": {"path": "/etc/nginx/conf.d/split-weighted.conf", "upstream": "weighted"},
        "nginx_split_clients": {
            "path": "/etc/nginx/conf.d/split-sticky.conf", "key": "$cookie_uid", "variable": "sticky_side",
        },
        "nginx_socket": {"path": "/run/two-sides/current.sock"},
        "nginx_flag": {"path": "/var/lib/lab-rotation/green"},
        "nginx_flags": {"path": "/var/lib/lab-rotation/<side>.out"},
    }  # fmt: skip
    ports = {"blue": "127.0.0.1:9101", "green": "127.0.0.1:9102"}
    sides = []
    for name, percent in shares.items():
        server = f"unix:/run/two-sides/{name}.sock" if strategy == "nginx_socket" else ports[name]
        side: dict[str, Any] = {"name": name, "servers": [server], "marks": [name]}
        sides.append({**side, "percent": percent} if percent is not None else side)
    return {"strategy": strategy, "sides": sides, **where[strategy], **more}


def all_to(strategy: str, side: str, **more: Any) -> dict[str, Any]:
    shares: dict[str, float | None] = {"blue": 0, "green": 0, side: 100}
    return haproxy(shares, **more) if strategy == "haproxy" else nginx(strategy, shares, **more)


def found(result: dict[str, Any], check: str) -> list[dict[str, Any]]:
    return [finding for finding in result["findings"] if finding["check"] == check]


@pytest.fixture(scope="module")
def balancers(lab: Lab) -> Iterator[Balancers]:
    """Both load balancers with the module; nginx also with a site for each strategy and two sides of its own."""
    steps, both = Restore(lab), Balancers(lab)
    try:
        steps.run("lb1", ["systemctl", "reload", "nginx"])
        steps.path("lb1", "/etc/nginx")
        for flag in ("green", "blue.out", "green.out"):
            steps.path("lb1", f"/var/lib/lab-rotation/{flag}")
        for node in ("lb1", "lb2"):
            _two_sides(lab, steps, node)
        for shares in ("nginx_include", "nginx_split_clients"):
            made = both.one("lb1", all_to(shares, "blue"))
            assert made.get("changed") and made["before"]["settings"]["content"] is None, made
        lab.write("lb1", "/etc/nginx/sites-enabled/split.example.test", SITES)
        lab.exec("lb1", ["nginx", "-t"])
        lab.exec("lb1", ["systemctl", "reload", "nginx"])
        steps.run("lb2", ["systemctl", "restart", "haproxy"])
        steps.path("lb2", "/etc/haproxy")
        yield both
    finally:
        steps.undo()


def _two_sides(lab: Lab, steps: Restore, node: str) -> None:
    program = (ROOT / "tests" / "system" / "two_sides.py").read_text(encoding="utf-8")
    lab.write(node, "/opt/two_sides.py", program)
    lab.exec(node, ["mkdir", "-p", "/run/two-sides"])
    lab.exec(node, ["ln", "-sfn", "/run/two-sides/blue.sock", "/run/two-sides/current.sock"])
    argv = ["systemd-run", "--quiet", "--unit", "two-sides", "python3", "/opt/two_sides.py", "/run/two-sides"]
    steps.run(node, ["rm", "-rf", "/run/two-sides"])
    steps.run(node, ["systemctl", "stop", "two-sides"])
    lab.exec(node, argv)
    for _attempt in range(50):
        if lab.exec(node, ["test", "-S", "/run/two-sides/green.sock"], check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError("the two sides did not start")


SOCKETS = """
    stats socket /run/haproxy/operator.sock mode 666 level operator
    stats socket /run/haproxy/open.sock mode 600 level admin
    stats socket ipv4@127.0.0.1:9999 level admin
"""
STATE_FILE = "    server-state-file /var/lib/haproxy/server-state\n"
SOURCED = """
backend sourced
    balance source
    server app1 app1:8080
    server app2 app2:8080
"""
SIDED = """
frontend sided
    bind 127.0.0.1:9100
    default_backend sided
backend sided
    server blue 127.0.0.1:9101
    server green 127.0.0.1:9102
"""


def configuration() -> str:
    """What the image of lb2 has, with more sockets and a static backend."""
    text = (ROOT / "tests/lab/image/haproxy/rootfs/etc/haproxy/haproxy.cfg").read_text(encoding="utf-8")
    return text.replace("\tstats timeout 30s\n", f"\tstats timeout 30s{SOCKETS}") + SOURCED + SIDED


@pytest.fixture
def fresh(balancers: Balancers) -> Balancers:
    """HAProxy as its image brings it, with more sockets and a static backend."""
    text = configuration()
    balancers.lab.write("lb2", "/etc/haproxy/haproxy.cfg", text)
    reload_haproxy(balancers)
    return balancers


def reload_haproxy(balancers: Balancers) -> None:
    """Reload it for real, and wait until the new process answers."""
    old = balancers.api("show info").split("Pid: ")[1].split()[0]
    balancers.sh("lb2", "systemctl", "reload", "haproxy")
    for _attempt in range(100):
        words = balancers.lab.exec("lb2", ["python3", "-c", ASK_HAPROXY, "show info"], check=False).stdout
        if "Pid: " in words and words.split("Pid: ")[1].split()[0] != old:
            return
        time.sleep(0.05)
    raise AssertionError("HAProxy did not reload")


# -- HAProxy --------------------------------------------------------------------------------------------------------


@pytest.mark.capability("B2", "B3")
def test_haproxy_is_divided_proven_and_not_forgotten(fresh: Balancers) -> None:
    config = fresh.sh("lb2", "cat", "/etc/haproxy/haproxy.cfg")
    ask = haproxy({"blue": 90, "green": 10}, probe=probe(HOST, count=100))
    planned = fresh.one("lb2", {**ask, "_ansible_check_mode": True, "_ansible_diff": True})
    assert planned["changed"] and planned["after"]["division"] == {"blue": 90, "green": 10}, planned
    assert fresh.servers() == {"app1": (1, 0), "app2": (1, 0)}
    assert fresh.sh("lb2", "cat", "/etc/haproxy/haproxy.cfg") == config

    done, again = fresh.many("lb2", [{**ask, "_ansible_diff": True}, ask])
    assert done["changed"] and done["diff"] == planned["diff"] and done["after"] == planned["after"], done
    assert done["before"]["division"] == {"blue": 50, "green": 50}
    assert fresh.servers() == {"app1": (90, 0), "app2": (10, 0)}
    assert done["proof"]["read_back"] == {
        "app1": {"weight": 90, "state": "ready"}, "app2": {"weight": 10, "state": "ready"},
    }  # fmt: skip
    answers = done["proof"]["probe"]["answers"]
    assert sum(answers.values()) == 100 and 80 <= answers["blue"] <= 98, answers
    assert not again["changed"] and again["applied_at"] is None and again["proof"]["probe"]["requests"] == 100
    seen = fresh.count("lb2", HOST, 100)
    assert 5 <= seen["app2"] <= 15, seen

    written = fresh.sh("lb2", "cat", "/etc/haproxy/haproxy.cfg")
    head, mark, tail = config.partition("\nbackend worklog_api\n")
    for server, weight in (("app1", 90), ("app2", 10)):
        tail = tail.replace(f"server {server} {server}:8080\n", f"server {server} {server}:8080 weight {weight}\n", 1)
    assert written == head + mark + tail
    reload_haproxy(fresh)
    assert fresh.servers() == {"app1": (90, 0), "app2": (10, 0)}
    assert not fresh.one("lb2", ask)["changed"]

    read = fresh.one("lb2", {"strategy": "haproxy", "backend": "worklog_api"})
    assert not read["changed"] and read["before"]["division"] == {"app1": 90, "app2": 10}
    assert set(read["in_flight"]) == {"app1", "app2"}

    back = fresh.one("lb2", {**ask, "restore": done["before"]})
    assert back["changed"] and back["after"] == done["before"]
    assert fresh.sh("lb2", "cat", "/etc/haproxy/haproxy.cfg") == config
    assert fresh.servers() == {"app1": (1, 0), "app2": (1, 0)}


def test_haproxy_states_are_kept_and_those_of_others_respected(fresh: Balancers) -> None:
    sides = [
        {"name": "blue", "servers": ["app1"], "percent": 0, "state": "maint"},
        {"name": "green", "servers": ["app2"], "percent": 100},
    ]
    done = fresh.one("lb2", haproxy({}, sides=sides))
    assert done["changed"] and fresh.servers() == {"app1": (0, 1), "app2": (100, 0)}, done
    assert found(done, "traffic.server.maintenance")
    reload_haproxy(fresh)
    state = fresh.servers()
    assert state["app1"][1] & 1 and state["app2"] == (100, 0)
    assert not fresh.one("lb2", haproxy({}, sides=sides))["changed"]
    refused = fresh.one("lb2", haproxy({"blue": 50, "green": 50}))
    assert refused["refused"] and "set 'state: ready'" in refused["msg"], refused
    sides = [{**sides[0], "percent": 50, "state": "ready"}, {**sides[1], "percent": 50}]
    done = fresh.one("lb2", haproxy({}, sides=sides, probe=probe(HOST, count=40)))
    assert done["changed"] and [one[1] & 1 for one in fresh.servers().values()] == [0, 0], done
    reload_haproxy(fresh)
    assert fresh.servers() == {"app1": (50, 0), "app2": (50, 0)}
    drained = fresh.one(
        "lb2", haproxy({}, sides=[{**sides[0], "percent": 0, "state": "drain"}, {**sides[1], "percent": 100}])
    )
    assert fresh.servers() == {"app1": (0, 8), "app2": (100, 0)}, drained
    reload_haproxy(fresh)
    assert fresh.servers()["app1"][0] == 0 and fresh.servers()["app2"][0] == 100


def test_haproxy_reads_its_state_file_at_a_reload(fresh: Balancers) -> None:
    text = fresh.sh("lb2", "cat", "/etc/haproxy/haproxy.cfg")
    text = text.replace(SOCKETS, f"{SOCKETS}{STATE_FILE}")
    text = text.replace("defaults\n", "defaults\n\tload-server-state-from-file global\n")
    fresh.lab.write("lb2", "/etc/haproxy/haproxy.cfg", text)
    fresh.lab.exec("lb2", ["rm", "-f", "/var/lib/haproxy/server-state"])
    reload_haproxy(fresh)
    ask = haproxy({"blue": 25, "green": 75})
    done, again = fresh.many("lb2", [ask, ask])
    assert done["changed"] and not again["changed"], (done, again)
    assert done["after"]["settings"]["persist"] == "state_file"
    assert fresh.sh("lb2", "cat", "/etc/haproxy/haproxy.cfg") == text
    lines = fresh.sh("lb2", "cat", "/var/lib/haproxy/server-state").splitlines()
    assert [line.split()[3] for line in lines[2:]] == ["app1", "app2"]
    reload_haproxy(fresh)
    assert fresh.servers() == {"app1": (25, 0), "app2": (75, 0)}
    sides = [
        {"name": "blue", "servers": ["app1"], "percent": 0, "state": "maint"},
        {"name": "green", "servers": ["app2"], "percent": 100},
    ]
    fresh.one("lb2", haproxy({}, sides=sides))
    reload_haproxy(fresh)
    assert fresh.servers() == {"app1": (0, 1), "app2": (100, 0)}
    back = fresh.one("lb2", haproxy({"blue": None, "green": None}, restore=done["before"]))
    assert back["changed"], back
    reload_haproxy(fresh)
    assert fresh.servers() == {"app1": (1, 0), "app2": (1, 0)}


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.mark.parametrize(
    ("change", "words", "before"),
    [
        ({"backend": "worklog_apj"}, "did you mean 'worklog_api'?", ()),
        ({"backend": "a;disable server worklog_api/app1"}, "cannot exist", ()),
        ({"backend": "a\nshut"}, "cannot exist", ()),
        ({"sides": [{"name": "blue", "servers": ["app3"], "percent": 100}]}, "there is no server 'app3'", ()),
        ({"sides": [{"name": "blue", "servers": ["app1;x"], "percent": 100}]}, "cannot exist", ()),
        ({"sides": [{"name": "blue", "servers": ["app1"], "weight": 257}]}, "must be 0 to 256", ()),
        ({"sides": [{"name": "blue", "servers": ["app1"], "percent": 90}]}, "add up to 90, not 100", ()),
        ({"sides": [{"name": "blue", "servers": ["app1"], "percent": 100}]}, "worklog_api/app2 takes traffic", ()),
        ({"backend": "sourced", "persist": "none"}, "takes only 0 or 100 %", ()),
        ({"sockets": ["/run/haproxy/none.sock"]}, "no HAProxy answers at /run/haproxy/none.sock", ()),
        ({"sockets": ["127.0.0.1:9998"]}, "no HAProxy answers at 127.0.0.1:9998", ()),
        ({"sockets": ["/run/haproxy/operator.sock"]}, "level operator and may not change weights", ()),
        ({"sockets": ["/run/haproxy/open.sock"]}, "may not be opened by uid 65534; set become: true", NOBODY),
        ({"drain": ["blue"]}, "cannot be drained while it gets 60 %", ()),
        ({"drain": ["bleu"]}, "did you mean 'blue'?", ()),
        ({"persist": "state_file"}, "reads no state file at a reload", ()),
        ({"restore": {"settings": {"strategy": "haproxy", "backend": "lowcode"}}}, "'lowcode'", ()),
        ({"probe": {"url": "http://127.0.0.1/", "header": "a", "json": "b"}}, "needs one of", ()),
    ],
)  # fmt: skip
def test_haproxy_refuses_with_one_sentence(
    unchanged: Balancers, change: dict[str, Any], words: str, before: tuple[str, ...]
) -> None:
    failed = unchanged.one("lb2", {**haproxy({"blue": 60, "green": 40}), **change}, *before)
    assert failed["failed"] and failed["refused"] and words in failed["msg"], failed


@pytest.fixture(scope="module")
def still(balancers: Balancers) -> tuple[str, str]:
    text = configuration()
    balancers.lab.write("lb2", "/etc/haproxy/haproxy.cfg", text)
    reload_haproxy(balancers)
    return text, str(balancers.servers())


@pytest.fixture
def unchanged(balancers: Balancers, still: tuple[str, str]) -> Iterator[Balancers]:
    """What must be as it was after a test."""
    yield balancers
    assert (balancers.sh("lb2", "cat", "/etc/haproxy/haproxy.cfg"), str(balancers.servers())) == still


def test_haproxy_puts_the_old_division_back_when_the_proof_fails(unchanged: Balancers) -> None:
    ask = haproxy({"blue": 0, "green": 100}, probe=probe(HOST, count=20))
    for side in ask["sides"]:
        side["marks"] = ["app1"] if side["name"] == "green" else ["app2"]
    failed = unchanged.one("lb2", ask)
    assert not failed["refused"] and "came blue 20, green 0; the old division is back" in failed["msg"], failed
    assert failed["before"]["division"] == {"blue": 50, "green": 50}
    failed = unchanged.one("lb2", haproxy({"blue": 0, "green": 100}, probe=probe("nobody.example.test")))
    assert "answered request 1 with 503" in failed["msg"] and "old division is back" in failed["msg"]


def test_haproxy_refuses_a_configuration_that_would_not_load(fresh: Balancers) -> None:
    text = fresh.sh("lb2", "cat", "/etc/haproxy/haproxy.cfg") + "\tno-such-keyword\n"
    fresh.lab.write("lb2", "/etc/haproxy/haproxy.cfg", text)
    failed = fresh.one("lb2", haproxy({"blue": 60, "green": 40}))
    assert "no-such-keyword" in failed["msg"] and "the old division is back" in failed["msg"], failed
    assert fresh.servers() == {"app1": (1, 0), "app2": (1, 0)}
    assert fresh.sh("lb2", "cat", "/etc/haproxy/haproxy.cfg") == text


def test_haproxy_that_is_down_and_servers_that_are(fresh: Balancers) -> None:
    fresh.api("disable health worklog_api/app2; set server worklog_api/app2 health down")
    failed = fresh.one("lb2", haproxy({"blue": 50, "green": 50}))
    assert failed["refused"] and "every server of it is down by its check" in failed["msg"], failed
    done = fresh.one("lb2", haproxy({"blue": 100, "green": 0}))
    assert done["changed"], done
    fresh.sh("lb2", "systemctl", "stop", "haproxy")
    try:
        failed = fresh.one("lb2", haproxy({"blue": 50, "green": 50}))
        assert failed["refused"] and "no HAProxy answers at /run/haproxy/admin.sock" in failed["msg"], failed
    finally:
        fresh.sh("lb2", "systemctl", "start", "haproxy")
    for _attempt in range(50):
        if fresh.lab.exec("lb2", ["python3", "-c", ASK_HAPROXY, "show info"], check=False).returncode == 0:
            break
        time.sleep(0.1)
    assert fresh.servers() == {"app1": (100, 0), "app2": (0, 0)}


# -- draining -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["haproxy", "nginx_socket", "nginx_flag"])
def test_a_side_is_drained_to_the_last_request(balancers: Balancers, strategy: str, request: Any) -> None:
    """Twenty slow requests are under way; all complete, and the drain ends within 0.2 s of the last one."""
    if strategy == "haproxy":
        request.getfixturevalue("fresh")
    node, host = ("lb2", HOST) if strategy == "haproxy" else ("lb1", f"{SITE[strategy]}.example.test")
    assert "failed" not in balancers.one(node, all_to(strategy, "blue"))
    argv = ["python3", "/opt/lab/strict_client.py", "--url", f"http://{node}/hold?seconds=9", "--host-header", host]
    argv += ["--connections", "20", "--rate", "40", "--seconds", "0.5", "--log", f"/tmp/drain-{strategy}"]
    clients: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: clients.append(balancers.lab.exec("ops1", argv)))
    thread.start()
    time.sleep(1.2)
    early, done = balancers.many(
        node,
        [
            all_to(strategy, "green", drain=["blue"], drain_timeout=0.3, drain_timeout_action="continue"),
            all_to(strategy, "green", drain=["blue"], drain_timeout=20),
        ],
    )
    thread.join()
    result = json.loads(clients[0].stdout)
    assert result["failed"] == 0 and result["requests"] == 20, result
    (cut,) = found(early, "traffic.drain")
    assert early["changed"] and cut["observed"] == 20 and "stopping it now cuts them" in cut["message"], early
    (drained,) = done["drained"]
    assert not done["changed"] and drained["left"] == 0 and drained["in_flight"] == 20, done
    last = max(float(line.split()[1]) for line in balancers.sh("ops1", "cat", f"/tmp/drain-{strategy}").splitlines())
    late = done["proven_at"] + drained["seconds"] - last
    print(f"{strategy}: drained {late * 1000:.0f} ms after the last answer")
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    assert -0.05 < late < (0.5 if busy else 0.2)


def test_a_drain_that_takes_too_long_fails_and_puts_back(balancers: Balancers) -> None:
    assert "failed" not in balancers.one("lb1", all_to("nginx_flag", "blue"))
    argv = ["curl", "--silent", "--header", "Host: flagged.example.test", "http://127.0.0.1/hold?seconds=3"]
    with subprocess.Popen(["docker", "exec", balancers.lab.container("lb1"), *argv], stdout=subprocess.PIPE) as slow:
        time.sleep(0.5)
        failed = balancers.one("lb1", all_to("nginx_flag", "green", drain=["blue"], drain_timeout=0.2))
        assert "1 of 1 requests were still under way on blue after 0.2 s" in failed["msg"], failed
        assert "the old division is back: blue 100 %, green 0 %" in failed["msg"]
        assert balancers.count("lb1", "flagged.example.test", 5) == {"blue": 5}
        slow.communicate()


#: A WebSocket (RFC 6455) that stays open: prints which side answers to each line that comes, until there is none.
WEBSOCKET = """
import base64, hashlib, os, socket, sys
key = base64.b64encode(os.urandom(16)).decode()
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
head = {"Host": sys.argv[2], "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key}
lines = ["GET /socket HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "Sec-WebSocket-Version: 13"]
link.sendall(("\\r\\n".join(lines) + "\\r\\n\\r\\n").encode())
answer = link.makefile("rb")
assert answer.readline().split()[1] == b"101"
headers = dict(line.decode().strip().split(": ", 1) for line in iter(answer.readline, b"\\r\\n"))
given = {name.lower(): value for name, value in headers.items()}["sec-websocket-accept"]
proof = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
assert base64.b64decode(given) == proof
print("open", flush=True)
for line in sys.stdin:
    mask = os.urandom(4)
    text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(line.strip().encode()))
    link.sendall(bytes((0x81, 0x80 | len(text))) + mask + text)
    kind, length = answer.read(2)
    print(answer.read(length).decode(), flush=True)
"""


class WebSocket:
    """A client of a load balancer, on its node."""

    def __init__(self, lab: Lab, node: str, port: int, host: str) -> None:
        argv = ["docker", "exec", "--interactive", lab.container(node), "python3", "-c", WEBSOCKET, str(port), host]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read() == "open"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def say(self, text: str) -> str:
        """Send a message, and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._process.communicate(timeout=20)


@pytest.mark.parametrize("strategy", ["haproxy", "nginx_flag", "nginx_include"])
def test_a_websocket_stays_on_the_old_side_and_a_drain_waits_for_it(
    balancers: Balancers, strategy: str, request: Any
) -> None:
    """Also over a reload: nginx keeps the old worker until it has ended, HAProxy is told while it runs."""
    node, port, host = ("lb1", 80, "flagged.example.test")
    if strategy == "haproxy":
        request.getfixturevalue("fresh")
        node, port, host = "lb2", 9100, "sided"

    def switch(side: str, **more: Any) -> dict[str, Any]:
        if strategy != "haproxy":
            return balancers.one(node, all_to("nginx_flag", side, **more))
        sides = [{"name": one, "servers": [one], "percent": 100 if one == side else 0} for one in ("blue", "green")]
        return balancers.one(node, {"strategy": "haproxy", "backend": "sided", "sides": sides, **more})

    assert "failed" not in switch("blue")
    old = WebSocket(balancers.lab, node, port, host)
    try:
        assert old.say("one") == "blue one"
        early = switch("green", drain=["blue"], drain_timeout=0.3, drain_timeout_action="continue")
        assert found(early, "traffic.drain")[0]["observed"] == 1, early
        if strategy == "nginx_include":
            assert balancers.one(node, all_to("nginx_include", "green"))["proof"]["new_workers"]
        assert old.say("two") == "blue two"
        new = WebSocket(balancers.lab, node, port, host)
        assert new.say("one") == "green one"
        new.close()
        failed = switch("green", drain=["blue"], drain_timeout=0.3)
        assert "1 of 1 requests were still under way on blue after 0.3 s" in failed["msg"], failed
        assert old.say("three") == "blue three", "nothing was cut"
    finally:
        old.close()
    (drained,) = switch("green", drain=["blue"], drain_timeout=20)["drained"]
    assert drained["left"] == 0, drained


# -- nginx ----------------------------------------------------------------------------------------------------------

SITE = {
    "nginx_include": "weighted", "nginx_split_clients": "sticky", "nginx_socket": "linked", "nginx_flag": "flagged",
    "nginx_flags": "each",
}  # fmt: skip


@pytest.mark.parametrize("strategy", SITE)
def test_nginx_is_switched_proven_and_put_back(balancers: Balancers, strategy: str) -> None:
    host = f"{SITE[strategy]}.example.test"
    assert "failed" not in balancers.one("lb1", all_to(strategy, "blue"))
    ask = all_to(strategy, "green", probe=probe(host, count=20))
    planned = balancers.one("lb1", {**ask, "_ansible_check_mode": True, "_ansible_diff": True})
    assert planned["changed"] and balancers.count("lb1", host, 5) == {"blue": 5}
    done, again = balancers.many("lb1", [{**ask, "_ansible_diff": True}, ask])
    assert done["changed"] and done["diff"] == planned["diff"] and done["after"] == planned["after"], done
    assert done["proof"]["probe"]["answers"] == {"blue": 0, "green": 20}
    assert not again["changed"], again
    assert balancers.count("lb1", host, 20) == {"green": 20}
    read = balancers.one("lb1", nginx(strategy, {"blue": None, "green": None}))
    assert not read["changed"] and read["before"]["division"] == {"blue": 0, "green": 100}, read
    back = balancers.one("lb1", {**ask, "restore": done["before"]})
    assert back["changed"] and back["after"] == done["before"], back
    assert balancers.count("lb1", host, 20) == {"blue": 20}
    if strategy in ("nginx_include", "nginx_split_clients"):
        assert set(done["proof"]["old_workers"]).isdisjoint(done["proof"]["new_workers"])
        assert done["proof"]["seconds"] < 5
    wrong = {**ask, "probe": probe(host, count=20), "sides": [{**one} for one in ask["sides"]]}
    wrong["sides"][0]["marks"], wrong["sides"][1]["marks"] = ["green"], ["blue"]
    failed = balancers.one("lb1", wrong)
    assert not failed["refused"] and "the old division is back" in failed["msg"], failed
    assert balancers.count("lb1", host, 5) == {"blue": 5}


def test_nginx_weights_and_clients_that_stay_where_they_are(balancers: Balancers) -> None:
    check = probe("weighted.example.test", count=200)
    done = balancers.one(
        "lb1", nginx("nginx_include", {"blue": 95, "green": 5}, probe=check, upstream_options=["zone weighted 64k"])
    )
    assert done["changed"] and 2 <= done["proof"]["probe"]["answers"]["green"] <= 20, done
    ask = {"vary": "Cookie: uid=%s", "count": 100}
    users: list[set[int]] = []
    for percent in (5, 10, 25):
        options = nginx("nginx_split_clients", {"blue": 100 - percent, "green": percent})
        options["probe"] = probe("sticky.example.test", **ask)
        done = balancers.one("lb1", options)
        assert done["changed"], done
        code = (
            "import http.client\nfor uid in range(100):\n  c = http.client.HTTPConnection('127.0.0.1')\n"
            "  c.request('GET', '/', headers={'Host': 'sticky.example.test', 'Cookie': f'uid=u{uid}'})\n"
            "  print(c.getresponse().getheader('X-Node'))"
        )
        lines = balancers.sh("lb1", "python3", "-c", code).split()
        users.append({number for number, node in enumerate(lines) if node == "green"})
    assert users[0] < users[1] < users[2] and 10 <= len(users[2]) <= 45, users
    assert "failed" not in balancers.one("lb1", all_to("nginx_split_clients", "blue"))


BOTH = {"blue": 50.0, "green": 50.0}


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (nginx("nginx_flag", dict(BOTH)), "nginx_flag gives all or nothing, not 50 % to blue"),
        (nginx("nginx_socket", dict(BOTH)), "nginx_socket gives all or nothing"),
        (all_to("nginx_flag", "green", path="/var/lib/lab-rotation/other"), "looks for /var/lib/lab-rotation/other"),
        (all_to("nginx_socket", "green", path="/run/two-sides/other.sock"), "sends to unix:/run/two-sides/other.sock"),
        (all_to("nginx_include", "green", path="/etc/nginx/other/split.conf"), "cannot replace /etc/nginx/other/split"),
        (all_to("nginx_include", "green", path="/etc/nginx/split.conf"), "not included by /etc/nginx/nginx.conf"),
        (all_to("nginx_include", "green", path="/etc/nginx/conf.d/upstreams.conf"), "has no upstream weighted"),
        (
            all_to("nginx_include", "green", path="/etc/nginx/conf.d/upstreams.conf", upstream="lowcode"),
            "was not written by this module",
        ),
        (all_to("nginx_include", "green", upstream_options=["x } y"]), "that nginx would take for something else"),
        (all_to("nginx_include", "green", upstream_options=["no_such_option"]), "no_such_option"),
        (nginx("nginx_split_clients", {"blue": 99.999, "green": 0.001}), "takes two decimals"),
        (nginx("nginx_include", {"blue": 60, "green": 30}), "add up to 90, not 100"),
    ],
)  # fmt: skip
def test_nginx_refuses_and_leaves_the_old_division(balancers: Balancers, ask: dict[str, Any], words: str) -> None:
    before = balancers.sh("lb1", "find", "/etc/nginx", "-type", "f", "-exec", "sha256sum", "{}", "+")
    failed = balancers.one("lb1", ask)
    assert failed.get("failed") and words in failed["msg"], failed
    assert balancers.sh("lb1", "find", "/etc/nginx", "-type", "f", "-exec", "sha256sum", "{}", "+") == before
    assert not balancers.sh("lb1", "find", "/run/two-sides", "/var/lib/lab-rotation", "-name", "*.new")


def test_nginx_half_written_includes_and_sides_that_do_not_listen(balancers: Balancers) -> None:
    assert "failed" not in balancers.one("lb1", all_to("nginx_include", "blue"))
    path = "/etc/nginx/conf.d/split-weighted.conf"
    whole = balancers.sh("lb1", "cat", path)
    balancers.lab.write("lb1", path, whole[:-10])
    failed = balancers.one("lb1", all_to("nginx_include", "green"))
    assert failed["refused"] and "is not whole" in failed["msg"], failed
    balancers.lab.write("lb1", path, whole)
    assert balancers.count("lb1", "weighted.example.test", 5) == {"blue": 5}
    ask = all_to("nginx_socket", "green")
    ask["sides"][1]["servers"] = ["unix:/run/two-sides/gone.sock"]
    failed = balancers.one("lb1", ask)
    assert failed["refused"] and "nobody answers at /run/two-sides/gone.sock" in failed["msg"], failed


def test_nginx_that_cannot_load_keeps_the_old_division(balancers: Balancers) -> None:
    """A bind conflict: nginx -t and the reload end with 0, and nothing has changed."""
    assert "failed" not in balancers.one("lb1", all_to("nginx_include", "blue"))
    path = "/etc/nginx/conf.d/split-weighted.conf"
    before = balancers.sh("lb1", "cat", path)
    balancers.lab.write("lb1", "/etc/nginx/conf.d/conflict.conf", "server { listen 127.0.0.1:9101; }\n")
    try:
        failed = balancers.one("lb1", all_to("nginx_include", "green"))
    finally:
        balancers.lab.exec("lb1", ["rm", "/etc/nginx/conf.d/conflict.conf"])
    assert "Address already in use" in failed["msg"] and not failed["refused"], failed
    assert balancers.sh("lb1", "cat", path) == before
    assert balancers.count("lb1", "weighted.example.test", 10) == {"blue": 10}
    # and a run that was cut off between writing and reloading is finished by the next one
    assert "failed" not in balancers.one("lb1", all_to("nginx_include", "green"))
    balancers.lab.write("lb1", path, before)
    done = balancers.one("lb1", all_to("nginx_include", "blue", probe=probe("weighted.example.test", count=10)))
    assert done["changed"] and done["proof"]["probe"]["answers"] == {"blue": 10, "green": 0}, done


# -- under load -----------------------------------------------------------------------------------------------------


class Judged:
    """What a strict client saw of a row of switches."""

    def __init__(self, log: str, results: list[dict[str, Any]], targets: list[str]) -> None:
        lines = [line.split(" ", 3) for line in log.splitlines()]
        answers = [(float(begin), float(end), node) for begin, end, node, _version in lines if node != "-"]
        self.wrong, self.last_old = 0, []
        ends = [*(one["started"] for one in results[1:]), results[-1]["started"] + results[-1]["seconds"] + 0.5]
        for result, target, until in zip(results, targets, ends):
            old = [(begin, end) for begin, end, node in answers if node != target and end < until]
            self.wrong += sum(1 for begin, _end in old if begin > result["proven_at"])
            after = [end - result["applied_at"] for _begin, end in old if end > result["applied_at"]]
            self.last_old.append(max(after, default=0.0))


def switch_under_load(
    balancers: Balancers, strategies: list[str], times: int, rate: int = 150, method: str = "GET", path: str = "/whoami"
) -> dict[str, tuple[dict[str, Any], Judged]]:
    """Switch there and back by each strategy at once while a strict client asks; what it saw, by strategy."""
    targets = ["green" if number % 2 == 0 else "blue" for number in range(times)]
    clients, running = {}, {}
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor() as pool:
        for strategy in strategies:
            node, host = ("lb2", HOST) if strategy == "haproxy" else ("lb1", f"{SITE[strategy]}.example.test")
            assert "failed" not in balancers.one(node, all_to(strategy, "blue"))
            options: dict[str, Any] = {
                "connections": 20,
                "rate": rate,
                "method": method,
                "log": f"/tmp/load-{strategy}",
            }
            client = balancers.lab.strict_client(f"http://{node}{path}", host=host, seconds=200, **options)
            clients[strategy] = stack.enter_context(client)
        for strategy in strategies:
            node, asked = "lb2" if strategy == "haproxy" else "lb1", [all_to(strategy, target) for target in targets]
            running[strategy] = pool.submit(balancers.many, node, asked, 0.1)
        results = {strategy: future.result() for strategy, future in running.items()}
    seen = {}
    for strategy, done in results.items():
        assert all(one.get("changed") for one in done), done
        names = {"blue": "app1", "green": "app2"} if strategy == "haproxy" else {"blue": "blue", "green": "green"}
        log = balancers.sh("ops1", "cat", f"/tmp/load-{strategy}")
        judged = Judged(log, done, [names[target] for target in targets])
        last, seconds = sorted(judged.last_old), sorted(one["seconds"] for one in done)
        result = clients[strategy].result
        print(
            f"{strategy}, {method}, {times} switches: {result['requests']} requests, "
            f"{result['requests'] / result['seconds']:.0f} of {rate} a second, {result['failed']} failed "
            f"{result['failures']}, {judged.wrong} wrong after confirmation; last old answer median "
            f"{last[times // 2] * 1000:.1f} ms, worst {last[-1] * 1000:.1f} ms; {seconds[times // 2]:.2f} s a call"
        )
        seen[strategy] = result, judged
    return seen


AT_ONCE = ["haproxy", "nginx_socket", "nginx_flag", "nginx_flags"]
BY_RELOAD = ["nginx_include", "nginx_split_clients"]


def test_twenty_switches_of_each_under_load_lose_nothing(fresh: Balancers) -> None:
    for seen, judged in switch_under_load(fresh, AT_ONCE, 20).values():
        assert seen["failed"] == 0 and seen["requests"] > 500, seen
        assert judged.wrong == 0


def test_a_reload_of_nginx_under_load_is_reported_as_it_is(balancers: Balancers) -> None:
    """nginx before 1.27.4 promises nothing to clients that keep connections; nothing old answers what comes later."""
    for seen, judged in switch_under_load(balancers, BY_RELOAD, 4).values():
        assert judged.wrong == 0 and set(seen["failures"]) <= {"closed", "reset"}, seen


@pytest.mark.soak
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("strategy", [*AT_ONCE, *BY_RELOAD])
def test_many_switches_under_load(fresh: Balancers, strategy: str, method: str, restore: Restore) -> None:
    """More of the same at what the machine bears of 2,000 requests a second: 20 switches for each of KILLS up to 60."""
    for node in ("app1", "app2"):
        restore.path(node, f"/srv/worklog/shared/uploads/{hashlib.sha256().hexdigest()}")  # of an empty POST
    path = "/upload" if method == "POST" else "/whoami"
    seen, judged = switch_under_load(fresh, [strategy], 20 * min(KILLS, 3), 2000, method, path)[strategy]
    assert judged.wrong == 0
    if strategy in AT_ONCE:
        assert seen["failed"] == 0, seen


# -- several as one -------------------------------------------------------------------------------------------------

PLAY = """
- hosts: load_balancers
  gather_facts: false
  any_errors_fatal: true
  vars:
    flag:
      strategy: nginx_flag
      path: /var/lib/lab-rotation/green
      sides: [{name: blue, percent: 0}, {name: green, percent: 100}]
    weight:
      strategy: haproxy
      backend: worklog_api
      sides: [{name: blue, servers: [app1], percent: 0}, {name: green, servers: [app2], percent: 100}]
    split: "{{ flag if inventory_hostname == 'lb1' else weight }}"
  tasks:
    - name: Change all of them as one
      block:
        - name: Switch to green
          worklog.maintenance.traffic_split:
            strategy: "{{ split.strategy }}"
            backend: "{{ split.backend | default(omit) }}"
            path: "{{ split.path | default(omit) }}"
            sides: "{{ split.sides }}"
          register: switched
      rescue:
        - name: Put back those that were changed
          worklog.maintenance.traffic_split:
            strategy: "{{ split.strategy }}"
            backend: "{{ split.backend | default(omit) }}"
            path: "{{ split.path | default(omit) }}"
            sides: "{{ split.sides }}"
            restore: "{{ switched.before }}"
          when: switched is success
        - name: Say that it failed
          ansible.builtin.fail:
            msg: One load balancer did not change, so none has
"""


def test_several_load_balancers_change_as_one(fresh: Balancers, tmp_path: Path) -> None:
    play = tmp_path / "play.yml"
    play.write_text(PLAY, encoding="utf-8")
    assert "failed" not in fresh.one("lb1", all_to("nginx_flag", "blue"))
    fresh.sh("lb2", "systemctl", "stop", "haproxy")
    try:
        done = fresh.lab.playbook(play)
    finally:
        fresh.sh("lb2", "systemctl", "start", "haproxy")
    assert done.returncode and "so none has" in done.stdout, done.stdout + done.stderr
    assert "no HAProxy answers at /run/haproxy/admin.sock" in done.stdout
    assert done.stdout.count("changed: [lb1]") == 2, done.stdout  # switched, and put back
    assert fresh.count("lb1", "flagged.example.test", 10) == {"blue": 10}
    fresh.lab.wait_for("lb2", 8404, "/lb-health")
    done = fresh.lab.playbook(play)
    assert done.returncode == 0, done.stdout + done.stderr
    assert fresh.count("lb1", "flagged.example.test", 10) == {"green": 10}
    assert fresh.servers() == {"app1": (0, 0), "app2": (100, 0)}
    assert not fresh.one("lb1", all_to("nginx_flag", "green"))["changed"]
    assert not fresh.one("lb2", all_to("haproxy", "green"))["changed"]
