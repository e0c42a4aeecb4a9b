# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan changes nothing."""

from __future__ import annotations

import os
from typing import Any

testinfra_hosts = [f"docker://{os.environ['LAB_PREFIX']}-{node}" for node in ("app1", "app2", "lb1", "lb2")]


def test_nothing_is_left_on_any_host(host: Any) -> None:
    assert not host.file("/var/lib/worklog-maintenance/releases").exists
    if host.file("/srv/worklog/current").exists:
        assert host.file("/srv/worklog/current").linked_to.endswith("releases/1.0.0")
    assert not host.file("/var/lib/lab-rotation/app1.drain").exists
