# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Access logs: lines as nginx writes them, lines as attackers would like them, and files that are rotated under way."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release.access_log import (
    MAX_LINE,
    AccessLogSource,
    Attempt,
    Format,
    FormatError,
    Tail,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import Observation, SourceError

UPSTREAM = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $upstream_addr $upstream_status '
    '$upstream_response_time "$http_user_agent"'
)
GOOD = '10.0.0.9 - - [25/Nov/2026:17:30:00 +0000] "GET / HTTP/1.1" 200 10.0.0.2:8080 200 0.012 "curl/7.88.1"'


def attempts(text: str, line: str, version: str = "upstream_addr", **options: str) -> list[Attempt] | None:
    return Format(text, version, **options).attempts(line.encode("latin-1"))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (GOOD, [Attempt("10.0.0.2:8080", 200, 0.012)]),
        # two servers were tried
        (
            GOOD.replace("10.0.0.2:8080 200 0.012", "10.0.0.2:8080, 10.0.0.1:8080 502, 200 0.001, 0.010"),
            [Attempt("10.0.0.2:8080", 502, 0.001), Attempt("10.0.0.1:8080", 200, 0.010)],
        ),
        # a server was tried, then the error page came from another group
        (
            GOOD.replace("10.0.0.2:8080 200 0.012", "10.0.0.2:8080 : 10.0.0.1:8080 404 : 200 0.001 : 0.010"),
            [Attempt("10.0.0.2:8080", 404, 0.001), Attempt("10.0.0.1:8080", 200, 0.010)],
        ),
        # the connection was refused: no status but nginx's own, no time
        (
            GOOD.replace("10.0.0.2:8080 200 0.012", "10.0.0.2:8080 502 -"),
            [Attempt("10.0.0.2:8080", 502, None)],
        ),
        # the client went away before an answer
        (GOOD.replace("200 0.012", "- 0.012"), [Attempt("10.0.0.2:8080", 0, 0.012)]),
        # no server was asked
        (GOOD.replace("10.0.0.2:8080 200 0.012", "- - -"), [Attempt("-", 0, None)]),
        (GOOD.replace("10.0.0.2:8080", "unix:/run/app.sock"), [Attempt("unix:/run/app.sock", 200, 0.012)]),
        # quotes as nginx and as Apache escape them
        (GOOD.replace("curl/7.88.1", "\\x22 500 10.0.0.2:8080 500 9.0 \\x22"), [Attempt("10.0.0.2:8080", 200, 0.012)]),
        (GOOD.replace("curl/7.88.1", '\\" 500 10.0.0.2:8080 500 9.0 \\"'), [Attempt("10.0.0.2:8080", 200, 0.012)]),
        (GOOD.replace("curl/7.88.1", "\\\\"), [Attempt("10.0.0.2:8080", 200, 0.012)]),
        # bytes that are no UTF-8
        (GOOD.replace("GET /", "GET /\xff\xfe\x00"), [Attempt("10.0.0.2:8080", 200, 0.012)]),
        # a user who would like to be somebody else's error
        (GOOD.replace("- - [", "- x [] \\x22 \\x22 500 10.0.0.2:8080 500 1 ["), None),
        ("", None),
        (GOOD[:-1], None),
        (GOOD + " more", None),
        (GOOD.replace(" 200 ", " 2000 ", 1), None),
        ("\xff" * 1000, None),
    ],
)
def test_a_line_tells_who_was_asked_and_what_they_answered(line: str, found: list[Attempt] | None) -> None:
    assert attempts(UPSTREAM, line) == found


def test_without_the_status_of_each_server_nginx_goes_on_when_one_has_failed() -> None:
    text = "$status $upstream_addr $request_time"
    assert attempts(text, "200 a:1, b:1 0.5") == [Attempt("a:1", 0, None), Attempt("b:1", 200, 0.5)]
    assert attempts(text, "200 a:1 : b:1 0.5") == [Attempt("b:1", 200, 0.5)]
    assert attempts(text, "502 a:1, b:1 0.5") == [Attempt("a:1", 0, None), Attempt("b:1", 502, 0.5)]


@pytest.mark.parametrize(
    ("text", "line", "version", "options", "found"),
    [
        ("combined", '1.2.3.4 - - [d] "GET / HTTP/1.1" 500 12 "-" "curl"', "status", {}, [Attempt("500", 500, None)]),
        (
            '$v "$r" $status $us', 'two "GET /" 200 1500',
            "v", {"time": "us", "unit": "us"}, [Attempt("two", 200, 0.0015)],
        ),
        (
            '$v "$r" $status ${ms}ms', 'two "GET /" 200 15ms',
            "$v", {"time": "$ms", "unit": "ms"}, [Attempt("two", 200, 0.015)],
        ),
        (
            '{"s":$status,"t":"$request_time","v":"$upstream_http_x_version"}', '{"s":200,"t":"0.004","v":"1.2.0"}',
            "upstream_http_x_version", {}, [Attempt("1.2.0", 200, 0.004)],
        ),
    ],
)  # fmt: skip
def test_formats(text: str, line: str, version: str, options: dict[str, str], found: list[Attempt]) -> None:
    assert attempts(text, line, version, **options) == found


