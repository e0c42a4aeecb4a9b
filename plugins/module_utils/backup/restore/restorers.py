# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The restorers that are known: a new one is a file with its class and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import LOG
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import files, mariadb, mongodb, redis
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import RestoreError, Restorer
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.unpack import plain_name
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept

#: By the name of the file that holds the data, without its compression.
_BY_FILE: dict[str, type[Restorer]] = {
    mariadb.STREAM: mariadb.MariaDB,
    mariadb.DUMP: mariadb.MariaDB,
    redis.SNAPSHOT: redis.Redis,
    files.LISTING: files.Files,
    "archive": mongodb.MongoDB,
}


def restorer_of(kept: Kept, options: Mapping[str, Any]) -> Restorer:
    """Return what restores a backup.

    :raises RestoreError: when nothing here can.
    """
    if kept.manifest.kind == LOG:
        return mariadb.MariaDB(options)
    for name in kept.manifest.files:
        if plain_name(name) in _BY_FILE:
            return _BY_FILE[plain_name(name)](options)
        if files.is_archive(name):
            return files.Archive(options)
        if plain_name(name).startswith("archive-"):
            return mongodb.MongoDB(options)
    raise RestoreError(
        f"{kept.path} was made by '{kept.manifest.document.get('method')}', which cannot be restored here"
    )
