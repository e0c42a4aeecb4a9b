# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One restore into a scratch place, from the question to the compared data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import (
    Catalogue,
    Plan,
    Target,
    Unreachable,
    time_of,
    utc,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import scratch
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import (
    Examined,
    Parts,
    RestoreError,
    Restorer,
    Session,
    Work,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.mariadb import MariaDB
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.restorers import restorer_of
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept, Store
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding, worst

#: Bytes on disk for each compressed one, until it is known better; what does not fit is refused before it begins.
_EXPANSION = 5


@dataclass(frozen=True)
class Request:
    """What is to be restored.

    :param root: directory of all backups.
    :param source: name of the source.
    :param time: all that was committed before this moment, in seconds since the epoch.
    :param gtid: all up to and with this transaction.
    :param event: all before the last transaction with a statement that this regular expression finds; with ``time``,
        the last one before that moment.
    :param backup: the state of this backup, by id.
    :param unverified: whether backups count that were never verified.
    :param scratch: directory for the scratch data.
    :param options: of the restorer.
    :param timeout: seconds for each program.
    """

    root: str
    source: str
    time: float | None = None
    gtid: str | None = None
    event: str | None = None
    backup: str | None = None
    unverified: bool = False
    scratch: str = scratch.ROOT
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 12 * 3600.0


@dataclass
class Restored:
    """What came of it.

    :param plan: which backups it took.
    :param reached: where the replay stopped, in words.
    :param event: the event before which it stopped, in words.
    :param examined: what the data hold.
    :param seconds: by part.
    :param path: where the data are.
    """

    plan: Plan
    reached: str = ""
    event: str = ""
    examined: Examined = field(default_factory=Examined)
    seconds: dict[str, float] = field(default_factory=dict)
    path: str = ""

    @property
    def good(self) -> bool:
        """Return whether everything that could be compared is as it was recorded."""
        return worst(self.examined.findings) != "critical"

    def as_dict(self) -> dict[str, Any]:
        """Return it as a record and Ansible have it."""
        return {
            "plan": self.plan.sentence(),
            "backups": [kept.id for kept in (*self.plan.base.chain, *self.plan.logs)],
            "moment": None if self.plan.moment is None else utc(self.plan.moment),
            "reached": self.reached,
            "event": self.event,
            "counts": self.examined.counts,
            "compared": self.examined.compared,
            "unchecked": self.examined.unchecked,
            "seconds": {**self.seconds, "total": round(sum(self.seconds.values()), 3)},
            "path": self.path,
        }


def parse_time(value: str | None) -> float | None:
    """Return a moment as an operator writes it.

    :raises RestoreError: when it is none.
    """
    try:
        return time_of(value)
    except ValueError as error:
        raise RestoreError(f"'{value}' is no point in time: {error}") from None


def catalogue(request: Request) -> tuple[Catalogue, list[Kept]]:
    """Return what can be recovered of the source of a request, and all its backups.

    :raises RestoreError: when it has none.
    """
    backups, troubles = Store(request.root, request.source).backups()
    if not backups:
        why = "; ".join(troubles) or f"there are none in {os.path.join(request.root, request.source)}"
        raise RestoreError(f"{request.source} has no backups: {why}")
    return Catalogue(request.source, backups, unverified=request.unverified), backups


def work_in(directory: str, request: Request, say: Callable[[str], None]) -> Work:
    """Return what a restorer works with."""
    return Work(directory, request.timeout, command.run, say, Parts())


def decide(request: Request, work: Work) -> tuple[Plan, Restorer, str]:
    """Return the plan, what carries it out, and the event before which it stops.

    :raises RestoreError: when what was asked for cannot be reached.
    """
    known, backups = catalogue(request)
    restorer = restorer_of(backups[-1], request.options)
    target, event = Target(request.time, request.gtid, None, request.backup), ""
    try:
        if request.event is not None:
            if not isinstance(restorer, MariaDB):
                raise RestoreError(f"{request.source} has no logs in which an event can be looked for")
            target, event = _before(request, known, restorer, work)
        plan = known.plan(target)
    except Unreachable as error:
        raise RestoreError(str(error)) from error
    if restorer_of(plan.base.last, request.options).name != restorer.name:
        raise RestoreError(f"{request.source} has backups of several engines: name the one to restore by its id")
    return plan, restorer, event


@contextlib.contextmanager
def restored(
    request: Request,
    place: str,
    say: Callable[[str], None],
    work: Work | None = None,
    plan: Plan | None = None,
) -> Iterator[tuple[Restored, Session]]:
    """Restore into a directory, and serve the data, replayed and compared, while the block runs.

    :param place: an empty directory, which the caller removes.
    :param plan: which backups it takes; by default what the request asks for.
    :raises RestoreError: when it cannot be done.
    """
    work = work or work_in(place, request, say)
    if plan is None:
        plan, restorer, event = decide(request, work)
    else:
        restorer, event = restorer_of(plan.base.last, request.options), ""
    say(f"restoring {request.source}: {plan.sentence()}")
    scratch.room(place, needed(plan))
    result = Restored(plan, event=event, seconds=work.parts.seconds)
    work.expected = expected(plan)
    result.path = restorer.prepare(plan, work)
    with restorer.serve(work) as session:
        result.reached = restorer.replay(plan, work, session)
        result.examined = restorer.examine(plan, work, session)
        yield result, session


def to_scratch(
    request: Request, say: Callable[[str], None], *, keep: bool = True, serve: float = 0.0
) -> tuple[Restored, str]:
    """Restore, compare, and leave the data in the scratch directory; return also how to ask the server on them.

    :param keep: whether the data stay; what is not as it was recorded never does.
    :param serve: seconds for which a server stays on them; they go with it.
    :raises RestoreError: when it cannot be done. Nothing is left then.
    """
    for path in scratch.clean(request.scratch):
        say(f"removed {path}, which an interrupted restore has left")
    stays, how = False, ""
    with scratch.directory(request.scratch, request.source, keep=lambda: stays) as place:
        work = work_in(place, request, say)
        with restored(request, place, say, work) as (result, _session):
            pass
        if result.good and serve:
            restorer = restorer_of(result.plan.base.last, request.options)
            how = restorer.serve_on(work, f"worklog-scratch-{os.path.basename(place)}", serve)
        stays = result.good and (keep or bool(how))
        if not stays:
            result.path = ""
    return result, how


def expected(plan: Plan) -> Mapping[str, Any]:
    """Return what was recorded of the very state that a plan leads to, nothing when that is not known."""
    if not plan.logs:
        return plan.base.last.manifest.document
    probe = plan.logs[-1].manifest.document.get("probe") or {}
    if plan.target.place is not None and plan.target.place == probe_place(plan.logs[-1]):
        return dict(probe)
    return {}


def probe_place(log: Kept) -> tuple[str, str, int] | None:
    """Return the place in the logs where the rows of all tables were counted, None when they were not."""
    probe = log.manifest.document.get("probe") or {}
    if not probe.get("binlog_file"):
        return None
    return log.id, os.path.basename(str(probe["binlog_file"])), int(probe.get("binlog_position") or 4)


def needed(plan: Plan) -> int:
    """Return the bytes that it takes about."""
    total = 0
    for kept in (*plan.base.chain, *plan.logs):
        for name, entry in kept.manifest.files.items():
            packed = name.endswith((".gz", ".zst"))
            total += (entry.size or 0) * (_EXPANSION if packed else 1)
    return total


def findings_of(result: Restored) -> list[Finding]:
    """Return what a record says about a restore."""
    good = Finding("restore.data", result.plan.base.last.path, "ok", "; ".join(result.examined.compared) or "restored")
    return result.examined.findings or [good]


def _before(request: Request, known: Catalogue, restorer: MariaDB, work: Work) -> tuple[Target, str]:
    """Return the place before the last event that matches, and the event in words."""
    pattern = str(request.event)
    logs: Sequence[Kept] = known.logs
    for log in reversed(logs):
        work.say(f"looking for '{pattern}' in the logs of {utc(log.manifest.ended)}")
        found = restorer.find_event(log, pattern, request.time, work)
        if found is not None:
            words = f"{found.describe()} committed at {utc(found.time)}"
            return Target(place=(log.id, os.path.basename(found.file), found.start)), words
    until = f" before {utc(request.time)}" if request.time is not None else ""
    raise RestoreError(
        f"no statement that '{pattern}' finds is in the {len(logs)} log backups of {request.source}{until}; if it has "
        f"just happened, back up the logs first: worklog-backup run {request.source} log"
    )
