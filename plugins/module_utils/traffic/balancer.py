# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every load balancer can be asked for: its division, a plan, the change with its proof, requests in flight."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.probe import MarkedProbe
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import Side, State, TrafficError


@dataclass(frozen=True)
class Request:
    """What the operator asks for; see the module's options."""

    strategy: str
    sides: Sequence[Side] = ()
    restore: Mapping[str, Any] | None = None
    # HAProxy
    backend: str = ""
    sockets: Sequence[str] = ("/run/haproxy/admin.sock",)
    persist: str = "auto"
    # nginx
    path: str = ""
    upstream: str = ""
    upstream_options: Sequence[str] = ()
    key: str = ""
    variable: str = ""
    reload: str = "auto"
    # both
    config: str | None = None
    executable: str | None = None
    timeout: float = 30.0
    probe: MarkedProbe | None = None
    drain: Sequence[str] = ()
    drain_timeout: float = 60.0
    drain_fails: bool = True
    check_mode: bool = False


@dataclass
class Balancer:
    """One load balancer; the strategies are its subclasses.

    :param findings: what an operator should know, added to as things are seen.
    :param now: the clock, in seconds since 1970.
    :param told_at: when a change was complete as far as the load balancer was told of it, by that clock.
    """

    request: Request
    findings: list[Finding] = field(default_factory=list)
    now: Callable[[], float] = time.time
    told_at: float | None = None

    @property
    def subject(self) -> str:
        """What the division is of, for findings and messages."""
        raise NotImplementedError

    def read(self) -> State:
        """Return the division in force.

        :raises TrafficError: when the load balancer cannot be asked.
        """
        raise NotImplementedError

    def plan(self, before: State, asked: str) -> State:
        """Return the division that is asked for.

        :param asked: what :func:`~.split.check_sides` says.
        :raises TrafficError: when it cannot be had.
        """
        raise NotImplementedError

    def given_back(self, before: State, settings: Mapping[str, Any]) -> State:
        """Return the division that an earlier call found.

        :raises TrafficError: when it is not one of this load balancer.
        """
        raise NotImplementedError

    def differs(self, before: State, target: State) -> bool:
        """Whether anything has to be done."""
        return before.settings != target.settings

    def apply(self, before: State, target: State) -> dict[str, Any]:
        """Bring a division about, and return what shows that it is in force.

        :raises TrafficError: when it is not. What was done of it is for the caller to undo.
        """
        raise NotImplementedError

    def undo(self, before: State) -> None:
        """Bring back what was, from wherever a change has stopped.

        :raises TrafficError: when that fails too.
        """
        self.apply(self.read(), before)

    def look(self, state: State) -> None:
        """Add findings about what does not take the share that the division gives it."""

    def in_flight(self, side: Side) -> int:
        """Return the requests under way on the servers of a side.

        :raises TrafficError: when they cannot be counted.
        """
        raise NotImplementedError

    def diff(self, before: State, target: State) -> list[dict[str, str]]:
        """Return what a target changes, for people."""
        header = {"before_header": self.subject, "after_header": self.subject}
        return [{**header, "before": before.text, "after": target.text}] if before.text != target.text else []

    def of_same(self, settings: Mapping[str, Any], **wanted: Any) -> None:
        """See that what is to be given back was taken from this load balancer.

        :raises TrafficError: when it was not.
        """
        for name, value in {"strategy": self.request.strategy, **wanted}.items():
            if settings.get(name) != value:
                raise TrafficError(
                    f"what is to be restored has the {name} {settings.get(name)!r}, but {value!r} is meant here: give "
                    "'restore' what 'before' was in the result of the same task on the same host",
                    refused=True,
                )


def known(kind: str, name: str, names: Iterable[str], where: str) -> None:
    """See that something exists.

    :raises TrafficError: when it does not, with what does.
    """
    there = list(names)
    if name not in there:
        near = difflib.get_close_matches(name, there, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(there[:20]) or 'none'}"
        raise TrafficError(f"there is no {kind} {name!r} in {where}; {hint}", refused=True)
