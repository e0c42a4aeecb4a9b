# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import archive
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import MakeError

from tests.unit.plugins.module_utils.backup.make.jobs import Job


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    place = tmp_path / "logs"
    place.mkdir()
    for name in ("app.log", "error.log", "-x.log", "two\nlines.log"):
        (place / name).write_text(f"{name}\n" * 1000)
    return place


def new(tmp_path: Path, *paths: Path, **options: Any) -> Job:
    return Job(tmp_path / "store", "archive", engine="archive", paths=[str(path) for path in paths], **options)


def content(path: str) -> dict[str, bytes]:
    with tarfile.open(path) as opened:
        return {
            os.path.basename(member.name): (opened.extractfile(member) or open(os.devnull, "rb")).read()
            for member in opened
            if member.isreg()
        }


@pytest.mark.parametrize(("compression", "suffix"), [("gzip", ".gz"), ("none", ""), ("zstd", ".zst"), ("auto", None)])
def test_logs_are_archived(tmp_path: Path, logs: Path, compression: str, suffix: str | None) -> None:
    job = new(tmp_path, logs / "*.log", compression=compression)
    kept = job.make()
    assert job.verify(kept).verdict == "verified"
    names = [name for name in kept.manifest.files if name.startswith("logs.tar")]
    assert names == ([f"logs.tar{suffix}"] if suffix is not None else names)
    assert kept.manifest.document["members"] == 4
    assert kept.manifest.document["bytes"] == sum(path.stat().st_size for path in logs.iterdir())
    if suffix in ("", ".gz"):
        assert content(f"{kept.path}/{names[0]}") == {path.name: path.read_bytes() for path in logs.iterdir()}


def test_only_what_is_new_is_archived_and_nothing_is_lost(tmp_path: Path, logs: Path) -> None:
    job = new(tmp_path, logs, compression="none")
    job.now = (logs / "app.log").stat().st_mtime + 3600
    job.make()
    assert job.make(later=10).unchanged == job.now
    os.utime(logs / "app.log", (job.now + 5, job.now + 5))
    (logs / "error.log").rename(logs / "error.log.1")  # rotated: another name, the same time, so its ctime counts
    kept = job.make(later=10)
    assert "app.log" in content(f"{kept.path}/logs.tar")
    assert kept.manifest.document["since"]
    assert set(content(f"{new(tmp_path / 'all', logs, compression='none').make().path}/logs.tar")) == {
        path.name for path in logs.iterdir()
    }


def test_all_logs_are_archived_when_asked_for(tmp_path: Path, logs: Path) -> None:
    job = new(tmp_path, logs, compression="none", since_last=False)
    job.make()
    assert len(content(f"{job.make(later=86400).path}/logs.tar")) == 4


def changed(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Have something happen between the look at the logs and their reading."""
    find = archive.tarball.find

    def later(patterns: Any) -> Any:
        found = find(patterns)
        change()
        return found

    monkeypatch.setattr(archive.Archive, "needed", lambda self, work: None)
    monkeypatch.setattr(archive.tarball, "find", later)


def test_a_log_that_is_rotated_away_is_a_warning(tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, (logs / "app.log").unlink)
    kept = new(tmp_path, logs, compression="none").make()
    assert kept.manifest.document["warnings"] == [
        f"{logs}/app.log vanished or became something else before it was read"
    ]
    assert set(content(f"{kept.path}/logs.tar")) == {path.name for path in logs.iterdir()}


def test_a_log_that_becomes_a_link_is_not_followed(tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, lambda: ((logs / "app.log").unlink(), (logs / "app.log").symlink_to("/etc/passwd")))
    kept = new(tmp_path, logs, compression="none").make()
    assert "app.log" not in content(f"{kept.path}/logs.tar")


@pytest.mark.parametrize(("size", "warned"), [(12, True), (0, True), (50_000_000, False)])
def test_a_log_that_changes_its_size_while_it_is_read_spoils_nothing(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch, size: int, warned: bool
) -> None:
    fstat, seen = os.fstat, []

    class Spied:
        """What the engine knows as os: the log changes right after its size was asked for."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fstat(self, descriptor: int) -> os.stat_result:
            status = fstat(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.endswith("/app.log"):
                seen.append(path)
                os.truncate(path, size)
            return status

    before = (logs / "app.log").read_bytes()
    monkeypatch.setattr(archive, "os", Spied())
    job = new(tmp_path, logs, compression="none")
    kept = job.make()
    assert seen
    data = content(f"{kept.path}/logs.tar")
    assert data["app.log"] == before[:size].ljust(len(before), b"\0")
    assert len(data) == 4
    warnings = kept.manifest.document.get("warnings", [])
    told = f"{logs}/app.log became shorter while it was read; zero bytes stand for what is missing"
    assert warnings == ([told] if warned else [])
    assert job.verify(kept).verdict == "verified"


def test_paths_without_a_log_are_a_failure(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with pytest.raises(MakeError, match="there is no file in"):
        new(tmp_path, tmp_path / "logs").make()
