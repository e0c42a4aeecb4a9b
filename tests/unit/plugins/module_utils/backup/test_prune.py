# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of pruning: what it keeps in the cases that cost others their backups, and what holds in every case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.prune import Holding, Plan, Policy, plan
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.capability("A7")

DAY = 86400.0
NOW = 1_790_000_000.0
GOOD = ("verified", "structure_ok")


def backup(
    sequence: int,
    age: float,
    kind: str = "full",
    *,
    parent: int | None = None,
    verdict: str | None = "verified",
    source: str = "db",
    **positions: str,
) -> Kept:
    """A backup that was complete ``age`` days before now; its id is its sequence."""
    path = f"/backups/db/{kind}/{sequence:05}"
    document = Manifest(
        f"{path}/manifest.json",
        id=str(sequence),
        source=source,
        kind=kind,
        parent=None if parent is None else str(parent),
        sequence=sequence,
        ended=NOW - age * DAY,
        positions=dict(positions),
        sha256=f"sha{sequence}",
    )
    return Kept(path, document, verdict, None if verdict is None else NOW - age * DAY)


def daily(ages: Iterable[float], **more: Any) -> list[Kept]:
    """Fulls of these ages, the oldest first."""
    return [backup(number, age, **more) for number, age in enumerate(sorted(ages, reverse=True), 1)]


def decide(backups: Sequence[Kept], policy: Policy | None = None, **more: Any) -> Plan:
    return plan("db", backups, policy or Policy(), **{"now": NOW, **more})


def gone(found: Plan) -> list[int]:
    return sorted(kept.manifest.sequence for kept in found.delete)


def reason(found: Plan, sequence: int) -> str:
    return next(entry.reason for entry in found.decisions if entry.backup.manifest.sequence == sequence)


