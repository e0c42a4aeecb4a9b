# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way to replace a file: atomically, with its owner, mode, ACL and extended attributes, and back again.

And the one way to wait for the lock of a file.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping

#: Where copies of replaced files go. Not beside the file: a directory such as conf.d would read them.
BACKUP_ROOT = "/var/backups/worklog-maintenance"


class FileError(Exception):
    """A file that could not be read or replaced; the file itself is as it was."""


def read(path: str) -> bytes:
    """Return the content of a file.

    :raises FileError: when it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error


def replace(path: str, content: bytes, *, expected: bytes | None = None, mode: int = 0o644) -> None:
    """Replace the content of a file in one step: a reader sees the old or the new content, never a part.

    A symbolic link stays, the file it names is replaced. Owner, group, mode, ACL and extended attributes of an
    existing file are kept; a hard link to it keeps the old content.

    :param path: the file, or a link to it.
    :param content: the new content.
    :param expected: what the file is believed to contain now.
    :param mode: permissions of a file that does not exist yet.
    :raises FileError: when it cannot be written, or does not contain what was expected. Nothing is changed then.
    """
    target = os.path.realpath(path)
    directory = os.path.dirname(target)
    temporary = ""
    try:
        before = os.stat(target) if os.path.lexists(target) else None
        if before is not None and not stat.S_ISREG(before.st_mode):
            raise FileError(f"{target} is not a regular file and is left alone")
        if expected is not None and (before is None or read(target) != expected):
            raise FileError(f"{target} was changed by someone else meanwhile; nothing was written, run it again")
        descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(target)}.", suffix=".new", dir=directory)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            if before is None:
                os.fchmod(stream.fileno(), mode)
            else:
                _copy_attributes(target, before, temporary)
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        temporary = ""
        sync_directory(directory)
    except OSError as error:
        raise FileError(f"cannot replace {target}: {error.strerror or error}; it is as it was") from error
    finally:
        if temporary:
            os.unlink(temporary)


def replace_all(changes: Mapping[str, tuple[bytes, bytes]]) -> None:
    """Replace several files, or none: when one fails, those already replaced get their old content back.

    :param changes: for each path what it contains now and what it shall contain.
    :raises FileError: when one cannot be replaced; all are as they were, or the message names those that are not.
    """
    done: list[str] = []
    try:
        for path, (old, new) in changes.items():
            replace(path, new, expected=old)
            done.append(path)
    except FileError:
        restore_all({path: changes[path][0] for path in done})
        raise


def restore_all(contents: Mapping[str, bytes]) -> None:
    """Put back what the files contained, trying all of them.

    :raises FileError: naming every file that could not be put back and why.
    """
    failures = []
    for path, content in contents.items():
        try:
            replace(path, content)
        except FileError as error:
            failures.append(str(error))
    if failures:
        raise FileError("not restored: " + "; ".join(failures))


def differ(source: str, target: str) -> bool:
    """Tell whether a file is not what another one is, in content, owner and mode, or is not there.

    :raises FileError: when one cannot be read.
    """
    try:
        if not os.path.exists(target):
            return True
        one, other = os.stat(source), os.stat(target)
    except OSError as error:
        raise FileError(f"cannot compare {source} and {target}: {error.strerror}") from error
    same = (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
    return not same or read(source) != read(target)


def copy(source: str, target: str) -> None:
    """Copy a file with its owner, mode, ACL and extended attributes in one step; missing directories are private.

    :raises FileError: when it cannot be copied; what was there before is as it was.
    """
    place = os.path.realpath(target)
    temporary = ""
    try:
        _make_private(os.path.dirname(place))
        status = os.stat(source)
        descriptor, temporary = tempfile.mkstemp(
            prefix=f".{os.path.basename(place)}.", suffix=".new", dir=os.path.dirname(place)
        )
        with open(source, "rb") as stream, os.fdopen(descriptor, "wb") as out:
            shutil.copyfileobj(stream, out)
            out.flush()
            _copy_attributes(source, status, temporary)
            os.fsync(out.fileno())
        os.replace(temporary, place)
        temporary = ""
        sync_directory(os.path.dirname(place))
    except OSError as error:
        raise FileError(f"cannot copy {source} to {target}: {error.strerror or error}") from error
    finally:
        if temporary:
            os.unlink(temporary)


def backup(path: str, *, root: str = BACKUP_ROOT, keep: int = 10) -> str:
    """Copy a file with its owner, mode and attributes below ``root``, and return the path of the copy.

    The copy is named by the file's own path and the time in UTC; the newest ``keep`` copies of a file stay.

    :raises FileError: when it cannot be copied.
    """
    source = os.path.realpath(path)
    directory = os.path.join(root, os.path.dirname(source).lstrip(os.sep))
    name = os.path.basename(source)
    now = time.time_ns()  # read once, so that names sort as time goes
    stamp = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now // 10**9))}.{now % 10**9:09d}"
    copy = os.path.join(directory, f"{name}.{stamp}")
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)  # private, whatever is below it
        os.makedirs(directory, mode=0o700, exist_ok=True)
        status = os.stat(source)
        descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(source, "rb") as stream, os.fdopen(descriptor, "wb") as out:
            shutil.copyfileobj(stream, out)
            out.flush()
            _copy_attributes(source, status, copy)
            os.fsync(out.fileno())
        sync_directory(directory)
        copies = sorted(entry for entry in os.listdir(directory) if _is_copy(entry, name))
        for entry in copies[: max(0, len(copies) - keep)]:
            os.unlink(os.path.join(directory, entry))
    except OSError as error:
        raise FileError(f"cannot keep a copy of {source} in {directory}: {error.strerror}") from error
    return copy


def lock(
    descriptor: int,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Lock an open file or directory until it is closed; return False when another process has it for too long.

    :param timeout: seconds to wait.
    """
    deadline = clock() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if clock() >= deadline:
                return False
            sleep(0.05)


def sync_directory(path: str) -> None:
    """Make a rename in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def switch_link(link: str, target: str) -> None:
    """Have a symbolic link point elsewhere in one step, durably: a reader sees the old or the new one, never none.

    :raises OSError: when it cannot; the old one is there then.
    """
    directory = os.path.dirname(os.path.abspath(link))
    temporary = os.path.join(directory, f".{os.path.basename(link)}.{os.getpid()}.new")
    os.symlink(target, temporary)
    try:
        os.replace(temporary, link)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(directory)


def _make_private(directory: str) -> None:
    """Make a directory, and those above it that are missing, for nobody else; makedirs gives its mode to the last."""
    if not os.path.isdir(directory):
        _make_private(os.path.dirname(directory))
        os.mkdir(directory, 0o700)


def _copy_attributes(source: str, status: os.stat_result, target: str) -> None:
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)  # mode, ACL and extended attributes (both are xattrs on Linux)
    os.utime(target)


def _is_copy(entry: str, name: str) -> bool:
    stamp = entry[len(name) + 1 :].split(".")
    return entry.startswith(name + ".") and len(stamp) == 2 and stamp[0][8:9] == "T" and stamp[1].isdigit()
