# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scratch directories: what lives is left alone, what was abandoned goes, what was kept stays."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
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


def test_a_clean_up_is_whole_when_the_time_is_over_in_the_middle_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Over(Exception):
        pass

    def late(*_unused: object) -> None:
        raise Over

    def remove(*given: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGALRM)
        remove_tree(*given, **options)

    remove_tree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", remove)
    before = signal.signal(signal.SIGALRM, late)
    try:
        with pytest.raises(Over), scratch.directory(str(tmp_path), "database"):
            pass
    finally:
        signal.signal(signal.SIGALRM, before)
    assert os.listdir(tmp_path) == []


def test_what_was_abandoned_is_removed(tmp_path: Path) -> None:
    for name in ("database-1-1", ".begun-database-2-2", "somebody's"):
        (tmp_path / name).mkdir()
    (tmp_path / "database-1-1" / ".scratch").touch()
    assert scratch.clean(str(tmp_path)) == [str(tmp_path / "database-1-1")]
    assert sorted(os.listdir(tmp_path)) == [".begun-database-2-2", "somebody's"], "one may just be beginning"
    os.utime(tmp_path / ".begun-database-2-2", (0, 0))
    scratch.clean(str(tmp_path))
    assert os.listdir(tmp_path) == ["somebody's"]
