# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decompression of a stream that arrives in pieces: all members to the last byte, in bounded memory.

Accelerators (isal, zlib-ng) change the speed only: headers, trailers and checksums are judged here, in one place.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Iterator
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None  # type: ignore[assignment,unused-ignore]

try:
    from zlib_ng import zlib_ng
except ImportError:
    zlib_ng = None  # type: ignore[assignment,unused-ignore]

#: Decompressed bytes handed on at a time.
PIECE = 1024 * 1024

#: Dictionary and window sizes above this are not decompressed, in bytes (xz -9 needs 65 MiB).
MEMORY = 70 * 1024 * 1024

#: Compressed bytes given to a decompressor at a time: little at the start of a member, since what follows the
#: member is copied, and more as it goes on.
_FIRST_STEP = 4 * 1024
_LAST_STEP = 256 * 1024

_ZEROS = re.compile(rb"\0*")

#: Longest file name or comment that is believed in a gzip header.
_MAX_HEADER = 128 * 1024


class Decoder:
    """Decompress one stream.

    :ivar problems: what is wrong with the stream.
    :ivar unchecked: what this stream cannot tell.
    :ivar complete: after :meth:`finish`: every member was read to its end, so the payload is whole.
    :ivar members: number of members (frames, streams) that ended well.
    """

    name = ""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.unchecked: list[str] = []
        self.members = 0
        self.complete = False
        self.stopped = False
        self._consumed = 0
        self._produced = 0
        self._zeros = 0

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece of the compressed stream, yield decompressed pieces of at most about :data:`PIECE`."""
        if not self.stopped:
            yield from self._decode(data)
        self._consumed += len(data)

    def finish(self) -> Iterator[bytes]:
        """Take the end of the stream; yield what is left."""
        if self.stopped:
            return
        yield from self._finish()
        if self.stopped:
            return
        if self._inside():
            self._stop(
                "truncated",
                f"the {self.name} stream ends in the middle of member {self.members + 1}, "
                f"after {self._produced} decompressed bytes",
            )
        elif self._zeros:
            self.complete = True
            self.problems.append(
                Problem(
                    f"{self.name}.padding",
                    f"{self._zeros} zero bytes follow the last {self.name} member: padding, or lost data",
                    damage=False,
                    offset=self._consumed - self._zeros,
                    advice="Compare with the source, or make the backup again without padding.",
                )
            )
        else:
            self.complete = True

    def _decode(self, data: bytes) -> Iterator[bytes]:
        raise NotImplementedError

    def _inside(self) -> bool:
        """Whether the stream is inside a member now."""
        raise NotImplementedError

    def _finish(self) -> Iterator[bytes]:
        return iter(())

    def _stop(self, check: str, message: str, damage: bool = True, advice: str | None = None) -> None:
        self.stopped = True
        self.problems.append(Problem(f"{self.name}.{check}", message, damage, self._consumed, advice))

    def _corrupt(self, what: str) -> None:
        self._stop(
            "corrupt",
            f"{self.name} member {self.members + 1} is damaged near byte {self._consumed} of the stream: {what}",
        )

    def _garbage(self, offset: int) -> None:
        """Stop at bytes that belong to no member: what came before is whole."""
        self.complete = True
        self.stopped = True
        self.problems.append(
            Problem(
                f"{self.name}.trailing",
                f"bytes that are not {self.name} follow member {self.members} from byte {offset} on",
                offset=offset,
                advice="Something was appended or written over; the members before it can still be read.",
            )
        )

    def _skip_zeros(self, data: bytes, position: int) -> int:
        """Count zero bytes after a member, return the position behind them."""
        end = _ZEROS.match(data, position).end()  # type: ignore[union-attr]  # it matches the empty string
        self._zeros += end - position
        return end


class GzipDecoder(Decoder):
    """gzip as RFC 1952 says: header, raw deflate, CRC-32 and size of every member.

    :param backend: a module like :mod:`zlib` for the inflation; by default the fastest that is installed.
    """

    name = "gzip"

    def __init__(self, backend: Any = None) -> None:
        super().__init__()
        self._backend = backend or isal_zlib or zlib_ng or zlib
        self._error: type[Exception] = getattr(self._backend, "error", zlib.error)
        self._next = self._header
        self._held = b""
        self._inflater: Any = None
        self._open = False
        self._at = 0
        self._step = _FIRST_STEP
        self._crc = 0
        self._size = 0

    def _inside(self) -> bool:
        return self._open or bool(self._held) or not self.members

    def _decode(self, data: bytes) -> Iterator[bytes]:
        if self._held:
            data, self._held = self._held + data, b""
        position = 0
        while position < len(data) and not self.stopped:
            if self._inflater is not None:
                yield from self._inflate(data, position)
                position = self._at
            else:
                advanced = self._next(data, position)
                if advanced < 0:
                    self._held = data[position:]
                    return
                position = advanced

    def _header(self, data: bytes, position: int) -> int:
        if self.members:
            position = self._skip_zeros(data, position)
            if position == len(data):
                return position
        head = data[position : position + 10]
        if self._zeros or not b"\x1f\x8b\x08".startswith(head[:3]):
            if self.members:
                self._garbage(self._consumed + position)
            else:
                self._corrupt("there is no gzip header")
            return len(data)
        if len(head) < 10:
            return -1
        flags = head[3]
        if flags & 0xE0:
            self._corrupt("its header has unknown flags")
            return len(data)
        end = position + 10
        if flags & 4:
            if len(data) < end + 2:
                return -1
            end += 2 + int.from_bytes(data[end : end + 2], "little")
        for flag in (8, 16):
            if flags & flag:
                found = data.find(b"\0", end)
                if (len(data) if found < 0 else found) - position > _MAX_HEADER:
                    self._corrupt("its header does not end")
                    return len(data)
                if found < 0:
                    return -1
                end = found + 1
        if flags & 2:
            if len(data) < end + 2:
                return -1
            if zlib.crc32(data[position:end]) & 0xFFFF != int.from_bytes(data[end : end + 2], "little"):
                self._corrupt("the checksum of its header is wrong")
                return len(data)
            end += 2
        if len(data) < end:
            return -1
        self._inflater = self._backend.decompressobj(-15)
        self._step = _FIRST_STEP
        self._open = True
        self._crc = self._size = 0
        return end

    def _inflate(self, data: bytes, position: int) -> Iterator[bytes]:
        """Yield what comes out of the data from a position on; ``_at`` is behind what was taken."""
        inflater = self._inflater
        while position < len(data):
            chunk = data if not position and len(data) <= self._step else data[position : position + self._step]
            position += len(chunk)
            while True:
                try:
                    piece = inflater.decompress(chunk, PIECE)
                except self._error:
                    self._corrupt("the compressed data cannot be decoded")
                    return
                if piece:
                    self._crc = zlib.crc32(piece, self._crc)
                    self._size += len(piece)
                    self._produced += len(piece)
                    yield piece
                if inflater.eof:
                    self._inflater = None
                    self._next = self._trailer
                    self._at = position - len(inflater.unused_data)
                    return
                chunk = inflater.unconsumed_tail
                if not chunk and len(piece) < PIECE:
                    break
            self._step = min(self._step * 2, _LAST_STEP)
        self._at = position

    def _trailer(self, data: bytes, position: int) -> int:
        if len(data) < position + 8:
            return -1
        if self._crc != int.from_bytes(data[position : position + 4], "little"):
            self._corrupt("its CRC-32 is wrong")
        elif self._size & 0xFFFFFFFF != int.from_bytes(data[position + 4 : position + 8], "little"):
            self._corrupt("its length is wrong")
        self.members += 1
        self._open = False
        self._next = self._header
        return position + 8


class _StreamsDecoder(Decoder):
    """Formats whose standard library decompressor checks a whole stream: only the sequence of streams is ours."""

    _padding = 0

    def __init__(self) -> None:
        super().__init__()
        self._stream: Any = None
        self._step = _FIRST_STEP

    def _new(self) -> Any:
        raise NotImplementedError

    def _starts(self, head: bytes) -> bool:
        """Whether these bytes, at least one, may be the first of another stream."""
        raise NotImplementedError

    def _inside(self) -> bool:
        return self._stream is not None or not self.members

    def _decode(self, data: bytes) -> Iterator[bytes]:
        position = 0
        while position < len(data) and not self.stopped:
            if self._stream is None:
                if self.members:
                    position = self._skip_zeros(data, position)
                    if position == len(data):
                        return
                    if not self._starts(data[position : position + 1]) or (self._zeros and not self._padding):
                        self._garbage(self._consumed + position)
                        return
                    if self._padding and self._zeros % self._padding:
                        self._corrupt(f"{self._zeros} bytes of padding are not a multiple of {self._padding}")
                        return
                    self._zeros = 0
                self._stream = self._new()
                self._step = _FIRST_STEP
            chunk = data[position : position + self._step]
            position += len(chunk)
            stream = self._stream
            while True:
                try:
                    piece = stream.decompress(chunk, PIECE)
                except lzma.LZMAError as error:
                    self._failed(error)
                    return
                except (OSError, EOFError, ValueError):
                    self._failed(None)
                    return
                if piece:
                    self._produced += len(piece)
                    yield piece
                if stream.eof:
                    position -= len(stream.unused_data)
                    self.members += 1
                    self._ended(stream)
                    self._stream = None
                    break
                if stream.needs_input:
                    break
                chunk = b""
            self._step = min(self._step * 2, _LAST_STEP)

    def _ended(self, stream: Any) -> None:
        pass

    def _failed(self, error: lzma.LZMAError | None) -> None:
        self._corrupt("the compressed data cannot be decoded")


class XzDecoder(_StreamsDecoder):
    """xz: every stream with its index and the check it carries (CRC32, CRC64, SHA-256 or none)."""

    name = "xz"
    _padding = 4

    def _new(self) -> Any:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)

    def _starts(self, head: bytes) -> bool:
        return head == b"\xfd"

    def _finish(self) -> Iterator[bytes]:
        if self._stream is None and self.members and self._zeros and self._zeros % 4 == 0:
            self._zeros = 0  # stream padding, as the format allows
        return iter(())

    def _ended(self, stream: Any) -> None:
        if stream.check == lzma.CHECK_NONE:
            text = "xz: the stream carries no checksum, so a changed byte may go unseen"
            if text not in self.unchecked:
                self.unchecked.append(text)

    def _failed(self, error: lzma.LZMAError | None) -> None:
        words = str(error)
        if "emory usage limit" in words:
            self._stop(
                "memory",
                f"decompressing needs more than {MEMORY // 2**20} MiB of memory",
                damage=False,
                advice="Check it with 'xz --test', or make the next one with 'xz -9' or less.",
            )
        elif "nsupported" in words:
            self._stop("unsupported", "the stream uses a filter or check that liblzma does not know", damage=False)
        else:
            self._corrupt("the compressed data cannot be decoded")


class Bzip2Decoder(_StreamsDecoder):
    """bzip2: every stream with the checksums of its blocks."""

    name = "bzip2"

    def _new(self) -> Any:
        return bz2.BZ2Decompressor()

    def _starts(self, head: bytes) -> bool:
        return head == b"B"
