# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ranks: against all pairs counted one by one, and against chance."""

from __future__ import annotations

import math
import random
from statistics import NormalDist

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release import ranks
from ansible_collections.worklog.maintenance.plugins.module_utils.release.ranks import Looks, Pool, compare, needed


def pairs(first: list[float], second: list[float]) -> float:
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in first for b in second)


@pytest.mark.parametrize("levels", [3, 20, 10**6])
@pytest.mark.parametrize(("mine", "others"), [(1, 1), (7, 30), (50, 20)])
def test_it_is_what_counting_all_pairs_gives(levels: int, mine: int, others: int) -> None:
    draw = random.Random(levels + mine)
    first = [float(draw.randrange(levels)) for _unused in range(mine)]
    second = [float(draw.randrange(levels)) for _unused in range(others)]
    above, total = pairs(first, second), mine + others
    assert compare(first, second).effect == pytest.approx(above / (mine * others))
    everything = first + second
    ties = sum(everything.count(value) ** 3 - everything.count(value) for value in set(everything))
    variance = mine * others / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance:
        distance = (above - mine * others / 2 - 0.5) / math.sqrt(variance)
        assert compare(first, second).p_value == pytest.approx(1 - NormalDist().cdf(distance), abs=1e-9)


def test_an_example_of_the_textbook() -> None:
    # Hollander and Wolfe, permeability constants of the human chorioamnion: W = 35 of 50, p = 0.127 (exact), one-sided
    term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    early = [1.15, 0.88, 0.90, 0.74, 1.21]
    found = compare(term, early)
    assert found.effect == pytest.approx(0.7)
    assert found.p_value == pytest.approx(0.127, abs=0.006)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], []), ([], [1.0]), ([2.0] * 9, [2.0] * 5)])
def test_nothing_to_compare_is_no_difference(first: list[float], second: list[float]) -> None:
    assert compare(first, second) == ranks.Comparison(0.5, 1.0)


def test_the_samples_that_are_needed_find_the_effect() -> None:
    # an effect of 0.6 of two normal distributions is a shift of sqrt(2) * 0.2533
    shift = math.sqrt(2) * NormalDist().inv_cdf(0.6)
    total = needed(0.6, 0.5, 0.01, 0.05)
    draw = random.Random(1)
    found = 0
    for _unused in range(200):
        first = [draw.gauss(shift, 1) for _unused_too in range(total // 2)]
        second = [draw.gauss(0, 1) for _unused_too in range(total // 2)]
        found += compare(first, second).p_value <= 0.01
    assert 0.91 <= found / 200 <= 0.985
    assert needed(0.6, 0.05, 0.01, 0.05) > 4 * total


def test_the_risks_of_all_looks_add_up_to_the_risk() -> None:
    looks = Looks(20, 0.01)
    taken = [risk for samples in range(1, 3000) if (risk := looks.take(samples)) is not None]
    assert len(taken) == 8  # 20, 40, … 2560
    assert sum(taken) + looks.last == pytest.approx(0.01)
    assert Looks(20, 0.01).last == 0.01
    several = Looks(20, 0.01)
    assert several.take(1000) == 0.005 and several.take(1279) is None and several.take(1280) is not None


def test_a_pool_is_a_fair_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "KEPT", 1000)
    pool = Pool(random.Random(3))
    assert pool.quantile(0.5) is None
    pool.add([float(number) for number in range(30_000)])
    assert len(pool.values) == 1000 and pool.seen == 30_000
    middle = pool.quantile(0.5)
    assert middle is not None and 13_000 < middle < 17_000
    few = Pool(random.Random(3))
    few.add([3.0, 1.0, 2.0])
    assert [few.quantile(share) for share in (0.01, 0.33, 0.34, 0.95)] == [1.0, 1.0, 2.0, 3.0]
