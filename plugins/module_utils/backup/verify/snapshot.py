# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare the tree of a snapshot with its list: every inode is read once, in memory that does not grow with the tree.

The files are the users' and no backups: whether a dump among them is whole is none of our business, only whether it is
the one that was copied.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import listing
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Listing
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import (
    Unreadable,
    open_file,
    read_file,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Inspection
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.inodes import Inodes
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem


@dataclass
class Seen:
    """What the tree holds.

    :ivar files: regular files.
    :ivar size: their bytes.
    :ivar sound: files whose hash is the one of the list.
    :ivar unlisted: files that are not in the list.
    """

    files: int = 0
    size: int = 0
    sound: int = 0
    unlisted: int = 0


def compare(
    directory: str,
    listed: Listing,
    inspection: Inspection,
    *,
    progress: Callable[[int], None] = lambda amount: None,
    inodes: Inodes | None = None,
    turn: Callable[[str, os.stat_result], bool] = lambda path, status: True,
) -> Seen:
    """Read the tree of a snapshot beside its list; what is wrong goes to the inspection.

    :param directory: the backup.
    :param progress: is told how many bytes came in.
    :param inodes: what was read in other snapshots of the same run.
    :param turn: whether it is the turn of a file to be read.
    """
    seen = Seen()
    inodes = inodes or Inodes()
    root = os.path.join(directory, listed.root)

    def problem(check: str, path: str, message: str, damage: bool = True) -> None:
        inspection.problem(printable(f"{listed.root}/{path}"), Problem(check, message, damage))

    def missing(items: Iterator[listing.Item] | list[listing.Item]) -> None:
        for item in items:
            problem("manifest.missing", item.path, "it is in the list of the snapshot, but not in its tree")

    def unreadable(error: OSError) -> None:
        path = os.path.relpath(str(error.filename), root)
        problem("tree.unreadable", path, f"it cannot be read: {error.strerror}", damage=False)

    try:
        beside = listing.Beside(listing.read(os.path.join(directory, listed.path)))
        for path, status in listing.walk(root, unreadable):
            item, passed = beside.take(path)
            missing(passed)
            inspection.members.add(f"{listed.root}/{path}", directory=False)
            if stat.S_ISLNK(status.st_mode):
                if item is None:
                    seen.unlisted += 1
                elif item.link != os.readlink(os.path.join(root, path)):
                    problem("backup.link", path, "the link does not point where it did when it was copied")
                continue
            if not stat.S_ISREG(status.st_mode):
                if item is not None:
                    problem("manifest.missing", path, "it is no regular file any more")
                continue
            seen.files += 1
            seen.size += status.st_size
            if item is None:
                seen.unlisted += 1
            elif item.size != status.st_size:
                problem("manifest.size", path, f"it has {status.st_size} bytes, but {item.size} were copied")
            elif turn(path, status):
                known = inodes.find(status, hashed=True) if status.st_nlink > 1 else None
                digest, trouble = known or _hash(os.path.join(root, path), progress)
                if known is None and status.st_nlink > 1:
                    inodes.keep(status, digest, trouble)
                if trouble is not None:
                    problem(trouble.check, path, trouble.message, trouble.damage)
                if digest == item.sha256:
                    seen.sound += 1
                elif digest is not None:
                    problem("backup.sha256", path, "its bytes are not those that were copied")
        missing(beside.rest())
    except listing.ListingError as error:
        inspection.problem(listed.path, Problem("manifest.listing", str(error)))
    if seen.files != listed.files or seen.size != listed.size:
        message = f"{seen.files} files with {seen.size} bytes, but the manifest says {listed.files} with {listed.size}"
        inspection.problem(listed.root, Problem("manifest.listing", message))
    return seen


def _hash(path: str, progress: Callable[[int], None]) -> tuple[str | None, Problem | None]:
    """Return the hash of a file, or what is wrong with reading it."""
    try:
        descriptor = open_file(path)
        try:
            reading = read_file(descriptor, lambda blocks, threaded: None, hashed=True, progress=progress)
        finally:
            os.close(descriptor)
    except Unreadable as error:
        return None, Problem("tree.unreadable", str(error), error.damage)
    if reading.changed:
        return None, Problem("backup.changed", f"it was written during the check: {reading.changed}", damage=False)
    return reading.sha256, None
