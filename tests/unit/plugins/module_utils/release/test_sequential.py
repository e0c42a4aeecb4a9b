# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The risks of the sequential tests, computed in other ways."""

from __future__ import annotations

import math
import random

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release.sequential import (
    Likelihood,
    RateTest,
    RelativeTest,
    binomial,
    hypergeometric_tail,
)


def crossing_one_by_one(test: RateTest, samples: int, last: int, rate: float) -> float:
    """Probability of an abort when one looks after every request, request by request."""
    states, crossed = {0: 1.0}, 0.0
    for seen in range(1, samples + 1):
        later: dict[int, float] = {}
        for errors, mass in states.items():
            later[errors] = later.get(errors, 0.0) + mass * (1 - rate)
            later[errors + 1] = later.get(errors + 1, 0.0) + mass * rate
        states = {}
        for errors, mass in later.items():
            if test.likelihood.ratio(seen, errors) >= test.upper or (seen == samples and errors >= last):
                crossed += mass
            else:
                states[errors] = mass
    return crossed


def test_distributions_are_those_of_the_textbook() -> None:
    assert binomial(10, 3, 0.2) == pytest.approx(120 * 0.2**3 * 0.8**7)
    assert sum(binomial(30, count, 0.3) for count in range(31)) == pytest.approx(1)
    assert binomial(3, 4, 0.5) == 0
    # Fisher's lady tasting tea: 3 or more of 4 right
    assert hypergeometric_tail(4, 3, 4, 1) == pytest.approx(17 / 70)
    assert hypergeometric_tail(600, 0, 600, 0) == 1
    assert hypergeometric_tail(5, 5, 3, 3) == pytest.approx(1)


@pytest.mark.parametrize(("good", "bad"), [(0.001, 0.01), (0.002, 0.01), (0.01, 0.05), (0.05, 0.08), (0.2, 0.4)])
@pytest.mark.parametrize("samples", [1, 60, 600, 1500])
def test_the_risk_of_an_alarm_is_what_it_says(good: float, bad: float, samples: int) -> None:
    test = RateTest(good, bad, 0.01, 0.05)
    assert test.lower < 0 < test.upper <= math.log(1 / 0.01)
    last = test.final_limit(samples)
    truth = crossing_one_by_one(test, samples, last, good)
    assert truth <= 0.01
    if (computed := test.alarms(test.upper, samples, last)) < 1:
        assert computed == pytest.approx(truth, abs=1e-5)
        # one error less at the end would be too bold
        assert last == 1 or crossing_one_by_one(test, samples, last - 1, good) > 0.01 - 1e-9
    assert test.alarms(test.upper, samples, last, rate=bad) == pytest.approx(
        crossing_one_by_one(test, samples, last, bad), abs=1e-5
    )


def test_the_boundary_uses_the_risk_up_and_not_more() -> None:
    test = RateTest(0.001, 0.01, 0.01, 0.05)
    assert 0.0095 < crossing_one_by_one(test, 4000, 10**6, 0.001) <= 0.01
    # Wald's would use less than half of it
    assert test.alarms(math.log(0.95 / 0.01)) < 0.006


def test_a_bad_rate_passes_with_its_risk_at_most() -> None:
    test = RateTest(0.001, 0.01, 0.01, 0.05)
    states, passed = {0: 1.0}, 0.0
    for seen in range(1, 3000):
        later: dict[int, float] = {}
        for errors, mass in states.items():
            later[errors] = later.get(errors, 0.0) + mass * 0.99
            later[errors + 1] = later.get(errors + 1, 0.0) + mass * 0.01
        states = {}
        for errors, mass in later.items():
            if test.likelihood.ratio(seen, errors) <= test.lower:
                passed += mass
            elif mass > 1e-12:
                states[errors] = mass
    assert 0.03 < passed <= 0.05


def test_samples_needed_are_just_enough() -> None:
    likelihood = Likelihood(0.001, 0.01)
    lower = math.log(0.05)
    for errors in (0, 1, 7):
        enough = likelihood.needed(errors, lower)
        assert likelihood.ratio(enough, errors) <= lower < likelihood.ratio(enough - 1, errors)
    assert likelihood.needed(0, lower) == 332


def relative(
    seed: int, mine: float, others: float, requests: int, other_requests: int, periods: int
) -> tuple[bool, RelativeTest]:
    """Whether one watch ends in an alarm, as the metric judges."""
    draw = random.Random(seed)
    test = RelativeTest(0.001, 0.01, 0.05, 0.05)
    for _unused in range(periods):
        errors = sum(draw.random() < mine for _unused_too in range(requests))
        other_errors = sum(draw.random() < others for _unused_too in range(other_requests))
        test.add(requests, errors, other_requests, other_errors)
        if test.against >= test.upper:
            return True, test
    return test.p_value() <= 0.025, test


@pytest.mark.parametrize(("rate", "requests", "others"), [(0.05, 20, 20), (0.2, 5, 20), (0.01, 20, 100)])
def test_equal_rates_are_no_alarm_however_bad_they_are(rate: float, requests: int, others: int) -> None:
    alarms = sum(relative(seed, rate, rate, requests, others, 20)[0] for seed in range(300))
    assert alarms <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05)


def test_a_worse_candidate_is_found_against_a_bad_baseline() -> None:
    assert sum(relative(seed, 0.3, 0.05, 20, 20, 20)[0] for seed in range(50)) == 50


def test_what_the_baseline_does_not_show_is_not_held_against_the_candidate() -> None:
    test = RelativeTest(0.001, 0.01, 0.01, 0.05)
    test.add(10, 2, 0, 0)
    assert test.against == 0 and test.candidate.errors == 2
    test.add(0, 0, 10, 10)
    assert test.tolerated + test.excess < 1
    assert math.isfinite(test.likelihood.ratio(10, 2))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.01, 0.01, 0.01, 0.05), "p1 above p0"),
        ((0.02, 0.01, 0.01, 0.05), "p1 above p0"),
        ((0.0, 0.01, 0.01, 0.05), "p0 must be above 0"),
        ((0.1, 1.0, 0.01, 0.05), "below 1"),
        ((0.001, 0.01, 0.0, 0.05), "alpha must be above 0 and below 0.5, but it is 0"),
        ((0.001, 0.01, 0.5, 0.05), "alpha"),
        ((0.001, 0.01, 0.01, 1.0), "beta"),
    ],
)
def test_rates_and_risks_that_make_no_sense_are_refused(values: tuple[float, float, float, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RateTest(*values)
    with pytest.raises(ValueError, match=words):
        RelativeTest(*values)
