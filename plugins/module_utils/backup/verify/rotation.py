# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose turn it is: very large stores are read a share at a time, so that all of it is read within some days.

What there is to read falls into parts by the hash of its name. Each run reads the parts that were not read for longest,
as many as it takes, and what came into a part after it was read. Only what was read and found good counts as read.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.history import Document
from ansible_collections.worklog.maintenance.plugins.module_utils.units import span

#: More parts than this mean nothing.
_MAX_PARTS = 1000


@dataclass(frozen=True)
class Share:
    """How much of a backup is read in one run.

    :param share: about this share of it, more than 0 and at most 1.
    :param within: seconds within which all of it is read.
    """

    share: float = 1.0
    within: float = 7 * 86400.0

    @property
    def parts(self) -> int:
        """Return into how many parts it falls."""
        return min(_MAX_PARTS, max(1, math.ceil(1 / self.share - 1e-9)))


def due(parts: int, last: Mapping[int, float], *, now: float, within: float, interval: float | None) -> frozenset[int]:
    """Return the parts whose turn it is.

    :param parts: how many there are, numbered from 0.
    :param last: when a part was last read.
    :param within: seconds within which each is to be read.
    :param interval: seconds since the run before this one, None for the first one.
    """
    order = sorted(range(parts), key=lambda part: (last.get(part, 0.0), part))
    number = 1 if interval is None else max(1, math.ceil(parts * max(interval, 0.0) / within))
    late = [part for part in order if part in last and last[part] + within < now + (interval or 0.0)]
    return frozenset([*order[:number], *late])


class Rotation:
    """The turn of one backup in one run.

    :param share: how much is read.
    :param last: when each part was last read and found good.
    :param previous: when the run before this one was, None for the first one.
    :param now: seconds since the epoch.
    :param tried: when each part was last read, whatever was found.
    """

    def __init__(
        self,
        share: Share,
        last: Mapping[int, float],
        previous: float | None,
        now: float,
        tried: Mapping[int, float] | None = None,
    ) -> None:
        self.share = share
        self.now = now
        self.last = dict(last)
        self.tried = {**last, **(tried or {})}
        self._interval = None if previous is None else now - previous
        self.due = due(share.parts, self.tried, now=now, within=share.within, interval=self._interval)
        self.left = 0
        self.unknown = 0

    def turn(self, name: str, status: os.stat_result) -> bool:
        """Return whether a file is to be read now, and count it when it is not.

        :param name: its path in the backup.
        """
        part = zlib.crc32(name.encode("utf-8", "surrogateescape")) % self.share.parts
        if part in self.due:
            return True
        last = self.last.get(part)
        # A new link to an inode sets its change time, too: then it cannot be told whether it is new.
        new = last is None or status.st_ctime > last
        if new and last is not None and status.st_nlink == 1:
            return True
        self.left += 1
        self.unknown += new
        return False

    def whole(self) -> bool:
        """Return whether all of it is read now, for what cannot be read in parts."""
        oldest = min((self.tried.get(part, 0.0) for part in range(self.share.parts)), default=0.0)
        turn = oldest + self.share.within < self.now + (self._interval or 0.0)
        self.due = frozenset(range(self.share.parts)) if turn else frozenset()
        return turn

    def left_out(self, what: str) -> str:
        """Return in words what is not read in this run."""
        others = [part for part in range(self.share.parts) if part not in self.due]
        times = [self.last[part] for part in others if part in self.last]
        read = f", and was read at most {span(self.now - min(times))} ago" if times else ""
        never = len(others) - len(times)
        unread = f"; {never} of {self.share.parts} parts were never read" if never else ""
        return f"{what}: it is not their turn in this run{read}{unread}"


class Turns:
    """When the parts of all backups were last read, kept in ``turns.json``.

    :param directory: where it is kept.
    :raises HistoryError: when there is one that cannot be read.
    """

    def __init__(self, directory: str) -> None:
        self._document = Document(os.path.join(directory, "turns.json"), "turns", _read)

    def begin(self, name: str, share: Share, now: float) -> Rotation:
        """Return whose turn it is in a backup."""
        entry = self._document.values.get(name, {})
        if entry.get("parts") != share.parts:  # the parts are others now
            return Rotation(share, {}, None, now)
        last, tried = ({int(part): time for part, time in entry[key].items()} for key in ("last", "tried"))
        return Rotation(share, last, entry["run"], now, tried)

    def end(self, name: str, rotation: Rotation, good: bool) -> None:
        """Keep what a run read, and whether that was good."""
        read = dict.fromkeys(rotation.due, rotation.now)
        last = {**rotation.last, **(read if good else {})}
        self._document.values[name] = {
            "parts": rotation.share.parts,
            "run": rotation.now,
            "last": {str(part): time for part, time in sorted(last.items())},
            "tried": {str(part): time for part, time in sorted({**rotation.tried, **read}.items())},
        }
        self._document.changed = True

    def save(self) -> None:
        """Write what was added.

        :raises HistoryError: when it cannot be written.
        """
        self._document.save()


def _read(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "parts": int(value["parts"]),
        "run": float(value["run"]),
        **{key: {str(int(part)): float(time) for part, time in value[key].items()} for key in ("last", "tried")},
    }
