# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names the run, which only the controller knows, and calls the module; knows when the run that has a lock is dead."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.worklog.maintenance.plugins.plugin_utils.run import about, ended, run_id


class ActionModule(ActionBase):
    """The controller's half of M(worklog.maintenance.package_apply)."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, once more when the change on the host belongs to a run of this controller that has ended."""
        variables = task_vars or {}
        super().run(tmp, variables)
        arguments = {"owner": run_id(variables), **self._task.args}
        if arguments.get("record"):
            arguments["record"] = {**about(variables), **arguments["record"]}
        result = self._call(arguments, variables)
        if result.get("failed") and ended(str(result.get("locked_by", ""))):
            result = self._call({**arguments, "ended_owner": result["locked_by"]}, variables)
        return result

    def _call(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(
            module_name="worklog.maintenance.package_apply", module_args=arguments, task_vars=variables
        )
        return found
