# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the programs said that made a backup, as they really say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.program_log import LogWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture
from tests.unit.plugins.module_utils.backup.verify.test_verify import check, checks

pytestmark = pytest.mark.capability("A8")

SAID: dict[str, str] = json.loads(fixture("logs/programs.json"))

GOOD, WARNING, ERROR, CUT = [], ["log.warning"], ["log.error"], ["log.error", "log.incomplete"]
MEANING = {
    "dump-ok": GOOD, "dump-missing": ERROR, "dump-nodb": ERROR, "dump-auth": ERROR, "dump-conn": ERROR,
    "dump-view": ERROR, "dump-viewforce": ERROR, "mb-ok": GOOD, "mb-auth": CUT, "mb-full": CUT, "mongo-ok": GOOD,
    "mongo-conn": ERROR, "mongo-space": ERROR, "redis-ok": GOOD, "redis-conn": ERROR, "redis-space": ERROR,
    "redis-place": ERROR, "redis-auth": ["log.error", "log.warning"], "rsync-ok": GOOD, "rsync-missing": ERROR,
    "rsync-space": ERROR, "rsync-perm": ERROR, "rsync-vanish": ERROR, "tar-ok": GOOD, "tar-missing": ERROR,
    "tar-abs": GOOD, "tar-full": ERROR, "tar-change": WARNING,
}  # fmt: skip


def review(text: str, name: str = "x.log", step: int = 10_000) -> list[Problem]:
    walker = LogWalker(name)
    data = text.encode()
    for start in range(0, len(data), step):
        walker.feed(data[start : start + step])
    walker.close()
    return walker.problems


def test_every_transcript_is_judged() -> None:
    assert set(MEANING) == set(SAID)


@pytest.mark.parametrize("name", MEANING)
@pytest.mark.parametrize("step", [1, 10_000])
def test_transcripts(name: str, step: int) -> None:
    assert [problem.check for problem in review(SAID[name], step=step)] == MEANING[name]


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("Fatal: unable to save snapshot: write: no space left on device", ERROR),
        ("error: lstat /srv/x: permission denied", ERROR),
        ("Warning: at least one source file could not be read", ERROR),
        ("Load(<data/a5f5c199a7>, 255, 744) returned error, retrying after 1.5s: EOF", WARNING),
        ("rsync warning: some files vanished before they could be transferred (code 24) at main.c(1347)", WARNING),
        ("file has vanished: \"/srv/uploads/x\"", WARNING),
        ("mysqldump: [Warning] Using a password on the command line interface can be insecure.", GOOD),
        ("mysqldump: Error 2013: Lost connection to MySQL server during query when dumping table `t` at row: 1", ERROR),
        ("Warning: Using a password with '-a' option on the command line interface may not be safe.", GOOD),
        ("2026-01-01 02:00:00 0 [ERROR] InnoDB: Database page corruption on disk", ERROR),
        ("2026-01-01 02:00:00 0 [Warning] InnoDB: something is slow", WARNING),
        ("2026/11/25 12:50:01 [4711] rsync error: some files/attrs were not transferred (code 23) at main.c", ERROR),
        ("2026/11/25 12:50:01 [4711] sent 1,024 bytes  received 35 bytes  total size 800", GOOD),
        ("Nov 25 12:50:01 db1 backup[4711]: mariadb-dump: Got error: 1049: \"Unknown database 'x'\"", ERROR),
        ("Nov  5 12:50:01 db1 systemd[1]: Started backup.", GOOD),
        ("tar: srv/big: File shrank by 1024 bytes; padding with zeros", ERROR),
        ("tar: srv/sock: socket ignored", GOOD),
        ("gzip: stdout: No space left on device", ERROR),
        ("bash: line 1: mysqldump: command not found", ERROR),
        ("writing worklog.errors to archive '/backup/a'", GOOD),
        ("done dumping worklog.failed_jobs (3 documents)", GOOD),
        ("no errors were found", GOOD),
    ],
)  # fmt: skip
def test_lines(line: str, meaning: list[str]) -> None:
    assert [problem.check for problem in review(line + "\n")] == meaning


def test_the_first_line_is_shown_and_the_others_counted() -> None:
    (problem,) = review("all is well\nrsync: a failed: x (2)\nrsync: b failed: y (2)\n", "rsync.log")
    assert problem.message == "error in line 2 and 1 more of the log rsync.log: rsync: a failed: x (2)"
    assert not problem.damage and not problem.note


def test_mariadb_backup_must_say_that_it_completed() -> None:
    good = SAID["mb-ok"]
    assert review(good, "mariadb-backup.log") == []
    assert [problem.check for problem in review(good.replace("completed OK!", ""))] == ["log.incomplete"]
    assert [problem.check for problem in review("", "mariadb-backup.log")] == ["log.incomplete"]
    assert review(SAID["mb-auth"] + good) == []  # a failed run before it, in the same file
    assert [problem.check for problem in review(good + SAID["mb-auth"])] == CUT


def test_secrets_are_not_repeated() -> None:
    (problem,) = review("mariadb-dump: Got error: password=s3cret and mongodb://u:s3cret@host\n")
    assert "s3cret" not in problem.message


def test_hostile_logs_need_little_memory() -> None:
    walker = LogWalker("x")
    for _unused in range(200):
        walker.feed(b"rsync: " + b"\xff\x00" * 100_000)
    walker.feed(b"\n" + b"ERROR\n" * 100_000)
    walker.close()
    assert len(walker.problems) == 1 and len(walker.problems[0].message) < 1000


# --- beside a backup --------------------------------------------------------------------------------------------------


def test_a_log_beside_a_foreign_backup(tmp_path: Path) -> None:
    backup, log = tmp_path / "notes.txt", tmp_path / "run-1.log"
    backup.write_text("a line\n" * 50)
    assert checks(check(backup, log=str(tmp_path / "run-*.log"))) == ["log.missing"]
    log.write_text(SAID["rsync-ok"])
    assert check(backup, log=str(tmp_path / "run-*.log")).verdict == "structure_ok"
    log.write_text(SAID["tar-change"])
    assert checks(check(backup, log=str(log)), "warning") == ["log.warning"]
    log.write_text(SAID["rsync-perm"])
    result = check(backup, log=str(log))
    assert (result.verdict, checks(result)) == ("inconclusive", ["log.error"])
    assert str(log) in result.sentence()


def test_the_logs_in_a_backup_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "notes.txt").write_text("a line\n" * 50)
    (tmp_path / "log" / "xtrabackup_info").write_text("uuid = 1\ntool_name = mariadb-backup\n")  # no log
    files = [{"path": name} for name in ("notes.txt", "log/mariadb-backup.log", "log/xtrabackup_info")]
    for name, verdict in (("mb-ok", "structure_ok"), ("mb-full", "damaged"), ("dump-missing", "damaged")):
        (tmp_path / "log" / "mariadb-backup.log").write_text(SAID[name])
        (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "id": "a", "files": files}))
        assert check(tmp_path).verdict == verdict
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "files": files}))
    assert check(tmp_path).verdict == "structure_ok"  # the files of somebody else: log/ may be anything
