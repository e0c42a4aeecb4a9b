# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backups may go: the plan of pruning, which only ever lets go what newer verified backups make redundant.

Backups are ordered by their sequence, and their age counts against the newest verified one: nothing grows old while
backups fail. The plan knows no clock and no disk; pruning.py and tiers.py carry it out.
"""

from __future__ import annotations

import bisect
import collections
import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import GOOD
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.units import span

#: Verified backups that stay whatever the policy says: of the source, and of every kind that stands alone.
LEAST = 2

#: Seconds by which clocks may differ without having jumped.
SKEW = 300.0

#: Refusals that an operator may override, by name.
OVERRIDES = {
    "share": "the plan may remove more than the allowed share of all backups",
    "clock": "so much time may have passed since the last run",
}

#: The kind that follows on whatever stands alone before it, and needs all others of its kind in between.
_LOG = "log"

#: The last moment that has a date, for a manifest that tells nonsense.
_YEAR_9999 = 253402300799.0


@dataclass(frozen=True)
class Policy:
    """What is kept of one source in one place.

    :param age: seconds that a backup stays.
    :param last: verified backups of every kind that stands alone which stay, however old; at least two.
    :param weekly: weeks of which the newest verified backup that stands alone stays.
    :param monthly: months likewise.
    :param fresh: the newest verified backup that stands alone may be so many seconds old, or its source was found
        unchanged within them; else nothing goes.
    :param max_share: share of all backups that may go at once.
    :param max_pause: seconds since the last run, above which the clock is taken to have jumped.
    """

    age: float = 7 * 86400.0
    last: int = LEAST
    weekly: int = 0
    monthly: int = 0
    fresh: float = 8 * 86400.0
    max_share: float = 0.5
    max_pause: float = 3 * 86400.0


@dataclass(frozen=True)
class Holding:
    """What a tier proves to hold; backups of another place go only after that.

    :param name: how it is called.
    :param proven: SHA-256 of the manifest by id, of the copies that were read back and found equal.
    :param checked: when the tier was last found sound, in seconds since the epoch.
    :param trouble: why it cannot be relied upon now, None when it can.
    """

    name: str
    proven: Mapping[str, str]
    checked: float | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class Decision:
    """What becomes of one backup, and why in one sentence."""

    backup: Kept
    keep: bool
    reason: str


@dataclass(frozen=True)
class Plan:
    """What becomes of every backup, in the order in which they were made.

    :param decisions: one for each backup.
    :param refusals: why nothing at all goes although the policy would let something go, by the name of the check.
    """

    decisions: list[Decision]
    refusals: dict[str, str]

    @property
    def delete(self) -> list[Kept]:
        """Return what goes, the newest first: at no moment does a backup lack the one that it is based on."""
        return [decision.backup for decision in reversed(self.decisions) if not decision.keep]

    def findings(self, subject: str) -> list[Finding]:
        """Return the refusals as findings."""
        return [
            Finding(
                f"backup.prune.{name}",
                subject,
                "warning" if name in OVERRIDES else "critical",
                f"nothing is pruned: {text}",
                advice=f"if {OVERRIDES[name]}, allow '{name}' once" if name in OVERRIDES else None,
            )
            for name, text in self.refusals.items()
        ]


def plan(
    name: str,
    backups: Iterable[Kept],
    policy: Policy,
    *,
    now: float,
    seen: float | None = None,
    tiers: Iterable[Holding] = (),
    held: Mapping[str, float] | None = None,
    approved: Collection[str] = (),
    allow: Collection[str] = (),
) -> Plan:
    """Decide what becomes of each backup of a source in one place.

    :param name: of the source.
    :param backups: all finished backups there.
    :param policy: what is kept there.
    :param now: seconds since the epoch.
    :param seen: the clock at the last run.
    :param tiers: the tiers that must have a proven copy of what goes.
    :param held: until when a backup stays whatever the policy says, by id.
    :param approved: ids that an interrupted run was about to remove; they do not count towards the share.
    :param allow: names of :data:`OVERRIDES`.
    """
    source = _Source(name, backups)
    window = _by_policy(source, policy, now)
    _add_parents(source, window)
    others = _by_calendar(source, policy)
    for found in (_by_hold(source, held or {}, now), *(_by_tier(source, tier, policy, now) for tier in tiers)):
        others = {**found, **others}
    reasons = {**others, **window, **{kept.path: f"it is not touched: {why}" for kept, why in source.unclear}}
    _add_logs(source, window, reasons)
    _add_parents(source, reasons)
    doomed = [kept for kept in source.backups if kept.path not in reasons]
    refusals = _refusals(source, policy, now, seen, allow)
    surprising = [kept for kept in doomed if kept.id not in approved]
    if "share" not in allow and len(surprising) > policy.max_share * len(source.backups):
        refusals["share"] = (
            f"{len(surprising)} of {len(source.backups)} backups would go, more than {policy.max_share:.0%} of them"
        )
    elif not doomed:
        refusals.pop("clock", None)  # no harm can come of it
    decisions = []
    for kept in source.backups:
        if kept.path in reasons:
            decisions.append(Decision(kept, True, reasons[kept.path]))
        elif refusals:
            decisions.append(Decision(kept, True, f"it would go, but {next(iter(refusals.values()))}"))
        else:
            decisions.append(Decision(kept, False, source.redundant(kept, policy)))
    return Plan(decisions, refusals)


def stands_alone(kept: Kept) -> bool:
    """Whether a backup can be restored without any other."""
    return kept.manifest.parent is None and kept.manifest.kind != _LOG


class _Source:
    """The backups of a source in one place, and what they are to each other."""

    def __init__(self, name: str, backups: Iterable[Kept]) -> None:
        self.backups = sorted(backups, key=lambda kept: (kept.manifest.sequence, kept.path))
        self.by_id = {kept.id: kept for kept in self.backups}
        times = collections.Counter(kept.id for kept in self.backups)
        #: Those whose manifest leaves open what they are, and why.
        self.unclear = [(kept, why) for kept in self.backups if (why := _unclear(kept, name, times[kept.id]))]
        self.ends = self._ends()
        passed_over = {kept.path for kept, _why in self.unclear}
        self.sound: set[str] = set()
        base: Kept | None = None
        for kept in self.backups:
            if kept.path not in passed_over and self._is_sound(kept, base):
                self.sound.add(kept.id)
                base = kept if stands_alone(kept) else base
        self.verified = [kept for kept in self.backups if kept.id in self.sound]
        self.roots = [kept for kept in self.verified if stands_alone(kept)]
        self._numbers = [kept.manifest.sequence for kept in self.roots]
        self.kinds = sorted({str(kept.manifest.kind) for kept in self.roots})
        #: What logs are replayed on.
        self.bases = [kept for kept in self.roots if kept.manifest.kind == "full" or "full" not in self.kinds]
        self.logs = [kept for kept in self.backups if kept.manifest.kind == _LOG]

    def age(self, kept: Kept, now: float) -> float:
        """Return how many seconds a backup is older than the newest verified one, or than now."""
        reference = min(now, self.ends[self.verified[-1].path]) if self.verified else now
        return reference - self.ends[kept.path]

    def newer_roots(self, kept: Kept) -> int:
        """Return how many newer verified backups stand alone."""
        return len(self.roots) - bisect.bisect(self._numbers, kept.manifest.sequence)

    def redundant(self, kept: Kept, policy: Policy) -> str:
        """Return why a backup may go."""
        newer = self.newer_roots(kept)
        state = "" if kept.id in self.sound else f"it is {_state(kept)}, "
        return f"{state}it is older than {span(policy.age)}, and {newer} newer verified ones stand alone"

    def _ends(self) -> dict[str, float]:
        """Return when each was complete, by path; none was complete before one that was made before it."""
        ends: dict[str, float] = {}
        latest = float("-inf")
        for kept in self.backups:
            latest = max(latest, latest if kept.manifest.ended is None else kept.manifest.ended)
            ends[kept.path] = latest
        return ends

    def _is_sound(self, kept: Kept, base: Kept | None) -> bool:
        """Whether a backup is verified, and so is all that it is based on."""
        if kept.verdict not in GOOD:
            return False
        if kept.manifest.kind == _LOG:
            return base is not None
        return kept.manifest.parent is None or kept.manifest.parent in self.sound


def _unclear(kept: Kept, source: str, times: int) -> str | None:
    if kept.manifest.source != source:
        return f"its manifest names the source '{kept.manifest.source}'"
    if kept.manifest.sequence < 1:
        return "its manifest has no sequence"
    if kept.manifest.ended is None:
        return "its manifest does not say when it was complete"
    return "another directory has the same id" if times > 1 else None


def _by_policy(source: _Source, policy: Policy, now: float) -> dict[str, str]:
    """Return what stays because it is recent, by path, and why."""
    reasons = {
        kept.path: f"it is not older than {span(policy.age)}"
        for kept in source.backups
        if source.age(kept, now) <= policy.age
    }
    number = max(policy.last, LEAST)
    for kind in source.kinds:
        for kept in _of_kind(source.roots, kind)[-number:]:
            reasons.setdefault(kept.path, f"it is one of the newest {number} verified of kind {kind}")
    for kept in source.verified[-LEAST:]:
        reasons.setdefault(kept.path, f"it is one of the newest {LEAST} verified of the source")
    for kept in source.backups:
        if source.newer_roots(kept) < LEAST:
            reasons.setdefault(kept.path, f"fewer than {LEAST} newer verified ones stand alone")
    return reasons


def _by_calendar(source: _Source, policy: Policy) -> dict[str, str]:
    """Return what stays for its week or month; by itself, without what was made after it."""
    reasons: dict[str, str] = {}
    for kind in source.kinds:
        for word, form, number in (("month", "%Y-%m", policy.monthly), ("week", "%G-W%V", policy.weekly)):
            newest = {_utc(source.ends[kept.path]).strftime(form): kept for kept in _of_kind(source.roots, kind)}
            for name in sorted(newest, reverse=True)[:number]:
                reasons[newest[name].path] = f"it is the newest verified of kind {kind} of the {word} {name}"
    return reasons


def _by_hold(source: _Source, held: Mapping[str, float], now: float) -> dict[str, str]:
    return {
        kept.path: f"it was fetched and is held for another {span(held[kept.id] - now)}"
        for kept in source.backups
        if held.get(kept.id, now) > now
    }


def _by_tier(source: _Source, tier: Holding, policy: Policy, now: float) -> dict[str, str]:
    """Return what stays because a tier does not prove to hold it."""
    trouble = tier.trouble
    if trouble is None and tier.checked is None:
        trouble = "it was never checked"
    elif trouble is None and tier.checked is not None and now - tier.checked > policy.fresh:
        trouble = f"it was last checked {span(now - tier.checked)} ago"
    reasons = {}
    for kept in source.backups:
        if trouble is not None:
            reasons[kept.path] = f"the tier '{tier.name}' cannot be relied upon: {trouble}"
        elif kept.verdict not in GOOD and kept.id not in tier.proven:
            continue  # only verified ones are copied, so this one need not wait for it
        elif kept.manifest.sha256 is None or tier.proven.get(kept.id) != kept.manifest.sha256:
            reasons[kept.path] = f"the tier '{tier.name}' has no proven copy of it"
    return reasons


def _add_logs(source: _Source, window: Mapping[str, str], reasons: dict[str, str]) -> None:
    """Add what logs that stay are replayed on, and every log from the oldest recent full backup on."""
    first = next((kept for kept in source.bases if kept.path in window), None)
    for log in source.logs:
        before = [kept for kept in source.bases if kept.manifest.sequence < log.manifest.sequence]
        if log.path in reasons and before:  # those of later logs are not older
            if first is None or before[-1].manifest.sequence < first.manifest.sequence:
                first = before[-1]
                reasons.setdefault(first.path, f"recovery with {_name(log)} begins with it")
            break
    if first is None:
        return
    for log in source.logs:
        if log.manifest.sequence > first.manifest.sequence or _reaches(log, first):
            reasons.setdefault(log.path, f"recovery from {_name(first)} to any later moment needs it")


def _reaches(log: Kept, base: Kept) -> bool:
    """Whether a log that was kept before a full backup holds the place where that one begins."""
    last = str(log.manifest.positions.get("last_file") or "")
    begin = str(base.manifest.positions.get("binlog_file") or "")
    return bool(last and begin) and (len(last), last) >= (len(begin), begin)


def _add_parents(source: _Source, reasons: dict[str, str]) -> None:
    """Add all that those that stay are based on; the parent of a log only tells that none is missing in between."""
    for kept in source.backups:
        child = kept
        while child.path in reasons and child.manifest.kind != _LOG:
            parent = source.by_id.get(child.manifest.parent or "")
            if parent is None or parent.path in reasons:
                break
            reasons[parent.path] = f"{_name(child)} is based on it"
            child = parent


def _refusals(
    source: _Source, policy: Policy, now: float, seen: float | None, allow: Collection[str]
) -> dict[str, str]:
    """Return why nothing may go, whatever the plan is, by the name of the check."""
    refusals: dict[str, str] = {}
    if not source.backups:
        return refusals
    latest = max(source.backups, key=lambda kept: source.ends[kept.path])
    end = source.ends[latest.path]
    if now < end - SKEW:
        refusals["time"] = f"the clock says {_moment(now)}, but {_name(latest)} was complete at {_moment(end)}"
    elif seen is not None and now < seen - SKEW:
        refusals["time"] = f"the clock says {_moment(now)}, but the last run was at {_moment(seen)}"
    elif seen is not None and now - seen > policy.max_pause and "clock" not in allow:
        refusals["clock"] = (
            f"the clock is {span(now - seen)} ahead of the last run at {_moment(seen)}, "
            f"more than the {span(policy.max_pause)} that a pause may take"
        )
    newest = next((kept for kept in reversed(source.backups) if stands_alone(kept)), None)
    if not source.roots:
        refusals["unverified"] = "no backup that stands alone is verified"
    elif newest is not None and newest.id not in source.sound:
        refusals["unverified"] = f"the newest backup that stands alone, {_name(newest)}, is {_state(newest)}"
    if source.roots:
        last = source.roots[-1]
        age = now - max(source.ends[last.path], last.unchanged or 0.0)
        if age > policy.fresh:
            refusals["stale"] = (
                f"the newest verified backup that stands alone, {_name(last)}, is {span(age)} old, "
                f"and may be {span(policy.fresh)}"
            )
    return refusals


def _of_kind(backups: Sequence[Kept], kind: str) -> list[Kept]:
    return [kept for kept in backups if kept.manifest.kind == kind]


def _state(kept: Kept) -> str:
    return "unverified" if kept.verdict is None else "of no use alone" if kept.verdict in GOOD else kept.verdict


def _name(kept: Kept) -> str:
    return "/".join(kept.path.rsplit("/", 2)[-2:])


def _utc(moment: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(min(max(moment, 0.0), _YEAR_9999), datetime.timezone.utc)


def _moment(moment: float) -> str:
    return _utc(moment).strftime("%Y-%m-%d %H:%M UTC")
