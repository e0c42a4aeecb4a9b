# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories of restic and borg: what their programs say, and what a check makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import borg, repository, restic
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.access import Closed, Secret
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import parse
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.rotation import Rotation, Share
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import (
    Backup,
    Check,
    Result,
    compare_age,
    compare_content,
    conclude,
)

from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture

pytestmark = pytest.mark.capability("A8")

VERSIONS = ("restic-0.14-borg-1.2", "restic-0.18-borg-1.4")
SAID = {version: json.loads(fixture(f"repositories/{version}.json"))["transcripts"] for version in VERSIONS}


def said(version: str, name: str) -> command.Result:
    entry = SAID[version][name]
    return command.Result(tuple(entry["argv"]), entry["rc"], entry["stdout"], entry["stderr"], 0.1)


# name: the check, whether it is damage, words that an operator must find
FAILURES = {
    "restic/wrong-password": ("repository.password", False, "the password does not open it"),
    "restic/lost-keys": ("repository.password", False, "the keys in it are lost"),
    "restic/no-password": ("repository.password", False, "empty password"),
    "restic/no-password-file": ("repository.password", False, "does not exist"),
    "restic/no-repository": ("repository.missing", True, "unable to open config file"),
    "restic/lost-config": ("repository.missing", True, "unable to open config file"),
    "restic/flipped-config": ("restic.check", True, "is damaged"),
    "restic/flipped-pack": ("restic.check", True, "ack"),
    "restic/lost-pack": ("restic.check", True, "pack"),
    "restic/lost-index": ("restic.check", True, "tree"),
    "restic/cut-snapshot": ("restic.check", True, "snapshot"),
    "restic/flipped-index": ("restic.check", True, "index"),
    "restic/locked": ("repository.in_use", False, "already locked"),
    "borg/wrong-password": ("repository.password", False, "incorrect"),
    "borg/no-password": ("repository.password", False, "BORG_PASSPHRASE is not set"),
    "borg/no-password-file": ("repository.password", False, "BORG_PASSCOMMAND failed"),
    "borg/no-repository": ("repository.missing", True, "does not exist"),
    "borg/lost-config": ("repository.missing", True, "not a valid repository"),
    "borg/flipped-segment": ("borg.check", True, "Segment entry checksum mismatch"),
    "borg/flipped-extract": (
        "borg.check",
        True,
        "IntegrityError: Data integrity error: Segment entry checksum mismatch",
    ),
    "borg/lost-segment": ("borg.check", True, "Index object count mismatch"),
    "borg/lost-extract": ("borg.check", True, "FileNotFoundError"),
    "borg/no-archive": ("borg.check", True, "does not exist"),
    "borg/locked": ("repository.in_use", False, "lock"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FAILURES)
def test_what_a_failure_means(version: str, name: str) -> None:
    result = said(version, name)
    found = (restic if name.startswith("restic") else borg).problem(result)
    check, damage, words = FAILURES[name]
    assert (found.check, found.damage) == (check, damage), found
    assert words in found.message, found.message
    assert "Traceback" not in found.message
    assert not found.note


@pytest.mark.parametrize(("module", "name"), [(restic, "restic"), (borg, "borg")])
@pytest.mark.parametrize("rc", [3, 77, 130, -9])
def test_an_unknown_ending_is_a_failure(module: Any, name: str, rc: int) -> None:
    found = module.problem(command.Result((name,), rc, "", "something new\n", 0.1))
    assert (found.check, found.damage, found.note) == ("repository.program", False, False)
    assert "something new" in found.message and str(abs(rc)) in found.message


@pytest.mark.parametrize("version", VERSIONS)
def test_a_check_must_say_that_it_found_nothing(version: str) -> None:
    for name in ("restic/check-good", "restic/check-part", "restic/flipped-pack-not-read"):
        assert restic.read_check(said(version, name)) == []
    silent = command.Result(("restic",), 0, "load indexes\n", "", 0.1)
    assert [found.damage for found in restic.read_check(silent)] == [False]
    summary = command.Result(("restic",), 0, '{"message_type":"summary","num_errors":2}\n', "", 0.1)
    assert restic.read_check(summary) != []


@pytest.mark.parametrize("version", VERSIONS)
def test_snapshots_are_read(version: str) -> None:
    found = restic.read_snapshots(said(version, "restic/snapshots").stdout)
    assert [(entry.host, entry.tags) for entry in found] == [("db1", ("worklog",)), ("db1", ("worklog", "daily"))]
    assert found[0].time < found[1].time and len(found[0].id) == 64
    archives = borg.read_archives(said(version, "borg/list").stdout)
    assert [(entry.id, entry.tags) for entry in archives] == [("db1-1", None), ("db1-2", None)]
    assert archives[0].time > 1_700_000_000 and archives[0].host
    assert restic.read_snapshots("null") == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00.5Z", 60.5),
        ("1970-01-01T00:01:00.123456789Z", 60.123456),
        ("1970-01-01T01:01:00.000001+01:00", 60.000001),
    ],
)
def test_times_of_any_precision(text: str, seconds: float) -> None:
    assert repository.moment(text) == seconds


