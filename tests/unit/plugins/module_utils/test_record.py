# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils import record


def test_a_record_is_one_line_and_private(tmp_path: Path) -> None:
    path = tmp_path / "log" / "records.jsonl"
    record.append(str(path), {"what": "restart", "note": "two\nlines 工作"})
    assert path.read_bytes().count(b"\n") == 1
    assert list(record.read(str(path))) == [{"what": "restart", "note": "two\nlines 工作"}]
    assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0


def test_a_line_left_unfinished_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2, "cut')
    record.append(str(path), {"n": 3})
    assert list(record.read(str(path))) == [{"n": 1}, {"n": 3}]


def _write(path: str, number: int) -> None:
    for count in range(50):
        record.append(path, {"writer": number, "count": count, "filler": "x" * 5000})


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "records.jsonl")
    writers = [multiprocessing.Process(target=_write, args=(path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    seen = [(line["writer"], line["count"]) for line in record.read(path)]
    assert sorted(seen) == [(number, count) for number in range(4) for count in range(50)]


def test_a_held_lock_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with path.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(record.RecordError, match=r"records\.jsonl: it is locked"):
            record.append(str(path), {}, timeout=0.2)
    assert path.read_bytes() == b""


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(record.RecordError, match="cannot write a record to"):
        record.append(str(tmp_path / "file" / "records.jsonl"), {})


def test_a_short_write_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    record.append(str(path), {"n": 1})
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(record.RecordError, match="the file system is full"):
        record.append(str(path), {"n": 2})
    assert path.read_bytes() == before
    assert json.loads(before) == {"n": 1}
