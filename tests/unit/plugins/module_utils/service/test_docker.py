# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What docker inspect prints (engine 20.10 to 28), and what follows from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result
from ansible_collections.worklog.maintenance.plugins.module_utils.service import docker
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import Exit


def container(**state: Any) -> dict[str, Any]:
    return {
        "Id": "4a8e7d767cf44ab4efd1",
        "RestartCount": 2,
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
        "State": {
            "Status": "running",
            "Running": True,
            "Pid": 51,
            "ExitCode": 0,
            "StartedAt": "2026-11-21T22:51Z",
            **state,
        },
    }


@pytest.mark.parametrize(
    ("state", "phase", "up"),
    [
        ({}, "running", True),
        ({"Health": {"Status": "healthy", "Log": []}}, "running", True),
        ({"Health": {"Status": "starting", "Log": []}}, "running", False),
        ({"Health": {"Status": "unhealthy", "Log": [{"Output": "curl: (7) refused\n"}]}}, "running", False),
        ({"Health": {"Status": "none"}}, "running", True),
        ({"Status": "restarting"}, "failed", False),
        ({"Status": "exited", "Pid": 0}, "stopped", False),
        ({"Status": "exited", "Pid": 0, "ExitCode": 3}, "failed", False),
        ({"Status": "created", "Pid": 0}, "stopped", False),
        ({"Status": "paused"}, "starting", False),
        ({"Status": "dead", "Pid": 0}, "failed", False),
    ],
)
def test_a_container_is_up_when_it_runs_and_is_not_unhealthy(state: dict[str, Any], phase: str, up: bool) -> None:
    status = docker.status_of(container(**state))
    assert (status.phase, status.up) == (phase, up)
    assert status.restarts == 2


def test_the_last_words_of_the_health_check_are_kept() -> None:
    status = docker.status_of(container(Health={"Status": "unhealthy", "Log": [{"Output": "curl: (7) refused\n"}]}))
    assert status.said == "curl: (7) refused" and status.words == "running (unhealthy)"


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ({"ExitCode": 3}, Exit(code=3)),
        ({"ExitCode": 137, "OOMKilled": True}, Exit(signal="SIGKILL", oom=True)),
        ({"ExitCode": 139}, Exit(signal="SIGSEGV")),
        ({"ExitCode": 127, "Error": "exec: x: not found"}, Exit(code=127, result="exec: x: not found")),
        ({"ExitCode": 0, "Running": True}, Exit()),
    ],
)
def test_the_way_it_ended(state: dict[str, Any], wanted: Exit) -> None:
    assert docker.exit_of(state) == wanted


def test_published_ports_belong_to_the_container() -> None:
    assert docker.published_ports(container()) == {8080}
    assert docker.published_ports({"HostConfig": {"PortBindings": None}}) == set()


def test_a_container_that_is_missing_is_named_with_its_neighbours() -> None:
    def run(argv: list[str], **_unused: Any) -> Result:
        if "inspect" in argv:
            return Result(tuple(argv), 1, "[]\n", "Error: No such container: serch", 0.0)
        return Result(tuple(argv), 0, "search\nother\n", "", 0.0)

    found = docker.Docker("serch", run)
    assert found.status().phase == "absent"
    assert "did you mean search?" in found.problems()[0][2]


@pytest.mark.parametrize("text", ["[]", "{}", "[{}, {}]", "oops"])
def test_what_is_no_container_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no container|Expecting"):
        docker.parse_inspect(text)
    assert docker.parse_inspect(json.dumps([container()]))["RestartCount"] == 2
