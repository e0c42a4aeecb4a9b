# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Binary logs of MariaDB and MySQL: what has changed since a backup.

After the magic number come events: 19 bytes of header (time, type, server, length, position of the next, flags), a
body, and a CRC-32 of all that when the first event, the format description, says so. The last one names the next log
(ROTATE) or tells that the server was stopped. Which transactions come before a log stands at its beginning: GTID_LIST
of MariaDB, PREVIOUS_GTIDS of MySQL.
"""

from __future__ import annotations

import struct
from zlib import crc32

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.binlogs import (
    Log,
    mariadb_state,
    moment,
    mysql_state,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.pull import PullWalker, Step, Stop
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

MAGIC = b"\xfebin"
#: MySQL 8 encrypts whole files, and says so in front.
_ENCRYPTED = b"\xfdbin"

_STOP, _ROTATE, _DESCRIPTION = 3, 4, 15
_QUERY, _XID, _PREPARE, _PAYLOAD, _CHECKPOINT, _QUERY_COMPRESSED = 2, 16, 38, 40, 161, 165
_GTID, _ANONYMOUS, _PREVIOUS, _TAGGED = 33, 34, 35, 42
_MARIADB_GTID, _MARIADB_LIST, _ENCRYPTION = 162, 163, 164
_SPECIAL = frozenset(
    (_STOP, _ROTATE, _DESCRIPTION, _GTID, _ANONYMOUS, _PREVIOUS, _TAGGED, _MARIADB_GTID, _MARIADB_LIST, _ENCRYPTION)
)

#: After one of these no transaction is under way; after a query it depends on the query.
_BETWEEN = frozenset((_STOP, _ROTATE, _DESCRIPTION, _XID, _PREPARE, _PREVIOUS, _PAYLOAD, _CHECKPOINT, _MARIADB_LIST))

_HEADER = struct.Struct("<IBIIIH")
_MARIADB = struct.Struct("<QIB")
_ENTRY = struct.Struct("<IIQ")
_RUN = struct.Struct("<QQ")
_HEADER_SIZE = 19
_IN_USE = 1
#: Of a MariaDB GTID: a single event follows.
_STANDALONE = 1
#: A longer format description is one of a server that knows checksums: MySQL from 5.6, MariaDB from 5.3.
_OLD = 104
#: The CRC-32 of anything that is followed by its own CRC-32.
_RESIDUE = 0x2144DF1C
#: A larger event is followed in pieces, so that memory stays small.
_WHOLE = 1 << 20
#: Entries of a state that are remembered.
_ENTRIES = 10_000
_ADVICE = "mariadb-binlog --verify-binlog-checksum shows the place; copy the log again while the server has it"


def looks_like(head: bytes) -> bool:
    """Return whether a stream that begins like this is a binary log."""
    return head[:4] in (MAGIC, _ENCRYPTED)


class BinlogWalker(PullWalker):
    """Follows a binary log.

    :param name: its file name; what its state is told by.
    """

    format = "binlog"

    def __init__(self, name: str) -> None:
        self._name = name
        self._events = self._transactions = 0
        self._checked = True
        self._in_use = self._closed = False
        self._unreadable = False
        self._server_id: int | None = None
        self._next: str | None = None
        self._first: float | None = None
        self._last: float | None = None
        self._start: str | None = None
        self._mariadb: dict[tuple[int, int], int] | None = None
        self._mysql: dict[str, list[tuple[int, int]]] | None = None
        #: The transaction that the last GTID began: domain or uuid, server, number, flags.
        self._begun: tuple[int | str, int, int, int] | None = None
        self._latest = (_DESCRIPTION, b"")
        self._begin = 0
        super().__init__()

    def walk(self) -> Step:
        yield from self.need(4)
        if self.data.startswith(_ENCRYPTED, self.at):
            self._encrypted("MySQL")
        if not self.data.startswith(MAGIC, self.at):
            self.problem("binlog.magic", "it does not begin as a binary log does", advice=_ADVICE)
            raise Stop
        self.at += 4
        yield from self._describe()
        while True:
            self._pass_whole()
            if self._closed:
                yield from self.more() if len(self.data) == self.at else ()
                if len(self.data) > self.at:
                    self.problem("binlog.trailing", "there are bytes behind the event that ends it", advice=_ADVICE)
                return
            if len(self.data) == self.at:
                yield from self.more()
                if len(self.data) == self.at:
                    return
                continue
            yield from self._next_event()

    def _describe(self) -> Step:
        """Take the first event, which tells how the others are made."""
        self._begin = self.base + self.at
        yield from self.need(_HEADER_SIZE)
        time, kind, self._server_id, size, following, flags = _HEADER.unpack_from(self.data, self.at)
        if kind != _DESCRIPTION or not _HEADER_SIZE + 57 <= size <= 4096 or following != self._begin + size:
            self._break("it is not the format description that must be the first")
        yield from self.need(size)
        event = bytearray(self.data[self.at : self.at + size])
        version = int.from_bytes(event[19:21], "little")
        server = bytes(event[21:71]).rstrip(b"\0").decode("ascii", "replace")
        if version != 4 or event[75] != _HEADER_SIZE:
            self.problem("binlog.version", f"version {version} of the format is not known", self._begin, damage=False)
            self._unreadable = True
            raise Stop
        algorithm = 0
        if size > _OLD:
            # The server sets and clears this flag without a new checksum.
            event[17] &= ~_IN_USE
            if crc32(event) != _RESIDUE:
                self._break("its checksum is wrong")
            algorithm = event[-5]
        if algorithm > 1:
            text = f"its events have checksums of kind {algorithm}, which is not known"
            self.problem("binlog.version", text, self._begin, damage=False)
            self._unreadable = True
            raise Stop
        self._checked = algorithm == 1
        self._in_use = bool(flags & _IN_USE)
        self._first = self._last = float(time)
        self._events = 1
        self.facts.attributes.update(server_version=printable(server), checksum="crc32" if self._checked else "none")
        self.at += size

    def _pass_whole(self) -> None:
        """Go over all events that have arrived as a whole, until one is wrong or ends the log."""
        data, at, base, checked = self.data, self.at, self.base, self._checked
        end = len(data)
        view = memoryview(data)
        unpack, special, crc = _HEADER.unpack_from, _SPECIAL, crc32
        least = _HEADER_SIZE + 4 if checked else _HEADER_SIZE
        events = time = latest = 0
        while end - at >= _HEADER_SIZE:
            moment_, kind, server, size, following, _flags = unpack(data, at)
            stop = at + size
            if size < least or stop > end or following != base + stop & 0xFFFFFFFF or not kind:
                break
            if checked and crc(view[at:stop]) != _RESIDUE:
                break
            time = moment_ or time
            events += 1
            latest = at
            if kind in special:
                if kind == _MARIADB_GTID and size >= least + 13:
                    number, domain, flags = _MARIADB.unpack_from(data, at + _HEADER_SIZE)
                    self._transactions += 1
                    self._commit()
                    self._begun = (domain, server, number, flags)
                else:
                    self._begin = base + at
                    self._take(kind, data[at + _HEADER_SIZE : stop - 4 if checked else stop])
                    if self._closed:
                        at = stop
                        break
            at = stop
        if events:
            self._latest = (data[latest + 4], data[latest:at][: -4 if checked else None][-8:])
        self.at = at
        self._events += events
        self._last = float(time) or self._last

    def _next_event(self) -> Step:
        """Pass over one event of any size, or say what is wrong with it."""
        self._begin = self.base + self.at
        yield from self.need(_HEADER_SIZE)
        time, kind, _server, size, following, _flags = _HEADER.unpack_from(self.data, self.at)
        if size < (_HEADER_SIZE + 4 if self._checked else _HEADER_SIZE) or not kind:
            self._break("its header is none")
        if following != (self._begin + size) & 0xFFFFFFFF:
            self._break(f"it ends at byte {self._begin + size}, but says {following}")
        if size <= _WHOLE:
            yield from self.need(size)
            if self._checked and crc32(self.data[self.at : self.at + size]) != _RESIDUE:
                self._break("its checksum is wrong")
            return
        checksum, left = 0, size
        while left:
            piece = self.data[self.at : self.at + left]
            yield from self.more() if not piece else ()
            if not piece and self.ended and len(self.data) == self.at:
                yield from self.need(1)
            checksum = crc32(piece, checksum) if self._checked else 0
            self.at += len(piece)
            left -= len(piece)
        if self._checked and checksum != _RESIDUE:
            self._break("its checksum is wrong")
        if kind in _SPECIAL:
            self._mariadb = self._mysql = None  # a state of more than a megabyte is not followed
        self._events += 1
        self._last = float(time) or self._last
        self._latest = (kind, b"")

    def _commit(self) -> None:
        """Add the transaction that was begun last to the state."""
        if self._begun is None:
            return
        name, server, number, _flags = self._begun
        self._begun = None
        if isinstance(name, int):
            if self._mariadb is not None:
                self._mariadb[name, server] = number
                if len(self._mariadb) > _ENTRIES:
                    self._mariadb = None
        elif self._mysql is not None:
            runs = self._mysql.setdefault(name, [])
            _add(runs, number)
            if len(runs) > _ENTRIES or len(self._mysql) > _ENTRIES:
                self._mysql = None

    def _inside(self) -> bool:
        """Return whether the log ends, as far as it has come, inside of a transaction."""
        kind, tail = self._latest
        if self._begun is None or kind in _BETWEEN:
            return False
        if kind not in (_QUERY, _QUERY_COMPRESSED):
            return True
        if isinstance(self._begun[0], str):
            return tail.endswith(b"BEGIN")
        return not self._begun[3] & _STANDALONE and not tail.endswith((b"COMMIT", b"ROLLBACK"))

    def _take(self, kind: int, body: bytes) -> None:
        """Note what an event tells about the log as a whole."""
        if kind == _ENCRYPTION:
            self._encrypted("MariaDB")
        elif kind in (_ROTATE, _STOP):
            self._closed = True
            if kind == _ROTATE:
                self._next = printable(body[8:])
        elif kind == _MARIADB_LIST:
            count = int.from_bytes(body[:4], "little") & 0xFFFFFFF
            if len(body) < 4 + 16 * count:
                self._break("its list of transactions is cut")
            if count <= _ENTRIES:
                self._mariadb = {}
                for domain, server, number in _ENTRY.iter_unpack(body[4 : 4 + 16 * count]):
                    self._mariadb[domain, server] = number
                self._start = mariadb_state(self._mariadb)
        elif kind == _PREVIOUS:
            self._mysql = self._runs(body)
            self._start = None if self._mysql is None else mysql_state(self._mysql)
        elif kind == _GTID and len(body) >= 25:
            self._transactions += 1
            self._commit()
            self._begun = (_uuid(body[1:17]), 0, int.from_bytes(body[17:25], "little"), 0)
        elif kind in (_ANONYMOUS, _TAGGED):
            self._transactions += 1
            self._mysql = None

    def _runs(self, body: bytes) -> dict[str, list[tuple[int, int]]] | None:
        """Return what PREVIOUS_GTIDS holds, None when it is not understood."""
        entries: dict[str, list[tuple[int, int]]] = {}
        at = 8
        for _unused in range(min(int.from_bytes(body[:8], "little"), _ENTRIES)):
            runs = int.from_bytes(body[at + 16 : at + 24], "little")
            stop = at + 24 + 16 * runs
            if stop > len(body):
                return None
            found = _RUN.iter_unpack(body[at + 24 : stop])
            entries[_uuid(body[at : at + 16])] = [(first, behind - 1) for first, behind in found]
            at = stop
        return entries if at == len(body) else None

    def _encrypted(self, server: str) -> None:
        self._unreadable = True
        self.problem(
            "binlog.encrypted",
            f"it is encrypted by {server} and cannot be looked into",
            self._begin,
            damage=False,
            advice="Expect its sha256, or copy it decrypted by mariadb-binlog --read-from-remote-server --raw.",
        )
        raise Stop

    def _break(self, reason: str) -> None:
        text = f"the event at byte {self._begin} is broken{self._after()}: {reason}"
        self.problem("binlog.event", text, self._begin, advice=_ADVICE)
        raise Stop

    def _after(self) -> str:
        if not self._events:
            return ""
        return f", after {self._events} good ones up to {moment(self._last)}"

    def cut(self) -> None:
        text = f"it ends in the middle of an event{self._after()}"
        if self._in_use:
            text += ", and was being written when it was copied"
            self._unreadable = True
        self.problem("binlog.cut", text, self._begin, damage=not self._in_use, advice=_ADVICE)

    def close(self) -> None:
        super().close()
        facts = self.facts
        facts.created = self._last
        if not self._inside():
            self._commit()
        elif not self._in_use and not self.problems:
            self.problem("binlog.cut", f"it ends inside of a transaction{self._after()}", advice=_ADVICE)
        end = None
        if self._mariadb is not None:
            end = mariadb_state(self._mariadb)
        elif self._mysql:
            end = mysql_state(self._mysql)
        # MySQL writes an empty list also when it numbers no transactions at all.
        log = Log(self._name, first=self._first, last=self._last)
        if not self._unreadable:
            start = self._start if end is not None else None
            log = Log(self._name, self._next, self._closed, self._in_use, start, end, self._first, self._last)
        facts.part = log
        facts.attributes.update(server_id=self._server_id, events=self._events, transactions=self._transactions)
        if self._in_use and not self.problems:
            text = f"it was in use when it was copied, or its server crashed; its last event is of {moment(self._last)}"
            self.problems.append(Problem("binlog.in_use", text, note=True))
        if not self._checked:
            facts.unchecked.append("changed bytes inside the events of a binary log: the server wrote no checksums")


def _uuid(sid: bytes) -> str:
    text = sid.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _add(runs: list[tuple[int, int]], number: int) -> None:
    """Put a number into ascending runs of numbers."""
    if runs and runs[-1][1] == number - 1:
        runs[-1] = (runs[-1][0], number)
        return
    runs.append((number, number))
    runs.sort()
    merged: list[tuple[int, int]] = []
    for first, last in runs:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    runs[:] = merged
