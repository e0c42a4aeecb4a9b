# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the manifest of a backup of our own says besides sizes and hashes: its binary logs, its place in the redo log.

Hashes are taken of what was written. That it is what the source had at that time is only told by what the source said.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Manifest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.formats import promised_codec
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

_RANGE = ("from_lsn", "to_lsn", "last_lsn")


def compare(manifest: Manifest, attributes: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is not as the manifest says.

    :param attributes: what the files tell.
    """
    yield from _logs(manifest)
    yield from _positions(manifest.positions, attributes.get("mariabackup") or [])


def _logs(manifest: Manifest) -> Iterator[Problem]:
    """Each binary log that the source had must be there, as long as it was."""
    sizes = {
        os.path.basename(promised_codec(path)[1]): (entry.content or entry).size
        for path, entry in manifest.files.items()
    }
    for log in manifest.document.get("binlogs") or []:
        if not isinstance(log, dict):
            continue
        name, size = str(log.get("file")), log.get("size")
        if name not in sizes:
            yield Problem("manifest.binlogs", f"the source had the log {printable(name)}, which is not in the backup")
        elif sizes[name] not in (size, None):
            text = f"the log {printable(name)} has {sizes[name]} bytes, but it had {size} at its source"
            yield Problem("manifest.binlogs", text)


def _positions(recorded: Mapping[str, Any], found: list[dict[str, Any]]) -> Iterator[Problem]:
    """The copy of a server's files must cover what mariadb-backup said that it covers."""
    told = [recorded.get(key) for key in _RANGE]
    for backup in found:
        covered = [backup.get(key) for key in _RANGE]
        if None not in told and covered != told:
            text = f"it covers LSN {covered[0]} to {covered[1]} and {covered[2]}, but the manifest says {told[0]} to "
            yield Problem("manifest.positions", f"{text}{told[1]} and {told[2]}: it is another backup")
