# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engines that are known: a new one is a file with its class and a line here."""

from __future__ import annotations

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.archive import Archive
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.files import Files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.mariadb import MariaDB
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.mongodb import MongoDB
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.redis import Redis
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.secrets import Secrets
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import Engine

_ALL: tuple[type[Engine], ...] = (
    MariaDB,
    MongoDB,
    Redis,
    Files,
    Secrets,
    Archive,
)

ENGINES = {engine.name: engine for engine in _ALL}
