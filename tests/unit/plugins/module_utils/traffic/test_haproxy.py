# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole work on a HAProxy whose tables are transcripts of 2.6.12, and which can be made to misbehave."""

from __future__ import annotations

import csv
import io
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import System
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import haproxy_api, work
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.balancer import Request
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.haproxy import Haproxy, find_program
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.probe import MarkedProbe
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import Side, TrafficError

FIXTURES = Path(__file__).parent / "fixtures"
CONFIG = """\
global
    stats socket /run/haproxy/admin.sock level admin
backend worklog_api
    balance roundrobin
    server app1 app1:8080 check
    server app2 app2:8080 check
"""


class Fake:
    """A HAProxy of two servers; attributes say how it behaves."""

    def __init__(self) -> None:
        self.servers = {name: {"weight": 1, "admin": 0, "op": 2, "initial": 1} for name in ("app1", "app2")}
        self.stat: dict[str, dict[str, str]] = {"app1": {}, "app2": {}, "BACKEND": {}}
        self.said: list[str] = []
        self.level = "admin"
        self.facts = "Pid: 4711\nNbproc: 1\n"
        self.deaf: set[str] = set()  # servers whose weight an agent keeps as it is
        self.refuse = ""  # a word in a command that is answered with an error
        self.in_flight: Callable[[], int] = lambda: 0

    def speak(self, address: str, command: str) -> str:
        self.said.append(command)
        if command == "show info":
            return self.facts
        if command == "show cli level":
            return f"{self.level}\n\n"
        if command == "show backend":
            return "# name\nworklog_api\nlowcode\n\n"
        if command.startswith("show servers state "):
            return self.state() if command.endswith(" worklog_api") else "Can't find backend.\n\n"
        if command.startswith("show stat "):
            return self.statistics()
        if self.refuse and self.refuse in command:
            return f"{self.refuse} is refused.\n\n"
        words = command.split()
        server = self.servers[words[2].partition("/")[2]]
        if words[3] == "weight":
            if words[2].partition("/")[2] not in self.deaf:
                server["weight"] = server["initial"] * (words[4] == "100%") if "%" in words[4] else int(words[4])
        else:
            server["admin"] = {"ready": 0, "maint": 1, "drain": 8}[words[4]]
        return "\n"

    def state(self) -> str:
        lines = (FIXTURES / "servers_state.txt").read_text().splitlines()
        for index, line in enumerate(lines):
            parts = line.split()
            if len(parts) > 4 and parts[3] in self.servers:
                one = self.servers[parts[3]]
                parts[5:9] = [str(one[key]) for key in ("op", "admin", "weight", "initial")]
                lines[index] = " ".join(parts)
        return "\n".join(lines) + "\n\n"

    def statistics(self) -> str:
        text = (FIXTURES / "show_stat.txt").read_text()
        rows = list(csv.DictReader(text.lstrip("# ").splitlines()))
        for row in rows:
            if row["svname"] in self.servers:
                row["weight"] = str(self.servers[row["svname"]]["weight"])
            row.update(self.stat.get(row["svname"], {}))
            if row["svname"] == "app1":
                row["scur"] = str(self.in_flight())
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return f"# {out.getvalue()}\n"


def sides(blue: float | None, green: float | None, **of_blue: Any) -> list[Side]:
    return [Side("blue", ("app1",), blue, **of_blue), Side("green", ("app2",), green)]


