# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts the program that ends modes on the host, says who asks, and calls the module there."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.host import PROGRAM
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import MODES
from ansible_collections.worklog.maintenance.plugins.plugin_utils import program
from ansible_collections.worklog.maintenance.plugins.plugin_utils.run import run_id, user


class ActionModule(ActionBase):
    """The controller's half of M(worklog.maintenance.maintenance_mode)."""

    TRANSFERS_FILES = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Install the program where a mode may be switched on, and run the module."""
        variables = task_vars or {}
        super().run(tmp, variables)
        arguments = {"by": user(variables), "run_id": run_id(variables), **self._task.args}
        installed = False
        if str(arguments.get("mode")) in MODES:
            try:
                content = program.build("traffic.maintenance.cli")
            except program.ProgramError as error:
                raise AnsibleActionFail(f"the program worklog-maintenance-mode cannot be built: {error}") from error
            there = self._execute_remote_stat(PROGRAM, all_vars=variables, follow=True)
            if there.get("checksum") != hashlib.sha1(content, usedforsecurity=False).hexdigest():
                # What is refused leaves nothing behind, so that is found out first.
                planned = self._call(arguments, variables, check_mode=True)
                if planned.get("failed") or self._task.check_mode:
                    return planned
                copied = program.install(self, content, PROGRAM, variables)
                if copied.get("failed"):
                    return copied
                installed = True
        result = self._call(arguments, variables, check_mode=self._task.check_mode)
        result["changed"] = result.get("changed", False) or installed
        return result

    def _call(self, arguments: dict[str, Any], variables: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
        asked = self._task.check_mode
        self._task.check_mode = check_mode
        try:
            called: dict[str, Any] = self._execute_module(
                module_name="worklog.maintenance.maintenance_mode", module_args=arguments, task_vars=variables
            )
            return called
        finally:
            self._task.check_mode = asked
