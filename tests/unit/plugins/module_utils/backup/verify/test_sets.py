# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the backups of a source recover, taken together, against what they must."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.sets import (
    Answer,
    Wanted,
    answer,
    judge,
)

pytestmark = pytest.mark.capability("A8")

HOUR, DAY = 3600.0, 86400.0
NOW = 1_800_000_000.0


def kept(sequence: int, kind: str, ago: float, verdict: str | None = "verified", **more: Any) -> Kept:
    """Return a backup that ended so many seconds ago."""
    document = manifest.Manifest(
        "/x", id=f"id-{sequence}", source="db", kind=kind, sequence=sequence, started=NOW - ago - 10, ended=NOW - ago,
        parent=more.pop("parent", None), positions=more,
    )  # fmt: skip
    return Kept(f"/root/db/{kind}/{sequence}", document, verdict, NOW - ago)


def log(sequence: int, ago: float, first: int, last: int, verdict: str | None = "verified") -> Kept:
    names = {"first_file": f"binlog.{first:06}", "last_file": f"binlog.{last:06}"}
    return kept(sequence, "log", ago, verdict, last_time=NOW - ago, **names)


def full(sequence: int, ago: float, file: int, verdict: str | None = "verified") -> Kept:
    return kept(sequence, "full", ago, verdict, to_lsn=sequence, binlog_file=f"binlog.{file:06}", binlog_position=4)


CHAIN = [full(1, 3 * DAY, 10), log(2, 2 * DAY, 10, 12), log(3, DAY, 12, 15), log(4, HOUR, 15, 20)]


def judged(backups: list[Kept], **wanted: Any) -> Answer:
    return judge(Wanted("/root", ("db",), **{"full_within": 8 * DAY, **wanted}), "db", backups, [], NOW)


def critical(found: Answer) -> list[str]:
    return [finding.check for finding in found.findings if finding.severity == "critical"]


@pytest.mark.parametrize(
    ("backups", "wanted", "wrong"),
    [
        (CHAIN, {"recoverable_within": 2 * HOUR}, []),
        (CHAIN, {"recoverable_within": HOUR / 2}, ["recovery.until"]),
        (CHAIN, {"full_within": 2 * DAY}, ["recovery.full"]),
        ([], {}, ["recovery.full"]),
        ([full(1, HOUR, 10, None)], {}, ["recovery.full"]),
        ([full(1, HOUR, 10, "damaged")], {}, ["recovery.full"]),
        ([full(1, HOUR, 10, "inconclusive")], {}, ["recovery.full"]),
        ([full(1, HOUR, 10, "structure_ok")], {}, []),
        ([kept(1, "snapshot", HOUR)], {"recoverable_within": 2 * HOUR}, []),
        ([kept(1, "snapshot", 9 * DAY)], {"recoverable_within": 2 * HOUR}, ["recovery.full", "recovery.until"]),
        ([replace(kept(1, "snapshot", 9 * DAY), unchanged=NOW - HOUR)], {"recoverable_within": 2 * HOUR}, []),
        ([*CHAIN[:2], CHAIN[3]], {"recoverable_within": 2 * HOUR}, ["recovery.until"]),
        ([*CHAIN[:2], log(3, DAY, 12, 15, "damaged"), CHAIN[3]], {"recoverable_within": 2 * HOUR}, ["recovery.until"]),
        ([*CHAIN[:2], CHAIN[3], full(5, HOUR / 2, 20)], {"recoverable_within": HOUR}, []),
    ],
)
def test_what_is_wanted(backups: list[Kept], wanted: dict[str, Any], wrong: list[str]) -> None:
    found = judged(backups, **wanted)
    assert critical(found) == wrong, found.findings
    assert found.good == (not wrong)


def test_a_gap_before_the_newest_full_backup_is_told_and_passes() -> None:
    found = judged([*CHAIN[:2], CHAIN[3], full(5, HOUR / 2, 20)])
    gaps = [finding for finding in found.findings if finding.check == "recovery.gap"]
    assert [finding.severity for finding in gaps] == ["warning"] and found.good
    assert "the logs after binlog.000012 and before binlog.000015 are missing" in gaps[0].message


def test_the_statement_is_one_sentence() -> None:
    found = judged(CHAIN)
    assert found.findings[0].severity == "ok"
    sentence = "db is recoverable from 2027-01-12T08:00:00Z to 2027-01-15T07:00:00Z, gaps: none"
    assert found.findings[0].message == found.as_dict()["sentence"] == sentence


def test_an_increment_is_no_full_backup() -> None:
    backups = [full(1, 9 * DAY, 10), kept(2, "incremental", HOUR, parent="id-1", from_lsn=1, to_lsn=2)]
    assert critical(judged(backups)) == ["recovery.full"]


def test_the_store_is_read(tmp_path: Path) -> None:
    place = tmp_path / "db" / "full" / "20270101T000000Z"
    place.mkdir(parents=True)
    document = {"schema": 1, "id": "a", "source": "db", "kind": "full", "sequence": 1, "end": NOW - 60, "files": []}
    (place / "manifest.json").write_text(json.dumps(document))
    wanted = [Wanted(str(tmp_path), ("db", "none"), DAY)]
    assert [found.good for found in answer(wanted, NOW)] == [False, False]
    (tmp_path / "db" / "verdicts.json").write_text(json.dumps({"a": {"verdict": "verified", "time": NOW}}))
    assert [found.good for found in answer(wanted, NOW)] == [True, False]
    assert "there is no verified full backup of none" in answer(wanted, NOW)[1].reasons()
