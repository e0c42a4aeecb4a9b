# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives and streams for the tests, made in memory, and the ways in which they break."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterator

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.decoders import Decoder
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Walker


def text(size: int, seed: int = 1) -> bytes:
    """Return something that compresses as logs do."""
    source = random.Random(seed)
    lines = []
    length = 0
    while length < size:
        lines.append(
            b"2026-01-%02d user=%d %x\n" % (source.randrange(1, 29), source.randrange(99), source.getrandbits(64))
        )
        length += len(lines[-1])
    return b"".join(lines)[:size]


def tar(members: int = 12, format: int = tarfile.GNU_FORMAT, seed: int = 1) -> bytes:
    """Return an archive with files of many sizes, a directory, links and a long name."""
    source = random.Random(seed)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        directory = tarfile.TarInfo("uploads")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for index in range(members):
            size = source.choice((0, 1, 511, 512, 513, 5000, 20000))
            name = f"uploads/{'long/' * 30 if index == 3 and format != tarfile.USTAR_FORMAT else ''}file-{index}"
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(text(size, index)))
        for kind, name, target in ((tarfile.SYMTYPE, "soft", "file-1"), (tarfile.LNKTYPE, "hard", "uploads/file-1")):
            link = tarfile.TarInfo(f"uploads/{name}")
            link.type, link.linkname = kind, target
            archive.addfile(link)
    return out.getvalue()


def header(name: bytes, size: int = 0, kind: bytes = b"0", link: bytes = b"", magic: bytes = b"ustar\x0000") -> bytes:
    """Return one tar header, right in its checksum whatever it says."""
    block = bytearray(512)
    block[: len(name[:100])] = name[:100]
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(link[:100])] = link[:100]
    block[257:265] = magic
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """Return a payload as it stands in an archive."""
    return data + bytes(-len(data) % 512)


END = bytes(1024)


def program(argv: list[str], data: bytes) -> bytes:
    """Return what a program makes of the data."""
    return subprocess.run(argv, input=data, stdout=subprocess.PIPE, check=True, timeout=60).stdout


def zstd_raw(data: bytes, checksum: bool = True) -> bytes:
    """Return a zstd stream, made by the program."""
    return program(["zstd", "-q", "-c", "-3", "--check" if checksum else "--no-check"], data)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 6, mtime=0),
    "xz": lambda data: lzma.compress(data, preset=1),
    "bzip2": lambda data: bz2.compress(data, 1),
    "zstd": zstd_raw,
}

#: Bytes at the beginning (times, operating system, window size) and the end (filling bits) that carry no data and
#: that no checksum of the format covers.
UNCOVERED = {"gzip": (10, 0), "xz": (0, 0), "bzip2": (4, 1), "zstd": (6, 0)}


def pieces(data: bytes, sizes: Callable[[], int]) -> Iterator[bytes]:
    """Cut data into pieces."""
    position = 0
    while position < len(data):
        size = max(1, sizes())
        yield data[position : position + size]
        position += size


def decode(decoder: Decoder, data: bytes, sizes: Callable[[], int] = lambda: 1 << 20) -> bytes:
    """Return what a decoder makes of a stream."""
    out = []
    for piece in pieces(data, sizes):
        out.extend(decoder.decode(piece))
    out.extend(decoder.finish())
    return b"".join(out)


def walk(walker: Walker, data: bytes, sizes: Callable[[], int] = lambda: 1 << 20) -> Walker:
    """Have a walker follow a stream."""
    for piece in pieces(data, sizes):
        walker.feed(piece)
    walker.close()
    return walker


def flip(data: bytes, source: random.Random, skip: tuple[int, int] = (0, 0)) -> bytes:
    """Return the data with one bit changed."""
    changed = bytearray(data)
    changed[source.randrange(skip[0], len(data) - skip[1])] ^= 1 << source.randrange(8)
    return bytes(changed)


def zeroed(data: bytes, source: random.Random, size: int = 512) -> bytes:
    """Return the data with a block lost, and surely different."""
    while True:
        start = source.randrange(max(1, len(data) - size))
        changed = data[:start] + bytes(len(data[start : start + size])) + data[start + size :]
        if changed != data:
            return changed


def cut(data: bytes, source: random.Random) -> bytes:
    """Return the data without its end."""
    return data[: source.randrange(1, len(data))]
