# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shares, weights, plausible counts, and waiting for a side."""

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import probe, split
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import Side, TrafficError


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ([Side("a", percent=50), Side("b", percent=49)], "the percentages add up to 99, not 100: a 50 + b 49"),
        ([Side("a", percent=101), Side("b", percent=-1)], "the percentage of a is 101; it must be 0 to 100"),
        ([Side("a", percent=100), Side("b")], "b has no 'percent', but others have"),
        ([Side("a", percent=100), Side("b", weight=1)], "either 'percent' or 'weight'"),
        ([Side("a", weight=257)], "the weight of a is 257; it must be 0 to 256"),
        ([Side("a", weight=-1)], "it must be 0 to 256"),
        ([Side("a"), Side("a")], "the side 'a' is named twice"),
        ([Side("a", ("x",)), Side("b", ("x",))], "the server 'x' is named twice"),
        ([Side("a b")], "the name of the side 'a b'"),
        ([Side("a;b")], "the name of the side 'a;b'"),
        ([Side("a", ("x",), capacity={"y": 2})], "the capacity of 'y' in a"),
        ([Side("a", ("x",), capacity={"x": 0})], "must be above 0"),
    ],
)
def test_sides_that_do_not_fit_together(sides: list[Side], words: str) -> None:
    with pytest.raises(TrafficError) as error:
        split.check_sides(sides)
    assert words in str(error.value) and error.value.refused


def test_what_is_asked() -> None:
    assert split.check_sides([]) == split.check_sides([Side("a"), Side("b")]) == ""
    assert split.check_sides([Side("a", percent=33.33), Side("b", percent=66.67)]) == "percent"
    assert split.check_sides([Side("a", weight=0), Side("b", weight=256)]) == "weight"
    assert split.check_sides([Side("a", state="maint"), Side("b")]) == "state"


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([Side("a", ("1",), 90), Side("b", ("2",), 10)], {"1": 90, "2": 10}),
        ([Side("a", ("1",), 100), Side("b", ("2",), 0)], {"1": 100, "2": 0}),
        ([Side("a", ("1", "2"), 90), Side("b", ("3",), 10)], {"1": 45, "2": 45, "3": 10}),
        # ten percent of three servers are no whole hundredths
        ([Side("a", ("1",), 90), Side("b", ("2", "3", "4"), 10)], {"1": 27, "2": 1, "3": 1, "4": 1}),
        ([Side("a", ("1",), 99.5), Side("b", ("2",), 0.5)], {"1": 199, "2": 1}),
        ([Side("a", ("1", "2"), 100, capacity={"2": 3})], {"1": 25, "2": 75}),
        ([Side("a", ("1",), 99.9), Side("b", ("2",), 0.1)], {"1": 256, "2": 1}),  # the nearest that 256 allows
    ],
)
def test_weights_give_the_shares(sides: list[Side], expected: dict[str, int]) -> None:
    assert split.weights(split.server_shares(sides)) == expected


def test_weights_of_many_servers_stay_in_range() -> None:
    for count in (1, 3, 7, 40):
        for percent in (0, 1, 5, 33.3, 50, 99):
            sides = [Side("a", tuple(f"a{n}" for n in range(count)), percent), Side("b", ("b",), 100 - percent)]
            given = split.weights(split.server_shares(sides))
            assert all(0 <= weight <= 256 for weight in given.values())
            assert all((weight > 0) == (percent > 0) for name, weight in given.items() if name != "b")
            if percent * 256 >= count * (100 - percent):  # else the smallest weight is too much beside the largest
                assert abs(split.division(sides, given)["a"] - percent) < 0.35


def test_servers_that_are_out_do_not_count() -> None:
    sides = [Side("a", ("1", "2"), 50), Side("b", ("3",), 50)]
    given = split.weights(split.server_shares(sides, out=["2"]))
    assert given["1"] == given["2"] == given["3"]  # the one in service has all of the half


