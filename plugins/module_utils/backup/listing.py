# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a snapshot with their hashes: one line of JSON each, compressed by gzip, in the order of a walk.

A snapshot may hold a million files, and every program that looks at the backups of a source reads all manifests. So the
files of a tree are in a list of their own, which is only ever read from its beginning to its end, beside a walk.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

#: The list and the tree of a snapshot, below its directory.
NAME = "tree.jsonl.gz"
ROOT = "tree"


class ListingError(Exception):
    """A list that cannot be read."""


@dataclass(frozen=True)
class Item:
    """A file or a link of the tree.

    :param path: below the tree.
    :param size: bytes of a regular file.
    :param sha256: of a regular file.
    :param link: where a symbolic link points to.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    link: str | None = None

    @property
    def place(self) -> tuple[tuple[str, ...], str]:
        """Return what items are sorted by: the order of a walk that tells files before directories."""
        return place(self.path)

    def render(self) -> bytes:
        """Return the item as a line; bytes of a name that are no UTF-8 are escapes of JSON."""
        value = {key: entry for key, entry in vars(self).items() if entry is not None}
        return json.dumps(value).encode("ascii") + b"\n"


def place(path: str) -> tuple[tuple[str, ...], str]:
    """Return where a path stands in the order of a walk."""
    *directories, name = path.split("/")
    return tuple(directories), name


def read(path: str) -> Iterator[Item]:
    """Yield the items of a list.

    :raises ListingError: when it is damaged.
    """
    try:
        with gzip.open(path, "rb") as stream:
            for line in stream:
                value: dict[str, Any] = json.loads(line)
                yield Item(value["path"], value.get("size"), value.get("sha256"), value.get("link"))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ListingError(f"{path} cannot be read: {error}") from error


def walk(root: str, unreadable: Callable[[OSError], None]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything below a directory that is no directory, by its path below, in the order of a list.

    Only the entries of one directory are in memory at a time. No link is followed.

    :param unreadable: is told of a directory that cannot be read, and of a file that has vanished.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        found: list[str] = []
        deeper: list[str] = []
        try:
            with os.scandir(os.path.join(root, below) if below else root) as entries:
                for entry in entries:
                    (deeper if entry.is_dir(follow_symlinks=False) else found).append(entry.name)
        except OSError as error:
            unreadable(error)
            continue
        for name in sorted(found):
            path = f"{below}/{name}" if below else name
            try:
                status = os.lstat(os.path.join(root, path))
            except OSError as error:
                unreadable(error)
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield path, status
        waiting += [f"{below}/{name}" if below else name for name in sorted(deeper, reverse=True)]


class Beside:
    """Items of a list, asked for in the order of a walk."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._next = next(items, None)

    def take(self, path: str) -> tuple[Item | None, list[Item]]:
        """Return the item of this path, and those before it that were not asked for."""
        here, passed = place(path), []
        while self._next is not None and self._next.place < here:
            passed.append(self._next)
            self._next = next(self._items, None)
        if self._next is None or self._next.path != path:
            return None, passed
        found, self._next = self._next, next(self._items, None)
        return found, passed

    def rest(self) -> Iterator[Item]:
        """Yield the items behind the last one that was asked for."""
        while self._next is not None:
            yield self._next
            self._next = next(self._items, None)
