# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration of the program worklog-backup from the sources as an inventory has them.

Ansible loads every file of filters, and compiles what it imports, in each worker that needs one of them: the functions
import what they need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def backup_config(sources: Iterable[Mapping[str, Any]], **general: Any) -> dict[str, Any]:
    """Return the configuration, or say what is wrong with it before any host is touched."""
    from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config

    found: dict[str, Any] = {}
    for source in sources:
        name = str(source.get("name"))
        if name in found:
            raise AnsibleFilterError(f"there are two sources with the name '{name}'; give one of them another name")
        common = {key: value for key, value in source.items() if key not in ("name", "options") and value is not None}
        found[name] = {**(source.get("options") or {}), **common}
    document = {**{key: value for key, value in general.items() if value is not None}, "sources": found}
    try:
        config.parse(document, "backup_sources")
    except config.ConfigError as error:
        raise AnsibleFilterError(str(error)) from error
    return document


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"backup_config": backup_config}
