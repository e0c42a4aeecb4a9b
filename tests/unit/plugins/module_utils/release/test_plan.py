# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Versions, the rule that chooses the method, and what stands against a release."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.release import plan, versions
from ansible_collections.worklog.maintenance.plugins.module_utils.release.plan import Declared, Topology

BLUE_GREEN = {"blue": ("app1",), "green": ("app2",)}
FULL = Topology(("app1", "app2"), BLUE_GREEN, {"lb1": "nginx_flag", "lb2": "haproxy"}, "db1", True, True, "db1")
FLAGS = Topology(("app1", "app2"), {}, {"lb1": "nginx_flag"})
ALONE = Topology(("app1",), {}, {})


@pytest.mark.parametrize(
    "text", ["1.2", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-rc..1", "1.2.3-01", "latest", "", "vv1.2.3"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no version; write it as"):
        versions.parse(text)


def test_versions_are_ordered_as_semantic_versioning_says() -> None:
    # the example of its section 11, and numbers that sort otherwise as texts
    order = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]
    keys = [versions.parse(text).key for text in [*(f"1.0.0-{pre}" for pre in order), "1.0.0", "1.9.0", "1.10.0"]]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert versions.parse("v1.2.3+build.5").key == versions.parse("1.2.3").key
    assert str(versions.parse(" v1.2.3-rc.1+x ")) == "1.2.3-rc.1"


@pytest.mark.parametrize(
    ("old", "new", "size"),
    [
        ("v2.3.5", "v2.3.6", "patch"),
        ("2.3.5", "2.4.0", "minor"),
        ("2.3.5", "3.0.0", "major"),
        ("2.3.5", "2.3.5", "none"),
        ("2.3.5", "2.3.4", "older"),
        ("2.3.5", "2.3.5-rc.1", "older"),
        ("2.4.0-rc.1", "2.4.0", "patch"),
        ("0.3.5", "0.4.0", "major"),
        ("0.3.5", "0.3.6", "patch"),
    ],
)
def test_the_step_between_two_versions(old: str, new: str, size: str) -> None:
    assert versions.step(versions.parse(old), versions.parse(new)) == size


@pytest.mark.parametrize(
    ("size", "there", "declared", "method"),
    [
        ("patch", FULL, Declared(), "rolling"),
        ("patch", ALONE, Declared(), "in_place"),
        ("minor", FULL, Declared(), "canary"),
        ("minor", FLAGS, Declared(), "rolling"),
        ("minor", ALONE, Declared(), "in_place"),
        ("major", FULL, Declared(), "blue_green"),
        ("major", FLAGS, Declared(), "maintenance_window"),
        ("unknown", FULL, Declared(), "blue_green"),
        ("patch", FULL, Declared(schema_change=True), "blue_green"),
        ("patch", FLAGS, Declared(schema_change=True), "maintenance_window"),
        ("patch", FULL, Declared(incompatible=True), "maintenance_window"),
        ("minor", FULL, Declared(schema_change=True, incompatible=True), "maintenance_window"),
    ],
)
def test_the_method_that_fits(size: str, there: Topology, declared: Declared, method: str) -> None:
    chosen, _why, against, found = plan.choose(size, there, declared)
    assert chosen == method and chosen not in against and not found


@pytest.mark.parametrize(
    ("there", "declared", "severity", "words"),
    [
        (FULL, Declared(method="blue_green"), None, ""),
        (FULL, Declared(method="rolling"), "warning", "is less careful than canary, which fits"),
        (ALONE, Declared(method="canary"), "critical", "cannot be used: no load balancer is declared"),
        (FLAGS, Declared(method="canary"), "critical", "no load balancer can give a share"),
        (FLAGS, Declared(method="blue_green"), "critical", "two sides are needed"),
        (dataclasses.replace(FULL, gate=False), Declared(method="canary"), "critical", "nothing would watch"),
        (dataclasses.replace(FULL, gate=False), Declared(method="blue_green"), "critical", "nothing would watch"),
        (dataclasses.replace(FULL, gate=False), Declared(method="rolling"), None, ""),
        (FULL, Declared(method="canary", incompatible=True), "critical", "cannot run at the same time"),
    ],
)
def test_a_method_that_is_asked_for_is_judged(
    there: Topology, declared: Declared, severity: str | None, words: str
) -> None:
    chosen, _why, _against, found = plan.choose("minor", there, declared)
    assert chosen == declared.method
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(words in finding.message for finding in found)


def make(asked: str, there: Topology = FULL, declared: Declared | None = None, **running: str) -> dict[str, Any]:
    hosts = {host: {"version": version, "bad": ["1.9.9"]} for host, version in running.items()}
    return plan.make("worklog-api", asked, there, declared or Declared(), hosts)