# --- which directories are repositories -------------------------------------------------------------------------------


def lay_out(root: Path, names: str) -> Path:
    for name in names.split():
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        else:
            content = "This is a Borg Backup repository.\n" if name == "README" else "[repository]\nversion = 1\n"
            (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("config data/ index/ keys/ snapshots/ locks/", "restic"),
        ("data/ index/ keys/ snapshots/", "restic"),
        ("config data/ index/ snapshots/", "restic"),
        ("README config data/ index.9 hints.9", "borg"),
        ("config data/", "borg"),
        ("README data/", "borg"),
        ("config data/ index/", "borg"),
        ("data/ uploads/", None),
        ("README config", None),
    ],
)
def test_repositories_are_found_by_their_layout(tmp_path: Path, names: str, kind: str | None) -> None:
    assert repository.kind_of(str(lay_out(tmp_path, names))) == kind


@pytest.mark.parametrize(
    ("format", "path", "remote"),
    [
        ("restic", "sftp:backup@host:/srv/repo", True),
        ("restic", "rest:https://host/", True),
        ("restic", "/srv/repo", False),
        ("borg", "ssh://host/./repo", True),
        ("borg", "user@host:repo", True),
        ("borg", "/srv/a:b", False),
        ("auto", "sftp:host:/repo", False),
    ],
)
def test_repositories_elsewhere(format: str, path: str, remote: bool) -> None:
    assert repository.is_remote(format, path) == remote


def test_lost_segments_are_found_before_borg_forgets_them(tmp_path: Path) -> None:
    (tmp_path / "data" / "0").mkdir(parents=True)
    for number in range(10):
        (tmp_path / "data" / "0" / str(number)).write_bytes(b"x")
    (tmp_path / "index.9").write_bytes(b"x")
    assert borg.lost_segments(str(tmp_path)) is None
    (tmp_path / "data" / "0" / "10").write_bytes(b"x")  # a transaction that was never completed
    assert borg.lost_segments(str(tmp_path)) is None
    for number in (10, 9):
        (tmp_path / "data" / "0" / str(number)).unlink()
    found = borg.lost_segments(str(tmp_path))
    assert found is not None and found.damage and "segment 9" in found.message and "is 8" in found.message


# --- passwords --------------------------------------------------------------------------------------------------------


