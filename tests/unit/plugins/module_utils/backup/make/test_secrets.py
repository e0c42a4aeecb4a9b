# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config, secrets
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError

from tests.unit.plugins.module_utils.backup.make.jobs import Job

PASSWORD = "hunter2-very-secret"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a secret, a certificate behind a link, and hostile names."""
    place = tmp_path / "conf"
    (place / "live").mkdir(parents=True)
    (place / "archive").mkdir()
    (place / ".env").write_text(f"DB_PASSWORD={PASSWORD}\n")
    (place / ".env").chmod(0o640)
    (place / "archive" / "cert1.pem").write_text("certificate")
    (place / "live" / "cert.pem").symlink_to("../archive/cert1.pem")
    for name in ("-rf", "line\nbreak", os.fsdecode(b"\xff\xfe"), "x" * 250):
        (place / name).write_text(name.encode("utf-8", "backslashreplace").decode())
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(place / "socket"))
    return place


def new(tmp_path: Path, paths: list[Path], **options: Any) -> Job:
    return Job(tmp_path / "store", "snapshot", engine="secrets", paths=[str(path) for path in paths], **options)


def test_everything_is_in_the_archive_as_it_was(tmp_path: Path, place: Path) -> None:
    job = new(tmp_path, [place])
    kept = job.make()
    assert job.verify(kept).verdict == "verified"
    with tarfile.open(f"{kept.path}/files.tar", encoding="utf-8", errors="surrogateescape") as archive:
        members = {"/" + member.name: member for member in archive}
        env = members[f"{place}/.env"]
        status = (place / ".env").stat()
        assert (env.mode, env.uid, env.gid, env.uname, env.gname) == (0o640, status.st_uid, status.st_gid, "", "")
        assert members[f"{place}/live/cert.pem"].linkname == "../archive/cert1.pem"
        for name in ("-rf", "line\nbreak", os.fsdecode(b"\xff\xfe"), "x" * 250):
            stream = archive.extractfile(members[f"{place}/{name}"])
            assert stream is not None
            assert stream.read() == (place / name).read_bytes()
    assert f"{place}/pipe" not in members
    assert kept.manifest.document["warnings"] == [
        f"{place}/pipe is no file, directory or link, and was left out",
        f"{place}/socket is no file, directory or link, and was left out",
    ]
    for path in (
        kept.path,
        f"{kept.path}/files.tar",
        f"{kept.path}/manifest.json",
        f"{job.store.path}/fingerprint.key",
    ):
        assert os.stat(path).st_mode & 0o077 == 0, path
    text = json.dumps(kept.manifest.document)
    assert PASSWORD not in text
    assert "fingerprint" in text


def test_nothing_is_made_when_nothing_has_changed(tmp_path: Path, place: Path) -> None:
    job = new(tmp_path, [place], expect={"max_age": "1h"})
    first = job.make()
    assert first.unchanged is None
    os.utime(place / ".env")  # only the time
    again = job.make(later=86400)
    assert (again.id, again.unchanged) == (first.id, job.now)
    assert job.left() == []
    assert len(job.store.backups()[0]) == 1
    assert job.verify(again).verdict == "verified"  # it is old, but holds what the source holds
    assert job.verify(first).verdict == "stale"
    assert job.store.backups()[0][0].current == job.now


CHANGES = {
    "content": lambda place: (place / ".env").write_text("DB_PASSWORD=other\n"),
    "mode": lambda place: (place / ".env").chmod(0o600),
    "new": lambda place: (place / "more").touch(),
    "gone": lambda place: (place / "-rf").unlink(),
    "directory": lambda place: (place / "live").chmod(0o700),
    "renamed": lambda place: (place / "-rf").rename(place / "-rf2"),
    "link": lambda place: ((place / "live/cert.pem").unlink(), (place / "live/cert.pem").symlink_to("../.env")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_makes_a_backup(tmp_path: Path, place: Path, change: str) -> None:
    job = new(tmp_path, [place])
    first = job.make()
    CHANGES[change](place)
    second = job.make(later=1)
    assert second.id != first.id
    assert second.manifest.sequence == 2
    assert job.make(later=1).id == second.id


def test_a_bad_backup_is_not_relied_upon(tmp_path: Path, place: Path) -> None:
    job = new(tmp_path, [place])
    first = job.make()
    with open(f"{first.path}/files.tar", "r+b") as stream:
        stream.write(b"X")
    assert job.verify(first).verdict == "damaged"
    assert job.make(later=1).id != first.id


def test_a_lost_key_makes_a_backup(tmp_path: Path, place: Path) -> None:
    job = new(tmp_path, [place])
    first = job.make()
    os.unlink(f"{job.store.path}/fingerprint.key")
    assert job.make(later=1).id != first.id


def test_a_guessed_password_cannot_be_confirmed_by_the_manifest(tmp_path: Path, place: Path) -> None:
    prints = {new(tmp_path / str(number), [place]).make().manifest.document["fingerprint"] for number in range(3)}
    assert len(prints) == 3


def test_a_link_that_is_asked_for_brings_what_it_points_to(tmp_path: Path, place: Path) -> None:
    kept = new(tmp_path, [place / "live" / "*.pem"]).make()
    with tarfile.open(f"{kept.path}/files.tar") as archive:
        assert [f"/{name}" for name in archive.getnames()] == [
            f"{place}/archive/cert1.pem",
            f"{place}/live/cert.pem",
        ]


def test_a_link_that_would_lead_nowhere_is_told(tmp_path: Path, place: Path) -> None:
    (place / "live" / "file").touch()
    kept = new(tmp_path, [place / "live"]).make()
    assert kept.manifest.document["warnings"] == [
        f"{place}/live/cert.pem is a link to {place}/archive/cert1.pem, which is not part of this backup"
    ]


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (["nothing"], "there is no .*/nothing: put the path right"),
        ([".env", "*.key"], r"no file matches .*/\*.key"),
        (["empty"], "there is no file in .*/empty"),
        (["large"], "large has 67108865 bytes, and a file of this source may have 67108864"),
    ],
)
def test_what_cannot_be_backed_up_is_a_failure(tmp_path: Path, place: Path, paths: list[str], sentence: str) -> None:
    (place / "empty").mkdir()
    (place / "large").touch()
    os.truncate(place / "large", secrets.MAX_FILE + 1)
    job = new(tmp_path, [place / path for path in paths])
    with pytest.raises(MakeError, match=sentence):
        job.make()
    assert job.left() == []


def test_a_file_that_becomes_a_link_meanwhile_is_not_followed(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = secrets.tarball.find

    def swapped(patterns: Any) -> Any:
        found = find(patterns)
        (place / ".env").unlink()
        (place / ".env").symlink_to("/etc/hostname")
        return found

    job = new(tmp_path, [place])
    monkeypatch.setattr(secrets.Secrets, "needed", lambda self, work: None)
    monkeypatch.setattr(secrets.tarball, "find", swapped)
    with pytest.raises(MakeError, match="cannot be opened: Too many levels of symbolic links"):
        job.make()
    assert job.left() == []


@pytest.mark.parametrize("value", [["AGE-SECRET-KEY-1QQQ"], "age1x", [1], ["--output=/etc/passwd"]])
def test_recipients_are_public_keys(value: Any) -> None:
    document = {"sources": {"it": {"engine": "secrets", "paths": ["/x"], "recipients": value}}}
    with pytest.raises(config.ConfigError, match="must be a list of"):
        config.parse(document, "test")
