# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backups that are damaged, and a copy of one that may be."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.bench.backup_mutations import damage, tools

MANIFEST = "manifest.json"

#: Directory in a backup of ours for what the programs said, and the tree of a snapshot with its list.
LOGS, TREE, LISTING = "log/", "tree/", "tree.jsonl.gz"

#: What borg makes again from its data, and its note for those who look into the directory.
_MADE_AGAIN = re.compile(r"borg/(?:README|nonce|(?:hints|index|integrity)\.\d+)\Z")


@dataclass(frozen=True)
class Subject:
    """One kind of backup, made twice.

    :param name: tells it from the others.
    :param format: what it is, as the table by format calls it.
    :param path: the backup, a file or a directory.
    :param other: the same of another state of the source.
    :param ours: whether it was made by worklog-backup.
    :param counts: rows or documents that the source had, for the manifest of one that is not ours.
    :param secret: environment with the password of a repository.
    :param identity: file with the key of age.
    """

    name: str
    format: str
    path: str
    other: str
    ours: bool = False
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    secret: dict[str, str] = field(default_factory=dict)
    identity: str | None = None

    @property
    def repository(self) -> bool:
        """Whether it has hashes of its own, and no manifest beside it."""
        return bool(self.secret)

    @property
    def several(self) -> bool:
        """Whether it is several snapshots, which share files."""
        return self.format == "rsync snapshots"


class Stage:
    """A subject in a directory that is copied for each mutant.

    :ivar whole: what is verified with its manifest, below the directory.
    :ivar bare: what is verified without it: the only file of a backup of ours, as if it were another program's.
    """

    def __init__(self, subject: Subject, root: str) -> None:
        self.subject, self.root = subject, root
        self.whole = os.path.basename(subject.path) if not subject.ours else "backup"
        for side, path in (("a", subject.path), ("b", subject.other)):
            os.makedirs(f"{root}/{side}")
            subprocess.run(["cp", "-a", "--", path, f"{root}/{side}/{self.whole}"], check=True, timeout=60)
            if not subject.ours and not subject.repository:
                self._write_manifest(f"{root}/{side}")
        tools.write_sums(f"{root}/a", payload(f"{root}/a"))
        names = payload(f"{root}/a")
        self.bare = names[0] if subject.ours and len(names) == 1 else self.whole

    def _write_manifest(self, side: str) -> None:
        """Write what docs/backup.md tells of the manifests of other programs' backups; each snapshot has its own."""
        place = f"{side}/{self.whole}" if os.path.isdir(f"{side}/{self.whole}") else side
        places = [entry.path for entry in os.scandir(place)] if self.subject.several else [place]
        for place in places:
            files = [{"path": name, **entry(read(f"{place}/{name}"))} for name in payload(place)]
            document = {"schema": 1, "files": files, "counts": self.subject.counts}
            with open(f"{place}/{MANIFEST}", "w", encoding="utf-8") as out:
                json.dump(document, out)


def read(path: str) -> bytes:
    """Return the content of a file."""
    with open(path, "rb") as stream:
        return stream.read()


def entry(data: bytes) -> dict[str, Any]:
    """Return size and hash as they stand in a manifest."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def payload(root: str) -> list[str]:
    """Return the files of a backup that hold what was backed up, below the directory that it stands in."""
    found = []
    for directory, _subdirectories, names in os.walk(root):
        for name in names:
            path = os.path.relpath(os.path.join(directory, name), root)
            if name not in (MANIFEST, tools.SUMS) and f"/{LOGS}" not in path and not _MADE_AGAIN.match(path):
                found.append(path)
    return sorted(found)


class Mutant:
    """A copy of a subject that may be damaged.

    :param stage: the subject.
    :param root: directory for it, which must not exist.
    :param source: decides what is damaged.
    """

    def __init__(self, stage: Stage, root: str, source: random.Random) -> None:
        self.stage, self.root, self.source = stage, root, source
        subprocess.run(["cp", "-a", "--", f"{stage.root}/a", root], check=True, timeout=60)
        self.names = payload(root)

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return read(f"{self.root}/{name}")

    def other(self, name: str) -> bytes | None:
        """Return the same file of the other state, None when it has none."""
        path = f"{self.stage.root}/b/{name}"
        return read(path) if os.path.isfile(path) else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file in place, so that all its names have it."""
        if os.path.exists(f"{self.root}/{name}"):
            os.chmod(f"{self.root}/{name}", 0o600)
        with open(f"{self.root}/{name}", "wb") as out:
            out.write(data)

    def chosen(self) -> str:
        """Return one of the files that hold something."""
        return self.source.choice([name for name in self.names if os.path.getsize(f"{self.root}/{name}")])

    def remove(self, name: str) -> None:
        """Remove a file."""
        os.unlink(f"{self.root}/{name}")

    @property
    def manifest(self) -> str:
        """Where the manifest is."""
        whole = f"{self.root}/{self.stage.whole}"
        return f"{whole if os.path.isdir(whole) else self.root}/{MANIFEST}"

    def document(self) -> dict[str, Any]:
        """Return the manifest."""
        found: dict[str, Any] = json.loads(read(self.manifest))
        return found

    def born(self, *, at_source: bool) -> None:
        """Have the manifest tell of the files as they are now: they were like this when they were hashed.

        :param at_source: whether the damage came before the hash of what came from the source, too.
        """
        document = self.document()
        place = os.path.dirname(self.manifest)
        known = {listed["path"]: listed for listed in document["files"]}
        document["files"] = [listed for path, listed in known.items() if f"/{path}".startswith(f"/{LOGS}")]
        for name in payload(self.root):
            path = os.path.relpath(f"{self.root}/{name}", place)
            data = self.read(name)
            listed = {"path": path, **entry(data)}
            content = known.get(path, {}).get("content")
            if at_source and (content or path not in known) and damage.ending(name) and self.stage.subject.ours:
                content = entry(damage.expand(name, data))
            document["files"].append({**listed, **({"content": content} if content else {})})
        with open(self.manifest, "w", encoding="utf-8") as out:
            json.dump(document, out)
        tools.write_sums(self.root, payload(self.root))

    def discard(self) -> None:
        """Remove it."""
        shutil.rmtree(self.root)


def stages(subjects: list[Subject], root: str) -> Iterator[Stage]:
    """Yield the subjects, each in a directory of its own."""
    for number, subject in enumerate(subjects):
        yield Stage(subject, f"{root}/{number}")
