# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked of one figure, and the answer: promote, hold or abort.

A metric takes in what its source observed and judges all of it. It says *promote* only when it has seen enough to have
found what it looks for; *hold* is the answer to everything else that is no *abort*, and above all to no data.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import Observation
from ansible_collections.worklog.maintenance.plugins.module_utils.release.ranks import (
    Comparison,
    Looks,
    Pool,
    compare,
    needed,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.sequential import (
    RateTest,
    RelativeTest,
    Sums,
    check_risks,
)

PROMOTE, HOLD, ABORT = "promote", "hold", "abort"
#: From the best to the worst; several decisions together are the worst of them.
DECISIONS = (PROMOTE, HOLD, ABORT)
#: Why nothing passes without data.
NOTHING = "no request of the candidate was seen"
#: A level must be beyond its limit in so many polls in a row.
IN_A_ROW = 3


@dataclass
class Figures:
    """What a decision was made on; ``None`` where a test does not use it."""

    candidate_samples: int = 0
    candidate_errors: int | None = None
    candidate_rate: float | None = None
    candidate_value: float | None = None
    baseline_samples: int | None = None
    baseline_errors: int | None = None
    baseline_rate: float | None = None
    baseline_value: float | None = None
    llr: float | None = None
    llr_abort: float | None = None
    llr_promote: float | None = None
    p_value: float | None = None
    p_limit: float | None = None
    effect: float | None = None
    limit: float | None = None
    samples_needed: int | None = None

    def rounded(self) -> dict[str, float | int | None]:
        """Return the figures to six digits, as they are shown."""
        return {
            name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in asdict(self).items()
        }


@dataclass
class Verdict:
    """The answer to one metric.

    :param decision: one of :data:`DECISIONS`.
    :param reason: one sentence without the metric's name.
    :param figures: what it was made on.
    """

    decision: str
    reason: str
    figures: Figures


class Metric:
    """One figure of one source under one test.

    :param name: what messages call it.
    :param kind: ``errors``, ``latency`` or ``value``.
    :param source: name of its source.
    :param test: name of the test.
    """

    def __init__(self, name: str, kind: str, source: str, test: str) -> None:
        self.name, self.kind, self.source, self.test = name, kind, source, test

    def feed(self, seen: Observation) -> None:
        """Take in what came since the last poll."""
        raise NotImplementedError

    def judge(self, final: bool) -> Verdict:
        """Return the answer to all that came.

        :param final: whether no more will come.
        """
        raise NotImplementedError


class ErrorMetric(Metric):
    """Errors of the candidate and the baseline, added up."""

    def __init__(self, name: str, source: str, test: str, least: int) -> None:
        super().__init__(name, "errors", source, test)
        self.candidate, self.baseline = Sums(), Sums()
        self._least = least

    def feed(self, seen: Observation) -> None:
        self.candidate.requests += seen.candidate.requests
        self.candidate.errors += seen.candidate.errors
        self.baseline.requests += seen.baseline.requests
        self.baseline.errors += seen.baseline.errors

    def figures(self) -> Figures:
        """Return the sums."""
        mine, others = self.candidate, self.baseline
        return Figures(
            candidate_samples=mine.requests,
            candidate_errors=mine.errors,
            candidate_rate=mine.rate if mine.requests else None,
            baseline_samples=others.requests,
            baseline_errors=others.errors,
            baseline_rate=others.rate if others.requests else None,
        )

    def seen(self) -> str:
        """Return what the candidate did, as the beginning of a sentence."""
        mine = self.candidate
        return f"{mine.errors} of {mine.requests} requests of the candidate failed ({percent(mine.rate)})"

    def passing(self, figures: Figures, ratio: float, lower: float, bad: float) -> Verdict:
        """Return whether what was seen is enough for a pass."""
        enough = figures.samples_needed or 0
        if ratio <= lower and figures.candidate_samples >= enough:
            return Verdict(PROMOTE, f"{self.seen()}, which rules out {percent(bad)}", figures)
        return Verdict(
            HOLD,
            f"{self.seen()}; {enough} requests without a further error are needed to rule out {percent(bad)}",
            figures,
        )


class RateMetric(ErrorMetric):
    """The error rate by a sequential test against fixed rates.

    :param least: fewest samples of a pass.
    :raises ValueError: when the parameters make no sense.
    """

    def __init__(
        self, name: str, source: str, good: float, bad: float, alpha: float, beta: float, least: int = 0
    ) -> None:
        super().__init__(name, source, "sprt", least)
        self._good, self._bad = good, bad
        self._test = RateTest(good, bad, alpha, beta)

    def judge(self, final: bool) -> Verdict:
        mine, test = self.candidate, self._test
        figures = self.figures()
        ratio = figures.llr = test.likelihood.ratio(mine.requests, mine.errors)
        figures.llr_abort, figures.llr_promote, figures.limit = test.upper, test.lower, self._bad
        figures.samples_needed = max(self._least, test.likelihood.needed(mine.errors, test.lower))
        if not mine.requests:
            return Verdict(HOLD, NOTHING, figures)
        if ratio >= test.upper:
            return Verdict(
                ABORT,
                f"{self.seen()}, which speaks for {percent(self._bad)} and not {percent(self._good)} "
                f"(log likelihood ratio {ratio:.2f}, limit {test.upper:.2f})",
                figures,
            )
        if final and mine.errors >= (most := test.final_limit(mine.requests)):
            return Verdict(ABORT, f"{self.seen()}; so many requests may have {most - 1} errors at most", figures)
        return self.passing(figures, ratio, test.lower, self._bad)


class RelativeRateMetric(ErrorMetric):
    """The error rate by a sequential test against the baseline at the same time.

    :param least: fewest samples of a pass, of each side.
    :raises ValueError: when the parameters make no sense.
    """

    def __init__(
        self, name: str, source: str, good: float, bad: float, alpha: float, beta: float, least: int = 0
    ) -> None:
        super().__init__(name, source, "sprt", least)
        self._relative = RelativeTest(good, bad, alpha, beta)
        self._good, self._alpha = good, alpha

    def feed(self, seen: Observation) -> None:
        super().feed(seen)
        mine, others = seen.candidate, seen.baseline
        self._relative.add(mine.requests, mine.errors, others.requests, others.errors)

    def judge(self, final: bool) -> Verdict:
        mine, others, test = self.candidate, self.baseline, self._relative
        likelihood = test.likelihood
        figures = self.figures()
        figures.llr, figures.llr_abort, figures.llr_promote = test.against, test.upper, test.lower
        figures.limit = likelihood.bad
        figures.samples_needed = max(self._least, likelihood.needed(mine.errors, test.lower))
        for sums, side in ((mine, "candidate"), (others, "baseline")):
            if not sums.requests:
                return Verdict(HOLD, f"no request of the {side} was seen", figures)
        compared = f"{self.seen()}, and {others.errors} of {others.requests} of the baseline ({percent(others.rate)})"
        if mine.rate > self._good:
            if test.against >= test.upper:
                words = f"log likelihood ratio {test.against:.2f}, limit {test.upper:.2f}"
                return Verdict(ABORT, f"{compared}: that is no chance ({words})", figures)
            if final:
                figures.p_value, figures.p_limit = test.p_value(), self._alpha / 2
                if figures.p_value <= figures.p_limit:
                    return Verdict(ABORT, f"{compared}: that is no chance (p {figures.p_value:.2g})", figures)
        if others.requests < self._least:
            return Verdict(HOLD, f"only {others.requests} of {self._least} requests of the baseline were seen", figures)
        ratio = likelihood.ratio(mine.requests, mine.errors)
        return self.passing(figures, ratio, test.lower, likelihood.bad)


class RateThreshold(ErrorMetric):
    """The error rate against a limit, as soon as there are enough samples.

    :param limit: the highest rate that passes.
    :param least: fewest samples of any decision.
    :param beta: a pass needs so many samples that one at the limit would have failed at least once, but for this risk.
    :raises ValueError: when the parameters make no sense.
    """

    def __init__(self, name: str, source: str, limit: float, least: int, beta: float) -> None:
        super().__init__(name, source, "threshold", least)
        check_risks(0.01, beta)
        if not 0 < limit < 1:
            raise ValueError(f"the limit of an error rate must be above 0 and below 1 (100 %), but it is {limit:g}")
        self._limit = limit
        self._enough = max(least, math.ceil(math.log(beta) / math.log1p(-limit)))

    def judge(self, final: bool) -> Verdict:
        mine, figures = self.candidate, self.figures()
        figures.limit, figures.samples_needed = self._limit, self._enough
        if not mine.requests:
            return Verdict(HOLD, NOTHING, figures)
        if mine.requests >= self._least and mine.rate > self._limit:
            return Verdict(ABORT, f"{self.seen()}, more than {percent(self._limit)}", figures)
        if mine.requests >= self._enough:
            return Verdict(PROMOTE, f"{self.seen()}, not more than {percent(self._limit)}", figures)
        return Verdict(HOLD, f"{self.seen()}; {self._enough} requests are needed to say more", figures)


class LevelThreshold(Metric):
    """A latency or another level against a limit, or against so many times the baseline's.

    With single latencies it is a quantile of all of them, else what the source says, which must be beyond the limit in
    :data:`IN_A_ROW` polls in a row.

    :param limit: the highest value that passes; ``None``: any.
    :param ratio: the highest multiple of the baseline's value that passes; ``None``: any.
    :param quantile: the share of the single latencies that must not exceed it.
    :param least: fewest samples of any decision: requests, or polls where the source does not count requests.
    :param counted: whether the source counts requests.
    :param single: whether it tells single latencies.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        source: str,
        limit: float | None,
        ratio: float | None,
        quantile: float,
        least: int,
        counted: bool,
        single: bool,
        draw: random.Random,
    ) -> None:
        super().__init__(name, kind, source, "threshold")
        if limit is None and ratio is None:
            raise ValueError("a threshold needs limit or ratio")
        if not 0 < quantile < 1:
            raise ValueError(f"quantile must be above 0 and below 1, but it is {quantile:g}")
        self._limit, self._ratio, self._quantile, self._least = limit, ratio, quantile, max(1, least)
        self._counted, self._single = counted, single
        self._pools = (Pool(draw), Pool(draw))
        self._samples = [0, 0]
        self._levels: list[float | None] = [None, None]
        self._row = 0

    def feed(self, seen: Observation) -> None:
        for index, counts in enumerate((seen.candidate, seen.baseline)):
            self._pools[index].add(counts.latencies)
            level = counts.levels.get(self.kind)
            self._levels[index] = level
            if self._counted:
                self._samples[index] += len(counts.latencies) if self._single else counts.requests
            elif level is not None:
                self._samples[index] += 1
        self._row = self._row + 1 if self._beyond() else 0

    def _value(self, index: int) -> float | None:
        if self.kind == "latency" and self._single:
            return self._pools[index].quantile(self._quantile)
        return self._levels[index]

    def _most(self) -> float | None:
        limits = [self._limit] if self._limit is not None else []
        if self._ratio is not None:
            base = self._value(1)
            if base is None or self._samples[1] < self._least:
                return None
            limits.append(base * self._ratio)
        return min(limits)

    def _beyond(self) -> bool:
        value, most = self._value(0), self._most()
        return value is not None and most is not None and self._samples[0] >= self._least and value > most

    def judge(self, final: bool) -> Verdict:
        value, most = self._value(0), self._most()
        figures = Figures(
            candidate_samples=self._samples[0],
            candidate_value=value,
            baseline_samples=self._samples[1],
            baseline_value=self._value(1),
            limit=most,
            samples_needed=self._least,
        )
        what = f"the {self._quantile:.4g} quantile of the latency" if self._single else f"the {self.kind}"
        unit = " s" if self.kind == "latency" else ""
        if value is None:
            return Verdict(HOLD, f"no {self.kind} of the candidate was seen", figures)
        if most is None:
            seen = f"only {self._samples[1]} of {self._least} samples"
            return Verdict(HOLD, f"the baseline, with which it is compared, has {seen}", figures)
        words = f"{what} of the candidate is {value:.4g}{unit}, and {most:.4g}{unit} at most would pass"
        if self._samples[0] < self._least:
            return Verdict(HOLD, f"{words}, but it has only {self._samples[0]} of {self._least} samples", figures)
        if value <= most:
            return Verdict(PROMOTE, words, figures)
        if self._row >= IN_A_ROW or (self._single and self.kind == "latency"):
            return Verdict(ABORT, words, figures)
        return Verdict(HOLD, f"{words}; that is new since {self._row} polls", figures)


class RankMetric(Metric):
    """The latency by ranks: whether the candidate is slower than the baseline by more than is tolerated.

    Single latencies of good requests are compared, the candidate's after the tolerance was taken off.

    :param ratio: how many times slower is tolerated.
    :param seconds: and how many seconds on top of that.
    :param effect: probability that a request of the candidate takes longer than one of the baseline (0.5: the same)
        from which on it matters; a smaller effect is not a reason to abort, however certain it is.
    :param least: samples of the smaller side at the first look.
    :raises ValueError: when the parameters make no sense.
    """

    def __init__(
        self,
        name: str,
        source: str,
        ratio: float,
        seconds: float,
        effect: float,
        alpha: float,
        beta: float,
        least: int,
        draw: random.Random,
    ) -> None:
        super().__init__(name, "latency", source, "mann_whitney")
        check_risks(alpha, beta)
        if not 0.5 < effect < 1:
            raise ValueError(f"effect must be above 0.5 and below 1, but it is {effect:g}")
        if ratio < 1 or seconds < 0:
            raise ValueError("a tolerance below 1 or below 0 seconds would ask the candidate to be quicker")
        self._ratio, self._seconds, self._effect, self._beta = ratio, seconds, effect, beta
        self._least = max(1, least)
        self._looks = Looks(self._least, alpha)
        self._pools = (Pool(draw), Pool(draw))
        self._last = Comparison(0.5, 1.0)
        self._allowed = 0.0

    def feed(self, seen: Observation) -> None:
        self._pools[0].add([value / self._ratio - self._seconds for value in seen.candidate.latencies])
        self._pools[1].add(seen.baseline.latencies)

    def judge(self, final: bool) -> Verdict:
        mine, others = self._pools
        smaller = min(mine.seen, others.seen)
        risk = self._looks.last if final else self._looks.take(smaller)
        if risk is not None and smaller >= self._least:
            self._last, self._allowed = compare(mine.values, others.values), risk
        middle = mine.quantile(0.5)
        share = mine.seen / (mine.seen + others.seen) if smaller else 0.5
        total = needed(self._effect, share, self._looks.last, self._beta)
        enough = max(self._least, math.ceil(total * share))
        figures = Figures(
            candidate_samples=mine.seen,
            candidate_value=None if middle is None else (middle + self._seconds) * self._ratio,
            baseline_samples=others.seen,
            baseline_value=others.quantile(0.5),
            p_value=self._last.p_value,
            p_limit=self._allowed,
            effect=self._last.effect,
            limit=self._effect,
            samples_needed=enough,
        )
        for pool, side in ((mine, "candidate"), (others, "baseline")):
            if not pool.seen:
                return Verdict(HOLD, f"no good request of the {side} was seen", figures)
        medians = f"medians {figures.candidate_value:.4g} s and {figures.baseline_value:.4g} s"
        if self._last.p_value <= self._allowed and self._last.effect >= self._effect:
            return Verdict(
                ABORT,
                f"the candidate is slower than the baseline by more than is tolerated ({medians}, effect "
                f"{self._last.effect:.2f}, p {self._last.p_value:.2g})",
                figures,
            )
        if mine.seen >= enough and mine.seen + others.seen >= total and smaller >= self._least:
            return Verdict(PROMOTE, f"the candidate is not slower than is tolerated ({medians})", figures)
        return Verdict(
            HOLD,
            f"the candidate has {mine.seen} good requests and the baseline {others.seen} ({medians}); {enough} and "
            f"{total - enough} are needed to find an effect of {self._effect:g}",
            figures,
        )


def percent(rate: float) -> str:
    """Return a rate as people read it."""
    return f"{100 * rate:.3g} %"
