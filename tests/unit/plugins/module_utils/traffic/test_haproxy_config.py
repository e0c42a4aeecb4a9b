# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where HAProxy reads weights from at a reload: server lines are edited, and nothing else; lines of the state file."""

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import haproxy_config
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.haproxy_config import Configuration, words

CONFIG = """\
global
    server-state-base /var/lib/haproxy
    server-state-file global.state  # of all

defaults plain
    mode http

defaults hashed from plain
    hash-type consistent
    load-server-state-from-file global

frontend web
    bind :80
    server-like-name x

backend a
    balance source
    server app1 app1:8080 check weight 10 # the old one
    server "app 2" app2:8080
    server app3 app3:8080 weight 1 disabled

listen b from plain
    load-server-state-from-file local
    server app1 app1:9090 disabled check

backend c
    load-server-state-from-file none
    server app1 app1:1
    server-template app 2-3 app1:1
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("server a b:1 weight 2", ["server", "a", "b:1", "weight", "2"]),
        ("\tserver \"a b\" 'c d'#x", ["server", "a b", "c d"]),
        (r"log-format a\ b\#c", ["log-format", "a b#c"]),
        ("# server a", []),
        ("   ", []),
        ('http-request return string "x # y" # z', ["http-request", "return", "string", "x # y"]),
    ],
)
def test_words_of_a_line(line: str, expected: list[str]) -> None:
    assert [word.value for word in words(line)] == expected


def test_what_is_kept_in_server_lines() -> None:
    config = Configuration({"/x": CONFIG})
    assert config.kept("a", ["app1", "app 2", "app3", "app4"]) == {
        "app1": {"weight": "10", "disabled": False},
        "app 2": {"weight": None, "disabled": False},
        "app3": {"weight": "1", "disabled": True},
        "app4": None,
    }
    assert config.kept("c", ["app1", "app2"]) == {"app1": {"weight": None, "disabled": False}, "app2": None}


@pytest.mark.parametrize(
    ("backend", "server", "wanted", "old", "new"),
    [
        ("a", "app1", ("90", False), "check weight 10 #", "check weight 90 #"),
        ("a", "app1", (None, False), "check weight 10 #", "check #"),
        ("a", "app1", ("10", True), "weight 10 #", "weight 10 disabled #"),
        ("a", "app 2", ("3", True), "app2:8080\n", "app2:8080 weight 3 disabled\n"),
        ("a", "app3", ("1", False), "weight 1 disabled\n", "weight 1\n"),
        ("a", "app3", (None, False), "app3:8080 weight 1 disabled\n", "app3:8080\n"),
        ("b", "app1", ("5", False), "app1:9090 disabled check\n", "app1:9090 check weight 5\n"),
        ("a", "app1", ("10", False), "", ""),
    ],
)
def test_one_server_line_is_edited(
    backend: str, server: str, wanted: tuple[str | None, bool], old: str, new: str
) -> None:
    config = Configuration({"/other": "backend z\n    server app1 x:1\n", "/x": CONFIG})
    edits = config.edit(backend, {server: {"weight": wanted[0], "disabled": wanted[1]}})
    assert edits == ({"/x": CONFIG.replace(old, new, 1)} if old else {})
    after = Configuration({"/x": edits.get("/x", CONFIG)}).kept(backend, [server])[server]
    assert after == {"weight": wanted[0], "disabled": wanted[1]}


def test_an_edit_is_undone_by_what_was_kept() -> None:
    config = Configuration({"/x": CONFIG})
    kept = config.kept("a", ["app1", "app 2"])
    (edited,) = config.edit("a", {name: {"weight": "77", "disabled": True} for name in kept}).values()
    assert Configuration({"/x": edited}).edit("a", kept) == {"/x": CONFIG}  # type: ignore[arg-type]


def test_which_state_file_a_backend_reads() -> None:
    config = Configuration({"/x": CONFIG})
    assert config.state_file("a") == "/var/lib/haproxy/global.state"  # by the defaults above it
    assert config.state_file("b") == "/var/lib/haproxy/b"
    assert config.state_file("c") is None
    assert config.state_file("nothing") is None
    plain = "global\ndefaults\n    load-server-state-from-file global\nbackend a\n    server x y:1\n"
    assert Configuration({"/x": plain}).state_file("a") is None  # no file is named


@pytest.mark.parametrize(
    ("backend", "algorithm", "static"),
    [("a", "source", False), ("b", "source", True), ("b", "static-rr", True), ("a", "static-rr", True),
     ("b", "roundrobin", False), ("b", "leastconn", False), ("c", "uri", False)],
)  # fmt: skip
def test_static_algorithms(backend: str, algorithm: str, static: bool) -> None:
    assert Configuration({"/x": CONFIG}).static(backend, algorithm) is static


HEADER = [
    *("be_id", "be_name", "srv_id", "srv_name", "srv_addr"),
    *("srv_op_state", "srv_admin_state", "srv_uweight", "srv_iweight"),
]
TOP = ["1", "# " + " ".join(HEADER)]
OLD = "\n".join(
    [*TOP, "3 a 1 app1 172.18.0.5 0 0 1 1", "3 a 2 app2 172.18.0.6 2 1 1 1", "4 b 1 app1 10.0.0.1 2 0 9 9", ""]
)


def test_lines_of_the_state_file_are_replaced() -> None:
    assert haproxy_config.state_lines(OLD, "a") == {
        "app1": "3 a 1 app1 172.18.0.5 0 0 1 1", "app2": "3 a 2 app2 172.18.0.6 2 1 1 1",
    }  # fmt: skip
    row = dict(zip(HEADER, ["3", "a", "1", "app1", "172.18.0.5", "0", "0", "1", "1"]))
    line = haproxy_config.state_line(row, 25, 1)
    assert line == "3 a 1 app1 - 2 1 25 1"  # no address and no health of the past
    new = haproxy_config.state_text(OLD, HEADER, "a", {"app1": line})
    assert haproxy_config.state_lines(new, "a") == {"app1": line, "app2": "3 a 2 app2 172.18.0.6 2 1 1 1"}
    assert haproxy_config.state_lines(new, "b") == {"app1": "4 b 1 app1 10.0.0.1 2 0 9 9"}
    gone = haproxy_config.state_text(new, HEADER, "a", {"app1": None})
    assert "app1" not in haproxy_config.state_lines(gone, "a")
    assert haproxy_config.state_text("", HEADER, "a", {"app1": line}).splitlines() == [
        "1",
        "# " + " ".join(HEADER),
        line,
    ]
    assert haproxy_config.state_kept(None, HEADER) is None
