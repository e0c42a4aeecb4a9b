# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""maintenance_mode on a real nginx and HAProxy: what visitors see, that nothing is lost, and how it ends by itself."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.plugin_utils import program

from tests.system.conftest import Lab, Restore, call

SITE = "worklog.example.test"
TOKEN = "let-me-through-0123456789"
NODES = ("lb1", "lb2")
PROGRAM = "/usr/local/sbin/worklog-maintenance-mode"
STATE = "/var/lib/worklog-maintenance/mode"
#: How often a long campaign kills.
KILLS = int(os.environ.get("KILLS", "4"))
CONFIGURATION = {"lb1": "/etc/nginx", "lb2": "/etc/haproxy"}
SERVICE = {"lb1": "nginx", "lb2": "haproxy"}


class Modes:
    """Both load balancers with the module on them, and what clients see there."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.allowed = lab.exec("lb1", ["getent", "hosts", "app1"]).stdout.split()[0]

    def options(self, node: str, mode: str, **more: Any) -> dict[str, Any]:
        balancer: dict[str, Any] = (
            {"balancer": "nginx"} if node == "lb1" else {"balancer": "haproxy", "frontends": ["web"]}
        )
        given = {"site": SITE, "mode": mode, "reason": "a test", "by": "tester", "rate": 5, "burst": 10, **balancer}
        return {**given, "allow": [self.allowed], "token": TOKEN, "exempt": ["/health"], **more}

    def run(self, node: str, mode: str, *flags: str, **more: Any) -> dict[str, Any]:
        return self.lab.module(node, "maintenance_mode", *flags, **self.options(node, mode, **more))

    def ask(
        self, node: str, *curl: str, path: str = "/whoami", client: str = "ops1"
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of one request from another node."""
        argv = ["curl", "--silent", "--include", "--max-time", "15", "--header", f"Host: {SITE}", *curl]
        done = self.lab.exec(client, [*argv, f"http://{node}{path}"])
        head, _ignored, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.splitlines()
        headers = {name.lower(): value for name, _colon, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), headers, body

    def statuses(self, node: str, count: int, path: str = "/whoami") -> list[int]:
        argv = ["curl", "--silent", "--max-time", "15", "--header", f"Host: {SITE}", "--write-out", "%{http_code}\n"]
        urls = ["--output", "/dev/null", f"http://{node}{path}"] * count
        return [int(line) for line in self.lab.exec("ops1", [*argv, *urls]).stdout.split()]

    def files(self, node: str) -> str:
        """Every file of the configuration and of the modes, with its checksum and permissions."""
        places = [CONFIGURATION[node], STATE, "/etc/systemd/system"]
        listing = self.lab.exec(node, ["find", *places, "-type", "f", "-printf", "%m %p\n"], check=False).stdout
        sums = self.lab.exec(node, ["find", *places, "-type", "f", "-exec", "sha256sum", "{}", "+"], check=False).stdout
        links = self.lab.exec(node, ["find", *places, "-type", "l", "-printf", "%p -> %l\n"], check=False).stdout
        return "\n".join(sorted((listing + sums + links).splitlines()))

    def record(self, node: str) -> dict[str, Any]:
        last: dict[str, Any] = json.loads(
            self.lab.exec(node, ["tail", "-n1", "/var/log/worklog-maintenance/records.jsonl"]).stdout
        )
        return last

    def wait(self, node: str, status: int) -> None:
        limit = time.monotonic() + 120
        while self.ask(node)[0] != status:
            assert time.monotonic() < limit, f"{node} does not answer {status}"
            time.sleep(0.3)


