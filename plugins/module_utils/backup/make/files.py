# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that users have uploaded: snapshots by rsync, in which what has not changed is a hard link to the one before.

Every snapshot is a whole tree that can be copied back with any tool, and costs the space of what is new in it.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import listing
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import options
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import (
    REQUIRED,
    Engine,
    Made,
    MakeError,
    Work,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Listing
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import (
    Unreadable,
    open_file,
    read_file,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result, tied

#: rsync: some files vanished before they could be copied.
_VANISHED = 24

#: At most this many warnings of a kind name a file.
_NAMED = 20

#: Inodes with several names within the tree whose hashes are remembered.
_REMEMBERED = 100_000

#: Bytes of the list for one file, about.
_LINE = 100

_TRANSFER = re.compile(r"^Total transferred file size: ([\d,]+)", re.MULTILINE)
_NUMBER = re.compile(r"^Number of files: ([\d,]+)", re.MULTILINE)
_GONE = re.compile(r'^file has vanished: "(.*)"$', re.MULTILINE)


@dataclass
class Counted:
    """What a new tree holds.

    :ivar files: regular files.
    :ivar size: their bytes.
    :ivar new_files: those that are no link to the snapshot before.
    :ivar new_size: their bytes.
    :ivar links: symbolic links.
    :ivar special: pipes, sockets and devices.
    :ivar changed: files that were written at their source while they were copied.
    """

    files: int = 0
    size: int = 0
    new_files: int = 0
    new_size: int = 0
    links: int = 0
    special: int = 0
    changed: list[str] = field(default_factory=list)


class Files(Engine):
    """Makes snapshots of directories."""

    name = "files"
    kinds: Mapping[str, str] = {"snapshot": "all files; what has not changed is shared with the snapshot before"}
    OPTIONS: ClassVar[options.Options] = {
        "paths": (options.paths, REQUIRED),
        "exclude": (options.texts, ()),
        "allow_empty": (options.boolean, False),
    }

    def needed(self, work: Work) -> int | None:
        """Return the bytes that rsync would copy, and those of the list."""
        # Without attributes: rsync 3.5 fails to copy those of directories that a dry run has not made.
        said = self._rsync(work, _base(work), ["--dry-run", "--no-acls", "--no-xattrs", "--stats"])
        transfer, number = _TRANSFER.search(said.stdout), _NUMBER.search(said.stdout)
        if transfer is None or number is None:
            return None
        return _figure(transfer[1]) + _LINE * _figure(number[1])

    def make(self, work: Work) -> Made:
        """Copy, hash what is new, and write the list."""
        base = _base(work)
        began = self._rsync(work, base, ["--stats"])
        _keep_log(work, began)
        tree = os.path.join(work.directory, listing.ROOT)
        work.say("hashing what is new")
        counted = _list(tree, os.path.join(work.directory, listing.NAME), base)
        before = base.manifest.listing.files if base and base.manifest.listing else 0
        if before and not counted.files and not self.options["allow_empty"]:
            raise MakeError(
                f"{', '.join(self.options['paths'])} holds no file, but the snapshot before has {before}: is its file "
                "system mounted? Set allow_empty if this is right"
            )
        gone = _GONE.findall(began.stderr)
        warnings = _told(gone, "vanished before it was copied") + _told(
            counted.changed, "was written while it was copied, so the copy may be neither the old nor the new one"
        )
        if began.rc == _VANISHED and not gone:
            warnings.append("rsync says that some files vanished before they were copied; its log names them")
        if counted.special:
            warnings.append(
                f"{counted.special} pipes, sockets or devices are in the tree, which hold no data to back up"
            )
        return Made(
            method="rsync",
            engine={"rsync": _version(work)},
            exits={"rsync": began.rc},
            listing=Listing(listing.NAME, listing.ROOT, counted.files, counted.size),
            warnings=warnings,
            more={
                "base": base.id if base else None,
                "paths": {path: _below_tree(path) for path in self.options["paths"]},
                "new_files": counted.new_files,
                "new_bytes": counted.new_size,
                "links": counted.links,
            },
        )

    def _rsync(self, work: Work, base: Kept | None, more: Sequence[str]) -> Result:
        """Run rsync into the tree.

        :raises MakeError: when it fails, or a source is not there. That files vanish is no failure.
        """
        sources = []
        for path in self.options["paths"]:
            if not os.path.isdir(path):
                raise MakeError(f"{path} is no directory: put the path right, or mount it")
            # A link in the path would be copied as a link, and nothing of what it leads to.
            sources.append(os.path.realpath(path))
        tree = os.path.join(work.directory, listing.ROOT)
        os.makedirs(tree, mode=0o700, exist_ok=True)
        argv = ["rsync", "--archive", "--hard-links", "--acls", "--xattrs", "--numeric-ids", "--relative"]
        # By default it takes two states of a file for the same when they are equally long and of the same second.
        argv.append("--modify-window=-1")
        argv += [f"--exclude={pattern}" for pattern in self.options["exclude"]]
        if base is not None:
            argv.append(f"--link-dest={os.path.join(base.path, listing.ROOT)}")
            if work.last is not base:
                work.say("the last snapshot is not sound: comparing every file by its content")
                argv.append("--checksum")
        said = work.run(tied([*argv, *more, "--", *sources, tree + "/"]), timeout=work.timeout)
        if said.rc not in (0, _VANISHED):
            words = "; ".join(line.strip() for line in said.stderr.splitlines() if line.strip())[-2000:]
            raise MakeError(f"rsync ended with exit code {said.rc}: {words or 'it said nothing'}")
        return said


def _base(work: Work) -> Kept | None:
    """Return the newest snapshot whose list is as it was written, so that hashes can be taken from it."""
    for kept in reversed(work.earlier):
        listed = kept.manifest.listing
        if listed is None or not os.path.isdir(os.path.join(kept.path, listed.root)):
            continue
        entry = kept.manifest.files.get(listed.path)
        try:
            if entry is not None and entry.sha256 == _hash(os.path.join(kept.path, listed.path)):
                return kept
        except MakeError as error:
            work.say(str(error))
    return None


def _below_tree(path: str) -> str:
    """Return where a source is in the backup."""
    return listing.ROOT + os.path.realpath(path)


def _list(tree: str, target: str, base: Kept | None) -> Counted:
    """Write the list of a tree; the hash of what is a link to the snapshot before is taken from its list.

    :raises MakeError: when something cannot be read.
    """
    counted = Counted()
    old_tree, old = "", ""
    if base is not None and base.manifest.listing is not None:
        old_tree = os.path.join(base.path, base.manifest.listing.root)
        old = os.path.join(base.path, base.manifest.listing.path)
    hashes: dict[tuple[int, int], str] = {}

    def unreadable(error: OSError) -> None:
        raise MakeError(f"{error.filename} cannot be read: {error.strerror}") from error

    def items() -> Iterator[listing.Item]:
        beside = listing.Beside(listing.read(old) if old else iter(()))
        for path, status in listing.walk(tree, unreadable):
            if stat.S_ISLNK(status.st_mode):
                counted.links += 1
                yield listing.Item(path, link=os.readlink(os.path.join(tree, path)))
                continue
            if not stat.S_ISREG(status.st_mode):
                counted.special += 1
                continue
            counted.files += 1
            counted.size += status.st_size
            known, _passed = beside.take(path)
            key = (status.st_dev, status.st_ino)
            if known is not None and known.sha256 and _is_same(os.path.join(old_tree, path), status):
                digest = known.sha256
            else:
                counted.new_files += 1
                counted.new_size += status.st_size
                if key in hashes:
                    digest = hashes[key]
                else:
                    digest = _hash(os.path.join(tree, path))
                    if status.st_nlink > 1 and len(hashes) < _REMEMBERED:
                        hashes[key] = digest
                if _was_written("/" + path, status):
                    counted.changed.append("/" + path)
            yield listing.Item(path, status.st_size, digest)

    try:
        with gzip.GzipFile(target, "xb", compresslevel=1, mtime=0) as out:
            for item in items():
                out.write(item.render())
    except listing.ListingError as error:
        raise MakeError(f"{error}; verify the snapshot before, {base.path if base else ''}") from error
    return counted


def _is_same(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), status)
    except OSError:
        return False


def _was_written(source: str, copy: os.stat_result) -> bool:
    """Return whether a file is not any more as it was when rsync looked at it; one that is gone does not count."""
    try:
        now = os.lstat(source)
    except OSError:
        return False
    return (now.st_size, now.st_mtime_ns, stat.S_IFMT(now.st_mode)) != (
        copy.st_size,
        copy.st_mtime_ns,
        stat.S_IFMT(copy.st_mode),
    )


def _hash(path: str) -> str:
    try:
        descriptor = open_file(path)
        try:
            found = read_file(descriptor, lambda blocks, threaded: None, hashed=True, progress=lambda amount: None)
        finally:
            os.close(descriptor)
    except Unreadable as error:
        raise MakeError(f"{printable(path)}: {error}") from error
    return str(found.sha256)


def _told(paths: Sequence[str], what: str) -> list[str]:
    found = [f"{printable(path)} {what}" for path in paths[:_NAMED]]
    if len(paths) > _NAMED:
        found.append(f"{len(paths) - _NAMED} more files: {what}")
    return found


def _keep_log(work: Work, said: Result) -> None:
    with open(os.path.join(work.directory, "log", "rsync.log"), "w", encoding="utf-8", errors="replace") as log:
        log.write(said.stderr + said.stdout)


def _version(work: Work) -> str:
    said = work.run(["rsync", "--version"], timeout=60).stdout
    found = re.search(r"version (\S+)", said)
    return found[1] if found else "unknown"


def _figure(text: str) -> int:
    return int(text.replace(",", ""))
