# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters of releases turn what hosts did not say into findings, and errors into sentences."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.worklog.maintenance.plugins.filter import release

DEFINED = {
    "balancers": {"lb1": {"strategy": "haproxy"}},
    "database": {"contract": "x.yml", "host": "db2"},
    "gate": {"host": "lb1"},
}
MEMBERS = {"blue": ["app1"], "green": ["app2"]}
DECLARED = {"schema_change": False, "incompatible": False, "irreversible": False, "method": ""}
GOOD = {"version": "1.0.0", "bad": [], "findings": [{"check": "a", "subject": "b", "severity": "ok", "message": "c"}]}
DIVIDED = {"division": {"blue": 100, "green": 0}, "findings": []}


def plan(looked: dict[str, Any], balancer: dict[str, Any], version: str = "1.1.0") -> dict[str, Any]:
    return release.release_plan(looked, "api", version, DEFINED, MEMBERS, DECLARED, {"lb1": balancer})


def test_a_plan_of_hosts_that_all_answer_is_ready() -> None:
    made = plan({"app1": GOOD, "app2": GOOD}, DIVIDED)
    assert made["ready"] and made["method"] == "canary"
    without = release.release_plan(
        {"app1": GOOD, "app2": GOOD}, "api", "1.1.0", {**DEFINED, "gate": {}}, MEMBERS, DECLARED, {"lb1": DIVIDED}
    )
    assert without["method"] == "rolling"
    assert [step["where"] for step in made["steps"] if "schema" in step["what"]["en"]] == ["db2", "db2"]
    assert "Ready for approval." in release.release_plan_text(made)


@pytest.mark.parametrize(
    ("looked", "balancer", "words"),
    [
        ({"unreachable": True, "msg": "no route"}, DIVIDED, "the host app2 cannot be reached: no route"),
        ({"failed": True, "msg": "damaged"}, DIVIDED, "the host app2 does not answer: damaged"),
        ({}, DIVIDED, "the host app2 does not answer: it was not asked"),
        (GOOD, {"failed": True, "msg": "no socket"}, "the load balancer lb1 does not answer: no socket"),
    ],
)
def test_what_does_not_answer_stands_against_the_release(
    looked: dict[str, Any], balancer: dict[str, Any], words: str
) -> None:
    made = plan({"app1": GOOD, "app2": looked}, balancer)
    assert not made["ready"] and words in made["problems"]


def test_who_has_the_lock_of_a_load_balancer_is_told_once() -> None:
    held = {"check": "release.lock", "subject": "api on lb1", "severity": "critical", "message": "ann holds the lock"}
    gone = {"unreachable": True, "msg": "no route"}
    for divided, locks, problems in (
        (DIVIDED, {"findings": [held]}, ["api on lb1: ann holds the lock"]),
        (DIVIDED, {"failed": True, "msg": "damaged"}, ["the load balancer lb1 does not answer: damaged"]),
        (gone, gone, ["the load balancer lb1 cannot be reached: no route"]),
    ):
        looked = {"app1": GOOD, "app2": GOOD}
        asked = ({"lb1": divided}, (), {"lb1": locks})
        made = release.release_plan(looked, "api", "1.1.0", DEFINED, MEMBERS, DECLARED, *asked)
        assert made["problems"] == problems


def test_what_makes_no_sense_is_one_sentence() -> None:
    with pytest.raises(AnsibleFilterError, match=r"release_version: '1\.1' is no version"):
        plan({"app1": GOOD, "app2": GOOD}, DIVIDED, "1.1")
    assert release.release_steps("100, 5") == []
    with pytest.raises(AnsibleFilterError, match="does not say what belongs to app2"):
        release.release_watch({"sources": [{"type": "probe"}]}, {}, ["app2"], ["app1"])


def test_a_report_is_a_text_or_a_page() -> None:
    record = {"what": "canary", "subject": "api", "host": "app1", "result": "ok"}
    assert release.release_report([record], "Today").startswith("Today\n=====")
    assert release.release_report([record], "Today", "api", html=True).startswith("<!DOCTYPE html>")
    assert "0 releases" in release.release_report([record], "Today", "other")
