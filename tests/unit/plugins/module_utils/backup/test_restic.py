# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restic says, as an operator reads it: transcripts of 0.14, and the exit codes of newer versions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import restic
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restic import (
    Damaged,
    Location,
    Locked,
    Missing,
    PrunableRepository,
    Repository,
    ResticError,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Busy
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result

LOCKED = (
    "unable to create lock in backend: repository is already locked by PID 351 on db1 by root (UID 0, GID 0)\n"
    "lock was created at 2026-11-25 10:37:06 (1.442102701s ago)\nstorage ID 0e3870e8\n"
    "the `unlock` command can be used to remove stale locks\n"
)
MISSING = (
    "Fatal: unable to open config file: stat /srv/repo/config: no such file or directory\n"
    "Is there a repository at the following location?\n/srv/repo\n"
)
REFUSED = (
    'Fatal: unable to open config file: client.Head: Head "http://127.0.0.1:1/config": dial tcp 127.0.0.1:1: connect: '
    "connection refused\nIs there a repository at the following location?\nrest:http://127.0.0.1:1/\n"
)
PACK = (
    "Pack ID does not match, want 47294ca19ac0e882f00cf792b06f34fd6712c03cb2d824597c760edd08403d38, got "
    "b2090db6a2f4e16337e7a9e5918e3c592218cbe2a593a8d2c67d6b9664d89569\nFatal: repository contains errors\n"
)
FULL = "Fatal: unable to save snapshot: write /mnt/r/data/54/54057d-tmp-431880613: no space left on device\n"
DUMP = (
    "cannot dump file: decrypting blob dc8c3fcf49d719bf361b661d2dc593b2d37542a47bd894f3235467590333bf47 failed: "
    "ciphertext verification failed\n"
)
RESTORE = "ignoring error for /full/x/p.bin: ciphertext verification failed\nFatal: There were 1 errors\n"
SSH = (
    "subprocess ssh: ssh: connect to host ops1 port 22: Connection refused\n"
    "Fatal: unable to open repository at sftp:root@ops1:/x: unable to start the sftp session, error: EOF\n"
)
UNKNOWN = (
    "subprocess ssh: Host key verification failed.\n"
    "Fatal: unable to open repository at sftp:vault@ops1:/x: unable to start the sftp session, error: EOF\n"
)

CHANGED = "subprocess ssh: @    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"


@pytest.fixture
def place(tmp_path: Path) -> Location:
    for name, content in (
        ("password", "pw-of-test\n"),
        ("environment", "# keys\nAWS_SECRET_ACCESS_KEY='abcdefgh'\n\n"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        (tmp_path / name).chmod(0o600)
    return Location("/srv/repo", str(tmp_path / "password"), str(tmp_path / "environment"), timeout=60)


class Says:
    """Runs nothing, and answers as restic did."""

    def __init__(self, rc: int = 0, stdout: str = "", stderr: str = "") -> None:
        self.rc, self.stdout, self.stderr = rc, stdout, stderr
        self.calls: list[tuple[list[str], dict[str, str]]] = []

    def __call__(self, argv: Sequence[str], *more: Any, env: dict[str, str], **_unused: Any) -> Result:
        self.calls.append((list(argv), env))
        return Result(tuple(argv), self.rc, self.stdout, self.stderr, 0.1)


@pytest.mark.parametrize(
    ("verb", "rc", "words", "kind", "told"),
    [
        ("check", 1, LOCKED, Locked, "is locked by another program: unable to create lock in backend: repository is"),
        ("check", 11, "", Locked, "try again when it has ended"),
        ("cat", 1, MISSING, Missing, "there is no repository at /srv/repo"),
        ("cat", 10, "Fatal: repository does not exist", Missing, "worklog-backup init SOURCE TIER"),
        ("cat", 1, REFUSED, ResticError, "cannot be reached: Fatal: unable to open config file: client.Head"),
        ("cat", 1, SSH, ResticError, "cannot be reached: subprocess ssh: ssh: connect to host ops1 port 22"),
        ("cat", 1, UNKNOWN, ResticError, "is not known here"),
        # restic ended before it had handed on all or any of what ssh said
        ("cat", 1, UNKNOWN.splitlines()[1], ResticError, "is the key of its host in known_hosts"),
        ("cat", 1, f"subprocess ssh: {'@' * 59}\n{UNKNOWN.splitlines()[1]}", ResticError, "its host in known_hosts"),
        ("cat", 1, f"{CHANGED}{UNKNOWN.splitlines()[1]}", ResticError, "is not known here"),
        ("cat", 1, "Fatal: wrong password or no key found\n", ResticError, "does not open the repository /srv/repo"),
        ("cat", 12, "", ResticError, "does not open the repository /srv/repo"),
        ("check", 1, PACK, Damaged, "the repository /srv/repo is damaged: Pack ID does not match"),
        ("check", 1, "pack 47294c: does not exist\nFatal: repository contains errors\n", Damaged, "does not exist"),
        ("dump", 2, DUMP, Damaged, "ciphertext verification failed"),
        ("dump", 1, DUMP, Damaged, "ciphertext verification failed"),
        ("restore", 1, RESTORE, Damaged, "There were 1 errors"),
        ("backup", 1, FULL, ResticError, "no space is left in the repository /srv/repo"),
        ("backup", 3, "Warning: at least one source file could not be read\n", ResticError, "is incomplete"),
        ("backup", -9, "", ResticError, "'restic backup' on /srv/repo was ended by signal 9: it said nothing"),
        ("prune", 1, "Fatal: something new", ResticError, "ended with exit code 1: Fatal: something new"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_told(
    place: Location, verb: str, rc: int, words: str, kind: type[ResticError], told: str
) -> None:
    with pytest.raises(ResticError) as error:
        Repository(place, run=Says(rc, stderr=words)).call(verb)
    assert error.type is kind
    assert told in str(error.value)
    assert isinstance(error.value, Busy) == (kind is Locked)


def test_secrets_are_in_the_environment_and_never_in_arguments_or_messages(place: Location) -> None:
    place = Location("rest:https://me:hidden@backup.example.test/", place.password_file, place.environment_file)
    run = Says(1, stderr="Fatal: rest:https://me:hidden@backup.example.test/ said no to abcdefgh")
    with pytest.raises(ResticError) as error:
        Repository(place, run=run).unlock()
    assert "me:***@backup.example.test/" in str(error.value)
    assert not {"hidden", "abcdefgh"} & set(str(error.value).replace("@", " ").replace(":", " ").split())
    argv, environment = run.calls[0]
    assert argv == ["restic", "unlock"]
    assert environment["AWS_SECRET_ACCESS_KEY"] == "abcdefgh"
    assert environment["RESTIC_REPOSITORY"].endswith("hidden@backup.example.test/")
    assert environment["RESTIC_PASSWORD_FILE"] == place.password_file


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.chmod(0o640), "must be a file that only its owner can read"),
        (lambda path: path.write_text("just words", encoding="utf-8"), "line 1 of .* is not NAME=VALUE"),
        (lambda path: path.unlink(), "cannot read .*No such file"),
    ],
)
def test_files_with_secrets_are_looked_at(place: Location, change: Any, words: str) -> None:
    change(Path(str(place.environment_file)))
    run = Says()
    with pytest.raises(ResticError, match=words):
        Repository(place, run=run).unlock()
    assert run.calls == []


@pytest.mark.parametrize("option", ["StrictHostKeyChecking=no", "StrictHostKeyChecking = accept-new",
                                    "UserKnownHostsFile=/dev/null"])  # fmt: skip
def test_options_that_trust_any_host_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="options that check the key of the other host"):
        Location("sftp:x@y:/", "/p", options=(f"sftp.command=ssh -o {option} x@y -s sftp",))


def test_snapshots_are_known_by_their_tags(place: Location) -> None:
    """As ``restic snapshots --json`` of 0.14 prints them."""
    mine = {
        "time": "2026-01-01T00:00:00Z", "paths": ["/backups/db/full/20260101T000000Z"], "hostname": "db1",
        "tags": ["source:db", "kind:full", "id:ab", "sequence:1"], "id": "ab1edc919e54", "short_id": "ab1edc91",
    }  # fmt: skip
    others = [{**mine, "tags": ["source:db"]}, {**mine, "tags": ["source:db2", "kind:x", "id:y", "sequence:1"]},
              {**mine, "paths": ["/a", "/b"]}, {**mine, "tags": None}]  # fmt: skip
    run = Says(stdout=json.dumps([mine, *others]))
    found, foreign = Repository(place, run=run).snapshots("db")
    assert [(snapshot.id, snapshot.path, snapshot.tags["sequence"]) for snapshot in found] == [
        ("ab1edc919e54", "/full/20260101T000000Z", "1")
    ]
    assert foreign == 4
    assert Repository(place, run=Says(stdout="null")).snapshots("db") == ([], 0)
    with pytest.raises(ResticError, match="no JSON"):
        Repository(place, run=Says(stdout="oops")).snapshots("db")


def test_many_are_forgotten_in_several_calls_and_each_by_its_name(place: Location) -> None:
    run = Says()
    names = [restic.Snapshot(f"{number:064x}", "", "/full/x") for number in range(250)]
    PrunableRepository(place, run=run).forget(names)
    assert [argv[:2] for argv, _environment in run.calls] == [["restic", "forget"]] * 3
    assert [name for argv, _environment in run.calls for name in argv[2:]] == [name.id for name in names]


def test_a_plain_repository_has_no_way_to_remove_anything() -> None:
    names = {name for name in dir(Repository) if not name.startswith("_")}
    assert names == {"add", "archive", "call", "check", "create", "identity", "restore", "snapshots", "unlock"}
