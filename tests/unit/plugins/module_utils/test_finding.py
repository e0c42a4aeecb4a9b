# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding, from_dict, worst


def make(severity: str) -> Finding:
    return Finding(check="host.disk", subject="/", severity=severity, message="The disk is 91 % full.")


@pytest.mark.parametrize(
    ("severities", "expected"),
    [
        ([], "ok"),
        (["ok"], "ok"),
        (["info", "ok"], "info"),
        (["warning", "critical", "ok"], "critical"),
        (["warning", "info"], "warning"),
    ],
)
def test_worst_is_the_highest_severity(severities: list[str], expected: str) -> None:
    assert worst(make(severity) for severity in severities) == expected


def test_an_unknown_severity_is_refused() -> None:
    with pytest.raises(ValueError, match="'fatal' is not one of ok, info, warning, critical"):
        make("fatal")


def test_a_finding_survives_the_way_through_ansible() -> None:
    finding = Finding("host.disk", "/", "warning", "91 % full", observed=91, limit=80, unit="%", advice="Clean it.")
    assert from_dict(finding.as_dict()) == finding


@pytest.mark.parametrize("value", [{}, {"check": "a"}, {**make("ok").as_dict(), "colour": "red"}])
def test_what_is_not_a_finding_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a finding"):
        from_dict(value)
