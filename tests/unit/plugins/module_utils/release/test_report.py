# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of releases is a view of their records, and shows hostile values as text."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.release import report


def record(host: str, what: str = "canary", **fields: Any) -> dict[str, Any]:
    return {
        "schema": 1, "run_id": "job-7", "what": what, "subject": "worklog-api", "host": host, "by": "ann",
        "started": "2026-11-21T10:45:01Z", "ended": "2026-11-21T10:46:09Z", "result": "ok",
        "recovery_seconds": None, "findings": [], "details": {}, **fields,
    }  # fmt: skip


BAD = record(
    "app2",
    result="failed",
    ended="2026-11-21T10:47:00Z",
    recovery_seconds=0.8,
    details={
        "version": "1.1.0", "previous": "1.0.0", "reason": "faster search",
        "message": "<script>alert(1)</script> & 20 % failed",
        "restored": {"code": "releases/1.0.0", "traffic": {"blue": 90.0, "green": 10}, "data": ""},
        "requests": {"failed": 12, "seen": 60},
    },
    findings=[
        {"check": "x", "subject": "y", "severity": "critical", "message": "12 of 60 requests failed"},
        {"check": "x", "subject": "y", "severity": "ok", "message": "fine"},
    ],
)  # fmt: skip


def test_the_records_of_one_run_are_one_and_others_are_left_out() -> None:
    found = report.runs([BAD, record("app1"), record("app1", "restart"), record("lb1", subject="other")], "worklog-api")
    (run,) = found
    assert (run.result, run.hosts, run.seconds) == ("failed", ["app1", "app2"], 0.8)
    assert (run.started, run.ended) == ("2026-11-21T10:45:01Z", "2026-11-21T10:47:00Z")
    assert run.title == "worklog-api: canary 1.0.0 -> 1.1.0" and run.went_back
    assert [finding["message"] for finding in run.findings] == ["12 of 60 requests failed"]


def test_what_was_restored_is_that_of_all_hosts() -> None:
    traffic = record("lb1", details={"restored": {"traffic": "blue 100 %"}})
    (run,) = report.runs([traffic, record("app2", details={"restored": {"code": "releases/1.0.0"}}), record("app1")])
    assert run.details["restored"] == {"code": "releases/1.0.0", "traffic": "blue 100 %"}


def test_a_refusal_on_one_host_beside_success_on_another_is_success() -> None:
    (run,) = report.runs([record("app1", result="refused"), record("app2")])
    assert run.result == "ok" and not run.went_back


def test_everything_that_is_known_is_told_in_both_languages() -> None:
    text = report.text(report.runs([BAD]), "Releases")
    for line in (
        "What / 内容: canary, 1.0.0 -> 1.1.0",
        "What was restored / 恢复内容: code: releases/1.0.0, traffic: blue 90 % and green 10 %",
        "Time to restore / 恢复用时: 0.8 s",
        "Failed requests of the new version / 新版本失败请求: 12 / 60",
        "critical: 12 of 60 requests failed",
    ):
        assert f"  {line}\n" in text
    assert "1 releases and rollbacks, 1 failed, 1 went back, longest time to restore 0.8 s." in text


def test_the_page_stands_by_itself_and_escapes_every_value() -> None:
    page = report.page(report.runs([BAD, record("app1", run_id="job-8")]), "Releases <of> today")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; 20 % failed" in page
    assert "<title>Releases &lt;of&gt; today</title>" in page
    assert not re.search(r"""(src|href)=|url\(|https?://""", page)
    assert page.count("<h2") == 2 and page.count('<h2 class="bad"') == 1


def test_records_without_details_and_none_at_all_make_a_report() -> None:
    broken = {"what": "rollback", "details": None, "findings": None}
    assert "rollback" in report.text(report.runs([broken]), "x")
    assert "0 releases and rollbacks" in report.page([], "x")
