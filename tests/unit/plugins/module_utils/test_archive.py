# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is taken out of archives: nothing is written elsewhere, whatever the archive says."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.archive import ArchiveError, extract, extract_zip


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
        ("./", DIRECTORY, "", b""),
        ("etc/", DIRECTORY, "", b""),
        ("etc/app/.env", FILE, "", b"PORT=1\n"),
        ("etc/app/same", HARD, "etc/app/.env", b""),
        ("etc/current", LINK, "/srv/elsewhere", b""),
    )
    assert extract(stream, str(tmp_path)) == 5
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
    with pytest.raises(ArchiveError):
        extract(archive(*members), str(root))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root"]
    assert (tmp_path / "outside").read_text() == "untouched"


def test_an_archive_that_is_cut_is_refused(tmp_path: Path) -> None:
    whole = archive(("a", FILE, "", b"x" * 5000)).getvalue()
    with pytest.raises(ArchiveError):
        extract(io.BytesIO(whole[:3000]), str(tmp_path))


def zipped(*members: tuple[str, int, bytes]) -> io.BytesIO:
    """Members as name, type and mode, content."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, mode, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16 or 0x20  # as DOS writes it, without a mode
            archive.writestr(info, content)
    out.seek(0)
    return out


def test_a_zip_archive(tmp_path: Path) -> None:
    stream = zipped(
        ("bin/", stat.S_IFDIR | 0o755, b""), ("bin/run", stat.S_IFREG | 0o4755, b"#!"), ("plain", 0, b"x"),
        ("link", stat.S_IFLNK | 0o777, b"bin/run"),
    )  # fmt: skip
    assert extract_zip(stream, str(tmp_path)) == 4
    assert (tmp_path / "bin/run").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "plain").stat().st_mode & 0o7777 == 0o644
    assert os.readlink(tmp_path / "link") == "bin/run"


@pytest.mark.parametrize(
    "members",
    [
        [("/etc/x", 0, b"x")],
        [("../x", 0, b"x")],
        [("a", stat.S_IFLNK | 0o777, b".."), ("a/x", 0, b"x")],
        [("a", stat.S_IFIFO | 0o644, b"")],
        [("a", 0, b"1"), ("a/b", 0, b"2")],
    ],
)
def test_a_hostile_zip_archive_is_refused(tmp_path: Path, members: list[tuple[str, int, bytes]]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ArchiveError):
        extract_zip(zipped(*members), str(root))
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_damaged_zip_archive_is_refused(tmp_path: Path) -> None:
    whole = zipped(("a", 0, b"x" * 5000)).getvalue()
    with pytest.raises(ArchiveError):
        extract_zip(io.BytesIO(whole[:-30]), str(tmp_path))
