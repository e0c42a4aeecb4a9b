# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict on whole backups: files, archives and trees, against what was expected of them."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import reading
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import content
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.check import verify
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import parse
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.history import History
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup, Result

from tests.unit.plugins.module_utils.backup.verify.builders import (
    COMPRESS,
    END,
    UNCOVERED,
    cut,
    flip,
    header,
    padded,
    tar,
    text,
    zeroed,
)
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture

pytestmark = pytest.mark.capability("A8")

NOW = 1_800_000_000.0
ENV = b"# worklog\nDB_HOST=db1\nexport DB_PASSWORD='s3cret'\n\nPORT=3002\n"


def check(path: Path | str, format: str = "auto", **options: Any) -> Result:
    """Verify one backup; what is not an option of the check is expected of the backup."""
    history = options.pop("history", None)
    manifest = options.pop("manifest", None)
    limits = options.pop("limits", Limits())
    more = {key: options.pop(key) for key in ("log", "identity") if key in options}
    backup = Backup(str(path), options.pop("name", str(path)), format, parse(str(path), options), manifest, **more)
    now = NOW if options.get("max_age") else time.time()
    return verify(backup, now=now, limits=limits, history=history)


def write(path: Path, data: bytes, age: float = 3600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (NOW - age, NOW - age))
    return path


def checks(result: Result, severity: str = "critical") -> list[str]:
    return sorted({finding.check for finding in result.findings if finding.severity == severity})


# --- what each verdict means ------------------------------------------------------------------------------------------


def test_without_an_expectation_the_best_is_structure_ok(tmp_path: Path) -> None:
    result = check(write(tmp_path / "logs.tar.gz", gzip.compress(tar())))
    assert result.verdict == "structure_ok"
    assert (result.format, result.compression, result.members) == ("tar", ["gzip"], 14)
    assert result.sha256 == hashlib.sha256((tmp_path / "logs.tar.gz").read_bytes()).hexdigest()
    assert any("SHA-256" in words for words in result.unchecked)
    assert any("nothing is expected of its content" in words for words in result.unchecked)
    assert any("age" in words for words in result.unchecked)


@pytest.mark.parametrize(
    ("expect", "verdict", "failed"),
    [
        ({"members": ["uploads/file-1"]}, "verified", []),
        ({"members": "uploads/file-1,*/file-2"}, "verified", []),
        ({"members": ["uploads/file-1", "uploads/file-77"]}, "damaged", ["expect.members"]),
        ({"min_members": 14}, "verified", []),
        ({"min_members": 15}, "damaged", ["expect.min_members"]),
        ({"min_size": "100"}, "structure_ok", []),
        ({"min_size": "1M"}, "damaged", ["expect.min_size"]),
        ({"max_size": "1K"}, "inconclusive", ["expect.max_size"]),
        ({"max_age": "2h"}, "structure_ok", []),
        ({"max_age": 7200}, "structure_ok", []),
        ({"max_age": "30m"}, "stale", ["expect.max_age"]),
        ({"max_age": "30m", "min_members": 1}, "stale", ["expect.max_age"]),
        ({"max_age": "30m", "min_members": 99}, "damaged", ["expect.max_age", "expect.min_members"]),
        ({"sha256": "0" * 64}, "damaged", ["backup.sha256"]),
        ({"tables": ["worklog.users"]}, "damaged", ["expect.tables"]),
        ({"databases": ["worklog"]}, "damaged", ["expect.databases"]),
        ({"size_change": "10%"}, "structure_ok", []),
    ],
)
def test_expectations(tmp_path: Path, expect: dict[str, Any], verdict: str, failed: list[str]) -> None:
    result = check(write(tmp_path / "logs.tar.gz", gzip.compress(tar())), **expect)
    assert result.verdict == verdict, result.findings
    assert checks(result) == failed


def test_a_future_backup_is_inconclusive(tmp_path: Path) -> None:
    result = check(write(tmp_path / "logs.tar.gz", gzip.compress(tar()), age=-86400), max_age="1d")
    assert (result.verdict, checks(result)) == ("inconclusive", ["expect.max_age"])


