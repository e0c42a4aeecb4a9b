# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inodes with several names that were read in one run, so that none is read twice."""

from __future__ import annotations

import os
import struct

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

#: Inodes that are remembered.
_REMEMBERED = 100_000

#: How one is remembered: hash of its size and times, its SHA-256.
_KNOWN = struct.Struct("=q32s")
_NO_DIGEST = bytes(32)


class Inodes:
    """The inodes with several names that were read, over all trees of one run.

    Snapshots share what did not change: it is read once, and what is wrong with it is told for each of them.
    """

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self._problems: dict[int, Problem] = {}

    @staticmethod
    def key(status: os.stat_result) -> int:
        """Return what names an inode."""
        return status.st_dev << 64 | status.st_ino

    def find(self, status: os.stat_result, hashed: bool) -> tuple[str | None, Problem | None] | None:
        """Return hash and problem of an inode that was read and did not change since.

        :param hashed: whether nothing but a hash will do.
        """
        key = self.key(status)
        entry = self._known.get(key)
        if entry is None:
            return None
        times, digest = _KNOWN.unpack(entry)
        problem = self._problems.get(key)
        if times != self._times(status) or (hashed and digest == _NO_DIGEST and problem is None):
            return None
        return (None if digest == _NO_DIGEST else digest.hex()), problem

    def keep(self, status: os.stat_result, digest: str | None, problem: Problem | None) -> None:
        """Remember an inode that was read, as long as there is room."""
        key = self.key(status)
        if key in self._known or len(self._known) < _REMEMBERED:
            self._known[key] = _KNOWN.pack(self._times(status), bytes.fromhex(digest) if digest else _NO_DIGEST)
            self._problems.pop(key, None)
            if problem is not None:
                self._problems[key] = problem

    @staticmethod
    def _times(status: os.stat_result) -> int:
        return hash((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
