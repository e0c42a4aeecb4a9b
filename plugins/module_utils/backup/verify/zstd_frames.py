# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd frames (RFC 8878): their structure is read here, block by block; a library decodes them.

So truncation, trailing bytes, memory needs and missing checksums are judged the same whatever decodes the blocks.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Iterator
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.decoders import PIECE, Decoder
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

try:
    import zstandard
except ImportError:
    zstandard = None  # type: ignore[assignment,unused-ignore]

if sys.version_info >= (3, 14):
    from compression import zstd as stdlib_zstd
else:
    stdlib_zstd: Any = None

MAGIC = b"\x28\xb5\x2f\xfd"

#: Largest window that is decoded, in bytes.
MAX_WINDOW = 64 * 1024 * 1024

#: Blocks decoded at a time: each yields at most 128 KiB, so all of them fit into a piece.
_BLOCKS = PIECE // (128 * 1024)

#: Of ZSTD_dParameter.
_WINDOW_LOG_MAX = 100


class DecodeError(Exception):
    """The blocks cannot be decoded, or their checksum is wrong."""


class Backend:
    """What decodes frames whose structure is known to be right."""

    def start(self) -> None:
        """A frame begins."""

    def blocks(self, data: bytes, start: int, end: int) -> Iterator[bytes]:
        """Decode a part of the data: whole blocks of the current frame, the first ones with the frame's header."""
        raise NotImplementedError


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = (("start", ctypes.c_char_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


def find_library() -> Any:
    """Return libzstd, which dpkg, rpm and systemd bring along, or None. Version 1.4 has all that is used."""
    try:
        library = ctypes.CDLL("libzstd.so.1")
        library.ZSTD_createDCtx.restype = ctypes.c_void_p
        library.ZSTD_freeDCtx.argtypes = [ctypes.c_void_p]
        library.ZSTD_DCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(_Buffer)] * 2]
        library.ZSTD_decompressStream.restype = ctypes.c_size_t
        library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError):
        return None
    return library


