# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils import files


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "nginx.conf"
    path.write_bytes(b"old\r\n")
    path.chmod(0o640)
    return path


def test_replace_keeps_mode_and_owner_and_leaves_nothing_behind(target: Path) -> None:
    if os.geteuid() == 0:
        os.chown(target, 65534, 65534)
    before = target.stat()
    files.replace(str(target), b"new", expected=b"old\r\n")
    after = target.stat()
    assert target.read_bytes() == b"new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert os.listdir(target.parent) == ["nginx.conf"]


def test_replace_keeps_extended_attributes(target: Path) -> None:
    try:
        os.setxattr(target, "user.note", b"mine")
    except OSError as error:
        pytest.skip(f"this file system has no extended attributes: {error}")
    files.replace(str(target), b"new")
    assert os.getxattr(target, "user.note") == b"mine"


def test_replace_keeps_the_acl(target: Path) -> None:
    try:
        subprocess.run(["setfacl", "-m", "u:65534:r", str(target)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"ACLs cannot be set here: {error}")
    files.replace(str(target), b"new")
    acl = subprocess.run(["getfacl", "-n", str(target)], check=True, capture_output=True, text=True).stdout
    assert "user:65534:r--" in acl


def test_a_link_stays_a_link(target: Path, tmp_path: Path) -> None:
    enabled = tmp_path / "sites-enabled"
    enabled.mkdir()
    link = enabled / "site"
    link.symlink_to("../nginx.conf")
    files.replace(str(link), b"new")
    assert os.readlink(link) == "../nginx.conf"
    assert target.read_bytes() == b"new"


def test_a_new_file_gets_the_given_mode(tmp_path: Path) -> None:
    files.replace(str(tmp_path / "state"), b"x", mode=0o600)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o600


def test_a_file_changed_meanwhile_is_left_alone(target: Path) -> None:
    with pytest.raises(files.FileError, match="changed by someone else meanwhile"):
        files.replace(str(target), b"new", expected=b"older")
    assert target.read_bytes() == b"old\r\n"


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_not_a_regular_file_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(files.FileError, match="not a regular file"):
        files.replace(str(path), b"x")


def test_a_full_file_system_leaves_the_old_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.FileError, match="No space left on device; it is as it was"):
        files.replace(str(target), b"new")
    assert target.read_bytes() == b"old\r\n"
    assert os.listdir(target.parent) == ["nginx.conf"]


def test_all_or_none(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    changes = {str(tmp_path / name): (name.encode(), b"new") for name in "ab"}
    changes[str(tmp_path / "c")] = (b"not what it is", b"new")
    with pytest.raises(files.FileError, match="changed by someone else"):
        files.replace_all(changes)
    assert [(tmp_path / name).read_bytes() for name in "abc"] == [b"a", b"b", b"c"]


def test_restore_names_what_it_could_not_restore(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(b"new")
    with pytest.raises(files.FileError, match=r"not restored: .*gone"):
        files.restore_all({str(tmp_path / "gone" / "x"): b"old", str(good): b"old"})
    assert good.read_bytes() == b"old"


def test_backup_keeps_attributes_and_only_the_newest(target: Path, tmp_path: Path) -> None:
    root = tmp_path / "backups"
    copies = [files.backup(str(target), root=str(root), keep=3) for _unused in range(5)]
    kept = sorted(path.name for path in Path(copies[0]).parent.iterdir())
    assert kept == sorted(os.path.basename(copy) for copy in copies[-3:])
    last = Path(copies[-1])
    assert last.read_bytes() == b"old\r\n"
    assert stat.S_IMODE(last.stat().st_mode) == 0o640
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_backup_leaves_copies_of_other_files_alone(target: Path, tmp_path: Path) -> None:
    other = tmp_path / "nginx.conf.0"  # its copies sort before those of nginx.conf
    other.write_bytes(b"other")
    root = str(tmp_path / "backups")
    kept = files.backup(str(other), root=root, keep=1)
    files.backup(str(target), root=root, keep=1)
    files.backup(str(target), root=root, keep=1)
    assert os.path.exists(kept)


def test_a_copy_is_what_the_file_is_and_its_directory_private(target: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(target, 65534, 65534)
    place = tmp_path / "kept" / "1.0.0" / "%etc%nginx.conf"
    assert files.differ(str(target), str(place))
    files.copy(str(target), str(place))
    assert not files.differ(str(target), str(place))
    before, after = target.stat(), place.stat()
    assert place.read_bytes() == b"old\r\n"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (place.parent, place.parent.parent)] == [0o700] * 2
    assert os.listdir(place.parent) == [place.name]


def test_files_differ_in_content_and_in_mode(target: Path) -> None:
    other = target.with_name("other")
    files.copy(str(target), str(other))
    other.chmod(0o600)
    assert files.differ(str(target), str(other))
    other.chmod(0o640)
    other.write_bytes(b"OLD\r\n")
    assert files.differ(str(target), str(other))
    with pytest.raises(files.FileError, match="cannot compare"):
        files.differ(str(target) + ".gone", str(other))


def test_a_copy_onto_a_link_replaces_what_the_link_names(target: Path, tmp_path: Path) -> None:
    source, link = tmp_path / "kept", tmp_path / "link"
    source.write_bytes(b"kept")
    link.symlink_to(target)
    files.copy(str(source), str(link))
    assert link.is_symlink() and target.read_bytes() == b"kept"


def test_a_copy_that_fails_leaves_what_was_there(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    source = target.with_name("source")
    source.write_bytes(b"new")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(files.FileError, match="No space left"):
        files.copy(str(source), str(target))
    assert target.read_bytes() == b"old\r\n"
    assert sorted(os.listdir(target.parent)) == ["nginx.conf", "source"]
