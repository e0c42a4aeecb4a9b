# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.mongodb import _NO_OPLOG, review, uri

#: As mongodump 100.10 says it, with --archive on standard output.
GOOD = """\
2026-11-25T10:36:57.783+0000\twriting worklog.settings to archive on stdout
2026-11-25T10:36:57.796+0000\twriting worklog.work_records to archive on stdout
2026-11-25T10:36:57.797+0000\tdone dumping worklog.settings (1 document)
2026-11-25T10:36:59.796+0000\t[###.....................]  worklog.work_records  50/400  (12.5%)
2026-11-25T10:36:59.796+0000\t
2026-11-25T10:36:57.883+0000\tdone dumping worklog.work_records (400 documents)
"""
STAMP = "2026-11-25T10:36:57.783+0000\t"


def test_counts_are_taken_from_the_log() -> None:
    told = review(GOOD.splitlines(keepends=True))
    assert told.counts == {"worklog": {"settings": 1, "work_records": 400}}
    assert (told.open, told.other) == ([], [])


@pytest.mark.parametrize(
    ("line", "counts", "begun", "other"),
    [
        ("done dumping a.b.c (d) (2 documents)", {"a": {"b.c (d)": 2}}, [], []),
        ("writing a.b to archive on stdout", {}, ["a.b"], []),
        ("writing captured oplog to archive on stdout", {}, [], []),
        ("\tdumped 3 oplog entries", {}, [], []),
        (
            "the collection a.b appears to have been dropped after the dump started",
            {},
            [],
            ["the collection a.b appears to have been dropped after the dump started"],
        ),
    ],
)
def test_single_lines(line: str, counts: dict[str, dict[str, int]], begun: list[str], other: list[str]) -> None:
    told = review([STAMP + line])
    assert (told.counts, told.open, told.other) == (counts, begun, other)


@pytest.mark.parametrize(
    ("words", "standalone"),
    [
        (  # FerretDB 1.24
            "Failed: error getting oplog start: error getting recent oplog entry: (InvalidNamespace) Invalid "
            "collection name: oplog.$main",
            True,
        ),
        ("Failed: error getting oplog start: error getting recent oplog entry: mongo: no documents in result", True),
        ("Failed: can't use --oplog option when dumping from a mongos", True),
        (
            "Failed: error getting oplog start: error getting recent oplog entry: (Unauthorized) not authorized on "
            'local to execute command { find: "oplog.rs" }',
            False,
        ),
        ("Failed: can't create session: failed to connect to mongodb://localhost:27018/", False),
        ("Failed: oplog overflow: mongodump was unable to capture all new oplog entries during execution", False),
    ],
)
def test_a_server_without_oplog_is_told_from_one_that_failed(words: str, standalone: bool) -> None:
    assert bool(_NO_OPLOG.search(words)) == standalone


@pytest.mark.parametrize("value", ["mongodb://a:b@c/", "mongodb+srv://a:@c/", "http://a", "", None, 1])
def test_an_address_holds_no_password(value: object) -> None:
    with pytest.raises(ValueError, match=r"an address|a text"):
        uri(value)


@pytest.mark.parametrize(
    "value",
    ["mongodb://a@b:27017/?authSource=admin", "mongodb://[::1]:27017/", "mongodb+srv://a@b/x", "mongodb://a,b:1/"],
)
def test_addresses(value: str) -> None:
    assert uri(value) == value
