# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watch: asks the sources, lets the metrics judge, and ends with one decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import Source, SourceError
from ansible_collections.worklog.maintenance.plugins.module_utils.release.metrics import (
    ABORT,
    DECISIONS,
    HOLD,
    PROMOTE,
    Metric,
    Verdict,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.probes import Result

_SEVERITY = {PROMOTE: "ok", HOLD: "warning", ABORT: "critical"}
_ADVICE = {
    PROMOTE: None,
    HOLD: "watch it longer or give it more traffic before it gets all of it",
    ABORT: "take the traffic from the candidate",
}


@dataclass
class Outcome:
    """What a gate answers.

    :param decision: one of :data:`DECISIONS`.
    :param reason: one sentence.
    """

    decision: str = HOLD
    reason: str = "nothing was watched"
    seconds: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as the module does."""
        return {**asdict(self), "seconds": round(self.seconds, 2)}


@dataclass
class _Reading:
    source: Source
    polls: int = 0
    failed: int = 0
    failing: str = ""
    down: str = ""


class Gate:
    """Watches a candidate until it is clear that it is bad, or until the time is over.

    :param sources: where figures come from, by name.
    :param metrics: what is asked of them.
    :param duration: seconds to watch at most.
    :param interval: seconds from one poll to the next.
    :param early: whether it ends before the time is over when every metric says promote.
    :param clock: seconds of a monotonic clock.
    :param sleep: waits so many seconds.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        metrics: Sequence[Metric],
        *,
        duration: float,
        interval: float,
        early: bool,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._readings = {name: _Reading(source) for name, source in sources.items()}
        self._metrics = metrics
        self._duration, self._interval, self._early = duration, interval, early
        self._clock, self._sleep = clock, sleep

    def watch(self, outcome: Outcome) -> Outcome:
        """Watch and complete an outcome.

        :raises SourceError: when a source cannot be used from the beginning.
        """
        try:
            for reading in self._readings.values():
                reading.source.begin()
            begin = due = self._clock()
            while True:
                due = max(due + self._interval, self._clock())
                self._sleep(max(0.0, min(due, begin + self._duration) - self._clock()))
                self._poll()
                outcome.seconds = self._clock() - begin
                final = outcome.seconds >= self._duration
                verdicts = [metric.judge(final) for metric in self._metrics]
                if final or self._clear(verdicts):
                    return self._answer(outcome, verdicts)
        finally:
            for reading in self._readings.values():
                reading.source.end()

    def _poll(self) -> None:
        for name, reading in self._readings.items():
            try:
                seen = reading.source.poll()
            except SourceError as error:
                reading.failed += 1
                reading.failing = str(error)
                continue
            reading.polls += 1
            reading.failing, reading.down = "", seen.candidate.down
            for metric in self._metrics:
                if metric.source == name:
                    metric.feed(seen)

    def _clear(self, verdicts: Sequence[Verdict]) -> bool:
        decisions = {verdict.decision for verdict in verdicts}
        if ABORT in decisions or any(reading.down for reading in self._readings.values()):
            return True
        return self._early and decisions == {PROMOTE} and not any(self._blind(r) for r in self._readings.values())

    @staticmethod
    def _blind(reading: _Reading) -> str:
        return reading.failing or reading.source.doubt()

    def _answer(self, outcome: Outcome, verdicts: Sequence[Verdict]) -> Outcome:
        answers = []
        for name, reading in self._readings.items():
            source = reading.source
            outcome.sources.append(
                {
                    "name": name,
                    "title": source.title,
                    "polls": reading.polls,
                    "failed_polls": reading.failed,
                    **source.notes(),
                }
            )
            if reading.down:
                answers.append(
                    (
                        ABORT,
                        reading.down,
                        Finding("release.down", name, "critical", reading.down, advice=_ADVICE[ABORT]),
                    )
                )
            blind = self._blind(reading)
            if blind:
                answers.append(
                    (HOLD, blind, Finding("release.source", name, "warning", blind, advice="see that it can be read"))
                )
        for metric, verdict in zip(self._metrics, verdicts):
            reason = f"{metric.name}: {verdict.reason}"
            figures = verdict.figures.rounded()
            finding = Finding(
                f"release.{metric.kind}",
                metric.name,
                _SEVERITY[verdict.decision],
                reason,
                observed=figures["candidate_rate" if metric.kind == "errors" else "candidate_value"],
                limit=None if metric.test == "mann_whitney" else figures["limit"],
                unit={"errors": "ratio", "latency": "seconds"}.get(metric.kind),
                advice=_ADVICE[verdict.decision],
            )
            answers.append((verdict.decision, reason, finding))
            outcome.metrics.append(
                {
                    "name": metric.name,
                    "metric": metric.kind,
                    "source": metric.source,
                    "test": metric.test,
                    "decision": verdict.decision,
                    "reason": verdict.reason,
                    **figures,
                }
            )
        outcome.findings += [finding for _unused, _unused_too, finding in answers]
        worst = max((decision for decision, *_unused in answers), key=DECISIONS.index)
        outcome.decision = worst
        outcome.reason = "; ".join(reason for decision, reason, _unused in answers if decision == worst)
        return outcome


def judge_requests(results: Sequence[Result], outcome: Outcome) -> bool:
    """Put the results of a test of function into an outcome.

    :returns: whether all were good.
    """
    bad = []
    for result in results:
        outcome.requests.append(asdict(result))
        message = f"{result.name} on {result.target}: {result.said}"
        if not result.good:
            bad.append(message)
        outcome.findings.append(
            Finding(
                "release.request",
                f"{result.name} on {result.target}",
                "ok" if result.good else "critical",
                message,
                observed=result.said,
                advice=None if result.good else "give the candidate no traffic",
            )
        )
    outcome.decision = ABORT if bad else PROMOTE
    outcome.reason = "; ".join(bad) if bad else f"all {len(results)} requests were answered as they should be"
    return not bad
