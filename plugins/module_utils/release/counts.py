# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the sources of figures tell a gate: requests and errors of two sides since the last question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: The two sides that are compared.
CANDIDATE = "candidate"
BASELINE = "baseline"
SIDES = (CANDIDATE, BASELINE)


class SourceError(Exception):
    """A source that cannot be read, or that does not say what was asked; the message says what to do."""


@dataclass
class Counts:
    """One side since the last question.

    :param requests: how many were answered or failed.
    :param errors: how many of these failed.
    :param latencies: seconds of single good requests, where the source knows them.
    :param levels: figures that are not sums, by name: ``latency`` (seconds, of many requests), ``value``.
    :param down: what says that this side is out of order, in the source's words; empty when nothing does.
    """

    requests: int = 0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)
    levels: dict[str, float] = field(default_factory=dict)
    down: str = ""

    def add(self, other: Counts) -> None:
        """Take in the counts of one more server, file or period."""
        self.requests += other.requests
        self.errors += other.errors
        self.latencies += other.latencies
        self.levels.update(other.levels)
        self.down = self.down or other.down


@dataclass
class Observation:
    """Both sides since the last question."""

    candidate: Counts = field(default_factory=Counts)
    baseline: Counts = field(default_factory=Counts)

    def side(self, name: str) -> Counts:
        """Return the counts of one of :data:`SIDES`."""
        return self.candidate if name == CANDIDATE else self.baseline


class Source:
    """Where figures come from. A gate calls :meth:`begin` once, then :meth:`poll` again and again, then :meth:`end`."""

    #: How messages call it.
    title = ""
    #: The metrics that it has figures for: ``errors``, ``latency``, ``value``.
    metrics: frozenset[str] = frozenset()
    #: Whether it tells the latency of single requests, which a comparison by ranks needs.
    single_latencies = False
    #: Whether it was told where to find the baseline.
    has_baseline = False

    def begin(self) -> None:
        """Take what is there now as the beginning.

        :raises SourceError: when the source cannot be used as it was described.
        """
        raise NotImplementedError

    def poll(self) -> Observation:
        """Return what has come since the last call.

        :raises SourceError: when it cannot be told now; the next call may work again.
        """
        raise NotImplementedError

    def end(self) -> None:
        """Let go of files and connections."""

    def notes(self) -> dict[str, int]:
        """Return what an operator should know of the reading itself, such as counters that began anew."""
        return {}

    def doubt(self) -> str:
        """Return why the figures should not be trusted for a promotion; empty when they can."""
        return ""


def listing(names: Sequence[str], most: int = 10) -> str:
    """Return names for a message, not too many of them."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
