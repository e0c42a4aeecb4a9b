# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole work of the module: read, plan, change, prove, drain, and put everything back when one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import System
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import haproxy_api, nginx, probe
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.balancer import Balancer, Request, known
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.haproxy import Haproxy
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import (
    Side,
    State,
    TrafficError,
    check_sides,
    describe,
    wait_drained,
)


@dataclass
class Outcome:
    """What was found and done.

    :param in_flight: side → requests under way when all was done; None where they cannot be counted.
    :param applied_at: when the load balancer had been told of the new division, in seconds since 1970.
    :param proven_at: when all that shows it had been seen.
    """

    changed: bool
    before: State
    after: State
    findings: list[Finding] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)
    proof: dict[str, Any] = field(default_factory=dict)
    in_flight: dict[str, int | None] = field(default_factory=dict)
    drained: list[dict[str, Any]] = field(default_factory=list)
    applied_at: float | None = None
    proven_at: float | None = None


def make(request: Request, system: System, speak: haproxy_api.Speaker = haproxy_api.speak) -> Balancer:
    """Return the load balancer that a request is for."""
    if request.strategy == "haproxy":
        return Haproxy(request, run=system.run, speak=speak, proc=system.proc)
    return nginx.STRATEGIES[request.strategy](request, system=system)


def carry_out(
    request: Request,
    system: System,
    balancer: Balancer,
    asker: probe.Asker = probe.ask,
    note: Callable[[dict[str, Any]], None] = lambda before: None,
) -> Outcome:
    """Do what is asked and return what was found and done.

    :param note: called with what was found before anything is changed.
    :raises TrafficError: when it cannot be done or did not take effect; the old division is in force then, or the
        message says what is not.
    """
    try:
        before, target = _look_and_plan(request, balancer)
        sides = list(request.sides) or [Side(name, (name,)) for name in before.division]
        changed = target is not before and balancer.differs(before, target)
        draining = _draining(request, sides, target)
        outcome = Outcome(changed, before, target, balancer.findings)
        must = draining if request.drain_fails else []
        outcome.in_flight = {side.name: _count(balancer, side, side in must) for side in sides}
        outcome.diff = balancer.diff(before, target)
    except TrafficError as error:
        raise TrafficError(str(error), refused=True, **error.details) from error
    if request.check_mode:
        balancer.look(before)
        return outcome
    note(as_dict(before))
    try:
        if changed:
            outcome.proof.update(balancer.apply(before, target))
            outcome.applied_at = balancer.told_at
            outcome.after = balancer.read()
            if balancer.differs(outcome.after, target):
                raise TrafficError(
                    f"{balancer.subject} is not divided as it should be: {describe(outcome.after.division)}"
                )
        if request.probe is not None:
            outcome.proof["probe"] = probe.prove(request.probe, sides, outcome.after.division, asker)
        outcome.proven_at = balancer.now()
        for side in draining:
            _drain(request, system, balancer, side, outcome)
    except TrafficError as error:
        message = _put_back(balancer, before, str(error)) if changed else str(error)
        found = [one.as_dict() for one in balancer.findings]
        details: dict[str, Any] = {"before": as_dict(before), "findings": found, "drained": outcome.drained}
        raise TrafficError(message, **details) from error
    except BaseException:
        if changed:
            balancer.undo(before)
        raise
    outcome.in_flight = {side.name: _count(balancer, side, False) for side in sides}
    balancer.look(outcome.after)
    message = f"{balancer.subject} is divided: {describe(outcome.after.division)}"
    balancer.findings.append(Finding("traffic.division", balancer.subject, "ok", message, outcome.after.division))
    return outcome


def as_dict(state: State) -> dict[str, Any]:
    """Return a state as the module does, and as it is given back in ``restore``."""
    return {"division": state.division, "settings": state.settings}


def _look_and_plan(request: Request, balancer: Balancer) -> tuple[State, State]:
    asked = check_sides(request.sides)
    if request.probe is not None:
        probe.check(request.probe)
        probe.owners(request.sides)
    before = balancer.read()
    if request.restore is not None:
        settings = request.restore.get("settings")
        if not isinstance(settings, Mapping):
            raise TrafficError(
                "'restore' is what 'before' was in the result of an earlier call; this has no 'settings'"
            )
        return before, balancer.given_back(before, settings)
    return before, balancer.plan(before, asked) if asked else before


def _draining(request: Request, sides: list[Side], target: State) -> list[Side]:
    for name in request.drain:
        known("side", name, [side.name for side in sides], "what is divided")
        if target.division.get(name, 0.0):
            raise TrafficError(
                f"{name} cannot be drained while it gets {target.division[name]:g} % of the requests: give it 0 %"
            )
    return [side for side in sides if side.name in request.drain]


def _count(balancer: Balancer, side: Side, must: bool) -> int | None:
    try:
        return balancer.in_flight(side)
    except TrafficError:
        if must:
            raise
        return None


def _drain(request: Request, system: System, balancer: Balancer, side: Side, outcome: Outcome) -> None:
    try:
        drained = wait_drained(
            side.name, lambda: balancer.in_flight(side), request.drain_timeout, system.sleep, system.monotonic
        )
    except TrafficError as error:
        if request.drain_fails:
            raise
        message = f"what is under way on {side.name} cannot be counted ({error}); stopping it now may cut requests"
        balancer.findings.append(Finding("traffic.drain", side.name, "warning", message))
        return
    outcome.drained.append(drained.as_dict())
    if drained.left:
        message = (
            f"{drained.left} of {drained.first} requests were still under way on {side.name} after "
            f"{request.drain_timeout:g} s; stopping it now cuts them"
        )
        if request.drain_fails:
            raise TrafficError(message)
        balancer.findings.append(
            Finding("traffic.drain", side.name, "warning", message, drained.left, 0, "requests", "wait longer")
        )


def _put_back(balancer: Balancer, before: State, reason: str) -> str:
    """Put the old division back; return the sentence that tells what became of it."""
    try:
        balancer.undo(before)
    except TrafficError as error:
        return f"{reason}; putting the old division back ({describe(before.division)}) was not proven: {error}"
    return f"{reason}; the old division is back: {describe(before.division)}"
