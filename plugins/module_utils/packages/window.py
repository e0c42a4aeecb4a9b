# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When maintenance may be done: weekly windows and days on which nothing is done, in a time zone that is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?P<days>[A-Za-z,-]+)\s+(?P<start>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})")
#: How far ahead the next window is looked for.
_HORIZON = 400


@dataclass(frozen=True)
class Verdict:
    """Whether work may begin now.

    :param until: when the window closes; ``None``: there is no limit.
    """

    open: bool
    message: str
    until: datetime | None = None


def judge(windows: Sequence[str], blackout: Sequence[str], zone: str, now: datetime, cutoff: float = 0.0) -> Verdict:
    """Say whether work may begin.

    :param windows: such as ``Sun 02:00-05:00``, ``Mon-Fri 22:00-04:00``, ``daily 01:00-03:00``; empty: at any time.
    :param blackout: days such as ``2026-12-24`` or ``2026-12-24/2027-01-02`` on which nothing begins.
    :param zone: name of the time zone in which both are meant.
    :param now: the time, with its zone.
    :param cutoff: seconds before the end of a window from which on nothing begins.
    :raises ValueError: when something cannot be understood.
    """
    try:
        here = now.astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError):
        raise ValueError(f"'{zone}' is not a time zone that is known here; write it as Europe/Berlin or UTC") from None
    closed = [_dates(text) for text in blackout]
    parsed = [_parse(text) for text in windows]
    said = f"{here:%a %Y-%m-%d %H:%M} in {zone}"
    if any(first <= here.date() <= last for first, last in closed):
        return Verdict(False, f"it is {said}, a black-out date; {_next(parsed, closed, here)}")
    if not parsed:
        return Verdict(True, f"it is {said}; there is no window, so any time will do")
    ends = [end for start, end in _around(parsed, here) if start <= here < end]
    if not ends:
        return Verdict(False, f"it is {said}, outside every window; {_next(parsed, closed, here)}")
    left = (max(ends) - here).total_seconds()
    if left < cutoff:
        words = f"it is {said} and the window closes in {left / 60:.0f} min, a host is given {cutoff / 60:.0f}"
        return Verdict(False, f"{words}; {_next(parsed, closed, max(ends))}", max(ends))
    return Verdict(True, f"it is {said}, in a window until {max(ends):%a %H:%M}", max(ends))


def _parse(text: str) -> tuple[frozenset[int], time, time]:
    found = _WINDOW.fullmatch(text.strip())
    wrong = f"'{text}' is not a window; write it as 'Sun 02:00-05:00', 'Mon-Fri 22:00-04:00' or 'daily 01:00-03:00'"
    if not found:
        raise ValueError(wrong)
    days: set[int] = set()
    for part in found["days"].lower().split(","):
        first, dash, last = part.partition("-")
        if part == "daily":
            days |= set(range(7))
        elif first[:3] in DAYS and (not dash or last[:3] in DAYS):
            begin = DAYS.index(first[:3])
            span = (DAYS.index(last[:3]) - begin) % 7 if dash else 0
            days |= {(begin + number) % 7 for number in range(span + 1)}
        else:
            raise ValueError(wrong)
    try:
        return frozenset(days), _time(found["start"]), _time(found["end"])
    except ValueError:
        raise ValueError(wrong) from None


def _time(text: str) -> time:
    hours, minutes = text.split(":")
    return time(int(hours), int(minutes))


def _dates(text: str) -> tuple[date, date]:
    first, slash, last = text.strip().partition("/")
    try:
        found = date.fromisoformat(first), date.fromisoformat(last if slash else first)
    except ValueError:
        raise ValueError(f"'{text}' is not a date; write it as 2026-12-24 or 2026-12-24/2027-01-02") from None
    if found[1] < found[0]:
        raise ValueError(f"'{text}' ends before it begins")
    return found


def _on(window: tuple[frozenset[int], time, time], day: date, like: datetime) -> tuple[datetime, datetime] | None:
    """Return the window that begins on a day; one that ends before it begins goes past midnight."""
    days, start, end = window
    if day.weekday() not in days:
        return None
    begin = datetime.combine(day, start, like.tzinfo)
    return begin, datetime.combine(day + timedelta(days=end <= start), end, like.tzinfo)


def _around(windows: Sequence[tuple[frozenset[int], time, time]], here: datetime) -> list[tuple[datetime, datetime]]:
    days = (here.date() - timedelta(days=1), here.date())
    return [found for window in windows for day in days if (found := _on(window, day, here))]


def _next(
    windows: Sequence[tuple[frozenset[int], time, time]], closed: Sequence[tuple[date, date]], here: datetime
) -> str:
    for number in range(_HORIZON):
        day = here.date() + timedelta(days=number)
        if any(first <= day <= last for first, last in closed):
            continue
        if not windows:
            return f"the first day after it is {day:%a %Y-%m-%d}"
        starts = [found[0] for window in windows if (found := _on(window, day, here)) and found[0] > here]
        if starts:
            return f"the next window opens on {min(starts):%a %Y-%m-%d at %H:%M}"
    return "no window opens within the next year"
