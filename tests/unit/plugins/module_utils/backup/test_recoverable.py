# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be recovered, and which backups it takes: tables of chains, logs and gaps, and what no history may break."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import recoverable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import (
    Catalogue,
    Plan,
    Target,
    Unreachable,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from hypothesis import given
from hypothesis import strategies as st

HOUR = 3600.0
DAY = 24 * HOUR
BEGIN = 1_790_000_000.0


class History:
    """Makes backups of one server in the order in which they are asked for.

    The server begins a new log with every log backup; one transaction is written a second.
    """

    def __init__(self) -> None:
        self.now = BEGIN
        self.number = 1
        self.lsn = 100
        self.kept: list[Kept] = []

    def wait(self, seconds: float) -> History:
        self.now += seconds
        return self

    def gtid(self) -> str:
        return f"0-1-{int(self.now - BEGIN) + 1000}"

    def add(self, kind: str, positions: dict[str, Any], **values: Any) -> Kept:
        verdict = values.pop("verdict", "verified")
        name = f"{kind[0]}{len(self.kept)}"
        manifest = Manifest(
            f"/b/{name}/manifest.json",
            id=name,
            kind=kind,
            sequence=len(self.kept) + 1,
            started=values.pop("started", self.now),
            ended=values.pop("ended", self.now),
            parent=values.pop("parent", None),
            positions=positions,
            document=values,
        )
        self.kept.append(Kept(f"/b/{name}", manifest, verdict))
        return self.kept[-1]

    def full(self, **values: Any) -> Kept:
        self.lsn += 10
        return self.add("full", {"from_lsn": 0, "to_lsn": self.lsn, **self.place()}, **values)

    def incremental(self, parent: Kept, **values: Any) -> Kept:
        begins = values.pop("from_lsn", parent.manifest.positions["to_lsn"])
        self.lsn += 10
        return self.add(
            "incremental", {"from_lsn": begins, "to_lsn": self.lsn, **self.place()}, parent=parent.id, **values
        )

    def place(self) -> dict[str, Any]:
        seconds = int(self.now - BEGIN)
        return {"binlog_file": f"b.{self.number:06d}", "binlog_position": 400 + seconds % 1000, "gtid": self.gtid()}

    def log(self, skip: int = 0, **values: Any) -> Kept:
        """Copy the log that is written now; ``skip``: so many before it are lost."""
        last = next((kept for kept in reversed(self.kept) if kept.manifest.kind == "log"), None)
        begins = last.manifest.positions["gtid_end"] if last and not skip else f"0-1-{int(self.now - BEGIN) + 999}"
        self.number += skip
        name = f"b.{self.number:06d}"
        self.number += 1
        positions = {
            "first_file": name,
            "last_file": name,
            "gtid_start": begins,
            "gtid_end": self.gtid(),
            "last_time": recoverable.utc(self.now - 5),
        }
        return self.add("log", positions, **values)

    def catalogue(self, **options: Any) -> Catalogue:
        return Catalogue("db", self.kept, **options)


def ids(plan: Plan) -> list[str]:
    return [kept.id for kept in (*plan.base.chain, *plan.logs)]


@pytest.fixture
def week() -> History:
    """A full backup, two days with an incremental one each, and a log every six hours."""
    history = History()
    history.full()
    base = history.kept[0]
    for _day in range(2):
        for _quarter in range(4):
            history.wait(6 * HOUR).log()
        base = history.wait(60).incremental(base)
    history.wait(6 * HOUR).log()
    return history


def test_none() -> None:
    statement = Catalogue("db", []).statement()
    assert statement.sentence() == "db is not recoverable: it has no backup"
    assert statement.as_dict()["recoverable"] is False
    with pytest.raises(Unreachable, match="nothing of db can be restored"):
        Catalogue("db", []).plan(Target())


def test_an_unbroken_week_is_one_window(week: History) -> None:
    statement = week.catalogue().statement()
    assert statement.sentence() == ("db is recoverable from 2026-09-21T14:13:20Z to 2026-09-23T20:15:20Z, gaps: none")
    assert len(statement.windows) == 1 and statement.unusable == ()


def test_the_newest_state_takes_the_chain_and_the_logs_after_it(week: History) -> None:
    assert ids(week.catalogue().plan(Target())) == ["f0", "i5", "i10", "l11"]


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (0, ["f0"]),
        (1, ["f0", "l1"]),
        (6, ["f0", "l1"]),
        (7, ["f0", "l1", "l2"]),
        (24.02, ["f0", "i5"]),
        (25, ["f0", "i5", "l6"]),
        (54, ["f0", "i5", "i10", "l11"]),
    ],
)
def test_a_moment_takes_the_nearest_base_and_the_logs_up_to_it(
    week: History, hours: float, expected: list[str]
) -> None:
    plan = week.catalogue().plan(Target(time=BEGIN + hours * HOUR if hours != 24.02 else BEGIN + DAY + 60))
    assert ids(plan)[: len(expected)] == expected
    assert len(ids(plan)) <= len(expected) + 1


