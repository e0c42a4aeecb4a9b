# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Expectations as operators write them, the history of sizes, and the line that shows the progress."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import expect, progress
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import ExpectationError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.history import (
    KEEP,
    History,
    HistoryError,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import Members, printable

pytestmark = pytest.mark.capability("A8")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("max_age", "26h", 93600.0),
        ("max_age", "7d", 604800.0),
        ("max_age", "90 min", 5400.0),
        ("max_age", 3600, 3600.0),
        ("max_age", "1.5H", 5400.0),
        ("min_size", "10M", 10 * 1024**2),
        ("min_size", "1.5GiB", 3 * 1024**3 // 2),
        ("max_size", "500kB", 500 * 1024),
        ("max_size", 123, 123),
        ("size_change", "50%", 0.5),
        ("size_change", 0.3, 0.3),
        ("members", "a, b", ("a", "b")),
        ("members", ["a,b"], ("a,b",)),
        ("min_members", "3", 3),
        ("tables", "db.t,db.u", ("db.t", "db.u")),
        ("min_rows", {"db.t": "5"}, {"db.t": 5}),
        ("sha256", "AB" * 32, "ab" * 32),
    ],
)
def test_values(key: str, value: Any, expected: Any) -> None:
    assert getattr(expect.parse("x", {key: value}), key) == expected


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("max_age", "soon", "90m, 26h or 7d"),
        ("max_age", "-1h", "90m, 26h or 7d"),
        ("max_age", "3 months", "90m, 26h or 7d"),
        ("min_size", "10 apples", "500K, 10M or 1.5G"),
        ("size_change", "half", "0.5 or 50%"),
        ("members", {"a": 1}, "a list of names"),
        ("members", [""], "a list of names"),
        ("min_members", -1, "not negative"),
        ("min_members", True, "not negative"),
        ("tables", ["users"], "database.table"),
        ("min_rows", {"users": 1}, "{database.table: 100}"),
        ("min_rows", ["db.t"], "{database.table: 100}"),
        ("min_rows", {"db.t": "many"}, "not negative"),
        ("sha256", "abc", "64 hexadecimal digits"),
        ("max_agee", 1, "possible are max_age"),
    ],
)
def test_wrong_values_get_one_sentence(key: str, value: Any, words: str) -> None:
    with pytest.raises(ExpectationError, match="/backup/x: ") as caught:
        expect.parse("/backup/x", {key: value})
    assert words in str(caught.value)
    assert key in str(caught.value)


def test_a_backup_goes_before_the_module() -> None:
    merged = expect.parse(
        "x", {"max_age": "1d", "min_rows": {"a.b": 1}}, {"max_age": "2d", "min_documents": {"c.d": 2}}
    )
    assert merged.max_age == 172800.0
    assert merged.min_rows == {"a.b": 1, "c.d": 2}
    assert expect.parse("x", {"max_age": "1d"}, {"max_age": None}, None).max_age == 86400.0


def test_history_keeps_the_newest_and_replaces_its_file(tmp_path: Path) -> None:
    history = History(str(tmp_path / "new"))
    history.save()
    assert not (tmp_path / "new").exists()
    for made in range(KEEP + 5):
        history.add("a", made, 100)
    history.add("b", 1, 7)
    history.save()
    value = json.loads((tmp_path / "new" / "sizes.json").read_text())
    assert [entry["time"] for entry in value["sizes"]["a"]] == list(range(5, KEEP + 5))
    again = History(str(tmp_path / "new"))
    assert again.median("a", 1e9) == (100, KEEP)
    assert again.median("a", 7) == (None, 2)
    assert again.median("b", 1e9) == (None, 1)
    assert again.median("none", 1e9) == (None, 0)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 1, "sizes": {"a": [1]}}', '{"schema": 9, "sizes": {}}'])
def test_a_damaged_history_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sizes.json").write_text(text)
    with pytest.raises(HistoryError, match=r"sizes\.json"):
        History(str(tmp_path))


def test_progress_is_kept_in_a_private_file(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "progress.json"
    kept = progress.Progress(str(path), lambda: now[0])
    kept.start("/backup/x.tar.gz", 1_400_000_000)
    kept.advance(1_000_000)
    assert not path.exists()
    now[0] = 3.0
    kept.advance(599_000_000)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    state = json.loads(path.read_text())
    assert progress.line("app1", state) == (
        "app1: backup_verify /backup/x.tar.gz 42 % (0.6 of 1.4 GB, 200 MB/s, 4 s left)"
    )
    kept.end()
    assert os.listdir(tmp_path) == []
    kept.end()
    progress.Progress(None).advance(5)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"size": 0, "read": 3_100_000_000, "seconds": 10}, "3.1 GB read, 310 MB/s"),
        ({"size": 100, "read": 100, "seconds": 0.0}, "100 % (0 of 0 kB, 0 MB/s, 0 s left)"),
        ({"size": 10**12, "read": 10**11, "seconds": 1000}, "10 % (0.1 of 1.0 TB, 100 MB/s, 150 min left)"),
    ],
)
def test_progress_lines(state: dict[str, Any], words: str) -> None:
    assert progress.line("h", {"backup": "/x", **state}).endswith(words)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.txt", "plain.txt"),
        ("备份.tar", "备份.tar"),
        ("a\x1b[31m\n", "a\\x1b[31m\\n"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("x" * 300, "…" + "x" * 200),
    ],
)
def test_names_are_shown_safely(name: str | bytes, shown: str) -> None:
    assert printable(name) == shown


def test_many_names_are_compared_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import members

    monkeypatch.setattr(members, "MAX_NAMES", 10)
    names = Members()
    for number in range(30):
        names.add(f"file{number}")
    names.add("file1")
    assert not names.names_compared
    assert names.problems() == []
