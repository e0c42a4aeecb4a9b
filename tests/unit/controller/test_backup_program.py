# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program worklog-backup as one file, run by the oldest and the newest Python of managed nodes."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import zipfile
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.plugin_utils import program

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = ["3.9", "3.13"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "worklog-backup"
    path.write_bytes(program.build("backup.make.cli"))
    return path


def run(version: str, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program with nothing but the standard library, in a place of its own."""
    python = ROOT / ".cache" / "target" / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no Python {version} in .cache/target; tools/unit puts it there")
    return subprocess.run(
        [str(python), "-I", "-S", str(path), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=path.parent,
        env={"PATH": os.environ["PATH"]},
    )


def test_equal_sources_make_equal_bytes(built: Path) -> None:
    assert built.read_bytes() == program.build("backup.make.cli")
    assert built.read_bytes().startswith(b"#!/usr/bin/python3\nPK")
    with zipfile.ZipFile(built) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


def test_it_holds_what_it_imports_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(built.read_bytes())) as archive:
        names = [name.partition("module_utils/")[2] for name in archive.namelist()]
    assert "backup/verify/check.py" in names
    assert "command.py" in names
    assert not [name for name in names if name.startswith(("nginx/", "service/"))]


@pytest.mark.parametrize("version", VERSIONS)
def test_it_runs_with_the_standard_library_alone(version: str, built: Path, tmp_path: Path) -> None:
    config = tmp_path / "backup.json"
    config.write_text(json.dumps({"root": str(tmp_path), "sources": {}}), encoding="utf-8")
    done = run(version, built, "--config", str(config), "check")
    assert (done.returncode, done.stdout) == (0, "there are no sources\n"), done.stderr
    config.write_text('{"sources": {}, "rot": "/x"}', encoding="utf-8")
    done = run(version, built, "--config", str(config), "check")
    assert done.returncode == 2
    assert done.stderr == f"worklog-backup: {config}: there is no option 'rot'; did you mean 'root'?\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_help_comes_at_once(version: str, built: Path) -> None:
    seconds = []
    for _attempt in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run(version, built, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0
        assert "75 another program works on the source" in " ".join(done.stdout.split())
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


def test_what_a_host_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("from ansible.module_utils.basic import AnsibleModule\n", encoding="utf-8")
    with pytest.raises(program.ProgramError, match=r"bad imports ansible\.module_utils\.basic\.AnsibleModule"):
        program.build("bad", tmp_path)
    with pytest.raises(program.ProgramError, match="none cannot be read"):
        program.build("none", tmp_path)
