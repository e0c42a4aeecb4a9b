# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole work: look, plan, set up, remember, switch, prove, and put everything back when one of them fails."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.probe import ProbeError
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import haproxy_api
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.base import (
    Change,
    Switchable,
    write,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.haproxy import Haproxy
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.host import Host
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import (
    MARK,
    MODES,
    PROBE_PATH,
    Access,
    Memory,
    Site,
    State,
    check_site,
    ends,
    state_of,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.nginx import Nginx
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.probe import request
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError

#: Seconds that a reload or a switch may take to be seen by a new connection.
_SEEN = 5.0
#: Seconds for one answer.
_ANSWER = 10.0
#: Mode → method, status of the answer, mode it is marked with; None: whatever the application answers, no mark.
_EXPECTED: dict[str, list[tuple[str, int | None, str | None]]] = {
    "page": [("GET", 503, "page")],
    "read_only": [("POST", 503, "read_only"), ("GET", None, None)],
    "limit": [("GET", 200, "limit")],
    "off": [("GET", None, None)],
}
#: Given site, access and method, returns the status and the mode that the answer is marked with.
Asker = Callable[[Site, Access, str], "tuple[int, str | None]"]


@dataclass(frozen=True)
class Ask:
    """What the operator asks for; see the module's options.

    :param due: only end a mode whose time is over.
    """

    mode: str
    expires: str | None = None
    reason: str | None = None
    by: str | None = None
    run_id: str | None = None
    overwrite: bool = False
    restore: Mapping[str, Any] | None = None
    due: bool = False
    check_mode: bool = False


@dataclass
class Outcome:
    """What was found and done.

    :param seconds: how long a mode was on that has ended, else None.
    """

    changed: bool
    before: State
    after: State
    findings: list[Finding] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)
    proof: dict[str, Any] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)
    seconds: int | None = None
    applied_at: float | None = None
    proven_at: float | None = None


def ask_balancer(site: Site, access: Access, method: str) -> tuple[int, str | None]:
    """Ask for the path that only the load balancer itself answers; return the status and the mode it is marked with.

    :raises TrafficError: when nobody answers.
    """
    host = None if site.name in ("*", "_") else site.name.replace("*", "worklog-maintenance-probe")
    try:
        answer, _body = request(
            access.url, host, method=method, target=PROBE_PATH, timeout=_ANSWER, validate_certs=access.validate_certs
        )
    except ProbeError as error:
        raise TrafficError(f"{error}; correct 'url'", refused=True) from error
    except (OSError, http.client.HTTPException) as error:
        raise TrafficError(
            f"no answer from {access.url} for {site.name}: {error or type(error).__name__}; is 'url' right?"
        ) from error
    return answer.status, answer.getheader(MARK)


def make(site: Site, access: Access, host: Host, speak: haproxy_api.Speaker = haproxy_api.speak) -> Switchable:
    """Return the load balancer of a site."""
    if access.balancer == "haproxy":
        return Haproxy(site, access, host.system, host.root, speak=speak)
    return Nginx(site, access, host.system, host.root)


def carry_out(site: Site, access: Access, ask: Ask, host: Host, asker: Asker = ask_balancer) -> Outcome:
    """Do what is asked and return what was found and done.

    :raises TrafficError: when it cannot be done or did not take effect; everything is as it was then, or the message
        says what is not.
    """
    site = check_site(site)
    if ask.mode in MODES and ask.restore is None and not (ask.reason or "").strip():
        raise TrafficError(
            "say in 'reason' why: whoever finds the site in this mode at night wants to know", refused=True
        )
    ends(ask.expires, host.now(), State(), ask.mode)  # a wrong one is refused, whatever else there is
    with host.lock():
        return _Work(site, access, ask, host, make(site, access, host), asker).run()