def by_find(backups: Iterable[Kept], days: int = 7) -> list[int]:
    """What ``find -mtime +7 -exec rm -rf`` of the guide removes."""
    ages = ((kept, (NOW - (kept.manifest.ended or 0)) // DAY) for kept in backups)
    return [kept.manifest.sequence for kept, age in ages if age > days]


def test_none_one_many() -> None:
    assert decide([]) == Plan([], {})
    assert gone(decide(daily([0]))) == []
    assert gone(decide(daily(range(12)))) == [1, 2, 3, 4]
    assert gone(decide(daily(range(8)))) == []


def test_a_healthy_week_goes_as_find_does_it() -> None:
    backups = daily([age + 0.01 for age in range(12)])
    found = decide(backups)
    assert gone(found) == [1, 2, 3, 4, 5][: len(by_find(backups))]
    assert reason(found, 1) == "it is older than 7 d, and 11 newer verified ones stand alone"
    assert reason(found, 9) == "it is not older than 7 d"


def test_a_failing_streak_of_ten_days_keeps_what_find_removes() -> None:
    backups = daily([age + 10 for age in range(7)])
    assert by_find(backups) == [1, 2, 3, 4, 5, 6, 7], "the guide's line removes the last good backup"
    found = decide(backups)
    assert gone(found) == []
    assert "stale" in found.refusals
    assert "full/00007, is 10 d old, and may be 8 d" in found.refusals["stale"]


def test_a_failing_streak_lets_nothing_grow_old_before_it_is_noticed() -> None:
    backups = daily([age + 5 for age in range(7)])
    assert by_find(backups) == [1, 2, 3, 4]
    assert gone(decide(backups)) == []


@pytest.mark.parametrize("verdict", [None, "damaged", "inconclusive", "missing", "stale"])
def test_failed_and_unverified_backups_never_count(verdict: str | None) -> None:
    old = daily([20, 21, 22])
    new = [backup(10 + number, 5 - number, verdict=verdict) for number in range(5)]
    found = decide([*old, *new], Policy(fresh=30 * DAY, max_share=1))
    assert gone(found) == []
    assert "full/00014, is" in found.refusals["unverified"]
    verified = decide([*old, *new, backup(20, 0)], Policy(fresh=30 * DAY, max_share=1))
    assert gone(verified) == [1, 2], "the newest verified of the old ones is the second one"
    assert reason(verified, 3) == "it is one of the newest 2 verified of kind full"


def test_damaged_ones_go_with_their_age() -> None:
    backups = [backup(1, 9, verdict="damaged"), *[backup(2 + number, 3 - number) for number in range(3)]]
    found = decide(backups)
    assert gone(found) == [1]
    assert reason(found, 1) == "it is damaged, it is older than 7 d, and 3 newer verified ones stand alone"


@pytest.mark.parametrize(
    ("options", "refusal", "words"),
    [
        ({"now": NOW - 2 * DAY}, "time", "but full/00012 was complete at"),
        ({"now": NOW - 301}, "time", "but full/00012 was complete at"),
        ({"seen": NOW + DAY}, "time", "but the last run was at"),
        ({"seen": NOW - 4 * DAY}, "clock", "4 d ahead of the last run"),
        ({"now": NOW + 20 * DAY, "seen": NOW}, "clock", "20 d ahead of the last run"),
        ({"now": NOW + 20 * DAY, "seen": NOW, "allow": ["clock", "share"]}, "stale", "20 d old, and may be 8 d"),
        ({"policy": Policy(max_share=0.2)}, "share", "4 of 12 backups would go, more than 20% of them"),
        ({"policy": Policy(fresh=DAY / 24), "now": NOW + DAY}, "stale", "24 h old, and may be 60 min"),
    ],
)
def test_refusals(options: dict[str, Any], refusal: str, words: str) -> None:
    found = decide(daily(range(12)), **options)
    assert found.delete == []
    assert words in found.refusals[refusal]
    assert reason(found, 1).startswith("it would go, but ")
    assert [finding.check for finding in found.findings("db")] == [f"backup.prune.{name}" for name in found.refusals]


def test_overrides_are_named_and_do_only_what_they_say() -> None:
    backups = daily(range(12))
    assert gone(decide(backups, Policy(max_share=0.2), allow=["share"])) == [1, 2, 3, 4]
    assert gone(decide(backups, Policy(max_share=0.2), allow=["clock"])) == []
    assert gone(decide(backups, seen=NOW - 4 * DAY, allow=["clock"])) == [1, 2, 3, 4]
    assert gone(decide(backups, seen=NOW - 4 * DAY, allow=["share"])) == []
    assert gone(decide(backups, Policy(fresh=0), now=NOW + 60, allow=["share", "clock"])) == []


def test_a_long_pause_is_no_trouble_when_nothing_would_go() -> None:
    assert decide(daily(range(3)), seen=NOW - 5 * DAY).refusals == {}


def test_a_clock_that_ran_ahead_while_backups_were_made_lets_nothing_go() -> None:
    backups = [*daily(range(5)), backup(10, -300)]
    assert gone(decide(backups)) == []
    assert gone(decide(backups, now=NOW + 300 * DAY, seen=NOW)) == []


def test_a_clock_that_was_behind_makes_no_backup_old() -> None:
    """In the year 1970 a backup was made: it is as old as the one before it."""
    backups = [*daily([3, 2]), backup(3, NOW / DAY), backup(4, 0), backup(5, 0), backup(6, 0)]
    assert gone(decide(backups)) == []


def test_order_is_by_sequence() -> None:
    """Twelve backups of the same second: the newest are those that were made last."""
    backups = [backup(number, 20) for number in range(1, 12)] + [backup(12, 0), backup(13, 0)]
    found = decide(list(reversed(backups)), Policy(last=3, max_share=1))
    assert gone(found) == list(range(1, 11))


def chains(weeks: int) -> list[Kept]:
    """A full every seven days, an incremental on each other day, four logs a day; the newest full is one day old."""
    backups: list[Kept] = []
    parent, last = 0, 0
    for day in range(weeks * 7 - 5):
        age, number = weeks * 7 - 6 - day, len(backups) + 1
        full = day % 7 == 0
        backups.append(backup(number, age, "full" if full else "incremental", parent=None if full else parent))
        parent, last = number, last or number
        for quarter in range(4):
            number = len(backups) + 1
            backups.append(backup(number, age - 0.1 - quarter / 5, "log", parent=last))
            last = number
    return [
        replace(kept, manifest=replace(kept.manifest, ended=min(kept.manifest.ended or 0, NOW))) for kept in backups
    ]


def test_a_chain_stays_as_long_as_one_of_it_is_needed() -> None:
    found = decide(chains(4), Policy(max_share=1))
    kept = [entry.backup for entry in found.decisions if entry.keep]
    fulls = [entry.manifest.sequence for entry in kept if entry.manifest.kind == "full"]
    assert fulls == [71, 106], "the last seven days begin in the chain of the third full"
    assert gone(found) == list(range(1, 71))
    assert reason(found, 71) in (
        "it is one of the newest 2 verified of kind full", "incremental/00076 is based on it",
    )  # fmt: skip


def test_logs_stay_from_the_oldest_recent_full_on() -> None:
    fulls = [backup(1, 20), backup(10, 9), backup(20, 5), backup(30, 1)]
    logs = [
        backup(number, 20 - number * 0.65, "log", parent=number - 1)
        for number in range(2, 30)
        if number not in (10, 20)
    ]
    found = decide([*fulls, *logs], Policy(max_share=1))
    assert gone(found) == list(range(1, 10))
    assert reason(found, 10) == "recovery with log/00019 begins with it"
    assert reason(found, 11) == "recovery from full/00010 to any later moment needs it"


def test_logs_stay_from_the_full_that_a_recent_incremental_is_based_on() -> None:
    backups = [
        backup(1, 12), backup(2, 11, "log", parent=1), backup(3, 6, "incremental", parent=1), backup(4, 5), backup(5, 0)
    ]  # fmt: skip
    found = decide(backups, Policy(max_share=1))
    assert gone(found) == []
    assert reason(found, 2) == "recovery from full/00001 to any later moment needs it"


def test_a_log_that_was_kept_before_a_full_but_holds_its_begin_stays() -> None:
    fulls = [backup(1, 30), *[backup(number, 20 - number, binlog_file="bin.000008") for number in (10, 19)]]
    logs = [backup(7, 12, "log", last_file="bin.000007"), backup(8, 12, "log", last_file="bin.000008")]
    found = decide([*fulls, *logs], Policy(max_share=1))
    assert gone(found) == [1, 7]


def test_weeks_and_months_stay_without_their_logs() -> None:
    backups = daily(range(200), source="db")
    logs = [backup(1000 + number, 0.5, "log") for number in range(2)]
    old = replace(backups[99], path="/backups/db/log/00100", manifest=replace(backups[99].manifest, kind="log"))
    backups[99:100] = []
    found = decide([*backups, old, *logs], Policy(weekly=4, monthly=3, max_share=1))
    kept = [entry for entry in found.decisions if entry.keep and entry.backup.manifest.kind == "full"]
    weeks, months = ([entry for entry in kept if f"of the {word} 20" in entry.reason] for word in ("week", "month"))
    assert [len(kept), len(weeks), len(months)] == [12, 2, 2], "eight days hold two of the weeks and one of the months"
    assert 100 in gone(found), "a log of long ago"


def test_each_kind_that_stands_alone_keeps_two() -> None:
    backups = daily(range(12)) + [backup(100 + age, 40 - age, "dump") for age in range(4)]
    ordered = [replace(kept, manifest=replace(kept.manifest, sequence=i + 1)) for i, kept in enumerate(
        sorted(backups, key=lambda kept: kept.manifest.ended or 0))]  # fmt: skip
    found = decide(ordered, Policy(max_share=1))
    assert gone(found) == [1, 2, 5, 6, 7, 8]


def test_a_backup_whose_parent_is_missing_is_worth_nothing() -> None:
    backups = [
        *daily([30, 29, 28]), backup(10, 3, "incremental", parent=9), backup(11, 2, "incremental", parent=10),
    ]  # fmt: skip
    found = decide(backups, Policy(fresh=60 * DAY, max_share=1))
    assert gone(found) == [], "it neither counts nor lets others grow old"
    assert gone(decide([*backups, backup(12, 0)], Policy(fresh=60 * DAY, max_share=1))) == [1, 2]


def holding(numbers: Iterable[int], **more: Any) -> Holding:
    return Holding("remote", {str(number): f"sha{number}" for number in numbers}, **{"checked": NOW, **more})


@pytest.mark.parametrize(
    ("tier", "expected", "words"),
    [
        (holding(range(1, 20)), [1, 2, 3, 4], None),
        (holding([1, 3]), [1, 3], "the tier 'remote' has no proven copy of it"),
        (holding([]), [], "the tier 'remote' has no proven copy of it"),
        (
            Holding("remote", {str(n): "other" for n in range(20)}, NOW),
            [],
            "the tier 'remote' has no proven copy of it",
        ),
        (holding(range(1, 20), checked=None), [], "the tier 'remote' cannot be relied upon: it was never checked"),
        (holding(range(1, 20), checked=NOW - 9 * DAY), [], "cannot be relied upon: it was last checked 9 d ago"),
        (holding(range(1, 20), trouble="a pack is gone"), [], "cannot be relied upon: a pack is gone"),
    ],
)
def test_a_local_copy_goes_after_an_equal_one_is_proven(tier: Holding, expected: list[int], words: str | None) -> None:
    found = decide(daily(range(12)), tiers=[tier])
    assert gone(found) == expected
    assert words is None or words in reason(found, 2)
    assert gone(decide(daily(range(12)), tiers=[holding(range(1, 20)), tier])) == expected


def test_what_waits_for_a_tier_keeps_what_it_is_based_on() -> None:
    backups = [
        backup(1, 30), backup(2, 29, "incremental", parent=1), backup(3, 28, "incremental", parent=2), *daily([])
    ] + [backup(10 + number, 3 - number) for number in range(3)]  # fmt: skip
    found = decide(backups, Policy(max_share=1), tiers=[holding([1, 2, 10, 11, 12])])
    assert gone(found) == []
    assert reason(found, 1) == "incremental/00002 is based on it"


def test_a_damaged_one_needs_no_copy() -> None:
    backups = [backup(1, 9, verdict="damaged"), *[backup(2 + number, 3 - number) for number in range(3)]]
    assert gone(decide(backups, tiers=[holding([2, 3, 4])])) == [1]


def test_what_is_held_stays_for_its_time() -> None:
    found = decide(daily(range(12)), held={"1": NOW + DAY, "2": NOW - 1})
    assert gone(found) == [2, 3, 4]
    assert reason(found, 1) == "it was fetched and is held for another 24 h"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "other"}, "its manifest names the source 'other'"),
        ({"sequence": 0}, "its manifest has no sequence"),
        ({"ended": None}, "its manifest does not say when it was complete"),
        ({"id": "3"}, "another directory has the same id"),
    ],
)
def test_what_leaves_open_what_it_is_stays(change: dict[str, Any], words: str) -> None:
    backups = daily(range(12))
    backups[0] = replace(backups[0], manifest=replace(backups[0].manifest, **change))
    found = decide(backups)
    assert next(entry for entry in found.decisions if entry.backup.path == backups[0].path).keep
    assert words in next(entry.reason for entry in found.decisions if entry.backup.path == backups[0].path)
    assert 2 in gone(found)


