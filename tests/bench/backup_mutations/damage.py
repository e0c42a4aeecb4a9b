# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How streams break: each function returns the data with one damage, or None where there is nothing to damage."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import random
import re
import struct
import subprocess
import tarfile
from collections.abc import Callable

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.crc64 import XZ, Crc64

#: What is cut off is more than what stands behind the data: a closing line, zero bytes.
_BEHIND = 64

_INSERT = re.compile(rb"^INSERT INTO `([^`]+)` .*?;\n", re.MULTILINE | re.DOTALL)
_SYSTEM = re.compile(rb"^USE `mysql`;.*?(?=^USE `|\Z)", re.MULTILINE | re.DOTALL)
_CLOSING = re.compile(rb"^/\*!40103 SET TIME_ZONE=@OLD_TIME_ZONE \*/;", re.MULTILINE)
_NEXT_BLOCK = b"\xff\xff\xff\xff"


def _zstd(flags: list[str], data: bytes) -> bytes:
    argv = ["zstd", "--quiet", "--stdout", *flags]
    return subprocess.run(argv, input=data, stdout=subprocess.PIPE, check=True, timeout=60).stdout


#: Compression and its opposite, by the ending of a name.
CODECS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".gz": (functools.partial(gzip.compress, mtime=0), gzip.decompress),
    ".zst": (functools.partial(_zstd, []), functools.partial(_zstd, ["--decompress"])),
    ".xz": (lzma.compress, lzma.decompress),
    ".bz2": (bz2.compress, bz2.decompress),
}


def ending(name: str) -> str:
    """Return the ending of a name that tells its compression, empty when it tells none."""
    return next((suffix for suffix in CODECS if name.endswith(suffix)), "")


def expand(name: str, data: bytes) -> bytes:
    """Return what is inside."""
    return CODECS[ending(name)][1](data) if ending(name) else data


def compress(name: str, data: bytes) -> bytes:
    """Return it as it was."""
    return CODECS[ending(name)][0](data) if ending(name) else data


# --- any bytes --------------------------------------------------------------------------------------------------------


def flip(data: bytes, source: random.Random) -> bytes | None:
    """One bit is another."""
    if not data:
        return None
    changed = bytearray(data)
    changed[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return bytes(changed)


def cut(data: bytes, source: random.Random) -> bytes | None:
    """The end is not there."""
    return data[: source.randrange(len(data))] if data else None


def zeroed(data: bytes, source: random.Random) -> bytes | None:
    """A block of the file system reads as zeros."""
    begin = source.randrange(max(1, len(data) // 4096 + 1)) * 4096
    changed = data[:begin] + bytes(len(data[begin : begin + 4096])) + data[begin + 4096 :]
    return changed if changed != data else None


def garbage(data: bytes, source: random.Random) -> bytes | None:
    """Something stands behind the end."""
    return data + source.randbytes(source.randrange(1, 65))


def killed(data: bytes, source: random.Random) -> bytes | None:
    """The program that wrote it ended in the middle; what was written until then was kept in due form."""
    end = len(data.rstrip(b"\0\n")) - _BEHIND
    return data[: source.randrange(end)] if end > 0 else None


# --- archives ---------------------------------------------------------------------------------------------------------


def without_member(data: bytes, source: random.Random) -> bytes | None:
    """One file of a tar archive is not there."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        members = old.getmembers()
        files = [member.name for member in members if member.isreg()]
        if len(files) < 2:
            return None
        gone = source.choice(files)
        for member in members:
            if member.name != gone:
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    return out.getvalue()


# --- dumps of SQL -----------------------------------------------------------------------------------------------------


def between_statements(data: bytes, source: random.Random) -> bytes | None:
    """Everything between two statements and the closing lines is not there, rows among it."""
    closing = _CLOSING.search(data)
    rows = list(_INSERT.finditer(data))
    if closing is None or not rows:
        return None
    first = source.choice(rows)
    return data[: first.start()] + data[closing.start() :]


def table_empty(data: bytes, source: random.Random) -> bytes | None:
    """All rows of one table are not there; none of the server's own, whose rows no manifest tells."""
    system = b"".join(_SYSTEM.findall(data))
    tables = sorted({found[1] for found in _INSERT.finditer(data)} - {found[1] for found in _INSERT.finditer(system)})
    if not tables:
        return None
    gone = source.choice(tables)
    return _INSERT.sub(lambda found: b"" if found[1] == gone else found[0], data)


# --- documents --------------------------------------------------------------------------------------------------------


def documents(data: bytes) -> list[bytes]:
    """Return the documents of BSON."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at : at + size])
        at += size
    return found


def between_documents(data: bytes, source: random.Random) -> bytes | None:
    """The last documents are not there."""
    found = documents(data)
    return b"".join(found[: source.randrange(len(found))]) if found else None


def _blocks(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the head of an archive of mongodump, and the head and the documents of each block."""
    at = 4
    while data[at : at + 4] != _NEXT_BLOCK:
        at += int.from_bytes(data[at : at + 4], "little")
    at += 4
    head, blocks = data[:at], []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        begin = at + size
        end = begin
        while data[end : end + 4] != _NEXT_BLOCK:
            end += int.from_bytes(data[end : end + 4], "little")
        blocks.append((data[at:begin], data[begin:end]))
        at = end + 4
    return head, blocks


def _archive(data: bytes, source: random.Random, change: Callable[[bytes], bytes | None]) -> bytes | None:
    """Have the documents of one collection changed, with the checksum that mongodump would then have written."""
    head, blocks = _blocks(data)
    names = sorted({block[0][: block[0].index(b"\x08EOF\0")][4:] for block in blocks if block[1]})
    name = source.choice(names)
    body = change(b"".join(block[1] for block in blocks if block[0][4:].startswith(name)))
    if body is None:
        return None
    checksum = Crc64(XZ)
    checksum.update(body)
    out = [head]
    for block, content in blocks:
        if not block[4:].startswith(name):
            out.append(block + content + _NEXT_BLOCK)
        elif content and body:
            out.append(block + body + _NEXT_BLOCK)
            body = b""
        elif not content:
            at = block.index(b"\x12CRC\0") + 5
            out.append(block[:at] + struct.pack("<Q", checksum.value()) + block[at + 8 :] + _NEXT_BLOCK)
    return b"".join(out)


def archive_between_documents(data: bytes, source: random.Random) -> bytes | None:
    """The last documents of one collection are not there."""
    return _archive(data, source, lambda body: between_documents(body, source))


def archive_collection_empty(data: bytes, source: random.Random) -> bytes | None:
    """All documents of one collection are not there."""
    return _archive(data, source, lambda body: b"" if body else None)


# --- binary logs ------------------------------------------------------------------------------------------------------


def between_events(data: bytes, source: random.Random) -> bytes | None:
    """The last events are not there."""
    ends, at = [], 4
    while at + 19 <= len(data):
        at += int.from_bytes(data[at + 9 : at + 13], "little")
        ends.append(at)
    return data[: source.choice(ends[:-1])] if len(ends) > 1 else None
