# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be recovered from the backups of a source, and which of them a point in time takes.

A base is a state that backups alone give: a full one with its increments, a dump, a snapshot. From a base that knows
its place in the binary logs, logs that follow each other without a gap lead to every moment up to the end of the last
one. The order is that of the sequence numbers: clocks may have been set back.
"""

from __future__ import annotations

import bisect
import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept

#: Verdicts of backups that can be relied upon; a stale one is sound, only old.
SOUND = ("verified", "structure_ok", "stale")

#: Verdicts of backups that cannot be used, whatever is asked for.
BAD = ("damaged", "missing")

INCREMENTAL, LOG, DUMP = "incremental", "log", "dump"

_NUMBER = re.compile(r"(.*)\.([0-9]+)")


class Unreachable(Exception):
    """What was asked for cannot be reached.

    :param before: the nearest moment before it that can be, in seconds since the epoch.
    :param after: the nearest one after it.
    """

    def __init__(self, message: str, before: float | None = None, after: float | None = None) -> None:
        super().__init__(message)
        self.before = before
        self.after = after


@dataclass(frozen=True)
class Base:
    """A state that backups alone give: the last of the chain, which stands on those before it."""

    chain: tuple[Kept, ...]

    @property
    def last(self) -> Kept:
        """Return the backup whose state it is."""
        return self.chain[-1]

    @property
    def moment(self) -> float:
        """Return when that state was, at the latest."""
        return self.last.manifest.ended or 0.0

    @property
    def partial(self) -> bool:
        """Return whether it holds some databases or tables only, so that it cannot take the changes in the logs."""
        document = self.last.manifest.document
        return bool(document.get("databases") or document.get("excluded"))

    @property
    def position(self) -> tuple[str, int] | None:
        """Return the binary log and the place in it from which changes are to be replayed, None when they cannot be."""
        if self.partial:
            return None
        name = self.last.manifest.positions.get("binlog_file")
        return (str(name), int(self.last.manifest.positions.get("binlog_position") or 4)) if name else None


@dataclass(frozen=True)
class Window:
    """A period of which every moment can be reached, or a single moment.

    :param base: the first state in it.
    :param since: its first moment, in seconds since the epoch.
    :param until: its last moment.
    :param ends: why it does not go on.
    """

    base: Base
    since: float
    until: float
    ends: str


@dataclass(frozen=True)
class Statement:
    """What can be recovered of one source.

    :param source: its name.
    :param windows: from the oldest to the newest; they do not touch.
    :param logged: whether the source has logs, so that what lies between two windows is a gap.
    :param moments: the moments of all bases.
    :param unusable: what is left out of account, and why.
    """

    source: str
    windows: tuple[Window, ...] = ()
    logged: bool = False
    moments: tuple[float, ...] = ()
    unusable: tuple[str, ...] = ()

    @property
    def gaps(self) -> tuple[tuple[float, float, str], ...]:
        """Return the periods between the windows, each with its reason."""
        if not self.logged:
            return ()
        return tuple((left.until, right.since, left.ends) for left, right in zip(self.windows, self.windows[1:]))

    def sentence(self) -> str:
        """Return the statement in one sentence."""
        if not self.windows:
            return f"{self.source} is not recoverable: {'; '.join(self.unusable) or 'it has no backup'}"
        since, until = utc(self.windows[0].since), utc(self.windows[-1].until)
        if not self.logged:
            count = len(self.moments)
            return f"{self.source} is recoverable to {count} moment{'s' * (count != 1)} from {since} to {until}"
        gaps = "; ".join(f"{utc(left)} to {utc(right)} ({reason})" for left, right, reason in self.gaps)
        return f"{self.source} is recoverable from {since} to {until}, gaps: {gaps or 'none'}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as programs read it."""
        return {
            "source": self.source,
            "recoverable": bool(self.windows),
            "from": utc(self.windows[0].since) if self.windows else None,
            "to": utc(self.windows[-1].until) if self.windows else None,
            "gaps": [{"from": utc(since), "to": utc(until), "reason": why} for since, until, why in self.gaps],
            "moments": [utc(moment) for moment in self.moments],
            "unusable": list(self.unusable),
            "sentence": self.sentence(),
        }


@dataclass(frozen=True)
class Target:
    """What is to be reached; nothing at all means the newest state.

    :param time: all that was committed before this moment, in seconds since the epoch.
    :param gtid: all up to and with this transaction of MariaDB, such as ``0-1-4711``.
    :param place: all before this place: id of the log backup, file, position.
    :param backup: the state of this backup, by its id.
    """

    time: float | None = None
    gtid: str | None = None
    place: tuple[str, str, int] | None = None
    backup: str | None = None