@pytest.mark.parametrize("name", ["nothing.tar.gz", "nothing-*.tar.gz", "dangling"])
def test_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    result = check(tmp_path / name)
    assert (result.verdict, checks(result)) == ("missing", ["backup.missing"])
    assert str(tmp_path / name) in result.sentence()


def test_a_pattern_stands_for_its_newest_match(tmp_path: Path) -> None:
    for day, age in (("01", 3), ("02", 1), ("03", 2)):
        write(tmp_path / day / f"worklog_{day}.tar.gz", gzip.compress(tar()), age=age * 86400)
    write(tmp_path / "04" / "worklog_04.tar.gz.partial", b"", age=0)
    result = check(tmp_path / "*" / "worklog_*.tar.gz*", max_age="25h")
    assert result.path == str(tmp_path / "02" / "worklog_02.tar.gz")
    assert result.verdict == "structure_ok"
    assert any("2 older" in words for words in result.unchecked)


@pytest.mark.parametrize(
    ("name", "data", "verdict", "failed"),
    [
        ("empty.bak", b"", "damaged", ["backup.empty"]),
        ("empty.tar", b"", "damaged", ["tar.end"]),
        ("of-nothing.sql.gz", gzip.compress(b"", mtime=0), "damaged", None),
        ("of-nothing.gz", gzip.compress(b"", mtime=0), "damaged", ["backup.empty"]),
        ("no-members.tar.gz", gzip.compress(bytes(10240), mtime=0), "damaged", ["backup.empty"]),
        ("zeros.tar.gz", bytes(5000), "damaged", ["gzip.corrupt"]),
        ("zeros.bak", bytes(5000), "inconclusive", ["backup.unknown"]),
        ("random.bin", bytes(range(256)) * 40, "inconclusive", ["backup.unknown"]),
        ("not-a.tar", text(5000), "damaged", ["tar.header"]),
        ("dump.sql.partial", b"-- MariaDB dump 10.19\n", "damaged", None),
        ("notes.txt", text(5000), "structure_ok", []),
        ("hole.txt", text(5000) + bytes(512) + text(500), "inconclusive", ["text.zeros"]),
    ],
)
def test_files_as_they_come(tmp_path: Path, name: str, data: bytes, verdict: str, failed: list[str] | None) -> None:
    result = check(write(tmp_path / name, data))
    assert result.verdict == verdict
    if failed is not None:
        assert checks(result) == failed


def test_emptiness_can_be_expected(tmp_path: Path) -> None:
    assert check(write(tmp_path / "empty.bak", b""), min_size=0).verdict == "structure_ok"
    empty = write(tmp_path / "empty.tar.gz", gzip.compress(bytes(10240)))
    assert check(empty, min_members=0).verdict == "structure_ok"


@pytest.mark.parametrize("packed", [False, True])
def test_an_append_only_file_may_begin_with_a_snapshot(tmp_path: Path, packed: bool) -> None:
    data = fixture("redis/preamble.aof")
    path = tmp_path / ("appendonly.aof.gz" if packed else "appendonly.aof")
    result = check(write(path, gzip.compress(data, mtime=0) if packed else data))
    assert (result.verdict, checks(result)) == ("structure_ok", [])
    assert check(write(tmp_path / "cut.aof", data[:-9])).verdict == "damaged"


def test_plain_accepts_any_content(tmp_path: Path) -> None:
    path = write(tmp_path / "blob", os.urandom(5000))
    assert check(path).verdict == "inconclusive"
    assert check(path, "plain").verdict == "structure_ok"
    assert check(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest()).verdict == "verified"


def test_a_format_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    assert check(write(tmp_path / "x.bak", ENV), "tar").verdict == "damaged"
    assert check(write(tmp_path / "x.bak", ENV), "tree").verdict == "damaged"
    assert check(tmp_path, "tar").verdict == "damaged"


