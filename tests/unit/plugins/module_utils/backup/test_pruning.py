# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pruning on disk: a dry run writes nothing, a crash leaves whole backups, foreign directories are left alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import prune, pruning
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Busy, Kept, Store, StoreError

pytestmark = pytest.mark.capability("A7")

DAY = 86400.0
NOW = 1_790_000_000.0
ALL = prune.Policy(max_share=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path), "db")


def make(store: Store, age: float, verdict: str | None = "verified", kind: str = "full", **document: Any) -> Kept:
    ended = NOW - age * DAY
    partial = store.begin(kind, ended)
    Path(partial, "data").write_bytes(b"x" * 10000)
    files = [{"path": "data", "size": 10000, "sha256": "0" * 64}]
    kept = store.finish(partial, {"kind": kind, "files": files, "end": ended, **document})
    if verdict is not None:
        store.set_verdict(kept, verdict, ended)
    return kept


def run(store: Store, policy: prune.Policy = ALL, **more: Any) -> pruning.Outcome:
    return pruning.local(store, policy, **{"now": NOW, "say": lambda text: None, **more})


def tree(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.path)) for path in Path(store.path).rglob("*"))


def sequences(store: Store) -> list[int]:
    return [kept.manifest.sequence for kept in store.backups()[0]]


def test_a_dry_run_tells_the_same_and_writes_nothing(store: Store) -> None:
    for age in (20, 19, 1, 0):
        make(store, age)
    before = tree(store)
    planned = run(store, dry=True)
    assert tree(store) == before
    done = run(store)
    assert (planned.as_dict(), planned.freed) == (done.as_dict(), done.freed)
    assert sequences(store) == [3, 4]
    assert len(done.deleted) == 2
    assert done.freed and done.freed >= 2 * 10000
    again = run(store)
    assert (again.deleted, again.freed) == ([], 0)


def test_the_newest_go_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    full = make(store, 30)
    make(store, 29, kind="incremental", parent=full.id)
    make(store, 1)
    make(store, 0)
    gone: list[str] = []
    real = Store.discard
    monkeypatch.setattr(
        Store, "discard", lambda self, path: (gone.append(os.path.basename(os.path.dirname(path))), real(self, path))
    )
    run(store)
    assert gone == ["incremental", "full"]


@pytest.mark.parametrize("after", range(3))
@pytest.mark.parametrize("half", [False, True])
def test_after_a_crash_only_whole_ones_have_a_name_and_the_next_run_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, after: int, half: bool
) -> None:
    for age in (22, 21, 20, 1, 0):
        make(store, age)
    policy = prune.Policy(max_share=0.3)

    class Crash(BaseException):
        pass

    real: Callable[[str], None] = shutil.rmtree
    count = 0

    def crash(path: str) -> None:
        nonlocal count
        if count == after:
            if half:
                os.unlink(os.path.join(path, "manifest.json"))
            raise Crash
        count += 1
        real(path)

    monkeypatch.setattr(shutil, "rmtree", crash)
    assert run(store, policy).deleted == []
    with pytest.raises(Crash):
        run(store, policy, allow=["share"])
    monkeypatch.setattr(shutil, "rmtree", real)
    left, troubles = store.backups()
    assert (len(left), troubles) == (4 - after, [])
    assert all(Path(kept.path, "data").stat().st_size == 10000 for kept in left)
    run(store, policy)
    assert sequences(store) == [4, 5], "what was allowed then is finished without being allowed again"
    assert not [name for name in tree(store) if name.endswith(".partial")]
    assert store.recall(pruning.STATE)["deleting"] == []


def test_what_cannot_be_removed_is_told_and_stops_the_rest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for age in (20, 19, 1, 0):
        make(store, age)

    def fail(self: Store, path: str) -> None:
        raise StoreError(f"cannot remove {path}: Operation not permitted")

    monkeypatch.setattr(Store, "discard", fail)
    found = run(store)
    assert found.failed and "Operation not permitted" in found.failed
    assert [finding.severity for finding in found.findings] == ["critical"]
    assert found.deleted == []


def test_foreign_directories_are_told_and_never_touched(store: Store) -> None:
    for age in (20, 19, 1, 0):
        make(store, age)
    places = {
        "full/by-hand": {"dump.sql": b"x"},
        "full/broken": {"manifest.json": b"{"},
        "full/stranger": {"manifest.json": b'{"schema": 1, "files": []}'},
        "elsewhere/20200101T000000Z": {"worklog.tar.gz": b"x"},
    }
    for place, contents in places.items():
        os.makedirs(os.path.join(store.path, place))
        for name, content in contents.items():
            Path(store.path, place, name).write_bytes(content)
            os.utime(Path(store.path, place, name), (0, 0))
    os.symlink("/etc", os.path.join(store.path, "full", "link"))
    found = run(store)
    assert len(found.deleted) == 2
    for place, contents in places.items():
        assert {name: Path(store.path, place, name).read_bytes() for name in contents} == contents
    assert os.path.islink(os.path.join(store.path, "full", "link"))
    assert sorted(finding.check for finding in found.findings) == ["backup.prune.foreign"] * 4
    assert all("is not touched" in finding.message for finding in found.findings)


def test_the_clock_is_remembered_unless_it_jumped(store: Store) -> None:
    for age in (20, 19, 1, 0):
        make(store, age)
    store.remember(pruning.STATE, {"seen": NOW + 60})
    for now, refusal in ((NOW - 3600, "time"), (NOW + 5 * DAY, "clock")):
        found = run(store, now=now)
        assert (list(found.plan.refusals), found.deleted) == ([refusal], [])
        assert found.refused and found.refused.startswith("the clock")
        assert store.recall(pruning.STATE)["seen"] == NOW + 60
    assert run(store, now=NOW + 5 * DAY, allow=["clock"]).refused is None
    assert store.recall(pruning.STATE)["seen"] == NOW + 5 * DAY
    assert sequences(store) == [3, 4]


def test_what_is_held_stays_until_then(store: Store) -> None:
    held = make(store, 20)
    for age in (19, 1, 0):
        make(store, age)
    pruning.hold(store, held.id, NOW + DAY)
    run(store)
    assert sequences(store) == [1, 3, 4]
    run(store, now=NOW + DAY)
    assert sequences(store) == [3, 4]
    assert store.recall(pruning.STATE)["held"] == {}


def test_nothing_is_done_while_another_program_works(store: Store) -> None:
    for age in (20, 19, 1, 0):
        make(store, age)
    with store.lock("backup full"), pytest.raises(Busy, match=r"in use by process .*backup full"):
        run(store)
    with store.lock("copy to remote", part="remote"):
        run(store)
    assert sequences(store) == [3, 4]


def test_hard_links_count_when_the_last_one_goes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "a").write_bytes(b"x" * 100000)
    (tmp_path / "one" / "own").write_bytes(b"x" * 50000)
    os.link(tmp_path / "one" / "a", tmp_path / "two" / "a")
    first = pruning.disk_usage(str(tmp_path / "one"))
    assert 50000 <= first < 100000
    shutil.rmtree(tmp_path / "one")
    assert 100000 <= pruning.disk_usage(str(tmp_path / "two")) < 150000
