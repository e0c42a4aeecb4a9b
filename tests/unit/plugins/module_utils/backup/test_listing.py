# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.listing import (
    Beside,
    Item,
    ListingError,
    place,
    read,
    walk,
)

HOSTILE = ["-rf", "a b", "line\nbreak", "tab\t", "é", os.fsdecode(b"\xff\xfe"), "'\"$(id)`", "x" * 255, "..."]


def never(error: OSError) -> None:
    raise error


def write(path: Path, items: list[Item]) -> None:
    path.write_bytes(gzip.compress(b"".join(item.render() for item in items)))


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    items = [Item(name, 3, "0" * 64) for name in HOSTILE] + [Item("l", link=os.fsdecode(b"../\xff"))]
    write(tmp_path / "list", items)
    assert list(read(str(tmp_path / "list"))) == items


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        gzip.compress(b"{}\n", mtime=0),
        gzip.compress(b"[1]\n", mtime=0),
        gzip.compress(b"x\n", mtime=0)[:-5],
        gzip.compress(b"x", mtime=0),
    ],
)
def test_a_damaged_list_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list").write_bytes(content)
    if not content:
        assert list(read(str(tmp_path / "list"))) == []
        return
    with pytest.raises(ListingError, match="cannot be read"):
        list(read(str(tmp_path / "list")))


def test_a_walk_is_in_the_order_of_places(tmp_path: Path) -> None:
    source = random.Random(4)
    for _unused in range(300):
        parts = [source.choice([*HOSTILE, "a", "a.b", "a-", "b", "0"]) for _part in range(source.randrange(1, 4))]
        path = tmp_path.joinpath(*parts)
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "pointer").symlink_to("/etc")
    found = [path for path, _status in walk(str(tmp_path), never)]
    assert len(found) > 50
    assert found == sorted(found, key=place)
    there = {
        os.path.relpath(os.path.join(top, name), tmp_path) for top, _dirs, names in os.walk(tmp_path) for name in names
    }
    assert set(found) == there | {"pointer"}


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    told: list[OSError] = []
    assert list(walk(str(tmp_path / "nothing"), told.append)) == []
    assert told[0].filename == str(tmp_path / "nothing")


@pytest.mark.parametrize("seed", range(20))
def test_a_list_is_read_beside_a_walk(seed: int) -> None:
    source = random.Random(seed)
    names = sorted({f"{source.randrange(4)}/{source.randrange(40)}" for _unused in range(60)}, key=place)
    listed = [name for name in names if source.random() < 0.7]
    walked = [name for name in names if source.random() < 0.7]
    beside = Beside(Item(name) for name in listed)
    found, missing = [], []
    for name in walked:
        item, passed = beside.take(name)
        found += [item.path] if item else []
        missing += [entry.path for entry in passed]
    missing += [entry.path for entry in beside.rest()]
    assert found == [name for name in walked if name in listed]
    assert missing == [name for name in listed if name not in walked]