def test_env(tmp_path: Path) -> None:
    path = write(tmp_path / "env_latest.bak", ENV)
    result = check(path, members=["DB_HOST", "DB_PASSWORD", "PORT"])
    assert (result.verdict, result.format) == ("verified", "env")
    assert "s3cret" not in json.dumps(result.as_dict())
    assert checks(check(path, members=["API_KEY"])) == ["expect.members"]
    broken = write(tmp_path / "env_zero.bak", ENV + bytes(20) + ENV)
    assert check(broken).verdict == "damaged"
    assert checks(check(write(tmp_path / "cut.bak", ENV[:-3])), "info") == ["text.newline"]


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", list(COMPRESS))
def test_all_damage_of_a_compressed_archive_is_found(tmp_path: Path, codec: str) -> None:
    suffix = {"gzip": "gz", "xz": "xz", "bzip2": "bz2", "zstd": "zst"}[codec]
    path = tmp_path / f"logs.tar.{suffix}"
    plain = tar(30)
    data = COMPRESS[codec](plain)
    source = random.Random(codec)
    mutants = [flip(data, source, UNCOVERED[codec]) for _unused in range(40)]
    mutants += [cut(data, source) for _unused in range(25)]
    mutants += [zeroed(data, source, 256) for _unused in range(20)]
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        offsets = [member.offset for member in archive.getmembers()]
    mutants += [COMPRESS[codec](plain[:offset]) for offset in offsets]  # tar was killed, and gzip finished
    mutants += [COMPRESS[codec](cut(plain[:-12000], source)) for _unused in range(10)]
    mutants += [data + COMPRESS[codec](plain), data + data[: len(data) // 2], data + b"\n"]
    found = 0
    for mutant in mutants:
        path.write_bytes(mutant)
        result = check(path)
        found += result.verdict == "damaged"
    assert (found, len(mutants)) == (len(mutants), len(mutants))
    path.write_bytes(data)
    assert check(path).verdict == "structure_ok"


def test_a_dropped_member_is_found_by_an_expectation(tmp_path: Path) -> None:
    plain = tar(20)
    path = tmp_path / "logs.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        members = archive.getmembers()
    names = [member.name for member in members if member.isreg()]
    for index in range(1, 19):
        start, end = members[index].offset, members[index + 1].offset
        path.write_bytes(gzip.compress(plain[:start] + plain[end:], 1))
        assert check(path).verdict == "structure_ok"
        assert check(path, members=names).verdict == "damaged"
        assert check(path, min_members=22).verdict == "damaged"


def test_damage_in_a_large_file_is_found_by_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SMALL", 50_000)
    monkeypatch.setattr(reading, "BLOCK", 16_384)
    source = random.Random(5)
    noise = bytes(source.getrandbits(8) for _unused in range(300_000))
    data = gzip.compress(header(b"a", len(noise)) + padded(noise) + END)
    path = write(tmp_path / "a.tar.gz", data)
    assert check(path, members=["a"]).verdict == "verified"
    plain = write(tmp_path / "a.tar", header(b"a", len(noise)) + padded(noise) + END)
    assert check(plain, members=["a"]).verdict == "verified"
    for _unused in range(20):
        result = check(write(path, flip(data, source, (10, 0))))
        assert result.verdict == "damaged"
        assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    result = check(write(path, cut(data, source)))
    assert (result.verdict, result.size) == ("damaged", path.stat().st_size)


def test_nested_dumps_are_followed(tmp_path: Path) -> None:
    good = b"-- MariaDB dump 10.19\nINSERT INTO `t` VALUES (1);\n-- Dump completed on 2026-01-01  1:02:03\n"
    for name, data, verdict in (
        ("dump.sql", good, "structure_ok"),
        ("dump.sql.gz", gzip.compress(good), "structure_ok"),
        ("dump.sql", good[:60], "damaged"),
        ("dump.sql.gz", gzip.compress(good[:60]), "damaged"),
        ("dump.sql.gz", gzip.compress(good)[:-4], "damaged"),
        ("migration.sql", b"select 1;\n", "structure_ok"),  # no dump
        ("access.log.gz", gzip.compress(text(5000))[:-4], "structure_ok"),  # was so when it was backed up
    ):
        member = f"backup/{name}".encode()
        archive = header(member, len(data)) + padded(data) + END
        result = check(write(tmp_path / "all.tar.gz", gzip.compress(archive)))
        assert result.verdict == verdict, (name, result.findings)
        if verdict == "damaged":
            assert result.findings[0].subject == f"{tmp_path}/all.tar.gz!backup/{name}"


def test_a_faulty_walker_says_so_and_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content.TarWalker, "feed", lambda self, data: 1 / 0)
    result = check(write(tmp_path / "x.tar", tar()))
    assert result.verdict == "inconclusive"
    assert "tar.internal" in checks(result)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_bombs_are_not_read_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "FREE", 1_000_000)
    path = write(tmp_path / "bomb.gz", gzip.compress(bytes(30_000_000)))
    result = check(path)
    assert (result.verdict, checks(result)) == ("inconclusive", ["limit.expansion"])
    assert result.expanded is not None and result.expanded < 10_000_000
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    result = check(path, limits=Limits(expanded=2_000_000, ratio=1e9))
    assert checks(result) == ["limit.expansion"]
    assert check(path, "plain").verdict == "structure_ok"
    nested = write(tmp_path / "nested.tar", header(b"a.sql.gz", path.stat().st_size) + padded(path.read_bytes()) + END)
    assert checks(check(nested)) == ["limit.expansion"]


