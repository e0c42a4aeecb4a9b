# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names the current run, which only the controller knows, runs the module in the background and shows how far it is."""

from __future__ import annotations

from typing import Any

from ansible_collections.worklog.maintenance.plugins.plugin_utils.background import BackgroundAction
from ansible_collections.worklog.maintenance.plugins.plugin_utils.run import run_id


class ActionModule(BackgroundAction):
    """The controller's half of M(worklog.maintenance.backup_run)."""

    MODULE = "worklog.maintenance.backup_run"
    LIMIT = 7 * 24 * 3600

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module with the run's identifier."""
        variables = task_vars or {}
        super().run(tmp, variables)
        arguments = {"run_id": run_id(variables), **self._task.args}
        if self._task.async_val:  # the task asks for it by itself
            return self.call_module(arguments, variables, wrap_async=not self._connection.has_native_async)
        if self._task.check_mode:
            return self.call_module(arguments, variables)
        return self.call_in_background(arguments, variables)

    def line(self, host: str, content: bytes) -> str:
        """Return what the program does now."""
        text = content.decode("utf-8", "replace").strip()
        return f"{host}: backup {text}" if text else ""
