# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""tar as POSIX (ustar, pax) and GNU write it: every header, the sizes, and the end of the archive.

The payload of members is passed over by size, or handed to the walker of a format found inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import Members, printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem, Walker

BLOCK = 512
_ZERO = bytes(BLOCK)

#: Longest pax header or GNU long name that is read, in bytes.
MAX_EXTENSION = 1024 * 1024

_REGULAR = (b"\x00", b"0", b"7", b"S")
_LINKS = b"12"
_DEVICES = {b"3": "character device", b"4": "block device", b"6": "named pipe"}
_WITHOUT_DATA = b"23456V"
_KNOWN = (b"\x00", b"0", b"5", b"7", b"D", b"M", b"S", b"V")
_PADDING = re.compile(rb"\0*")
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]")
_PAX_RECORD = re.compile(rb"([0-9]{1,9}) ")


class Sink(Protocol):
    """What the payload of a member is handed to."""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""

    def close(self, complete: bool = True) -> None:
        """Take the end; not ``complete``: the rest is missing."""


class TarError(Exception):
    """A header that cannot be right."""


def is_header(block: bytes) -> bool:
    """Return whether 512 bytes are a tar header: its checksum is the sum of its bytes, its own field as spaces."""
    found = _OCTAL.match(block, 148, 157)
    if len(block) != BLOCK or found is None or not found.group(1):
        return False
    stored = int(found.group(1), 8)
    total = 256 + sum(block) - sum(block[148:156])
    if stored == total:
        return True
    # Some old programs summed signed bytes.
    return stored == total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def number(field: bytes) -> int:
    """Return the value of a numeric field: octal digits, or base 256 as GNU tar writes large ones.

    :raises TarError: when it is neither.
    """
    if field[0] & 0x80:
        return int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else int.from_bytes(field[1:], "big")
    try:
        return int(field.rstrip(b"\0 ").lstrip(b" ") or b"0", 8)
    except ValueError:
        raise TarError(f"a number field holds {printable(field)}") from None


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax header.

    :raises TarError: when they do not add up.
    """
    records = {}
    position = 0
    while position < len(data):
        found = _PAX_RECORD.match(data, position)
        end = position + int(found.group(1)) if found else 0
        if found is None or not found.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            if not data[position:].strip(b"\0"):
                break
            raise TarError("a pax header has a record of the wrong length")
        key, equals, value = data[found.end() : end - 1].partition(b"=")
        if not equals:
            raise TarError("a pax header has a record without a value")
        records[key] = value
        position = end
    return records


class TarWalker(Walker):
    """Follow a tar archive.

    :param members: where the names go.
    :param open_member: for the name and size of a regular member, what wants its payload, or None.
    """

    format = "tar"

    def __init__(
        self, members: Members | None = None, open_member: Callable[[str, int], Sink | None] | None = None
    ) -> None:
        super().__init__()
        self.members = Members() if members is None else members
        self._open_member = open_member
        self._position = 0
        self._held = b""
        self._left = 0
        self._padding = 0
        self._sink: Sink | None = None
        self._extension: bytearray | None = None
        self._extension_type = b""
        self._pax: dict[bytes, bytes] = {}
        self._global: dict[bytes, bytes] = {}
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None
        self._extended_sparse = False
        self._zero_blocks = 0
        self._maybe_data = 0
        self._ended = False
        self._lost = False
        self._count = 0
        self._bytes = 0
        self._current = ""
        self._files = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the archive."""
        if self._lost:
            self._position += len(data)
            return
        if self._held:
            need = BLOCK - len(self._held)
            if len(data) < need:
                self._held += data
                self._position += len(data)
                return
            block, self._held = self._held + data[:need], b""
            self._header(block, self._position + need - BLOCK)
            position = need
        else:
            position = 0
        base = self._position
        size = len(data)
        while position < size:
            if self._lost:
                break
            if self._extended_sparse and size - position >= BLOCK:
                # more places of a sparse file, before its data
                self._extended_sparse = data[position + 504] != 0
                position += BLOCK
            elif self._extended_sparse:
                self._held = data[position:]
                position = size
            elif self._left:
                step = min(self._left, size - position)
                if self._sink is not None:
                    self._sink.feed(data if step == size else data[position : position + step])
                elif self._extension is not None:
                    self._extension += data[position : position + step]
                self._left -= step
                position += step
                if not self._left:
                    self._end_payload(base + position)
            elif self._padding:
                step = min(self._padding, size - position)
                self._padding -= step
                position += step
            elif self._ended:
                position = self._trailing(data, position)
            elif size - position < BLOCK:
                self._held = data[position:]
                position = size
            else:
                self._header(data[position : position + BLOCK], base + position)
                position += BLOCK
        self._position = base + size

    def close(self) -> None:
        """Judge the end of the archive."""
        if self._sink is not None:
            self._sink.close(complete=False)
            self._sink = None
        if self._lost:
            pass
        elif self._left or self._padding or self._extended_sparse:
            self._damage("tar.truncated", f"the archive ends in the middle of member {self._current}", self._position)
        elif self._held:
            self._damage("tar.truncated", f"the archive ends in the middle of a block, after {self._count} members")
        elif self._ended:
            pass
        elif self._zero_blocks:
            self._damage("tar.end", f"the archive ends with one zero block instead of two, after {self._count} members")
        else:
            self._damage(
                "tar.end",
                f"the archive has no end mark: it was cut after member {self._count}, {self._current or 'none'}",
                advice="The program that wrote it was stopped, or the disk was full; make the backup again.",
            )
        self.facts.attributes.update(entries=self._count, files=self._files, payload_bytes=self._bytes)

    def _damage(self, check: str, message: str, offset: int | None = None, advice: str | None = None) -> None:
        self.problems.append(Problem(check, message, True, offset, advice))
        self._lost = True

    def _header(self, block: bytes, offset: int) -> None:
        if self._extended_sparse:
            self._extended_sparse = block[504] != 0
            return
        if block == _ZERO:
            self._zero_blocks += 1
            if self._zero_blocks == 2:
                self._ended = True
            return
        if self._zero_blocks:
            self._damage("tar.end", f"a single zero block stands between members at byte {offset}", offset)
            return
        if not is_header(block):
            if self._maybe_data:
                # a hard link that carries data, as pax archives may
                self._left, self._padding = self._maybe_data - BLOCK, -self._maybe_data % BLOCK
                if self._left < 0:
                    self._left = self._padding = 0
                self._maybe_data = 0
                return
            self._damage(
                "tar.header", f"the header after member {self._count} ({self._current or 'none'}) is damaged", offset
            )
            return
        self._maybe_data = 0
        try:
            self._member(block, offset)
        except TarError as error:
            self._damage("tar.header", f"member {self._count + 1} has a damaged header: {error}", offset)

    def _member(self, block: bytes, offset: int) -> None:
        kind = block[156:157]
        size = number(block[124:136])
        if kind in (b"x", b"g", b"X", b"L", b"K"):
            if size < 0:
                raise TarError("a size is negative")
            self._extension_type = kind
            self._extension = bytearray() if size <= MAX_EXTENSION else None
            if size > MAX_EXTENSION:
                self._unsure("tar.extension", f"an extended header of {size} bytes is too large to be read", offset)
            self._begin_payload(size)
            return
        records = {**self._global, **self._pax} if self._pax or self._global else {}
        name = self._long_name
        if name is None:
            name = records.get(b"GNU.sparse.name") or records.get(b"path")
        if name is None:
            name = block[:100].split(b"\0", 1)[0]
            if block[257:262] == b"ustar" and block[257:265] != b"ustar  \0" and block[345]:
                name = block[345:500].split(b"\0", 1)[0] + b"/" + name
        if b"size" in records:
            try:
                size = int(records[b"size"])
            except ValueError:
                raise TarError("the size in its pax header is not a number") from None
        if size < 0:
            raise TarError("a size is negative")
        link = self._long_link
        if link is None:
            link = records.get(b"linkpath")
        if link is None and kind in _LINKS:
            link = block[157:257].split(b"\0", 1)[0]
        sparse = kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in records)
        self._pax, self._long_name, self._long_link = {}, None, None

        text = name.decode("utf-8", "surrogateescape")
        directory = kind in (b"5", b"D") or (kind in (b"0", b"\0") and text.endswith("/"))
        self._count += 1
        self._current = text if len(text) < 200 else "…" + text[-200:]
        self.members.add(text, directory=directory)
        if kind in _DEVICES:
            self.members.note("device", text)
        elif kind in _LINKS:
            self.members.link(text, (link or b"").decode("utf-8", "surrogateescape"), hard=kind == b"1")
        elif kind not in _KNOWN:
            self.members.note("unknown", text)
        if kind == b"1":
            self._maybe_data = size
            return
        if kind in _WITHOUT_DATA:
            return
        if kind == b"S":
            self._extended_sparse = block[482] != 0
        self._files += not directory
        self._bytes += size
        if self._open_member is not None and kind in _REGULAR and not directory:
            if sparse:
                self.members.sparse += 1
            else:
                self._sink = self._open_member(text, size)
        self._begin_payload(size)

    def _begin_payload(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK
        if not size:
            self._end_payload(0)

    def _end_payload(self, offset: int) -> None:
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        if not self._extension_type:
            return
        kind, self._extension_type = self._extension_type, b""
        data, self._extension = self._extension, None
        if data is None:
            return
        if kind == b"L":
            self._long_name = bytes(data).split(b"\0", 1)[0]
        elif kind == b"K":
            self._long_link = bytes(data).split(b"\0", 1)[0]
        else:
            try:
                records = parse_pax(bytes(data))
            except TarError as error:
                self._damage("tar.header", f"the header after member {self._count} is damaged: {error}", offset)
                return
            if kind == b"g":
                self._global.update(records)
                if sum(map(len, self._global.values())) > MAX_EXTENSION:
                    self._global.clear()
                    self._unsure("tar.extension", "global pax headers are too large to be kept", offset)
            else:
                self._pax = records

    def _unsure(self, check: str, message: str, offset: int) -> None:
        if all(problem.check != check for problem in self.problems):
            self.problems.append(Problem(check, message, damage=False, offset=offset))

    def _trailing(self, data: bytes, position: int) -> int:
        found = _PADDING.match(data, position)
        end = found.end() if found else position
        if end < len(data):
            offset = self._position + end
            self._damage(
                "tar.trailing",
                f"data follow the end of the archive (after {self._count} members), "
                "and extracting stops at the end mark",
                offset,
                "Look at it with 'tar --list --ignore-zeros', and make the backup again as one archive.",
            )
        return len(data)