def test_compression_over_and_over_is_not_followed(tmp_path: Path) -> None:
    data = text(100)
    for _unused in range(8):
        data = gzip.compress(data)
    assert checks(check(write(tmp_path / "x.gz", data))) == ["limit.layers"]


def test_at_most_so_many_findings(tmp_path: Path) -> None:
    bad = gzip.compress(b"-- MariaDB dump 1\nINSERT INTO `t` VALUES (1);\n")[:-4]
    archive = b"".join(header(b"%d.sql.gz" % n, len(bad)) + padded(bad) for n in range(500)) + END
    result = check(write(tmp_path / "x.tar", archive))
    assert result.verdict == "damaged"
    assert len(result.findings) <= content.MAX_PROBLEMS + 2


MEMORY = r"""
import re, sys, time
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import check
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import parse
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup
result = check.verify(
    Backup(sys.argv[1], "x", expect=parse("x", {"min_members": 1})), now=time.time(), limits=Limits(ratio=1e9)
)
# not ru_maxrss, which a process inherits
memory = re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read()).group(1)
print(result.verdict, result.members, memory)
"""


def measured(path: Path) -> tuple[str, str, int]:
    """Return verdict, members and the largest memory in KiB of a check in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], stdout=subprocess.PIPE, check=True, timeout=300, text=True
    )
    verdict, members, memory = done.stdout.split()
    return verdict, members, int(memory)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="takes half a minute; the newest Python shows it")
def test_a_million_members_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "many.tar.gz"
    block = bytearray(header(b"uploads/0000000"))
    total = sum(block) - sum(block[148:156]) + 256 - 7 * 48
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for start in range(0, 1_000_000, 2000):
            blocks = []
            for number in range(start, start + 2000):
                name = b"%07d" % number
                block[8:15] = name
                block[148:154] = b"%06o" % (total + sum(name))
                blocks.append(bytes(block))
            stream.write(b"".join(blocks))
        stream.write(END)
    verdict, members, memory = measured(path)
    assert (verdict, members) == ("verified", "1000000")
    assert memory < 100 * 1024, f"{memory} KiB"


def test_bombs_and_xz_9_take_little_memory(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree / "a.sql.zst", COMPRESS["zstd"](bytes(300_000_000)))
    write(tree / "b.sql.xz", lzma.compress(bytes(100_000_000), preset=9))
    write(tree / "c.sql.gz", gzip.compress(bytes(100_000_000)))
    _verdict, members, memory = measured(tree)
    assert members == "3"
    assert memory < 100 * 1024, f"{memory} KiB"


# --- trees ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy as rsync makes it."""
    root = tmp_path / "uploads"
    for index in range(5):
        write(root / f"user{index}" / "photo.jpg", text(1000 * index + 1))
    os.link(root / "user1" / "photo.jpg", root / "user1" / "same.jpg")
    (root / "user2" / "link").symlink_to("photo.jpg")
    return root