@dataclass(frozen=True)
class Plan:
    """Which backups it takes.

    :param base: what is restored first.
    :param logs: what is replayed then, in this order.
    :param target: where to stop.
    :param moment: what will be reached, in seconds since the epoch; None: the target is a transaction or a place.
    """

    base: Base
    logs: tuple[Kept, ...] = ()
    target: Target = field(default_factory=Target)
    moment: float | None = None

    def sentence(self) -> str:
        """Return the plan in one sentence."""
        parts = [f"{kept.manifest.kind} of {utc(kept.manifest.ended)}" for kept in self.base.chain]
        if self.logs:
            parts.append(f"{len(self.logs)} log backup{'s' * (len(self.logs) != 1)} to {utc(covered(self.logs[-1]))}")
        if self.target.time is not None and self.logs:
            stop = f", stopping at {utc(self.target.time)}"
        elif self.target.gtid is not None:
            stop = f", stopping after transaction {self.target.gtid}"
        elif self.target.place is not None:
            stop = f", stopping before {self.target.place[1]} position {self.target.place[2]}"
        else:
            stop = ""
        return " + ".join(parts) + stop


class Catalogue:
    """The usable backups of one source, and how they hang together.

    :param source: its name.
    :param backups: in the order in which they were made.
    :param unverified: whether backups count that were never verified, or inconclusively.
    """

    def __init__(self, source: str, backups: Sequence[Kept], *, unverified: bool = False) -> None:
        self.source = source
        self.unusable: list[str] = []
        usable = [kept for kept in backups if self._usable(kept, unverified)]
        self.logs = [kept for kept in usable if kept.manifest.kind == LOG]
        self.bases = self._chains([kept for kept in usable if kept.manifest.kind != LOG])
        #: Those that are the state of the source; where there is none, what there is.
        self.whole = [base for base in self.bases if not base.partial] or self.bases
        self.logged = any(kept.manifest.kind == LOG for kept in backups)
        #: For each log why it does not lead to the next one, empty when it does.
        self._breaks = [_break(log, following) for log, following in zip(self.logs, self.logs[1:])]
        self._sequences = [log.manifest.sequence for log in self.logs]
        self._look_at_clock(usable)
        self._reaches = {base.last.id: self._reach(base) for base in self.bases}

    def reach(self, base: Base) -> tuple[tuple[Kept, ...], str]:
        """Return the logs that lead on from a base, and why they end."""
        first, last, ends = self._reaches[base.last.id]
        return tuple(self.logs[first:last]), ends

    def until(self, base: Base) -> float:
        """Return the last moment that can be reached from a base."""
        first, last, _ends = self._reaches[base.last.id]
        return max(base.moment, covered(self.logs[last - 1])) if last > first else base.moment

    def statement(self) -> Statement:
        """Return what can be recovered."""
        windows: list[Window] = []
        for base in sorted(self.whole, key=lambda base: base.moment):
            until, ends = self.until(base), self._reaches[base.last.id][2]
            if windows and base.moment <= windows[-1].until:
                if until > windows[-1].until:
                    windows[-1] = Window(windows[-1].base, windows[-1].since, until, ends)
            else:
                windows.append(Window(base, base.moment, until, ends))
        moments = tuple(sorted(base.moment for base in self.whole))
        return Statement(self.source, tuple(windows), self.logged, moments, tuple(self.unusable))

    def plan(self, target: Target) -> Plan:
        """Return which backups it takes to reach a target.

        :raises Unreachable: when it cannot be reached; the message names the gap and what is nearest.
        """
        if not self.bases:
            raise Unreachable(f"nothing of {self.source} can be restored: {self.statement().sentence()}")
        if target.backup is not None:
            return self._plan_backup(target)
        if target.gtid is not None:
            return self._plan_gtid(target)
        if target.place is not None:
            return self._plan_place(target)
        if target.time is not None:
            return self._plan_time(target, target.time)
        base = max(self.whole, key=self._newest)
        return Plan(base, self.reach(base)[0], target, self.until(base))

    def _newest(self, base: Base) -> tuple[int, bool, int]:
        """Return what orders the bases by the state that they lead to, and those that lead to the same."""
        last = (*base.chain, *self.reach(base)[0])[-1]
        return (last.manifest.sequence, *_preference(base))

    def _plan_backup(self, target: Target) -> Plan:
        for base in self.bases:
            if target.backup in (base.last.id, base.last.path):
                return Plan(base, (), target, base.moment)
        known = ", ".join(base.last.id for base in self.bases[-5:])
        why = "; ".join(text for text in self.unusable if str(target.backup) in text)
        raise Unreachable(
            f"{self.source} has no backup {target.backup} that can be restored by itself"
            + (f": {why}" if why else f"; the newest are {known}")
        )

    def _plan_time(self, target: Target, time: float) -> Plan:
        earlier = [base for base in self.whole if base.moment <= time]
        for base in sorted(earlier, key=_preference, reverse=True):
            if self.until(base) >= time:
                logs = self.reach(base)[0]
                enough = next((number for number, log in enumerate(logs) if covered(log) >= time), len(logs) - 1)
                return Plan(base, logs[: enough + 1], target, time)
        if earlier and not self.logged:
            base = max(earlier, key=lambda base: (base.moment, base.last.manifest.sequence))
            return Plan(base, (), target, base.moment)
        windows = self.statement().windows
        before = max((window.until for window in windows if window.until <= time), default=None)
        after = min((window.since for window in windows if window.since > time), default=None)
        why = next((window.ends for window in windows if window.until == before), "no backup is as old as that")
        raise Unreachable(
            f"{self.source} cannot be recovered to {utc(time)}: {why}; the nearest before it is "
            f"{utc(before) if before is not None else 'none'}, after it {utc(after) if after is not None else 'none'}",
            before,
            after,
        )

    def _plan_gtid(self, target: Target) -> Plan:
        wanted = gtids(target.gtid)
        if len(wanted) != 1:
            raise Unreachable(f"'{target.gtid}' is no transaction of MariaDB: give domain-server-number, as 0-1-4711")
        domain, number = next(iter(wanted.items()))
        for base in sorted(self.bases, key=_preference, reverse=True):
            if gtids(base.last.manifest.positions.get("gtid")).get(domain, 0) > number or base.position is None:
                continue
            if gtids(base.last.manifest.positions.get("gtid")).get(domain, 0) == number:
                return Plan(base, (), Target(backup=base.last.id), base.moment)
            logs = self.reach(base)[0]
            for index, log in enumerate(logs):
                if gtids(log.manifest.positions.get("gtid_end")).get(domain, 0) >= number:
                    return Plan(base, logs[: index + 1], target)
        raise Unreachable(
            f"{self.source} cannot be recovered to transaction {target.gtid}: no base with logs up to it; "
            f"{self.statement().sentence()}"
        )

    def _plan_place(self, target: Target) -> Plan:
        identifier, file, position = target.place or ("", "", 0)
        for base in sorted(self.bases, key=_preference, reverse=True):
            logs = self.reach(base)[0]
            index = next((number for number, log in enumerate(logs) if log.id == identifier), None)
            if index is None or base.position is None:
                continue
            if index == 0 and (number_of(base.position[0]), base.position[1]) > (number_of(file), position):
                continue
            return Plan(base, logs[: index + 1], target)
        raise Unreachable(
            f"{self.source} cannot be recovered to {file} position {position}: no base before it leads there; "
            f"{self.statement().sentence()}"
        )

    def _usable(self, kept: Kept, unverified: bool) -> bool:
        if kept.verdict in SOUND or (unverified and kept.verdict not in BAD):
            return True
        state = f"it is {kept.verdict}" if kept.verdict else "it was never verified"
        self.unusable.append(f"{kept.manifest.kind} {kept.id} of {utc(kept.manifest.ended)} does not count: {state}")
        return False

    def _chains(self, backups: Iterable[Kept]) -> list[Base]:
        bases: dict[str, Base] = {}
        for kept in backups:
            if kept.manifest.kind != INCREMENTAL:
                bases[kept.id] = Base((kept,))
                continue
            parent = bases.get(str(kept.manifest.parent))
            begins, ended = kept.manifest.positions.get("from_lsn"), None
            why = (
                "" if parent else f"the backup {kept.manifest.parent} that it stands on is not there or cannot be used"
            )
            if parent is not None:
                ended = parent.last.manifest.positions.get("to_lsn")
                if begins is not None and ended is not None and int(begins) != int(ended):
                    why = f"it begins at LSN {begins}, but {parent.last.id} ends at {ended}"
            if parent is None or why:
                self.unusable.append(f"incremental {kept.id} of {utc(kept.manifest.ended)} does not count: {why}")
                continue
            bases[kept.id] = Base((*parent.chain, kept))
        return list(bases.values())

    def _reach(self, base: Base) -> tuple[int, int, str]:
        """Return which logs lead on, as a range, and why they end."""
        nothing = (len(self.logs), len(self.logs))
        if not self.logged:
            return (*nothing, "there are no logs")
        if base.position is None:
            why = "holds some databases or tables only" if base.partial else "does not say where it is in the logs"
            return (*nothing, f"{base.last.id} {why}")
        index = bisect.bisect_right(self._sequences, base.last.manifest.sequence)
        number = number_of(base.position[0])
        while index < len(self.logs) and number_of(self.logs[index].manifest.positions.get("last_file")) < number:
            index += 1
        if index == len(self.logs):
            return (*nothing, f"no log backup follows the {base.last.manifest.kind} of {utc(base.moment)}")
        first = str(self.logs[index].manifest.positions.get("first_file"))
        if number_of(first) > number:
            return (*nothing, f"the logs from {base.position[0]} to before {first} are missing")
        was = gtids(base.last.manifest.positions.get("gtid"))
        goes_to = self.logs[index].manifest.positions.get("gtid_end")
        if goes_to is not None and any(gtids(goes_to).get(domain, 0) < number for domain, number in was.items()):
            return (*nothing, f"the logs after the {base.last.manifest.kind} of {utc(base.moment)} begin anew")
        end = index
        while end < len(self._breaks) and not self._breaks[end]:
            end += 1
        ends = self._breaks[end] if end < len(self._breaks) else "it is the newest log"
        return index, end + 1, ends

    def _look_at_clock(self, backups: Sequence[Kept]) -> None:
        for earlier, later in zip(backups, backups[1:]):
            left, right = earlier.manifest.ended, later.manifest.started
            if left is not None and right is not None and right < left - 1:
                self.unusable.append(
                    f"the clock was set back between {earlier.id} ({utc(left)}) and {later.id} ({utc(right)}): "
                    "times between them occur twice, name a transaction (GTID) there"
                )