class _LibraryBackend(Backend):
    """libzstd itself. After a frame it is ready for the next one."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._context = library.ZSTD_createDCtx()
        if not self._context:
            raise MemoryError("libzstd has no memory")
        weakref.finalize(self, library.ZSTD_freeDCtx, self._context)
        library.ZSTD_DCtx_setParameter(self._context, _WINDOW_LOG_MAX, (MAX_WINDOW - 1).bit_length())
        self._space = ctypes.create_string_buffer(PIECE)

    def blocks(self, data: bytes, start: int, end: int) -> Iterator[bytes]:
        source = _Buffer(data, end, start)
        while source.position < end:
            target = _Buffer(ctypes.addressof(self._space), PIECE, 0)
            state = self._library.ZSTD_decompressStream(self._context, ctypes.byref(target), ctypes.byref(source))
            if self._library.ZSTD_isError(state):
                raise DecodeError
            yield ctypes.string_at(self._space, target.position)


class _ZstandardBackend(Backend):
    """The zstandard package."""

    def start(self) -> None:
        self._decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj(write_size=PIECE + 1)

    def blocks(self, data: bytes, start: int, end: int) -> Iterator[bytes]:
        try:
            yield self._decoder.decompress(memoryview(data)[start:end])
        except zstandard.ZstdError as error:
            raise DecodeError from error


class _StdlibBackend(Backend):
    """compression.zstd of Python 3.14."""

    def start(self) -> None:
        self._decoder = stdlib_zstd.ZstdDecompressor(
            options={stdlib_zstd.DecompressionParameter.window_log_max: (MAX_WINDOW - 1).bit_length()}
        )

    def blocks(self, data: bytes, start: int, end: int) -> Iterator[bytes]:
        try:
            yield self._decoder.decompress(memoryview(data)[start:end], PIECE + 1)
            while not self._decoder.eof and not self._decoder.needs_input:
                yield self._decoder.decompress(b"", PIECE)
        except stdlib_zstd.ZstdError as error:
            raise DecodeError from error


def find_backend() -> Backend | None:
    """Return a way to decode that this host has; they are equally fast."""
    library = find_library()
    if library is not None:
        return _LibraryBackend(library)
    if stdlib_zstd is not None:
        return _StdlibBackend()
    if zstandard is not None and hasattr(zstandard, "ZstdDecompressor"):
        return _ZstandardBackend()
    return None


class ZstdDecoder(Decoder):
    """All frames of a zstd stream.

    :param backend: what decodes the blocks; by default one that this host has. Without one the structure is
        checked all the same, and the verdict is inconclusive.
    """

    name = "zstd"

    def __init__(self, backend: Backend | None = None) -> None:
        super().__init__()
        self._backend = backend or find_backend()
        self._next = self._frame
        self._held = b""
        self._open = False
        #: From where in the present piece blocks wait to be decoded, and how many (with the header of the frame).
        self._start = 0
        self._waiting = 0
        self._skip = 0
        self._checksum = False
        self._block_size = 0
        if self._backend is None:
            self.problems.append(
                Problem(
                    "zstd.unavailable",
                    "nothing on this host can decompress zstd, so only its frames were checked, not what they hold",
                    damage=False,
                    advice="Install the package libzstd1 (or python3-zstandard) on this host.",
                )
            )

    def _inside(self) -> bool:
        return self._open or bool(self._held) or not self.members

    def _decode(self, data: bytes) -> Iterator[bytes]:
        if self._held:
            data, self._held = self._held + data, b""
        position = self._start = 0
        while position < len(data) and not self.stopped:
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                if not self._skip:
                    self._end_frame()
                continue
            advanced = self._next(data, position)
            if advanced < 0:
                break
            position = advanced
            if not self._open or self._waiting >= _BLOCKS:
                yield from self._flush(data, position)
                self._start = position
        yield from self._flush(data, position)
        self._held = data[position:]

    def _flush(self, data: bytes, end: int) -> Iterator[bytes]:
        """Have the pending blocks decoded."""
        waiting, self._waiting = self._waiting, 0
        if self._backend is not None and waiting and not self.stopped:
            try:
                for piece in self._backend.blocks(data, self._start, end):
                    if piece:
                        self._produced += len(piece)
                        yield piece
            except DecodeError:
                self._corrupt("its blocks cannot be decoded, or their checksum is wrong")

    def _frame(self, data: bytes, position: int) -> int:
        head = data[position : position + 18]
        if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:  # skippable
            if len(head) < 8:
                return -1
            self._open = True
            self._skip = int.from_bytes(head[4:8], "little")
            if not self._skip:
                self._end_frame()
            return position + 8
        if len(head) < 5:
            return self._foreign(data, position) if not MAGIC.startswith(head[:4]) and head[0] & 0xF0 != 0x50 else -1
        if head[:4] != MAGIC:
            return self._foreign(data, position)
        flags = head[4]
        single = flags & 0x20
        sizes = (0 if single else 1, (0, 1, 2, 4)[flags & 3], (1 if single else 0, 2, 4, 8)[flags >> 6])
        end = 5 + sum(sizes)
        if len(head) < end:
            return -1
        if flags & 8:
            self._corrupt("its header has a reserved bit set")
            return len(data)
        if any(head[5 + sizes[0] : 5 + sizes[0] + sizes[1]]):
            self._stop("dictionary", "a dictionary is needed to decompress it", damage=False)
            return len(data)
        if single:
            window = int.from_bytes(head[end - sizes[2] : end], "little") + (256 if sizes[2] == 2 else 0)
        else:
            window = (1 << (10 + (head[5] >> 3))) // 8 * (8 + (head[5] & 7))
        if window > MAX_WINDOW:
            self._stop(
                "memory",
                f"decompressing needs a window of {window / 2**20:.0f} MiB, and at most {MAX_WINDOW // 2**20} are used",
                damage=False,
                advice="Check it with 'zstd --test --long=31', or make the next one without --long and --ultra.",
            )
            return len(data)
        self._open = True
        self._block_size = min(window, 128 * 1024)
        self._checksum = bool(flags & 4)
        if not self._checksum:
            text = "zstd: the stream carries no content checksum, so a changed byte may go unseen"
            if text not in self.unchecked:
                self.unchecked.append(text)
        if self._backend is not None:
            self._backend.start()
        self._start = position
        self._waiting = 1
        self._next = self._block
        return position + end

    def _foreign(self, data: bytes, position: int) -> int:
        if self.members:
            self._garbage(self._consumed + position)
        else:
            self._corrupt("there is no zstd frame")
        return len(data)

    def _block(self, data: bytes, position: int) -> int:
        if len(data) < position + 3:
            return -1
        header = int.from_bytes(data[position : position + 3], "little")
        kind, size = header >> 1 & 3, header >> 3
        if kind == 3 or size > self._block_size:
            self._corrupt("a block has an impossible header")
            return len(data)
        end = position + 3 + (1 if kind == 1 else size)
        last = header & 1
        if last and self._checksum:
            end += 4
        if len(data) < end:
            return -1
        self._waiting += 1
        if last:
            self._end_frame()
        return end

    def _end_frame(self) -> None:
        self.members += 1
        self._open = False
        self._next = self._frame
