# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What confirms that data in production may be replaced."""

from __future__ import annotations

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.inplace import confirmed

pytestmark = pytest.mark.capability("A10")


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("shop@db1", "db1"),
        ("shop@db1.prod.example.test", "db1"),
        ("shop@db1", "db1.prod.example.test"),
        ("shop@db1.prod.example.test", "db1.prod.example.test"),
    ],
)
def test_the_source_and_the_host_are_named(given: str, host: str) -> None:
    confirmed(given, "shop", host)


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("", "db1"),
        ("shop", "db1"),
        ("shop@", "db1"),
        ("true", "db1"),
        ("shop@db2", "db1"),
        ("other@db1", "db1"),
        ("shop@db10.prod.example.test", "db1"),
        ("shop@db1.staging.example.test", "db1.prod.example.test"),
    ],
)
def test_anything_else_is_refused(given: str, host: str) -> None:
    with pytest.raises(RestoreError, match=f"confirm it with shop@{host}"):
        confirmed(given, "shop", host)