def _preference(base: Base) -> tuple[bool, int]:
    """Return what orders bases: a copy of the files goes before a dump, which takes longer and may hold less."""
    return base.last.manifest.kind != DUMP, base.last.manifest.sequence


def covered(log: Kept) -> float:
    """Return up to when a log backup has everything: its last event, or its beginning when that was later."""
    last = time_of(log.manifest.positions.get("last_time"))
    return max(last or 0.0, log.manifest.started or 0.0)


def gtids(value: Any) -> dict[str, int]:
    """Return the highest number by domain of a position of MariaDB, nothing when it is none."""
    found: dict[str, int] = {}
    for part in str(value or "").split(","):
        pieces = part.strip().split("-")
        if len(pieces) == 3 and all(piece.isdigit() for piece in pieces):
            found[pieces[0]] = max(found.get(pieces[0], 0), int(pieces[2]))
    return found


def number_of(name: Any) -> int:
    """Return the number of a binary log, -1 when it has none."""
    found = _NUMBER.fullmatch(str(name or ""))
    return int(found.group(2)) if found else -1


def time_of(value: Any) -> float | None:
    """Return a time in a manifest in seconds since the epoch, None when there is none.

    :raises ValueError: when it is no time, or has no zone.
    """
    if value is None or isinstance(value, (int, float)):
        return None if value is None else float(value)
    moment = datetime.datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(f"the time '{value}' has no zone: write it as 2026-01-31T02:03:04Z")
    return moment.timestamp()


