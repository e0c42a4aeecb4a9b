# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one result that every check of this collection speaks.

A report, a notification, an AWX artefact and a gate read findings and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: From harmless to severe. ``critical`` means: what was checked must not be relied upon.
SEVERITIES = ("ok", "info", "warning", "critical")


@dataclass(frozen=True)
class Finding:
    """What one check saw on one subject.

    :param check: dotted name of the check, stable across releases, such as ``backup.age``.
    :param subject: what was looked at: a path, a unit, a server name.
    :param severity: one of :data:`SEVERITIES`.
    :param message: one sentence an operator can act on.
    :param observed: the value seen, in ``unit``.
    :param limit: the value it was compared with, in ``unit``.
    :param unit: unit of both values, such as ``bytes`` or ``seconds``.
    :param advice: what to do next.
    :raises ValueError: when the severity is not one of :data:`SEVERITIES`.
    """

    check: str
    subject: str
    severity: str
    message: str
    observed: Any = None
    limit: Any = None
    unit: str | None = None
    advice: str | None = None

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity {self.severity!r} is not one of {', '.join(SEVERITIES)}")

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as Ansible returns it: every field, ``None`` where it has no value."""
        return asdict(self)


def from_dict(value: Mapping[str, Any]) -> Finding:
    """Return the finding that :meth:`Finding.as_dict` wrote.

    :raises ValueError: when a required field is missing, a field is unknown or the severity is not known.
    """
    try:
        return Finding(**value)
    except TypeError as error:
        raise ValueError(f"this is not a finding: {error}") from error


def worst(findings: Iterable[Finding]) -> str:
    """Return the highest severity among the findings, ``ok`` when there are none."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default="ok")
