# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd frames (RFC 8878): their structure is read here, block by block; a library or the zstd program decodes them.

So truncation, trailing bytes, memory needs and missing checksums are judged the same whatever decodes the blocks.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

from ansible_collections.worklog.maintenance.plugins.module_utils import command
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

#: Blocks decoded at a time: each yields at most 128 KiB.
_BLOCKS = 8

#: Linux: set the size of a pipe (fcntl(2); Python knows the name since 3.10).
_F_SETPIPE_SZ = 1031

#: Bytes read from the program at a time: memory for more is given back to the system each time, and asked for again.
_READ = 1 << 18

#: Seconds without any progress after which the zstd program is given up.
_STALL = 300.0


class DecodeError(Exception):
    """The blocks cannot be decoded, or their checksum is wrong."""


class Unavailable(Exception):
    """What decodes the blocks stopped for a reason that says nothing about them."""


class Backend:
    """What decodes frames whose structure is known to be right."""

    def start(self, window: int) -> None:
        """A frame begins."""

    def blocks(self, data: memoryview) -> Iterator[bytes]:
        """Decode complete blocks of the current frame; the first ones come with the frame's header."""
        raise NotImplementedError

    def end(self) -> Iterator[bytes]:
        """No frame follows."""
        return iter(())

    def stop(self) -> None:
        """The result is no longer wanted."""


class _ZstandardBackend(Backend):
    """The zstandard package."""

    def start(self, window: int) -> None:
        self._decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj(write_size=PIECE + 1)

    def blocks(self, data: memoryview) -> Iterator[bytes]:
        try:
            yield self._decoder.decompress(data)
        except zstandard.ZstdError as error:
            raise DecodeError from error


class _StdlibBackend(Backend):
    """compression.zstd of Python 3.14."""

    def start(self, window: int) -> None:
        self._decoder = stdlib_zstd.ZstdDecompressor(
            options={stdlib_zstd.DecompressionParameter.window_log_max: (MAX_WINDOW - 1).bit_length()}
        )

    def blocks(self, data: memoryview) -> Iterator[bytes]:
        try:
            yield self._decoder.decompress(data, PIECE + 1)
            while not self._decoder.eof and not self._decoder.needs_input:
                yield self._decoder.decompress(b"", PIECE)
        except stdlib_zstd.ZstdError as error:
            raise DecodeError from error


class _ProgramBackend(Backend):
    """The zstd program, fed through its standard input."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, window: int) -> None:
        if self._process is None:
            try:
                self._process = subprocess.Popen(
                    [self._program, "-d", "-c", "-q", "--memory=64MB"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "LC_ALL": "C"},
                )
            except OSError as error:
                raise Unavailable(f"{self._program} could not be started: {error.strerror}") from error
            for stream in (self._process.stdin, self._process.stdout):
                descriptor = _pipe(stream).fileno()
                os.set_blocking(descriptor, False)
                try:
                    fcntl.fcntl(descriptor, _F_SETPIPE_SZ, PIECE)
                except OSError:
                    pass  # only slower

    def blocks(self, data: memoryview) -> Iterator[bytes]:
        return self._exchange(data, close=False)

    def end(self) -> Iterator[bytes]:
        if self._process is None:
            return
        yield from self._exchange(memoryview(b""), close=True)
        try:
            status = self._process.wait(_STALL)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{self._program} did not end within {_STALL:g} s") from None
        _pipe(self._process.stdout).close()
        self._process = None
        if status:
            raise DecodeError

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                try:
                    _pipe(stream).close()
                except OSError:
                    pass
            self._process = None

    def _exchange(self, view: memoryview, close: bool) -> Iterator[bytes]:
        """Write all data and yield what comes back meanwhile; with ``close`` until the program closes its output."""
        if self._process is None:
            return
        source, sink = _pipe(self._process.stdin), _pipe(self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(sink, selectors.EVENT_READ)
            if view:
                selector.register(source, selectors.EVENT_WRITE)
            elif close:
                source.close()
            while view or close:
                events = selector.select(_STALL)
                if not events:
                    raise Unavailable(f"{self._program} made no progress for {_STALL:g} s")
                for key, _mask in events:
                    if key.fileobj is sink:
                        piece = os.read(sink.fileno(), _READ)
                        if piece:
                            yield piece
                        elif close:
                            return
                        else:
                            raise DecodeError  # it ended before its input did
                    else:
                        try:
                            view = view[os.write(source.fileno(), view) :]
                        except BrokenPipeError:
                            raise DecodeError from None


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:  # it was asked for
        raise Unavailable("it has no pipe")
    return stream


def find_backend() -> Backend | None:
    """Return the fastest way to decode that this host has."""
    if stdlib_zstd is not None:
        return _StdlibBackend()
    if zstandard is not None and hasattr(zstandard, "ZstdDecompressor"):
        return _ZstandardBackend()
    program = command.which("zstd")
    return _ProgramBackend(program) if program else None


class ZstdDecoder(Decoder):
    """All frames of a zstd stream.

    :param backend: what decodes the blocks; by default the fastest that is installed. Without one the structure is
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
        self._foreign_at: int | None = None
        self._checksum = False
        self._block_size = 0
        if self._backend is None:
            self.problems.append(
                Problem(
                    "zstd.unavailable",
                    "nothing on this host can decompress zstd, so only its frames were checked, not what they hold",
                    damage=False,
                    advice="Install the package zstd (or python3-zstandard) on this host.",
                )
            )

    def _inside(self) -> bool:
        return self._open or bool(self._held) or not self.members

    def _decode(self, data: bytes) -> Iterator[bytes]:
        if self._held:
            data, self._held = self._held + data, b""
        view = memoryview(data)
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
                yield from self._flush(view[self._start : position])
                self._start = position
        yield from self._flush(view[self._start : position])
        self._held = data[position:]
        if self._foreign_at is not None and not self.stopped:
            # A program may only now tell that a block before is damaged.
            if self._backend is not None:
                yield from self._guarded(self._backend.end())
            if not self.stopped:
                self._garbage(self._foreign_at)

    def _finish(self) -> Iterator[bytes]:
        if self._backend is None:
            return
        if self._inside():
            self._backend.stop()
            return
        yield from self._guarded(self._backend.end())

    def _flush(self, pending: memoryview) -> Iterator[bytes]:
        """Have the pending blocks decoded."""
        waiting, self._waiting = self._waiting, 0
        if self._backend is not None and waiting and not self.stopped:
            yield from self._guarded(self._backend.blocks(pending))

    def _guarded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            for piece in pieces:
                if piece:
                    self._produced += len(piece)
                    yield piece
        except DecodeError:
            self._corrupt("its blocks cannot be decoded, or their checksum is wrong")
        except Unavailable as error:
            self._stop("unavailable", f"the frames could not be decompressed: {error}", damage=False)

    def _stop(self, check: str, message: str, damage: bool = True, advice: str | None = None) -> None:
        super()._stop(check, message, damage, advice)
        if self._backend is not None:
            self._backend.stop()

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
            try:
                self._backend.start(window)
            except Unavailable as error:
                self._stop("unavailable", f"the frames could not be decompressed: {error}", damage=False)
        self._start = position
        self._waiting = 1
        self._next = self._block
        return position + end

    def _foreign(self, data: bytes, position: int) -> int:
        if self.members:
            self._foreign_at = self._consumed + position
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
