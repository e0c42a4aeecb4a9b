# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a format looks like to the verification: a walker is fed a stream once and says what it saw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """Something wrong, or something that cannot be told, in one stream.

    :param check: dotted name of the check, such as ``sqldump.footer``.
    :param message: one sentence with the figures.
    :param damage: true: the backup is damaged; false: it cannot be told (inconclusive).
    :param offset: byte of the stream where it was seen, if it has a place.
    :param advice: what to do next.
    :param note: true: worth an operator's attention, but no reason to doubt the backup; ``damage`` is ignored.
    """

    check: str
    message: str
    damage: bool = True
    offset: int | None = None
    advice: str | None = None
    note: bool = False


@dataclass
class Facts:
    """What a stream is found to contain, counted from the stream itself.

    :param counts: rows or documents by database and by table or collection; None: present but not countable.
    :param created: when the backup says it was made, in seconds since the epoch (UTC), if it says so.
    :param attributes: whatever else the format tells (server version, binlog position, key counts), JSON values.
    :param unchecked: what this format cannot tell, in words.
    :param part: what is told about this stream to the check of the files that belong together.
    """

    counts: dict[str, dict[str, int | None]] = field(default_factory=dict)
    created: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    part: object | None = None


class Walker:
    """Follows one format through a stream that arrives in pieces of any size, in bounded memory.

    A walker never raises on hostile or damaged input: it adds a :class:`Problem` and ignores the rest.
    """

    #: The format's name as the module documents it.
    format = ""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.facts = Facts()

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        raise NotImplementedError

    def close(self) -> None:
        """Take the end of the stream, and judge what only the end can tell."""
        raise NotImplementedError
