# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Versions as Semantic Versioning 2.0.0 writes and orders them, and how large the step between two of them is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_NUMBER = r"(0|[1-9][0-9]*)"
_WORDS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_WORDS}))?(?:\+({_WORDS}))?")


@dataclass(frozen=True)
class Version:
    """One version; build metadata say nothing about the order.

    :param pre: identifiers of a pre-release, empty for a release.
    """

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()

    def __str__(self) -> str:
        core = f"{self.major}.{self.minor}.{self.patch}"
        return f"{core}-{'.'.join(self.pre)}" if self.pre else core

    @property
    def key(self) -> tuple[Any, ...]:
        """What versions are ordered by: numbers before words, and a pre-release before its release."""
        words = tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in self.pre)
        return self.major, self.minor, self.patch, not self.pre, words


def parse(text: str) -> Version:
    """Return the version that a text names, with or without a leading v.

    :raises ValueError: when it is none.
    """
    found = _VERSION.fullmatch(text.strip())
    words = tuple(found.group(4).split(".")) if found and found.group(4) else ()
    if not found or any(word.isdigit() and word != "0" and word.startswith("0") for word in words):
        raise ValueError(f"'{text}' is no version; write it as MAJOR.MINOR.PATCH, such as v2.3.5 or 2.4.0-rc.1")
    return Version(int(found.group(1)), int(found.group(2)), int(found.group(3)), words)


def step(old: Version, new: Version) -> str:
    """Return how large the step to another version is: ``none``, ``older``, ``patch``, ``minor`` or ``major``.

    Before 1.0.0 anything may change with a minor version, so that is a major step there.
    """
    if new.key == old.key:
        return "none"
    if new.key < old.key:
        return "older"
    if new.major != old.major:
        return "major"
    if new.minor != old.minor:
        return "minor" if old.major else "major"
    return "patch"
