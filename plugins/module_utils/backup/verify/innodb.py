# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tablespaces of InnoDB, page by page: ``.ibd``, ``ibdata1``, ``undo001``, and the ``.delta`` of an incremental backup.

Each page tells its own number, its tablespace, and the log sequence number (LSN) of its last change, and has a
checksum; page 0 tells how many pages there are. MariaDB from 10.5 on has one CRC-32C over the whole page
(``full_crc32``); before that it is the exclusive or of two, or a sum of InnoDB's own.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from zlib import adler32

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import crc32c
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem, Walker

#: Tablespaces whose names have no ending of their own.
NAME = re.compile(r"(?:.*/)?(?:ibdata1|undo_?[0-9]{3})\Z")

#: What mariadb-backup calls those of tables that were made or rebuilt while it was at work.
NEW = re.compile(r".+/.+\.new\Z")

#: Of a page: checksum or key, number, neighbours, LSN, type, an old LSN or key, tablespace.
_HEADER = struct.Struct(">IIIIQHQI")
_SIZE = struct.Struct(">I")
_FIRST = 58
_TYPE_FIRST = 8
_DOUBLEWRITE = 536853855
_NO_CHECKSUM = 0xDEADBEEF
#: Types of pages that are compressed or encrypted before ``full_crc32``, and whose checksum is no longer theirs.
_CHANGED = frozenset((14, 15, 16, 17, 34354, 37401))
#: Pages of one file whose checksum is InnoDB's own, which are computed byte by byte: the others are not checked.
_SLOW = 64
#: Pages whose checksums are looked at together.
_TOGETHER = 32
_KINDS = ("full", "old", "zip")
_END = 0xFFFFFFFF
_SIZES = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
_ADVICE = "innochecksum shows the pages; take the backup anew"


@dataclass(frozen=True)
class Space:
    """What a tablespace tells to the check of the backup that it belongs to.

    :param space: its number.
    :param lsn: the highest LSN of a page.
    :param delta: whether it holds only what has changed.
    """

    space: int
    lsn: int
    delta: bool = False


def looks_like(head: bytes) -> bool:
    """Return whether a stream that begins like this is a tablespace."""
    return (
        len(head) >= _FIRST
        and head[4:8] == bytes(4)
        and head[24:26] == b"\0\x08"
        and head[34:38] == head[38:42]
        and _page_size(int.from_bytes(head[54:58], "big")) > 0
    )


def looks_like_delta(head: bytes) -> bool:
    """Return whether a stream that begins like this holds the changed pages of a tablespace."""
    return head[:4] in (b"XTRA", b"xtra") and len(head) > 8


def _page_size(flags: int) -> int:
    """Return the bytes of a page on disk that the flags of a tablespace tell, 0 for impossible ones."""
    if flags & 0x10:
        exponent = flags & 15
        return 1 << exponent + 9 if 3 <= exponent <= 7 else 0
    zipped = flags >> 1 & 15
    if zipped:
        return 1 << zipped + 9 if zipped <= 5 else 0
    exponent = flags >> 6 & 15
    if not exponent:
        return 16384
    return 1 << exponent + 9 if 3 <= exponent <= 7 else 0


