# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a manifest of our own says of the source, beyond sizes and hashes."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry, Manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import recorded

pytestmark = pytest.mark.capability("A8")

LOGS = [{"file": "binlog.000007", "size": 900, "ending": "rotate"}, {"file": "binlog.000008", "size": 500}]
FILES = {"binlog.000007.zst": Entry(100, None, Entry(900)), "binlog.000008": Entry(500)}
POSITIONS = {"from_lsn": 0, "to_lsn": 50, "last_lsn": 60, "binlog_file": "binlog.000009"}


def found(files: dict[str, Entry], backups: Any = (), **document: Any) -> list[str]:
    manifest = Manifest("manifest.json", files, positions=POSITIONS, document={"binlogs": LOGS, **document})
    return [problem.message for problem in recorded.compare(manifest, {"mariabackup": list(backups)})]


def test_all_logs_are_there() -> None:
    assert found(FILES) == []
    assert found({}, binlogs=None) == []
    assert found({**FILES, "binlog.000008": Entry()}) == []  # its size was not written down


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"binlog.000008": Entry(500)}, "the source had the log binlog.000007, which is not in the backup"),
        ({**FILES, "binlog.000008": Entry(499)}, "binlog.000008 has 499 bytes, but it had 500 at its source"),
        ({**FILES, "binlog.000007.zst": Entry(100, None, Entry(901))}, "binlog.000007 has 901 bytes, but it had 900"),
    ],
)
def test_a_log_is_missing_or_of_another_size(files: dict[str, Entry], words: str) -> None:
    (message,) = found(files)
    assert words in message


def test_a_copy_of_the_servers_files_covers_what_was_told() -> None:
    backup = {"from_lsn": 0, "to_lsn": 50, "last_lsn": 60, "uuid": "x"}
    assert found(FILES, [backup]) == []
    (message,) = found(FILES, [{**backup, "to_lsn": 49}])
    assert message == "it covers LSN 0 to 49 and 60, but the manifest says 0 to 50 and 60: it is another backup"
