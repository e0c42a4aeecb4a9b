# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host says before a release, from its state, its link and the answers of the application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release import info
from ansible_collections.worklog.maintenance.plugins.module_utils.release import state as releases
from ansible_collections.worklog.maintenance.plugins.module_utils.release.probes import Request, Result

NOW = 1_800_000_000.0


def begun(**options: Any) -> dict[str, Any]:
    asked = releases.Begin("job-7", "1.1.0", "canary", "ann", "faster search", 3600, **options)
    after, _notes = releases.begin(releases.empty("worklog-api"), asked, NOW)
    return after


def test_a_host_without_a_release_is_known_by_its_link(tmp_path: Path) -> None:
    assert info.live(str(tmp_path)) == info.live("") == ""
    (tmp_path / "current").symlink_to("releases/1.0.0")
    found = info.look(releases.empty("worklog-api"), info.live(str(tmp_path)), "app1", NOW)
    assert (found.version, found.artefact, found.findings) == ("1.0.0", "releases/1.0.0", [])


@pytest.mark.parametrize(("later", "words"), [(60, "for another 59 min"), (7200, "but it has expired")])
def test_a_lock_is_shown_with_who_why_and_how_long(later: float, words: str) -> None:
    state = begun(found={"version": "1.0.0", "artefact": "releases/1.0.0"})
    found = info.look(state, "releases/1.0.0", "app1", NOW + later)
    (lock,) = found.findings
    assert lock.severity == "critical" and lock.observed == "job-7"
    assert lock.message.startswith("ann holds the lock for 1.1.0 (faster search) since 2027-01-15T08:00:00Z")
    assert words in lock.message


def test_what_somebody_else_has_changed_is_told() -> None:
    state = releases.finish(begun(), "job-7", "good", NOW, artefact="releases/1.1.0")
    assert info.look(state, "releases/1.1.0", "app1", NOW).findings == []
    found = info.look(state, "releases/1.0.9", "app1", NOW)
    assert found.version == "1.0.9" and found.findings[0].check == "release.state"
    assert info.look(state, "", "app1", NOW).version == "1.1.0"


@pytest.mark.parametrize(("version", "matches"), [("1.0.0", r'"v": "1\.0\.0"'), ("", '"v": "[^"]*"')])
def test_requests_ask_for_the_version_that_runs(version: str, matches: str) -> None:
    (filled,) = info.fill([Request("/health", matches='"v": "<version>"')], version)
    assert filled.matches == matches


def test_a_sick_application_is_no_base_for_a_release() -> None:
    good, bad = (
        Result("GET /", "x", True, "HTTP 200"),
        Result("GET /health", "x", False, "HTTP 503 instead of 200 to 299"),
    )
    assert [one.severity for one in info.judge([good, good], "app1")] == ["ok"]
    (finding,) = info.judge([good, bad], "app1")
    assert finding.severity == "critical" and "GET /health: HTTP 503" in finding.message
    assert info.judge([], "app1") == []