class _Pages(Walker):
    """Checks pages one by one and counts what is wrong with them."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""
        self._size = 0
        self._at = 0
        self._space: int | None = None
        self._pages = 0
        self._lsn = 0
        self._zero = b""
        #: How checksums are made: full, zip or old; None: not known yet.
        self._kind: str | None = None
        self._skipped = range(0)
        self._wrong: dict[str, tuple[int, int, int]] = {}
        self._slow = self._none = self._changed = 0
        self._lost = False
        #: Pages whose checksums are still to be looked at, together: number, place, type, LSN.
        self._waiting: list[tuple[bytes, int, int, int, int]] = []

    def _note(self, what: str, number: int, at: int) -> None:
        count, first, offset = self._wrong.get(what, (0, number, at))
        self._wrong[what] = (count + 1, first, offset)

    def _take(self, page: bytes, number: int) -> None:
        """Check a page that must have this number."""
        self._pages += 1
        if page == self._zero:
            return
        _sum, own, _before, _after, lsn, kind, _old, space = _HEADER.unpack_from(page)
        if number in self._skipped:
            return
        if own != number:
            self._note("number", number, self._at)
            return
        length = (kind & 0x7FFF) << 8
        if kind & 0x8000 and 0 < length <= len(page) and self._kind in ("full", None):
            # compressed by the server: its tablespace is not told
            if crc32c.right((page[: length - 4],), int.from_bytes(page[length - 4 : length], "big")):
                self._lsn = max(self._lsn, lsn)
            else:
                self._note("checksum", number, self._at)
            return
        if self._space is None:
            self._space = space
        if space != self._space:
            self._note("space", number, self._at)
            return
        self._waiting.append((page, number, self._at, kind, lsn))
        if self._kind is None or len(self._waiting) >= _TOGETHER:
            self._settle()

    def _settle(self) -> None:
        """Look at the checksums of the pages that wait for it."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        sums = [self._sums(page, self._kind) for page, *_rest in waiting] if self._kind else [None]
        good = [found for found in sums if found is not None]
        together = len(good) == len(waiting) and crc32c.all_right(good)
        for page, number, at, kind, lsn in waiting:
            if not together and not self._right(page, kind, at):
                self._note("checksum", number, at)
            elif lsn > self._lsn:
                self._lsn = lsn

    def _right(self, page: bytes, kind: int, at: int) -> bool:
        """Return whether a page's checksum is right, as far as that can be told."""
        if self._kind is None:
            self._kind = next((found for found in _KINDS if self._matches(page, found)), None)
            if self._kind is not None:
                return True
        elif self._matches(page, self._kind):
            return True
        if self._kind == "full":
            return False
        if kind in _CHANGED or (page[26:30] != bytes(4) and at):
            self._changed += 1
            return True
        if page[:4] == _SIZE.pack(_NO_CHECKSUM):
            self._none += 1
            return True
        if self._slow >= _SLOW:
            self._slow += 1
            return True
        stored = int.from_bytes(page[:4], "big")
        if (self._kind != "zip" and stored == _fold(page)) or (self._kind != "old" and stored == _adler(page)):
            self._slow += 1
            return True
        return False

    def _matches(self, page: bytes, kind: str) -> bool:
        sums = self._sums(page, kind)
        return sums is not None and crc32c.right(*sums)

    def _sums(self, page: bytes, kind: str) -> tuple[tuple[bytes, ...], int] | None:
        """Return what the CRC-32C of a page is made of and what it must be; None: it contradicts itself."""
        if kind == "full":
            return ((page[:-4],), int.from_bytes(page[-4:], "big")) if page[20:24] == page[-8:-4] else None
        stored = int.from_bytes(page[:4], "big")
        if kind == "zip":
            return (page[4:16], page[24:26], page[34:]), stored
        if page[:4] != page[-8:-4] or page[20:24] != page[-4:]:
            return None
        return (page[4:26], page[38:-8]), stored

    def _judge(self) -> None:
        self._settle()
        for what, text in (
            ("checksum", "{count} of {all} pages have a wrong checksum, the first is page {first}"),
            ("number", "{count} of {all} pages say that they are other ones, the first is page {first}"),
            ("space", "{count} of {all} pages are of another tablespace, the first is page {first}"),
        ):
            if what in self._wrong:
                count, first, offset = self._wrong[what]
                words = text.format(count=count, all=self._pages, first=first)
                self.problems.append(Problem(f"innodb.{what}", words, True, offset, _ADVICE))
        if self._none:
            self._unchecked("without a checksum")
        if self._changed:
            self._unchecked("that are compressed or encrypted")
        if self._slow > _SLOW:
            self._unchecked("with InnoDB's own old checksum, but for the first of each file")
        if self._space is not None:
            self.facts.part = Space(self._space, self._lsn, self.format == "innodb_delta")

    def _unchecked(self, which: str) -> None:
        self.facts.unchecked.append(f"pages of tablespaces {which}: only their numbers were looked at")

    def _break(self, check: str, message: str, offset: int | None = None) -> None:
        self.problems.append(Problem(f"innodb.{check}", message, True, offset, _ADVICE))
        self._lost = True
        self._rest = b""


