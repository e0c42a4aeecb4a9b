# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of mariadb-backup as directories and streams. How they were made: fixtures/README.md."""

from __future__ import annotations

import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.check import verify
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import parse
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.mariabackup import (
    XbstreamWalker,
    looks_like,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup, Result

from tests.unit.plugins.module_utils.backup.verify.builders import COMPRESS, cut, flip, walk
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture, fixture_files

pytestmark = pytest.mark.capability("A8")

FILES = {**fixture_files("mariabackup/backups.tar"), **fixture_files("mariabackup/others.tar")}
STREAM = fixture("mariabackup/shop.xb")
TABLES = ["a", "c", "d", "empty_one", "k", "l" * 60, "p", "r", "s"]


def backup(name: str, *without: str) -> dict[str, bytes]:
    """Return the files of one backup; without the large ones of the system they are enough for a check."""
    files = {path.partition("/")[2]: data for path, data in FILES.items() if path.startswith(name + "/")}
    return {path: data for path, data in files.items() if path not in without and path[:4] not in ("undo", "ibda")}


def judged(folder: Path, files: dict[str, bytes], **expect: object) -> Result:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    expected = parse("backup", expect)
    return verify(Backup(str(folder), "backup", expect=expected), now=1_800_000_000.0, limits=Limits())


def checks(result: Result) -> list[str]:
    return sorted({finding.check for finding in result.findings if finding.severity == "critical"})


def stream(tmp_path: Path, data: bytes, name: str = "full.xb", **expect: object) -> Result:
    (tmp_path / name).write_bytes(data)
    expected = parse("backup", expect)
    return verify(Backup(str(tmp_path / name), "backup", expect=expected), now=1_800_000_000.0, limits=Limits())


@pytest.mark.parametrize("name", ["full", "inc1", "inc2", "prep", "prepinc", "tables"])
def test_the_backups_of_the_real_program(tmp_path: Path, name: str) -> None:
    result = judged(tmp_path / name, backup(name))
    assert result.verdict == "structure_ok", result.findings
    (facts,) = result.attributes["mariabackup"]
    assert facts["prepared"] == name.startswith("prep")
    assert facts["incremental"] == name.startswith("inc")
    assert facts["partial"] == (name == "tables")
    assert facts["binlog_file"] == "binlog.000001"
    assert facts["binlog_position"] > 3000
    assert facts["gtid"].startswith("0-7-")
    assert len(facts["uuid"]) == 36
    assert any("whether it can be prepared" in words for words in result.unchecked)


def test_tables_can_be_expected(tmp_path: Path) -> None:
    names = [f"shop.{name}" for name in TABLES]
    assert judged(tmp_path / "full", backup("full"), tables=names).verdict == "verified"
    assert judged(tmp_path / "full", {}, tables=[*names, "shop.gone"]).verdict == "damaged"


def test_the_system_tablespaces_are_followed(tmp_path: Path) -> None:
    files = {path.partition("/")[2]: data for path, data in FILES.items() if path.startswith("full/")}
    assert judged(tmp_path / "full", files).verdict == "structure_ok"
    undo = files["undo002"]
    (tmp_path / "full" / "undo002").write_bytes(flip(undo[:16384], random.Random(1)) + undo[16384:])
    assert judged(tmp_path / "full", {}).verdict == "damaged"


def changed(files: dict[str, bytes], change: str) -> None:
    if change == "flip":
        files["shop/k.ibd"] = flip(files["shop/k.ibd"], random.Random(2), (3 * 16384 + 100, 1000))
    elif change == "truncate":
        files["shop/k.ibd"] = files["shop/k.ibd"][:-16384]
    elif change == "delete":
        del files["shop/k.ibd"]
    elif change == "copy":
        files["shop/k.ibd"] = files["shop/a.ibd"]
    elif change == "newer":
        files["xtrabackup_checkpoints"] = files["xtrabackup_checkpoints"].replace(
            b"to_lsn = ", b"to_lsn = 0000000001 #"
        )
    elif change == "no log":
        del files["ib_logfile0"]
    elif change == "no info":
        del files["xtrabackup_info"]
    elif change == "empty":
        files["shop/k.ibd"] = b""
    elif change == "zero":
        files["shop/k.ibd"] = bytes(65536)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("flip", ["innodb.checksum"]),
        ("truncate", ["innodb.cut"]),
        ("delete", ["mariabackup.missing"]),
        ("copy", ["mariabackup.swapped"]),
        ("newer", ["mariabackup.checkpoints"]),
        ("no log", ["mariabackup.log"]),
        ("no info", ["mariabackup.missing"]),
        ("empty", ["innodb.cut"]),
        ("zero", ["innodb.header"]),
    ],
)
def test_damage_of_a_full_backup(tmp_path: Path, change: str, expected: list[str]) -> None:
    files = backup("full")
    changed(files, change)
    result = judged(tmp_path / "full", files)
    assert (result.verdict, checks(result)) == ("damaged", expected), result.findings