@pytest.mark.parametrize(
    ("asked", "running", "ready", "words"),
    [
        ("v1.1.0", {"app1": "1.0.0", "app2": "1.0.0"}, True, ""),
        ("1.0.0", {"app1": "1.0.0", "app2": "1.0.0"}, False, "runs everywhere already"),
        ("1.1.0", {"app1": "1.1.0", "app2": "1.0.0"}, True, "different versions: 1.1.0 on app1, 1.0.0 on app2"),
        ("1.0.0", {"app1": "1.1.0", "app2": "1.0.0"}, True, "different versions"),
        ("0.9.0", {"app1": "1.0.0", "app2": "1.0.0"}, False, "0.9.0 is older than 1.0.0"),
        ("1.9.9", {"app1": "1.0.0", "app2": "1.0.0"}, False, "known as bad"),
        ("1.1.0-rc.1", {"app1": "1.0.0", "app2": "1.0.0"}, True, "is a pre-release"),
        ("1.1.0", {"app1": "1.0.0", "app2": ""}, True, "which version runs on app2 is not known"),
        ("1.1.0", {"app1": "main", "app2": "1.0.0"}, True, "which version runs on app1 is not known ('main')"),
    ],
)
def test_what_runs_is_compared_with_what_is_asked_for(
    asked: str, running: dict[str, str], ready: bool, words: str
) -> None:
    made = make(asked, **running)
    assert made["ready"] is ready
    messages = [finding["message"] for finding in made["findings"] if finding["severity"] != "info"]
    assert any(words in message for message in messages) if words else not messages


@pytest.mark.parametrize(
    ("there", "declared", "ready", "words"),
    [
        (FULL, Declared(schema_change=True), True, ""),
        (FLAGS, Declared(schema_change=True), False, "declares no database.expand"),
        (FLAGS, Declared(schema_change=True), False, "no backup is declared that could be verified"),
        (FLAGS, Declared(), True, "no backup is declared, so none is verified"),
        (FULL, Declared(irreversible=True), True, "no way back"),
        (FULL, Declared(method="canary"), True, "lb1 gives a host all of its requests or none"),
    ],
)
def test_what_is_declared_is_compared_with_what_there_is(
    there: Topology, declared: Declared, ready: bool, words: str
) -> None:
    made = make("1.1.0", there, declared, app1="1.0.0", app2="1.0.0")
    assert made["ready"] is ready
    assert not words or any(words in finding["message"] for finding in made["findings"])


@pytest.mark.parametrize("method", plan.METHODS)
def test_every_method_has_steps_for_people_in_both_languages(method: str) -> None:
    made = make("1.1.0", FULL, Declared(method=method, schema_change=True), app1="1.0.0", app2="1.0.0")
    english, chinese = plan.text(made), plan.text(made, "zh")
    assert "Plan for worklog-api: 1.0.0 -> 1.1.0 (minor version)" in english
    assert "worklog-api 升级计划:1.0.0 -> 1.1.0 (次版本)" in chinese
    assert [step["where"] for step in made["steps"] if "expand" in step["what"]["en"]] == ["db1"]
    assert [step["who"] for step in made["steps"]][:3] == ["operator", "automation", "approver"]
    assert all(step["what"]["en"] and step["what"]["zh"] for step in made["steps"])
    assert made["playbook"].rpartition(".")[2] in ("upgrade_in_place", "canary", "blue_green")


def test_the_worst_comes_first_and_decides() -> None:
    others = [Finding("release.backup", "db1", "critical", "the backup is 3 d old"), Finding("x", "y", "info", "z")]
    hosts = {host: {"version": "1.0.0"} for host in FULL.hosts}
    made = plan.make("worklog-api", "1.1.0", FULL, Declared(), hosts, others)
    assert made["findings"][0]["message"] == "the backup is 3 d old"
    assert plan.text(made)[-1] == "NOT READY: what is critical must be cleared first."
    assert "  [critical] db1: the backup is 3 d old" in plan.text(made)


def test_a_host_that_was_not_looked_at_is_unknown() -> None:
    made = plan.make("worklog-api", "1.1.0", FULL, Declared(), {"app1": {"version": "1.0.0"}})
    assert made["running"] == {"app1": "1.0.0", "app2": ""}


def test_versions_that_cannot_run_together_change_at_once_behind_a_page_that_is_shown_by_hand() -> None:
    made = make("2.0.0", declared=Declared(incompatible=True), app1="1.0.0", app2="1.0.0")
    steps = [(step["who"], step["what"]["en"]) for step in made["steps"]]
    shown, changed, away = (
        next(number for number, (_who, what) in enumerate(steps) if words in what)
        for words in ("show the maintenance page", "release_serial=100%", "take the maintenance page away")
    )
    assert shown < changed < away and [steps[one][0] for one in (shown, changed, away)] == [
        "operator", "automation", "operator",
    ]  # fmt: skip