@pytest.mark.parametrize(
    ("seen", "count", "share", "fits"),
    [
        (0, 50, 0, True), (1, 50, 0, False), (50, 50, 1, True), (49, 50, 1, False),
        (5, 50, 0.1, True), (0, 50, 0.1, True), (25, 50, 0.1, False), (0, 200, 0.1, False),
        (10, 1000, 0.05, False), (50, 1000, 0.05, True), (5000, 10000, 0.5, True), (5400, 10000, 0.5, False),
    ],
)  # fmt: skip
def test_counts_that_fit_a_share(seen: int, count: int, share: float, fits: bool) -> None:
    assert split.plausible(seen, count, share) is fits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


def test_draining_ends_soon_after_the_last_request() -> None:
    clock = Clock()
    drained = split.wait_drained("blue", lambda: 3 if clock.now < 1.5 else 0, 10, clock.sleep, clock.monotonic)
    assert (drained.first, drained.left) == (3, 0) and 1.5 <= drained.seconds < 1.6


def test_draining_ends_at_its_limit() -> None:
    clock = Clock()
    drained = split.wait_drained("blue", lambda: 2, 1, clock.sleep, clock.monotonic)
    assert (drained.first, drained.left) == (2, 2) and 1 <= drained.seconds < 1.1


def test_draining_does_not_trust_one_zero() -> None:
    clock, counts = Clock(), iter([0, 1, 0, 0])
    drained = split.wait_drained("blue", lambda: next(counts), 10, clock.sleep, clock.monotonic)
    assert drained.left == 0 and list(counts) == []


# -- the probe ------------------------------------------------------------------------------------------------------

PROBE = probe.MarkedProbe("http://127.0.0.1/", header="X-Node", count=20)
SIDES = [Side("blue", ("app1",)), Side("green", ("app2:8080",))]


def test_a_probe_counts_the_answers_of_each_side() -> None:
    def answers(asked: probe.MarkedProbe, number: int) -> str:
        return "app1" if number % 2 else "green"

    assert probe.prove(PROBE, SIDES, {"blue": 50, "green": 50}, answers) == {
        "requests": 20, "answers": {"blue": 10, "green": 10},
    }  # fmt: skip
    with pytest.raises(TrafficError, match=r"of 20 answers of http://127\.0\.0\.1/ came blue 10, green 10"):
        probe.prove(PROBE, SIDES, {"blue": 0, "green": 100}, answers)
    with pytest.raises(TrafficError, match="is of no side: the marks are blue, green, app1, app2"):
        probe.prove(PROBE, SIDES, {"blue": 50, "green": 50}, lambda asked, number: "app3")


def test_marks_belong_to_one_side() -> None:
    same = [Side("blue", ("127.0.0.1:1",)), Side("green", ("127.0.0.1:2", "unix:/run/x"))]
    assert probe.owners(same) == {"blue": "blue", "green": "green"}
    with pytest.raises(TrafficError, match=r"'1\.0' is a mark of a and of b"):
        probe.owners([Side("a", marks=("1.0",)), Side("b", marks=("1.0",))])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "ftp://a/", "header": "x"}, "not an http or https URL"),
        ({"url": "http://a/"}, "needs one of 'header', 'json' and 'regex'"),
        ({"url": "http://a/", "header": "x", "json": "y"}, "needs one of"),
        ({"url": "http://a/", "regex": "x"}, "has no group"),
        ({"url": "http://a/", "regex": "("}, "is wrong"),
        ({"url": "http://a/", "header": "x", "count": 0}, "makes 0 requests"),
        ({"url": "http://a/", "header": "x", "vary": "Cookie"}, "write a header with %s"),
        ({"url": "http://a/", "header": "x", "vary": "A: %s\r\nB: 1"}, "write a header with %s"),
    ],
)
def test_probes_that_cannot_be_made(options: dict, words: str) -> None:
    with pytest.raises(TrafficError) as error:
        probe.check(probe.MarkedProbe(**options))
    assert words in str(error.value)