def test_a_stream_in_a_backup_of_our_own_is_opened(tmp_path: Path) -> None:
    name, entry = "backup.mbstream.gz", {"size": None, "sha256": None}
    (tmp_path / name).write_bytes(gzip.compress(STREAM))
    facts = stream(tmp_path, STREAM).attributes["mariabackup"][0]
    (tmp_path / "full.xb").unlink()
    positions = {key: facts[key] for key in ("from_lsn", "to_lsn", "last_lsn")}
    for last, expected in ((facts["last_lsn"], []), (facts["last_lsn"] + 1, ["manifest.positions"])):
        document = {"schema": 1, "id": "x", "files": [{"path": name, **entry}]}
        document["positions"] = {**positions, "last_lsn": last}
        (tmp_path / "manifest.json").write_text(json.dumps(document))
        result = judged(tmp_path, {}, tables=["shop.a"])
        assert checks(result) == expected, result.findings
        assert result.attributes["mariabackup"] == [facts]


def test_tables_that_were_made_renamed_and_dropped_meanwhile(tmp_path: Path) -> None:
    files = {path.partition("/")[2]: data for path, data in fixture_files("mariabackup/ddl.tar").items()}
    assert {"ddlt/fresh.new", "ddlt/trunc.new", "ddlt/trunc.ibd", "ddlt/oldname.ren", "ddlt/dropme.del"} <= set(files)
    tables = [f"ddlt.{name}" for name in ("fresh", "trunc", "rebuilt", "keepme", "newname")]
    result = judged(tmp_path / "ddl", files, tables=tables)
    assert result.verdict == "verified", result.findings
    assert any("3 tablespaces of tables that were made" in words for words in result.unchecked)
    for name, table in (("fresh.new", "fresh"), ("oldname.ren", "newname"), ("oldname.ibd", "newname")):
        data = (tmp_path / "ddl" / "ddlt" / name).read_bytes()
        (tmp_path / "ddl" / "ddlt" / name).unlink()
        result = judged(tmp_path / "ddl", {})
        assert checks(result) == ["mariabackup.missing"]
        assert f"ddlt/{table}" in result.sentence()
        (tmp_path / "ddl" / "ddlt" / name).write_bytes(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (lambda table, other: table, []),  # the other one is from before it was rebuilt
        (lambda table, other: flip(table, random.Random(2), (3 * 16384 + 100, 1000)), ["innodb.checksum"]),
        (lambda table, other: other, ["mariabackup.swapped"]),
    ],
)
def test_pages_of_a_table_that_was_rebuilt_meanwhile(
    tmp_path: Path, data: Callable[[bytes, bytes], bytes], expected: list[str]
) -> None:
    files = backup("full")
    files["shop/k.new"] = data(files["shop/k.ibd"], files["shop/a.ibd"])
    assert checks(judged(tmp_path / "full", files)) == expected


