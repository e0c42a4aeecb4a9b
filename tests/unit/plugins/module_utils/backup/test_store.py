# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The places of backups: only what is whole has a name and a manifest, whatever happens in between."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Busy, Kept, Store, StoreError

NOW = 1_790_000_000.0
STAMP = "20260921T141320Z"


def make(store: Store, kind: str = "full", now: float = NOW, **document: Any) -> Kept:
    partial = store.begin(kind, now)
    Path(partial, "dump.sql").write_bytes(b"SELECT 1;")
    entry = {"path": "dump.sql", "size": 9, "sha256": "0" * 64}
    return store.finish(partial, {"kind": kind, "files": [entry], "end": now, **document})


def names(store: Store) -> list[str]:
    return [os.path.relpath(kept.path, store.path) for kept in store.backups()[0]]


def test_none_one_many(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "worklog")
    assert store.backups() == ([], [])
    first = make(store)
    assert names(store) == [f"full/{STAMP}"]
    second = make(store, "incremental", parent=first.id, positions={"from_lsn": 7})
    assert second.manifest.parent == first.id
    assert second.manifest.positions == {"from_lsn": 7}
    assert (second.manifest.source, second.manifest.kind, second.manifest.ended) == ("worklog", "incremental", NOW)
    assert second.size == 9
    assert len({first.id, second.id}) == 2


def test_the_order_is_that_of_the_making_whatever_the_clock_does(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "worklog")
    made = [make(store, now=NOW - 86400 * number).id for number in range(3)]
    made += [make(store, "log", NOW).id, make(store, now=NOW).id, make(store, now=NOW).id]
    backups, troubles = store.backups()
    assert [kept.id for kept in backups] == made
    assert [kept.manifest.sequence for kept in backups] == [1, 2, 3, 4, 5, 6]
    assert troubles == []
    assert names(store)[-1] == f"full/{STAMP}-3", "a name is taken once"


def test_a_removed_backup_does_not_give_its_number_back(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "worklog")
    make(store)
    store.discard(make(store).path)
    assert make(store).manifest.sequence == 3
    Path(store.path, "sequence.json").unlink()
    assert make(store).manifest.sequence == 4


def test_what_is_not_finished_is_no_backup_and_goes_with_the_next_run(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "worklog")
    partial = store.begin("full", NOW)
    Path(partial, "dump.sql").write_bytes(b"x")
    Path(partial, manifest.NAME).write_text(json.dumps({"schema": 1, "id": "x", "files": []}), encoding="utf-8")
    assert store.backups() == ([], [])
    assert store.clean() == [partial]
    assert os.listdir(os.path.dirname(partial)) == []


def test_a_directory_without_a_usable_manifest_is_told_and_left_alone(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "worklog")
    good = make(store)
    for name, content in (("none", None), ("broken", "{"), ("foreign", '{"schema": 1, "files": []}')):
        directory = Path(store.path, "full", name)
        directory.mkdir()
        if content is not None:
            (directory / manifest.NAME).write_text(content, encoding="utf-8")
    backups, troubles = store.backups()
    assert [kept.id for kept in backups] == [good.id]
    assert len(troubles) == 3
    assert store.clean() == []
    assert Path(store.path, "full", "none").is_dir()


def test_everything_is_private(tmp_path: Path) -> None:
    kept = make(Store(str(tmp_path), "worklog"))
    for path in (tmp_path / "worklog", tmp_path / "worklog" / "full", Path(kept.path)):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (Path(kept.path) / manifest.NAME).stat().st_mode & 0o777 == 0o600


def test_one_program_at_a_time(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "worklog")
    with store.lock("backup full"):
        with pytest.raises(Busy, match=rf"worklog is in use by process {os.getpid()} \(backup full\) since 20"):
            Store(str(tmp_path), "worklog").lock("prune").__enter__()
        with Store(str(tmp_path), "other").lock("backup full"):
            pass
    with store.lock("again"):
        pass


def test_verdicts_are_remembered_as_long_as_the_backup_is_there(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "worklog")
    first, second = make(store), make(store)
    store.set_verdict(first, "verified", 5.0)
    store.set_verdict(second, "damaged", 6.0)
    assert [(kept.verdict, kept.verified) for kept in store.backups()[0]] == [("verified", 5.0), ("damaged", 6.0)]
    store.discard(first.path)
    store.set_verdict(second, "verified", 7.0)
    assert first.id not in Path(store.path, "verdicts.json").read_text(encoding="utf-8")
    assert [(kept.verdict, kept.verified) for kept in store.backups()[0]] == [("verified", 7.0)]


def test_a_damaged_file_of_verdicts_is_told(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "worklog")
    make(store)
    Path(store.path, "verdicts.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"verdicts\.json.*remove it"):
        store.backups()


def test_a_backup_loses_its_name_before_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path), "worklog")
    kept = make(store)

    def killed(path: str) -> None:
        raise OSError("killed here")

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(StoreError, match="cannot remove"):
        store.discard(kept.path)
    assert store.backups() == ([], [])
    monkeypatch.undo()
    assert len(store.clean()) == 1


@pytest.mark.parametrize("name", ["", "..", "a/b", "Worklog", "-x", "a b", "x" * 65, "a\n"])
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="is no name for a source"):
        Store(str(tmp_path), name)
