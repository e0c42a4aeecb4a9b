# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fills in what only the controller knows about the run, and calls the module on the host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.worklog.maintenance.plugins.plugin_utils.run import about


class ActionModule(ActionBase):
    """The controller's half of M(worklog.maintenance.record)."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module with the run's identifier, its start and its owner."""
        variables = task_vars or {}
        super().run(tmp, variables)
        return self._execute_module(
            module_name="worklog.maintenance.record",
            module_args={**about(variables), **self._task.args},
            task_vars=variables,
        )
