# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.listing import NAME, ROOT, Item, read
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Listing, Manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept


class Snapshots:
    """Trees as rsync makes them, of one source: copies whose unchanged files are hard links."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.source = place / "source"
        self.source.mkdir()
        self.number = 0
        self.base: Kept | None = None

    def take(self) -> files.Counted:
        self.number += 1
        directory = self.place / str(self.number)
        target = Path(f"{directory}/{ROOT}{self.source}")
        for path in sorted(self.source.rglob("*")):
            copy = target / path.relative_to(self.source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            old = self.base and Path(f"{self.base.path}/{ROOT}{path}")
            if path.is_dir():
                copy.mkdir(exist_ok=True)
            elif old and old.exists() and old.stat().st_mtime_ns == path.stat().st_mtime_ns:
                os.link(old, copy)
            else:
                shutil.copy2(path, copy, follow_symlinks=False)
        counted = files._list(f"{directory}/{ROOT}", f"{directory}/{NAME}", self.base)
        listing = Listing(NAME, ROOT, counted.files, counted.size)
        self.base = Kept(str(directory), Manifest(str(directory / "manifest.json"), listing=listing))
        return counted

    def listed(self) -> dict[str, Item]:
        assert self.base is not None
        prefix = str(self.source).lstrip("/") + "/"
        return {item.path[len(prefix) :]: item for item in read(f"{self.base.path}/{NAME}")}


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    made = Snapshots(tmp_path)
    for number in range(5):
        (made.source / f"d{number}").mkdir()
        (made.source / f"d{number}" / "file").write_text(str(number))
    (made.source / os.fsdecode(b"\xff\n")).write_text("x")
    (made.source / "link").symlink_to("d1/file")
    return made


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_what_has_not_changed_is_not_read_again(snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    first = snapshots.take()
    assert (first.files, first.size, first.new_files, first.links) == (6, 6, 6, 1)
    assert snapshots.listed()["d3/file"] == Item(f"{snapshots.source}/d3/file"[1:], 1, digest("3"))
    assert snapshots.listed()["link"].link == "d1/file"
    (snapshots.source / "d3" / "file").write_text("three")
    (snapshots.source / "d0" / "new").write_text("new")
    (snapshots.source / "d4" / "file").unlink()
    hashed = []
    original = files._hash
    monkeypatch.setattr(files, "_hash", lambda path: (hashed.append(path), original(path))[1])
    second = snapshots.take()
    assert (second.files, second.new_files, second.new_size) == (6, 2, 8)
    assert [path.rpartition("/source/")[2] for path in hashed] == ["d0/new", "d3/file"]
    listed = snapshots.listed()
    assert {name: item.sha256 for name, item in listed.items() if item.sha256} == {
        "d0/file": digest("0"),
        "d0/new": digest("new"),
        "d1/file": digest("1"),
        "d2/file": digest("2"),
        "d3/file": digest("three"),
        os.fsdecode(b"\xff\n"): digest("x"),
    }


def test_a_file_of_the_same_name_that_is_no_link_is_read(snapshots: Snapshots) -> None:
    snapshots.take()
    times = (snapshots.source / "d2" / "file").stat()
    (snapshots.source / "d2" / "file").write_text("9")
    os.utime(snapshots.source / "d2" / "file", ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert snapshots.take().new_files == 1
    assert snapshots.listed()["d2/file"].sha256 == digest("9")


def test_a_file_that_was_written_meanwhile_is_told(snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    original = files._hash

    def writing(path: str) -> str:
        if path.endswith("d2/file"):
            (snapshots.source / "d2" / "file").write_text("written")
        if path.endswith("d1/file"):
            (snapshots.source / "d1" / "file").unlink()
        return original(path)

    monkeypatch.setattr(files, "_hash", writing)
    assert snapshots.take().changed == [f"{snapshots.source}/d2/file"]


def test_a_damaged_list_of_the_base_is_told(snapshots: Snapshots) -> None:
    snapshots.take()
    assert snapshots.base is not None
    Path(f"{snapshots.base.path}/{NAME}").write_bytes(b"nothing")
    with pytest.raises(MakeError, match=r"cannot be read: .*; verify the snapshot before"):
        snapshots.take()


def test_names_of_one_inode_are_read_once(snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Path(f"{snapshots.place}/1/{ROOT}")
    target.mkdir(parents=True)
    (target / "a").write_text("a")
    os.link(target / "a", target / "b")
    hashed = []
    original = files._hash
    monkeypatch.setattr(files, "_hash", lambda path: (hashed.append(path), original(path))[1])
    counted = files._list(str(target), str(target.parent / NAME), None)
    assert (counted.files, len(hashed)) == (2, 1)


@pytest.mark.parametrize(
    ("count", "last"), [(1, "/f0 gone"), (20, "/f19 gone"), (21, "1 more files: gone"), (1000, "980 more files: gone")]
)
def test_warnings_are_bounded(count: int, last: str) -> None:
    told = files._told([f"/f{number}" for number in range(count)], "gone")
    assert (len(told), told[-1]) == (min(count, 21), last)