class Setting:
    """A HAProxy with its configuration on disk, and a clock."""

    def __init__(self, directory: Path) -> None:
        self.fake = Fake()
        self.config = directory / "haproxy.cfg"
        self.config.write_text(CONFIG)
        self.clock = 0.0
        self.checks: list[list[str]] = []
        self.valid = True
        self.proc = str(directory / "proc")

    def run(self, argv: list[str], **_options: Any) -> Result:
        self.checks.append(argv)
        return Result(tuple(argv), 0 if self.valid else 1, "", "" if self.valid else "[ALERT] no such keyword", 0.1)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def call(self, asked: list[Side], asker: Any = None, **options: Any) -> work.Outcome:
        options = {"backend": "worklog_api", "config": str(self.config), **options}
        request = Request("haproxy", asked, **options)
        system = System(self.run, sleep=self.sleep, monotonic=lambda: self.clock, proc=self.proc)
        balancer = work.make(request, system, self.fake.speak)
        extra = {"asker": asker} if asker else {}
        balancer.now = lambda: 1000 + self.clock
        return work.carry_out(request, system, balancer, **extra)

    def weights(self) -> list[int]:
        return [one["weight"] for one in self.fake.servers.values()]

    def sets(self) -> list[str]:
        return [command for command in self.fake.said if command.startswith("set ")]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_weights_are_set_kept_and_read_back(setting: Setting) -> None:
    planned = setting.call(sides(90, 10), check_mode=True)
    assert planned.changed and setting.weights() == [1, 1] and setting.config.read_text() == CONFIG
    done = setting.call(sides(90, 10))
    assert done.changed and setting.weights() == [90, 10]
    assert done.after.settings == planned.after.settings and done.diff == planned.diff
    assert setting.config.read_text() == CONFIG.replace("app1:8080 check", "app1:8080 check weight 90").replace(
        "app2:8080 check", "app2:8080 check weight 10"
    )
    assert setting.checks[-1] == ["haproxy", "-c", "-f", str(setting.config)]
    before = setting.sets()
    assert not setting.call(sides(90, 10)).changed and setting.sets() == before
    # the reload that forgets is repaired, and so is a configuration that somebody has written over
    setting.fake.servers["app1"]["weight"] = 1
    assert setting.call(sides(90, 10)).changed and setting.weights() == [90, 10]
    setting.config.write_text(CONFIG)
    again = setting.call(sides(90, 10))
    assert again.changed and "weight 90" in setting.config.read_text()


def test_what_takes_more_comes_first(setting: Setting) -> None:
    setting.call(sides(100, 0))
    setting.fake.said.clear()
    setting.call([replace(sides(0, 100)[0], state="maint"), sides(0, 100)[1]])
    assert setting.sets() == [
        "set server worklog_api/app2 weight 100",
        "set server worklog_api/app1 weight 0",
        "set server worklog_api/app1 state maint",
    ]
    assert "server app1 app1:8080 check weight 0 disabled\n" in setting.config.read_text()


def test_a_socket_that_may_only_look(setting: Setting) -> None:
    setting.fake.level = "operator"
    with pytest.raises(TrafficError, match="has the level operator and may not change weights"):
        setting.call(sides(90, 10))
    assert setting.call(sides(None, None)).before.division == {"blue": 50, "green": 50}
    # nor does a look need to know where a reload would read
    setting.fake.level = "admin"
    assert setting.call(sides(None, None), config=None).before.division == {"blue": 50, "green": 50}
    assert setting.call(sides(90, 10), config=None, persist="none").changed


def test_everything_comes_back_exactly(setting: Setting) -> None:
    before = setting.call(sides(None, None)).before
    setting.fake.servers["app2"]["admin"] = 8  # drained by somebody
    found = work.as_dict(setting.call(sides(100, 0)).before)
    back = setting.call(sides(None, None), restore=found)
    assert back.changed and setting.weights() == [1, 1] and setting.fake.servers["app2"]["admin"] == 8
    assert setting.config.read_text() == CONFIG
    setting.fake.servers["app2"]["admin"] = 0
    assert not setting.call(sides(None, None), restore=work.as_dict(before)).changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"deaf": {"app2"}}, "HAProxy took the commands, but worklog_api/app2 has weight 1"),
        ({"refuse": "app2 weight 0"}, "refuses 'set server worklog_api/app2 weight 0': app2 weight 0 is refused."),
    ],
)
def test_a_change_that_does_not_take_is_put_back(setting: Setting, change: dict[str, Any], words: str) -> None:
    for name, value in change.items():
        setattr(setting.fake, name, value)
    with pytest.raises(TrafficError) as error:
        setting.call(sides(100, 0))
    assert words in str(error.value) and not error.value.refused
    assert "the old division is back: blue 50 %, green 50 %" in str(error.value)
    assert setting.weights() == [1, 1] and setting.config.read_text() == CONFIG


