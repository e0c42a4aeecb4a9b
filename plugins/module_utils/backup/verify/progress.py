# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far a long check is, in a small file that the controller reads meanwhile."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

#: Seconds between two writings.
_INTERVAL = 1.0


class Progress:
    """Keep the progress of a run.

    :param path: the file, created with mode 0600; None: nothing is kept.
    :param clock: seconds that never go back.
    """

    def __init__(self, path: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._state: dict[str, Any] = {}
        self._started = 0.0
        self._due = 0.0

    def start(self, backup: str, size: int) -> None:
        """Begin with a backup of so many bytes, 0 when they are not known."""
        self._state = {"backup": backup, "size": size, "read": 0}
        self._started = self._clock()
        self._due = self._started + _INTERVAL

    def advance(self, amount: int) -> None:
        """Count bytes that were read."""
        if self._path is None:
            return
        self._state["read"] += amount
        if self._clock() >= self._due:
            self._due = self._clock() + _INTERVAL
            self._write(self._path)

    def end(self) -> None:
        """Remove the file."""
        if self._path is not None:
            for path in (self._path, self._path + ".new"):
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    pass

    def _write(self, path: str) -> None:
        self._state["seconds"] = round(self._clock() - self._started, 1)
        temporary = path + ".new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(self._state, stream)
        os.replace(temporary, path)


def line(host: str, state: Mapping[str, Any]) -> str:
    """Return what an operator is shown: the share that is done, the speed, and the time that is left."""
    size, read = int(state["size"]), int(state["read"])
    speed = read / max(float(state["seconds"]), 0.1)
    if not size:
        done = f"{_amount(read)} read, {speed / 1e6:.0f} MB/s"
    else:
        left = max(size - read, 0) / max(speed, 1.0)
        time_left = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
        share = min(read * 100 // size, 100)
        done = f"{share} % ({_amount(read, size)} of {_amount(size)}, {speed / 1e6:.0f} MB/s, {time_left} left)"
    return f"{host}: backup_verify {state['backup']} {done}"


def _amount(value: int, like: int | None = None) -> str:
    """Return bytes as people say them; with ``like`` without the unit, in the unit of that."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if (like or value) >= size:
            return f"{value / size:.1f}" + ("" if like else f" {unit}")
    return f"{value / 1e3:.0f}" + ("" if like else " kB")