def test_trees(copy: Path) -> None:
    result = check(copy)
    assert (result.verdict, result.format, result.members, result.sha256) == ("structure_ok", "tree", 7, None)
    assert result.size == sum(1000 * index + 1 for index in range(5))
    assert check(copy, members=["user3", "user4/photo.jpg"]).verdict == "verified"
    assert check(copy, members=["user9"]).verdict == "damaged"
    assert check(copy, max_age="1h").made_from == "directory change time"
    assert check(copy, sha256="0" * 64).verdict == "inconclusive"
    (copy / "empty").mkdir()
    assert check(copy / "empty").verdict == "damaged"
    assert check(copy / "empty", min_members=0).verdict == "structure_ok"


def test_special_files_and_links_in_trees_are_noted(copy: Path) -> None:
    os.mkfifo(copy / "pipe")
    (copy / "out").symlink_to("/etc/passwd")
    (copy / "up").symlink_to("../../..")
    result = check(copy)
    assert result.verdict == "structure_ok"
    assert checks(result, "warning") == ["members.special"]
    assert checks(result, "info") == ["members.link"]
    (copy / "outside").symlink_to(copy.parent)
    write(copy.parent / "secret.sql.gz", b"\x1f\x8b\x08 broken")
    assert check(copy).verdict == "structure_ok"


def test_what_cannot_be_read_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("same.jpg") or (str(path).endswith("photo.jpg") and options.get("dir_fd") is None):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **options)

    (copy / "user1" / "same.jpg").unlink()
    write(copy / "user1" / "same.jpg", b"x")
    monkeypatch.setattr(os, "open", refuse)
    result = check(copy)
    assert (result.verdict, checks(result)) == ("inconclusive", ["tree.unreadable"])
    assert result.findings[0].subject.endswith("uploads/user1/same.jpg")
    assert "Permission denied" in result.findings[0].message
    single = check(copy / "user1" / "photo.jpg")
    assert (single.verdict, checks(single)) == ("inconclusive", ["backup.unreadable"])


def test_a_read_error_of_the_disk_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.read

    def fail(descriptor: int, size: int) -> bytes:
        if size == reading.BLOCK and os.lseek(descriptor, 0, os.SEEK_CUR) > 0:
            raise OSError(5, "Input/output error")
        return real(descriptor, size)

    path = write(tmp_path / "x.tar", tar())
    monkeypatch.setattr(os, "read", fail)
    result = check(path)
    assert (result.verdict, checks(result)) == ("damaged", ["backup.unreadable"])


@pytest.mark.parametrize("what", ["append", "rewrite", "replace"])
def test_written_during_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    path = write(tmp_path / "x.tar", tar())
    real, done = os.read, []

    def meddle(descriptor: int, size: int) -> bytes:
        if not done and size == reading.BLOCK:
            done.append(1)
            if what == "append":
                with path.open("ab") as stream:
                    stream.write(b"more")
            elif what == "rewrite":
                with path.open("r+b") as stream:
                    stream.write(path.read_bytes())
            else:
                other = write(tmp_path / "new", tar(3))
                os.replace(other, path)
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", meddle)
    result = check(path)
    assert "backup.changed" in checks(result)
    assert result.verdict in ("inconclusive", "damaged")
    assert "during the check" in " ".join(finding.message for finding in result.findings)


def test_a_new_hard_link_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.tar", tar())
    real = os.read

    def link(descriptor: int, size: int) -> bytes:
        if not (tmp_path / "snapshot").exists():
            os.link(path, tmp_path / "snapshot")
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", link)
    assert check(path).verdict == "structure_ok"


def test_nothing_in_a_backup_is_changed(copy: Path) -> None:
    def state() -> list[Any]:
        return [
            (path, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            for path in sorted([copy, *copy.rglob("*")])
            for status in [path.lstat()]
        ]

    before = state()
    check(copy, members=["user1"])
    check(copy / "user1" / "photo.jpg", "plain")
    assert state() == before


def test_the_access_time_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "tree" / "x.tar", tar())
    os.utime(path, (NOW - 10 * 86400, NOW - 3600))
    check(path)
    check(path.parent)
    assert path.stat().st_atime == NOW - 10 * 86400


def test_neither_links_nor_pipes_are_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", tar())
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(reading.Unreadable):
            reading.open_file(str(tmp_path / name))
    assert check(tmp_path / "link").verdict == "structure_ok"  # what the operator names may be a link
    assert check(tmp_path / "pipe").verdict == "inconclusive"