def test_a_configuration_that_is_refused_is_put_back(setting: Setting) -> None:
    setting.valid = False
    with pytest.raises(TrafficError, match=r"it is as it was: .*no such keyword; the old division is back"):
        setting.call(sides(100, 0))
    assert setting.weights() == [1, 1] and setting.config.read_text() == CONFIG


def test_a_probe_that_finds_otherwise_puts_back(setting: Setting) -> None:
    probe = MarkedProbe("http://127.0.0.1/", header="X-Node", count=20)
    with pytest.raises(TrafficError, match="came blue 0, green 20; the old division is back"):
        setting.call(sides(100, 0), asker=lambda asked, number: "app2", probe=probe)
    assert setting.weights() == [1, 1]
    done = setting.call(sides(100, 0), asker=lambda asked, number: "app1", probe=probe)
    assert done.proof["probe"] == {"requests": 20, "answers": {"blue": 20, "green": 0}}

    # an interrupt is no reason to leave it half-way
    def interrupted(asked: MarkedProbe, number: int) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setting.call(sides(0, 100), asker=interrupted, probe=probe)
    assert setting.weights() == [100, 0]


@pytest.mark.parametrize(
    ("asked", "options", "words"),
    [
        (sides(50, 50), {"backend": "worklog_ap"}, "there is no backend 'worklog_ap'"),
        (sides(50, 50), {"backend": "a; shutdown"}, "the backend 'a; shutdown' cannot exist"),
        ([Side("blue", ("app9",), 100)], {}, "there is no server 'app9' in the backend worklog_api; did you mean"),
        ([Side("blue", ("app1",), 100)], {}, "worklog_api/app2 takes traffic and is of no side"),
        ([Side("blue", (), 100)], {}, "the side blue has no servers"),
        (sides(0, 100, state="ready"), {"drain": ["green"]}, "green cannot be drained while it gets 100 %"),
        (sides(50, 50, state="maint"), {}, "blue is to get 50 %, but none of its servers is in service (app1 maint)"),
        (sides(None, None), {"restore": {"settings": {"strategy": "nginx_flag"}}}, "has the strategy 'nginx_flag'"),
        (sides(None, None), {"restore": {}}, "this has no 'settings'"),
        (sides(50, 50), {"persist": "state_file"}, "reads no state file at a reload"),
        (sides(50, 50), {"config": None}, "name it in 'config', or set persist: none"),
        (sides(50, 50), {"config": "/nowhere/haproxy.cfg"}, "cannot read /nowhere/haproxy.cfg"),
    ],
)
def test_refusals(setting: Setting, asked: list[Side], options: dict[str, Any], words: str) -> None:
    with pytest.raises(TrafficError) as error:
        setting.call(asked, **options)
    assert words in str(error.value) and error.value.refused
    assert setting.sets() == []


def test_servers_that_are_out(setting: Setting) -> None:
    setting.fake.servers["app2"].update(admin=1, op=0)
    with pytest.raises(TrafficError, match=r"none of its servers is in service \(app2 maint\): find out who did that"):
        setting.call(sides(50, 50))
    done = setting.call(sides(100, 0))
    assert [one.check for one in done.findings] == ["traffic.server.maintenance", "traffic.division"]
    assert setting.fake.servers["app2"]["admin"] == 1 and done.findings[0].severity == "warning"
    asked = [sides(100, 0)[0], replace(sides(100, 0)[1], state="maint")]
    assert setting.call(asked).findings[0].severity == "info"
    done = setting.call([sides(50, 50)[0], replace(sides(50, 50)[1], state="ready")])
    assert setting.fake.servers["app2"]["admin"] == 0 and setting.weights() == [50, 50]

    setting.fake.servers["app2"]["op"] = 0
    setting.fake.stat["app2"] = {"status": "DOWN", "last_chk": "Connection refused", "check_status": "L4CON"}
    with pytest.raises(TrafficError, match=r"down by its check: app2 \(Connection refused\); bring it up first"):
        setting.call(sides(90, 10))
    (down,) = (one for one in setting.call(sides(None, None)).findings if one.severity == "critical")
    assert down.message == "worklog_api/app2 is down by its check: Connection refused"
    assert setting.call(sides(100, 0)).findings[0].severity == "info"  # it takes nothing