def test_a_moment_after_the_last_log_names_what_is_nearest(week: History) -> None:
    with pytest.raises(Unreachable) as caught:
        week.catalogue().plan(Target(time=week.now + DAY))
    assert caught.value.before == week.now and caught.value.after is None
    assert "cannot be recovered to 2026-09-24T20:15:20Z: it is the newest log" in str(caught.value)
    with pytest.raises(
        Unreachable, match=r"no backup is as old as that.*before it is none, after it 2026-09-21T14:13:20Z"
    ):
        week.catalogue().plan(Target(time=BEGIN - 1))


def test_a_missing_log_is_a_gap_until_the_next_base(week: History) -> None:
    week.wait(6 * HOUR).log(skip=2)
    week.wait(60).full()
    week.wait(6 * HOUR).log()
    known = week.catalogue()
    ((since, until, why),) = known.statement().gaps
    assert (since, until) == (week.kept[11].manifest.ended, week.kept[13].manifest.ended)
    assert "are missing" in why
    assert "gaps: 2026-09-23T20:15:20Z to 2026-09-24T02:16:20Z (" in known.statement().sentence()
    with pytest.raises(Unreachable) as caught:
        known.plan(Target(time=since + HOUR))
    assert (caught.value.before, caught.value.after) == (since, until)
    assert ids(known.plan(Target())) == ["f13", "l14"]


def test_a_log_that_is_damaged_is_a_gap_too(week: History) -> None:
    week.kept[7] = Kept(week.kept[7].path, week.kept[7].manifest, "damaged")
    ((since, until, _why),) = week.catalogue().statement().gaps
    assert (since, until) == (BEGIN + 4 * 6 * HOUR + 60 + 6 * HOUR, BEGIN + 8 * 6 * HOUR + 120)


@pytest.mark.parametrize("verdict", [None, "inconclusive"])
def test_only_what_was_verified_counts_unless_told_otherwise(week: History, verdict: str | None) -> None:
    week.kept[0] = Kept("/b/f0", week.kept[0].manifest, verdict)
    statement = week.catalogue().statement()
    assert not statement.windows and "does not count" in statement.sentence()
    assert week.catalogue(unverified=True).statement().windows


@pytest.mark.parametrize("verdict", ["damaged", "missing"])
def test_what_is_damaged_never_counts(week: History, verdict: str) -> None:
    week.kept[0] = Kept("/b/f0", week.kept[0].manifest, verdict)
    assert not week.catalogue(unverified=True).statement().windows


def test_a_stale_backup_counts(week: History) -> None:
    week.kept[0] = Kept("/b/f0", week.kept[0].manifest, "stale")
    assert week.catalogue().statement().windows


def test_a_broken_chain_is_not_used_and_named(week: History) -> None:
    del week.kept[5]  # the first incremental one
    known = week.catalogue()
    assert [base.last.id for base in known.bases] == ["f0"]
    assert "incremental i10" in known.unusable[0] and "i5 that it stands on is not there" in known.unusable[0]
    assert ids(known.plan(Target()))[0] == "f0" and "i10" not in ids(known.plan(Target()))
    with pytest.raises(Unreachable, match="no backup i10 that can be restored by itself: incremental i10"):
        known.plan(Target(backup="i10"))


def test_a_chain_whose_lsn_do_not_meet_is_not_used() -> None:
    history = History()
    history.incremental(history.full(), from_lsn=7)
    assert history.catalogue().unusable == [
        "incremental i1 of 2026-09-21T14:13:20Z does not count: it begins at LSN 7, but f0 ends at 110"
    ]


def test_logs_that_begin_anew_are_not_taken_for_a_continuation() -> None:
    history = History()
    history.full()
    history.wait(HOUR).log()
    history.number = 1  # a restore in place, or RESET MASTER
    history.wait(HOUR)
    positions = {"first_file": "b.000001", "last_file": "b.000009", "gtid_start": "", "gtid_end": "0-1-3"}
    history.add("log", positions)
    known = history.catalogue()
    assert known.until(known.bases[0]) == BEGIN + HOUR
    assert "begin anew" in known.statement().windows[0].ends


def test_a_base_is_not_led_on_by_the_logs_of_the_server_that_took_its_place() -> None:
    history = History()
    history.wait(HOUR).full()
    history.add("log", {"first_file": "b.000001", "last_file": "b.000009", "gtid_end": "0-1-3"})
    known = history.catalogue()
    assert known.reach(known.bases[0])[0] == ()


def test_a_gap_that_was_seen_when_the_logs_were_copied_is_one() -> None:
    history = History()
    history.full()
    history.wait(HOUR).log()
    history.wait(HOUR).log(gap={"reason": "the server has removed b.000002"})
    assert history.catalogue().statement().windows[0].ends == "the server has removed b.000002"


def test_a_clock_that_was_set_back_is_told_and_the_order_stays() -> None:
    history = History()
    history.full()
    history.wait(DAY).log()
    history.wait(-6 * HOUR).log()
    history.wait(HOUR).full()
    known = history.catalogue()
    assert any("the clock was set back between l1" in text for text in known.unusable)
    assert ids(known.plan(Target())) == ["f3"]
    assert ids(known.plan(Target(gtid="0-1-50000"))) == ["f0", "l1"]


