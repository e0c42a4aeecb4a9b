# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is taken out of snapshots: nothing from elsewhere, whatever the manifest says."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry, Manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import Base, Plan
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import Parts, RestoreError, Work
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept


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
