# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a long verification in the background of the host and shows how far it is.

The module is called once. Only when it says that there is much to read, it is called again in the background.
"""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.progress import line
from ansible_collections.worklog.maintenance.plugins.plugin_utils.background import BackgroundAction

#: Bytes that are read without showing the progress: some seconds.
_LARGE = 512_000_000


class ActionModule(BackgroundAction):
    """The controller's half of M(worklog.maintenance.backup_verify)."""

    MODULE = "worklog.maintenance.backup_verify"

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, in the background when there is much to read."""
        variables = task_vars or {}
        super().run(tmp, variables)
        arguments = dict(self._task.args)
        if self._task.async_val:  # the task asks for it by itself
            return self.call_module(arguments, variables, wrap_async=not self._connection.has_native_async)
        result = self.call_module({**arguments, "defer_above": _LARGE}, variables)
        if result.get("deferred") and not result.get("failed"):
            result = self.call_in_background(arguments, variables)
            if "backups" not in result:
                return result
        result.pop("deferred", None)
        result.get("invocation", {}).get("module_args", {}).pop("defer_above", None)
        result.get("invocation", {}).get("module_args", {}).pop("progress_file", None)
        result["changed"] = False
        return result

    def line(self, host: str, content: bytes) -> str:
        """Return the line that says how far the verification is."""
        return line(host, json.loads(content))
