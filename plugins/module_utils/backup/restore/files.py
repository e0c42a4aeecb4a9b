# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore files: snapshots of directories, and archives of secrets and logs. A hostile archive writes nowhere else."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from typing import IO

from ansible_collections.worklog.maintenance.plugins.module_utils.archive import ArchiveError, extract
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.pipeline import last_words
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import Plan
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import (
    Examined,
    RestoreError,
    Restorer,
    Session,
    Work,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.unpack import (
    decompressor,
    plain_name,
    verify,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from ansible_collections.worklog.maintenance.plugins.module_utils.command import tied, which
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

LISTING = "tree.jsonl"
ARCHIVES = ("files.tar", "logs.tar")
ENCRYPTED = ".age"

_BLOCK = 1 << 20


class Files(Restorer):
    """Restores snapshots of directories.

    Options: ``directory``, the one of them that is wanted; by default all below each other.
    """

    name = "files"

    def prepare(self, plan: Plan, work: Work) -> str:
        """Copy the tree."""
        kept, data = plan.base.last, os.path.join(work.directory, "data")
        listed = kept.manifest.document.get("listing") or {}
        verify(kept, [str(listed.get("path"))], work)
        tree = str(listed.get("root"))
        below = self._below(kept.manifest.document.get("paths") or {}, tree)
        os.mkdir(data, 0o700)
        argv = ["rsync", "--archive", "--hard-links", "--acls", "--xattrs", "--numeric-ids", "--"]
        with work.parts.part("copy"):
            done = work.run(tied([*argv, _directory(kept, below) + "/", data + "/"]), timeout=work.timeout)
        if not done.ok:
            raise RestoreError(f"{kept.path} could not be copied: {done.describe()}")
        return data

    def examine(self, plan: Plan, work: Work, session: Session) -> Examined:
        """Read every file that was copied, and hold it against the list."""
        kept, data = plan.base.last, os.path.join(work.directory, "data")
        result, number = Examined(), 0
        listed = kept.manifest.document.get("listing") or {}
        tree = str(listed.get("root"))
        below = os.path.relpath(self._below(kept.manifest.document.get("paths") or {}, tree), tree)
        with work.parts.part("examine"), gzip.open(os.path.join(kept.path, str(listed.get("path")))) as stream:
            for line in stream:
                item = json.loads(line)
                path = os.path.normpath(item["path"])
                if below != "." and not path.startswith(below + os.sep):
                    continue
                place = os.path.join(data, path if below == "." else os.path.relpath(path, below))
                number += 1
                trouble = _differs(place, item)
                if trouble:
                    result.findings.append(Finding("restore.files", place, "critical", f"{path} {trouble}"))
        result.counts = {"files": {"files": number}}
        result.compared.append(f"the content of {number} files")
        return result

    def _below(self, paths: dict[str, str], tree: str) -> str:
        """Return what of the tree is wanted."""
        wanted = self.options.get("directory")
        if not wanted:
            return tree
        for path, place in paths.items():
            if os.path.realpath(path) == os.path.realpath(str(wanted)):
                return place
        raise RestoreError(f"{wanted} is not what was backed up; that was {', '.join(paths)}")


class Archive(Restorer):
    """Restores archives of secrets and of logs.

    Options: ``identity``, a file with the identity of age that decrypts.
    """

    name = "archive"
    swaps = False

    def prepare(self, plan: Plan, work: Work) -> str:
        """Decrypt, decompress and extract, below a directory that nothing leaves."""
        kept, data = plan.base.last, os.path.join(work.directory, "data")
        name = next((name for name in kept.manifest.files if is_archive(name)), None)
        if name is None:
            raise RestoreError(f"{kept.path} holds no archive")
        verify(kept, [name], work)
        os.mkdir(data, 0o700)
        argv = decompressor(os.path.join(kept.path, name))
        if name.endswith(ENCRYPTED):
            identity = self.options.get("identity")
            if not identity:
                raise RestoreError(f"{kept.path} is encrypted: name the file with the age identity (identity)")
            argv = ["age", "--decrypt", "--identity", str(identity), os.path.join(kept.path, name)]
        part = "decrypt" if name.endswith(ENCRYPTED) else "decompress"
        with work.parts.part(part), _output(argv, os.path.join(work.logs, f"{argv[0]}.log")) as stream:
            try:
                extract(stream, data)
            except ArchiveError as error:
                raise RestoreError(str(error)) from error
        return data

    def examine(self, plan: Plan, work: Work, session: Session) -> Examined:
        """Count what was extracted."""
        result, data = Examined(), os.path.join(work.directory, "data")
        number = sum(len(names) for _place, _directories, names in os.walk(data))
        result.counts = {"files": {"files": number}}
        result.compared.append(f"the archive as it was written, {number} files")
        return result


def _directory(kept: Kept, name: str) -> str:
    """Return a directory of a backup; one that is elsewhere, or that a link leads to, is refused.

    The account that owns the backup may have made it, and a restore runs as root.
    """
    path = os.path.join(kept.path, name)
    inside = os.path.join(os.path.realpath(kept.path), os.path.normpath(name))
    if os.path.isabs(name) or ".." in name.split("/") or os.path.realpath(path) != inside:
        raise RestoreError(f"{kept.path} has no directory {name!r} in it that could be restored")
    return path


def is_archive(name: str) -> bool:
    """Return whether a file is an archive of ours."""
    base = name[: -len(ENCRYPTED)] if name.endswith(ENCRYPTED) else name
    return plain_name(base) in ARCHIVES


@contextlib.contextmanager
def _output(argv: list[str], log: str) -> Iterator[IO[bytes]]:
    """Give what a program writes; it must be read to its end, and the program must end well."""
    program = which(argv[0])
    if program is None:
        raise RestoreError(f"the program '{argv[0]}' is not installed on this host")
    with open(log, "ab") as errors:
        command = [program, *argv[1:]]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    try:
        if process.stdout is None:
            raise RestoreError(f"{argv[0]} gives nothing")
        failure: RestoreError | None = None
        try:
            yield process.stdout
            while process.stdout.read(_BLOCK):
                pass
        except RestoreError as error:
            failure = error
            process.stdout.close()
        if process.wait() > 0:
            raise RestoreError(f"{argv[0]} ended with exit code {process.returncode}: {last_words(log)}")
        if failure:
            raise failure
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _differs(path: str, item: dict[str, object]) -> str:
    """Return how a file differs from its line in the list, empty when it does not."""
    try:
        if item.get("link") is not None:
            return "" if os.readlink(path) == item["link"] else "is a link to somewhere else"
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return "is no regular file"
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if digest.hexdigest() == item.get("sha256") else "is not what was backed up: its SHA-256 differs"
