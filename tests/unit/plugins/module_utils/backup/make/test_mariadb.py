# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of MariaDB and MySQL: what the programs say, what a chain may go on from, which logs are to be copied."""

from __future__ import annotations

import calendar
import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import (
    config,
    mariadb_dump,
    mariadb_logs,
    mariadb_physical,
    mariadb_session,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.mariadb_session import Access, Position
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept

pytestmark = pytest.mark.capability("A1", "A2", "A3")

FIXTURES = Path(__file__).parent / "mariadb"
UUID = "wBiKJQI09JqS8nCw0o5WJJVPXJY="
ENDED = calendar.timegm((2026, 11, 25, 10, 0, 0))


def server(flavour: str = "MariaDB", **variables: str) -> mariadb_session.Server:
    return mariadb_session.Server(flavour, "10.11.18-MariaDB", UUID, {"log_bin": "ON", **variables}, True)


def kept(
    kind: str, id: str, parent: str | None = None, document: dict[str, Any] | None = None, **positions: Any
) -> Kept:
    known = {"server": {"uuid": UUID, "data": "7-1"}, **(document or {})}
    path = f"/b/{kind}/{id}"
    return Kept(path, manifest.Manifest(path, id=id, kind=kind, parent=parent, ended=ENDED, positions=positions,
                                        document=known))  # fmt: skip


# What the programs say

CHECKPOINTS = {
    "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 247574\nlast_lsn = 248391\nrecover_binlog_info = 0\n":
        ("full-backuped", 0, 247574, 248391),
    "backup_type = incremental\nfrom_lsn = 247574\nto_lsn = 251775\nlast_lsn = 251785\n":
        ("incremental", 247574, 251775, 251785),
    # xtrabackup 8.0
    "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 18446744073\nlast_lsn = 18446744083\n"
    "flushed_lsn = 18446744073\nredo_memory = 0\nredo_frames = 0\n": ("full-backuped", 0, 18446744073, 18446744083),
}  # fmt: skip


@pytest.mark.parametrize("text", CHECKPOINTS)
def test_checkpoints(text: str) -> None:
    assert mariadb_physical.parse_checkpoints(text) == mariadb_physical.Range(*CHECKPOINTS[text])


@pytest.mark.parametrize("text", ["", "backup_type = full-backuped\nfrom_lsn = 0\n", "to_lsn = x\n"])
def test_checkpoints_that_are_none(text: str) -> None:
    with pytest.raises(MakeError, match="cannot be understood"):
        mariadb_physical.parse_checkpoints(text)


INFO = {
    "tool_name = mariadb-backup\ntool_version = 10.11.18-MariaDB\nlock_time = 1795602724\n"
    "binlog_pos = filename 'binlog.000002', position '339', GTID of the last change '0-1-13'\nformat = mbstream\n":
        {"tool_version": "10.11.18-MariaDB", "binlog_file": "binlog.000002", "binlog_position": 339, "gtid": "0-1-13"},
    # Without a transaction before it, and of a server that writes no logs.
    "tool_version = 10.11.18-MariaDB\n"
    "binlog_pos = filename 'binlog.000001', position '329', GTID of the last change ''\n":
        {"tool_version": "10.11.18-MariaDB", "binlog_file": "binlog.000001", "binlog_position": 329},
    "tool_version = 10.11.18-MariaDB\nbinlog_pos = \n": {"tool_version": "10.11.18-MariaDB"},
    # xtrabackup 8.0 of a server with GTID, which it writes on several lines.
    "tool_version = 8.0.35-31\nbinlog_pos = filename 'mysql-bin.000012', position '157', GTID of the last change "
    "'3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:1-7'\ninnodb_from_lsn = 0\n":
        {"tool_version": "8.0.35-31", "binlog_file": "mysql-bin.000012", "binlog_position": 157,
         "gtid": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:1-7"},
}  # fmt: skip


@pytest.mark.parametrize("text", INFO)
def test_info(text: str) -> None:
    assert mariadb_physical.parse_info(text) == INFO[text]


END = "[00] 2026-11-25 10:32:04 completed OK!\n"
LOGS: list[tuple[str, bool, list[str]]] = [
    (END, True, []),
    ("", False, []),
    (f"{END}[00] 2026-11-25 10:32:05 something more\n", False, []),
    ("[01] 2026-11-25 10:32:04 Streaming ./shop/error: warning:.ibd\n" + END, True, []),
    (
        "2026-11-25 10:32:04 0 [Note] InnoDB: Using io_uring\n"
        "2026-11-25 10:32:04 0 [Warning] InnoDB: io_uring_queue_init() failed with errno 1\n" + END,
        True, ["[Warning] InnoDB: io_uring_queue_init() failed with errno 1"],
    ),
    (
        "[00] FATAL ERROR: 2026-11-25 10:46:09 failed to execute query BACKUP LOCK `a`.`b`: No database selected\n",
        False,
        ["[00] FATAL ERROR: 2026-11-25 10:46:09 failed to execute query BACKUP LOCK `a`.`b`: No database selected"],
    ),
    ("[00] 2026-11-25 10:32:04 Error: failed to open the target stream\n" * 3, False,
     ["Error: failed to open the target stream"]),
    # xtrabackup 8.0
    ("2026-11-25T10:32:04.123456-00:00 0 [Warning] [MY-011825] [Xtrabackup] missing required privilege\n"
     "2026-11-25T10:32:05.1-00:00 0 [Note] [MY-011825] [Xtrabackup] completed OK!\n", True,
     ["[Warning] [MY-011825] [Xtrabackup] missing required privilege"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "complete", "troubles"), LOGS)
def test_a_log_is_reviewed(text: str, complete: bool, troubles: list[str]) -> None:
    assert mariadb_physical.review(text) == (complete, troubles)


def test_many_troubles_are_counted() -> None:
    found = mariadb_physical.review("".join(f"[ERROR] number {number}\n" for number in range(50)))[1]
    assert len(found) == 21 and found[-1] == "30 more are in the log"


# What an incremental backup goes on from

FULL = kept("full", "f", from_lsn=0, to_lsn=100, last_lsn=110)
ONE = kept("incremental", "i1", "f", from_lsn=100, to_lsn=200, last_lsn=200)
TWO = kept("incremental", "i2", "i1", from_lsn=200, to_lsn=300, last_lsn=310)
LOG = kept("log", "l", "f")
TORN = kept("incremental", "i3", "i2", from_lsn=299, to_lsn=400, last_lsn=400)
OLDER = kept("full", "f0", document={"server": {"uuid": "another"}}, from_lsn=0, to_lsn=50, last_lsn=50)
PARENTS: list[tuple[list[Kept], int | None, str, str | None, str]] = [
    ([], 500, "7-1", None, "there is no good full backup yet"),
    ([LOG], 500, "7-1", None, "there is no good full backup yet"),
    ([FULL], 500, "7-1", "f", ""),
    ([FULL, ONE, LOG, TWO], 500, "7-1", "i2", ""),
    ([FULL, ONE, TWO], None, "", "i2", ""),
    ([FULL, ONE, TWO, TORN], 500, "7-1", "i2", ""),
    ([FULL, TWO], 500, "7-1", "f", ""),
    ([ONE, TWO], 500, "7-1", None, "needs backups that are missing, bad or do not fit"),
    ([FULL, ONE, TWO], 309, "7-1", None, "the server is at LSN 309, which is before the end of /b/incremental/i2"),
    ([FULL, ONE, TWO], 310, "7-1", "i2", ""),
    ([FULL, ONE], 500, "8-2", None, "the server's files were made anew or restored since /b/incremental/i1"),
    ([OLDER], 500, "7-1", None, "/b/full/f0 is of another server (another, this one is"),
    ([OLDER, FULL], 500, "7-1", "f", ""),
]


@pytest.mark.parametrize(("earlier", "lsn", "identity", "expected", "why"), PARENTS)
def test_what_a_chain_goes_on_from(
    earlier: list[Kept], lsn: int | None, identity: str, expected: str | None, why: str
) -> None:
    found, reason = mariadb_physical.choose_parent(earlier, server(), identity, lsn)
    assert (found and found.id) == expected
    assert why in reason


def test_a_chain_that_bites_its_tail_is_none() -> None:
    first = kept("incremental", "a", "b", from_lsn=1, to_lsn=1)
    second = kept("incremental", "b", "a", from_lsn=1, to_lsn=1)
    assert mariadb_physical.chain(first, [first, second]) is None


# Binary logs


def at(clock: str) -> int:
    return calendar.timegm((2026, 11, 25, *(int(part) for part in clock.split(":"))))


def test_the_ends_of_files_that_a_server_wrote() -> None:
    found = {ending: mariadb_logs.inspect(str(FIXTURES / f"{ending}.binlog"), ending) for ending in
             ("rotate", "stop", "crash")}  # fmt: skip
    assert {ending: entry.ending for ending, entry in found.items()} == {ending: ending for ending in found}
    assert (found["crash"].first_time, found["crash"].last_time) == (at("11:08:08"), at("11:08:09"))
    assert found["stop"].last_time == at("11:08:07")
    assert found["rotate"].size == 843


@pytest.mark.parametrize("ending", ["rotate", "stop"])
def test_a_file_that_was_cut_is_not_closed(ending: str, tmp_path: Path) -> None:
    content = (FIXTURES / f"{ending}.binlog").read_bytes()
    for size in range(23, len(content)):
        (tmp_path / "cut").write_bytes(content[:size])
        assert mariadb_logs.inspect(str(tmp_path / "cut"), "cut").ending == "crash", size


@pytest.mark.parametrize("content", [b"", b"\xfebin", b"\xfdbin" + b"\0" * 400, b"\xfebin" + b"\x05" * 400])
def test_what_is_no_binary_log(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(MakeError, match="file does not begin as a binary log"):
        mariadb_logs.inspect(str(tmp_path / "file"), "file")


@pytest.mark.parametrize(("name", "following"), [
    ("binlog.000009", "binlog.000010"), ("binlog.999999", "binlog.1000000"), ("a.b.000001", "a.b.000002"),
    ("we\nird.000001", "we\nird.000002"),
])  # fmt: skip
def test_the_name_of_the_next_file(name: str, following: str) -> None:
    assert mariadb_logs.next_name(name) == following


def listed(*numbers: int, stem: str = "binlog", size: int = 500) -> list[tuple[str, int]]:
    return [(f"{stem}.{number:06d}", size) for number in numbers]


def log(last: int, **document: Any) -> Kept:
    binlogs = [{"file": f"binlog.{last:06d}", "size": 500}]
    return kept("log", f"log{last}", document={"binlogs": binlogs, **document}, last_file=f"binlog.{last:06d}",
                last_time="2026-11-25T09:00:00Z")  # fmt: skip


BASE = kept("full", "f", binlog_file="binlog.000003", binlog_position=339)
DUMP = kept("dump", "d", binlog_file="binlog.000002", binlog_position=4)
PLANS: list[tuple[list[Kept], list[tuple[str, int]], int, str]] = [
    ([], listed(1, 2), 1, ""),
    ([BASE], listed(1, 2, 3), 1, ""),
    ([BASE], listed(3), 3, ""),
    ([BASE], listed(4, 5), 4, "/b/full/f ends in binlog.000003, which the server does not have any more"),
    ([DUMP], listed(3), 3, "/b/dump/d ends in binlog.000002, which the server does not have any more"),
    ([DUMP, BASE], listed(3), 3, ""),
    ([BASE, log(4)], listed(3, 4, 5, 6), 5, ""),
    ([BASE, log(4)], listed(5), 5, ""),
    ([log(4), BASE], listed(4, 5), 5, ""),
    ([BASE, log(4)], listed(6, 7), 6, "the server has removed binlog.000005 before it was copied"),
    ([BASE, log(4)], listed(1), 1, "begun its logs anew: binlog.000005 should follow, and it has binlog.000001"),
    ([BASE, log(4)], listed(1, 2, 3, 4, 5, size=400), 1, "binlog.000004 is not the file that was copied"),
    ([BASE, log(4)], listed(5, 6, stem="mysql-bin"), 5, "the server has begun its logs anew"),
    ([BASE, log(4, server={"uuid": "another"})], listed(5), 5, "of another server (another"),
    ([BASE, log(999999)], [("binlog.999999", 500), ("binlog.1000000", 9)], 1000000, ""),
]


@pytest.mark.parametrize(("earlier", "there", "first", "reason"), PLANS)
def test_which_logs_are_copied(earlier: list[Kept], there: list[tuple[str, int]], first: int, reason: str) -> None:
    plan = mariadb_logs.plan(there, earlier, server())
    assert int(plan.files[0][0].rpartition(".")[2]) == first
    assert plan.files[-1] == there[-1]
    assert reason in (plan.gap.reason if plan.gap else "")
    assert bool(plan.gap) == bool(reason)
    if plan.gap:
        assert plan.gap.begin == ("2026-11-25T09:00:00Z" if earlier[-1].manifest.kind == "log" else
                                  "2026-11-25T10:00:00Z")  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("there", "same"), [(b"as copied", True), (b"as coupled", False), (None, True)])
def test_a_log_that_was_exchanged_for_one_of_the_same_name(
    tmp_path: Path, packed: bool, there: bytes | None, same: bool
) -> None:
    entry = manifest.Entry(9, hashlib.sha256(b"as copied").hexdigest())
    files = {"binlog.000004.zst": manifest.Entry(5, "0" * 64, entry)} if packed else {"binlog.000004": entry}
    previous = log(4)
    previous = replace(
        previous, manifest=replace(previous.manifest, files={**files, "binlog.0000041": manifest.Entry()})
    )
    if there is not None:
        (tmp_path / "binlog.000004").write_bytes(there)
    chosen = mariadb_logs.Plan(listed(5))
    found = mariadb_logs.same_content(chosen, listed(4, 5), previous, str(tmp_path))
    assert (found == chosen) == same
    assert same or (found.files == listed(4, 5) and "binlog.000004 is not the file" in str(found.gap))


# Dumps

HEADS: list[tuple[bytes, Position | None]] = [
    (
        b"/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19  Distrib 10.11.18-MariaDB\n--\n"
        b"-- Host: localhost    Database: \n-- CHANGE MASTER TO MASTER_USE_GTID=slave_pos;\n\n--\n"
        b"-- Alternately, following is the position of the binary logging from SHOW MASTER STATUS at point of backup.\n"
        b"\n-- CHANGE MASTER TO MASTER_LOG_FILE='binlog.000002', MASTER_LOG_POS=339;\n\n--\n"
        b"-- Current Database: `mysql`\n--\n",
        Position("binlog.000002", 339),
    ),
    (
        b"-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)\n--\n-- Position to start replication or "
        b"point-in-time recovery from\n--\n\n"
        b"-- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000007', SOURCE_LOG_POS=157;\n"
        b"\n--\n-- Current Database: `shop`\n--\n",
        Position("binlog.000007", 157),
    ),
    # A server without logs; a position in what is dumped is only text.
    (
        b"-- MariaDB dump 10.19\n\n-- Table structure for table `t`\n"
        b"INSERT INTO t VALUES (\"MASTER_LOG_FILE='binlog.000009', MASTER_LOG_POS=4;\");\n",
        None,
    ),
]
BODY = b"CREATE DATABASE `x`;\n" + b"INSERT INTO t VALUES (1);\n" * 400


@pytest.mark.parametrize("step", [1, 7, 100, 100_000])
@pytest.mark.parametrize(("head", "position"), HEADS)
def test_where_a_dump_begins_and_whether_it_ends(head: bytes, position: Position | None, step: int) -> None:
    told: list[Position | None] = []
    for tail, complete in (
        (b"\n-- Dump completed on 2026-11-25 10:32:05\n", True), (b"\n-- Dump completed\n", True),
        (b"\n-- Dump completed on 2026-11-25 10:32:05\nINSERT", False), (b"-- Dump comple", False), (b"", False),
        (b"INSERT INTO t VALUES ('-- Dump completed on 2026-11-25 10:32:05');\n", False),
    ):  # fmt: skip
        told.clear()
        ends = mariadb_dump.Ends(told.append)
        dump = head + BODY + tail
        for place in range(0, len(dump), step):
            ends(dump[place : place + step])
        assert ends.complete is complete
        assert told == [position] and ends.position == position


def test_the_arguments_of_a_dump() -> None:
    choice = mariadb_dump.Choice(databases=["-x", "a b"], exclude=["a b.t"])
    access = Access("/etc/backup.cnf")
    argv = mariadb_dump.arguments("mariadb-dump", server(), access, choice)
    assert argv[:2] == ["mariadb-dump", "--defaults-extra-file=/etc/backup.cnf"], "it must come first"
    assert argv[-4:] == ["--databases", "--", "-x", "a b"]
    assert {"--single-transaction", "--master-data=2", "--gtid", "--ignore-table=a b.t"} < set(argv)
    mysql = mariadb_dump.arguments("mysqldump", server("MySQL"), Access(), mariadb_dump.Choice())
    assert "--source-data=2" in mysql and "--gtid" not in mysql and mysql[-1] == "--all-databases"
    quiet = mariadb_dump.arguments("mariadb-dump", server(log_bin="OFF"), Access(), mariadb_dump.Choice())
    assert not [word for word in quiet if "data=2" in word]


# The server


@pytest.mark.parametrize(("flavour", "there", "purpose", "expected"), [
    ("MariaDB", {"mariadb-dump", "mysqldump"}, "dump", "mariadb-dump"),
    ("MariaDB", {"mysqldump"}, "dump", "mysqldump"),
    ("MariaDB", {"mariabackup", "xtrabackup"}, "backup", "mariabackup"),
    ("MySQL", {"mariadb-dump", "mysqldump"}, "dump", "mysqldump"),
    ("MySQL", {"mysqlbinlog"}, "binlog", "mysqlbinlog"),
    ("MySQL", {"mariadb-backup", "xtrabackup"}, "backup", "xtrabackup"),
    ("MySQL", {"mariadb-backup"}, "backup", None),
    ("MariaDB", {"xtrabackup"}, "backup", None),
])  # fmt: skip
def test_the_programs_of_a_server(flavour: str, there: set[str], purpose: str, expected: str | None) -> None:
    def find(name: str) -> str | None:
        return f"/usr/bin/{name}" if name in there else None

    if expected is None:
        with pytest.raises(MakeError, match="is installed on this host; install one of them"):
            server(flavour).program(purpose, find)
    else:
        assert server(flavour).program(purpose, find) == expected


def test_names_are_quoted() -> None:
    assert mariadb_session.quote("a`b; DROP") == "`a``b; DROP`"
    assert mariadb_session.text("it's \\ so") == "'it''s \\\\ so'"


def test_the_configuration_of_a_source() -> None:
    found = config.parse({"sources": {"db": {"engine": "mariadb", "defaults_file": "/etc/b.cnf"}}}, "backup.json")
    assert list(found.sources["db"].engine.kinds) == ["full", "incremental", "log", "dump"]
    for wrong in ({"counts": "some"}, {"databases": "one"}, {"lock_wait": -1}, {"password": "x"}, {"log_copy": "no"}):
        with pytest.raises(config.ConfigError):
            config.parse({"sources": {"db": {"engine": "mariadb", **wrong}}}, "backup.json")


def test_seeded_noise_never_looks_closed(tmp_path: Path) -> None:
    chance = random.Random(20261125)
    start = (FIXTURES / "crash.binlog").read_bytes()
    for _unused in range(200):
        (tmp_path / "noise").write_bytes(start + chance.randbytes(chance.randrange(2000)))
        assert mariadb_logs.inspect(str(tmp_path / "noise"), "noise").ending == "crash"
