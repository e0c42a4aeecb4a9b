# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics judge, a gate watches: figures by hand, a clock by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import (
    Counts,
    Observation,
    Source,
    SourceError,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.gate import Gate, Outcome, judge_requests
from ansible_collections.worklog.maintenance.plugins.module_utils.release.metrics import (
    ABORT,
    HOLD,
    PROMOTE,
    LevelThreshold,
    Metric,
    RankMetric,
    RateMetric,
    RateThreshold,
    RelativeRateMetric,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.probes import Result


def seen(requests: int, errors: int, other_requests: int = 0, other_errors: int = 0) -> Observation:
    return Observation(Counts(requests, errors), Counts(other_requests, other_errors))


def rate_metric() -> RateMetric:
    return RateMetric("errors", "lb", 0.001, 0.01, 0.01, 0.05, 100)


def relative_metric() -> RelativeRateMetric:
    return RelativeRateMetric("errors", "lb", 0.001, 0.01, 0.01, 0.05, 100)


def rate_threshold() -> RateThreshold:
    return RateThreshold("errors", "lb", 0.05, 20, 0.05)


@pytest.mark.parametrize(
    ("requests", "errors", "on_the_way", "at_the_end", "words"),
    [
        (0, 0, HOLD, HOLD, "no request of the candidate was seen"),
        (1, 1, HOLD, ABORT, "so many requests may have 0 errors at most"),
        (2, 2, ABORT, ABORT, "2 of 2 requests of the candidate failed (100 %)"),
        (50, 2, ABORT, ABORT, "speaks for 1 % and not 0.1 %"),
        (331, 0, HOLD, HOLD, "332 requests without a further error are needed to rule out 1 %"),
        (332, 0, PROMOTE, PROMOTE, "0 of 332 requests of the candidate failed (0 %), which rules out 1 %"),
        (600, 3, HOLD, HOLD, "3 of 600"),
        (600, 4, HOLD, ABORT, "may have 3 errors at most"),
        (100000, 100, PROMOTE, PROMOTE, "100 of 100000"),
        (100000, 1000, ABORT, ABORT, "1000 of 100000"),
    ],
)
def test_sprt(requests: int, errors: int, on_the_way: str, at_the_end: str, words: str) -> None:
    metric = rate_metric()
    metric.feed(seen(requests, errors))
    assert metric.judge(final=False).decision == on_the_way
    verdict = metric.judge(final=True)
    assert verdict.decision == at_the_end and words in verdict.reason
    assert verdict.figures.candidate_samples == requests and verdict.figures.candidate_errors == errors


def test_the_samples_that_are_said_to_be_needed_are_enough() -> None:
    metric = rate_metric()
    metric.feed(seen(400, 2))
    verdict = metric.judge(final=True)
    assert verdict.decision == HOLD and verdict.figures.samples_needed
    metric.feed(seen(verdict.figures.samples_needed - 401, 0))
    assert metric.judge(final=True).decision == HOLD
    metric.feed(seen(1, 0))
    assert metric.judge(final=True).decision == PROMOTE


@pytest.mark.parametrize(
    ("periods", "decision", "words"),
    [
        ([], HOLD, "no request of the candidate was seen"),
        ([seen(1000, 0)], HOLD, "no request of the baseline was seen"),
        ([seen(1000, 0, 99, 0)], HOLD, "only 99 of 100 requests of the baseline"),
        ([seen(1000, 0, 1000, 0)], PROMOTE, "rules out 1 %"),
        ([seen(10, 2, 10, 0)] * 20, ABORT, "that is no chance (log likelihood ratio"),
        ([seen(600, 8, 600, 0)], ABORT, "that is no chance"),
        ([seen(100, 5, 100, 5)] * 10, HOLD, "are needed to rule out 5.9 %"),
        (
            [seen(100, 5, 100, 5)] * 40,
            PROMOTE,
            "200 of 4000 requests of the candidate failed (5 %), which rules out 5.9 %",
        ),
        # significantly worse than the baseline, but not worse than what is tolerated in any case
        ([seen(100000, 60, 1000000, 10)], PROMOTE, "60 of 100000"),
    ],
)
def test_sprt_against_the_baseline(periods: Sequence[Observation], decision: str, words: str) -> None:
    metric = relative_metric()
    for period in periods:
        metric.feed(period)
    verdict = metric.judge(final=True)
    assert verdict.decision == decision and words in verdict.reason


@pytest.mark.parametrize(
    ("requests", "errors", "decision"),
    [(0, 0, HOLD), (19, 19, HOLD), (20, 2, ABORT), (20, 1, HOLD), (58, 2, HOLD), (59, 2, PROMOTE), (59, 3, ABORT)],
)
def test_threshold_of_errors(requests: int, errors: int, decision: str) -> None:
    metric = rate_threshold()
    metric.feed(seen(requests, errors))
    assert metric.judge(final=True).decision == decision


def level(requests: int, candidate: float | None, baseline: float | None = None) -> Observation:
    def side(value: float | None) -> Counts:
        return Counts(requests, levels={} if value is None else {"latency": value})

    return Observation(side(candidate), side(baseline))


def level_metric(limit: float | None, ratio: float | None, counted: bool = True) -> LevelThreshold:
    least = 30 if counted else 3
    return LevelThreshold("l", "latency", "s", limit, ratio, 0.95, least, counted, False, random.Random(1))


@pytest.mark.parametrize(
    ("polls", "limit", "ratio", "decision"),
    [
        ([], 0.5, None, HOLD),
        ([level(10, 0.4)] * 2, 0.5, None, HOLD),
        ([level(10, 0.4)] * 3, 0.5, None, PROMOTE),
        ([level(10, 0.6)] * 4, 0.5, None, HOLD),
        ([level(10, 0.6)] * 5, 0.5, None, ABORT),
        ([level(10, 0.6)] * 5 + [level(10, 0.4)], 0.5, None, PROMOTE),
        ([level(10, 0.4)] * 5 + [level(10, None)], 0.5, None, HOLD),
        ([level(10, 0.4)] * 5, None, 1.5, HOLD),
        ([level(10, 0.4, 0.3)] * 5, None, 1.5, PROMOTE),
        ([level(10, 0.4, 0.2)] * 5, None, 1.5, ABORT),
        ([level(10, 0.4, 0.2)] * 5, 1.0, 1.5, ABORT),
        ([level(10, 0.4, 0.3)] * 5, 0.3, 1.5, ABORT),
    ],
)
def test_threshold_of_a_level(
    polls: Sequence[Observation], limit: float | None, ratio: float | None, decision: str
) -> None:
    metric = level_metric(limit, ratio)
    for poll in polls:
        metric.feed(poll)
    assert metric.judge(final=True).decision == decision


def test_a_source_without_requests_needs_some_polls() -> None:
    metric = level_metric(0.5, None, counted=False)
    metric.feed(level(0, 0.1))
    metric.feed(level(0, 0.1))
    assert metric.judge(final=True).decision == HOLD
    metric.feed(level(0, 0.1))
    assert metric.judge(final=True).decision == PROMOTE


def test_threshold_of_single_latencies_is_a_quantile() -> None:
    metric = LevelThreshold("l", "latency", "s", 0.5, None, 0.9, 20, True, True, random.Random(1))
    metric.feed(Observation(Counts(20, 0, [0.1] * 18 + [9.0] * 2)))
    assert metric.judge(final=True).decision == PROMOTE
    metric.feed(Observation(Counts(1, 0, [9.0])))
    assert metric.judge(final=False).decision == ABORT


def rank_metric() -> RankMetric:
    return RankMetric("latency", "log", 1.2, 0.005, 0.6, 0.01, 0.05, 20, random.Random(1))


def spread(middle: float, count: int = 400, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [draw.lognormvariate(0, 0.3) * middle for _unused in range(count)]


@pytest.mark.parametrize(
    ("mine", "others", "decision", "words"),
    [
        ([], [], HOLD, "no good request of the candidate"),
        (spread(0.1), [], HOLD, "no good request of the baseline"),
        (spread(0.1), spread(0.1, seed=2), PROMOTE, "not slower than is tolerated"),
        (spread(0.11), spread(0.1, seed=2), PROMOTE, "not slower"),
        (spread(0.2), spread(0.1, seed=2), ABORT, "slower than the baseline by more than is tolerated (medians 0.2"),
        (spread(0.05), spread(0.1, seed=2), PROMOTE, "not slower"),
        # twice as slow, but by a millisecond only
        ([0.002] * 500, [0.001] * 500, PROMOTE, "not slower"),
        (spread(0.1, 30), spread(0.1, 30, 2), HOLD, "are needed to find an effect of 0.6"),
        (spread(0.5, 19), spread(0.1, 500, 2), HOLD, "19 good requests"),
        (spread(0.5, 20), spread(0.1, 500, 2), ABORT, "slower"),
    ],
)
def test_mann_whitney(mine: list[float], others: list[float], decision: str, words: str) -> None:
    metric = rank_metric()
    metric.feed(Observation(Counts(len(mine), 0, list(mine)), Counts(len(others), 0, list(others))))
    verdict = metric.judge(final=True)
    assert (verdict.decision, words in verdict.reason) == (decision, True), verdict


def test_a_certain_but_small_effect_is_no_reason_to_abort() -> None:
    metric = rank_metric()
    usual = [0.1 + index % 10 * 0.01 for index in range(16000)]
    # one in eight requests is slow: certain with so many, but most are as before
    slow = [2.0 if index % 8 == 0 else value * 1.2 + 0.006 for index, value in enumerate(usual)]
    metric.feed(Observation(Counts(16000, 0, slow), Counts(16000, 0, usual)))
    verdict = metric.judge(final=True)
    assert verdict.figures.p_value is not None and verdict.figures.p_value < 1e-6
    assert verdict.decision == PROMOTE


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RateThreshold("", "", 0.0, 10, 0.05), "limit of an error rate must be above 0"),
        (lambda: RateThreshold("", "", 1.0, 10, 0.05), "below 1"),
        (lambda: level_metric(None, None), "needs limit or ratio"),
        (lambda: RankMetric("", "", 1.2, 0.0, 0.5, 0.01, 0.05, 20, random.Random(1)), "effect must be above 0.5"),
        (lambda: RankMetric("", "", 0.9, 0.0, 0.6, 0.01, 0.05, 20, random.Random(1)), "tolerance"),
        (lambda: RankMetric("", "", 1.2, 0.0, 0.6, 2.0, 0.05, 20, random.Random(1)), "alpha"),
        (lambda: LevelThreshold("", "latency", "", 1.0, None, 1.0, 9, True, True, random.Random(1)), "quantile"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]


class Script(Source):
    """Tells what was written down for each poll."""

    title = "script"
    metrics = frozenset({"errors"})

    def __init__(self, polls: Sequence[Observation | str], doubts: str = "", refuse: str = "") -> None:
        self.polls, self.doubts, self.refuse = list(polls), doubts, refuse
        self.ended = 0

    def begin(self) -> None:
        if self.refuse:
            raise SourceError(self.refuse)

    def poll(self) -> Observation:
        one = self.polls.pop(0) if self.polls else Observation()
        if isinstance(one, str):
            raise SourceError(one)
        return one

    def end(self) -> None:
        self.ended += 1

    def doubt(self) -> str:
        return self.doubts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


def watch(sources: dict[str, Source], metrics: Sequence[Metric], duration: float = 10, early: bool = False) -> Outcome:
    clock = Clock()
    gate = Gate(sources, metrics, duration=duration, interval=1, early=early, clock=clock, sleep=clock.sleep)
    return gate.watch(Outcome())


def test_it_ends_as_soon_as_it_is_bad() -> None:
    source = Script([seen(10, 0), seen(10, 2), seen(10, 0)])
    outcome = watch({"lb": source}, [rate_metric()])
    assert (outcome.decision, outcome.seconds, source.ended) == (ABORT, 2.0, 1)
    assert outcome.reason.startswith("errors: 2 of 20 requests of the candidate failed (10 %)")
    assert outcome.metrics[0]["candidate_errors"] == 2 and outcome.metrics[0]["llr"] > outcome.metrics[0]["llr_abort"]
    assert outcome.findings[0].severity == "critical" and outcome.findings[0].observed == 0.1
    assert outcome.sources == [{"name": "lb", "title": "script", "polls": 2, "failed_polls": 0}]
    assert outcome.as_dict()["findings"][0]["check"] == "release.errors"


def test_a_good_one_is_watched_to_the_end_unless_it_may_pass_early() -> None:
    polls = [seen(100, 0)] * 10
    assert (
        watch({"lb": Script(polls)}, [rate_metric()]).seconds,
        watch({"lb": Script(polls)}, [rate_metric()]).decision,
    ) == (10.0, PROMOTE)
    early = watch({"lb": Script(polls)}, [rate_metric()], early=True)
    assert (early.seconds, early.decision) == (4.0, PROMOTE)


def test_no_data_is_no_pass() -> None:
    outcome = watch({"lb": Script([])}, [rate_metric()], early=True)
    assert (outcome.decision, outcome.reason) == (HOLD, "errors: no request of the candidate was seen")
    assert outcome.findings[0].severity == "warning"


def test_the_worst_decision_counts() -> None:
    good, few, bad = Script([seen(1000, 0)]), Script([seen(10, 0)]), Script([seen(0, 0)] * 9 + [seen(100, 90)])
    metrics: list[Metric] = [rate_metric(), rate_metric(), rate_metric()]
    for metric, name in zip(metrics, ("good", "few", "bad")):
        metric.name = metric.source = name
    assert watch({"good": good, "few": few}, metrics[:2]).reason.startswith("few: 0 of 10")
    good, few = Script([seen(1000, 0)]), Script([seen(10, 0)])
    outcome = watch({"good": good, "few": few, "bad": bad}, metrics)
    assert outcome.decision == ABORT and outcome.reason.startswith("bad: 90 of 100")
    assert [item["decision"] for item in outcome.metrics] == [PROMOTE, HOLD, ABORT]


def test_a_source_that_fails_for_a_while_is_forgiven_and_one_that_stays_away_is_not() -> None:
    back = watch({"lb": Script([seen(500, 0), "gone", "gone", seen(500, 0)])}, [rate_metric()])
    assert back.decision == PROMOTE and back.sources[0]["failed_polls"] == 2
    away = watch({"lb": Script([seen(500, 0)] * 9 + ["the socket is gone"])}, [rate_metric()])
    assert (away.decision, away.reason) == (HOLD, "the socket is gone")


def test_what_is_doubtful_does_not_pass() -> None:
    outcome = watch(
        {"lb": Script([seen(5000, 0)], doubts="half of it was not understood")}, [rate_metric()], early=True
    )
    assert (outcome.decision, outcome.seconds) == (HOLD, 10.0)


def test_a_candidate_that_is_down_is_bad_at_once() -> None:
    down = Observation(Counts(down="HAProxy says that b/app2 is DOWN"))
    outcome = watch({"lb": Script([seen(5000, 0), down])}, [rate_metric()])
    assert (outcome.decision, outcome.reason, outcome.seconds) == (ABORT, "HAProxy says that b/app2 is DOWN", 2.0)


def test_a_source_that_cannot_be_used_is_said_before_anything_is_watched() -> None:
    source, other = Script([], refuse="no such log"), Script([])
    with pytest.raises(SourceError, match="no such log"):
        watch({"a": other, "b": source}, [rate_metric()])
    assert source.ended == other.ended == 1


def test_a_source_that_takes_long_does_not_make_the_watch_longer() -> None:
    clock = Clock()

    class Slow(Script):
        def poll(self) -> Observation:
            clock.now += 4.0
            return seen(1000, 0)

    gate = Gate({"lb": Slow([])}, [rate_metric()], duration=10, interval=1, early=False, clock=clock, sleep=clock.sleep)
    outcome = gate.watch(Outcome())
    assert outcome.decision == PROMOTE and outcome.seconds <= 14


def test_requests_that_fail_are_named() -> None:
    outcome = Outcome()
    assert judge_requests([Result("health", "http://a", True, "HTTP 200", 0.1)], outcome)
    assert (outcome.decision, outcome.reason) == (PROMOTE, "all 1 requests were answered as they should be")
    bad = [Result("health", "http://a", True, "HTTP 200"), Result("page", "http://a", False, "HTTP 404 instead of 200")]
    outcome = Outcome()
    assert not judge_requests(bad, outcome)
    assert (outcome.decision, outcome.reason) == (ABORT, "page on http://a: HTTP 404 instead of 200")
    assert [finding.severity for finding in outcome.findings] == ["ok", "critical"]