@pytest.fixture(scope="module")
def modes(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Modes]:
    """Both load balancers, set up by the first switch."""
    steps = Restore(lab)
    for node in NODES:
        steps.run(node, ["systemctl", "restart", SERVICE[node]])
        for path in (CONFIGURATION[node], "/var/lib/worklog-maintenance", PROGRAM):
            steps.path(node, path)
        for unit in ("service", "timer"):
            steps.path(node, f"/etc/systemd/system/worklog-maintenance-mode.{unit}")
        steps.run(node, ["systemctl", "disable", "--quiet", "--now", "worklog-maintenance-mode.timer"])
    built = tmp_path_factory.mktemp("program") / Path(PROGRAM).name
    built.write_bytes(program.build("traffic.maintenance.cli"))
    built.chmod(0o755)
    try:
        for node in NODES:
            assert call(["docker", "cp", str(built), f"{lab.container(node)}:{PROGRAM}"]).returncode == 0
        yield Modes(lab)
    finally:
        for node in NODES:
            lab.exec(node, ["touch", "/etc/systemd/system/worklog-maintenance-mode.timer"])
        steps.undo()


def variables(**more: Any) -> list[str]:
    given = {"maintenance_mode_site": SITE, "maintenance_mode_exempt": "/health", **more}
    return ["--extra-vars", json.dumps(given)]