@pytest.mark.parametrize(
    ("gtid", "expected"),
    [("0-1-1000", ["f0"]), ("0-1-1001", ["f0", "l1"]), ("0-1-87460", ["f0", "i5"]), ("0-1-87461", ["f0", "i5", "l6"])],
)
def test_a_transaction(week: History, gtid: str, expected: list[str]) -> None:
    assert ids(week.catalogue().plan(Target(gtid=gtid))) == expected


@pytest.mark.parametrize("gtid", ["0-1-999", "0-1-999999", "5-1-1", "x", "3e11fa47-71ca-11e1-9e33-c80aa9429562:23"])
def test_a_transaction_that_is_nowhere(week: History, gtid: str) -> None:
    with pytest.raises(Unreachable):
        week.catalogue().plan(Target(gtid=gtid))


def test_a_place_takes_a_base_before_it(week: History) -> None:
    known = week.catalogue()
    assert ids(known.plan(Target(place=("l6", "b.000005", 9999)))) == ["f0", "i5", "l6"]
    assert ids(known.plan(Target(place=("l6", "b.000005", 4))))[:2] == ["f0", "l1"], "before the increment's own place"
    with pytest.raises(Unreachable):
        known.plan(Target(place=("l1", "b.000001", 4)))


def test_a_copy_of_the_files_goes_before_a_dump() -> None:
    history = History()
    history.full()
    history.wait(HOUR).log()
    history.wait(60).add("dump", history.place())
    history.wait(HOUR).log()
    assert ids(history.catalogue().plan(Target())) == ["f0", "l1", "l3"]
    history.kept[0] = Kept("/b/f0", history.kept[0].manifest, "damaged")
    assert ids(history.catalogue().plan(Target())) == ["d2", "l3"]


@pytest.mark.parametrize("more", [{"databases": ["worklog"]}, {"excluded": ["worklog.cache"]}])
def test_a_dump_of_a_part_is_no_state_of_the_source(more: dict[str, Any]) -> None:
    history = History()
    history.wait(60).add("dump", history.place(), **more)
    history.wait(HOUR).log()
    known = history.catalogue()
    assert ids(known.plan(Target())) == ["d0"], "it is all there is"
    assert ids(known.plan(Target(backup="d0"))) == ["d0"]
    with pytest.raises(Unreachable, match="d0 holds some databases or tables only"):
        known.plan(Target(time=history.now - 10))
    history.wait(60).full()
    history.wait(60).add("dump", history.place(), **more)
    history.wait(HOUR).log()
    known = history.catalogue()
    assert ids(known.plan(Target())) == ["f2", "l4"]
    assert ids(known.plan(Target(time=history.now - 10))) == ["f2", "l4"]
    assert ids(known.plan(Target(backup="d3"))) == ["d3"]
    assert len(known.statement().moments) == 1


def test_without_logs_the_newest_not_after_the_moment_is_taken() -> None:
    history = History()
    for _number in range(3):
        history.wait(DAY).add("snapshot", {})
    known = history.catalogue()
    assert known.statement().sentence() == (
        "db is recoverable to 3 moments from 2026-09-22T14:13:20Z to 2026-09-24T14:13:20Z"
    )
    plan = known.plan(Target(time=BEGIN + 2.5 * DAY))
    assert ids(plan) == ["s1"] and plan.moment == BEGIN + 2 * DAY
    with pytest.raises(Unreachable):
        known.plan(Target(time=BEGIN))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["full", "incremental", "log", "lost", "damaged", "unverified"]),
        st.integers(-7200, 90000),
    ),
    max_size=25,
)


@given(STEPS, st.floats(-1e5, 2e6))
def test_no_history_makes_a_plan_that_does_not_hold(steps: list[tuple[str, int]], offset: float) -> None:
    history = History()
    parent: Kept | None = None
    for step, seconds in steps:
        history.wait(seconds)
        verdict = {"damaged": "damaged", "unverified": None}.get(step, "verified")
        if step == "incremental" and parent is not None:
            parent = history.incremental(parent)
        elif step in ("log", "lost"):
            history.log(skip=step == "lost")
        else:
            parent = history.full(verdict=verdict)
    known = history.catalogue()
    statement = known.statement()
    assert all(left.until < right.since for left, right in zip(statement.windows, statement.windows[1:]))
    for target in (Target(), Target(time=BEGIN + offset)):
        try:
            plan = known.plan(target)
        except Unreachable as error:
            inside = [window for window in statement.windows if window.since <= (target.time or 0) <= window.until]
            assert target.time is None or not inside, error
            continue
        used = [*plan.base.chain, *plan.logs]
        assert all(kept.verdict == "verified" for kept in used)
        assert [kept.manifest.sequence for kept in used] == sorted(kept.manifest.sequence for kept in used)
        for left, right in zip(plan.base.chain, plan.base.chain[1:]):
            assert right.manifest.parent == left.id
        numbers = [recoverable.number_of(log.manifest.positions["last_file"]) for log in plan.logs]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        if numbers:
            assert numbers[0] == recoverable.number_of(plan.base.position[0] if plan.base.position else None)
