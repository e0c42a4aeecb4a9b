# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the definition of an application asks of each load balancer and of the gate."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.release import definition
from ansible_collections.worklog.maintenance.plugins.module_utils.release.definition import DefinitionError

MEMBERS = {"blue": ["app1"], "green": ["app2"]}
FOUR = {"blue": ["app1", "app2"], "green": ["app3", "app4"]}
HAPROXY = {"strategy": "haproxy", "backend": "api", "servers": {"app2": ["second"]}}
FLAGS = {
    "strategy": "nginx_flag",
    "path": "/run/<host>.drain",
    "servers": {"app1": ["app1:8080"], "app2": ["app2:8080"]},
}
FLAG = {"strategy": "nginx_flag", "path": "/run/green", "servers": {"green": ["app2:8080", "app2:8081"]}}


def shares(old: str, percent: float, new: str) -> dict[str, float]:
    return {old: 100 - percent, new: percent}


def percents(task: dict[str, Any]) -> dict[str, float]:
    return {side["name"]: side["percent"] for side in task["sides"]}


@pytest.mark.parametrize(
    ("balancer", "percent", "given"),
    [
        (HAPROXY, 5, {"blue": 95, "green": 5}),
        (HAPROXY, 100, {"blue": 0, "green": 100}),
        (FLAG, 50, {"blue": 100, "green": 0}),
        (FLAG, 75, {"blue": 0, "green": 100}),
        (FLAG, 100, {"blue": 0, "green": 100}),
        (FLAGS, 25, {"app1": 100, "app2": 0}),
        (FLAGS, 50, {"app1": 50, "app2": 50}),
        (FLAGS, 75, {"app1": 0, "app2": 100}),
        (FLAGS, 100, {"app1": 0, "app2": 100}),
    ],
)
def test_each_side_gets_its_share_as_far_as_the_strategy_can(
    balancer: dict[str, Any], percent: float, given: dict[str, float]
) -> None:
    assert percents(definition.split(balancer, MEMBERS, shares("blue", percent, "green"))) == given


def test_what_a_load_balancer_calls_its_servers() -> None:
    assert definition.split(HAPROXY, MEMBERS) == {
        "strategy": "haproxy",
        "backend": "api",
        "sides": [{"name": "blue", "servers": ["app1"]}, {"name": "green", "servers": ["second"]}],
    }
    assert definition.split(FLAG, MEMBERS)["sides"][1]["servers"] == ["app2:8080", "app2:8081"]


def test_hosts_with_a_flag_each_are_sides_of_their_own() -> None:
    assert definition.split(FLAGS, MEMBERS, shares("blue", 100, "green")) == {
        "strategy": "nginx_flags",
        "path": "/run/<side>.drain",
        "sides": [
            {"name": "app1", "servers": ["app1:8080"], "percent": 0.0},
            {"name": "app2", "servers": ["app2:8080"], "percent": 100.0},
        ],
    }
    assert percents(definition.split(FLAGS, FOUR, shares("blue", 60, "green"))) == dict.fromkeys(
        ["app1", "app2"], 0.0
    ) | dict.fromkeys(["app3", "app4"], 50.0)


def test_shares_of_other_sides_are_refused() -> None:
    with pytest.raises(DefinitionError, match="the sides are blue, green"):
        definition.split(HAPROXY, MEMBERS, {"blue": 100, "gren": 0})


@pytest.mark.parametrize(
    ("read", "division"),
    [
        ({"blue": 95, "green": 5}, {"blue": 95, "green": 5}),
        ({"app1": 100, "app2": 0}, {"blue": 100, "green": 0}),
        ({"app1": 50, "app2": 50}, {"blue": 50, "green": 50}),
        ({"app1": 0, "app2": 0}, {"blue": 0, "green": 0}),
    ],
)
def test_the_division_is_read_back(read: dict[str, float], division: dict[str, float]) -> None:
    assert definition.division(read, MEMBERS) == division


@pytest.mark.parametrize(
    ("divisions", "idle"),
    [
        ({"lb1": {"blue": 100, "green": 0}, "lb2": {"blue": 100, "green": 0}}, "green"),
        ({"lb1": {"blue": 0, "green": 100}}, "blue"),
    ],
)
def test_the_idle_side_is_read(divisions: dict[str, dict[str, float]], idle: str) -> None:
    assert definition.idle(divisions) == idle


@pytest.mark.parametrize(
    "divisions",
    [
        {"lb1": {"blue": 100, "green": 0}, "lb2": {"blue": 0, "green": 100}},
        {"lb1": {"blue": 50, "green": 50}},
        {"lb1": {"blue": 0, "green": 0}},
    ],
)
def test_no_side_is_taken_for_idle_that_is_not(divisions: dict[str, dict[str, float]]) -> None:
    assert definition.idle(divisions) == ""


def test_the_gate_watches_the_servers_of_the_new_version() -> None:
    given = {
        "host": "lb2",
        "duration": 60,
        "sources": [
            {"type": "haproxy", "sockets": ["/run/admin.sock"]},
            {"type": "access_log", "servers": {"app1": ["10.0.0.1:80"], "app2": ["10.0.0.2:80"]}},
            {"type": "prometheus", "candidate_queries": {"value": 'x{version="<version>"}'}},
        ],
        "metrics": [{"metric": "errors"}],
    }
    made = definition.gate(given, HAPROXY, ["app2"], ["app1"], {"version": "1.1.0"})
    assert "host" not in made and made["duration"] == 60
    assert made["sources"][0]["candidate"] == ["api/second"] and made["sources"][0]["baseline"] == ["api/app1"]
    assert made["sources"][1]["candidate"] == ["10.0.0.2:80"] and "servers" not in made["sources"][1]
    assert made["sources"][2] == {"type": "prometheus", "candidate_queries": {"value": 'x{version="1.1.0"}'}}
    swapped = definition.gate(given, HAPROXY, ["app1"], ["app2"], {})
    assert swapped["sources"][0]["candidate"] == ["api/app1"]
    with pytest.raises(DefinitionError, match="the source access_log does not say what belongs to app2"):
        definition.gate({"sources": [{"type": "access_log"}]}, {}, ["app2"], [], {})


def test_words_are_filled_into_every_text() -> None:
    given = {"a": ["<host> of <application>", {"<host>": 1}], "b": 2}
    assert definition.fill(given, {"host": "app1", "application": "api"}) == {"a": ["app1 of api", {"app1": 1}], "b": 2}


@pytest.mark.parametrize("given", [[5, 10, 100], "5,10,100", "5 %, 10%,100", ["5", "10", "100"]])
def test_the_steps_come_as_a_list_or_as_the_answer_of_a_survey(given: Any) -> None:
    assert definition.steps(given) == [5, 10, 100]


@pytest.mark.parametrize("given", [[], "", "5,10", "10,5,100", "5,5,100", "0,100", "5,x,100", "5,200", 100, None])
def test_steps_that_do_not_lead_to_all_of_the_traffic_are_none(given: Any) -> None:
    assert definition.steps(given) == []


def test_the_steps_of_a_canary_stay_below_all_of_the_traffic() -> None:
    assert definition.steps("5, 25", to_all=False) == [5, 25]
    assert definition.steps([5, 100], to_all=False) == []
