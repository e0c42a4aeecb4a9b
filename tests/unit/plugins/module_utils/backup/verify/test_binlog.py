# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Binary logs: every event, what the whole tells, and a directory of them. How they were made: fixtures/README.md."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.binlogs import Log
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.binlog import BinlogWalker, looks_like
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.check import verify
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup, Result

from tests.unit.plugins.module_utils.backup.verify.builders import COMPRESS, cut, flip, walk, zeroed
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture_files

pytestmark = pytest.mark.capability("A8")

FILES = fixture_files("binlog/logs.tar")
SEQUENCE = {name.rpartition("/")[2]: data for name, data in FILES.items() if name.startswith("all/")}
CLOSED = FILES["all/binlog.000002"]
HEADER = struct.Struct("<IBIIIH")


def events(data: bytes) -> list[int]:
    """Return where the events of a log begin, and where the last one ends."""
    places = [4]
    while places[-1] < len(data):
        places.append(places[-1] + HEADER.unpack_from(data, places[-1])[3])
    return places


def event(position: int, kind: int, body: bytes, flags: int = 0, crc: bool = True, time: int = 1_795_602_292) -> bytes:
    """Return one event as it stands at a position."""
    size = 19 + len(body) + (4 if crc else 0)
    whole = HEADER.pack(time, kind, 1, size, position + size, flags) + body
    return whole + (zlib.crc32(whole).to_bytes(4, "little") if crc else b"")


def stream(version: bytes, *parts: tuple[int, bytes], algorithm: int | None = 1) -> bytes:
    """Return a log made by hand: the description of a server's version, and events; ``None``: before checksums."""
    body = struct.pack("<H50sIB", 4, version, 0, 19)
    body += bytes(27) if algorithm is None else bytes(40) + bytes([algorithm])
    data = b"\xfebin" + event(4, 15, body, crc=algorithm is not None)
    for kind, part in parts:
        data += event(len(data), kind, part, crc=algorithm == 1)
    return data


def between(data: bytes) -> list[int]:
    """Return where a log can be cut between two transactions: before a GTID and what else stands between them."""
    return [place for place in events(data)[1:-1] if data[place + 4] in (3, 4, 161, 162, 163)]


def log(data: bytes, name: str = "binlog.000001") -> Log:
    part = walk(BinlogWalker(name), data).facts.part
    assert isinstance(part, Log)
    return part


def checks(data: bytes, notes: bool = False) -> list[str]:
    problems = walk(BinlogWalker("binlog.000001"), data).problems
    return [problem.check for problem in problems if notes or not problem.note]


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_logs_of_the_real_server(name: str) -> None:
    data, source = FILES[name], random.Random(1)
    whole = walk(BinlogWalker("binlog.000001"), data)
    encrypted = name.startswith("enc/")
    assert [problem.check for problem in whole.problems if not problem.note] == ["binlog.encrypted"] * encrypted
    assert not any(problem.damage for problem in whole.problems if not problem.note)
    in_use = name in ("all/binlog.000005", "all/binlog.000006", "live/binlog.000004")
    assert ("binlog.in_use" in [problem.check for problem in whole.problems]) == in_use
    assert looks_like(data[:512])
    for sizes in (lambda: 1, lambda: 7, lambda: source.randrange(1, 100)):
        walker = walk(BinlogWalker("binlog.000001"), data, sizes)
        assert (walker.problems, walker.facts) == (whole.problems, whole.facts)


def test_what_a_log_tells() -> None:
    walker = walk(BinlogWalker("binlog.000002"), CLOSED)
    assert walker.facts.attributes == {
        "server_version": "10.11.18-MariaDB-0+deb12u1-log",
        "checksum": "crc32",
        "server_id": 7,
        "events": len(events(CLOSED)) - 1,
        "transactions": 3,
    }
    assert walker.facts.part == Log(
        "binlog.000002", "binlog.000003", True, False, "0-7-3", "0-7-4,3-7-1,3-9-2", 1795602292.0, 1795602292.0
    )
    assert walker.facts.created == 1795602292.0
    states = {name: (log(data).start, log(data).end) for name, data in SEQUENCE.items()}
    assert [start for start, _end in list(states.values())[1:]] == [end for _start, end in list(states.values())[:-1]]


