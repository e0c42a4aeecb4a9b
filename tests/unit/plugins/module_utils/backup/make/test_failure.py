# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a unit has failed, from what systemd 252 and its journal say of real units."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import failure
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result

UNIT = "worklog-backup-database-full.service"


def show(result: str, code: int, status: int, load: str = "loaded", invocation: str = "8098") -> str:
    return (
        f"LoadState={load}\nResult={result}\nExecMainCode={code}\nExecMainStatus={status}\nInvocationID={invocation}\n"
    )


def answers(shown: str, journal: str = "") -> Any:
    def run(argv: list[str], **_options: Any) -> Result:
        return Result(tuple(argv), 0, shown if argv[0] == "systemctl" else journal, "", 0.0)

    return run


USAGE = """\
Starting worklog-backup-database-full.service - Backup of database (mariadb full)...
worklog-backup: there is no source 'database'; there are uploads
worklog-backup-database-full.service: Main process exited, code=exited, status=2/INVALIDARGUMENT
worklog-backup-database-full.service: Failed with result 'exit-code'.
Failed to start worklog-backup-database-full.service - Backup of database (mariadb full).
"""


@pytest.mark.parametrize(
    ("shown", "journal", "sentence"),
    [
        (show("exit-code", 1, 2), USAGE, "ended with exit code 2; it said: there is no source 'database'"),
        (show("timeout", 2, 15), "start operation timed out. Terminating.\n", "did not end within its time limit"),
        (show("signal", 2, 9), "Main process exited, code=killed, status=9/KILL\n", "was ended by signal 9"),
        (show("oom-kill", 2, 9), "", "was killed because the memory was used up"),
        (show("resources", 0, 0, invocation=""), "", "could not be started by systemd"),
        (show("success", 0, 0), "", "has failed, and was started again meanwhile"),
        (show("exec-condition", 0, 0), "", "failed: exec-condition"),
    ],
)  # fmt: skip
def test_the_sentence(shown: str, journal: str, sentence: str) -> None:
    found = failure.read(UNIT, answers(shown, journal))
    assert found.finding().message.startswith(f"{UNIT} {sentence}")
    assert list(found.lines) == (journal.splitlines() if "InvocationID=\n" not in shown else [])


@pytest.mark.parametrize(
    ("unit", "shown", "words"),
    [
        ("--all", "", "'--all' is not the name of a service"),
        ("database", "", "'database' is not the name of a service"),
        (UNIT, show("success", 0, 0, load="not-found", invocation=""), f"there is no unit '{UNIT}'"),
    ],
)
def test_what_is_no_unit(unit: str, shown: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        failure.read(unit, answers(shown))


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("mongodump --uri mongodb://backup:s3cret@db1/", "mongodump --uri mongodb://backup:(hidden)@db1/"),
        ("password=s3cret host=db1", "password=(hidden) host=db1"),
        ("DB_PASSWORD: 's3 cret' was read", "DB_PASSWORD: (hidden) was read"),
        ('{"secret_key": "s3cret", "port": 1}', '{"secret_key": (hidden), "port": 1}'),
        ("RESTIC_PASSWORD=s3cret", "RESTIC_PASSWORD=(hidden)"),
        ("CREATE USER x IDENTIFIED BY 's3cret'", "CREATE USER x IDENTIFIED BY (hidden)"),
        ("Access denied for user 'backup'@'localhost' (using password: YES)", None),
        ("worklog-backup: made /var/backups/worklog/a/full/x, 12 bytes", None),
    ],
)
def test_secrets_are_hidden(line: str, clean: str | None) -> None:
    found = failure.describe(UNIT, {"Result": "exit-code"}, (line,)).lines[0]
    assert "s3" not in found
    if clean is not None:
        assert found == clean
