# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the backups of a source lie: ``<root>/<source>/<kind>/<UTC timestamp>/``, with ``manifest.json`` written last.

A backup is built under a name that ends in ``.partial`` and renamed when it is whole and on disk. What has no manifest
is no finished backup of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import manifest

PARTIAL = ".partial"

#: Names of sources and kinds: they become directories and units of systemd.
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")

_STAMP = "%Y%m%dT%H%M%SZ"
_VERDICTS = "verdicts.json"
_UNCHANGED = "unchanged.json"


class StoreError(Exception):
    """The backups of a source cannot be read or written; the message says why."""


class Busy(StoreError):
    """Another program works on the backups of the source."""


@dataclass(frozen=True)
class Kept:
    """A finished backup.

    :param path: its directory.
    :param manifest: what was written down when it was made.
    :param verdict: what the last verification said, None before the first.
    :param verified: when that was, in seconds since the epoch.
    :param unchanged: when its source was last found to be as this backup holds it, in seconds since the epoch.
    """

    path: str
    manifest: manifest.Manifest
    verdict: str | None = None
    verified: float | None = None
    unchanged: float | None = None

    @property
    def id(self) -> str:
        """Return what names the backup for ever."""
        return str(self.manifest.id)

    @property
    def size(self) -> int:
        """Return the bytes of its files, as they were written down."""
        listed = self.manifest.listing.size if self.manifest.listing else 0
        return listed + sum(entry.size or 0 for entry in self.manifest.files.values())

    @property
    def current(self) -> float | None:
        """Return up to when it holds what its source held: since it was made, unless the source did not change."""
        known = [moment for moment in (self.manifest.ended, self.unchanged) if moment is not None]
        return max(known, default=None)


