# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Extract archives. A hostile one writes nowhere else."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
from typing import IO

_BLOCK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class ArchiveError(Exception):
    """An archive that cannot be extracted; the message names the member."""


def extract(stream: IO[bytes], root: str) -> int:
    """Extract an archive below a directory and return the number of members.

    A name that leads out of it, a device, or a member behind a link is refused. Links are made in the end, so that
    nothing is ever written through one; where they lead to is only looked at by those who use the files.

    :raises ArchiveError: naming the member.
    """
    links: list[tuple[str, str]] = []
    directories: list[tuple[str, tarfile.TarInfo]] = []
    number = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                number += 1
                if member.isdir() and member.name in (".", "./"):
                    continue
                target = _inside(root, member.name)
                os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                if member.isdir():
                    os.makedirs(target, mode=0o700, exist_ok=True)
                    directories.append((target, member))
                elif member.issym():
                    links.append((member.linkname, target))
                elif member.islnk():
                    os.link(_inside(root, member.linkname), target, follow_symlinks=False)
                elif member.isfile():
                    source = archive.extractfile(member)
                    if source is None:
                        raise ArchiveError(f"the member {member.name!r} has no content")
                    with open(os.open(target, _NEW, 0o600), "wb") as out:
                        shutil.copyfileobj(source, out, _BLOCK)
                        _own(out.fileno(), member)
                else:
                    raise ArchiveError(f"the member {member.name!r} is neither a file, a directory nor a link")
        for link, target in links:
            os.symlink(link, target)
        for target, member in reversed(directories):
            _own(target, member)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ArchiveError(f"the archive cannot be extracted: {error}") from error
    return number


def extract_zip(stream: IO[bytes], root: str) -> int:
    """Extract a zip archive below a directory and return the number of members, by the rules of :func:`extract`.

    :raises ArchiveError: naming the member.
    """
    links: list[tuple[str, str]] = []
    number = 0
    try:
        with zipfile.ZipFile(stream) as archive:
            for info in archive.infolist():
                number += 1
                target, mode = _inside(root, info.filename), info.external_attr >> 16
                os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
                if info.is_dir():
                    os.makedirs(target, mode=0o755, exist_ok=True)
                elif stat.S_ISLNK(mode):
                    links.append((archive.read(info).decode("utf-8", "surrogateescape"), target))
                elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                    with archive.open(info) as source, open(os.open(target, _NEW, 0o600), "wb") as out:
                        shutil.copyfileobj(source, out, _BLOCK)
                        os.fchmod(out.fileno(), mode & 0o777 or 0o644)
                else:
                    raise ArchiveError(f"the member {info.filename!r} is neither a file, a directory nor a link")
        for link, target in links:
            os.symlink(link, target)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise ArchiveError(f"the archive cannot be extracted: {error}") from error
    return number


def _own(target: int | str, member: tarfile.TarInfo) -> None:
    """Give a file owner, mode and time of a member, without the bits that would run it as somebody else."""
    if os.geteuid() == 0:
        os.chown(target, member.uid, member.gid)
    os.chmod(target, member.mode & 0o777)
    os.utime(target, (member.mtime, member.mtime))


def _inside(root: str, name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or "\0" in name:
        raise ArchiveError(f"the archive has a member {name!r}, which leads out of it")
    return os.path.join(root, *parts)
