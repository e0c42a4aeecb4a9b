# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller decides about patching, also when a survey gives text where a list is meant."""

from __future__ import annotations

import datetime
import os
import subprocess
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.worklog.maintenance.plugins.filter import patching
from ansible_collections.worklog.maintenance.plugins.plugin_utils import run

SUNDAY = "2026-11-29T03:00+00:00"


@pytest.mark.parametrize(
    ("windows", "blackout", "opened"),
    [
        ([], [], True), ("", "", True), ("Sat,Sun 02:00-05:00", "", True), (["Mon 02:00-05:00"], [], False),
        ([], "2026-11-28,2026-11-29", False), ([], [datetime.date(2026, 11, 29)], False),
    ],
)  # fmt: skip
def test_windows_as_they_may_be_given(windows: Any, blackout: Any, opened: bool) -> None:
    assert patching.patch_window(windows, blackout, "UTC", "30m", SUNDAY)["open"] is opened


def test_what_cannot_be_understood_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="'sometimes' is not a window"):
        patching.patch_window(["sometimes"])
    assert "the soak time 'soon' is not a number" in patching.patch_manifest({}, "soon")["refused"]
    assert patching.patch_manifest({}, "1h") == {"refused": "nothing was proven: there is no host"}


def test_windows_that_are_none_are_told_once_with_their_hosts() -> None:
    good = {"inventory_hostname": "app1", "patch_windows": "Sun 02:00-05:00", "patch_blackout": "2026-12-24"}
    late = [{"inventory_hostname": name, "patch_windows": ["nightly"]} for name in ("app2", "app3")]
    short = {"inventory_hostname": "db1", "patch_window_cutoff": "soon"}
    found = patching.patch_windows_wrong([good, *late, short])
    assert [one.partition(";")[0] for one in found] == [
        "app2, app3: 'nightly' is not a window",
        "db1: the cutoff 'soon' is not a number of seconds, or a text such as 90m, 26h or 7d",
    ]


DIFFERENCES = [
    {"package": "openssl:all", "here": "1", "proven": "2"},
    {"package": "b:all", "here": "1", "proven": "2"},
    {"package": "c:all", "here": "1", "proven": None},
]
FINDINGS = [
    {"check": "packages.reboot", "severity": "warning", "message": "a has to be rebooted", "advice": "do so"},
    {"check": "packages.conffile", "severity": "warning", "message": "/etc/c was kept", "advice": "compare it"},
    {"check": "packages.others", "severity": "warning", "message": "more has changed", "advice": None},
    {"check": "packages.restart", "severity": "info", "message": "dbus runs on old files", "advice": None},
]


def test_the_plan_is_a_table_and_a_line_a_host() -> None:
    change = {"name": "openssl", "architecture": "all", "from": "1", "to": "2", "cves": ["CVE-2023-1"]}
    foreseen = {"services": {"nginx.service": "x"}, "reboot": ["linux-image-1 changes"]}
    planned = {"host": "a", "batch": 1, "outcome": "planned", "message": "m", "changes": [change], "foreseen": foreseen}
    lines = patching.patch_plan([{**planned, "window": "w"}, {"host": "b", "outcome": "refused", "message": "no"}])
    assert lines[2].split() == ["a", "1", "openssl", "1", "2", "CVE-2023-1"]
    assert lines[3:] == ["a: m; restarts nginx.service; reboot: linux-image-1 changes; w", "b: no"]
    assert patching.patch_plan([]) == []
    done = {"host": "a", "outcome": "patched", "message": "m", "changes": [change], "reboot": ["kernel"]}
    (*_table, line) = patching.patch_plan([{**done, "differences": DIFFERENCES, "findings": FINDINGS}])
    differs = "not what was proven (in brackets): b:all 1 (2), c:all 1 (none)"
    assert line == f"a: m; reboot needed: kernel; /etc/c was kept: compare it; more has changed; {differs}"
    many = [{**DIFFERENCES[2], "package": f"p{number}"} for number in range(7)]
    assert patching.patch_plan([{"host": "a", "message": "m", "differences": many}])[0].endswith("p4 1 (none), 2 more")
    back = {"host": "a", "outcome": "rolled_back", "message": "m", "changes": [{**change, "to": None, "cves": []}]}
    assert patching.patch_plan([back])[2].split() == ["a", "openssl", "1", "none"]


def test_a_run_of_this_controller_that_has_ended_is_known() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        alive = f"{os.uname().nodename}-{process.pid}-{run._ticks(process.pid)}"
        assert not run.ended(alive)
        process.kill()
    assert run.ended(alive)
    assert not run.ended("job-17") and not run.ended("") and not run.ended("elsewhere-1-1")
