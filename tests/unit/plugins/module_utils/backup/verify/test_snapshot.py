# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.listing import NAME, ROOT, Item, walk
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.check import verify
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.expect import Expectation
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup, Result


def never(error: OSError) -> None:
    raise error


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot with two names of one inode, a link, and an upload that looks like a broken dump."""
    tree = tmp_path / ROOT / "srv"
    (tree / "deep").mkdir(parents=True)
    (tree / "one").write_bytes(b"1" * 5000)
    os.link(tree / "one", tree / "deep" / "two")
    (tree / "broken.rdb").write_bytes(b"REDIS0010 and then nothing")
    (tree / "pointer").symlink_to("deep/two")
    items = []
    for path, status in walk(str(tmp_path / ROOT), never):
        full = tmp_path / ROOT / path
        if full.is_symlink():
            items.append(Item(path, link=os.readlink(full)))
        else:
            items.append(Item(path, status.st_size, hashlib.sha256(full.read_bytes()).hexdigest()))
    content = gzip.compress(b"".join(item.render() for item in items))
    (tmp_path / NAME).write_bytes(content)
    document = {
        "schema": 1,
        "id": "x",
        "end": time.time(),
        "files": [{"path": NAME, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}],
        "listing": {"path": NAME, "root": ROOT, "files": 3, "bytes": 10026},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    return tmp_path


def check(path: Path, progress: Callable[[int], None] = lambda amount: None) -> Result:
    backup = Backup(str(path), "x", expect=Expectation(members=("tree/srv/deep/two",)))
    return verify(backup, now=time.time(), limits=Limits(), progress=progress)


def test_a_whole_snapshot_is_verified_and_each_inode_is_read_once(snapshot: Path) -> None:
    amounts: list[int] = []
    result = check(snapshot, amounts.append)
    assert (result.verdict, [f.message for f in result.findings]) == ("verified", ["verified (sha256, members)"])
    assert sum(amounts) == 5000 + 26 + (snapshot / NAME).stat().st_size
    assert result.members == 5  # three files, the link and the list


def flip(path: Path) -> None:
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def point_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("one")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda tree: flip(tree / "broken.rdb"), "its bytes are not those that were copied"),
        (lambda tree: flip(tree / "deep" / "two"), "its bytes are not those that were copied"),
        (lambda tree: (tree / "deep" / "two").unlink(), "it is in the list of the snapshot, but not in its tree"),
        (lambda tree: (tree / "pointer").unlink(), "it is in the list of the snapshot, but not in its tree"),
        (lambda tree: point_elsewhere(tree / "pointer"), "the link does not point where it did"),
        (lambda tree: become_link(tree / "broken.rdb"), "the link does not point where it did"),
        (lambda tree: os.truncate(tree / "one", 4999), "it has 4999 bytes, but 5000 were copied"),
        (
            lambda tree: (tree / "more").write_bytes(b"x"),
            "4 files with 10027 bytes, but the manifest says 3 with 10026",
        ),
        (lambda tree: flip(tree.parent.parent / NAME), "the bytes of tree.jsonl.gz are not those that were written"),
    ],
)
def test_damage_is_found(snapshot: Path, damage: Callable[[Path], None], sentence: str) -> None:
    damage(snapshot / ROOT / "srv")
    result = check(snapshot)
    assert result.verdict == "damaged"
    assert any(sentence in finding.message for finding in result.findings), result.findings
