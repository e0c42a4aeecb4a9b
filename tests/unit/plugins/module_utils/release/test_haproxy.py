# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counters as HAProxy 2.6.12 told them (fixtures/haproxy), and sockets that misbehave.

Between before.txt and after.txt the server rude/one was asked for: three good answers, a 500, one cut short, none, one
that is no HTTP, one that came too late. Four requests to the backend *none* began at a server that refused the
connection and were answered by the other one; one to the backend *dead* had no other. reloaded.txt is that after a
reload, a 500 and a good answer; down.txt after the server was stopped.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils import haproxy_socket
from ansible_collections.worklog.maintenance.plugins.module_utils.release import haproxy
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import Counts, SourceError
from ansible_collections.worklog.maintenance.plugins.module_utils.release.haproxy import HaproxySource, ask, parse

FIXTURES = Path(__file__).parent / "fixtures" / "haproxy"


def transcript(name: str) -> str:
    return (FIXTURES / f"{name}.txt").read_text(encoding="utf-8")


def play(names: list[str], candidate: str, classes: list[str] | None = None) -> list[tuple[Counts, int]]:
    """What the source makes of the transcripts: each poll's counts and the resets so far."""
    answers = [transcript(name) for name in names]
    source = HaproxySource(
        ["/s"], {"candidate": [candidate], "baseline": []}, classes or ["5xx"], lambda *_unused: answers.pop(0)
    )
    source.begin()
    return [(source.poll().candidate, source.resets) for _unused in names[1:]]


@pytest.mark.parametrize(
    ("name", "requests", "errors"),
    [
        ("rude/one", 8, 5),
        ("rude", 8, 5),  # as clients saw it
        ("none/closed", 4, 4),
        ("none/one", 4, 0),
        ("none", 4, 0),
        ("dead/closed", 4, 4),  # tried three times again
        ("dead", 1, 1),
        ("worklog_api/app1", 0, 0),
    ],
)
def test_what_happened_is_counted(name: str, requests: int, errors: int) -> None:
    ((counts, resets),) = play(["before", "after"], name)
    assert (counts.requests, counts.errors, resets, counts.down) == (requests, errors, 0, "")


def test_other_classes_can_be_errors() -> None:
    ((counts, _unused),) = play(["before", "after"], "rude", ["2xx", "5xx"])
    assert (counts.requests, counts.errors) == (8, 8)


def test_a_reload_is_recognised_and_nothing_is_counted_twice() -> None:
    (first, zero), (second, one), (third, still_one) = play(["before", "after", "reloaded", "reloaded"], "rude/one")
    assert (first.requests, second.requests, third.requests) == (8, 2, 0)
    assert (second.errors, zero, one, still_one) == (1, 0, 1, 1)


def test_a_new_process_that_has_counted_more_than_the_old_one_is_recognised() -> None:
    other = transcript("after").replace("Pid: 179\n", "Pid: 204\n")
    answers = [transcript("before"), other]
    source = HaproxySource(["/s"], {"candidate": ["rude/one"]}, ["5xx"], lambda *_unused: answers.pop(0))
    source.begin()
    counts = source.poll().candidate
    assert (counts.requests, counts.errors, source.resets) == (9, 5, 1)


def test_counters_that_begin_anew_in_the_same_process_are_recognised() -> None:
    # "clear counters all" on the runtime socket
    answers = [transcript("after"), transcript("before")]
    source = HaproxySource(["/s"], {"candidate": ["rude/one"]}, ["5xx"], lambda *_unused: answers.pop(0))
    source.begin()
    counts = source.poll().candidate
    assert (counts.requests, counts.errors, source.resets) == (1, 0, 1)


def test_a_server_that_is_down_is_said_with_the_reason() -> None:
    *_unused, (counts, _resets) = play(["reloaded", "down"], "rude/one")
    assert counts.down == "HAProxy says that rude/one is DOWN (L4CON Connection refused)"
    assert not counts.levels, "nothing was answered, so there is no latency"


def test_several_sockets_and_servers_are_one_side() -> None:
    answers = {"/a": [transcript("before"), transcript("after")], "/b": [transcript("before"), transcript("after")]}
    sides = {"candidate": ["rude/one", "none/closed"], "baseline": ["none/one"]}
    source = HaproxySource(["/a", "/b"], sides, ["5xx"], lambda address, _unused: answers[address].pop(0))
    source.begin()
    seen = source.poll()
    assert (seen.candidate.requests, seen.candidate.errors) == (24, 18)
    assert (seen.baseline.requests, seen.baseline.errors) == (8, 0)


