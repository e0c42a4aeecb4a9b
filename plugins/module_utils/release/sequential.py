# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of an error rate while the requests come in.

Whoever looks at a test for a fixed number of requests every second, and stops as soon as it is significant, is wrong
far more often than it says. These tests may be looked at after every request. All of it is arithmetic: no clock, no
process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: States less probable than this are left out of a sum, whose other errors are larger.
_NEGLIGIBLE = 1e-13
#: Alarms are added up until what may still come is less probable than this; then its upper limit is added.
_REST = 1e-6
#: Where one error moves the logarithm of the likelihood ratio less than this, ln(1/alpha) is close enough as the
#: boundary.
_SMALL_GAIN = 0.4


def binomial(samples: int, errors: int, rate: float) -> float:
    """Return the probability of exactly so many errors."""
    if not 0 <= errors <= samples:
        return 0.0
    ways = math.lgamma(samples + 1) - math.lgamma(errors + 1) - math.lgamma(samples - errors + 1)
    return math.exp(ways + errors * math.log(rate) + (samples - errors) * math.log1p(-rate))


def hypergeometric_tail(mine: int, my_errors: int, others: int, their_errors: int) -> float:
    """Return how probable so many errors or more are among mine, if all errors fell by chance (Fisher's exact test)."""
    total, errors = mine + others, my_errors + their_errors

    def ways(samples: int, chosen: int) -> float:
        return math.lgamma(samples + 1) - math.lgamma(chosen + 1) - math.lgamma(samples - chosen + 1)

    return min(
        1.0,
        sum(
            math.exp(ways(mine, count) + ways(others, errors - count) - ways(total, errors))
            for count in range(max(my_errors, errors - others), min(mine, errors) + 1)
        ),
    )


class Likelihood:
    """How much more likely some errors are at one rate than at another.

    :param good: the rate that is tolerated.
    :param bad: the rate that must be found.
    :raises ValueError: when they cannot be told apart.
    """

    def __init__(self, good: float, bad: float) -> None:
        if not 0 < good < bad < 1:
            raise ValueError(f"p0 must be above 0, p1 above p0 and below 1, but p0 is {good:g} and p1 is {bad:g}")
        self.good, self.bad = good, bad
        self.loss = math.log1p(-good) - math.log1p(-bad)
        self.gain = math.log(bad / good) + self.loss

    def ratio(self, samples: int, errors: int) -> float:
        """Return the logarithm of the ratio."""
        return errors * self.gain - samples * self.loss

    def needed(self, errors: int, lower: float) -> int:
        """Return how many samples with so many errors bring the ratio below a boundary."""
        return max(0, math.ceil((errors * self.gain - lower) / self.loss))


class RateTest:
    """A sequential probability ratio test of an error rate: is it ``good``, or as bad as ``bad``?

    The upper boundary is not Wald's ln((1 - beta) / alpha), which is too careful when errors are rare, as each of them
    moves the likelihood in a leap. It is the lowest one that the rate ``good`` crosses, at any time, with a probability
    of at most ``alpha``; what is left of alpha when the samples end is spent then (:meth:`final_limit`). The lower one
    is
    ln(beta): the rate ``bad`` gets below it, at any time, with a probability of at most ``beta``.

    :param good: error rate that is tolerated.
    :param bad: error rate that must be found.
    :param alpha: risk of an alarm at the rate ``good``.
    :param beta: risk of a pass at the rate ``bad``.
    :raises ValueError: when they make no sense; the message says which.
    """

    def __init__(self, good: float, bad: float, alpha: float, beta: float) -> None:
        check_risks(alpha, beta)
        self.likelihood = Likelihood(good, bad)
        self.alpha = alpha
        self.lower = math.log(beta)
        self.upper = self._boundary()

    def final_limit(self, samples: int) -> int:
        """Return the number of errors that is too much when no more samples will come."""
        crossing = max(1, math.ceil((self.upper + samples * self.likelihood.loss) / self.likelihood.gain))
        if self.likelihood.gain < _SMALL_GAIN:
            return crossing
        low, high = 1, crossing
        while low < high:
            middle = (low + high) // 2
            if self.alarms(self.upper, samples, middle) <= self.alpha:
                high = middle
            else:
                low = middle + 1
        return high

    def alarms(self, upper: float, samples: int | None = None, last: int = 0, rate: float = 0.0) -> float:
        """Return the probability that a boundary is crossed: an upper limit, exact to about 1e-6.

        :param upper: the boundary.
        :param samples: how many samples come; by default they never end.
        :param last: so many errors count as crossed when the samples end; 0: only the boundary counts.
        :param rate: the true error rate, by default ``good``; another one needs ``samples``.
        """
        likelihood = self.likelihood
        states, seen, crossed, errors = {0: 1.0}, 0, 0.0, 0
        while states:
            # with `errors` errors the boundary is crossed until `until` samples have come
            errors += 1
            until = math.floor((errors * likelihood.gain - upper) / likelihood.loss)
            if until < errors:
                continue
            ends = samples is not None and until >= samples
            if ends and samples is not None:
                until = samples
            limit = min(errors, last) if ends and last else errors
            states = _after(states, until - seen, rate or likelihood.good)
            seen = until
            crossed += sum(mass for count, mass in states.items() if count >= limit)
            states = {count: mass for count, mass in states.items() if count < limit and mass > _NEGLIGIBLE}
            if ends:
                break
            if not rate:
                # Ville's inequality limits what may still come
                rest = sum(
                    mass * min(1.0, math.exp(likelihood.ratio(seen, count) - upper)) for count, mass in states.items()
                )
                if rest < _REST:
                    return 1.0 if last else crossed + rest  # the end is so far away that nothing is left to spend
        return crossed

    def _boundary(self) -> float:
        high = math.log(1 / self.alpha)
        if self.likelihood.gain < _SMALL_GAIN:
            return high
        low = max(0.0, high - self.likelihood.gain)
        for _unused in range(14):
            middle = (low + high) / 2
            if self.alarms(middle) <= self.alpha:
                high = middle
            else:
                low = middle
        return high


