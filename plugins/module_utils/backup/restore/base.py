# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restoring one engine looks like: one engine a file, and a line in restorers.py."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import Plan
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding


class RestoreError(Exception):
    """Something could not be restored; the message says what, why, and what to do next."""


class Parts:
    """The seconds that each part of a recovery took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time that the block takes, also when it fails."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + self._clock() - began, 3)


@dataclass
class Work:
    """What a restorer is given.

    :param directory: an empty directory of its own, on a file system with room.
    :param timeout: seconds for each program.
    :param run: runs a short program and keeps its output.
    :param say: tells the operator what is done now.
    :param parts: where the time goes.
    :param expected: counts, checksums and objects that must be there in the end, as a manifest or a probe has them.
    """

    directory: str
    timeout: float
    run: Runner
    say: Callable[[str], None]
    parts: Parts
    expected: Mapping[str, Any] = field(default_factory=dict)

    @property
    def logs(self) -> str:
        """Return the directory for what the programs say."""
        path = os.path.join(self.directory, "log")
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path


@dataclass
class Session:
    """A server with the restored data.

    :param variables: how to reach it, by name, for the commands that ask it: ``socket``, ``port``, ``user``, ...
    :param handle: what the restorer itself asks it with.
    """

    variables: dict[str, str] = field(default_factory=dict)
    handle: Any = None


@dataclass
class Examined:
    """What the restored data hold.

    :param findings: what is not as it was recorded.
    :param counts: rows, documents or keys by database and table.
    :param compared: what was held against what was recorded, in words.
    :param unchecked: what could not be.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    compared: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


class Restorer:
    """Restores the backups of one engine; never touches a backup or a server that is not its own.

    :param options: see the module ``backup_restore``.
    """

    name = ""
    #: Whether the data are a directory that can take the place of the one in production.
    swaps = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def prepare(self, plan: Plan, work: Work) -> str:
        """Make the data ready in the directory of the work and return where they are.

        :raises RestoreError: when they cannot be.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def serve(self, work: Work) -> Iterator[Session]:
        """Serve the data to this host alone while the block runs; by default there is nothing to serve."""
        yield Session()

    def serve_on(self, work: Work, unit: str, seconds: float) -> str:
        """Serve kept data for some time by a unit of systemd, and return how to ask it; empty: it does not."""
        return ""

    def replay(self, plan: Plan, work: Work, session: Session) -> str:
        """Apply the logs, and return in words where it stopped; empty when there is nothing to apply."""
        return ""

    def examine(self, plan: Plan, work: Work, session: Session) -> Examined:
        """Compare the data with what was recorded."""
        raise NotImplementedError

    def ask_running(self, client: str | None, counts: Mapping[str, Mapping[str, int]], work: Work) -> list[Finding]:
        """Ask the service in production, which serves the restored data now, for what was counted before.

        :param client: configuration file for asking it.
        """
        return []


def compare_counts(
    subject: str, recorded: Mapping[str, Mapping[str, int]], found: Mapping[str, Mapping[str, int]]
) -> list[Finding]:
    """Return what is missing, or has other counts than were recorded when the backup was made."""
    findings = []
    for database, tables in recorded.items():
        for table, rows in tables.items():
            seen = found.get(database, {}).get(table)
            if seen is None and rows:
                message = f"{database}.{table} is not there; {rows} rows were recorded"
                findings.append(Finding("restore.counts", subject, "critical", message, None, rows, "rows"))
            elif (seen or 0) != rows:
                message = f"{database}.{table} has {seen} rows, but {rows} were recorded"
                findings.append(Finding("restore.counts", subject, "critical", message, seen, rows, "rows"))
    return findings
