# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names the current run, which only the controller knows, and calls the module on the host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.worklog.maintenance.plugins.plugin_utils.run import run_id


class ActionModule(ActionBase):
    """The controller's half of M(worklog.maintenance.record_info)."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, with the identifier of this run in place of V(current)."""
        variables = task_vars or {}
        super().run(tmp, variables)
        arguments = dict(self._task.args)
        if arguments.get("run_id") == "current":
            arguments["run_id"] = run_id(variables)
        return self._execute_module(
            module_name="worklog.maintenance.record_info", module_args=arguments, task_vars=variables
        )