class Store:
    """The backups of one source.

    :param root: directory of all sources.
    :param source: name of the source.
    :raises StoreError: when the name is none.
    """

    def __init__(self, root: str, source: str) -> None:
        if not NAME.fullmatch(source):
            raise StoreError(f"'{source}' is no name for a source: use lower-case letters, digits, '-', '_' and '.'")
        self.source = source
        self.root = root
        self.path = os.path.join(root, source)

    def backups(self) -> tuple[list[Kept], list[str]]:
        """Return the finished backups in the order in which they were made, and what is wrong with others."""
        found, troubles, verdicts, unchanged = [], [], self._verdicts(), self.recall(_UNCHANGED)
        for kind in _directories(self.path):
            for name in _directories(os.path.join(self.path, kind)):
                path = os.path.join(self.path, kind, name)
                if name.endswith(PARTIAL):
                    continue
                try:
                    document = manifest.load(os.path.join(path, manifest.NAME))
                except manifest.ManifestError as error:
                    troubles.append(str(error))
                    continue
                entry = verdicts.get(str(document.id), {})
                same = unchanged.get(str(document.id))
                found.append(Kept(path, document, entry.get("verdict"), entry.get("time"), same))
        found.sort(key=lambda kept: (kept.manifest.sequence, kept.path))
        return found, troubles

    @contextlib.contextmanager
    def lock(self, purpose: str, part: str = "") -> Iterator[None]:
        """Hold the source for one program; the lock goes with the process.

        :param purpose: what it is held for, for those who find it taken.
        :param part: what of the source is held, such as its copies in a tier; by default the backups themselves.
        :raises Busy: at once, when another program holds it.
        """
        self._make(self.path)
        try:
            place = os.path.join(self.path, f".lock{part and '-'}{part}")
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot lock {self.path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(descriptor, 500, 0).decode("utf-8", "replace").strip() or "another process"
                raise Busy(f"{self.source} is in use by {owner}; wait until it has ended") from None
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} ({purpose}) since {now}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def clean(self) -> list[str]:
        """Remove what interrupted runs have left, under the lock, and return the paths."""
        gone = []
        for kind in _directories(self.path):
            for name in _directories(os.path.join(self.path, kind)):
                if name.endswith(PARTIAL):
                    gone.append(os.path.join(self.path, kind, name))
                    self.discard(gone[-1])
        return gone

    def begin(self, kind: str, now: float) -> str:
        """Make the directory in which a backup is built, and return it.

        :param now: seconds since the epoch; its UTC time becomes the name.
        :raises StoreError: when it cannot be made.
        """
        stamp = time.strftime(_STAMP, time.gmtime(now))
        place = os.path.join(self.path, kind)
        self._make(place)
        taken = set(_directories(place))
        name, number = stamp, 1
        while {name, name + PARTIAL} & taken:  # two within a second, or a clock that was set back
            number += 1
            name = f"{stamp}-{number}"
        path = os.path.join(place, name + PARTIAL)
        self._make(path)
        return path

    def finish(self, partial: str, document: Mapping[str, Any]) -> Kept:
        """Write the manifest, make everything durable, and give the backup its name.

        :param document: all of the manifest but its schema, id, source and sequence.
        :raises StoreError: when something cannot be written; the backup is not finished then.
        """
        whole = {"id": uuid.uuid4().hex, "source": self.source, "sequence": self._next(), **document}
        final = partial[: -len(PARTIAL)]
        try:
            _sync_file_system(partial)
            files.replace(os.path.join(partial, manifest.NAME), manifest.render(whole), mode=0o600)
            os.rename(partial, final)
            files.sync_directory(os.path.dirname(final))
        except (OSError, files.FileError) as error:
            raise StoreError(f"cannot finish {final}: {error}") from error
        return Kept(final, manifest.load(os.path.join(final, manifest.NAME)))

    def discard(self, path: str) -> None:
        """Remove a backup or what was to become one; it loses its name first, so that half of it is never one.

        :raises StoreError: when it cannot be removed.
        """
        try:
            doomed = path
            if not path.endswith(PARTIAL):
                doomed = path + PARTIAL
                os.rename(path, doomed)
                files.sync_directory(os.path.dirname(path))
            _remove(doomed)
        except OSError as error:
            raise StoreError(f"cannot remove {path}: {error}") from error

    def set_verdict(self, backup: Kept, verdict: str, now: float) -> None:
        """Remember what a verification said; verdicts on backups that are gone are forgotten.

        :raises StoreError: when it cannot be written.
        """
        present = {kept.id for kept in self.backups()[0]}
        verdicts = {id: entry for id, entry in self._verdicts().items() if id in present}
        verdicts[backup.id] = {"verdict": verdict, "time": now}
        self.remember(_VERDICTS, verdicts)

    def set_unchanged(self, backup: Kept, now: float) -> Kept:
        """Remember that the source is still as this backup, the newest one, holds it.

        :raises StoreError: when it cannot be written.
        """
        self.remember(_UNCHANGED, {backup.id: now})
        return dataclasses.replace(backup, unchanged=now)

    def _verdicts(self) -> dict[str, dict[str, Any]]:
        value = self.recall(_VERDICTS)
        return {str(id): entry for id, entry in value.items() if isinstance(entry, dict)}

    def _next(self) -> int:
        """Return the next sequence number; it is kept apart, so that removed backups do not give theirs back."""
        last = [kept.manifest.sequence for kept in self.backups()[0]]
        number = max([*last, int(self.recall("sequence.json").get("last", 0))]) + 1
        self.remember("sequence.json", {"last": number})
        return number

    def recall(self, name: str) -> dict[str, Any]:
        """Return what a state file of the source says; empty when there is none.

        :raises StoreError: when it cannot be used.
        """
        path = os.path.join(self.path, name)
        if not os.path.lexists(path):
            return {}
        try:
            value = json.loads(files.read(path))
        except (ValueError, files.FileError) as error:
            raise StoreError(
                f"cannot use {path}: {error}; remove it if it is damaged, nothing but it is lost"
            ) from None
        return value if isinstance(value, dict) else {}

    def remember(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a state file of the source.

        :raises StoreError: when it cannot be written.
        """
        try:
            content = json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
            path = os.path.join(self.path, name)
            if os.path.islink(path):
                raise StoreError(f"{path} is a link, and would be written to wherever it leads; remove it")
            files.replace(path, content, mode=0o600)
        except files.FileError as error:
            raise StoreError(str(error)) from error

    def _make(self, path: str) -> None:
        try:
            for directory in (self.root, self.path, path):  # each of them private
                os.makedirs(directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {path}: {error.strerror}") from error


def sources(root: str) -> list[str]:
    """Return the names of the sources that have a directory."""
    return [name for name in _directories(root) if NAME.fullmatch(name)]


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _remove(path: str) -> None:
    """Remove a directory, although a program of a killed run may still write into it, or its owner may not."""
    for attempt in range(50):
        try:
            shutil.rmtree(path)
            return
        except FileNotFoundError:
            if not os.path.lexists(path):
                return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EACCES) or attempt == 49:
                raise
            if error.errno == errno.EACCES:  # a directory of a snapshot that its owner may not write to
                for directory, subdirectories, _names in os.walk(path):
                    for name in subdirectories:
                        below = os.path.join(directory, name)
                        if not os.path.islink(below):
                            os.chmod(below, 0o700)
            else:
                time.sleep(0.1)


def _sync_file_system(path: str) -> None:
    """Have everything below a directory on disk; one by one takes too long for the files of a snapshot."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