def test_without_checksums_this_is_told() -> None:
    walker = walk(BinlogWalker("binlog.000001"), FILES["none/binlog.000001"])
    assert walker.facts.attributes["checksum"] == "none"
    assert any("no checksums" in words for words in walker.facts.unchecked)


@pytest.mark.parametrize("name", ["all/binlog.000001", "all/binlog.000002", "comp/binlog.000001"])
def test_every_flip_and_every_lost_block_is_damage(name: str) -> None:
    data, source = FILES[name], random.Random(name)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << source.randrange(8)
        if place == 21 and changed[21] ^ data[21] == 1:
            continue  # the flag that says in use, which no checksum covers
        assert checks(bytes(changed)), place
    assert all(checks(zeroed(data, source, 64)) for _unused in range(100))


def test_what_is_seen_without_checksums() -> None:
    source = random.Random(3)
    data = FILES["none/binlog.000001"]
    caught = sum(bool(checks(flip(data, source))) for _unused in range(300))
    assert 60 <= caught < 300  # headers and the first event; a value has no redundancy
    assert all(checks(data[:length]) for length in range(len(data)) if length not in between(data))


@pytest.mark.parametrize("name", ["all/binlog.000001", "none/binlog.000001"])
def test_every_cut_inside_an_event_is_damage_and_one_between_events_is_seen(name: str) -> None:
    data = FILES[name]
    for length in range(len(data)):
        if length in between(data):
            assert not checks(data[:length])
            assert not log(data[:length]).closed
        else:
            assert checks(data[:length]), length


def test_a_live_log_that_was_copied_in_the_middle_of_an_event_is_no_damage() -> None:
    data = FILES["live/binlog.000004"]
    walker = walk(BinlogWalker("binlog.000004"), data[:-10])
    assert [(problem.check, problem.damage) for problem in walker.problems] == [("binlog.cut", False)]


def test_an_event_that_was_taken_out_is_damage() -> None:
    places = events(CLOSED)
    for begin, end in zip(places[1:-2], places[2:-1]):
        assert checks(CLOSED[:begin] + CLOSED[end:]) == ["binlog.event"]


MARIADB, MYSQL = b"10.6.12-MariaDB-log", b"8.0.36"
SID = bytes(range(16))
UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
EMPTY = (35, bytes(8))
BEFORE = (35, struct.pack("<Q", 1) + SID + struct.pack("<QQQ", 1, 1, 6))


QUERY = (2, b"query")
MARIADB_GTID = (162, struct.pack("<QIB", 1, 2, 0) + bytes(6))


def gtid(number: int) -> tuple[int, bytes]:
    return (33, b"\1" + SID + struct.pack("<Q", number) + bytes(16))