def _after(states: dict[int, float], samples: int, rate: float) -> dict[int, float]:
    """Return the probabilities of the numbers of errors after more samples."""
    if samples <= 0:
        return states
    steps: list[tuple[int, float]] = []
    for count in range(samples + 1):
        chance = binomial(samples, count, rate)
        if chance > _NEGLIGIBLE:
            steps.append((count, chance))
        elif count > samples * rate:
            break
    later: dict[int, float] = {}
    for errors, mass in states.items():
        for count, chance in steps:
            later[errors + count] = later.get(errors + count, 0.0) + mass * chance
    return later


@dataclass
class Sums:
    """What one side has seen so far."""

    requests: int = 0
    errors: int = 0

    @property
    def rate(self) -> float:
        """Errors per request; 0 when there were none."""
        return self.errors / self.requests if self.requests else 0.0


class RelativeTest:
    """The same question against a baseline that is measured at the same time.

    An error that came in a period belongs to the candidate with the candidate's share of the requests, if both are
    equally good; so nobody has to know the rate, and trouble that meets both is not held against the candidate. The
    likelihood ratio is that of ``tolerated + (bad - good)`` to ``tolerated``, the larger of ``good`` and the baseline's
    rate so far. Half of alpha is spent on the way (Ville's inequality), half at the end (Fisher's exact test).

    :param good: error rate that is tolerated in any case.
    :param bad: ``bad - good`` is the excess that must be found.
    :raises ValueError: when the parameters make no sense.
    """

    def __init__(self, good: float, bad: float, alpha: float, beta: float) -> None:
        check_risks(alpha, beta)
        Likelihood(good, bad)
        self.good, self.excess = good, bad - good
        self.alpha, self.beta = alpha, beta
        self.upper = math.log(2 / alpha)
        self.lower = math.log(beta)
        self.against = 0.0
        self.candidate, self.baseline = Sums(), Sums()

    def add(self, requests: int, errors: int, other_requests: int, other_errors: int) -> None:
        """Take in one period: the candidate's and the baseline's requests and errors."""
        if requests and other_requests:
            tolerated = self.tolerated
            factor = (tolerated + self.excess) / tolerated
            share = requests / (requests + other_requests)
            # by what is known before this period, so that the ratio stays a martingale
            both = math.log(factor * share + 1 - share)
            self.against += errors * math.log(factor) - (errors + other_errors) * both
        self.candidate.requests += requests
        self.candidate.errors += errors
        self.baseline.requests += other_requests
        self.baseline.errors += other_errors

    @property
    def tolerated(self) -> float:
        """The rate that the candidate may have."""
        return min(max(self.good, self.baseline.rate), (1 - self.excess) * 0.999)

    @property
    def likelihood(self) -> Likelihood:
        """What a pass is decided by: the candidate's own figures against the rates as they are known now."""
        tolerated = self.tolerated
        return Likelihood(tolerated, tolerated + self.excess)

    def p_value(self) -> float:
        """Return Fisher's exact test of all that was seen."""
        mine, others = self.candidate, self.baseline
        return hypergeometric_tail(mine.requests, mine.errors, others.requests, others.errors)


def check_risks(alpha: float, beta: float) -> None:
    """Refuse risks that make no sense.

    :raises ValueError: with one sentence.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 < value < 0.5:
            raise ValueError(f"{name} must be above 0 and below 0.5, but it is {value:g}")
