# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of versions of Debian packages (deb-version(7)), without a process for each comparison."""

from __future__ import annotations

import re
from functools import lru_cache

Part = tuple[tuple[int, ...], int]


@lru_cache(maxsize=8192)
def key(version: str) -> tuple[int, list[Part], list[Part]]:
    """Return what sorts as the version does."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, "0"
    return int(epoch) if epoch.isdigit() else 0, _parts(upstream), _parts(revision or "0")


def older(version: str, than: str) -> bool:
    """Tell whether the first version comes before the second."""
    return key(version) < key(than)


def _parts(text: str) -> list[Part]:
    # The last pair is empty: it lets "1.0~" come before the end of "1.0", and that before "1.0a".
    return [(_order(letters), int(digits or 0)) for letters, digits in re.findall(r"(\D*)(\d*)", text)]


def _order(letters: str) -> tuple[int, ...]:
    return (*(-1 if one == "~" else ord(one) + (0 if one.isalpha() else 256) for one in letters), 0)
