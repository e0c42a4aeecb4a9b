# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Redis snapshots (RDB), versions 1 to 12, followed structure by structure (``rdb.h`` and ``rdb.c`` of Redis 7.4).

The file ends with a CRC-64 of everything before it. Zero means that the server wrote none (``rdbchecksum no``), and
Redis takes that without a word; then the structure, and the number of keys announced before each database, are all
that can be checked.
"""

from __future__ import annotations

import re
from collections.abc import Generator

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.crc64 import JONES, Crc64
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.pull import PullWalker, Step, Stop

#: The newest version whose structures are known here.
NEWEST = 12

_TITLE = re.compile(rb"REDIS\d{4}")
_SLOT_INFO, _FUNCTION2, _FUNCTION, _MODULE_AUX, _IDLE, _FREQUENCY = 244, 245, 246, 247, 248, 249
_AUX, _RESIZE, _EXPIRE_MS, _EXPIRE, _SELECT, _EOF = 250, 251, 252, 253, 254, 255
_MODULE2 = 7
#: Types whose value is one string that holds a packed structure, and which one.
_PACKED = {9: "zipmap", 10: "ziplist", 11: "intset", 12: "ziplist", 13: "ziplist"}
_PACKED.update({16: "listpack", 17: "listpack", 20: "listpack", 23: "listpack", 25: "listpack"})
#: Types made of a number of elements: strings in each, and bytes after them.
_ELEMENTS = {1: (1, 0), 2: (1, 0), 4: (2, 0), 5: (1, 8), 14: (1, 0)}
_STREAMS = {15: 1, 19: 2, 21: 3}


def looks_like(head: bytes) -> bool:
    """Return whether a stream that begins like this is an RDB."""
    return _TITLE.match(head) is not None


def packed_is_broken(kind: str, value: bytes) -> bool:
    """Return whether a packed structure contradicts its own head or has no end."""
    size = len(value)
    if kind == "intset":
        width, count = int.from_bytes(value[:4], "little"), int.from_bytes(value[4:8], "little")
        return size < 8 or width not in (2, 4, 8) or size != 8 + width * count
    if kind == "zipmap":
        return size < 2 or value[-1] != 255
    return size < 7 or value[-1] != 255 or int.from_bytes(value[:4], "little") != size


def _string_end(data: bytes, at: int) -> int:
    """Return where the string that begins here ends; 0 when that is not plain. Twenty bytes must be there."""
    first = data[at]
    if first < 64:
        return at + 1 + first
    if first < 128:
        return at + 2 + ((first & 63) << 8 | data[at + 1])
    if first == 128:
        return at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
    if 192 <= first <= 194:
        return at + 1 + (1 << (first & 3))
    if first != 195:
        return 0
    # LZF: compressed length, plain length, compressed bytes.
    first = data[at + 1]
    if first < 64:
        at, size = at + 2, first
    elif first < 128:
        at, size = at + 3, (first & 63) << 8 | data[at + 2]
    else:
        return 0
    first = data[at]
    if first < 64:
        at, plain = at + 1, first
    elif first < 128:
        at, plain = at + 2, (first & 63) << 8 | data[at + 1]
    elif first == 128:
        at, plain = at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
    else:
        return 0
    # Redis keeps the compressed form only where it saves something; one step yields at most 264 bytes of three.
    return at + size if size < plain <= 264 * size else 0


class RdbWalker(PullWalker):
    """Follows a snapshot; counts the keys of each database as ``counts["db0"]["keys"]``."""

    format = "redis_rdb"

    def __init__(self) -> None:
        self._checksum: Crc64 | None = None
        self._version = 0
        self._database = "db0"
        self._keys = 0
        self._expires = 0
        self._total = 0
        self._announced: tuple[int, int] | None = None
        self._contradiction: str | None = None
        super().__init__()

    def walk(self) -> Step:
        yield from self.rdb()
        yield from self.more() if len(self.data) == self.at else ()
        if len(self.data) > self.at:
            self.problem("rdb.trailing", "bytes follow the end of the snapshot", advice=_ADVICE)

    def consumed(self, data: bytes) -> None:
        if self._checksum is not None:
            self._checksum.update(data)

    def cut(self) -> None:
        self.problem("rdb.cut", f"the snapshot ends after {self._total} keys, without its end mark", advice=_ADVICE)

    def close(self) -> None:
        super().close()
        self.facts.attributes["keys"] = self._total

    # The whole

    def rdb(self) -> Step:
        """Follow a snapshot from its title to its checksum."""
        yield from self.need(9)
        if not _TITLE.match(self.data, self.at):
            self._stop("rdb.magic", "this is not an RDB snapshot")
        self._version = int(self.data[self.at + 5 : self.at + 9])
        if not 1 <= self._version <= 1000:
            self._stop("rdb.magic", f"there is no RDB version {self._version}")
        self.facts.attributes["rdb_version"] = self._version
        self._checksum = Crc64(JONES)
        self.at += 9
        while True:
            self._pass_simple()
            yield from self.need(1)
            code = self.data[self.at]
            self.at += 1
            if code == _EOF:
                break
            if code < 240:
                yield from self._string()
                self._keys += 1
                self._total += 1
                yield from self._value(code)
            else:
                yield from self._operation(code)
        self._end_database()
        yield from self._end()

    def _pass_simple(self) -> None:
        """Go over the keys with simple values that have arrived."""
        data, at = self.data, self.at
        last = len(data) - 64
        keys = expires = 0
        while at < last:
            start = at
            code = data[at]
            if code == _EXPIRE_MS:
                at += 9
                code = data[at]
                expires += 1
            kind = None
            if code:
                kind = _PACKED.get(code)
                if kind is None or code > 20:
                    expires -= at > start
                    at = start
                    break
            middle = _string_end(data, at + 1)
            stop = _string_end(data, middle) if 0 < middle <= last else 0
            if not 0 < stop <= last:
                expires -= at > start
                at = start
                break
            if kind and data[middle] < 192:
                first = data[middle]
                begin = middle + (1 if first < 64 else 2 if first < 128 else 5)
                if packed_is_broken(kind, data[begin:stop]):
                    self.at = middle
                    self._stop("rdb.value", f"the {kind} of key {self._total + keys + 1} contradicts itself")
            at = stop
            keys += 1
        self.at = at
        self._keys += keys
        self._total += keys
        self._expires += expires

    def _stop(self, check: str, message: str) -> None:
        known = self._version <= NEWEST or check == "rdb.magic"
        if not known:
            message += f"; RDB version {self._version} is newer than this check, which knows {NEWEST}"
        self.problem(check, message, damage=known, advice=_ADVICE)
        raise Stop

    def _operation(self, code: int) -> Step:
        if code == _EXPIRE_MS:
            self._expires += 1
            yield from self.skip(8)
        elif code == _EXPIRE:
            self._expires += 1
            yield from self.skip(4)
        elif code == _SELECT:
            self._end_database()
            number = yield from self._length()
            self._database = f"db{number}"
            self.facts.counts[self._database] = {"keys": 0}
        elif code == _RESIZE:
            keys = yield from self._length()
            expires = yield from self._length()
            self._announced = (keys, expires)
        elif code == _AUX:
            name = yield from self._short_string()
            value = yield from self._short_string()
            self._note(name, value)
        elif code == _IDLE:
            yield from self._length()
        elif code == _FREQUENCY:
            yield from self.skip(1)
        elif code == _SLOT_INFO:
            for _field in range(3):
                yield from self._length()
        elif code == _FUNCTION2:
            attributes = self.facts.attributes
            attributes["functions"] = attributes.get("functions", 0) + 1
            yield from self._string()
        elif code == _FUNCTION:
            yield from self._string()
            yield from self._string()
            described = yield from self._length()
            for _field in range(2 if described else 1):
                yield from self._string()
        elif code == _MODULE_AUX:
            yield from self._module()
        else:
            self.at -= 1
            self._stop("rdb.opcode", f"there is no operation 0x{code:02x}, after {self._total} keys")

    def _note(self, name: bytes, value: bytes) -> None:
        attributes = self.facts.attributes
        if name == b"redis-ver":
            attributes["server_version"] = value.decode("ascii", "replace")
        elif name == b"ctime" and value.isdigit():
            self.facts.created = float(value)
        elif name == b"used-mem" and value.isdigit():
            attributes["used_memory"] = int(value)

    def _end_database(self) -> None:
        if self._announced is not None and self._announced != (self._keys, self._expires):
            keys, expires = self._announced
            self._contradiction = self._contradiction or (
                f"{self._database} announces {keys} keys and {expires} with expiry, "
                f"but holds {self._keys} and {self._expires}"
            )
        if self._keys:
            self.facts.counts.setdefault(self._database, {"keys": 0})
            self.facts.counts[self._database]["keys"] = self._keys
        self.facts.attributes["expires"] = self.facts.attributes.get("expires", 0) + self._expires
        self._keys = self._expires = 0
        self._announced = None

    def _end(self) -> Step:
        unchecked = self.facts.unchecked
        unchecked.append("whether the snapshot has all keys of the source: compare with expected counts")
        self._drop()
        checksum, self._checksum = self._checksum, None
        if self._version < 5:
            unchecked.append(f"RDB version {self._version} has no checksum: only its structure was checked")
            return
        yield from self.need(8)
        written = int.from_bytes(self.data[self.at : self.at + 8], "little")
        self.at += 8
        self.facts.attributes["checksum"] = bool(written)
        if not written:
            unchecked.append("the snapshot has no checksum (rdbchecksum no): only its structure was checked")
            if self._contradiction:
                self.problem("rdb.keys", self._contradiction, advice=_ADVICE)
        elif checksum is not None and checksum.value() != written:
            self.problem("rdb.checksum", "the checksum does not match the snapshot", advice=_ADVICE)

    # Lengths and strings

    def _encoding(self) -> Generator[None, None, tuple[int, bool]]:
        """Return a length, or the number of a special encoding and true."""
        yield from self.need(1)
        first = self.data[self.at]
        size = 1 if first < 64 or first >= 192 else 2 if first < 128 else 5 if first == 128 else 9
        yield from self.need(size)
        at = self.at
        if first >= 192:
            value = first & 63
        elif first < 64:
            value = first
        elif first < 128:
            value = (first & 63) << 8 | self.data[at + 1]
        elif first in (128, 129):
            value = int.from_bytes(self.data[at + 1 : at + size], "big")
        else:
            self._stop("rdb.length", f"0x{first:02x} begins no length, after {self._total} keys")
        self.at += size
        return value, first >= 192

    def _length(self) -> Generator[None, None, int]:
        value, special = yield from self._encoding()
        if special:
            self.at -= 1
            self._stop("rdb.length", f"a length is expected, not a string encoding, after {self._total} keys")
        return value

    def _string(self) -> Generator[None, None, None]:
        value, special = yield from self._encoding()
        if not special:
            yield from self.skip(value)
        elif value <= 2:
            yield from self.skip(1 << value)
        elif value == 3:
            size = yield from self._length()
            plain = yield from self._length()
            if not size < plain <= 264 * size:
                self._stop("rdb.string", f"a compressed string cannot have {plain} bytes of {size}")
            yield from self.skip(size)
        else:
            self.at -= 1
            self._stop("rdb.string", f"there is no string encoding {value}, after {self._total} keys")

    def _short_string(self) -> Generator[None, None, bytes]:
        """Return a string of up to 4 KiB as text; nothing of a longer or a compressed one."""
        yield from self.need(1)
        first = self.data[self.at]
        if first >= 128 and first not in (192, 193, 194):
            yield from self._string()
            return b""
        value, special = yield from self._encoding()
        size = 1 << value if special else value
        if size > 4096:
            yield from self.skip(size)
            return b""
        yield from self.need(size)
        text = self.data[self.at : self.at + size]
        self.at += size
        return str(int.from_bytes(text, "little", signed=True)).encode() if special else text

    # Values

    def _value(self, code: int) -> Step:
        if code == 0:
            yield from self._string()
        elif code in _PACKED:
            if code == 25:
                yield from self.skip(8)
            yield from self._packed(_PACKED[code])
        elif code in _ELEMENTS:
            strings, after = _ELEMENTS[code]
            count = yield from self._length()
            yield from self._elements(count * strings, after)
        elif code == 3:
            count = yield from self._length()
            for _member in range(count):
                yield from self._string()
                yield from self.need(1)
                size = self.data[self.at]
                yield from self.skip(1 if size >= 253 else 1 + size)
        elif code == 18:
            count = yield from self._length()
            for _node in range(count):
                container = yield from self._length()
                if container not in (1, 2):
                    self._stop("rdb.value", f"the list of key {self._total} has no valid node")
                yield from self._packed("listpack") if container == 2 else self._string()
        elif code in _STREAMS:
            yield from self._stream(_STREAMS[code])
        elif code in (22, 24):
            if code == 24:
                yield from self.skip(8)
            count = yield from self._length()
            for _field in range(count):
                yield from self._length()
                yield from self._elements(2, 0)
        elif code == _MODULE2:
            yield from self._module()
        else:
            self._stop("rdb.type", f"there is no type {code}, or it cannot be followed, at key {self._total}")

    def _elements(self, count: int, after: int) -> Step:
        """Pass over strings, each with some bytes after it."""
        while count:
            data, at = self.data, self.at
            last = len(data) - 32
            while count and at < last:
                stop = _string_end(data, at) + after
                if not after < stop <= last:
                    break
                at = stop
                count -= 1
            self.at = at
            if count:
                yield from self._string()
                yield from self.skip(after)
                count -= 1

    def _packed(self, kind: str) -> Step:
        yield from self.need(1)
        if self.data[self.at] >= 192:
            yield from self._string()
            return
        size = yield from self._length()
        if size > 1 << 20:
            yield from self.skip(size)
            return
        yield from self.need(size)
        if packed_is_broken(kind, self.data[self.at : self.at + size]):
            self._stop("rdb.value", f"the {kind} of key {self._total} contradicts itself")
        self.at += size

    def _stream(self, version: int) -> Step:
        count = yield from self._length()
        for _node in range(count):
            yield from self._string()
            yield from self._packed("listpack")
        for _field in range(3 if version == 1 else 8):
            yield from self._length()
        groups = yield from self._length()
        for _group in range(groups):
            yield from self._string()
            for _field in range(2 if version == 1 else 3):
                yield from self._length()
            pending = yield from self._length()
            for _entry in range(pending):
                yield from self.skip(24)
                yield from self._length()
            consumers = yield from self._length()
            for _consumer in range(consumers):
                yield from self._string()
                yield from self.skip(16 if version == 3 else 8)
                pending = yield from self._length()
                yield from self.skip(16 * pending)

    def _module(self) -> Step:
        """Pass over a module's data: its id, then values with a type before each, until a zero."""
        yield from self._length()
        while True:
            kind = yield from self._length()
            if kind == 0:
                return
            if kind in (1, 2):
                yield from self._length()
            elif kind in (3, 4):
                yield from self.skip(4 if kind == 3 else 8)
            elif kind == 5:
                yield from self._string()
            else:
                self._stop("rdb.module", f"a module's data has no value of type {kind}, at key {self._total}")


_ADVICE = "take another snapshot (BGSAVE), copy it only when it is finished, and keep rdbchecksum on"
