# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scratch directories: what lives is left alone, what was abandoned goes, what was kept stays."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import scratch


def test_a_directory_goes_with_its_block(tmp_path: Path) -> None:
    root = tmp_path / "new" / "root"
    with scratch.directory(str(root), "database") as path:
        assert os.listdir(root) == [os.path.basename(path)]
        assert scratch.clean(str(root)) == [], "it is in use"
    assert os.listdir(root) == []


def test_a_directory_that_is_kept_stays(tmp_path: Path) -> None:
    with scratch.directory(str(tmp_path), "database", keep=lambda: True) as path:
        pass
    assert scratch.clean(str(tmp_path)) == []
    assert os.listdir(path) == []


def test_what_was_abandoned_is_removed(tmp_path: Path) -> None:
    for name in ("database-1-1", ".begun-database-2-2", "somebody's"):
        (tmp_path / name).mkdir()
    (tmp_path / "database-1-1" / ".scratch").touch()
    assert scratch.clean(str(tmp_path)) == [str(tmp_path / "database-1-1")]
    assert sorted(os.listdir(tmp_path)) == [".begun-database-2-2", "somebody's"], "one may just be beginning"
    os.utime(tmp_path / ".begun-database-2-2", (0, 0))
    scratch.clean(str(tmp_path))
    assert os.listdir(tmp_path) == ["somebody's"]
