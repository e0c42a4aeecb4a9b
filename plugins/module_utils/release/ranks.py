# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mann-Whitney: does the candidate take longer than the baseline, whatever the distribution?"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

#: Latencies kept of each side; beyond that, a fair draw of all.
KEPT = 20_000

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Comparison:
    """The result of one comparison.

    :param effect: probability that one of the first is larger than one of the second, ties counted half; 0.5: the same.
    :param p_value: how probable such an effect or a larger one is by chance, one-sided.
    """

    effect: float
    p_value: float


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Return whether the first are larger than the second (normal approximation, corrected for ties)."""
    mine, others = len(first), len(second)
    if not mine or not others:
        return Comparison(0.5, 1.0)
    merged = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    ranks, ties, begin, total = 0.0, 0, 0, len(merged)
    while begin < total:
        end = begin
        while end < total and merged[end][0] == merged[begin][0]:
            end += 1
        of_first = sum(1 for index in range(begin, end) if merged[index][1] == 0)
        ranks += of_first * (begin + 1 + end) / 2
        ties += (end - begin) ** 3 - (end - begin)
        begin = end
    above = ranks - mine * (mine + 1) / 2
    variance = mine * others / 12 * (total + 1 - (ties / (total * (total - 1)) if total > 1 else 0))
    effect = above / (mine * others)
    if variance <= 0:
        return Comparison(effect, 1.0)
    distance = (above - mine * others / 2 - 0.5) / math.sqrt(variance)
    return Comparison(effect, _NORMAL.cdf(-distance))


def needed(effect: float, share: float, alpha: float, beta: float) -> int:
    """Return how many samples of both sides together find an effect (Noether).

    :param share: the first side's share of the samples.
    :param alpha: risk of an alarm, one-sided.
    :param beta: risk of a miss.
    """
    width = _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(1 - beta)
    return math.ceil(width * width / (12 * share * (1 - share) * (effect - 0.5) ** 2))


class Pool:
    """Latencies of one side: all of them, or a fair draw of :data:`KEPT`.

    :param draw: where chance comes from.
    """

    def __init__(self, draw: random.Random) -> None:
        self.values: list[float] = []
        self.seen = 0
        self._draw = draw

    def add(self, values: Sequence[float]) -> None:
        """Take in more latencies."""
        for value in values:
            self.seen += 1
            if len(self.values) < KEPT:
                self.values.append(value)
                continue
            place = self._draw.randrange(self.seen)
            if place < KEPT:
                self.values[place] = value

    def quantile(self, share: float) -> float | None:
        """Return the value that so large a share of the latencies does not exceed; ``None`` without any."""
        if not self.values:
            return None
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1 if share else 0)]


class Looks:
    """Divides a risk over looks at growing samples, so that looking often does not raise it.

    The first look is at ``first`` samples of the smaller side, each further one at twice as many. Look *j* may use
    alpha / (j (j + 1)), which add up to alpha - alpha / (j + 1); the last, when no more samples come, may use what is
    left.
    """

    def __init__(self, first: int, alpha: float) -> None:
        self.alpha, self.taken = alpha, 0
        self._next = max(1, first)

    def take(self, samples: int) -> float | None:
        """Return the risk that a look at so many samples may use; ``None`` when it is not yet time for one."""
        if samples < self._next:
            return None
        while samples >= self._next:
            self._next *= 2
        self.taken += 1
        return self.alpha / (self.taken * (self.taken + 1))

    @property
    def last(self) -> float:
        """The risk that the last look may use."""
        return self.alpha / (self.taken + 1)
