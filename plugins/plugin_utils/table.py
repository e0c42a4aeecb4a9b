# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables for people who read a terminal or a job's output."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; a column without any value is left out."""
    used = [column for column in zip(head, *rows) if any(column[1:]) or not rows]
    widths = [max(map(_width, column)) for column in used]
    lines = [*zip(*used)]
    lines.insert(1, tuple("-" * width for width in widths))
    return ["  ".join(_pad(cell, width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
