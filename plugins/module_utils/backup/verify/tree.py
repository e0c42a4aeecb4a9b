# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follow a directory: every file is read once, no link is followed, nothing in it is changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import (
    Unreadable,
    open_file,
    read_file,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import formats
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Content, Inspection
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.inodes import Inodes
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.related import Keep
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

#: Inodes with several names that are counted once, and directories that are looked at again.
_REMEMBERED = 100_000

_DESCRIPTION = ".metadata.json.gz"


@dataclass
class Tree:
    """What a directory holds.

    :ivar names: number of names that are no directories.
    :ivar files: number of regular files, each inode once.
    :ivar size: their bytes.
    :ivar written: when something was last put into it or taken out of it, in seconds since the epoch.
    :ivar sha256: by path, for the files whose hash was wanted; None for those whose turn it was not.
    :ivar sizes: by path, for the same files.
    """

    names: int = 0
    files: int = 0
    size: int = 0
    written: float = 0.0
    sha256: dict[str, str | None] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def walk(
    root: str,
    inspection: Inspection,
    *,
    hashed: Callable[[str], bool] | None,
    progress: Callable[[int], None],
    skip: frozenset[str] = frozenset(),
    sources: Mapping[str, Entry] | None = None,
    opened: frozenset[str] = frozenset(),
    inodes: Inodes | None = None,
    turn: Callable[[str, os.stat_result], bool] = lambda path, status: True,
) -> Tree:
    """Read every file below a directory.

    :param root: the directory.
    :param hashed: whether the SHA-256 of a file is wanted, by its path below the root; None: no hash is.
    :param progress: is told how many bytes came in.
    :param skip: paths below the root that are not part of the backup.
    :param sources: what files must expand to, by their path below the root.
    :param opened: archives whose members are part of the backup as the files of the tree are.
    :param inodes: what earlier trees of the same run shared with this one.
    :param turn: whether it is the turn of a file to be read; those whose content is followed are read in any case.
    """
    tree = Tree()
    sources = sources or {}
    inodes = inodes or Inodes()
    seen: set[int] = set()
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
            tree.names += kind != stat.S_IFDIR
            if kind == stat.S_IFLNK:
                members.link(path, target)
            elif kind == stat.S_IFREG:
                if (
                    formats.promised_codec(path)[0]
                    and not formats.followed_inside(path)
                    and path not in sources
                    and path not in opened
                    and not path.endswith(_DESCRIPTION)
                ):
                    archives += 1
                again = status.st_nlink > 1 and Inodes.key(status) in seen
                if not again:
                    tree.files += 1
                    tree.size += status.st_size
                    if status.st_nlink > 1 and len(seen) < _REMEMBERED:
                        seen.add(Inodes.key(status))
                want = hashed is not None and hashed(path)
                # A dump directory is named by its database, so the directory's own name belongs to the path.
                full = f"{os.path.basename(root)}/{path}"
                keep = None if again else inspection.related.add(full, status.st_size)
                source = sources.get(path)
                inside = path in opened or source is not None or formats.followed_inside(path) is not None
                followed = not again and (keep is not None or inside)
                digest: str | None = None
                if followed or turn(path, status):
                    known = None if followed or status.st_nlink == 1 else inodes.find(status, want)
                    if known is not None:
                        digest, problem = known
                    else:
                        both = hashed is not None and (want or status.st_nlink > 1)
                        consume: Callable[[Iterator[bytes], bool], None] = _ignore
                        if keep is not None:
                            consume = _into(keep)
                        elif inside:
                            part = Content(
                                inspection,
                                printable(path),
                                full,
                                inside=True,
                                opened=path in opened,
                                source=source,
                            )
                            consume = part.consume
                        digest, problem = _read(name, dir_fd, consume, both, progress)
                        if status.st_nlink > 1:
                            inodes.keep(status, digest, problem)
                    if problem is not None and not again:
                        inspection.problem(printable(path), problem)
                    if want and digest is not None:
                        tree.sha256[path] = digest
                elif want:
                    tree.sha256[path] = None
                if want:
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
    name: str,
    dir_fd: int,
    consume: Callable[[Iterator[bytes], bool], None],
    hashed: bool,
    progress: Callable[[int], None],
) -> tuple[str | None, Problem | None]:
    """Read one file; return its hash, and what is wrong with reading it."""
    try:
        descriptor = open_file(name, dir_fd)
        try:
            reading = read_file(descriptor, consume, hashed=hashed, progress=progress)
        finally:
            os.close(descriptor)
    except Unreadable as error:
        return None, Problem("tree.unreadable", str(error), damage=error.damage)
    changed = f"it was written during the check: {reading.changed}"
    return reading.sha256, Problem("backup.changed", changed, damage=False) if reading.changed else None


def _ignore(blocks: Iterator[bytes], threaded: bool) -> None:
    pass


def _into(keep: Keep) -> Callable[[Iterator[bytes], bool], None]:
    def consume(blocks: Iterator[bytes], threaded: bool) -> None:
        for block in blocks:
            keep.feed(block)

    return consume
