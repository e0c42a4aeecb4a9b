# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is installed and what would change, in one shape for apt and dnf, and which of it is chosen."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any


class PackageError(Exception):
    """What cannot be read or done with packages.

    :param message: what is wrong and what to do.
    :param refused: whether nothing was touched.
    """

    def __init__(self, message: str, refused: bool = True) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True)
class Installed:
    """A package that is installed, or half so.

    :param state: ``ok``, or what is wrong with it in the manager's own word.
    :param automatic: whether it came only because another one needs it; ``None``: not known.
    """

    name: str
    architecture: str
    version: str
    source: str
    source_version: str
    held: bool = False
    automatic: bool | None = None
    state: str = "ok"

    @property
    def key(self) -> str:
        """Name and architecture, which together are there once."""
        return f"{self.name}:{self.architecture}"


@dataclass(frozen=True)
class Change:
    """A package that would become another version.

    :param before: the installed version; empty when it is new.
    :param age: seconds since the version was made, where its source tells it.
    :param left_out: why it is not chosen; empty when it is.
    """

    name: str
    architecture: str
    before: str
    after: str
    origins: tuple[str, ...] = ()
    security: bool = False
    cves: tuple[str, ...] = ()
    age: float | None = None
    left_out: str = ""

    @property
    def key(self) -> str:
        """Name and architecture."""
        return f"{self.name}:{self.architecture}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as the modules return it."""
        values = asdict(self)
        values["from"], values["to"] = values.pop("before") or None, values.pop("after")
        return {**values, "origins": list(self.origins), "cves": list(self.cves)}


@dataclass(frozen=True)
class Wish:
    """Which changes are wanted.

    :param allow: patterns of package names; empty: all.
    :param deny: patterns of package names that stay, whatever else is said.
    :param minimum_age: seconds that a version has to be old where its age is known.
    """

    security_only: bool = False
    allow: Sequence[str] = ()
    deny: Sequence[str] = ()
    minimum_age: float = 0.0


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a package name fits one of the shell patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def choose(changes: Iterable[Change], wish: Wish) -> list[Change]:
    """Return all changes, those that are not wanted with the reason."""
    return [replace(change, left_out=_left_out(change, wish)) for change in changes]


def _left_out(change: Change, wish: Wish) -> str:
    if matches(change.name, wish.deny):
        return "denied"
    if wish.allow and not matches(change.name, wish.allow):
        return "not in the list of what may change"
    if wish.security_only and not (change.security or change.cves):
        return "no security update"
    if change.age is not None and change.age < wish.minimum_age:
        return "too young"
    return ""


@dataclass
class Needs:
    """What has to start again before the installed files are those in use."""

    reboot: list[str] = field(default_factory=list)
    services: dict[str, str] = field(default_factory=dict)
