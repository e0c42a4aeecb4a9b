# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transactions of a binary log, to tell where a replay stops: at a moment, after a transaction, before an event.

A stop is always the boundary of a transaction, so that a replay never ends in the middle of one.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

MAGIC = b"\xfebin"

_HEADER = struct.Struct("<IBIIIH")
_SIZE = _HEADER.size

_QUERY, _DESCRIPTION, _XID = 2, 15, 16
_ROWS_TEXT, _GTID, _ANONYMOUS = 29, 33, 34
_ANNOTATE, _MARIADB_GTID, _QUERY_COMPRESSED = 160, 162, 165
_BEGINS = (_GTID, _ANONYMOUS, _MARIADB_GTID)
_WITH_TEXT = (_QUERY, _QUERY_COMPRESSED, _ANNOTATE, _ROWS_TEXT)

#: Events that begin with 13 bytes of numbers.
_FIXED, _FIXED_SIZE = (_QUERY, _QUERY_COMPRESSED, _MARIADB_GTID), 13

#: A value in a statement: it may be a password, or somebody's business.
_VALUE = re.compile(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"", re.DOTALL)

#: Of a longer statement the rest is not looked at.
_LONGEST = 1 << 20


class BinlogError(Exception):
    """A binary log that cannot be followed."""


@dataclass(frozen=True)
class Transaction:
    """One transaction, or one statement that is its own.

    :param file: the name of the log.
    :param start: where it begins; a replay that stops here does not apply it.
    :param end: where the next one begins.
    :param time: when it was committed, in seconds since the epoch.
    :param gtid: of MariaDB, None where the log has none.
    :param statements: what was said, with the database it was said in.
    """

    file: str
    start: int
    end: int
    time: int
    gtid: str | None
    statements: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """Return it in words: its statement without the values in it, its place and its identity."""
        text = " ".join(_VALUE.sub("'…'", " ".join(statement for _database, statement in self.statements)).split())
        name = os.path.basename(self.file)
        return f"{text[:200] or 'a transaction'} ({self.gtid or 'no GTID'}, {name} position {self.start})"


def transactions(stream: IO[bytes], file: str, start: int = 4) -> Iterator[Transaction]:
    """Yield the whole transactions of a log in their order.

    :param stream: the log, not compressed.
    :param file: its name.
    :param start: position of the first event that is looked at.
    :raises BinlogError: when it is no binary log, or is cut or damaged.
    """
    if stream.read(4) != MAGIC:
        raise BinlogError(f"{file} does not begin as a binary log does")
    position, checksum = 4, 4
    begin: int | None = None
    inside = False  # of a transaction that ends with a COMMIT or an XID, not with its first statement
    gtid: str | None = None
    statements: list[tuple[str, str]] = []
    while header := stream.read(_SIZE):
        if len(header) < _SIZE:
            raise BinlogError(f"{file} ends in the middle of an event at byte {position}")
        time, kind, server, size, _following, _flags = _HEADER.unpack(header)
        if size < _SIZE:
            raise BinlogError(f"{file} has no event at byte {position}")
        end = position + size
        if kind == _DESCRIPTION:
            checksum = 4 if stream.read(size - _SIZE)[-5:-4] == b"\1" else 0
        elif position >= start:
            body = b""
            if kind in _WITH_TEXT or kind in _BEGINS:
                wanted = min(size - _SIZE - checksum, _LONGEST)
                body = stream.read(wanted)
                if len(body) < wanted or (kind in _FIXED and wanted < _FIXED_SIZE):
                    raise BinlogError(f"{file} ends in the middle of the event at byte {position}")
            ended = kind == _XID
            if kind in _BEGINS:
                begin, gtid, statements = position, _gtid(kind, server, body), []
                inside = kind == _MARIADB_GTID and not body[12] & 1
            elif kind in _WITH_TEXT:
                database, text = _text(kind, body)
                word = text.strip().upper()
                if word in ("BEGIN", "START TRANSACTION"):
                    inside = True
                elif word in ("COMMIT", "ROLLBACK"):
                    ended = True
                else:
                    statements.append((database, text))
                    ended = not inside and kind in (_QUERY, _QUERY_COMPRESSED)
            if ended and begin is not None:
                yield Transaction(file, begin, end, time, gtid, tuple(statements))
                begin = None
        stream.seek(end)
        position = end
    if position > stream.seek(0, os.SEEK_END):
        raise BinlogError(f"{file} ends in the middle of an event")


def at_time(found: Iterable[Transaction], moment: float) -> Transaction | None:
    """Return the first transaction that was committed at or after a moment, None when all were before."""
    return next((transaction for transaction in found if transaction.time >= moment), None)


def after_gtid(found: Iterable[Transaction], domain: str, number: int) -> Transaction | None:
    """Return the transaction with this number in this domain, None when it is not there."""
    for transaction in found:
        pieces = (transaction.gtid or "--").split("-")
        if pieces[0] == domain and pieces[2] == str(number):
            return transaction
    return None


def matching(found: Iterable[Transaction], pattern: str) -> Iterator[Transaction]:
    """Yield the transactions with a statement that a regular expression finds, whatever its case and quotes."""
    expression = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for transaction in found:
        for _database, statement in transaction.statements:
            plain = " ".join(statement.replace("`", "").split())
            if expression.search(statement) or expression.search(plain):
                yield transaction
                break


def _gtid(kind: int, server: int, body: bytes) -> str | None:
    if kind != _MARIADB_GTID or len(body) < 12:
        return None
    number, domain = struct.unpack_from("<QI", body)
    return f"{domain}-{server}-{number}"


def _text(kind: int, body: bytes) -> tuple[str, str]:
    """Return the database and the text of a statement."""
    if kind == _ANNOTATE:
        return "", body.decode("utf-8", "replace")
    if kind == _ROWS_TEXT:
        return "", body[1:].decode("utf-8", "replace")
    database_size, status = body[8], int.from_bytes(body[11:13], "little")
    at = 13 + status
    database = body[at : at + database_size].decode("utf-8", "replace")
    text = body[at + database_size + 1 :]
    return database, (_inflate(text) if kind == _QUERY_COMPRESSED else text).decode("utf-8", "replace")


def _inflate(data: bytes) -> bytes:
    """Return a compressed statement: one byte with the size of the length, the length, zlib."""
    try:
        return zlib.decompressobj().decompress(data[1 + (data[0] & 7) :], _LONGEST)
    except (zlib.error, IndexError) as error:
        raise BinlogError(f"a compressed statement cannot be read: {error}") from None
