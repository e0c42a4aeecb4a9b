# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the role: the backups are as they were, and the history and the record are there."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import testinfra

DB1 = f"docker://{os.environ.get('LAB_PREFIX', 'molecule')}-db1"


@pytest.fixture(scope="module")
def host() -> Any:
    return testinfra.get_host(DB1)


def test_the_history_has_each_backup_once(host: Any) -> None:
    history = json.loads(host.file("/var/lib/worklog-maintenance/molecule/sizes.json").content_string)
    assert len(history["sizes"]) == 8
    for name, entries in history["sizes"].items():
        times = {entry["time"] for entry in entries}
        assert len(entries) == len(times) == (2 if name == "/backup/snapshots/*" else 1), name


def test_nothing_was_left_in_the_backups(host: Any) -> None:
    found = host.run("find /backup -newer /var/lib/worklog-maintenance/molecule/sizes.json").stdout.split()
    assert [path for path in found if path != "/backup"] == []
    assert not host.file("/root/.ansible_async").exists or host.run("ls /root/.ansible_async").stdout == ""


def test_sums_still_agree(host: Any) -> None:
    for path in ("mongodb/20260102/worklog_20260102.tar.gz", "lowcode/logs_latest.tar.gz"):
        assert host.run(f"gzip -t /backup/{path}").rc == 0
    assert host.run("redis-check-rdb /backup/dump.rdb").rc == 0
