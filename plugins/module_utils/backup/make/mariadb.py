# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""MariaDB and MySQL: copies of the files, chains of what changed since, binary logs without a gap, and dumps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ansible_collections.worklog.maintenance.plugins.module_utils import units
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import (
    compression,
    mariadb_dump,
    mariadb_logs,
    mariadb_physical,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.mariadb_session import (
    Access,
    Session,
    describe,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.options import (
    Options,
    boolean,
    number,
    one_of,
    path,
    texts,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import Engine, Made, Work
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner

#: How much larger than its predecessor a backup is expected to be at most.
_GROWTH = 1.2


class MariaDB(Engine):
    """Makes the backups of one server.

    ``full`` and ``incremental`` read the server's files, as root or as its account on its host; ``dump`` and ``log``
    work as anyone from anywhere. ``databases`` and ``exclude_tables`` are for dumps; the others hold the whole server.
    """

    name = "mariadb"
    kinds: Mapping[str, str] = {
        "full": "a copy of the server's files",
        "incremental": "the pages that changed since the newest full or incremental one",
        "log": "the binary logs since the last time, for recovery to any moment",
        "dump": "statements that make the tables again",
    }
    OPTIONS: ClassVar[Options] = {
        "defaults_file": (path, None),
        "databases": (texts, []),
        "exclude_tables": (texts, []),
        "compression": compression.OPTION,
        "counts": (one_of("exact", "none"), "exact"),
        "checksums": (boolean, False),
        "probe_interval": (units.duration, "1d"),
        "lock_wait": (number, 5),
        "parallel": (number, 1),
        "log_copy": (one_of("auto", "files", "remote"), "auto"),
    }

    def instead(self, kind: str, earlier: Sequence[Kept], run: Runner) -> tuple[str, str] | None:
        """An incremental backup that has nothing to go on from becomes a full one: a night without any is worse."""
        if kind != "incremental":
            return None
        with Session(self._access, 60) as session:
            server = describe(session)
            identity = mariadb_physical.data_identity(server, run)
            parent, why = mariadb_physical.choose_parent(
                earlier, server, identity, mariadb_physical.current_lsn(session)
            )
        return None if parent else ("full", why)

    def needed(self, work: Work) -> int | None:
        """Go by the newest of its kind, else by the size of the data."""
        before = work.newest(work.kind)
        if work.kind == "log":
            with Session(self._access, 60) as session:
                return mariadb_logs.size_to_copy(session, work.earlier)
        if before is not None:
            return int(before.size * _GROWTH)
        if work.kind == "incremental":
            return None
        with Session(self._access, 300) as session:
            rows = session.query("SELECT IFNULL(SUM(DATA_LENGTH + INDEX_LENGTH), 0) FROM information_schema.TABLES")
            return int(rows[0][0])

    def make(self, work: Work) -> Made:
        """Make one backup of a kind."""
        packing = compression.stages(self.options["compression"])
        if work.kind == "dump":
            return mariadb_dump.make(work, self._access, packing, self._choice)
        if work.kind == "log":
            return mariadb_logs.make(work, self._access, packing, self._probing, self.options["log_copy"])
        return mariadb_physical.make(work, self._access, packing, self.options["parallel"])

    @property
    def _access(self) -> Access:
        return Access(self.options["defaults_file"])

    @property
    def _probing(self) -> mariadb_logs.Probing:
        wanted = self.options["counts"] == "exact"
        return mariadb_logs.Probing(wanted, self.options["checksums"], self.options["probe_interval"])

    @property
    def _choice(self) -> mariadb_dump.Choice:
        return mariadb_dump.Choice(
            databases=self.options["databases"],
            exclude=self.options["exclude_tables"],
            counts=self.options["counts"] == "exact",
            checksums=self.options["checksums"],
            lock_wait=self.options["lock_wait"],
        )
