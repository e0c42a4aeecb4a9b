# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs whole jobs of the backup program on directories of a test."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config, job
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept, Store
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Result


class Job:
    """One source of a host, with its store below a directory.

    :param place: the directory.
    :param kind: what is made.
    :param options: of the source.
    """

    def __init__(self, place: Path, kind: str, **options: Any) -> None:
        self.kind = kind
        self.now = time.time()
        self.said: list[str] = []
        document = {"root": str(place), "min_free": "0%", "sources": {"it": json.loads(json.dumps(options))}}
        self.config = config.parse(document, "test")
        self.source = self.config.sources["it"]
        self.store = Store(str(place), "it")

    def make(self, later: float = 0) -> Kept:
        """Make a backup so many seconds later."""
        self.now += later
        return job.make(self.config, self.source, self.kind, clock=lambda: self.now, say=self.said.append)

    def verify(self, kept: Kept) -> Result:
        """Verify it, as the program does."""
        return job.verify(self.config, self.source, kept, clock=lambda: self.now)

    def left(self) -> list[str]:
        """Return what is in the store but finished backups and the files of the store itself."""
        known = {kept.path for kept in self.store.backups()[0]}
        place = Path(self.store.path)
        return [str(path) for path in place.glob(f"{self.kind}/*") if str(path) not in known] if place.exists() else []