# MySQL by hand, after its documentation: there is none to make them.
@pytest.mark.parametrize(
    ("data", "start", "end"),
    [
        (stream(MYSQL, EMPTY, gtid(1), QUERY, gtid(2), QUERY, (4, bytes(8) + b"b.000002")), "", f"{UUID}:1-2"),
        (stream(MYSQL, BEFORE, gtid(6), QUERY, gtid(8), QUERY), f"{UUID}:1-5", f"{UUID}:1-6:8"),
        (stream(MYSQL, BEFORE, gtid(7), QUERY, gtid(6), (16, bytes(8))), f"{UUID}:1-5", f"{UUID}:1-7"),
        (stream(MYSQL, BEFORE, (42, bytes(30))), None, None),
        (stream(MYSQL, EMPTY, (34, bytes(42))), None, None),
        (stream(MYSQL, EMPTY), None, None),
        (stream(MYSQL, QUERY, (40, bytes(500))), None, None),
        (stream(b"5.7.44-log", BEFORE, gtid(6), QUERY, algorithm=0), f"{UUID}:1-5", f"{UUID}:1-6"),
        (stream(b"5.5.62-log", QUERY, algorithm=None), None, None),
        (stream(MARIADB, (163, bytes(4)), (162, struct.pack("<QIB", 1, 2, 1) + bytes(6)), QUERY), "", "2-1-1"),
        (stream(b"11.4.2-MariaDB", (163, struct.pack("<IIIQ", 1 | 1 << 28, 0, 4, 9))), "0-4-9", "0-4-9"),
        (stream(MARIADB, (172, bytes(9)), (250, b"")), None, None),
    ],
)
def test_streams(data: bytes, start: str | None, end: str | None) -> None:
    assert checks(data) == []
    assert (log(data).start, log(data).end) == (start, end)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ["binlog.cut"]),
        (b"\xfebin", ["binlog.cut"]),
        (b"hello, this is text", ["binlog.magic"]),
        (b"\xfdbin" + bytes(600), ["binlog.encrypted"]),
        (b"\xfebin" + bytes(300), ["binlog.event"]),
        (b"\xfebin" + event(4, 2, bytes(100)), ["binlog.event"]),
        (stream(MYSQL, algorithm=7), ["binlog.version"]),
        (stream(MYSQL, (0, b"")), ["binlog.event"]),
        (stream(MYSQL, (3, b"")) + b"x", ["binlog.trailing"]),
        (stream(MYSQL, (3, b"")) + bytes(5000), ["binlog.trailing"]),
        (stream(MYSQL) + bytes(5000), ["binlog.event"]),
        (stream(MARIADB, (163, struct.pack("<I", 9))), ["binlog.event"]),
        (stream(MYSQL, (2, bytes(3 << 20)), (2, b"x")), []),
        (flip(stream(MYSQL, (2, bytes(3 << 20)), (2, b"x")), random.Random(1), (500, 500)), ["binlog.event"]),
        (stream(MYSQL, (2, bytes(3 << 20)))[:-1], ["binlog.cut"]),
        (stream(MYSQL, (2, bytes(3 << 20)), (2, b"x"), algorithm=0), []),
        (stream(MYSQL, EMPTY, gtid(1)), ["binlog.cut"]),
        (stream(MYSQL, EMPTY, gtid(1), (2, b"BEGIN")), ["binlog.cut"]),
        (stream(MARIADB, MARIADB_GTID, QUERY), ["binlog.cut"]),
        (stream(MARIADB, MARIADB_GTID, QUERY, (2, b"COMMIT")), []),
        (stream(MYSQL).replace(b"\x04\x008.0", b"\x03\x008.0"), ["binlog.version"]),
    ],
)
def test_transcripts(data: bytes, expected: list[str]) -> None:
    assert checks(data) == expected
    sizes = 100_000 if len(data) > 100_000 else 3
    walker = walk(BinlogWalker("binlog.000001"), data, lambda: sizes)
    assert [problem.check for problem in walker.problems] == expected


@pytest.mark.parametrize("seed", range(40))
def test_hostile_files_never_raise(seed: int) -> None:
    source = random.Random(seed)
    data = bytearray(source.choice(sorted(FILES.values())))
    for _unused in range(source.randrange(1, 10)):
        data[source.randrange(len(data))] = source.choice((0, 1, 3, 4, 35, 162, 163, 255))
    changed = cut(bytes(data), source) if seed % 2 else bytes(data)
    whole = walk(BinlogWalker("binlog.000001"), changed)
    for longest in (1, 10, 200):
        walker = walk(BinlogWalker("binlog.000001"), changed, lambda longest=longest: source.randrange(1, longest + 1))
        assert (walker.problems, walker.facts) == (whole.problems, whole.facts)


# --- a directory of them ----------------------------------------------------------------------------------------------


def judged(folder: Path, files: dict[str, bytes]) -> Result:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return verify(Backup(str(folder), "logs"), now=1_800_000_000.0, limits=Limits())


