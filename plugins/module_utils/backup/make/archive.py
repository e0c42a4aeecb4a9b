# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs: a compressed archive of what the programs have written since the last one."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, ClassVar

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import compression, options, tarball
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import (
    REQUIRED,
    Engine,
    Made,
    MakeError,
    Unchanged,
    Work,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import Unreadable, open_file
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.formats import promised_codec
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable

#: Name of the archive, before what the compression adds.
NAME = "logs.tar"

#: At most this many warnings of a kind name a file.
_NAMED = 20

_BLOCK = 1 << 20


class Archive(Engine):
    """Makes archives of files to which programs append while they are read."""

    name = "archive"
    kinds: Mapping[str, str] = {"archive": "the logs that were written to since the last one, or all of them"}
    OPTIONS: ClassVar[options.Options] = {
        "paths": (options.paths, REQUIRED),
        "since_last": (options.boolean, True),
        "compression": compression.OPTION,
    }

    def needed(self, work: Work) -> int | None:
        """Return about the size: text shrinks to a quarter at most, and what is compressed already stays."""
        members, _special = self._members(work)
        return sum(
            member.status.st_size if promised_codec(member.path)[0] else member.status.st_size // 4
            for member in members
            if member.is_file
        )

    def make(self, work: Work) -> Made:
        """Write the archive."""
        members, special = self._members(work)
        last = work.newest("archive")
        if not any(member.is_file for member in members):
            if last is not None and self.options["since_last"]:
                raise Unchanged(last)
            raise MakeError(f"there is no file in {', '.join(self.options['paths'])}: put the paths right")
        reader = _Reader()
        stages, suffix = compression.stages(self.options["compression"])

        def feed(stream: IO[bytes]) -> None:
            tarball.write(stream, members, reader.open)

        output = work.stream(stages, NAME + suffix, feed=feed)
        since = last.manifest.document.get("start") if last and self.options["since_last"] else None
        return Made(
            method="tar",
            files={NAME + suffix: output.entry},
            exits=output.exits,
            warnings=[
                *(f"{printable(path)} is no file, directory or link, and was left out" for path in special[:_NAMED]),
                *reader.warnings(),
            ],
            more={"since": since, "members": reader.files, "bytes": reader.size},
        )

    def _members(self, work: Work) -> tuple[list[tarball.Member], list[str]]:
        """Return what goes into the archive: without ``since_last`` everything, else files that are newer."""
        members, special = tarball.find(self.options["paths"])
        last = work.newest("archive")
        if last is None or last.manifest.started is None or not self.options["since_last"]:
            return members, special
        since = int(last.manifest.started)  # as it is written down: in whole seconds
        return [
            member
            for member in members
            if member.is_file and max(member.status.st_mtime, member.status.st_ctime) >= since
        ], special


class _Reader:
    """Opens logs one after the other, and keeps what happened to them."""

    def __init__(self) -> None:
        self.files = 0
        self.size = 0
        self._gone: list[str] = []
        self._short: list[str] = []

    def open(self, member: tarball.Member) -> tuple[os.stat_result, IO[bytes]] | None:
        """Open a log; one that was rotated away since it was found is left out.

        :raises MakeError: when it cannot be read.
        """
        try:
            descriptor = open_file(member.path)
        except Unreadable as error:
            try:
                changed = not stat.S_ISREG(os.lstat(member.path).st_mode)
            except FileNotFoundError:
                changed = True
            if changed:
                self._gone.append(member.path)
                return None
            raise MakeError(f"{printable(member.path)}: {error}; run it as root, or let its account read it") from error
        status = os.fstat(descriptor)
        self.files += 1
        self.size += status.st_size
        exact = _Exactly(descriptor, status.st_size, lambda: self._short.append(member.path))
        return status, io.BufferedReader(exact, _BLOCK)

    def warnings(self) -> list[str]:
        """Return what an operator should know."""
        return _told(self._gone, "vanished or became something else before it was read") + _told(
            self._short, "became shorter while it was read; zero bytes stand for what is missing"
        )


def _told(paths: Sequence[str], what: str) -> list[str]:
    found = [f"{printable(path)} {what}" for path in paths[:_NAMED]]
    if len(paths) > _NAMED:
        found.append(f"{len(paths) - _NAMED} more files: {what}")
    return found


class _Exactly(io.RawIOBase):
    """As many bytes of a file as its header in the archive says, whether it grows or shrinks meanwhile."""

    def __init__(self, descriptor: int, size: int, short: Callable[[], None]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._left = size
        self._short = short
        self._ended = False

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        wanted = min(len(buffer), self._left)
        got = 0 if self._ended else os.readv(self._descriptor, [memoryview(buffer)[:wanted]])
        if not got and wanted:
            if not self._ended:
                self._ended = True
                self._short()
            buffer[:wanted] = bytes(wanted)
            got = wanted
        self._left -= got
        return got

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()
