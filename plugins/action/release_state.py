# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fills in whose release it is, which only the controller knows, and calls the module on the host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.worklog.maintenance.plugins.plugin_utils.run import run_id, user


class ActionModule(ActionBase):
    """The controller's half of M(worklog.maintenance.release_state)."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module with the run's identifier and its owner, where none are given."""
        variables = task_vars or {}
        super().run(tmp, variables)
        given = {name: value for name, value in self._task.args.items() if value != ""}
        return self._execute_module(
            module_name="worklog.maintenance.release_state",
            module_args={"id": run_id(variables), "owner": user(variables), **given},
            task_vars=variables,
        )
