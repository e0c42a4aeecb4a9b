# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the program worklog-backup on the controller and copies it to the host, as ansible.builtin.copy does."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.config import PROGRAM
from ansible_collections.worklog.maintenance.plugins.plugin_utils import program


class ActionModule(ActionBase):
    """The whole of M(worklog.maintenance.backup_program)."""

    TRANSFERS_FILES = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Build the program and copy it."""
        variables = task_vars or {}
        super().run(tmp, variables)
        self.validate_argument_spec(argument_spec={})
        try:
            content = program.build("backup.make.cli")
        except program.ProgramError as error:
            raise AnsibleActionFail(f"the program worklog-backup cannot be built: {error}") from error
        before = self._checksum(variables) if self._task.diff else None
        result = program.install(self, content, PROGRAM, variables)
        if self._task.diff and result.get("changed"):
            after = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            result["diff"] = {
                "before": f"SHA-1 {before}\n" if before else "",
                "after": f"SHA-1 {after}\n",
                "before_header": PROGRAM,
                "after_header": PROGRAM,
            }
        return result

    def _checksum(self, variables: dict[str, Any]) -> str | None:
        found = self._execute_remote_stat(PROGRAM, all_vars=variables, follow=True)
        return found.get("checksum") if found.get("exists") else None