def bson(*documents: bytes) -> bytes:
    """Return documents with one field each, as mongodump writes them."""
    return b"".join((len(name) + 7).to_bytes(4, "little") + b"\x0a" + name + b"\0\0" for name in documents)


DUMP = {
    "worklog/users.bson": bson(b"a", b"b", b"c"),
    "worklog/users.metadata.json": b'{"options": {}, "indexes": [], "collectionName": "users", "type": "collection"}',
    "worklog/a%2Fb.bson.gz": gzip.compress(bson(b"a")),
    "worklog/a%2Fb.metadata.json.gz": gzip.compress(b'{"collectionName": "a/b"}'),
}


@pytest.mark.parametrize("packed", [True, False])
def test_a_dump_directory_is_judged_as_a_whole(tmp_path: Path, packed: bool) -> None:
    def verified(files: dict[str, bytes], **expected: Any) -> Result:
        if packed:
            members = b"".join(
                header(b"backup/" + name.encode(), len(data)) + padded(data) for name, data in files.items()
            )
            return check(write(tmp_path / "x.tar.gz", gzip.compress(members + END)), **expected)
        for name, data in files.items():
            write(tmp_path / "dump" / name, data)
        result = check(tmp_path / "dump", **expected)
        shutil.rmtree(tmp_path / "dump")
        return result

    result = verified(DUMP, min_documents={"worklog.users": 3, "worklog.a/b": 1})
    assert result.verdict == "verified", result.findings
    assert result.counts == {"worklog": {"users": 3, "a/b": 1}}
    for lost, failed in (
        ("worklog/users.bson", "mongodump.missing"),
        ("worklog/users.metadata.json", "mongodump.metadata"),
    ):
        result = verified({name: data for name, data in DUMP.items() if name != lost})
        assert (result.verdict, checks(result)) == ("damaged", [failed])
    broken = {**DUMP, "worklog/users.metadata.json": DUMP["worklog/users.metadata.json"][:-9]}
    assert checks(verified(broken)) == ["mongodump.metadata"]
    cut_document = {**DUMP, "worklog/users.bson": DUMP["worklog/users.bson"][:-1]}
    assert verified(cut_document).verdict == "damaged"
    cut_between = {**DUMP, "worklog/users.bson": bson(b"a", b"b")}
    assert verified(cut_between).verdict == "structure_ok"
    assert verified(cut_between, min_documents={"worklog.users": 3}).verdict == "damaged"