def found(result: Result, severity: str = "critical") -> list[tuple[str, str]]:
    return [(finding.check, finding.message) for finding in result.findings if finding.severity == severity]


def test_a_whole_sequence_is_sound(tmp_path: Path) -> None:
    result = judged(tmp_path / "logs", SEQUENCE)
    assert result.verdict == "structure_ok", result.findings
    assert [entry["name"] for entry in result.attributes["binlogs"]] == sorted(SEQUENCE)
    assert judged(tmp_path / "part", dict(list(SEQUENCE.items())[2:4])).verdict == "structure_ok"
    assert judged(tmp_path / "raw", {**SEQUENCE, "x.000001": b"a log of nothing"}).verdict == "structure_ok"


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compressed_logs_of_a_sequence_are_followed(tmp_path: Path, codec: str) -> None:
    ending = {"gzip": ".gz", "zstd": ".zst"}[codec]
    files = {name + ending: COMPRESS[codec](data) for name, data in SEQUENCE.items()}
    assert judged(tmp_path / "logs", files).verdict == "structure_ok"
    del files[f"binlog.000002{ending}"]
    assert [check for check, _message in found(judged(tmp_path / "gap", files))] == ["binlog.gap"]


@pytest.mark.parametrize(
    ("name", "change", "verdict", "message"),
    [
        ("binlog.000002", None, "damaged",
         "binlog.000002 is missing: the transactions from 2026-11-25T10:24:52Z to 2026-11-25T10:24:52Z are not there"),
        ("binlog.000004", None, "damaged", "binlog.000004 is missing"),
        ("binlog.000002", "transaction", "damaged", "it ends inside of a transaction, after "),
        ("binlog.000002", "boundary", "damaged", "binlog.000002 does not lead to binlog.000003: transactions from"),
        ("binlog.000006", "boundary", "structure_ok", ""),
        ("binlog.000005", "cut", "inconclusive", "it ends in the middle of an event"),
        ("binlog.000002", "cut", "damaged", "it ends in the middle of an event"),
        ("binlog.000002", "zero", "damaged", "binlog.000002 is named like the logs beside it, but does not begin"),
        ("binlog.000006", "empty", "damaged", "binlog.000006 is named like the logs beside it, but does not begin"),
        ("binlog.000002", "swap", "damaged", "binlog.000002 does not lead to binlog.000003"),
    ],
)  # fmt: skip
def test_gaps(tmp_path: Path, name: str, change: str | None, verdict: str, message: str) -> None:
    files = dict(SEQUENCE)
    data = files.pop(name)
    if change == "boundary":
        files[name] = data[: between(data)[-1 if name == "binlog.000006" else -3]]
    elif change == "transaction":
        files[name] = data[: events(data)[-3]]
    elif change == "cut":
        files[name] = data[: events(data)[-4] + 5]
    elif change == "zero":
        files[name] = bytes(512) + data[512:]
    elif change == "empty":
        files[name] = b""
    elif change == "swap":
        files[name] = files["binlog.000004"]
    result = judged(tmp_path / "logs", files)
    assert result.verdict == verdict, result.findings
    assert any(message in words for _check, words in found(result)) == bool(message)


def test_a_missing_log_without_transactions_is_only_told(tmp_path: Path) -> None:
    files = {name: data for name, data in SEQUENCE.items() if name != "binlog.000003"}
    result = judged(tmp_path / "logs", files)
    assert result.verdict == "structure_ok"
    sentence = "binlog.000003 is missing between binlog.000002 and binlog.000004, but no transaction is lost by that"
    assert found(result, "warning") == [("binlog.gap", sentence)]


def test_a_single_log_without_an_end_mark_is_inconclusive(tmp_path: Path) -> None:
    for number, data in enumerate((FILES["raw/binlog.000006"], CLOSED[: events(CLOSED)[-2]])):
        result = judged(tmp_path / str(number), {"binlog.000006": data})
        assert (result.verdict, [check for check, _message in found(result)]) == ("inconclusive", ["binlog.gap"])
