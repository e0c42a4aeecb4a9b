# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether logs follow each other, from recorded facts alone."""

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.binlogs import (
    Log,
    continuity,
    mariadb_state,
    mysql_state,
    successor,
)

pytestmark = pytest.mark.capability("A8")


def log(number: int, start: str | None, end: str | None, **values: object) -> Log:
    named = {"next": f"b.{number + 1:06d}", "first": 1000.0 * number, "last": 1000.0 * number + 999, **values}
    return Log(f"b.{number:06d}", start=start, end=end, **named)  # type: ignore[arg-type]


ONE, TWO, THREE = log(1, "", "0-1-5"), log(2, "0-1-5", "0-1-9"), log(3, "0-1-9", "0-1-9,2-1-1")


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ([], []),
        ([ONE], []),
        ([ONE, TWO, THREE], []),
        ([THREE, ONE, TWO], []),
        ([ONE, THREE], [("b.000001", "b.000003", True)]),
        ([ONE, log(3, "0-1-5", "0-1-5")], [("b.000001", "b.000003", False)]),
        ([ONE, log(5, None, None)], [("b.000001", "b.000005", True)]),
        # the server was stopped: its last event names no other log
        ([log(1, "", "0-1-5", next=None), TWO], []),
        # it crashed: the next one begins where this one ends
        ([log(1, "", "0-1-5", next=None, closed=False, in_use=True), TWO], []),
        ([log(1, "", "0-1-4", next=None, closed=False, in_use=True), TWO], [("b.000001", "b.000002", True)]),
        ([log(1, None, None, next=None, closed=False), log(2, None, None)], [("b.000001", "b.000002", None)]),
        ([log(1, None, None), log(2, None, None)], []),
        # more servers and domains
        ([log(1, "", "0-1-5,0-2-7"), log(2, "0-1-5,0-2-8", "")], [("b.000001", "b.000002", True)]),
        ([log(1, "", "0-1-5,3-2-7"), log(2, "0-1-5", "0-1-5")], []),  # the domain was deleted
        ([log(1, "", "0-1-5,0-2-7"), log(2, "0-1-5", "")], [("b.000001", "b.000002", True)]),
        ([log(1, "", "0-1-5"), log(2, "", "")], [("b.000001", "b.000002", True)]),
        ([log(1, "", "u-u:1-5"), log(2, "u-u:1-5", "")], []),
        ([log(1, "", "u-u:1-5,v-v:1"), log(2, "u-u:1-5", "")], [("b.000001", "b.000002", True)]),
        # only the newest may be open
        ([ONE, log(2, "0-1-5", "0-1-6", next=None, closed=False, in_use=True)], []),
        ([ONE, log(2, "0-1-5", "0-1-6", next=None, closed=False)], [("b.000002", None, None)]),
        # numbers above the six digits
        ([log(999999, "", "0-1-5", next="b.1000000"), log(1000000, "0-1-5", "0-1-5")], []),
        ([log(1, "", "0-1-5", next="c.000002"), TWO], [("b.000001", "b.000002", False)]),
    ],
)
def test_gaps(logs: list[Log], expected: list[tuple[str, str | None, bool | None]]) -> None:
    assert [(gap.after, gap.before, gap.lost) for gap in continuity(logs)] == expected


def test_the_sentence_says_from_when_to_when() -> None:
    (gap,) = continuity([ONE, log(4, "0-1-30", "0-1-31")])
    assert gap.message == (
        "b.000002 and 1 more is missing: "
        "the transactions from 1970-01-01T00:33:19Z to 1970-01-01T01:06:40Z are not there"
    )
    assert (gap.since, gap.until) == (1999.0, 4000.0)


def test_states() -> None:
    assert mariadb_state({(3, 1): 7, (0, 2): 4, (0, 1): 13}) == "0-1-13,0-2-4,3-1-7"
    assert mysql_state({"v": [(4, 4)], "u": [(1, 3), (8, 9)]}) == "u:1-3:8-9,v:4"
    assert (successor("b.000009"), successor("b.999999"), successor("b")) == ("b.000010", "b.1000000", None)
