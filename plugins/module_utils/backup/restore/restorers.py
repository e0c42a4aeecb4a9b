# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The restorers that are known: a new one is a file with its class and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import Restorer, RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.mariadb import MariaDB
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept

_BY_METHOD: dict[str, type[Restorer]] = {
    "mariadb-backup": MariaDB,
    "mariadb-dump": MariaDB,
    "binlog": MariaDB,
}


def restorer_of(kept: Kept, options: Mapping[str, Any]) -> Restorer:
    """Return what restores a backup.

    :raises RestoreError: when nothing here can.
    """
    method = str(kept.manifest.document.get("method"))
    if method not in _BY_METHOD:
        raise RestoreError(f"{kept.path} was made by '{method}', which cannot be restored here")
    return _BY_METHOD[method](options)