def test_an_unknown_server_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SourceError, match=r"has no 'rude/two' for the candidate; it has dead, dead/closed"):
        play(["before"], "rude/two")


@pytest.mark.parametrize("text", ["", "Unknown command: 'show'\n", "Pid: 1\n", "# pxname,svname,\nrude,one,\n"])
def test_what_is_no_statistics_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no statistics of HAProxy"):
        parse(text)
    source = HaproxySource(["/s"], {"candidate": ["x"]}, ["5xx"], lambda *_unused: text)
    with pytest.raises(SourceError, match="/s gave no statistics of HAProxy"):
        source.begin()


def serve(answer: bytes, hang: bool = False, path: str = "") -> str:
    server = socket.create_server(("127.0.0.1", 0)) if not path else socket.socket(socket.AF_UNIX)
    if path:
        server.bind(path)
        server.listen()

    def work() -> None:
        connection, _unused = server.accept()
        with server, connection:
            assert connection.recv(1000) == b"show info; show stat\n"
            connection.sendall(answer)
            if hang:
                connection.recv(1)

    threading.Thread(target=work, daemon=True).start()
    return path or f"127.0.0.1:{server.getsockname()[1]}"


def test_a_real_socket_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "show info; show stat"
    assert ask(serve(b"yes"), command) == "yes"
    assert ask(serve(b"yes", path=str(tmp_path / "s")), command) == "yes"
    monkeypatch.setattr(haproxy, "PATIENCE", 0.2)
    with pytest.raises(SourceError, match=r"did not answer 'show info; show stat' within 0.2 s"):
        ask(serve(b"yes", hang=True), command)
    with pytest.raises(SourceError, match="'stats socket' line"):
        ask(str(tmp_path / "none"), command)
    with pytest.raises(SourceError, match=r"no HAProxy answers at .*Connection refused"):
        ask("127.0.0.1:1", command)
    monkeypatch.setattr(haproxy_socket, "MAX_ANSWER", 10)
    with pytest.raises(SourceError, match="longer than 10 bytes"):
        ask(serve(b"x" * 100), command)


def test_a_socket_without_permission_is_refused_with_advice(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        os.chmod(path, 0)
        account = os.geteuid()
        if account == 0:  # root may open every socket
            os.seteuid(65534)
        try:
            with pytest.raises(SourceError, match="set become: true"):
                ask(path, "show info")
        finally:
            os.seteuid(account)


@pytest.mark.parametrize(
    ("before", "after", "latency"),
    [
        # as HAProxy 2.6.12 told them of requests that were held for 0.3 s, behind others that took 1 ms
        ((0.001, 300), (0.011, 310), 0.311),
        ((0.001, 300), (0.037, 340), 0.307),
        # worked out
        ((0.003, 1300), (0.009, 1310), 0.313),
        ((0.0, 0), (0.3, 10), 0.3),
        ((0.3, 1000), (0.001, 9000), 0.001),
        ((0.3, 1000), (0.0, 1010), 0.0),
    ],
)
def test_what_was_answered_before_weighs_nothing(
    before: tuple[float, int], after: tuple[float, int], latency: float
) -> None:
    found = haproxy.latency_since(before, after)
    assert found is not None and abs(found - latency) < 0.001
    assert haproxy.latency_since(after, after) is None


def test_a_slow_version_is_not_hidden_by_the_one_before_nor_by_a_reload() -> None:
    told = [(1, 3, 1000), (1, 18, 1010), (1, 32, 1020), (2, 5, 10)]
    answers = [
        f"Pid: {process}\n\n# pxname,svname,rtime,hrsp_2xx,\nb,s,{average},{requests},\n"
        for process, average, requests in told
    ]
    source = HaproxySource(["/s"], {"candidate": ["b/s"], "baseline": []}, ["5xx"], lambda *_unused: answers.pop(0))
    source.begin()
    latencies = [source.poll().candidate.levels["latency"] for _unused in told[1:]]
    assert [round(latency, 2) for latency in latencies] == [0.78, 0.76, 0.01] and source.resets == 1