def test_a_page_after_the_end_of_the_log_is_damage(tmp_path: Path) -> None:
    files = backup("full")
    points = b"backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 50000\nlast_lsn = 50000\n"
    files["xtrabackup_checkpoints"] = points
    result = judged(tmp_path / "full", files)
    assert checks(result) == ["mariabackup.lsn"]
    # a prepared one has been changed since
    files["xtrabackup_checkpoints"] = files["xtrabackup_checkpoints"].replace(b"full-backuped", b"log-applied")
    assert judged(tmp_path / "full", files).verdict == "structure_ok"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("shop/a.ibd.delta", "cut", ["innodb.cut"]),
        ("shop/a.ibd.delta", "flip", ["innodb.checksum"]),
        ("shop/a.ibd.delta", "copy", ["mariabackup.swapped"]),
        ("shop/a.ibd.meta", None, ["mariabackup.meta"]),
    ],
)
def test_damage_of_an_incremental_backup(tmp_path: Path, name: str, content: str | None, expected: list[str]) -> None:
    files = backup("inc1")
    data = files.pop(name)
    if content == "cut":
        files[name] = data[:-1]
    elif content == "flip":
        files[name] = data[:20000] + bytes([data[20000] ^ 1]) + data[20001:]
    elif content == "copy":
        files[name] = files["shop/fresh.ibd.delta"]
    result = judged(tmp_path / "inc1", files)
    assert (result.verdict, checks(result)) == ("damaged", expected), result.findings


def test_a_stream(tmp_path: Path) -> None:
    assert looks_like(STREAM[:512])
    result = stream(tmp_path, STREAM, tables=["shop.a", "shop.p"])
    assert (result.verdict, result.format) == ("verified", "xbstream")
    assert result.members == result.attributes["files"] > 30
    (facts,) = result.attributes["mariabackup"]
    assert (facts["type"], facts["partial"]) == ("full-backuped", True)
    assert stream(tmp_path, COMPRESS["gzip"](STREAM), "full.xb.gz", tables=["shop.a"]).verdict == "verified"
    assert stream(tmp_path, COMPRESS["zstd"](STREAM), "full.zst", tables=["shop.a"]).verdict == "verified"


@pytest.mark.parametrize("place", ["", "log/"])
@pytest.mark.parametrize("name", ["backup.mbstream", "backup.xbstream.gz", "backup.xb.zst"])
def test_descriptions_beside_a_stream_are_those_of_the_stream(tmp_path: Path, name: str, place: str) -> None:
    """``--extra-lsndir`` leaves them there, without the files that they tell of."""
    described = {f"{place}{file}": data for file, data in backup("full").items() if file.startswith("xtrabackup_")}
    assert len(described) > 1
    packing = {"gz": "gzip", "zst": "zstd"}.get(name.rpartition(".")[2])
    whole = {name: COMPRESS[packing](STREAM) if packing else STREAM}
    assert judged(tmp_path / "stream", {**described, **whole}).verdict == "structure_ok"
    torn = {name: COMPRESS[packing](STREAM[:-100]) if packing else STREAM[:-100]}
    assert judged(tmp_path / "torn", {**described, **torn}).verdict == "damaged"
    assert judged(tmp_path / "alone", described).verdict == "damaged", "they are what is left of a backup"
    assert judged(tmp_path / "half", {**described, f"{place}shop/t.ibd": b""}).verdict == "damaged"


def chunks(data: bytes) -> list[int]:
    """Return where the chunks of a stream begin, and its end."""
    places = [0]
    while places[-1] < len(data):
        at = places[-1]
        length = struct.unpack_from("<I", data, at + 10)[0]
        payload = 20 + struct.unpack_from("<Q", data, at + 14 + length)[0] if data[at + 9 : at + 10] == b"P" else 0
        places.append(at + 14 + length + payload)
    return places


