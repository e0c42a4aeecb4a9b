# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.worklog.maintenance.plugins.filter.report import (
    findings_table,
    record_findings,
    records_table,
)


def test_findings_come_most_severe_first_and_chinese_lines_up() -> None:
    findings = [
        {"severity": "ok", "host": "db1", "check": "a", "subject": "/", "message": "fine"},
        {"severity": "critical", "host": "应用", "check": "b", "subject": "/srv", "message": "磁盘满"},
        {"severity": "warning", "check": "c", "subject": "/", "message": "near"},
    ]
    assert findings_table(findings) == [
        "severity  host  check  subject  message",
        "--------  ----  -----  -------  -------",
        "critical  应用  b      /srv     磁盘满",
        "warning         c      /        near",
        "ok        db1   a      /        fine",
    ]


def test_records_come_in_the_order_of_their_end() -> None:
    records = [
        {"ended": "2026-11-02T00:00:00Z", "host": "b", "what": "restart", "result": "ok", "downtime_seconds": 0.5},
        {"ended": "2026-11-01T00:00:00Z", "host": "a", "what": "patch", "result": "failed", "subject": "nginx"},
    ]
    assert records_table(records) == [
        "ended                 host  what     subject  result  downtime",
        "--------------------  ----  -------  -------  ------  --------",
        "2026-11-01T00:00:00Z  a     patch    nginx    failed",
        "2026-11-02T00:00:00Z  b     restart           ok      0.50 s",
    ]


def test_a_column_without_a_value_is_left_out() -> None:
    finding = {"severity": "ok", "check": "a", "subject": "/", "message": "fine"}
    assert findings_table([finding])[0] == "severity  check  subject  message"


def test_the_findings_of_records_carry_their_host_and_come_once() -> None:
    bad = {"severity": "warning", "check": "a", "message": "near"}
    good = {"severity": "ok", "check": "b", "message": "fine"}
    records = [{"host": "db1", "findings": [bad, good]}, {"host": "db1", "findings": [bad]}]
    assert record_findings(records) == [{**bad, "host": "db1"}]


def test_nothing_is_a_table_with_a_head() -> None:
    assert len(findings_table([])) == 2


@pytest.mark.parametrize("value", [[{"severity": "fatal"}], [{}], [1]])
def test_what_is_not_a_list_of_findings_is_refused(value: list[object]) -> None:
    with pytest.raises(AnsibleFilterError, match="needs a list of findings"):
        findings_table(value)