@pytest.mark.capability("B7")
def test_the_playbook_switches_all_or_none_and_tells(modes: Modes, tmp_path: Path) -> None:
    """As from AWX: every answer is a string."""
    lab = modes.lab
    (tmp_path / "tell.yml").write_text(
        f'- ansible.builtin.lineinfile:\n    path: {tmp_path}/told\n    create: true\n    mode: "0600"\n'
        '    line: "{{ notification | to_json }}"\n'
    )
    (tmp_path / "fail.yml").write_text("- ansible.builtin.fail:\n    msg: the chat is down\n")
    notify = f"{tmp_path}/tell.yml,{tmp_path}/fail.yml"
    before = {node: modes.files(node) for node in NODES}
    for node in NODES:
        lab.exec(node, ["rm", "-f", PROGRAM])  # it comes with the first switch

    # The second one cannot be proven, so the first one is put back.
    url = "{{ 'http://127.0.0.1:1/' if inventory_hostname == 'lb2' else 'http://127.0.0.1/' }}"
    common = {"maintenance_mode_notify": notify, "maintenance_mode_reason": "upgrade", "maintenance_mode_mode": "page"}
    done = lab.playbook("worklog.maintenance.maintenance_mode", *variables(**common, maintenance_mode_url=url))
    assert done.returncode and "everything is as it was: mode off" in done.stdout, done.stdout + done.stderr
    assert [modes.ask(node)[0] for node in NODES] == [200, 200]
    assert modes.record("lb1")["result"] == modes.record("lb2")["result"] == "failed"
    assert "lb2 could not be switched" in modes.record("lb1")["details"]["message"]

    done = lab.playbook("worklog.maintenance.maintenance_mode", *variables(**common, maintenance_mode_expires="45"))
    assert done.returncode == 0, done.stdout + done.stderr
    for node in NODES:
        assert modes.ask(node)[0] == 503 and modes.ask(node, path="/health")[0] == 200
        record = modes.record(node)
        assert record["result"] == "ok" and record["severity"] == "warning", record
        assert "the chat is down" in next(one for one in record["findings"] if one["severity"] == "warning")["message"]
        assert record["details"]["after"]["reason"] == "upgrade"
    done = lab.playbook(
        "worklog.maintenance.maintenance_mode", *variables(maintenance_mode_mode="off", maintenance_mode_notify=notify)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for node in NODES:
        assert modes.ask(node)[0] == 200
        record = modes.record(node)
        assert record["downtime_seconds"] == record["details"]["seconds"] > 0, record
    told = [json.loads(line)["event"] for line in (tmp_path / "told").read_text().splitlines()]
    assert told == ["maintenance_failed", "maintenance_started", "maintenance_ended"]
    for node in NODES:
        assert modes.run(node, "absent")["changed"] and not modes.run(node, "absent")["changed"]
        left = set(modes.files(node).splitlines()) - set(before[node].splitlines())
        assert not [line for line in left if CONFIGURATION[node] in line and "modes.map" not in line], left


@pytest.mark.soak
@pytest.mark.capability("B7")
def test_a_controller_that_is_killed_at_any_moment_is_followed_by_one_that_finishes(
    modes: Modes, tmp_path: Path
) -> None:
    """Also off again: everything is as it was, whatever the killed run has left."""
    lab, playbook, chance = modes.lab, "worklog.maintenance.maintenance_mode", random.Random(7)

    def switch(mode: str) -> float:
        started = time.monotonic()
        done = lab.playbook(playbook, *variables(maintenance_mode_mode=mode, maintenance_mode_reason="a test"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert [modes.ask(node)[0] for node in NODES] == [503 if mode == "page" else 200] * len(NODES)
        return time.monotonic() - started

    longest = switch("page")
    switch("off")
    before, left = {node: modes.files(node) for node in NODES}, []
    for number in range(KILLS):
        mode = ("page", "off")[number % 2]
        given = variables(maintenance_mode_mode=mode, maintenance_mode_reason="a test")
        with lab.controller(playbook, *given, log=tmp_path / "log"):
            time.sleep(2 + chance.random() * longest)
        left.append([modes.ask(node)[0] for node in NODES])
        switch(mode)
    if KILLS % 2:
        switch("off")
    for node in NODES:
        other = set(modes.files(node).splitlines()) ^ set(before[node].splitlines())
        assert not [line for line in other if not line.endswith("-mode.timer")], (
            "but for when the last one would have ended"
        )
    print(f"killed {KILLS} times (seed 7); what visitors got after each: {left}")


@pytest.mark.capability("B7")
@pytest.mark.parametrize("node", NODES)
def test_what_visitors_see_and_nobody_loses(modes: Modes, node: str) -> None:
    lab = modes.lab
    planned = modes.run(node, "page", "--check", "--diff")
    assert planned["changed"] and modes.ask(node)[0] == 200, planned
    assert TOKEN not in json.dumps(planned) and "(secret)" in json.dumps(planned["diff"])
    done = modes.run(node, "page")
    assert done["changed"] and done["proof"]["reload"] and done["after"]["by"] == "tester", done
    assert done["setup"] == planned["setup"]
    again = modes.run(node, "page")
    assert not again["changed"] and again["after"] == done["after"], again

    status, headers, body = modes.ask(node)
    assert (status, headers["retry-after"], headers["content-type"]) == (503, "120", "text/html; charset=utf-8")
    assert '<html lang="en">' in body and "http" not in body.lower().replace("<!doctype html>", ""), body
    assert '<html lang="zh-CN">' in modes.ask(node, "--header", "Accept-Language: zh-CN,zh;q=0.9,en;q=0.8")[2]
    assert '<html lang="en">' in modes.ask(node, "--header", "Accept-Language: en-GB,zh;q=0.5")[2]
    status, headers, body = modes.ask(node, "--header", "Accept: application/json", "--header", "Accept-Language: zh")
    assert status == 503 and headers["content-type"] == "application/json"
    assert json.loads(body)["retry_after"] == 120 and "维护" in json.loads(body)["message"]

    assert modes.ask(node, path="/health")[0] == 200
    assert modes.ask(node, client="app1")[0] == 200
    assert modes.ask(node, "--header", f"X-Maintenance-Token: {TOKEN}")[0] == 200
    assert modes.ask(node, "--header", f"X-Maintenance-Token: {TOKEN.upper()}")[0] == 503
    assert modes.ask(node, "--path-as-is", path="/health/../whoami")[0] == 503
    found = lab.exec(
        node, ["setpriv", "--reuid=65534", "--clear-groups", "grep", "-rsl", TOKEN, "/etc", "/var", "/run"], check=False
    )
    assert found.stdout == "", found.stdout
    assert TOKEN not in lab.exec(node, ["journalctl", "--no-pager", "--lines", "2000"]).stdout

    # Switched without a reload, under load: nothing is lost, what is under way is answered.
    modes.run(node, "off")
    host = {"host": SITE, "connections": 8, "rate": 60}
    slow = [
        "docker",
        "exec",
        lab.container("ops1"),
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        f"Host: {SITE}",
    ]
    held_open = [*slow, f"http://{node}/hold?seconds=4"]
    with (
        lab.strict_client(f"http://{node}/whoami", **host, seconds=60) as client,
        subprocess.Popen(held_open, stdout=subprocess.PIPE, text=True) as held,
    ):
        time.sleep(1)
        switched = [modes.run(node, mode) for mode in ("page", "off", "read_only", "off", "limit", "off")]
        assert held.communicate(timeout=120)[0] == "200"
    assert all(one.get("changed") and "reload" not in one["proof"] for one in switched), switched
    # whether the limit is reached in a moment depends on the machine; below it is in any case
    assert {"status 503"} <= set(client.result["failures"]) <= {"status 503", "status 429"}, client.result

    assert modes.run(node, "read_only")["changed"]
    assert modes.ask(node)[0] == 200
    for method in (["--head"], ["--request", "OPTIONS"]):  # the application has neither, and says so itself
        assert modes.ask(node, *method)[0] == 501
    big = modes.ask(node, "--request", "POST", "--data", "x" * 100_000, path="/upload")
    assert big[0] == 503 and big[1]["retry-after"] == "120", big
    assert modes.ask(node, "--request", "DELETE", path="/api/records/1")[0] == 503

    assert modes.run(node, "limit", expires="10")["changed"]
    # In one go: a client that is slow stays below any limit.
    argv = ["curl", "--silent", "--header", f"Host: {SITE}", "--header", "Accept: application/json"]
    argv += ["--write-out", "\n%{http_code} %header{retry-after}\n"] + [f"http://{node}/whoami"] * 100
    lines = lab.exec("ops1", argv).stdout.splitlines()
    passed, limited = (sum(line.startswith(f"{status} ") for line in lines) for status in (200, 429))
    assert passed >= 10 and limited >= 10 and passed + limited == 100, (passed, limited)
    assert lines.count("429 5") == limited == sum('"error": "rate_limited"' in line for line in lines)
    assert set(modes.statuses(node, 40, "/health")) == {200}

    # It is kept, whatever becomes of the load balancer.
    assert modes.run(node, "page")["changed"]
    for verb in ("reload", "restart"):
        lab.exec(node, ["systemctl", verb, SERVICE[node]])
        time.sleep(1)
        seen_now = modes.run(node, "status")
        assert modes.ask(node)[0] == 503, verb
        assert {one["severity"] for one in seen_now["findings"]} == {"info"}, seen_now
    assert modes.run(node, "off")["changed"] and not modes.run(node, "off")["changed"]
    assert modes.ask(node)[0] == 200


@pytest.mark.capability("B7")
@pytest.mark.parametrize("node", NODES)
def test_it_ends_by_itself(modes: Modes, node: str) -> None:
    lab = modes.lab

    def at(seconds: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))

    done = modes.run(node, "page", expires=at(5))
    assert done["changed"] and modes.ask(node)[0] == 503, done
    modes.wait(node, 200)
    timer = ["systemctl", "show", "worklog-maintenance-mode.timer", "--property=ActiveState,UnitFileState", "--value"]
    for _attempt in range(50):
        if lab.exec(node, timer).stdout.split() == ["inactive", "disabled"]:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(lab.exec(node, timer).stdout)
    for _attempt in range(300):  # it is written last
        if (record := modes.record(node))["by"] == "systemd":
            break
        time.sleep(0.1)
    assert record["by"] == "systemd" and record["details"]["how"] == "its time was over", record
    assert record["details"]["before"]["by"] == "tester" and record["downtime_seconds"] >= 4
    assert modes.run(node, "status")["findings"][-1]["message"] == f"{SITE}: mode off"

    # The time passes while the machine is down.
    assert modes.run(node, "page", expires=at(4))["changed"]
    assert call(["docker", "stop", "--time", "20", lab.container(node)]).returncode == 0
    time.sleep(3)
    assert call(["docker", "start", lab.container(node)]).returncode == 0
    for _attempt in range(100):
        if lab.exec(node, ["systemctl", "is-active", SERVICE[node]], check=False).stdout.strip() == "active":
            break
        time.sleep(0.2)
    modes.wait(node, 200)
    assert modes.run(node, "status")["after"]["mode"] == "off"

    # By hand, and while the load balancer is down.
    assert modes.run(node, "page")["changed"]
    lab.exec(node, ["systemctl", "stop", SERVICE[node]])
    said = lab.exec(node, ["worklog-maintenance-mode", "off", SITE]).stdout
    assert "has ended" in said, said
    lab.exec(node, ["systemctl", "start", SERVICE[node]])
    modes.wait(node, 200)


@pytest.mark.capability("B7")
@pytest.mark.parametrize("node", NODES)
def test_what_is_wrong_changes_nothing(modes: Modes, node: str) -> None:
    lab = modes.lab
    steps = Restore(lab)
    before = modes.files(node)
    for more, word in (
        ({"site": "worklog.exmaple.test"}, "worklog.example.test"),
        ({"mode": "pages"}, "value of mode must be one of"),
        ({"allow": ["10.0.0.1/8"]}, "did you mean 10.0.0.0/8?"),
        ({"expires": "2020-01-01T00:00:00Z"}, "which is over"),
        ({"expires": "2 hours"}, "neither minutes"),
        ({"reason": ""}, "say in 'reason' why"),
        ({"token": "short"}, "16 to 128"),
        (
            {"frontends": ["wed"]} if node == "lb2" else {"site": "*.example.test"},
            "did you mean 'web'" if node == "lb2" else "no site",
        ),
    ):
        refused = modes.run(
            node, more.get("mode", "page"), **{key: value for key, value in more.items() if key != "mode"}
        )
        assert refused["failed"] and word in refused["msg"], refused
        assert TOKEN not in refused["msg"]
    assert modes.files(node) == before

    # Refused by the load balancer's own test, with the set-up on disk: byte for byte as before.
    modes.run(node, "absent")
    path = f"/etc/nginx/sites-available/{SITE}" if node == "lb1" else "/etc/haproxy/haproxy.cfg"
    steps.path(node, path)
    text = lab.read(node, path)
    if node == "lb1":
        text = text.rstrip().rstrip("}") + "\tlocation = /.worklog-maintenance/limit { return 404; }\n}\n"
    else:
        text += "\nbackend wlm_b34f81cd\n\tserver one 127.0.0.1:1\n"
    try:
        lab.write(node, path, text)
        before = modes.files(node)
        failed = modes.run(node, "page")
        assert failed["failed"] and "everything is as it was: mode off" in failed["msg"], failed
        assert ("duplicate location" if node == "lb1" else "haproxy -c refuses") in failed["msg"], failed
        assert modes.files(node) == before and modes.ask(node)[0] == 200
    finally:
        steps.undo()
    lab.exec(node, ["systemctl", "reload", SERVICE[node]])

    # A reload that ends with exit code 0 while the old configuration goes on.
    if node == "lb1":
        server = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "7099"]
        steps.path(node, "/etc/nginx/conf.d/pending.conf")
        steps.run(node, ["systemctl", "stop", "holder"])
        try:
            lab.exec(node, ["systemd-run", "--quiet", "--unit=holder", *server])
            lab.exec(node, ["curl", "--silent", "--retry", "20", "--retry-connrefused", "http://127.0.0.1:7099/"])
            lab.write(node, "/etc/nginx/conf.d/pending.conf", "server { listen 127.0.0.1:7099; }\n")
            before = modes.files(node)
            failed = modes.run(node, "page", reload="signal", timeout=5)
            assert failed["failed"] and "Address already in use" in failed["msg"] and not failed["refused"], failed
            assert modes.files(node) == before and modes.ask(node)[0] == 200
        finally:
            steps.undo()

    # What somebody has edited by hand is not overwritten, unless that is asked for.
    assert not modes.run(node, "page").get("failed")
    path = f"/etc/nginx/worklog-maintenance/{SITE}.conf" if node == "lb1" else "/etc/haproxy/haproxy.cfg"
    text = lab.read(node, path)
    lab.write(node, path, text.replace("Retry-After 120", "Retry-After 121"))
    refused = modes.run(node, "page")
    assert refused["failed"] and refused["refused"] and "was edited by hand" in refused["msg"], refused
    assert modes.run(node, "off")["changed"]  # what ends it always works
    written = modes.run(node, "page", overwrite=True)
    assert written["changed"] and lab.read(node, path) == text, written
    assert modes.run(node, "off")["changed"]