@pytest.mark.parametrize(
    ("stat", "check"),
    [
        ({"agent_status": "L7OK"}, "traffic.server.agent"),
        ({"weight": "30"}, "traffic.server.slowstart"),
        ({"cookie": "app2"}, "traffic.server.persistent"),
    ],
)
def test_what_else_decides_is_told(setting: Setting, stat: dict[str, str], check: str) -> None:
    setting.fake.stat["app2" if "cookie" in stat else "app1"] = stat
    assert check in [one.check for one in setting.call(sides(100, 0)).findings]


def test_static_algorithms_take_all_or_nothing(setting: Setting) -> None:
    setting.config.write_text(CONFIG.replace("roundrobin", "source"))
    setting.fake.stat["BACKEND"] = {"algo": "source"}
    with pytest.raises(TrafficError, match="balances by source, which takes only 0 or 100 %, not 90"):
        setting.call(sides(90, 10))
    with pytest.raises(TrafficError, match="could not be raised again at runtime"):
        setting.call(sides(100, 0))
    done = setting.call(sides(100, 0), persist="none")
    assert setting.sets() == ["set server worklog_api/app2 weight 0%"] and done.after.division == {
        "blue": 100,
        "green": 0,
    }
    assert "traffic.not_kept" in [one.check for one in done.findings]


def test_a_state_file_has_what_was_decided(setting: Setting) -> None:
    state = setting.config.parent / "state"
    extra = f"global\n    server-state-file {state}\ndefaults\n    load-server-state-from-file global\n"
    setting.config.write_text(extra + CONFIG)
    done = setting.call(sides(90, 10))
    assert done.after.settings["persist"] == "state_file" and setting.config.read_text() == extra + CONFIG
    lines = [line.split() for line in state.read_text().splitlines()]
    assert [(line[3], line[4], line[5], line[6], line[7]) for line in lines[2:]] == [
        ("app1", "-", "2", "0", "90"), ("app2", "-", "2", "0", "10"),
    ]  # fmt: skip
    assert not setting.call(sides(90, 10)).changed
    setting.call(sides(None, None), restore=work.as_dict(done.before))
    assert len(state.read_text().splitlines()) == 2 and setting.weights() == [1, 1]


def test_draining_waits_for_the_last_one(setting: Setting) -> None:
    setting.fake.in_flight = lambda: 20 if setting.clock < 3 else 0
    done = setting.call(sides(0, 100), drain=["blue"])
    assert done.in_flight == {"blue": 0, "green": 0}
    (drained,) = done.drained
    assert drained["in_flight"] == 20 and drained["left"] == 0 and 3 <= drained["seconds"] < 3.1
    setting.call(sides(50, 50))
    setting.clock = 0.0
    with pytest.raises(
        TrafficError, match=r"20 of 20 requests were still under way on blue after 1 s.*is back: blue 50 %"
    ):
        setting.call(sides(0, 100), drain=["blue"], drain_timeout=1)
    assert setting.weights() == [50, 50]
    setting.clock = 0.0
    done = setting.call(sides(0, 100), drain=["blue"], drain_timeout=1, drain_fails=False)
    (finding,) = (one for one in done.findings if one.check == "traffic.drain")
    assert finding.observed == 20 and setting.weights() == [0, 100]