@dataclass
class _Work:
    site: Site
    access: Access
    ask: Ask
    host: Host
    balancer: Switchable
    asker: Asker
    written: list[Change] = field(default_factory=list)

    def run(self) -> Outcome:
        """Do it, the lock being held."""
        try:
            outcome, changes, memory = self._look_and_plan()
        except TrafficError as error:
            found = [one.as_dict() for one in self.balancer.findings]
            raise TrafficError(str(error), refused=True, **{"findings": found, **error.details}) from error
        if self.ask.check_mode or self.ask.mode == "status":
            return outcome
        try:
            if outcome.changed:
                self._apply(outcome, changes)
            self._prove(outcome)
        except TrafficError as error:
            message = self._put_back(outcome.before, memory, str(error)) if outcome.changed else str(error)
            found = [one.as_dict() for one in self.balancer.findings]
            raise TrafficError(message, before=outcome.before.as_dict(), findings=found) from error
        except BaseException:
            if outcome.changed:
                self._put_back(outcome.before, memory, "")
            raise
        if outcome.after.mode == "off" and outcome.before.mode != "off" and outcome.before.since is not None:
            outcome.seconds = int(self.host.now()) - outcome.before.since
        message = f"{self.site.name}: {outcome.after.describe()}"
        self.balancer.note("mode", self.site.name, "ok" if outcome.after.mode == "off" else "info", message)
        return outcome

    # -- looking

    def _look_and_plan(self) -> tuple[Outcome, list[Change], Memory | None]:
        ask, balancer = self.ask, self.balancer
        ending = ask.mode in ("off", "status")
        if not ending and not balancer.running():
            raise TrafficError(f"{self.access.balancer} does not run; start it first")
        memory = self._memory(ending)
        before = self._before(memory)
        target = self._target(before)
        changes: list[Change] = []
        if ask.mode == "status":
            self._look(before)
        elif target.mode != "off" or ask.mode == "absent":
            changes = balancer.changes(present=ask.mode != "absent", overwrite=ask.overwrite)
            if target.mode == "limit" and balancer.no_limit():
                raise TrafficError(f"{self.site.name} cannot be limited: {balancer.no_limit()}; use page or read_only")
        stale = bool(changes) or (not ending and target.mode != "off" and balancer.stale())
        kept = memory is None if target.mode == "off" else memory is not None and memory.access == self._access()
        changed = stale or target != before or not kept or (not ending and not self.host.arranged())
        changed = changed and not (ask.mode == "status" or (ask.due and not self._due(before)))
        outcome = Outcome(changed, before, target if changed else before, balancer.findings)
        outcome.setup = [one.path for one in changes] if changed else []
        if changed:
            outcome.diff = _diff(self.site, before, target, changes)
        return outcome, changes, memory

    def _memory(self, ending: bool) -> Memory | None:
        try:
            found = self.host.memory(self.site)
        except TrafficError as error:
            if not ending:
                raise
            self.balancer.note("memory", self.host.path(self.site), "warning", str(error))
            return None
        if ending and found is not None and self.access.config is None:
            # where it is when nothing runs that could tell
            self.access = self.balancer.access = replace(self.access, config=found.access.config)
        return found

    def _before(self, memory: Memory | None) -> State:
        mode = self.balancer.mode()
        if mode == "off":
            return State()
        known = memory.state if memory is not None else State()
        if known.mode != mode:
            self.balancer.note(
                "unknown", self.site.name, "warning", f"{self.site.name} is in mode {mode}, and nothing says why",
                "switch it off, or on again with a reason",
            )  # fmt: skip
        return replace(known, mode=mode)

    def _target(self, before: State) -> State:
        ask, now = self.ask, self.host.now()
        if ask.restore is not None:
            wanted = state_of(ask.restore)
            return wanted if wanted.until is None or wanted.until > now else State()
        if ask.mode == "status":
            return before
        if ask.mode not in MODES:
            return State()
        until = ends(ask.expires, now, before, ask.mode)
        same = before.mode == ask.mode and before.since is not None
        if same and before.until == until and before.reason == ask.reason:
            return before
        return State(ask.mode, ask.by, ask.reason, before.since if same else int(now), until, ask.run_id)

    def _due(self, before: State) -> bool:
        return before.mode != "off" and before.until is not None and before.until <= self.host.now()

    def _look(self, before: State) -> None:
        """Add findings about a mode that is not what it seems."""
        note, name = self.balancer.note, self.site.name
        if self._due(before):
            note(
                "overdue",
                name,
                "critical",
                f"{name} is still in {before.describe()}",
                "switch it off; see the journal of worklog-maintenance-mode.service",
            )
        if not self.host.arranged():
            note(
                "timer",
                name,
                "critical",
                "the timer that ends modes is not as it should be",
                "run this with the mode that is meant, which repairs it",
            )
        if self.balancer.running():
            try:
                self._see(before.mode)
            except TrafficError as error:
                note("effect", name, "critical", str(error), "run this with the mode that is meant, which repairs it")
        else:
            note("running", name, "warning", f"{self.access.balancer} does not run")
        note("mode", name, "ok" if before.mode == "off" else "info", f"{name}: {before.describe()}")

    # -- doing

    def _access(self) -> Access:
        """Return how the balancer is reached when it does not run any more."""
        if isinstance(self.balancer, Haproxy):
            return replace(self.access, config=self.balancer.program.paths[0])
        return self.access

    def _apply(self, outcome: Outcome, changes: Sequence[Change]) -> None:
        target, balancer = outcome.after, self.balancer
        leaving = target.mode == "off"
        if not leaving:
            self._set_up(outcome, changes)
            self.host.remember(self.site, Memory(self.site.name, target, self._access()))
            self.host.arrange()
        if outcome.before.mode != target.mode:
            balancer.switch(target.mode)
            outcome.applied_at = self.host.now()
            if balancer.mode() != target.mode:
                raise TrafficError(f"{self.site.name} was switched to {target.mode}, but somebody else undid it")
        if leaving:
            self.host.remember(self.site, None)
            self.host.arrange()
            if self.ask.mode == "absent":  # the switch may have written one of the files
                self._set_up(outcome, balancer.changes(present=False, overwrite=self.ask.overwrite))

    def _set_up(self, outcome: Outcome, changes: Sequence[Change]) -> None:
        for change in changes:
            try:
                if not change.ours:
                    files.backup(change.path)
            except files.FileError as error:
                raise TrafficError(str(error)) from error
            write(change.path, change.new, old=change.old, mode=0o600 if change.secret else 0o644)
            self.written.append(change)
        if changes or (outcome.after.mode != "off" and self.balancer.stale()):
            outcome.proof["reload"] = self.balancer.load()

    def _prove(self, outcome: Outcome) -> None:
        if self.ask.mode == "off" and not (outcome.changed and self.balancer.running()):
            if outcome.changed:
                message = f"{self.access.balancer} does not run; the mode is off when it starts"
                self.balancer.note("running", self.site.name, "warning", message)
            return
        if self.ask.mode == "absent" and not outcome.changed:
            return
        outcome.proof["answers"] = self._see(outcome.after.mode)
        outcome.proven_at = self.host.now()

    def _see(self, mode: str) -> list[dict[str, Any]]:
        """Return answers of the load balancer that show a mode.

        :raises TrafficError: when they show another one.
        """
        found = []
        for method, status, mark in _EXPECTED[mode]:
            limit = self.host.system.monotonic() + _SEEN
            while True:
                seen = self.asker(self.site, self.access, method)
                if seen[1] == mark and status in (None, seen[0]):
                    break
                if self.host.system.monotonic() > limit:
                    was = f"{seen[0]} of mode {seen[1]}" if seen[1] else f"{seen[0]} without a mode"
                    raise TrafficError(
                        f"{self.site.name} is to be in mode {mode}, but {method} at {self.access.url} answers {was}: "
                        "look for another proxy or site that answers there, or set 'url'"
                    )
                self.host.system.sleep(0.1)
            if mark is None and seen[0] >= 500:
                message = f"{self.site.name} answers {seen[0]}, not by a mode: the application does not answer"
                self.balancer.note("application", self.site.name, "warning", message, "look at the application")
            found.append({"method": method, "status": seen[0], "mode": seen[1]})
        return found

    # -- undoing

    def _put_back(self, before: State, memory: Memory | None, reason: str) -> str:
        """Bring back what was, all of it that can be; return the sentence that tells what became of it."""
        problems: list[str] = []

        def attempt(step: Callable[[], object]) -> None:
            try:
                step()
            except TrafficError as error:
                problems.append(str(error))

        attempt(lambda: self.balancer.mode() == before.mode or self.balancer.switch(before.mode))  # type: ignore[func-returns-value]
        attempt(lambda: self.host.remember(self.site, memory))
        attempt(self.host.arrange)
        for change in reversed(self.written):
            attempt(lambda change=change: write(change.path, change.old))  # type: ignore[misc]
        if self.balancer.asked:
            attempt(self.balancer.load)
        if problems:
            return f"{reason}; putting back what was ({before.describe()}) was not proven: {'; '.join(problems)}"
        return f"{reason}; everything is as it was: {before.describe()}"


def _diff(site: Site, before: State, target: State, changes: Sequence[Change]) -> list[dict[str, str]]:
    """Return what changes, for people; secrets are not shown."""
    found = []
    for one in changes:
        old, new = (None if text is None else text.decode("utf-8", "replace") for text in (one.old, one.new))
        if one.secret:
            old, new = ("" if text is None else "(secret)\n" for text in (old, "" if new is None else new))
            new = "(secret, changed)\n" if one.old is not None and one.new is not None else new
        header = {"before_header": one.path, "after_header": one.path}
        found.append({**header, "before": old or "", "after": new or ""})
    if before != target:
        header = {"before_header": site.name, "after_header": site.name}
        texts = [
            "".join(f"{key}: {value}\n" for key, value in one.as_dict().items() if value) for one in (before, target)
        ]
        found.append({**header, "before": texts[0], "after": texts[1]})
    return found
