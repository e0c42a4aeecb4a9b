# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write files of this host into a tar archive, whatever they are called and whatever happens to them meanwhile."""

from __future__ import annotations

import glob
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file, directory or link as it was found.

    :param path: its absolute path.
    :param status: what the system says of it; of the link, not of what it points to.
    """

    path: str
    status: os.stat_result

    @property
    def is_file(self) -> bool:
        """Return whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        """Return whether it is a symbolic link."""
        return stat.S_ISLNK(self.status.st_mode)


def find(patterns: Sequence[str]) -> tuple[list[Member], list[str]]:
    """Return what the patterns match, with everything below directories, sorted, and the paths of pipes and the like.

    No link is followed but one that a pattern names: then the link and what it points to are members.

    :raises MakeError: when a pattern matches nothing, or a directory cannot be read.
    """
    found: dict[str, Member] = {}
    special: list[str] = []
    for pattern in patterns:
        matches = glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern]
        matches = [path for path in matches if os.path.lexists(path)]
        if not matches:
            what = "no file matches" if glob.has_magic(pattern) else "there is no"
            raise MakeError(f"{what} {pattern}: put the path right, or take it out of the paths of this source")
        for match in matches:
            for path in _named(os.path.normpath(match)):
                try:
                    status = os.lstat(path)
                except FileNotFoundError:
                    continue  # it went between the two looks
                if stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                    found[path] = Member(path, status)
                elif path not in special:
                    special.append(path)
    return [found[path] for path in sorted(found)], special


def _named(path: str) -> Iterator[str]:
    """Yield a path that was asked for, everything below it, and what it leads to when it is a link."""
    for _link in range(40):
        yield path
        if not os.path.islink(path):
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    if not os.path.lexists(path) or os.path.islink(path) or not os.path.isdir(path):
        return

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise MakeError(f"{error.filename} cannot be read: {error.strerror}") from error

    for directory, subdirectories, names in os.walk(path, onerror=unreadable):
        for name in (*subdirectories, *names):
            yield os.path.join(directory, name)


def write(
    stream: IO[bytes], members: Iterable[Member], content: Callable[[Member], tuple[os.stat_result, IO[bytes]] | None]
) -> None:
    """Write an archive: numeric owners, modes, links as they are, names as the bytes that they are.

    :param content: opens a regular file and returns its status and what is read of it, exactly as many bytes as the
        status says; None leaves it out.
    """
    with tarfile.open(
        fileobj=stream,
        mode="w|",
        bufsize=_BLOCK,
        format=tarfile.GNU_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        archive.copybufsize = _BLOCK  # type: ignore[attr-defined]
        for member in members:
            if not member.is_file:
                link = os.readlink(member.path) if member.is_link else ""
                archive.addfile(_header(member.path, member.status, link))
                continue
            opened = content(member)
            if opened is not None:
                status, data = opened
                with data:
                    archive.addfile(_header(member.path, status), data)


def _header(path: str, status: os.stat_result, link: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(path.lstrip("/"))
    header.mode = stat.S_IMODE(status.st_mode)
    header.uid, header.gid = status.st_uid, status.st_gid
    header.mtime = int(status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        header.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        header.type, header.linkname = tarfile.SYMTYPE, link
    else:
        header.size = status.st_size
    return header
