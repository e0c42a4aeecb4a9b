# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a source of backups looks like to the program that makes them: one engine a file, and a line in engines.py."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.options import Options
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.pipeline import Output, Stage
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry, Listing
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import Unreadable, open_file
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner


class MakeError(Exception):
    """A backup could not be made; the message says why and what to do."""


class Unchanged(Exception):
    """No backup is needed: the source still is as an earlier one holds it.

    :param kept: that backup.
    """

    def __init__(self, kept: Kept) -> None:
        super().__init__(f"unchanged since {kept.path}")
        self.kept = kept


@dataclass(frozen=True)
class Work:
    """What an engine is given for one backup.

    :param kind: one of the kinds of the engine.
    :param directory: the empty directory to fill; it becomes the backup.
    :param earlier: the finished backups of the source, oldest first, those whose last verdict is bad left out.
    :param last: the newest one, whatever its verdict.
    :param state: the directory of the source, for what an engine must know from one run to the next.
    :param timeout: seconds for the whole backup.
    :param run: runs a short program and keeps its output.
    :param stream: runs a chain of programs whose output becomes the file of this name in ``directory``; keeps the logs.
    :param say: tells the operator what is done now.
    """

    kind: str
    directory: str
    earlier: Sequence[Kept]
    last: Kept | None
    state: str
    timeout: float
    run: Runner
    stream: Callable[..., Output]
    say: Callable[[str], None]

    def newest(self, *kinds: str) -> Kept | None:
        """Return the newest earlier backup of these kinds."""
        return next((kept for kept in reversed(self.earlier) if kept.manifest.kind in kinds), None)


@dataclass
class Made:
    """What an engine knows of the backup that it made; all of it goes into the manifest.

    :param method: how it was made: ``mariadb-backup``, ``mariadb-dump``, ``rdb``, ...
    :param engine: name and versions of what was backed up and of the program that did it.
    :param parent: id of the backup without which this one is worth nothing.
    :param positions: where it ends in the logs of the server.
    :param counts: rows or documents by database and table, as the source told them in the state that was backed up.
    :param checksums: of tables, likewise.
    :param files: entries whose hash is known already; the program hashes the others.
    :param listing: the tree whose files are in a list of their own.
    :param exits: exit code of each program.
    :param warnings: what the programs warned of.
    :param alarms: what an operator must act on now, although the backup was made.
    :param more: further keys of the manifest that this engine's readers know.
    """

    method: str
    engine: dict[str, str] = field(default_factory=dict)
    parent: str | None = None
    positions: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    checksums: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, Entry] = field(default_factory=dict)
    listing: Listing | None = None
    exits: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


class Engine:
    """Makes the backups of one source.

    :param options: the options of the source as the configuration has them; :data:`OPTIONS` names what is possible.
    """

    #: Its name in the configuration.
    name = ""
    #: What it can make, and what each kind is for.
    kinds: Mapping[str, str] = {}
    #: Options by name: a function that reads the value or raises ValueError with what it must be, and the default.
    OPTIONS: ClassVar[Options] = {}

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def instead(self, kind: str, earlier: Sequence[Kept], run: Runner) -> tuple[str, str] | None:
        """Return the kind that must be made in place of this one, and why; None when this one can be made.

        :raises MakeError: when the source cannot be asked.
        """
        return None

    def needed(self, work: Work) -> int | None:
        """Return the bytes that the backup will take about, None when that cannot be told."""
        return None

    def make(self, work: Work) -> Made:
        """Make one backup.

        :raises MakeError: when it could not be made. What is in the directory then is removed by the caller.
        :raises Unchanged: when an earlier one holds all of it. Likewise.
        """
        raise NotImplementedError


def private(path: str) -> bytes:
    """Return the content of a file that holds a secret.

    :raises MakeError: when it cannot be read, or others may read it.
    """
    try:
        descriptor = open_file(path)
    except Unreadable as error:
        raise MakeError(f"{path}: {error}; it must hold the credentials") from error
    with os.fdopen(descriptor, "rb") as stream:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            raise MakeError(f"{path} holds a secret and has mode {mode:04o}: take it from others with chmod 600 {path}")
        return stream.read(1 << 20)


#: Stands for the default of an option that must be given.
REQUIRED: Any = object()

__all__ = ["REQUIRED", "Engine", "Made", "MakeError", "Output", "Stage", "Unchanged", "Work", "private"]