def test_an_append_only_directory_needs_all_its_parts(tmp_path: Path) -> None:
    root = tmp_path / "appendonlydir"
    command = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
    write(root / "appendonly.aof.1.incr.aof", b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n" + command)
    write(root / "appendonly.aof.manifest", b"file appendonly.aof.1.incr.aof seq 1 type i\n")
    assert check(root).verdict == "structure_ok"
    write(root / "appendonly.aof.manifest", b"file appendonly.aof.1.base.rdb seq 1 type b\nfile x.aof seq 1 type i\n")
    assert (check(root).verdict, checks(check(root))) == ("damaged", ["aof.missing"])


# --- manifests --------------------------------------------------------------------------------------------------------


def manifest_of(root: Path, **more: Any) -> Path:
    files = [
        {
            "path": str(path.relative_to(root)),
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
    target = root / "manifest.json"
    target.write_text(json.dumps({"schema": 1, "id": "x", "files": files, **more}))
    return target


def test_a_manifest_verifies_every_byte(copy: Path) -> None:
    manifest_of(copy, end="2027-01-15T08:00:00Z")
    result = check(copy, max_age="7d")
    assert (result.verdict, result.made_from, checks(result)) == ("verified", "manifest", [])
    photo = copy / "user1" / "photo.jpg"
    photo.write_bytes(flip(photo.read_bytes(), random.Random(1)))
    result = check(copy)
    assert result.verdict == "damaged"
    # both names of the inode
    assert sum(finding.check == "backup.sha256" for finding in result.findings) == 2


@pytest.mark.parametrize(
    ("break_it", "failed"),
    [
        (lambda root: (root / "user3" / "photo.jpg").unlink(), "manifest.missing"),
        (lambda root: (root / "user3" / "photo.jpg").write_bytes(b"short"), "manifest.size"),
        (lambda root: os.replace(root / "user3" / "photo.jpg", root / "user4" / "photo.jpg"), "manifest.missing"),
    ],
)
def test_what_a_manifest_finds(copy: Path, break_it: Any, failed: str) -> None:
    manifest_of(copy)
    break_it(copy)
    result = check(copy)
    assert result.verdict == "damaged"
    assert failed in checks(result)


def test_archives_of_our_own_are_opened(tmp_path: Path) -> None:
    data = tar()
    for name, compress in (("files.tar", bytes), ("logs.tar.gz", gzip.compress)):
        root = tmp_path / name / "backup"
        write(root / name, compress(data))
        manifest_of(root)
        assert check(root, members=["uploads/file-0", "*-11"]).verdict == "verified"
        assert checks(check(root, members=["*.none"])) == ["expect.members"]
        (root / "manifest.json").unlink()
        write(root / name, compress(data[:9000]))
        manifest_of(root)
        assert checks(check(root)) == ["tar.truncated"]
        document = json.loads((root / "manifest.json").read_text())
        del document["id"]
        (root / "manifest.json").write_text(json.dumps(document))  # one of some other program, with what users have
        assert check(root).verdict == "verified"


def test_logs_of_the_source_that_are_in_no_file(copy: Path) -> None:
    manifest_of(copy, binlogs=[{"file": "binlog.000007", "size": 900}])
    assert (check(copy).verdict, checks(check(copy))) == ("damaged", ["manifest.binlogs"])


def test_files_that_a_manifest_does_not_list_are_told(copy: Path) -> None:
    manifest_of(copy)
    write(copy / "new", b"x")
    result = check(copy)
    assert (result.verdict, checks(result, "info")) == ("verified", ["manifest.unlisted"])


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        (b'{"name": "worklog", "icons": []}', "structure_ok"),  # a web application's
        (b"[]", "structure_ok"),
        (b'{"schema": 1, "files": [', "inconclusive"),
        (b'{"schema": 2, "files": []}', "inconclusive"),
        (b'{"schema": 1, "files": [{"path": "x", "sha256": "short"}]}', "inconclusive"),
        (b'{"schema": 1, "files": [{"size": 1}]}', "inconclusive"),
        (b'{"schema": 1, "files": [], "end": "2026-01-01T00:00:00"}', "inconclusive"),
        (b'{"schema": 1, "files": [], "counts": {"a": 1}}', "inconclusive"),
        (b"[" * 100_000, "inconclusive"),
    ],
)
def test_manifests_of_others_and_broken_ones(copy: Path, document: bytes, verdict: str) -> None:
    (copy / "manifest.json").write_bytes(document)
    assert check(copy).verdict == verdict


def test_a_manifest_beside_a_file(tmp_path: Path) -> None:
    sql = (
        b"-- MariaDB dump 10.19\nUSE `worklog`;\nINSERT INTO `users` VALUES (1),(2);\n"
        b"-- Dump completed on 2026-01-01  1:02:03\n"
    )
    path = write(tmp_path / "dump.sql", sql)
    manifest_of(tmp_path, counts={"worklog": {"users": 2}})
    result = check(path)
    assert result.verdict == "verified", result.findings
    manifest_of(tmp_path, counts={"worklog": {"users": 3}})
    document = json.loads((tmp_path / "manifest.json").read_text())
    document["files"] = [entry for entry in document["files"] if entry["path"] == "dump.sql"]
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert checks(check(path)) == ["expect.rows"]
    (tmp_path / "manifest.json").unlink()
    assert check(path).verdict == "structure_ok"
    assert check(path, manifest=str(tmp_path / "nothing.json")).verdict == "inconclusive"


def stored(root: Path, name: str, plain: bytes, data: bytes) -> None:
    """Write a backup whose manifest has the hash of a file as it is, and that of what came from the source."""
    write(root / name, data)
    content = {"size": len(plain), "sha256": hashlib.sha256(plain).hexdigest()}
    entry = {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "content": content}
    (root / "manifest.json").write_text(json.dumps({"schema": 1, "id": "x", "files": [entry]}))


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("dump.sql.gz", gzip.compress),
        ("noise.xz", lzma.compress),  # these are not looked into, but expanded for it
        ("noise.bz2", bz2.compress),
        ("noise.zst", lambda data: subprocess.run(["zstd", "-qc"], input=data, stdout=-1, check=True).stdout),
    ],
)
@pytest.mark.parametrize("small", [reading.SMALL, 1000])  # in one thread, in several
def test_what_came_from_the_source_is_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, compress: Any, small: int
) -> None:
    monkeypatch.setattr(reading, "SMALL", small)
    noise = b"".join(b"-- %s\n" % random.Random(line).randbytes(20).hex().encode() for line in range(2000))
    plain = b"-- MariaDB dump 10.19\nUSE `worklog`;\n" + noise + b"-- Dump completed on 2026-01-01  1:02:03\n"
    changed = plain.replace(b"7", b"8", 1)
    for path in (tmp_path, tmp_path / name):  # the whole backup, or its file alone
        stored(tmp_path, name, plain, compress(plain))
        result = check(path)
        assert (result.verdict, checks(result)) == ("verified", []), result.findings
        assert not any("not decompressed" in words for words in result.unchecked)
        for other, words in ((changed, "is not what came from the source"), (plain + b"\n", f"to {len(plain) + 1} ")):
            stored(tmp_path, name, plain, compress(other))
            result = check(path)
            assert (result.verdict, checks(result)) == ("damaged", ["manifest.content"]), result.findings
            assert words in result.sentence()
        stored(tmp_path, name, plain, compress(plain)[:-30])
        assert "manifest.content" not in checks(check(path))  # that it is cut says it all


