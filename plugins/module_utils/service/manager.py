# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a service manager tells and does, in words that systemd, PM2 and Docker share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

#: Phases of a service. Only ``running`` is up: a unit that is ``activating`` is ``starting``.
PHASES = ("running", "starting", "stopping", "stopped", "failed", "absent")


class ServiceError(Exception):
    """Something about the service that cannot be done; the message says what and names the cure."""


@dataclass(frozen=True)
class Exit:
    """How a process of the service ended.

    :param code: its exit status, ``None`` when a signal ended it or it is not known.
    :param signal: name of the signal that ended it, such as ``SIGSEGV``.
    :param result: the manager's own word for it, such as ``exit-code``, ``timeout`` or ``start-limit-hit``.
    :param oom: whether the kernel killed it for want of memory.
    """

    code: int | None = None
    signal: str | None = None
    result: str = ""
    oom: bool = False

    def describe(self) -> str:
        """Return a clause such as ``was ended by SIGKILL (out of memory)``, empty when nothing is known."""
        if self.oom:
            return "was killed by the kernel because it used up its memory (OOM kill)"
        if self.signal:
            return f"was ended by {self.signal}"
        if self.code is not None:
            return f"ended with exit status {self.code}"
        return f"ended with result '{self.result}'" if self.result else ""


@dataclass(frozen=True)
class Status:
    """A service at one moment.

    :param phase: one of :data:`PHASES`.
    :param words: the manager's own words, such as ``activating (auto-restart)``.
    :param pids: its main processes, one for each instance, sorted.
    :param restarts: how often the manager restarted it by itself, as the manager counts.
    :param generation: changes whenever the service is started anew.
    :param ready: what the service or its health check told the manager; ``None``: nothing is told.
    :param returns: whether it has ended and its manager is about to start it again.
    :param can_reload: whether the manager knows how to reload it.
    :param said: the status text of sd_notify, the last output of a health check; empty when there is none.
    :param exit: how it last ended, as far as the manager knows.
    """

    phase: str
    words: str
    pids: tuple[int, ...] = ()
    restarts: int = 0
    generation: str = ""
    ready: bool | None = None
    returns: bool = False
    can_reload: bool = False
    said: str = ""
    exit: Exit = field(default_factory=Exit)

    @property
    def up(self) -> bool:
        """Whether it runs and has not told that it is not ready yet."""
        return self.phase == "running" and self.ready is not False

    @property
    def down(self) -> bool:
        """Whether it will not come up by itself without failing first."""
        return self.phase in ("failed", "stopped", "absent")


class Manager(Protocol):
    """One service under one service manager."""

    #: ``systemd``, ``pm2`` or ``docker``.
    kind: str
    #: What messages call it, such as ``unit nginx.service``.
    title: str
    #: Seconds between two questions to the manager: asking PM2 starts Node.js each time.
    interval: float

    def status(self) -> Status:
        """Return the state of the service now.

        :raises ServiceError: when the manager does not answer.
        """

    def problems(self) -> list[tuple[str, str, str]]:
        """Return (check, message, advice) for each reason why the manager would not act on it; empty when fine."""

    def act(self, action: str, timeout: float) -> None:
        """Do ``start``, ``stop``, ``restart`` or ``reload`` and return when the manager says it is done.

        :raises ServiceError: when the manager refuses, fails, or is not done within ``timeout`` seconds.
        """

    def clear_failures(self) -> bool:
        """Make the manager forget failed starts that would stop it from starting again; whether there were any."""

    def mark(self) -> Any:
        """Return a place in the log, to be handed to :meth:`logs`."""

    def logs(self, mark: Any, lines: int) -> list[str]:
        """Return the last lines, at most ``lines``, that the service and its manager wrote since the mark."""

    def exited(self, mark: Any) -> Exit:
        """Return how the service last ended since the mark."""

    def owns(self, pid: int) -> bool:
        """Whether a process belongs to the service."""


def missing(title: str, name: str, known: Iterable[str], advice: str) -> tuple[str, str, str]:
    """Return the problem of a service that does not exist, with the nearest names that do."""
    stems = {entry.rpartition(".")[0] or entry: entry for entry in sorted(set(known))}
    near = [stems[stem] for stem in difflib.get_close_matches(name.rpartition(".")[0] or name, stems, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return "service.exists", f"{title} does not exist on this host", hint + advice
