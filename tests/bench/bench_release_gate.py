# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What release_gate finds and what it lets pass, simulated with a fixed seed beside what one would use instead.

    python3 tests/bench/bench_release_gate.py [RUNS]

1. Error rates: the candidate gets 10 requests a second, the gate looks once a second. For each true rate: how often it
   aborts, holds and promotes, and the median time to an abort. Beside it a fixed threshold, a fixed test that is looked
   at every second as if each look were the only one, and Mann-Whitney on the error rates of each second. Above that the
   bound of Neyman and Pearson: no test of so many requests with 1 % of false alarms finds more.
2. Latencies: log-normal, the candidate's so many times the baseline's.
3. New lines of a large access log: seconds and memory.
"""

from __future__ import annotations

import copy
import math
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from ansible_collections.worklog.maintenance.plugins.module_utils.release.access_log import AccessLogSource, Format
from ansible_collections.worklog.maintenance.plugins.module_utils.release.counts import Counts, Observation
from ansible_collections.worklog.maintenance.plugins.module_utils.release.metrics import (
    ABORT,
    HOLD,
    PROMOTE,
    Figures,
    Metric,
    RankMetric,
    RateMetric,
    RateThreshold,
    RelativeRateMetric,
    Verdict,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.ranks import compare
from ansible_collections.worklog.maintenance.plugins.module_utils.release.sequential import RateTest, binomial

PER_SECOND = 10
GOOD, BAD, ALPHA, BETA = 0.001, 0.01, 0.01, 0.05
DURATIONS = (60, 120, 500)
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.2)
LOG_FORMAT = '$remote_addr [$time_local] "$request" $status $upstream_addr $upstream_status $upstream_response_time'


class FixedTestEverySecond(RateThreshold):
    """What a script does that calls a binomial test in a loop."""

    def judge(self, final: bool) -> Verdict:
        mine = self.candidate
        tail = 1 - sum(binomial(mine.requests, count, GOOD) for count in range(mine.errors))
        return Verdict(ABORT if tail <= ALPHA else PROMOTE if final else HOLD, "", Figures())


class RanksOfSeconds(RateThreshold):
    """What Kayenta does: Mann-Whitney on a series of error rates, at the end."""

    def __init__(self) -> None:
        super().__init__("", "", 0.5, 1, BETA)
        self.series: tuple[list[float], list[float]] = ([], [])

    def feed(self, seen: Observation) -> None:
        for side, counts in zip(self.series, (seen.candidate, seen.baseline)):
            side.append(counts.errors / counts.requests)

    def judge(self, final: bool) -> Verdict:
        if not final:
            return Verdict(HOLD, "", Figures())
        return Verdict(ABORT if compare(*self.series).p_value <= ALPHA else PROMOTE, "", Figures())


ERROR_TESTS: dict[str, tuple[Callable[[], Metric], int]] = {
    "sprt, p0 0.1 %, p1 1 % (default)": (lambda: RateMetric("", "", GOOD, BAD, ALPHA, BETA, 100), 1),
    "sprt, p0 0.2 %, p1 1 %": (lambda: RateMetric("", "", 0.002, BAD, ALPHA, BETA, 100), 1),
    "sprt against a baseline of equal traffic": (lambda: RelativeRateMetric("", "", GOOD, BAD, ALPHA, BETA, 100), 1),
    "sprt against a baseline of 19 times the traffic": (
        lambda: RelativeRateMetric("", "", GOOD, BAD, ALPHA, BETA, 100),
        19,
    ),
    "threshold 0.5 %, min_samples 100": (lambda: RateThreshold("", "", 0.005, 100, BETA), 1),
    "a fixed binomial test, every second": (lambda: FixedTestEverySecond("", "", 0.5, 1, BETA), 1),
    "Mann-Whitney on rates per second": (RanksOfSeconds, 1),
}


class Traffic:
    """Requests of which each fails with a probability."""

    def __init__(self, draw: random.Random, rate: float) -> None:
        self.draw, self.rate = draw, rate
        self.until_error = self.gap()

    def gap(self) -> int:
        if not self.rate:
            return sys.maxsize
        return int(math.log(1 - self.draw.random()) / math.log1p(-self.rate))

    def take(self, requests: int) -> Counts:
        errors, left = 0, requests
        while self.until_error < left:
            left -= self.until_error + 1
            errors += 1
            self.until_error = self.gap()
        self.until_error -= left
        return Counts(requests, errors)


def watch(metric: Metric, seconds: int, second: Callable[[], Observation]) -> tuple[str, int]:
    """The decision, and when it fell."""
    for now in range(1, seconds + 1):
        metric.feed(second())
        if now < seconds and metric.judge(final=False).decision == ABORT:
            return ABORT, now
    return metric.judge(final=True).decision, seconds


def neyman_pearson(samples: int) -> float:
    """The power of the best test of so many requests, randomised so that it uses all of alpha."""
    left, power = ALPHA, 0.0
    for errors in range(samples, -1, -1):
        chance = binomial(samples, errors, GOOD)
        if chance > left:
            return power + binomial(samples, errors, BAD) * left / chance
        left -= chance
        power += binomial(samples, errors, BAD)
    return power


def error_rates(runs: int) -> None:
    print(f"errors: {PER_SECOND} requests a second, a look a second, {runs} runs; baseline {GOOD:.1%}")
    print("no test of that many requests with 1 % false alarms at 0.1 % finds 1 % more often than (Neyman-Pearson):")
    test = RateTest(GOOD, BAD, ALPHA, BETA)
    for seconds in DURATIONS:
        samples = seconds * PER_SECOND
        last = test.final_limit(samples)
        used = test.alarms(test.upper, samples, last)
        if used > ALPHA:  # so many samples that nothing is left to spend at the end
            used = test.alarms(test.upper, samples)
        found = test.alarms(test.upper, samples, last, rate=BAD)
        print(
            f"  {seconds:4} s: {neyman_pearson(samples):8.2%}; the default, computed: {found:8.2%}, "
            f"false alarms {used:.2%}"
        )
    for name, (make, times) in ERROR_TESTS.items():
        new = make()
        for seconds in DURATIONS if name.endswith("(default)") else DURATIONS[::2]:
            print(f"\n{name}; {seconds} s")
            print("  true rate      abort    hold  promote   median time to abort")
            for rate in RATES:
                draw = random.Random(f"{name} {seconds} {rate}")

                mine, others = Traffic(draw, rate), Traffic(draw, GOOD)

                def second(mine: Traffic = mine, others: Traffic = others, times: int = times) -> Observation:
                    return Observation(mine.take(PER_SECOND), others.take(PER_SECOND * times))

                ends = [watch(copy.deepcopy(new), seconds, second) for dummy in range(runs)]
                print(f"  {rate:9.1%} {shares(ends)}")


def shares(ends: list[tuple[str, int]]) -> str:
    parts = [sum(decision == one for decision, dummy in ends) / len(ends) for one in (ABORT, HOLD, PROMOTE)]
    moments = [moment for decision, moment in ends if decision == ABORT]
    middle = f"{statistics.median(moments):6.0f} s" if moments else "     -"
    return f"{parts[0]:9.1%} {parts[1]:7.1%} {parts[2]:8.1%}   {middle}"


def latencies(runs: int) -> None:
    print(f"\nlatency: mann_whitney with the defaults, {runs} runs, log-normal, median 40 ms, sigma 0.5")
    for seconds, base in ((60, 10), (120, 10), (60, 90)):
        print(f"candidate {PER_SECOND} and baseline {base} requests a second, {seconds} s")
        print("  times as slow  abort    hold  promote   median time to abort")
        for factor in (1.0, 1.1, 1.2, 1.5, 2.0, 4.0):
            draw = random.Random(f"latency {seconds} {base} {factor}")

            def second(draw: random.Random = draw, factor: float = factor, base: int = base) -> Observation:
                def some(count: int, middle: float) -> Counts:
                    return Counts(count, 0, [draw.lognormvariate(math.log(middle), 0.5) for dummy in range(count)])

                return Observation(some(PER_SECOND, 0.04 * factor), some(base, 0.04))

            ends = [
                watch(RankMetric("", "", 1.2, 0.005, 0.6, ALPHA, BETA, 20, draw), seconds, second)
                for dummy in range(runs)
            ]
            print(f"  {factor:9.1f} {shares(ends)}")


def lines(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield (
            b'10.1.2.3 [25/Nov/2026:16:56:07 +0000] "GET /api/records?page=%d HTTP/1.1" 200 10.0.0.%d:8080 200 0.012\n'
            % (number, 11 + number % 2)
        )


def large_log() -> None:
    count = 200_000
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "access.log")
        block = b"".join(lines(10_000))
        with path.open("wb") as stream:
            while stream.tell() < 1 << 30:
                stream.write(block)
        source = AccessLogSource(
            [str(path)],
            Format(LOG_FORMAT, "upstream_addr"),
            {"candidate": ["10.0.0.12:8080"], "baseline": ["10.0.0.11:8080"]},
            ["5xx"],
        )
        tracemalloc.start()
        begin = time.process_time()
        source.begin()
        first = source.poll()
        opened = time.process_time() - begin
        with path.open("ab") as stream:
            stream.writelines(lines(1_000))
        usual = source.poll()
        usual_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        with path.open("ab") as stream:
            stream.writelines(lines(count))
        begin = time.process_time()
        seen = source.poll()
        taken = time.process_time() - begin
        source.end()
    if (first.candidate.requests, usual.candidate.requests, seen.candidate.requests) != (0, 500, count // 2):
        raise SystemExit("the lines were not counted right")
    peak = f"{usual_peak / 2**20:.1f} MiB of memory at most"
    print(f"\na log of 1 GiB: opened in {opened * 1000:.1f} ms of the processor, with {peak}")
    print(f"{count:,} new lines in {taken:.2f} s of the processor ({count / taken:,.0f} lines a second)")


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    error_rates(runs)
    latencies(max(20, runs // 5))
    large_log()
    return 0


if __name__ == "__main__":
    sys.exit(main())