def found(data: bytes) -> list[str]:
    return [problem.check for problem in walk(XbstreamWalker(), data).problems]


def test_every_cut_of_a_stream_is_damage() -> None:
    places = chunks(STREAM)
    source = random.Random(1)
    for length in [*places[:-1], *(source.randrange(1, len(STREAM)) for _unused in range(30))]:
        assert found(STREAM[:length]) == ["xbstream.cut"] or length == 0


def test_flips_of_a_stream_are_damage() -> None:
    small = (
        part("a", b"hello") + part("b", b"world" * 100) + last("b") + last("a") + part("xtrabackup_info", b"x = 1\n")
    )
    small += last("xtrabackup_info")
    assert found(small) == []
    for place in range(len(small)):
        for bit in (1, 64):
            broken = small[:place] + bytes([small[place] ^ bit]) + small[place + 1 :]
            # One bit of each chunk says that it may be passed over when its type is not known.
            assert found(broken) or (bit == 1 and place - 8 in chunks(small)), place


def part(path: str, data: bytes, offset: int = 0) -> bytes:
    head = b"XBSTCK01\0P" + struct.pack("<I", len(path)) + path.encode()
    return head + struct.pack("<QQI", len(data), offset, zlib.crc32(data)) + data


def last(path: str) -> bytes:
    return b"XBSTCK01\0E" + struct.pack("<I", len(path)) + path.encode()


INFO = part("xtrabackup_info", b"uuid = 1\n") + last("xtrabackup_info")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (INFO, []),
        (part("a", b"1") + part("b", b"2") + part("a", b"3", 1) + last("b") + last("a") + INFO, []),
        (last("empty") + INFO, []),
        (part("mariadb_backup_info", b"uuid = 1\n") + last("mariadb_backup_info"), []),
        (part("a", b"1") + INFO, ["xbstream.cut"]),
        (part("a", b"1") + last("a"), ["xbstream.cut"]),
        (part("a", b"1") + part("a", b"3", 7) + last("a") + INFO, ["xbstream.chunk"]),
        (part("a", b"1") + part("a", b"3") + last("a") + INFO, ["xbstream.chunk"]),
        (INFO + b"x", ["xbstream.cut"]),
        (INFO + bytes(100), ["xbstream.chunk"]),
        (INFO[:10] + b"\xff\xff\xff\xff", ["xbstream.chunk"]),
        (b"XBSTCK01\0S" + INFO[10:], ["xbstream.type"]),
        (b"".join(part(str(number), b"") for number in range(1100)), ["xbstream.open"]),
    ],
)
def test_transcripts(data: bytes, expected: list[str]) -> None:
    for size in (1, 7, 1 << 20):
        walker = walk(XbstreamWalker(), data, lambda size=size: size)
        assert [problem.check for problem in walker.problems] == expected


def test_a_flipped_page_inside_of_a_stream_is_named(tmp_path: Path) -> None:
    ibd = bytearray(FILES["full/shop/a.ibd"])
    ibd[3 * 16384 + 50] ^= 1
    data = part("shop/a.ibd", bytes(ibd)) + last("shop/a.ibd") + INFO
    result = stream(tmp_path, data)
    assert [finding.subject.rpartition("!")[2] for finding in result.findings if finding.severity == "critical"] == [
        "shop/a.ibd"
    ]


@pytest.mark.parametrize("seed", range(20))
def test_hostile_streams_never_raise(seed: int) -> None:
    source = random.Random(seed)
    data = bytearray(b"".join(part(f"f{number}", bytes(number * 9)) for number in range(20)) + INFO)
    for _unused in range(source.randrange(1, 8)):
        data[source.randrange(len(data))] = source.randrange(256)
    walk(XbstreamWalker(), cut(bytes(data), source) if seed % 2 else bytes(data), lambda: source.randrange(1, 60))
