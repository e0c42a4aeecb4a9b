# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a restart, and after restarts that failed, both applications answer from the good release on every node."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

testinfra_hosts = [f"docker://{os.environ['LAB_PREFIX']}-{node}" for node in ("app1", "app2")]


@pytest.mark.parametrize(("port", "version"), [(8080, "1.0.0"), (3002, "2.3.0")])
def test_the_application_answers_from_the_good_release(host: Any, port: int, version: str) -> None:
    program = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{port}/health').read().decode())"
    answer = json.loads(host.check_output("python3 -c %s", program))
    assert answer["ready"] and answer["version"] == version


def test_the_unit_runs_and_was_not_started_again_by_systemd(host: Any) -> None:
    assert host.service("worklog-api").is_running
    assert host.check_output("systemctl show worklog-api --property=NRestarts --value") == "0"


def test_the_link_names_the_good_release(host: Any) -> None:
    assert host.file("/srv/worklog/current").linked_to == "/srv/worklog/releases/1.0.0"
