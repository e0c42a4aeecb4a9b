# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of mariadb-backup and xtrabackup: a directory, or one stream (``--stream=mbstream``, ``xbstream``).

A stream is a sequence of chunks: a magic number, flags, type, path, and for a payload its length, its offset in the
file and its CRC-32; each file ends with an empty chunk. The parts of several files may alternate. Nothing marks the end
of the stream, but the file that describes the whole, ``xtrabackup_info``, is among the last.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.innodb import Space
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import (
    Members,
    normal,
    printable,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.pull import PullWalker, Step, Stop
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.tar import Sink
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

MAGIC = b"XBSTCK01"

#: Files of a backup that describe it.
DESCRIPTION = re.compile(r"(?P<root>(?:.*/)?)(?:xtrabackup|mariadb_backup)_(?P<what>checkpoints|info|binlog_info)\Z")

#: Endings of names of whole backups in one file.
_STREAM = re.compile(r"\.(?:mbstream|xbstream|xb)(?:\.(?:gz|zst|xz|bz2))?\Z")

_IGNORABLE = 1
_LONGEST_PATH = 512
#: Files that may be under way at a time.
_OPEN = 1000
_PREPARED = ("log-applied", "full-prepared")
_INNODB = 12
_POSITION = re.compile(r"filename '([^']*)', position '(\d+)'(?:, GTID of the last change '([^']*)')?")
_ADVICE = "take the backup anew, and look at the end of its own log: it must say 'completed OK!'"


def looks_like(head: bytes) -> bool:
    """Return whether a stream that begins like this is one of mariadb-backup."""
    return head.startswith(MAGIC)


@dataclass
class _File:
    """A file whose parts arrive."""

    size: int = 0
    sink: Sink | None = None


class XbstreamWalker(PullWalker):
    """Follows a stream; its files go to what is opened for them.

    :param members: takes the names.
    :param open_member: returns what takes a file's content, by its path.
    """

    format = "xbstream"

    def __init__(
        self, members: Members | None = None, open_member: Callable[[str, int], Sink | None] | None = None
    ) -> None:
        self._members = Members() if members is None else members
        self._open_member = open_member
        self._files: dict[str, _File] = {}
        self._chunks = self._count = 0
        self._begin = 0
        self._described = False
        super().__init__()

    def walk(self) -> Step:
        while True:
            self._begin = self.base + self.at
            yield from self.more() if len(self.data) == self.at else ()
            if len(self.data) == self.at:
                return
            yield from self.need(14)
            if not self.data.startswith(MAGIC, self.at):
                self._break("there is none where it should begin")
            flags, kind, length = struct.unpack_from("<BcI", self.data, self.at + 8)
            if not 0 < length < _LONGEST_PATH or (flags & ~_IGNORABLE):
                self._break("its header is none")
            yield from self.need(14 + length)
            path = self.data[self.at + 14 : self.at + 14 + length].decode("utf-8", "surrogateescape")
            self.at += 14 + length
            if kind == b"E":
                self._end(path)
            elif kind == b"P":
                yield from self._payload(path)
            else:
                text = f"the chunk at byte {self._begin} is of type {kind!r}, which is not known"
                self.problem("xbstream.type", text, self._begin, damage=False)
                raise Stop
            self._chunks += 1

    def _payload(self, path: str) -> Step:
        yield from self.need(20)
        left, offset, expected = struct.unpack_from("<QQI", self.data, self.at)
        self.at += 20
        file = self._files.get(path)
        if file is None:
            if len(self._files) >= _OPEN:
                self.problem("xbstream.open", f"more than {_OPEN} files have no end", self._begin)
                raise Stop
            file = self._files[path] = _File()
            self._count += 1
            name = normal(path)
            self._members.add(path)
            self._described = self._described or name.endswith(("xtrabackup_info", "mariadb_backup_info"))
            if self._open_member is not None:
                file.sink = self._open_member(name, 0)
        if offset != file.size:
            self._break(f"it continues {printable(path)} at byte {offset}, but {file.size} bytes have come")
        file.size += left
        checksum = 0
        while left:
            piece = self.data[self.at : self.at + left]
            if not piece:
                yield from self.need(1)
                continue
            checksum = crc32(piece, checksum)
            if file.sink is not None:
                file.sink.feed(piece)
            self.at += len(piece)
            left -= len(piece)
        if checksum != expected:
            self._break(f"a part of {printable(path)} has a wrong checksum")

    def _end(self, path: str) -> None:
        file = self._files.pop(path, None)
        if file is None:
            self._count += 1
            self._members.add(path)
            if self._open_member is not None:
                sink = self._open_member(normal(path), 0)
                if sink is not None:
                    sink.close()
        elif file.sink is not None:
            file.sink.close()

    def _break(self, reason: str) -> None:
        text = f"the chunk at byte {self._begin}, after {self._chunks} good ones, is broken: {reason}"
        self.problem("xbstream.chunk", text, self._begin, advice=_ADVICE)
        raise Stop

    def cut(self) -> None:
        text = f"the stream ends in the middle of a chunk, after {self._chunks} good ones"
        self.problem("xbstream.cut", text, self._begin, advice=_ADVICE)

    def close(self) -> None:
        super().close()
        if not self.problems:
            if self._files:
                names = ", ".join(printable(name) for name in sorted(self._files)[:5])
                text = f"{len(self._files)} of {self._count} files have no end: {names}"
                self.problems.append(Problem("xbstream.cut", text, advice=_ADVICE))
            elif not self._described:
                text = f"the stream ends without xtrabackup_info, after {self._count} files"
                self.problems.append(Problem("xbstream.cut", text, advice=_ADVICE))
        for file in self._files.values():
            if file.sink is not None:
                file.sink.close(complete=False)
        self._files.clear()
        self.facts.attributes["files"] = self._count


@dataclass
class Described:
    """What the descriptions in one directory of a backup tell.

    :ivar values: uuid, type, LSNs, binary log, as they are returned to the operator.
    :ivar problems: what is wrong.
    :ivar unchecked: what was not looked at.
    :ivar tables: ``database/table`` of those that were made or renamed during the backup.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)


def read_pairs(text: bytes | None) -> dict[str, str]:
    """Return the values of a description, ``key = value`` a line."""
    pairs = {}
    for line in (text or b"").decode("utf-8", "replace").splitlines():
        key, equals, value = line.partition(" = ")
        if equals or line.endswith(" ="):
            pairs[key.rstrip(" =")] = value.strip()
    return pairs


def judge(
    root: str, names: Iterable[str], read: Callable[[str], bytes | None], spaces: dict[str, Space]
) -> Described | None:
    """Return what a backup's descriptions tell, compared with its tablespaces; None when there are none.

    :param root: the directory of the backup, empty or with a closing slash.
    :param names: the names of all files below it that mean something together, with the root.
    :param read: returns the content of a description, or the beginning of a table definition.
    :param spaces: what the tablespaces below it tell.
    """
    found = Described()
    there = {name[len(root) :] for name in names if name.startswith(root)}
    described = {
        match["what"]: read(root + name) for name in sorted(there) for match in [DESCRIPTION.match(name)] if match
    }
    streams = {name for name in names if _STREAM.search(name)}
    data = {root + name for name in there if not DESCRIPTION.match(name)}
    if "checkpoints" not in described or (streams and data <= streams):
        return None  # --extra-lsndir writes the descriptions beside a backup that is a stream
    if "info" not in described:
        _add(found, "missing", "xtrabackup_info is missing: the backup did not end, or was not copied as a whole")
    points, info = read_pairs(described["checkpoints"]), read_pairs(described.get("info"))
    kind = points.get("backup_type", "")
    try:
        begin, end, last = (int(points[key]) for key in ("from_lsn", "to_lsn", "last_lsn"))
    except (KeyError, ValueError):
        _add(found, "checkpoints", "its checkpoints (LSN) cannot be read")
        return found
    if not begin <= end <= last or (kind.startswith("full") and begin):
        _add(found, "checkpoints", f"its checkpoints make no sense: {kind} from {begin} to {end}, log to {last}")
    prepared = kind in _PREPARED
    incremental = kind == "incremental"
    partial = info.get("partial") == "Y"
    position = _POSITION.search(info.get("binlog_pos", ""))
    fields = (described.get("binlog_info") or b"").decode("utf-8", "replace").split()
    found.values = {
        "type": kind,
        "from_lsn": begin,
        "to_lsn": end,
        "last_lsn": last,
        "prepared": prepared,
        "incremental": incremental,
        "partial": partial,
        "uuid": info.get("uuid"),
        "server_version": info.get("server_version"),
        "tool_version": info.get("tool_version"),
        "start_time": info.get("start_time"),
        "end_time": info.get("end_time"),
        "binlog_file": position[1] if position else fields[0] if fields else None,
        "binlog_position": int(position[2]) if position else int(fields[1]) if fields[1:] else None,
        "gtid": (position[3] if position else None) or (fields[2] if fields[2:] else None),
    }
    if not prepared:
        late = [name for name, space in spaces.items() if space.lsn > last]
        if late:
            text = f"{late[0][len(root) :]} has a page of LSN {spaces[late[0]].lsn}, after the end of the log at {last}"
            _add(found, "lsn", text + (f", and {len(late) - 1} more" if late[1:] else ""))
        if not there & {"ib_logfile0", "xtrabackup_logfile"}:
            _add(found, "log", "its redo log (ib_logfile0) is missing: it cannot be prepared")
    _judge_spaces(found, root, there, read, spaces)
    if not partial:
        _judge_tables(found, root, there, read)
    found.unchecked.append(
        "a backup of mariadb-backup: whether it can be prepared, the redo log, and files of other engines than InnoDB"
    )
    return found


def _judge_spaces(
    found: Described, root: str, there: set[str], read: Callable[[str], bytes | None], spaces: dict[str, Space]
) -> None:
    """Compare the numbers of the tablespaces with each other and with their descriptions."""
    seen: dict[int, str] = {}
    for name, space in sorted(spaces.items()):
        if not name.startswith(root):
            continue
        short = name[len(root) :]
        if space.delta:
            meta = read(root + short[: -len("delta")] + "meta")
            told = read_pairs(meta).get("space_id")
            if told is None:
                _add(found, "meta", f"{short} has no description ({short[: -len('delta')]}meta)")
            elif told != str(space.space):
                _add(found, "swapped", f"{short} holds tablespace {space.space}, but should hold {told}")
        elif space.space in seen and seen[space.space][:-4] != short[:-4]:  # x.new takes the place of x.ibd
            text = f"{short} and {seen[space.space]} are both tablespace {space.space}: one of them is in a wrong place"
            _add(found, "swapped", text)
        else:
            seen[space.space] = short
    made = [short for short in there if short.endswith(".new") and root + short not in spaces]
    if made:
        found.unchecked.append(
            f"{len(made)} tablespaces of tables that were made during the backup: their pages are in the redo log"
        )


def _judge_tables(found: Described, root: str, there: set[str], read: Callable[[str], bytes | None]) -> None:
    """Each table of InnoDB that has a definition must have its data."""
    data = {re.split(r"#[Pp]#|\.", name)[0] for name in there if not name.endswith((".frm", ".ren"))}
    for name in sorted(there):
        if name.endswith(".ren") and name[:-4] in data:  # preparing it gives the table its new name
            found.tables.append((read(root + name) or b"").decode("utf-8", "surrogateescape"))
        elif name.endswith(".new"):
            found.tables.append(name[:-4])
    data.update(found.tables)
    absent = []
    for name in sorted(there):
        head = read(root + name) if name.endswith(".frm") and "/" in name else None
        if head and head[:2] == b"\xfe\x01" and head[3] == _INNODB and name[:-4] not in data:
            absent.append(name[:-4])
    if absent:
        more = f" and {len(absent) - 5} more" if absent[5:] else ""
        _add(found, "missing", f"the data (.ibd) of tables is missing: {', '.join(absent[:5])}{more}")


def _add(found: Described, check: str, message: str) -> None:
    found.problems.append(Problem(f"mariabackup.{check}", message, advice=_ADVICE))
