# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follow a directory: every file is read once, no link is followed, nothing in it is changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import (
    Unreadable,
    open_file,
    read_file,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import formats
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Content, Inspection
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.related import Keep
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

#: Inodes with several names that are remembered, so that each is read once, and directories that are looked at again.
_REMEMBERED = 100_000

_DESCRIPTION = ".metadata.json.gz"


@dataclass
class Tree:
    """What a directory holds.

    :ivar files: number of regular files, each inode once.
    :ivar size: their bytes.
    :ivar written: when something was last put into it or taken out of it, in seconds since the epoch.
    :ivar sha256: by path, for the files whose hash was wanted.
    :ivar sizes: by path, for the same files.
    """

    files: int = 0
    size: int = 0
    written: float = 0.0
    sha256: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def walk(
    root: str,
    inspection: Inspection,
    *,
    hashed: Callable[[str], bool] | None,
    progress: Callable[[int], None],
    skip: frozenset[str] = frozenset(),
) -> Tree:
    """Read every file below a directory.

    :param root: the directory.
    :param hashed: whether the SHA-256 of a file is wanted, by its path below the root; None: no hash is.
    :param progress: is told how many bytes came in.
    :param skip: paths below the root that are not part of the backup.
    """
    tree = Tree()
    seen: dict[tuple[int, int], str | None] = {}
    directories: list[tuple[str, int]] = []
    archives = 0
    inspection.has_members = True
    members = inspection.members

    def unreadable(error: OSError) -> None:
        path = os.path.relpath(str(error.filename), root)
        inspection.problem(
            printable(path), Problem("tree.unreadable", f"the directory cannot be read: {error.strerror}", damage=False)
        )

    for directory, subdirectories, names, dir_fd in os.fwalk(root, onerror=unreadable):
        subdirectories.sort()
        below = os.path.relpath(directory, root)
        prefix = "" if below == "." else below + "/"
        subdirectories[:] = [name for name in subdirectories if prefix + name not in skip]
        status = os.fstat(dir_fd)
        tree.written = max(tree.written, status.st_ctime)
        if len(directories) < _REMEMBERED:
            directories.append((directory, status.st_mtime_ns))
        for name in sorted([*names, *subdirectories]):
            path = prefix + name
            if path in skip:
                continue
            try:
                status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                target = os.readlink(name, dir_fd=dir_fd) if stat.S_ISLNK(status.st_mode) else ""
            except OSError:
                gone = Problem("tree.changed", "it vanished during the check", damage=False)
                inspection.problem(printable(path), gone)
                continue
            kind = stat.S_IFMT(status.st_mode)
            members.add(path, directory=kind == stat.S_IFDIR)
            if kind == stat.S_IFLNK:
                members.link(path, target)
            elif kind == stat.S_IFREG:
                if (
                    formats.promised_codec(path)[0]
                    and not formats.followed_inside(path)
                    and not path.endswith(_DESCRIPTION)
                ):
                    archives += 1
                key = (status.st_dev, status.st_ino)
                if status.st_nlink > 1 and key in seen:
                    digest = seen[key]
                else:
                    tree.files += 1
                    tree.size += status.st_size
                    want = hashed is not None and (hashed(path) or status.st_nlink > 1)
                    digest = _read(root, path, name, dir_fd, inspection, want, progress)
                    if status.st_nlink > 1 and len(seen) < _REMEMBERED:
                        seen[key] = digest
                if digest is not None and hashed is not None and hashed(path):
                    tree.sha256[path] = digest
                    tree.sizes[path] = status.st_size
            elif kind != stat.S_IFDIR:
                members.note("special", path)
    for directory, modified in directories:
        try:
            same = os.lstat(directory).st_mtime_ns == modified
        except OSError:
            same = False
        if not same:
            inspection.problem(
                printable(os.path.relpath(directory, root)),
                Problem(
                    "backup.changed",
                    "the directory was written during the check",
                    damage=False,
                    advice="Check again when the backup has ended.",
                ),
            )
            break
    if archives:
        inspection.not_checked(
            f"{archives} compressed files in the directory were read but not decompressed; name one as a path of its "
            "own to have it checked"
        )
    return tree


def _read(
    root: str,
    path: str,
    name: str,
    dir_fd: int,
    inspection: Inspection,
    hashed: bool,
    progress: Callable[[int], None],
) -> str | None:
    shown = printable(path)
    try:
        descriptor = open_file(name, dir_fd)
        try:
            # A dump directory is named by its database, so the directory's own name belongs to the path.
            full = f"{os.path.basename(root)}/{path}"
            keep = inspection.related.add(full, os.fstat(descriptor).st_size)
            if keep is not None:
                consume = _into(keep)
            elif formats.followed_inside(path):
                consume = Content(inspection, shown, full, inside=True).consume
            else:
                consume = _ignore
            reading = read_file(descriptor, consume, hashed=hashed, progress=progress)
        finally:
            os.close(descriptor)
    except Unreadable as error:
        inspection.problem(shown, Problem("tree.unreadable", str(error), damage=error.damage))
        return None
    if reading.changed:
        inspection.problem(
            shown, Problem("backup.changed", f"it was written during the check: {reading.changed}", damage=False)
        )
    return reading.sha256


def _ignore(blocks: Iterator[bytes], threaded: bool) -> None:
    pass


def _into(keep: Keep) -> Callable[[Iterator[bytes], bool], None]:
    def consume(blocks: Iterator[bytes], threaded: bool) -> None:
        for block in blocks:
            keep.feed(block)

    return consume