def test_the_password_is_never_an_argument(tmp_path: Path) -> None:
    password = tmp_path / "password of us"
    password.write_text("s3cret")
    calls: list[tuple[list[str], dict[str, str]]] = []

    def run(argv: list[str], *, timeout: float, env: dict[str, str]) -> command.Result:
        calls.append((argv, env))
        return command.Result(tuple(argv), 1, "", "", 0.1)

    runner = repository.Runner(run, run)
    tools: list[Callable[[repository.Given], Any]] = [restic.Restic, borg.Borg]
    for tool in tools:
        for secret in (Secret(file=str(password)), Secret(variable="OURS")):
            with pytest.raises(Closed):
                tool(repository.Given("/srv/repo", secret, runner, {"OURS": "s3cret", "HOME": "/root"})).snapshots()
    assert all("s3cret" not in " ".join(argv) for argv, _env in calls)
    assert [calls[0][1]["RESTIC_PASSWORD_FILE"], calls[1][1]["RESTIC_PASSWORD"]] == [str(password), "s3cret"]
    assert calls[2][1]["BORG_PASSCOMMAND"] == f"cat -- '{password}'"
    assert calls[3][1]["BORG_PASSPHRASE"] == "s3cret"
    assert all("--no-lock" in argv or "--bypass-lock" in argv for argv, _env in calls)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (Secret(), "no password is given"),
        (Secret(file="/nowhere/password"), "/nowhere/password is not there"),
        (Secret(variable="NOT_SET"), "the variable NOT_SET with the password is not set"),
    ],
)
def test_without_a_password_nothing_is_said_about_the_content(secret: Secret, words: str) -> None:
    result = verify(restic.Restic(repository.Given("/srv/repo", secret, environment={})), members=["x"])
    assert result.verdict == "inconclusive"
    assert [finding.check for finding in result.findings] == ["repository.password"]
    assert words in result.sentence()


# --- the verdict ------------------------------------------------------------------------------------------------------


class Plays:
    """A tool that says what it is told to say."""

    name = "restic"

    def __init__(self, **said: Any) -> None:
        self.said = {"snapshots": [snapshot(100), snapshot(900)], "problems": [], "busy": [], "lost": None, **said}

    def look(self) -> Any:
        return self.said["lost"]

    def snapshots(self) -> Any:
        found = self.said["snapshots"]
        return found.pop(0) if found and isinstance(found[0], list) else found

    def check(self, rotation: Rotation | None) -> Any:
        return list(self.said["problems"]), self.said.get("left")

    def names(self, newest: Any, take: Callable[[str, bool], None]) -> Any:
        take("/srv", True)
        take(f"/srv/{newest.id}", False)
        return []

    def in_use(self) -> bool:
        return bool(self.said["busy"].pop(0)) if self.said["busy"] else False


def snapshot(time: float, host: str = "db1", tags: tuple[str, ...] | None = ("worklog",)) -> repository.Snapshot:
    return repository.Snapshot(f"id-{time:g}", time, host, tags)


def verify(tool: Any, rotation: Rotation | None = None, now: float = 1000.0, **expected: Any) -> Result:
    check = Check(Backup("/srv/repo", "repo", expect=parse("repo", expected)), Limits())
    repository.verify(check, tool, rotation)
    compare_content(check)
    compare_age(check, None, now)
    return conclude(check, now)


DAMAGE = restic.problem(said(VERSIONS[0], "restic/flipped-pack"))


