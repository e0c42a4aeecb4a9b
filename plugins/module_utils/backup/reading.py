# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read one file once: a thread reads and hashes, a thread decompresses, this one follows the format."""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds after which a thread that has decompressed a piece may take its turn from the one that follows a format. With
#: Python's 5 ms they work one after the other: a dump takes 1.4 times as long.
_SWITCH = 0.00005

#: Bytes read at a time.
BLOCK = 1024 * 1024

#: Files smaller than this are read without threads.
SMALL = 8 * BLOCK


class Unreadable(Exception):
    """A file that could not be read.

    :param damage: true: the disk has lost it; false: it cannot be told.
    """

    def __init__(self, message: str, damage: bool = False) -> None:
        super().__init__(message)
        self.damage = damage


@dataclass
class Reading:
    """What reading a file told about it.

    :param size: bytes read.
    :param sha256: of these bytes, None when it was not asked for.
    :param changed: how the file changed meanwhile, None when it did not.
    """

    size: int = 0
    sha256: str | None = None
    changed: str | None = None


def open_file(path: str, dir_fd: int | None = None) -> int:
    """Open a regular file for reading, leaving its access time alone where that is allowed.

    A symbolic link in the last component is refused, and a pipe or a device is never waited for.

    :raises Unreadable: when it cannot be opened or is not a regular file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        try:
            descriptor = os.open(path, flags | getattr(os, "O_NOATIME", 0), dir_fd=dir_fd)
        except PermissionError:
            descriptor = os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        raise Unreadable(f"it cannot be opened: {error.strerror}", error.errno == errno.EIO) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable("it is not a regular file")
    return descriptor


def read_file(
    descriptor: int,
    consume: Callable[[Iterator[bytes], bool], None],
    *,
    hashed: bool,
    progress: Callable[[int], None],
) -> Reading:
    """Read a file to its end and have its blocks consumed meanwhile.

    :param consume: takes the blocks, and whether the file is large enough for threads; it need not take them all.
    :param hashed: whether the SHA-256 is wanted.
    :param progress: is told how many bytes came in.
    :raises Unreadable: when a read fails.
    """
    result = Reading()
    before = os.fstat(descriptor)
    digest: Any = hashlib.sha256() if hashed else None

    def blocks() -> Iterator[bytes]:
        while True:
            try:
                block = os.read(descriptor, BLOCK)
            except OSError as error:
                raise Unreadable(
                    f"it cannot be read at byte {result.size}: {error.strerror}", error.errno == errno.EIO
                ) from error
            if not block:
                return
            result.size += len(block)
            if digest is not None:
                digest.update(block)
            progress(len(block))
            yield block

    threaded = before.st_size >= SMALL
    source = ahead(blocks(), 4) if threaded else blocks()
    interval = sys.getswitchinterval()
    if threaded:
        sys.setswitchinterval(_SWITCH)
    try:
        consume(source, threaded)
        for _block in source:
            pass
    finally:
        sys.setswitchinterval(interval)
    after = os.fstat(descriptor)
    for what, old, new in (
        ("size", before.st_size, after.st_size),
        ("modification time", before.st_mtime_ns, after.st_mtime_ns),
        ("inode change time", before.st_ctime_ns, after.st_ctime_ns),
    ):
        # A new link to the inode or a new mode changes nothing in it.
        if old != new and not (what.startswith("inode") and before.st_nlink != after.st_nlink):
            result.changed = f"its {what} changed"
            break
    else:
        if result.size != after.st_size:
            result.changed = f"{result.size} of {after.st_size} bytes could be read"
    if digest is not None:
        result.sha256 = digest.hexdigest()
    return result


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """Yield the items of an iterator that runs ahead in a thread, at most ``depth`` items."""
    channel: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> bool:
        while not stop.is_set():
            try:
                channel.put(entry, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
        except BaseException as error:
            put((None, error, True))
        else:
            put((None, None, True))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = channel.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]  # None only with last
    finally:
        stop.set()
        thread.join()