def test_a_time_beyond_all_calendars_is_no_error() -> None:
    assert decide([*daily(range(12)), backup(20, -1e15)]).delete == []


def test_an_interrupted_run_goes_on_although_its_share_was_allowed_then_only() -> None:
    backups = daily([*range(20, 31), 0, 1])
    policy = Policy(max_share=0.5)
    assert gone(decide(backups, policy)) == []
    journal = [str(number) for number in gone(decide(backups, policy, allow=["share"]))]
    assert gone(decide(backups[:8] + backups[-2:], policy)) == []
    assert gone(decide(backups[:8] + backups[-2:], policy, approved=journal)) == list(range(1, 9))
    assert gone(decide(backups[:8] + backups[-2:], policy, approved=journal[:2])) == []


# What holds in every case, told without the code of the plan.


@dataclass
class Case:
    backups: list[Kept]
    policy: Policy
    options: dict[str, Any]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A source with any history: gaps, failures, lost parents, clocks that jump."""
    backups: list[Kept] = []
    age = draw(st.floats(20, 60))
    odd = draw(st.integers(0, 4)) == 0
    for sequence in range(1, draw(st.integers(0, 40)) + 1):
        age = max(0.0, age - draw(st.sampled_from([0, 0.04, 0.5, 1, 1, 2, 5])))
        kind = draw(st.sampled_from(["full", "full", "incremental", "incremental", "log", "log", "log", "dump"]))
        earlier = [kept.manifest for kept in backups]
        parents = [m.sequence for m in earlier if m.kind in ("full", "incremental")] or [999]
        parent = None
        if kind == "incremental":
            parent = draw(st.sampled_from([parents[-1], parents[-1], parents[-1], *parents, 999]))
        elif kind == "log":
            parent = next((m.sequence for m in reversed(earlier) if m.kind in ("log", "full")), None)
        verdict = draw(st.sampled_from(["verified"] * 6 + ["structure_ok", None, "damaged", "inconclusive"]))
        jumped = odd and draw(st.integers(0, 20)) == 0
        backups.append(
            backup(
                sequence,
                draw(st.floats(-40, 400)) if jumped else age,
                kind,
                parent=parent,
                verdict=verdict,
                source="other" if odd and draw(st.integers(0, 20)) == 0 else "db",
            )
        )
    if draw(st.booleans()):
        backups += [backup(50 + number, max(0.0, age - number)) for number in range(draw(st.integers(1, 3)))]
    lost = draw(st.sets(st.integers(1, 41), max_size=3))
    backups = [kept for kept in backups if kept.manifest.sequence not in lost]
    policy = Policy(
        age=draw(st.sampled_from([0, 1, 7, 30])) * DAY,
        last=draw(st.integers(0, 4)),
        weekly=draw(st.integers(0, 3)),
        monthly=draw(st.integers(0, 3)),
        fresh=draw(st.sampled_from([1, 8, 60, 60])) * DAY,
        max_share=draw(st.sampled_from([0.1, 0.5, 1, 1])),
    )
    ids = [str(number) for number in range(1, 41)]
    proven = draw(st.one_of(st.none(), st.none(), st.dictionaries(st.sampled_from(ids), st.booleans(), max_size=40)))
    tiers = []
    if proven is not None:
        hashes = {id: f"sha{id}" if equal else "other" for id, equal in proven.items()}
        checked = draw(st.sampled_from([None, NOW, NOW - 9 * DAY]))
        tiers = [Holding("remote", hashes, checked, draw(st.sampled_from([None, None, "broken"])))]
    options = {
        "now": NOW + draw(st.sampled_from([0, 0, 0, 0, 0, 0, -DAY, 10 * DAY])),
        "seen": draw(st.sampled_from([None, None, NOW - DAY, NOW - DAY, NOW - 30 * DAY, NOW + DAY])),
        "tiers": tiers,
        "held": dict.fromkeys(draw(st.sets(st.sampled_from(ids), max_size=2)), NOW + DAY),
        "allow": draw(st.sets(st.sampled_from(["share", "clock"]))),
    }
    return Case(backups, policy, options)


def usable(backups: Sequence[Kept]) -> list[Kept]:
    """The backups that can be restored with what is there, by the plainest reading of the rules."""
    found: list[Kept] = []
    for kept in backups:
        ids = {other.id for other in found}
        roots = any(other.manifest.parent is None and other.manifest.kind != "log" for other in found)
        based = roots if kept.manifest.kind == "log" else kept.manifest.parent is None or kept.manifest.parent in ids
        if kept.verdict in GOOD and kept.manifest.source == "db" and based:
            found.append(kept)
    return found


@settings(max_examples=400, deadline=None)
@given(cases())
def test_what_holds_in_every_case(case: Case) -> None:
    found = decide(case.backups, case.policy, **case.options)
    now, seen, allow = (case.options[key] for key in ("now", "seen", "allow"))
    assert [entry.backup for entry in found.decisions] == case.backups
    doomed, kept = found.delete, [entry.backup for entry in found.decisions if entry.keep]
    left = {entry.path for entry in kept}
    good = usable(case.backups)
    roots = [entry for entry in good if entry.manifest.parent is None and entry.manifest.kind != "log"]
    fulls = [entry for entry in roots if entry.manifest.kind == "full"] or roots
    logs = [entry for entry in case.backups if entry.manifest.kind == "log"]

    # the newest two verified, of the source and of every kind that stands alone
    assert {entry.path for entry in good[-2:]} <= left
    for kind in ("full", "dump"):
        assert {entry.path for entry in [root for root in roots if root.manifest.kind == kind][-2:]} <= left
    # nothing that one that stays is based on
    gone_ids = {entry.id for entry in doomed}
    assert not [e for e in kept if e.manifest.kind != "log" and e.manifest.parent in gone_ids]
    # every log that stays can be replayed if it could before; every log from the second newest full on stays
    for log in [entry for entry in kept if entry.manifest.kind == "log"]:
        before = [entry for entry in fulls if entry.manifest.sequence < log.manifest.sequence]
        if before:
            base = [entry for entry in before if entry.path in left][-1]
            between = range(base.manifest.sequence, log.manifest.sequence)
            assert {entry.path for entry in logs if entry.manifest.sequence in between} <= left
    for full in fulls[-2:][:1]:
        assert {entry.path for entry in logs if entry.manifest.sequence > full.manifest.sequence} <= left
    for entry in doomed:
        assert entry.manifest.source == "db"
        assert case.options["held"].get(entry.id, now) <= now
        # not younger than the policy says, against now and against the newest verified one
        assert now - (entry.manifest.ended or 0) > case.policy.age
        assert sum(root.manifest.sequence > entry.manifest.sequence for root in roots) >= 2
        for tier in case.options["tiers"]:
            assert tier.trouble is None and tier.checked is not None and now - tier.checked <= case.policy.fresh
            assert entry.verdict not in GOOD or tier.proven.get(entry.id) == entry.manifest.sha256
    if doomed:
        assert not found.refusals
        assert now >= max(entry.manifest.ended or 0 for entry in case.backups) - 300
        assert seen is None or now >= seen - 300
        assert seen is None or now - seen <= case.policy.max_pause or "clock" in allow
        assert len(doomed) <= case.policy.max_share * len(case.backups) or "share" in allow
        standing = [e for e in case.backups if e.manifest.parent is None and e.manifest.kind != "log"]
        assert standing[-1] == roots[-1]

    # killed after any of them: the rest is whole, and the next run removes the rest and nothing else
    journal = [entry.id for entry in doomed]
    for number in range(len(doomed) + 1):
        removed = {entry.path for entry in doomed[:number]}
        rest = [entry for entry in case.backups if entry.path not in removed]
        assert not [
            e for e in rest if e.manifest.kind != "log" and e.manifest.parent in {d.id for d in doomed[:number]}
        ]
        if doomed:
            again = decide(rest, case.policy, **{**case.options, "approved": journal})
            assert [entry.path for entry in again.delete] == [entry.path for entry in doomed[number:]]


def test_a_chain_of_thousands_is_followed_to_its_begin() -> None:
    chain = [backup(1, 50), *[backup(n, 50 - n / 100, "incremental", parent=n - 1) for n in range(2, 5000)]]
    assert gone(decide([*chain, backup(5000, 0), backup(5001, 0)])) == []
    assert gone(decide([*chain[:1000], backup(5000, 0), backup(5001, 0)], Policy(max_share=1))) == list(range(1, 1001))