@pytest.mark.parametrize(
    ("tool", "expected", "verdict", "words"),
    [
        (Plays(), {}, "verified", "verified (data)"),
        (Plays(), {"max_age": 200, "min_snapshots": 2, "members": ["/srv/id-900"]}, "verified", "snapshots"),
        (Plays(), {"max_age": 50}, "stale", "newest snapshot"),
        (Plays(), {"min_snapshots": 3}, "damaged", "2 snapshots are there, but at least 3"),
        (Plays(), {"snapshot_host": "db2"}, "damaged", "no snapshot of the host db2 in it; 2 others"),
        (Plays(), {"snapshot_tags": ["daily"]}, "damaged", "with the tags daily"),
        (Plays(), {"snapshot_tags": ["worklog"], "snapshot_host": "db1"}, "verified", "snapshots"),
        (Plays(), {"members": ["srv/id-100"]}, "damaged", "not found: srv/id-100"),
        (Plays(snapshots=[snapshot(900, tags=None)]), {"snapshot_tags": ["x"]}, "inconclusive", "have no tags"),
        (Plays(snapshots=[]), {}, "damaged", "there is no snapshot in it"),
        (Plays(problems=[DAMAGE]), {}, "damaged", "restic finds damage"),
        (Plays(problems=[DAMAGE], busy=[True]), {}, "inconclusive", "restic finds damage"),
        (Plays(problems=[DAMAGE], busy=[False, True]), {}, "inconclusive", "restic finds damage"),
        (Plays(busy=[True]), {}, "verified", "verified"),
        (Plays(lost=DAMAGE), {}, "damaged", "restic finds damage"),
        (Plays(left="the data of 9 of 10 parts"), {}, "structure_ok", "not all of its data was read"),
    ],
)
def test_verdicts(tool: Plays, expected: dict[str, Any], verdict: str, words: str) -> None:
    result = verify(tool, **expected)
    assert result.verdict == verdict, result.findings
    assert any(words in finding.message for finding in result.findings), result.findings


def test_new_snapshots_during_the_check_may_look_like_damage() -> None:
    before, after = [snapshot(100)], [snapshot(100), snapshot(900)]
    result = verify(Plays(snapshots=[before, after], problems=[DAMAGE]))
    assert result.verdict == "inconclusive"
    assert "repository.in_use" in [finding.check for finding in result.findings]


def test_a_share_is_enough_when_all_was_read_since_the_newest_snapshot() -> None:
    share = Share(0.5, 86400)
    for last, verdict in ((950.0, "verified"), (850.0, "structure_ok")):
        rotation = Rotation(share, {0: 10.0, 1: last}, None, 1000.0)
        assert rotation.due == {0}
        assert verify(Plays(left="the rest"), rotation).verdict == verdict


def test_each_part_is_read_with_a_subset_of_its_own() -> None:
    calls: list[str] = []

    def run(argv: list[str], *, timeout: float, env: dict[str, str]) -> command.Result:
        calls.append(" ".join(argv))
        return said(VERSIONS[0], "restic/check-part")

    given = repository.Given("/srv/repo", Secret(variable="P"), repository.Runner(run, run), {"P": "x"})
    rotation = Rotation(Share(0.25, 7 * 86400), {0: 1e6, 1: 9e5, 2: 8e5, 3: 9.5e5}, 1e6, 1e6 + 86400)
    problems, left = restic.Restic(given).check(rotation)
    assert calls == ["restic --no-lock check --json --read-data-subset=3/4"]
    assert problems == [] and left is not None and "3 of 4 parts" in left


def test_the_data_of_borg_are_read_as_a_whole_when_it_is_time() -> None:
    for last, verb in ((9e5, "--verify-data"), (1e6, "--archives-only")):
        calls: list[str] = []

        def run(
            argv: list[str], *, timeout: float, env: dict[str, str], note: Callable[[str], None] = calls.append
        ) -> command.Result:
            note(" ".join(argv))
            return said(VERSIONS[0], f"borg/{'list' if argv[1] == 'list' else 'check-good'}")

        given = repository.Given("/srv/repo", Secret(variable="P"), repository.Runner(run, run), {"P": "x"})
        rotation = Rotation(Share(1.0, 1e5), {0: last}, None, 1e6 + 10)
        problems, left = borg.Borg(given).check(rotation)
        assert problems == [] and (left is None) == (verb == "--verify-data") == (rotation.due == {0})
        assert calls[0] == f"borg check --bypass-lock --log-json {verb} /srv/repo"
        assert calls[-1] == "borg extract --bypass-lock --log-json --dry-run /srv/repo::db1-2"