def test_what_cannot_be_counted_does_not_keep_the_traffic_where_it_must_not_stay(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_self: Haproxy, _side: Side) -> int:
        raise TrafficError("no counts")

    monkeypatch.setattr(Haproxy, "in_flight", gone)
    with pytest.raises(TrafficError, match="no counts"):
        setting.call(sides(0, 100), drain=["blue"])
    assert setting.weights() == [1, 1]
    done = setting.call(sides(0, 100), drain=["blue"], drain_fails=False)
    (finding,) = (one for one in done.findings if one.check == "traffic.drain")
    assert "cannot be counted (no counts)" in finding.message and setting.weights() == [0, 100]


def test_every_process_has_weights_of_its_own(setting: Setting) -> None:
    setting.fake.facts = "Pid: 4711\nNbproc: 2\n"
    with pytest.raises(TrafficError, match="HAProxy runs 2 processes"):
        setting.call(sides(50, 50))
    other, first = Fake(), setting.fake
    fakes = {"/a": first, "/b": other}
    first.facts = other.facts = "Pid: 4711\nNbproc: 2\n"

    class Both:
        def speak(self, address: str, command: str) -> str:
            return fakes[address].speak(address, command)

    setting.fake = Both()  # type: ignore[assignment]
    setting.call(sides(90, 10), sockets=["/a", "/b"])
    assert [one["weight"] for fake in (first, other) for one in fake.servers.values()] == [90, 10, 90, 10]
    other.servers["app1"]["weight"] = 7
    assert setting.call(sides(90, 10), sockets=["/a", "/b"]).changed
    assert other.servers["app1"]["weight"] == 90


def test_the_program_of_a_process(tmp_path: Path) -> None:
    home = tmp_path / "42"
    home.mkdir()
    (home / "cmdline").write_bytes(
        b"/usr/sbin/haproxy\0-Ws\0-f\0/etc/haproxy/haproxy.cfg\0-f\0more.cfg\0-p\0/run/haproxy.pid\0-sf\0007\0--\0last.cfg\0"
    )
    (home / "environ").write_bytes(b"CONFIG=/etc/haproxy/haproxy.cfg\0A=b=c\0")
    (home / "cwd").symlink_to("/srv")
    found = find_program("42", None, None, str(tmp_path))
    assert found is not None
    assert found.executable == "/usr/sbin/haproxy" and found.environment["A"] == "b=c"
    assert found.paths == ("/etc/haproxy/haproxy.cfg", "/srv/more.cfg", "/srv/last.cfg")
    assert find_program("43", None, None, str(tmp_path)) is None
    (home / "cmdline").write_bytes(b"/usr/bin/python3\0x\0")
    assert find_program("42", None, None, str(tmp_path)) is None


# -- the socket itself ----------------------------------------------------------------------------------------------


def test_one_command_a_connection(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with pytest.raises(TrafficError, match="no HAProxy answers at"):
        haproxy_api.speak(path, "show info")
    with pytest.raises(TrafficError, match="would be more than one command"):
        haproxy_api.speak(path, "show info; disable server a/b")
    with pytest.raises(TrafficError, match="neither a path"):
        haproxy_api.speak("admin", "show info")
    answers = [b"Name: HAProxy\n\n", b"Permission denied\n\n", b"Unknown command: 'x'\nmore\n\n"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ignored = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert haproxy_api.info(haproxy_api.speak(path, "show info")) == {"Name": "HAProxy"}
        with pytest.raises(TrafficError, match="may not 'set server': give its 'stats socket' line 'level admin'"):
            haproxy_api.speak(f"unix@{path}", "set server a/b weight 1")
        with pytest.raises(TrafficError, match="does not know 'x'"):
            haproxy_api.speak(path, "x")
        thread.join()


def test_tables_that_are_none() -> None:
    with pytest.raises(TrafficError, match="which is no table of servers"):
        haproxy_api.servers_state("something else", "a")