class InnodbWalker(_Pages):
    """Follows a tablespace.

    :param database: what it belongs to; empty when it is no table's.
    :param table: the table.
    """

    format = "innodb"

    def __init__(self, database: str, table: str) -> None:
        super().__init__()
        self._stated = 0
        if table:
            self.facts.counts[database] = {table: None}

    def feed(self, data: bytes) -> None:
        if self._lost:
            return
        data = self._rest + data if self._rest else data
        if not self._size:
            if len(data) < _FIRST:
                self._rest = data
                return
            if not looks_like(data[:_FIRST]):
                self._break("header", "it does not begin as a tablespace does", 0)
                return
            flags = int.from_bytes(data[54:58], "big")
            self._size = _page_size(flags)
            self._zero = bytes(self._size)
            self._space = int.from_bytes(data[34:38], "big")
            self._stated = int.from_bytes(data[46:50], "big")
            self._kind = "full" if flags & 0x10 else "zip" if flags >> 1 & 15 else "old"
            self.facts.attributes.update(
                space_id=self._space,
                page_size=self._size,
                checksum={"full": "full_crc32", "zip": "compressed", "old": "crc32"}[self._kind],
            )
        size = self._size
        whole = len(data) - len(data) % size
        for place in range(0, whole, size):
            page = data[place : place + size]
            if not self._space and self._pages == 5:
                self._find_doublewrite(page)
            self._take(page, self._pages)
            self._at += size
        self._rest = data[whole:]

    def _find_doublewrite(self, page: bytes) -> None:
        """Two extents of the system tablespace hold copies of other pages."""
        place = self._size - 200
        if int.from_bytes(page[place + 10 : place + 14], "big") == _DOUBLEWRITE:
            first = int.from_bytes(page[place + 14 : place + 18], "big")
            self._skipped = range(first, first + 2 * (1048576 // self._size))

    def close(self) -> None:
        if not self._lost and not self._size:
            self._break("cut", f"it has {len(self._rest)} bytes and is no tablespace", 0)
        elif not self._lost:
            if self._rest or self._pages < self._stated:
                have = self._at + len(self._rest)
                text = f"it has {have} bytes, but its first page says {self._stated} pages of {self._size}"
                self.problems.append(Problem("innodb.cut", text, True, have, _ADVICE))
            self.facts.attributes["pages"] = self._pages
        self._judge()


class DeltaWalker(_Pages):
    """Follows the pages that have changed since an earlier backup: lists of up to a page, and these pages behind it.

    :param system: whether they are of the system tablespace, where two extents hold copies of other pages.
    """

    format = "innodb_delta"

    def __init__(self, system: bool) -> None:
        super().__init__()
        self._space = 0 if system else None
        self._numbers: list[int] = []
        self._final = False
        self._latest = -1

    def feed(self, data: bytes) -> None:
        if self._lost:
            return
        self._rest += data
        if not self._size:
            if len(self._rest) < 2 * _SIZES[-1]:
                return
            if not self._find_size():
                self._break("header", "its list of pages does not lead to the pages", 0)
                return
        self._follow()

    def _follow(self) -> None:
        """Go over all pages that have arrived."""
        data, size = self._rest, self._size
        place = 0
        while len(data) - place >= size and not self._lost:
            page = data[place : place + size]
            if self._numbers:
                self._take(page, self._numbers.pop(0))
            elif self._final:
                self._break("trailing", f"there are bytes behind its last page, at byte {self._at}", self._at)
            else:
                self._list(page)
            self._at += size
            place += size
        self._rest = b"" if self._lost else data[place:]

    def _find_size(self) -> bool:
        """Find the size of the pages: the first one in the list must be where the list ends."""
        data = self._rest
        first = data[4:8]
        if first == _SIZE.pack(_END):
            return False
        for size in _SIZES:
            page = data[size : 2 * size]
            if len(page) < size:
                break
            # Zeros cannot be told from the end of a list, and the copies of other pages in the system tablespace have
            # the numbers of those.
            if (page[4:8] == first and any(page[16:24])) or any(self._matches(page, kind) for kind in _KINDS):
                self._size, self._zero = size, bytes(size)
                if self._space == 0:
                    self._skipped = range(64, 64 + 2 * (1048576 // size))
                return True
        return False

    def _list(self, page: bytes) -> None:
        magic = page[:4]
        if magic not in (b"XTRA", b"xtra"):
            self._break("header", f"the list of pages at byte {self._at} is none", self._at)
            return
        numbers = [number for (number,) in _SIZE.iter_unpack(page[4:])]
        if _END in numbers:
            numbers = numbers[: numbers.index(_END)]
        self._final = magic == b"XTRA"
        if not self._final and len(numbers) != self._size // 4 - 1:
            self._break("header", f"the list of pages at byte {self._at} has a gap", self._at)
        for number in numbers:
            if number <= self._latest:
                self._break("order", f"its pages are not in order: {number} comes after {self._latest}", self._at)
                return
            self._latest = number
        self._numbers = numbers

    def close(self) -> None:
        if not self._lost and not self._size:
            if self._rest[4:8] == _SIZE.pack(_END) and len(self._rest) in _SIZES:
                self._final, self._rest = True, b""
            elif self._find_size():
                self._follow()
            else:
                self._break("cut", "it ends before its list of pages leads to the first one", len(self._rest))
        if not self._lost and (self._rest or self._numbers or not self._final) and not self.problems:
            have = self._at + len(self._rest)
            text = f"it ends after {self._pages} pages, and more should follow"
            self.problems.append(Problem("innodb.cut", text, True, have, _ADVICE))
        self.facts.attributes["pages"] = self._pages
        self._judge()


def _fold(page: bytes) -> int:
    """Return InnoDB's own checksum, which was the default of MySQL before 5.7 and of MariaDB before 10.2."""

    def fold(data: bytes) -> int:
        value = 0
        for byte in data:
            value = ((((value ^ byte ^ 1653893711) << 8) + value ^ 1463735687) + byte) & 0xFFFFFFFF
        return value

    return fold(page[4:26]) + fold(page[38:-8]) & 0xFFFFFFFF


def _adler(page: bytes) -> int:
    return adler32(page[34:], adler32(page[24:26], adler32(page[4:16], 0)))