def test_what_stays_closed_is_not_compared_with_its_source(tmp_path: Path) -> None:
    stored(tmp_path, "dump.sql.age", b"plain", b"age-encryption.org/v1\n")
    result = check(tmp_path)
    assert "manifest.content" not in checks(result)
    assert any("it stays closed" in words for words in result.unchecked)


def test_sha256sum_beside_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar.gz", gzip.compress(tar()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    beside = tmp_path / "x.tar.gz.sha256"
    for line in (f"{digest}  x.tar.gz\n", f"{digest} *backups/x.tar.gz\n", digest.upper()):
        beside.write_text(line)
        assert check(path).verdict == "verified", line
    beside.write_text(f"{'0' * 64}  x.tar.gz\n")
    assert check(path).verdict == "damaged"
    for line in ("", "nonsense\n", f"{digest}  other.tar.gz\n"):
        beside.write_text(line)
        assert check(path).verdict == "inconclusive", line
    beside.unlink()
    (tmp_path / "SUMS").write_text(f"{digest}  x.tar.gz\n")
    assert check(path, manifest=str(tmp_path / "SUMS")).verdict == "verified"


# --- history ----------------------------------------------------------------------------------------------------------


def test_the_size_is_compared_with_earlier_backups(tmp_path: Path) -> None:
    history = History(str(tmp_path / "state"))
    for day in range(4):
        path = write(tmp_path / f"{day}.txt", text(10_000 + day), age=(9 - day) * 86400)
        result = check(path, history=history, name="logs", size_change="50%")
        assert result.verdict == "structure_ok"
        assert any("earlier" in words for words in result.unchecked) is (day < 3)
    history.save()
    history = History(str(tmp_path / "state"))
    small = write(tmp_path / "small.txt", text(4_000), age=3600)
    for _unused in range(5):  # a bad one never becomes the measure
        result = check(small, history=history, name="logs", size_change=0.5)
        assert (result.verdict, checks(result)) == ("inconclusive", ["expect.size_change"])
    assert "-60 %" in result.findings[0].message
    assert check(small, history=history, name="logs", size_change=0.7).verdict == "structure_ok"
    assert check(small, history=history, name="other", size_change=0.1).verdict == "structure_ok"


def test_a_backup_of_unknown_size_change_may_not_shift_the_history(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    path = write(tmp_path / "a.txt", text(1000))
    for _unused in range(10):
        check(path, history=history, name="logs")
    assert history.median("logs", NOW)[1] == 1
