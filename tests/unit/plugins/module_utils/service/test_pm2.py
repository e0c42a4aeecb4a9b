# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What PM2 5 and 6 print and write, and what follows from it."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.service import pm2
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import Exit


def entry(pm_id: int = 0, status: str = "online", pid: int = 100, **env: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "pm_id": pm_id,
        "pid": pid,
        "pm2_env": {"status": status, "restart_time": 1, "pm_uptime": 5, **env},
    }


BANNER = """
__/\\\\\\\\\\_____
        [PM2] is a Production Process Manager
[PM2] Spawning PM2 daemon with pm2_home=/home/x/.pm2
[PM2] PM2 Successfully daemonized
>>>> In-memory PM2 is out-of-date, do:
>>>> $ pm2 update
"""


@pytest.mark.parametrize("before", ["", BANNER])
@pytest.mark.parametrize("after", ["", "[PM2][WARN] Applications x not running\n"])
def test_the_list_is_found_among_banners(before: str, after: str) -> None:
    assert pm2.parse_jlist(before + json.dumps([entry()]) + after) == [entry()]
    assert pm2.parse_jlist(before + "[]" + after) == []


@pytest.mark.parametrize("text", ["", BANNER, "[1, 2", '[{"no": "process"}]', "[PM2][ERROR] connect ECONNREFUSED"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no list of processes"):
        pm2.parse_jlist(text)


@pytest.mark.parametrize(
    ("states", "phase", "words"),
    [
        (["online"], "running", "online"),
        (["online", "online"], "running", "2 online"),
        (["online", "errored"], "failed", "1 errored, 1 online"),
        (["online", "stopped"], "failed", "1 online, 1 stopped"),
        (["online", "launching"], "starting", "1 launching, 1 online"),
        (["waiting restart"], "failed", "waiting restart"),
        (["stopping", "online"], "stopping", "1 online, 1 stopping"),
        (["stopped", "stopped"], "stopped", "2 stopped"),
        ([], "absent", "not defined"),
    ],
)
def test_all_instances_together_are_as_bad_as_the_worst(states: list[str], phase: str, words: str) -> None:
    status = pm2.status_of([entry(number, state, 100 + number) for number, state in enumerate(states)])
    assert (status.phase, status.words) == (phase, words)
    assert status.restarts == len(states)


def test_every_instance_is_followed() -> None:
    first = pm2.status_of([entry(1, pid=12, pm_uptime=7), entry(0, pid=11, pm_uptime=6)])
    assert first.pids == (11, 12) and first.generation == "0:6 1:7"
    assert pm2.status_of([entry(0, "stopped", 0)]).pids == ()


LOG = """\
2026-11-21T23:00:47: PM2 log: Stopping app:plat id:0
2026-11-21T23:00:47: PM2 log: App [plat:0] exited with code [0] via signal [SIGINT]
2026-11-21T23:00:47: PM2 log: pid=1008 msg=process killed
2026-11-21T23:00:47: PM2 log: App [plat:0] starting in -fork mode-
2026-11-21T23:02:35: PM2 log: App [crash:3] exited with code [7] via signal [SIGINT]
2026-11-21T23:02:35: PM2 log: App [crash:3] starting in -fork mode-
2026-11-21T23:02:36: PM2 log: App [crash:3] exited with code [0] via signal [SIGSEGV]
""".splitlines()


def test_exits_that_were_not_asked_for_are_told_from_those_that_were() -> None:
    assert pm2.unplanned_exits(LOG, [0]) == []
    assert pm2.unplanned_exits(LOG, [3]) == [Exit(code=7), Exit(signal="SIGSEGV")]
    assert pm2.unplanned_exits(LOG, []) == []
    # what crashed before it was told to stop says nothing about the process that came after
    assert pm2.unplanned_exits([*LOG, "x: Stopping app:crash id:3"], [3]) == []


def message(topic: str, content: Any) -> bytes:
    parts = [b"s:" + topic.encode(), b"j:" + json.dumps(content).encode()]
    return bytes([1 << 4 | len(parts)]) + b"".join(struct.pack(">I", len(part)) + part for part in parts)


def test_the_bus_is_read_piece_by_piece() -> None:
    stream = message("log:out", {"data": "x"}) + message(
        "process:msg", {"raw": "ready", "process": {"pm_id": 4, "name": "x"}}
    )
    found: list[tuple[str, Any]] = []
    buffer = b""
    for position in range(0, len(stream), 7):
        messages, buffer = pm2.bus_messages(buffer + stream[position : position + 7])
        found.extend(messages)
    assert buffer == b"" and [topic for topic, content in found] == ["log:out", "process:msg"]
    assert list(pm2.ready_ids(found)) == [4]
    assert list(pm2.ready_ids([("process:msg", {"raw": "hello", "process": {"pm_id": 4}}), ("x", 1)])) == []


def test_a_failed_command_does_not_show_the_environment() -> None:
    words = "'env -i HOME=/home/x SECRET=1 /usr/bin/pm2 restart x' ended with exit code 1"
    assert pm2._without_environment(words) == "'/usr/bin/pm2 restart x' ended with exit code 1"
