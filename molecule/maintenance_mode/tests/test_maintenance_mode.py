# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Both load balancers show the page, also after a switch that failed, and a timer will end it."""

from __future__ import annotations

import os
from typing import Any

testinfra_hosts = [f"docker://{os.environ['LAB_PREFIX']}-{node}" for node in ("lb1", "lb2")]


def ask(host: Any, path: str, method: str = "GET") -> str:
    command = "curl --silent --include --request %s --header 'Host: worklog.example.test' http://127.0.0.1%s"
    return str(host.check_output(command, method, path))


def test_visitors_see_the_page_and_health_checks_pass(host: Any) -> None:
    for method in ("GET", "POST"):
        answer = ask(host, "/", method)
        assert answer.startswith("HTTP/1.1 503") and "x-maintenance-mode: page" in answer.lower()
    assert "Back at &lt;six&gt; for &#36;0" in answer
    assert ask(host, "/health").startswith("HTTP/1.1 200")


def test_a_timer_of_systemd_will_end_it(host: Any) -> None:
    timer = host.service("worklog-maintenance-mode.timer")
    assert timer.is_running and timer.is_enabled
    assert "mode page until" in host.check_output("worklog-maintenance-mode status")
