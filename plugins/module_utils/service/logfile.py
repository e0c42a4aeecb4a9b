# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading what was added to a log file."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The end of a file at one moment."""

    inode: int
    size: int


def place(path: str) -> Place:
    """Return the end of a file now; a file that does not exist ends at its beginning."""
    try:
        status = os.stat(path)
    except OSError:
        return Place(0, 0)
    return Place(status.st_ino, status.st_size)


def read_since(path: str, since: Place, limit: int = 1024 * 1024) -> list[str]:
    """Return the lines added to a file since then; all of them when it was rotated or truncated.

    :param limit: bytes that are read at most, the last ones.
    """
    try:
        with open(path, "rb") as stream:
            status = os.fstat(stream.fileno())
            begin = since.size if status.st_ino == since.inode and status.st_size >= since.size else 0
            stream.seek(max(begin, status.st_size - limit))
            return stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