def utc(moment: float | None) -> str:
    """Return a time as people and programs read it."""
    if moment is None:
        return "an unknown time"
    whole = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return whole.strftime("%Y-%m-%dT%H:%M:%SZ")


def _break(log: Kept, following: Kept) -> str:
    """Return why a log backup does not lead to the next one, empty when it does."""
    left, right = log.manifest.positions, following.manifest.positions
    gap = following.manifest.document.get("gap")
    if isinstance(gap, dict):
        return str(gap.get("reason") or "logs are missing")
    ends, begins = gtids(left.get("gtid_end")), gtids(right.get("gtid_start"))
    if ends and not begins and right.get("gtid_start") is not None:
        return f"the logs begin anew after {left.get('gtid_end')}"
    if ends and begins:
        # A domain that the next log does not name any more was removed by the administrator.
        if all(ends.get(domain) == number for domain, number in begins.items()):
            return ""
        if any(number > ends.get(domain, 0) for domain, number in begins.items()):
            return f"transactions between {left.get('gtid_end')} and {right.get('gtid_start')} are missing"
        if number_of(right.get("first_file")) > number_of(left.get("last_file")):
            return f"the logs begin anew after {left.get('gtid_end')}"
    last, first = left.get("last_file"), right.get("first_file")
    if last is None or first is None:
        return "" if following.manifest.parent == log.id else f"{following.id} does not follow {log.id}"
    if number_of(first) > number_of(last) + 1:
        return f"the logs after {last} and before {first} are missing"
    if number_of(right.get("last_file")) < number_of(last):
        return f"the logs begin anew with {first} after {last}"
    return ""
