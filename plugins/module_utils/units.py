# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lengths of time, sizes and shares as an operator writes them."""

from __future__ import annotations

import re
from typing import Any

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|d|w|)", re.IGNORECASE)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%?)")


def duration(value: Any) -> float:
    """Return seconds from a number or a text such as ``26h``, ``7d``, ``90m``.

    :raises ValueError: when it is neither.
    """
    found = _DURATION.fullmatch(str(value).strip())
    if not found:
        raise ValueError("a number of seconds, or a text such as 90m, 26h or 7d")
    return float(found.group(1)) * _SECONDS[found.group(2).lower()]


def size(value: Any) -> int:
    """Return bytes from a number or a text such as ``10M``, ``1.5GiB``; the units are powers of 1024.

    :raises ValueError: when it is neither.
    """
    found = _SIZE.fullmatch(str(value).strip())
    if not found:
        raise ValueError("a number of bytes, or a text such as 500K, 10M or 1.5G")
    return int(float(found.group(1)) * 1024 ** _BYTES[found.group(2).lower()])


def share(value: Any) -> float:
    """Return a share from a number such as 0.5 or a text such as ``50%``.

    :raises ValueError: when it is neither.
    """
    found = _SHARE.fullmatch(str(value).strip())
    if not found:
        raise ValueError("a share such as 0.5 or 50%")
    return float(found.group(1)) / (100 if found.group(2) else 1)


def span(seconds: float) -> str:
    """Return a length of time as people say it: 45 s, 90 min, 26 h, 7 d."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
