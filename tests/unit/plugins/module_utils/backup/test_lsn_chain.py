# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a full backup and its incremental ones follow each other, from recorded facts alone."""

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.lsn_chain import Backup, chain

pytestmark = pytest.mark.capability("A8")

FULL = Backup("full", False, 0, 100, "f")
ONE = Backup("inc1", True, 100, 200, "1", "f")
TWO = Backup("inc2", True, 200, 300, "2", "1")
#: Three backups without a checkpoint between them.
SAME = Backup("same1", True, 100, 100, "s", "f"), Backup("same2", True, 100, 100, "t", "s")


@pytest.mark.parametrize(
    ("backups", "expected"),
    [
        ([], []),
        ([FULL], []),
        ([FULL, ONE, TWO], []),
        ([Backup("full", False, 0, 100, "f", prepared=True), ONE], []),
        ([FULL, *SAME], []),
        ([FULL, TWO], ["inc2 begins at LSN 200, but full ends at 100"]),
        ([ONE, TWO], ["inc1 is no full backup: the chain has no beginning"]),
        ([FULL, FULL], ["full is a full backup in the middle of a chain"]),
        ([FULL, *SAME[::-1]], ["same2 was made against a backup that is not here, not against full",
                               "same1 was made against full, not against same2"]),
        ([FULL, SAME[0], Backup("x", True, 100, 100, "x", "f")], ["x was made against full, not against same1"]),
        ([FULL, Backup("x", True, 100, 200, "x")], []),
        ([FULL, SAME[0], Backup("x", True, 100, 200, "x")],
         ["x may follow more than one backup that ends at LSN 100: its parent was not written down"]),
        ([FULL, Backup("x", True, 100, 200, "x", "f", prepared=True)],
         ["x was prepared and cannot be applied any more"]),
    ],
)  # fmt: skip
def test_chains(backups: list[Backup], expected: list[str]) -> None:
    problems = chain(backups)
    assert [problem.message for problem in problems] == expected
    assert all(problem.sure == ("may follow" not in problem.message) for problem in problems)
