# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a release, and after two that did not work, the good version answers with its own configuration."""

from __future__ import annotations

import json
import os
from typing import Any

testinfra_hosts = [f"docker://{os.environ['LAB_PREFIX']}-app1"]
STATE = "/var/lib/worklog-maintenance/releases"


def test_the_good_version_answers(host: Any) -> None:
    answer = json.loads(host.check_output("curl -s http://127.0.0.1:8080/health"))
    assert answer["ready"] and answer["version"] == "1.1.0"
    assert host.file("/srv/worklog/current").linked_to == "/srv/worklog/releases/1.1.0"


def test_its_configuration_is_that_from_before(host: Any) -> None:
    config = host.file("/etc/worklog/worklog-api.json")
    assert (config.user, config.group, config.mode) == ("root", "worklog", 0o640)
    assert "database" in json.loads(config.content_string)


def test_the_state_tells_what_runs_and_is_not_for_everybody(host: Any) -> None:
    file = host.file(f"{STATE}/worklog-api.json")
    state = json.loads(file.content_string)
    assert (state["current"]["version"], state["under_way"], file.mode) == ("1.1.0", None, 0o640)
    assert [entry["version"] for entry in state["bad"]] in ([], ["1.2.0"])
    assert host.file(f"{STATE}/worklog-api.configuration").mode == 0o700
