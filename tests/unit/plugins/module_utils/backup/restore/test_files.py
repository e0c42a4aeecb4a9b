# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is taken out of archives: nothing is written elsewhere, whatever the archive says."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from unittest.mock import Mock

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry, Manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import Base, Plan
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import Parts, RestoreError, Work
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept


def archive(*members: tuple[str, bytes, str, bytes]) -> io.BytesIO:
    """Members as name, type, link name, content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(content), 0o4755
            info.uid, info.gid = os.getuid(), os.getgid()
            tar.addfile(info, io.BytesIO(content))
    out.seek(0)
    return out


FILE, DIRECTORY, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def test_files_directories_and_links(tmp_path: Path) -> None:
    stream = archive(
        ("etc/", DIRECTORY, "", b""),
        ("etc/app/.env", FILE, "", b"PORT=1\n"),
        ("etc/app/same", HARD, "etc/app/.env", b""),
        ("etc/current", LINK, "/srv/elsewhere", b""),
    )
    assert files.extract(stream, str(tmp_path)) == 4
    assert (tmp_path / "etc/app/.env").read_bytes() == b"PORT=1\n"
    assert (tmp_path / "etc/app/.env").stat().st_mode & 0o7777 == 0o755, "nothing runs as somebody else"
    assert (tmp_path / "etc/app/same").stat().st_ino == (tmp_path / "etc/app/.env").stat().st_ino
    assert os.readlink(tmp_path / "etc/current") == "/srv/elsewhere"


@pytest.mark.parametrize(
    "members",
    [
        [("/etc/cron.d/x", FILE, "", b"x")],
        [("../x", FILE, "", b"x")],
        [("a/../../x", FILE, "", b"x")],
        [("..", DIRECTORY, "", b"")],
        [("a", LINK, "/tmp", b""), ("a/x", FILE, "", b"x")],
        [("a", LINK, "..", b""), ("a/x", FILE, "", b"x")],
        [("a", HARD, "/etc/passwd", b"")],
        [("a", HARD, "../outside", b"")],
        [("a", tarfile.CHRTYPE, "", b"")],
        [("a", tarfile.FIFOTYPE, "", b"")],
        [("a", FILE, "", b"1"), ("a", FILE, "", b"2")],
    ],
)
def test_hostile_members_are_refused(tmp_path: Path, members: list[tuple[str, bytes, str, bytes]]) -> None:
    (tmp_path / "outside").write_text("untouched")
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(RestoreError):
        files.extract(archive(*members), str(root))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root"]
    assert (tmp_path / "outside").read_text() == "untouched"


def test_an_archive_that_is_cut_is_refused(tmp_path: Path) -> None:
    whole = archive(("a", FILE, "", b"x" * 5000)).getvalue()
    with pytest.raises(RestoreError):
        files.extract(io.BytesIO(whole[:3000]), str(tmp_path))


@pytest.mark.parametrize(("root", "place"), [
    ("../elsewhere", "../elsewhere"), ("/etc", "/etc"), ("tree", "tree/../../elsewhere"), ("away", "away"),
    ("tree", "tree/away"),
])  # fmt: skip
def test_a_tree_that_is_elsewhere_is_refused(tmp_path: Path, root: str, place: str) -> None:
    backup, work = tmp_path / "backup", tmp_path / "work"
    for directory in (backup / "tree", tmp_path / "elsewhere", work):
        directory.mkdir(parents=True)
    (backup / "away").symlink_to(tmp_path / "elsewhere")
    (backup / "tree" / "away").symlink_to(tmp_path / "elsewhere")
    (backup / "list").write_bytes(b"")
    document = {"listing": {"root": root, "path": "list"}, "paths": {"/srv": place}}
    kept = Kept(str(backup), Manifest("", files={"list": Entry()}, document=document))
    never = Mock(side_effect=AssertionError("it was copied"))
    doing = Work(str(work), 10, never, lambda words: None, Parts())
    with pytest.raises(RestoreError, match=r"has no directory .* that could be restored"):
        files.Files({"directory": "/srv"}).prepare(Plan(Base((kept,))), doing)
