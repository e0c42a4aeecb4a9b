# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill: proves on scratch servers that what was backed up can be recovered, how long it takes, and what it says.

Of each source the newest state, a random older backup and a random moment are restored and compared with what was
recorded. Then an application is started on the newest states of all of them and asked questions. All of it goes in the
end.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import (
    Base,
    Catalogue,
    Plan,
    Target,
    Unreachable,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import job, scratch
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import Parts, RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding, worst

NEWEST, OLDER, MOMENT = "newest", "older", "moment"


@dataclass(frozen=True)
class Question:
    """What the application is asked.

    :param name: what it is about.
    :param url: to be fetched; or
    :param argv: to be run.
    :param status: of the answer to the former.
    :param expect: a regular expression that the answer must hold.
    """

    name: str
    url: str = ""
    argv: tuple[str, ...] = ()
    status: int = 200
    expect: str = ""


@dataclass(frozen=True)
class Application:
    """What is started on the restored data. ``<source.socket>`` and the like stand for how they are reached.

    :param argv: its command; it must stay in the foreground and listen on this host alone.
    :param user: the account that it runs as.
    :param files: content by name, written into its directory, which ``<directory>`` stands for.
    :param ready: an address that answers 200 when it is ready.
    :param questions: what it is asked.
    :param timeout: seconds until it must be ready, and for each question.
    """

    argv: tuple[str, ...]
    user: str = "nobody"
    files: Mapping[str, str] = field(default_factory=dict)
    ready: str = ""
    questions: tuple[Question, ...] = ()
    timeout: float = 60.0


class GivenUp(Exception):
    """The time of the drill is over; not an error of the restore under way, after which the next would begin."""


@dataclass
class Round:
    """One restore of the drill.

    :param source: what was restored.
    :param what: ``newest``, ``older`` or ``moment``.
    :param restored: what came of it, None when it failed.
    :param failure: why it failed.
    """

    source: str
    what: str
    restored: job.Restored | None = None
    failure: str = ""

    @property
    def seconds(self) -> dict[str, float]:
        """Return how long each part took."""
        return dict(self.restored.seconds) if self.restored else {}

    @property
    def total(self) -> float:
        """Return how long all of it took."""
        return round(sum(self.seconds.values()), 3)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a record has it."""
        value = self.restored.as_dict() if self.restored else {}
        value.pop("path", None)
        return {"source": self.source, "what": self.what, "failure": self.failure, **value}


@dataclass
class Report:
    """What a drill has shown.

    :param seed: with which the random choices can be made again.
    :param began: in seconds since the epoch.
    :param ended: likewise.
    :param statements: what can be recovered, a sentence a source.
    :param rounds: the restores.
    :param answers: name of a question, whether the answer was right, seconds, and what was wrong.
    :param seconds: what is not part of a single restore: fetching the backups, starting the application.
    :param budget: seconds that the recovery of all sources and the start of the application may take.
    :param findings: everything that an operator must know.
    """

    seed: int
    began: float
    ended: float = 0.0
    host: str = ""
    statements: list[str] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    answers: list[tuple[str, bool, float, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    budget: float | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Return whether everything was as it must be."""
        return worst(self.findings) != "critical"

    @property
    def recovery(self) -> float:
        """Return how long it took until the application answered on the newest state of all sources."""
        newest = sum(entry.total for entry in self.rounds if entry.what == NEWEST)
        return round(newest + sum(self.seconds.values()), 3)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a record has it."""
        return {
            "seed": self.seed,
            "statements": self.statements,
            "rounds": [entry.as_dict() for entry in self.rounds],
            "answers": [
                {"name": name, "right": right, "seconds": seconds, "trouble": trouble}
                for name, right, seconds, trouble in self.answers
            ],
            "seconds": self.seconds,
            "recovery_seconds": self.recovery,
            "budget_seconds": self.budget,
        }


def choose(known: Catalogue, chance: random.Random) -> list[tuple[str, Plan]]:
    """Return what is to be restored of one source: the newest state, an older one, a moment; what it has of them.

    Where it can be, the state is one in which the rows of all tables were counted when the backup was made.

    :raises Unreachable: when there is nothing.
    """
    newest = known.plan(Target())
    chosen = [(NEWEST, _to_probe(known, newest.base, last=True) or newest)]
    others = [base for base in known.bases if base.last.id != newest.base.last.id]
    if others:
        base = chance.choice(others)
        chosen.append((OLDER, _to_probe(known, base, last=False) or known.plan(Target(backup=base.last.id))))
    windows = [window for window in known.statement().windows if window.until - window.since >= 1]
    if known.logged and windows:
        window = chance.choices(windows, [window.until - window.since for window in windows])[0]
        moment = float(chance.randrange(int(window.since) + 1, int(window.until) + 1))
        chosen.append((MOMENT, known.plan(Target(time=moment))))
    return chosen


def drill(
    requests: Sequence[job.Request],
    *,
    seed: int,
    application: Application | None,
    budget: float | None,
    limit: float,
    say: Callable[[str], None],
    seconds: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Restore, compare and ask; nothing is raised for what does not work, it is in the report.

    :param requests: one a source.
    :param seed: of the random choices.
    :param application: what is started on the newest states.
    :param budget: seconds that a recovery may take.
    :param limit: seconds after which the drill is given up and torn down.
    :param seconds: what took time before, such as fetching the backups.
    """
    report = Report(seed, clock(), host=os.uname().nodename, budget=budget, seconds=dict(seconds or {}))
    chance = random.Random(seed)
    try:
        with _limited(limit):
            newest = []
            for request in requests:
                for path in scratch.clean(request.scratch):
                    say(f"removed {path}, which an interrupted run has left")
                newest += _older(report, request, chance, say)
            _newest(report, newest, application, say)
    except (RestoreError, GivenUp) as error:
        report.findings.append(Finding("drill", report.host, "critical", str(error)))
        for entry in report.rounds[-1:]:
            entry.failure = entry.failure or ("" if entry.restored else str(error))
    finally:
        report.ended = clock()
    for entry in report.rounds:
        if entry.failure:
            message = f"{entry.source}, {entry.what}: {entry.failure}"
            report.findings.append(Finding("drill.restore", entry.source, "critical", message))
        elif entry.restored:
            report.findings += job.findings_of(entry.restored)
    for name, right, _seconds, trouble in report.answers:
        if not right:
            report.findings.append(Finding("drill.question", name, "critical", f"{name}: {trouble}"))
    if budget is not None and report.good and report.recovery > budget:
        message = f"recovery took {report.recovery:.1f} s, but may take {budget:g} s"
        report.findings.append(
            Finding("drill.budget", report.host, "critical", message, report.recovery, budget, "seconds")
        )
    return report


def _older(
    report: Report, request: job.Request, chance: random.Random, say: Callable[[str], None]
) -> list[tuple[job.Request, Plan]]:
    """Restore all but the newest state of a source, one after the other, and return that one's plan."""
    try:
        known, _backups = job.catalogue(request)
        chosen = choose(known, chance)
    except (Unreachable, RestoreError) as error:
        report.rounds.append(Round(request.source, NEWEST, None, str(error)))
        return []
    report.statements.append(known.statement().sentence())
    for what, plan in chosen[1:]:
        entry = Round(request.source, what)
        report.rounds.append(entry)
        try:
            with contextlib.ExitStack() as stack:
                place = stack.enter_context(scratch.directory(request.scratch, f"drill-{request.source}"))
                entry.restored, _session = stack.enter_context(job.restored(request, place, say, plan=plan))
        except (RestoreError, command.CommandError, OSError) as error:
            entry.failure = str(error)
    return [(request, chosen[0][1])]


def _newest(
    report: Report,
    newest: Sequence[tuple[job.Request, Plan]],
    application: Application | None,
    say: Callable[[str], None],
) -> None:
    """Restore the newest states of all sources, and ask the application on them."""
    variables: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for request, plan in newest:
            entry = Round(request.source, NEWEST)
            report.rounds.append(entry)
            try:
                place = stack.enter_context(scratch.directory(request.scratch, f"drill-{request.source}"))
                entry.restored, session = stack.enter_context(job.restored(request, place, say, plan=plan))
            except (RestoreError, command.CommandError, OSError) as error:
                entry.failure = str(error)
                continue
            variables.update({f"{request.source}.{name}": value for name, value in session.variables.items()})
            variables[f"{request.source}.path"] = entry.restored.path
        if application is None:
            return
        if any(entry.failure for entry in report.rounds if entry.what == NEWEST):
            report.answers.append(("application", False, 0.0, "not started: not all of its data could be restored"))
            return
        place = stack.enter_context(scratch.directory(newest[0][0].scratch, "drill-application"))
        _ask(report, application, place, variables, say)


def _ask(
    report: Report, application: Application, place: str, variables: dict[str, str], say: Callable[[str], None]
) -> None:
    parts = Parts()
    variables.update(directory=place, port=str(_free_port()))
    for name, content in application.files.items():
        path = os.path.join(place, os.path.basename(name))
        with open(path, "w", encoding="utf-8") as out:
            out.write(filled(content, variables))
        os.chmod(path, 0o600)
        account = pwd.getpwnam(application.user)
        os.chown(path, account.pw_uid, account.pw_gid)
    work = job.work_in(place, job.Request("", ""), say)
    ready = filled(application.ready, variables)
    say("starting the application on the restored data")
    try:
        with contextlib.ExitStack() as stack:
            with parts.part("application"):
                stack.enter_context(
                    scratch.serving(
                        [filled(part, variables) for part in application.argv],
                        user=application.user,
                        log=os.path.join(work.logs, "application.log"),
                        ready=lambda: not ready or _fetch(ready, 5)[0] == 200,
                        timeout=application.timeout,
                        what="the application",
                    )
                )
            for question in application.questions:
                began = time.monotonic()
                trouble = _trouble(question, variables, application.timeout)
                seconds = round(time.monotonic() - began, 3)
                if not report.answers:
                    parts.seconds["first question"] = seconds
                report.answers.append((question.name, not trouble, seconds, trouble))
    except (RestoreError, OSError, KeyError) as error:
        report.answers.append(("application", False, 0.0, str(error)))
    report.seconds.update(parts.seconds)


def _trouble(question: Question, variables: Mapping[str, str], timeout: float) -> str:
    """Return what is wrong with the answer to a question, empty when it is right."""
    if question.url:
        status, text = _fetch(filled(question.url, variables), timeout)
        if status != question.status:
            return f"the answer has status {status}, not {question.status}: {text[:200]}"
    else:
        try:
            done = command.run([filled(part, variables) for part in question.argv], timeout=timeout)
        except command.CommandError as error:
            return str(error)
        text = done.stdout
        if not done.ok:
            return f"it ended with exit code {done.rc}: {(done.stderr or done.stdout).strip()[-200:]}"
    if question.expect and not re.search(question.expect, text, re.DOTALL):
        return f"the answer does not hold '{question.expect}': {text[:200]}"
    return ""


def filled(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with the values of ``<source.socket>`` and the like; what is not known stays as it is."""
    for name, value in variables.items():
        text = text.replace(f"<{name}>", value)
    return text


def _fetch(url: str, timeout: float) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            return int(answer.status), answer.read(1 << 20).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(1 << 20).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        return 0, str(error)


def _to_probe(known: Catalogue, base: Base, last: bool) -> Plan | None:
    """Return the plan from a base to the first, or last, place at which the rows were counted; None without one."""
    logs, _ends = known.reach(base)
    places = [(number, place) for number, log in enumerate(logs) if (place := job.probe_place(log))]
    places = [entry for entry in places if base.position is None or entry[0] > 0 or _behind(entry[1], base)]
    if not places:
        return None
    number, place = places[-1 if last else 0]
    return Plan(base, logs[: number + 1], Target(place=place))


def _behind(place: tuple[str, str, int], base: Base) -> bool:
    file, position = base.position or ("", 0)
    return (place[1], place[2]) >= (os.path.basename(file), position)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Give the block up after some time, through all its clean-up."""

    def late(*_unused: object) -> None:
        raise GivenUp(f"the drill did not end within {seconds:g} s and was given up")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