@pytest.mark.parametrize(
    ("text", "version", "time_", "words"),
    [
        ("combined", "upstream_addr", "", r"has no \$upstream_addr; it has \$remote_addr"),
        ("$upstream_addr $request_time", "upstream_addr", "", r"neither \$status nor \$upstream_status"),
        ("$status$upstream_addr", "upstream_addr", "", r"nothing stands between \$status and \$upstream_addr"),
        ("$status $upstream_addr $status", "upstream_addr", "", r"\$status twice"),
        ("$status $upstream_addr", "upstream_addr", "request_time", r"has no \$request_time"),
    ],
)
def test_a_format_that_cannot_be_read_for_certain_is_refused(text: str, version: str, time_: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        Format(text, version, time_)


@pytest.mark.parametrize("piece", ["a", " ", '"', "\\", ", ", " : ", "1:1, ", "\\x", "[", "]"])
def test_no_line_takes_long(piece: str) -> None:
    text = Format(UPSTREAM, "upstream_addr")
    begin = time.perf_counter()
    for head in ("", GOOD[:60], GOOD[:80], GOOD[:-2]):
        text.attempts((head + piece * (MAX_LINE // len(piece))).encode())
    assert time.perf_counter() - begin < 1


def source(path: Path) -> AccessLogSource:
    sides = {"candidate": ["10.0.0.2:8080"], "baseline": ["10.0.0.1:8080"]}
    return AccessLogSource([str(path)], Format(UPSTREAM, "upstream_addr"), sides, ["5xx", "499"])


def line(server: int = 2, status: int = 200, times: int = 1) -> str:
    return GOOD.replace("10.0.0.2", f"10.0.0.{server}").replace(" 200 0.012", f" {status} 0.012") + "\n" * bool(times)


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="latin-1") as stream:
        stream.write(text)


def requests(seen: Observation) -> tuple[int, int, int, int]:
    return seen.candidate.requests, seen.candidate.errors, seen.baseline.requests, seen.baseline.errors


def test_only_new_lines_count_and_each_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, line() * 50)
    reader = source(log)
    reader.begin()
    assert requests(reader.poll()) == (0, 0, 0, 0)
    append(log, line(2) + line(2, 500) + line(1) + line(1, 499) + line(1, 404) + line(3))
    seen = reader.poll()
    assert requests(seen) == (2, 1, 3, 1)
    assert seen.candidate.latencies == [0.012] and len(seen.baseline.latencies) == 2
    assert requests(reader.poll()) == (0, 0, 0, 0)
    assert reader.notes() == {"lines": 6, "unreadable": 0, "others": 1, "rotations": 0}
    reader.end()


def test_a_line_counts_when_it_is_complete(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, line()[:40])
    reader = source(log)
    reader.begin()
    append(log, line()[40:] + line()[:30])  # the first was begun before the watch: not new
    assert requests(reader.poll()) == (0, 0, 0, 0)
    append(log, line()[30:90])
    assert requests(reader.poll()) == (0, 0, 0, 0)
    append(log, line()[90:])
    assert requests(reader.poll()) == (1, 0, 0, 0)
    assert not reader.unreadable


def test_a_renamed_log_is_read_to_its_end_and_the_new_one_from_its_beginning(tmp_path: Path) -> None:
    log, old = tmp_path / "log", tmp_path / "log.1"
    append(log, line())
    reader = source(log)
    reader.begin()
    append(log, line())
    log.rename(old)
    append(old, line())
    assert requests(reader.poll()) == (2, 0, 0, 0)
    append(old, line())  # nginx writes to it until it is told to open the new one
    append(log, line(2, 500))
    assert requests(reader.poll()) == (2, 1, 0, 0)
    append(old, line())
    append(log, line())
    assert requests(reader.poll()) == (2, 0, 0, 0)
    append(log, line())
    log.rename(tmp_path / "log.2")
    append(log, line() * 2)
    assert requests(reader.poll()) == (3, 0, 0, 0)
    assert reader.notes()["rotations"] == 2
    reader.end()


def test_a_log_that_is_copied_and_truncated_is_read_on_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, line() * 5)
    reader = source(log)
    reader.begin()
    append(log, line() + line()[:20])
    assert requests(reader.poll()) == (1, 0, 0, 0)
    shutil.copy(log, tmp_path / "log.1")
    os.truncate(log, 0)
    append(log, line(2, 500) + line(1))
    assert requests(reader.poll()) == (1, 1, 1, 0)
    assert reader.notes() == {"lines": 3, "unreadable": 0, "others": 0, "rotations": 1}


def test_a_removed_log_is_no_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, "")
    reader = source(log)
    reader.begin()
    log.unlink()
    assert requests(reader.poll()) == (0, 0, 0, 0)
    append(log, line())
    assert requests(reader.poll()) == (1, 0, 0, 0)


def test_a_line_that_is_too_long_is_left_out_in_little_memory(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, "")
    reader = source(log)
    reader.begin()
    append(log, "x" * 5_000_000)
    assert requests(reader.poll()) == (0, 0, 0, 0)
    append(log, "x" * 100 + "\n" + line())
    assert requests(reader.poll()) == (1, 0, 0, 0)
    append(log, "y" * (MAX_LINE + 1) + "\n" + line())
    assert requests(reader.poll()) == (1, 0, 0, 0)
    assert reader.unreadable == 1


def test_a_log_that_is_not_understood_is_doubtful(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, "")
    reader = source(log)
    reader.begin()
    append(log, line() * 18 + "what\n" * 2)
    reader.poll()
    assert not reader.doubt()
    append(log, "what\n")
    reader.poll()
    assert "3 of 21 new lines of the access log" in reader.doubt() and "do not match the log format" in reader.doubt()


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        Tail(str(tmp_path / "none"))
    with pytest.raises(SourceError, match="no regular file"):
        Tail(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="no regular file"):
        Tail(str(tmp_path / "pipe"))


def test_a_log_without_permission_is_refused_with_advice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, "")
    log.chmod(0)
    account = os.geteuid()
    if account == 0:  # root may read every file
        os.seteuid(65534)
    try:
        with pytest.raises(SourceError, match="set become: true"):
            Tail(str(log))
    finally:
        os.seteuid(account)
