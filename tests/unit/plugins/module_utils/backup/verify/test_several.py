# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several backups in one run: snapshots that share inodes, and large stores of which a share is read."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.check import exceeds, verify_all
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import parse
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.history import History, HistoryError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.rotation import Share, Turns, due
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup, Result

pytestmark = pytest.mark.capability("A8")

DAY = 86400.0


def snapshots(root: Path, days: int = 4, files: int = 20, manifests: bool = True) -> list[Path]:
    """Make snapshots as rsync --link-dest does: each day one file is new, the others are links."""
    made: list[Path] = []
    for day in range(days):
        directory = root / f"2026010{day + 1}"
        (directory / "uploads").mkdir(parents=True)
        for number in range(files):
            path = directory / "uploads" / f"{number}.bin"
            if made and number != day:
                os.link(made[-1] / "uploads" / path.name, path)
            else:
                path.write_bytes(f"{day} {number} ".encode() * 1000)
        if manifests:
            write_manifest(directory)
        made.append(directory)
        os.utime(directory, (1e9 + day, 1e9 + day))
    return made


def write_manifest(directory: Path) -> None:
    entries = [
        {
            "path": str(path.relative_to(directory)),
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(directory.rglob("*.*"))
    ]
    (directory / "manifest.json").write_text(json.dumps({"schema": 1, "files": entries}))


def run(
    path: str | Path, turns: Turns | None = None, now: float | None = None, **more: Any
) -> tuple[list[Result], int]:
    """Verify, and return the results and how many bytes were read."""
    read: list[int] = []
    expect = more.pop("expect", {})
    backup = Backup(str(path), "uploads", expect=parse("uploads", expect), **more)
    results = verify_all([backup], now=now or time.time(), limits=Limits(), turns=turns, progress=read.append)
    return results, sum(read)


def damage(path: Path) -> None:
    """Flip a byte in place, as a disk does: neither size nor times change."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[50] ^= 8
    with path.open("r+b") as stream:
        stream.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# --- shared inodes ----------------------------------------------------------------------------------------------------


def test_each_inode_is_read_once_over_all_snapshots(tmp_path: Path) -> None:
    made = snapshots(tmp_path)
    results, read = run(tmp_path / "*", every=True)
    assert [result.path for result in results] == [str(path) for path in reversed(made)]
    assert {result.verdict for result in results} == {"verified"}
    inodes = {path.stat().st_ino: path.stat().st_size for path in tmp_path.rglob("*.bin")}
    assert len(inodes) == 23
    assert read == sum(inodes.values())
    assert [result.size for result in results] == [sum(p.stat().st_size for p in d.rglob("*.bin")) for d in made[::-1]]


def test_one_flip_is_told_for_every_snapshot_that_shares_it(tmp_path: Path) -> None:
    made = snapshots(tmp_path)
    damage(made[1] / "uploads" / "7.bin")  # the same inode in all four
    damage(made[1] / "uploads" / "1.bin")  # new on the second day
    results, _read = run(tmp_path / "*", every=True)
    told = {Path(result.path).name: [f for f in result.findings if f.check == "backup.sha256"] for result in results}
    assert {name: len(found) for name, found in told.items()} == {
        "20260101": 1, "20260102": 2, "20260103": 2, "20260104": 2
    }  # fmt: skip
    assert {result.verdict for result in results} == {"damaged"}


def test_each_snapshot_against_its_own_manifest(tmp_path: Path) -> None:
    made = snapshots(tmp_path)
    document = json.loads((made[2] / "manifest.json").read_text())
    document["files"][5]["sha256"] = "0" * 64
    (made[2] / "manifest.json").write_text(json.dumps(document))
    results, _read = run(tmp_path / "*", every=True)
    assert [result.verdict for result in results] == ["verified", "damaged", "verified", "verified"]


def test_a_snapshot_without_a_manifest_does_not_hide_the_hash_from_the_next(tmp_path: Path) -> None:
    made = snapshots(tmp_path)
    (made[3] / "manifest.json").unlink()
    damage(made[0] / "uploads" / "9.bin")
    results, _read = run(tmp_path / "*", every=True)
    assert [result.verdict for result in results] == ["structure_ok", "damaged", "damaged", "damaged"]


def test_what_is_followed_is_followed_in_every_snapshot(tmp_path: Path) -> None:
    for day in ("1", "2"):
        (tmp_path / day).mkdir()
    (tmp_path / "1" / "users.bson").write_bytes(b"\x05\0\0\0\0" * 3 + b"\x05\0\0")
    os.link(tmp_path / "1" / "users.bson", tmp_path / "2" / "users.bson")
    results, _read = run(tmp_path / "*", every=True)
    assert [result.verdict for result in results] == ["damaged", "damaged"]


def test_only_the_newest_must_be_fresh(tmp_path: Path) -> None:
    snapshots(tmp_path)
    results, _read = run(tmp_path / "*", every=True, expect={"max_age": "1h"}, now=time.time() + 2 * 3600)
    assert [result.verdict for result in results] == ["stale", "verified", "verified", "verified"]
    assert [result.path for result in run(tmp_path / "none-*", every=True)[0]] == [str(tmp_path / "none-*")]


def test_all_matches_count_for_what_there_is_to_read(tmp_path: Path) -> None:
    snapshots(tmp_path)
    one = Backup(str(tmp_path / "*"), "uploads")
    assert not exceeds([one], 150_000)
    assert exceeds([Backup(one.path, "uploads", every=True)], 150_000)


# --- a share in each run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "interval", "within", "turn"),
    [
        ({}, None, 7 * DAY, {0}),
        ({0: 9 * DAY}, DAY, 10 * DAY, {1}),
        (dict.fromkeys(range(10), 9 * DAY), DAY, 10 * DAY, {0}),
        ({part: (9.9 - part) * DAY for part in range(10)}, DAY, 10 * DAY, {9}),
        ({}, DAY, 5 * DAY, {0, 1}),  # a tenth a day is not enough for five days
        ({}, DAY, 3.5 * DAY, {0, 1, 2}),
        (dict.fromkeys(range(10), 9 * DAY), 20 * DAY, 7 * DAY, set(range(10))),  # no run for a long time
        ({0: 1 * DAY, 1: 2.5 * DAY, **dict.fromkeys(range(2, 10), 9 * DAY)}, DAY, 8 * DAY, {0, 1}),  # late ones
        ({}, -5.0, 7 * DAY, {0}),  # the clock was set back
    ],
)
def test_whose_turn_it_is(last: dict[int, float], interval: float | None, within: float, turn: set[int]) -> None:
    assert due(10, last, now=10 * DAY, within=within, interval=interval) == turn


@pytest.mark.parametrize(("share", "within", "step"), [(0.1, 7, 1.0), (0.25, 7, 0.5), (0.05, 14, 1.0), (0.01, 7, 1.0)])
def test_everything_is_read_within_the_time(share: float, within: float, step: float) -> None:
    rule = Share(share, within * DAY)
    last: dict[int, float] = {}
    now, interval = 1e9, None
    for number in range(200):
        turn = due(rule.parts, last, now=now, within=rule.within, interval=interval)
        assert len(turn) < rule.parts
        last.update(dict.fromkeys(turn, now))
        if number * step > within:
            assert len(last) == rule.parts and now - min(last.values()) <= rule.within
        now, interval = now + step * DAY, step * DAY


def store(root: Path, files: int = 200) -> Path:
    for number in range(files):
        path = root / "uploads" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{number} ".encode() * 200)
    write_manifest(root)
    return root


def test_a_tree_is_read_in_turns_and_verified_when_all_was_read(tmp_path: Path) -> None:
    tree, kept = store(tmp_path / "store"), tmp_path / "history"
    share = Share(0.25, 8 * DAY)
    whole = sum(path.stat().st_size for path in tree.rglob("*.bin"))
    now, total, verdicts = time.time() + 1, 0, []
    for day in range(5):
        turns = Turns(str(kept))
        (result,), read = run(tree, turns, now + day * DAY, share=share)
        turns.save()
        total += read
        verdicts.append(result.verdict)
        assert read < whole / 2
        assert any("it is not their turn" in text for text in result.unchecked)
    assert verdicts == ["structure_ok"] * 3 + ["verified"] * 2
    assert total > whole  # the fifth run begins again


def test_what_is_new_is_read_at_once(tmp_path: Path) -> None:
    tree, kept = store(tmp_path / "store"), tmp_path / "history"
    now = time.time() + 1
    for day in range(4):
        turns = Turns(str(kept))
        run(tree, turns, now - (4 - day) * DAY, share=Share(0.25, 8 * DAY))
        turns.save()
    (tree / "uploads" / "5.bin").write_bytes(b"written after all was read\n")
    (result,), _read = run(tree, Turns(str(kept)), now, share=Share(0.25, 8 * DAY))
    assert result.verdict == "damaged"


def test_what_was_damaged_does_not_count_as_read_and_does_not_keep_the_rest_from_its_turn(tmp_path: Path) -> None:
    tree, kept = store(tmp_path / "store"), tmp_path / "history"
    now = time.time() + 1
    damage(tree / "uploads" / "7.bin")
    verdicts = []
    for day in range(8):
        turns = Turns(str(kept))
        (result,), _read = run(tree, turns, now + day * DAY, share=Share(0.25, 8 * DAY))
        turns.save()
        verdicts.append(result.verdict)
    assert verdicts[:4].count("damaged") == 1 and verdicts[4:].count("damaged") == 1
    assert "verified" not in verdicts
    kept_turns = json.loads((kept / "turns.json").read_text())["turns"]["uploads"]
    assert (len(kept_turns["last"]), len(kept_turns["tried"])) == (3, 4)


def test_files_with_several_names_may_be_new(tmp_path: Path) -> None:
    """A new link sets the change time of its inode, so it cannot be told that it was read."""
    tree, kept = store(tmp_path / "store"), tmp_path / "history"
    now = time.time() + 1
    for day in range(4):
        turns = Turns(str(kept))
        run(tree, turns, now - (4 - day) * DAY, share=Share(0.25, 8 * DAY))
        turns.save()
    for path in tree.rglob("*.bin"):
        os.link(path, tmp_path / path.name)
    (result,), _read = run(tree, Turns(str(kept)), now, share=Share(0.25, 8 * DAY))
    assert result.verdict == "structure_ok"
    assert "were not read since they were made" in result.findings[0].message


def test_older_matches_take_turns_and_the_newest_is_always_read(tmp_path: Path) -> None:
    kept = tmp_path / "history"
    for number in range(40):
        path = tmp_path / "dumps" / f"{number:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}\n" * 100)
        os.utime(path, (1e9 + number, 1e9 + number))
    seen: set[str] = set()
    now = time.time() + 1
    for day in range(4):
        turns = Turns(str(kept))
        results, _read = run(tmp_path / "dumps" / "*", turns, now + day * DAY, share=Share(0.25, 8 * DAY), every=True)
        turns.save()
        assert results[0].path.endswith("39.txt") and len(results) < 30
        assert any("older backups that match" in text for text in results[0].unchecked)
        seen |= {result.path for result in results}
    assert len(seen) == 40


def test_another_share_begins_anew(tmp_path: Path) -> None:
    turns = Turns(str(tmp_path))
    rotation = turns.begin("x", Share(0.25), 100.0)
    turns.end("x", rotation, True)
    assert turns.begin("x", Share(0.25), 200.0).last == {0: 100.0}
    assert turns.begin("x", Share(0.5), 200.0).last == {}


def test_damaged_documents_are_told(tmp_path: Path) -> None:
    for name, kind in (("turns.json", Turns), ("sizes.json", History)):
        (tmp_path / name).write_text('{"schema": 1, "turns": {"x": {}}, "sizes": {"x": [{}]}}')
        with pytest.raises(HistoryError, match="remove it to begin a new history"):
            kind(str(tmp_path))
