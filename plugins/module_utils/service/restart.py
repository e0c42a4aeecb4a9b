# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The restart itself: look, act, wait until it is ready, keep watch, and undo it when it failed.

The flow knows no service manager; it is handed one, a clock and a sleep.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.service import fallback as undo
from ansible_collections.worklog.maintenance.plugins.module_utils.service import preflight, process, programs
from ansible_collections.worklog.maintenance.plugins.module_utils.service.diagnose import Diagnosis, diagnose
from ansible_collections.worklog.maintenance.plugins.module_utils.service.logfile import Place, place, read_since
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import (
    Exit,
    Manager,
    ServiceError,
    Status,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.service.probe import Answer, Probe, Sampler, all_good

#: Where root keeps the locks of services.
LOCKS = "/run/worklog-maintenance"
#: Questions in a row that may fail during the watch before it counts as a failure.
TOLERATED = 2


@dataclass(frozen=True)
class Ready:
    """When the service counts as ready; everything given must hold, and its manager must call it up.

    :param probes: addresses that must answer.
    :param log: regular expression of a line it logs when it is ready.
    :param status_text: regular expression of the status it tells by sd_notify.
    """

    probes: tuple[Probe, ...] = ()
    log: str = ""
    status_text: str = ""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    :param state: ``restarted``, ``reloaded``, ``reload_or_restarted``, ``started`` or ``stopped``.
    :param timeout: seconds from the beginning of the action until the service must be ready (or down).
    :param watch: seconds it must stay ready, as the same processes, after that.
    :param log_files: files the service writes its log to, besides its manager's log.
    :param log_lines: lines of the log to return after a failure.
    :param reset_failed: whether failed starts of the past are forgotten first.
    """

    state: str
    needs: preflight.Needs = field(default_factory=preflight.Needs)
    ready: Ready = field(default_factory=Ready)
    timeout: float = 60.0
    watch: float = 10.0
    fallback: undo.Fallback = field(default_factory=undo.Fallback)
    log_files: tuple[str, ...] = ()
    log_lines: int = 20
    reset_failed: bool = False


@dataclass
class Outcome:
    """What came of it; :meth:`as_dict` is what the module returns."""

    action: str = ""
    changed: bool = False
    failed: bool = False
    message: str = ""
    findings: list[Finding] = field(default_factory=list)
    before: Status | None = None
    after: Status | None = None
    downtime: float | None = None
    start: float | None = None
    restarts: int = 0
    log: list[str] = field(default_factory=list)
    exit: Exit = field(default_factory=Exit)
    cause: str | None = None
    restored: bool = False
    refused: bool = False
    serving: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, times in seconds."""
        return {
            "operation": self.action or None,
            "changed": self.changed,
            "findings": [finding.as_dict() for finding in self.findings],
            "state_before": self.before.words if self.before else None,
            "state_after": self.after.words if self.after else None,
            "pids_before": list(self.before.pids) if self.before else [],
            "pids_after": list(self.after.pids) if self.after else [],
            "downtime_seconds": None if self.downtime is None else round(self.downtime, 3),
            "start_seconds": None if self.start is None else round(self.start, 3),
            "restarts": self.restarts,
            "exit_status": self.exit.code,
            "exit_signal": self.exit.signal,
            "oom_killed": self.exit.oom,
            "cause": self.cause,
            "log_tail": self.log,
            "restored": self.restored,
            "refused": self.refused,
            "serving": self.serving,
        }


class Failure(Exception):
    """The service did not do what was asked; the message is a clause about it."""


@dataclass(frozen=True)
class _Logs:
    """Places in the logs at one moment."""

    mark: Any
    files: Mapping[str, Place]
    oom_kills: int


@contextlib.contextmanager
def alone(title: str, patience: float, root: str = LOCKS) -> Iterator[None]:
    """Keep other calls for the same service out: to each of two at once the restart of the other is a crash.

    So it is when a controller has died, its module goes on, and the next run begins. Only root has a place for a lock
    that nobody else can hold; for other accounts there is none.

    :param patience: seconds to wait for the other.
    :raises ServiceError: when the other does not end, or there is no room for the lock.
    """
    if os.geteuid() != 0:
        yield
        return
    path = os.path.join(root, re.sub(r"[^A-Za-z0-9@._-]", "_", title) + ".lock")
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceError(f"cannot make {path}, which keeps other calls out: {error.strerror}") from error
    try:
        if not files.lock(descriptor, patience):
            words = f"another call has been at work on {title} for {patience:g} s"
            raise ServiceError(f"{words}; run this again when it has ended")
        yield
    finally:
        os.close(descriptor)


class Restarter:
    """One service and the means to act on it.

    :param manager: the service under its manager.
    :param request: what is asked for.
    :param run: how programs are run.
    :param clock: seconds of a monotonic clock.
    :param sleep: waits for some seconds.
    """

    def __init__(
        self,
        manager: Manager,
        request: Request,
        run: Runner,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.manager = manager
        self.request = request
        self.out = Outcome()
        self._run = run
        self._clock = clock
        self._sleep = sleep
        self._base = 0
        self._program: programs.Program | None = None

    def work(self, *, check: bool) -> Outcome:
        """Do what is asked, or in check mode everything up to it.

        :raises ServiceError: when the manager does not answer; nothing was touched then.
        """
        out = self.out
        for name, message, advice in self.manager.problems():
            if self.request.state != "stopped" or name == "service.exists":
                self._find(name, "critical", message, advice=advice)
        if self._refused():
            return out
        before = out.before = out.after = self.manager.status()
        test = self.request.needs.config_test
        name = process.short_name(before.pids[0]) if before.pids else ""
        self._program = programs.PROGRAMS.get(test[0]) if len(test) == 1 else programs.of_process(name)
        out.action = self._choose(before)
        if not out.action:
            return self._nothing_to_do()
        if out.action == "reload":
            self._check_reload(before)
        if out.action != "stop":
            out.findings.extend(preflight.inspect(self.manager, self.request.needs, self._run))
        if self._refused():
            out.serving = self._serves(before)
            return out
        out.changed = True
        if check:
            out.message = f"would {out.action} {self.manager.title}"
            return out
        if self.request.reset_failed and self.manager.clear_failures():
            self._find("service.failures", "info", f"failed starts of {self.manager.title} in the past were forgotten")
        if out.action == "stop":
            return self._stop()
        return self._start(before)

    def _choose(self, before: Status) -> str:
        """Return what to do, empty for nothing."""
        state = self.request.state
        if state == "started":
            return "" if before.phase in ("running", "starting") else "start"
        if state == "stopped":
            return "stop" if before.pids or not before.down or before.returns else ""
        if state == "reloaded":
            return "reload"
        # a container that does not know SIGHUP would end
        reloads = before.phase == "running" and before.can_reload and self.manager.kind != "docker"
        if state == "reload_or_restarted" and reloads:
            return "reload"
        if before.down and not before.pids:
            self._find(
                "service.before",
                "info",
                f"{self.manager.title} did not run before ({before.words}); it is started, no downtime is measured",
            )
            return "restart" if before.phase == "failed" else "start"
        return "restart"

    def _check_reload(self, before: Status) -> None:
        if before.phase != "running":
            self._find(
                "service.reload",
                "critical",
                f"{self.manager.title} does not run ({before.words}), so there is nothing to reload",
                advice="use state: reload_or_restarted or started",
            )
        elif not before.can_reload:
            self._find(
                "service.reload",
                "critical",
                f"{self.manager.title} cannot be reloaded: its manager knows no way to",
                advice="use state: restarted or reload_or_restarted",
            )

    def _nothing_to_do(self) -> Outcome:
        out, title = self.out, self.manager.title
        if self.request.state == "stopped":
            out.message = f"{title} does not run"
            return out
        began = self._clock()
        logs = self._places()
        try:
            self._base = out.before.restarts if out.before else 0
            # what it logged when it became ready is long past
            self._wait(self.manager.status(), began, logs, log="")
            out.serving = True
            out.message = f"{title} runs already and is ready"
        except (Failure, ServiceError) as error:
            self._explain(error, logs)
        return out

    def _stop(self) -> Outcome:
        out, title = self.out, self.manager.title
        began = self._clock()
        logs = self._places()
        try:
            self.manager.act("stop", self.request.timeout)
            while True:
                out.after = self.manager.status()
                left = [pid for pid in (out.before.pids if out.before else ()) if process.alive(pid)]
                if out.after.down and not out.after.returns and not left:
                    break
                if self._clock() - began > self.request.timeout:
                    raise Failure(f"it has not ended within {self.request.timeout:g} s, it is {out.after.words}")
                self._sleep(0.2)
        except (Failure, ServiceError) as error:
            self._explain(error, logs)
            return out
        out.message = f"{title} was stopped"
        if out.after.phase == "failed":
            end = self.manager.exited(logs.mark)
            self._find(
                "service.stop",
                "warning",
                f"{title} is stopped, but not cleanly: its process {end.describe() or 'failed'}",
                advice="if it was killed, it needs longer to stop than it is given",
            )
        return out

    def _start(self, before: Status) -> Outcome:
        out, title = self.out, self.manager.title
        logs = self._places()
        probes = self.request.ready.probes
        # Without an address to ask, the service counts as answering as long as one of its processes lives.
        sampler = Sampler(
            (lambda: all_good(probes).good) if probes else (lambda: any(map(process.alive, before.pids))), self._clock
        )
        began = self._clock()
        failure: Exception | None = None
        sampler.start()
        try:
            self._act_and_watch(out.action, before, began, logs, sampler)
        except (Failure, ServiceError) as error:
            failure = error
            sampler.stop()
            sampler.sample()
        finally:
            sampler.stop()
        if before.pids and not sampler.began_good and probes:
            self._find("service.before", "info", f"{title} did not answer before, so no downtime is measured")
        if failure is None:
            out.downtime = sampler.gap.seconds if sampler.began_good else None
            verb = {"start": "started", "restart": "restarted", "reload": "reloaded"}[out.action]
            out.message = f"{title} was {verb} and is ready after {out.start:.1f} s" + (
                "" if out.downtime is None else f", downtime {out.downtime:.1f} s"
            )
            out.serving = True
            self._find("service.ready", "ok", out.message, observed=out.start, unit="seconds")
            return out
        self._explain(failure, logs)
        self._fall_back(before, sampler)
        return out

    def _act_and_watch(self, action: str, before: Status, began: float, logs: _Logs, sampler: Sampler) -> None:
        out = self.out
        workers = self._workers(before) if action == "reload" else set()
        self.manager.act(action, self.request.timeout)
        first = self.manager.status()
        # a restart by hand lets systemd and Docker count from 0 again, a reload does not
        self._base = before.restarts if first.restarts >= before.restarts else 0
        ready = self._wait(first, began, logs, log=self.request.ready.log)
        if action != "reload" and ready.generation == before.generation and before.phase == "running":
            raise Failure("it is still the same process as before, it was not restarted")
        if action == "reload" and self.manager.kind != "pm2" and ready.pids != before.pids:
            raise Failure("its main process was replaced: it did not survive the reload")
        if workers:
            self._wait_for_workers(before, workers, began)
        out.start = self._clock() - began
        sampler.stop()
        sampler.gap.add(self._clock(), True)
        self._watch(ready, sampler)

    def _wait(self, status: Status, began: float, logs: _Logs, *, log: str) -> Status:
        """Return the status when the service is ready; raise as soon as it has failed or the time is over."""
        pause, asked = 0.05, self._clock()
        while True:
            self._count(status)
            if self.out.restarts:
                raise Failure("it crashed while it started and its manager started it again")
            if status.down:
                raise Failure(f"it ended while it started, it is {status.words}")
            answer = self._ready(status, logs, log)
            if answer.good:
                return status
            if self._clock() - began >= self.request.timeout:
                raise Failure(f"it was not ready within {self.request.timeout:g} s: {answer.said}")
            self._sleep(pause)
            pause = min(pause * 1.5, 0.5)
            # the manager is asked again before an answer counts
            if self._clock() - asked >= self.manager.interval or all_good(self.request.ready.probes).good:
                status, asked = self.manager.status(), self._clock()

    def _count(self, status: Status) -> None:
        self.out.after = status
        self.out.restarts = max(0, status.restarts - self._base)

    def _ready(self, status: Status, logs: _Logs, log: str) -> Answer:
        if status.phase != "running":
            return Answer(False, f"it is {status.words}")
        if status.ready is False:
            return Answer(False, f"its manager does not call it ready, it is {status.words} {status.said}".rstrip())
        text = self.request.ready.status_text
        if text and not re.search(text, status.said):
            return Answer(False, f"its status '{status.said}' does not match '{text}'")
        answer = all_good(self.request.ready.probes)
        if answer.good and log and not any(re.search(log, line) for line in self._lines(logs, 10_000)):
            return Answer(False, f"no line of its log matches '{log}'")
        return answer

    def _serves(self, status: Status) -> bool:
        return self._ready(status, _Logs(None, {}, 0), "").good

    def _watch(self, first: Status, sampler: Sampler) -> None:
        """Keep watch: the same processes, no restarts, still answering."""
        began = asked = self._clock()
        status, bad, visible = first, 0, all(map(process.alive, first.pids))
        while True:
            now = self._clock()
            remaining = self.request.watch - (now - began)
            gone = visible and not all(map(process.alive, first.pids))
            if gone or remaining <= 0 or now - asked >= self.manager.interval:
                status, asked = self.manager.status(), now
            lived = f"{now - began:.1f} s after it was ready"
            self._count(status)
            if gone and status.up and status.pids == first.pids:
                self._sleep(0.3)  # its manager has not noticed yet
                status = self.manager.status()
                self._count(status)
            if status.down or (gone and status.pids == first.pids):
                raise Failure(f"it ended {lived}, it is {status.words}")
            if self.out.restarts or status.generation != first.generation or status.pids != first.pids:
                raise Failure(f"it crashed {lived} and its manager started it again")
            # the log line is past, the rest must go on
            answer = self._ready(status, _Logs(None, {}, 0), "")
            sampler.gap.add(self._clock(), answer.good)
            bad = 0 if answer.good else bad + 1
            if bad > TOLERATED or (bad and remaining <= 0):
                raise Failure(f"it stopped answering {lived}: {answer.said}")
            if remaining <= 0:
                return
            self._sleep(min(0.5, remaining))

    def _workers(self, before: Status) -> set[tuple[int, int]]:
        if self._program is None or not before.pids or process.short_name(before.pids[0]) not in self._program.names:
            return set()
        return process.children(before.pids[0])

    def _wait_for_workers(self, before: Status, workers: set[tuple[int, int]], began: float) -> None:
        # nginx returns 0 for a reload that it then refuses, and goes on with the old configuration
        while not process.children(before.pids[0]) - workers:
            if self._clock() - began >= min(self.request.timeout, 10.0):
                raise Failure("the reload had no effect: all its workers are those of before")
            self._sleep(0.1)

    def _explain(self, failure: Exception, logs: _Logs) -> Diagnosis:
        """Turn a failure into findings: what happened, how it ended, why probably."""
        out, title = self.out, self.manager.title
        out.failed = True
        try:
            out.after = self.manager.status()
            ended = bool(out.restarts) or out.after.down or not out.after.pids
            out.exit = self.manager.exited(logs.mark) if ended else Exit()
            if out.exit.signal == "SIGKILL" and process.oom_kills() > logs.oom_kills:
                out.exit = Exit(signal="SIGKILL", result=out.exit.result, oom=True)
            lines = self._lines(logs, 1000)
        except ServiceError as error:
            lines = [str(error)]
        # the words of our own probe say nothing about the cause, those of the manager may
        words = [str(failure)] if isinstance(failure, ServiceError) else []
        diagnosis = diagnose([*lines, *words], out.exit)
        out.cause = diagnosis.cause
        out.log = lines[-self.request.log_lines :] if self.request.log_lines else []
        end = out.exit.describe()
        what = str(failure) if isinstance(failure, ServiceError) else f"{title} failed: {failure}"
        out.message = what + (f"; its process {end}" if end else "")
        self._find("service.ready", "critical", out.message, observed=out.after.words if out.after else None)
        shown = diagnosis.evidence if self.request.log_lines or diagnosis.evidence == end else ""
        self._find(
            "service.cause",
            "critical",
            f"the probable cause is {diagnosis.cause}" + (f": {shown}" if shown else ""),
            observed=diagnosis.cause,
            advice=diagnosis.advice,
        )
        if any("Start request repeated too quickly" in line for line in lines):
            self._find(
                "service.failures",
                "warning",
                f"{title} failed so often that systemd does not start it any more (start limit)",
                advice="when the cause is gone, restart it with reset_failed: true",
            )
        return diagnosis

    def _fall_back(self, before: Status, sampler: Sampler) -> None:
        """Put back the previous state, if that is asked for, and start the service on it."""
        out, title, previous = self.out, self.manager.title, self.request.fallback
        if not previous:
            # what never got ready does not serve, unless it is still the process of before
            settled = out.after is not None and (out.start is not None or out.after.generation == before.generation)
            out.serving = settled and not out.restarts and out.after is not None and self._serves(out.after)
            out.downtime = sampler.gap.lasting(self._clock()) if sampler.began_good else None
            return
        first_log, logs = out.log, self._places()
        failed = (out.message, out.cause, out.exit, out.restarts)
        gap_began = self._clock()
        back = Sampler(sampler.ask, self._clock, sampler.gap)
        try:
            undo.restore(previous)
            if self.manager.clear_failures():
                self._find("service.failures", "info", f"the failed starts of {title} were forgotten to start it again")
            current = self.manager.status()
            action = "reload" if out.action == "reload" and current.pids == before.pids and before.pids else "restart"
            back.start()
            self._act_and_watch(action, current, gap_began, logs, back)
        except (Failure, ServiceError) as error:
            back.stop()
            self._explain(error, logs)
            put_back = f"the previous state was put back ({previous.describe()})"
            out.message = f"{failed[0]}; {put_back}, but then: {out.message}"
            out.cause, out.exit, out.restarts = failed[1:]
            out.log = first_log
            out.serving = False
            self._find("service.fallback", "critical", f"{title} does not run on the previous state either: {error}")
            out.downtime = back.gap.lasting(self._clock()) if sampler.began_good else None
            return
        _message, out.cause, out.exit, out.restarts = failed
        out.restored = out.serving = True
        out.downtime = back.gap.seconds if sampler.began_good else None
        out.message = f"{failed[0]}; the previous state was put back ({previous.describe()}) and it runs on that"
        self._find(
            "service.fallback",
            "warning",
            f"{title} runs on the previous state: {previous.describe()} was put back",
            advice="what was deployed is not live; correct it before the next attempt",
        )

    def _places(self) -> _Logs:
        paths = [*(self._program.logs if self._program else ()), *self.request.log_files]
        return _Logs(self.manager.mark(), {path: place(path) for path in paths}, process.oom_kills())

    def _lines(self, logs: _Logs, count: int) -> list[str]:
        lines = list(self.manager.logs(logs.mark, count))
        for path, since in logs.files.items():
            lines.extend(read_since(path, since)[-count:])
        return lines

    def _find(self, check: str, severity: str, message: str, **more: Any) -> None:
        self.out.findings.append(Finding(check, self.manager.title, severity, message, **more))

    def _refused(self) -> bool:
        out = self.out
        problems = [finding for finding in out.findings if finding.severity == "critical"]
        if not problems:
            return False
        out.failed = out.refused = True
        cures = [f"{finding.message}; {finding.advice}" if finding.advice else finding.message for finding in problems]
        out.message = "nothing was touched: " + ". ".join(cures)
        return True
