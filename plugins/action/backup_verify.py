# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a long verification in the background of the host and shows how far it is.

The module is called once. Only when it says that there is much to read, it is called again through Ansible's own
asynchronous wrapper, and the small file in which it keeps its progress is read from time to time.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.progress import line

display = Display()

#: Bytes that are read without showing the progress: some seconds.
_LARGE = 512_000_000

#: Seconds after which a verification is given up.
_LIMIT = 24 * 3600

#: Seconds until the progress is shown for the first time, and at most between two lines.
_FIRST = 2.0
_MOST = 15.0

_MODULE = "worklog.maintenance.backup_verify"


class ActionModule(ActionBase):
    """The controller's half of M(worklog.maintenance.backup_verify)."""

    TRANSFERS_FILES = False
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, in the background when there is much to read."""
        variables = task_vars or {}
        super().run(tmp, variables)
        arguments = dict(self._task.args)
        if self._task.async_val:  # the task asks for it by itself
            return self._call(_MODULE, arguments, variables, wrap_async=not self._connection.has_native_async)
        result = self._call(_MODULE, {**arguments, "defer_above": _LARGE}, variables)
        if result.get("failed") or not result.get("deferred"):
            return self._clean(result)
        directory = self.get_shell_option("async_dir", default="~/.ansible_async")
        path = f"{directory}/worklog_backup_verify_{uuid.uuid4().hex}.json"
        self._task.async_val = _LIMIT
        try:
            job = self._call(_MODULE, {**arguments, "progress_file": path}, variables, wrap_async=True)
        finally:
            self._task.async_val = 0
        if "ansible_job_id" not in job:
            return job
        return self._clean(self._follow(job["ansible_job_id"], directory, path, variables))

    def _follow(self, job: str, directory: str, path: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Show the progress until the module has ended, and return its result."""
        host = str(variables.get("inventory_hostname", ""))
        status = {"jid": job, "_async_dir": directory}
        deadline = time.monotonic() + _LIMIT + 60
        pause, shown = _FIRST, ""
        while time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 1.5, _MOST)
            try:
                text = self._progress(host, path, variables)
                if text and text != shown:
                    display.display(text)
                    shown = text
                    continue
                result = self._call("ansible.legacy.async_status", {**status, "mode": "status"}, variables)
            except AnsibleConnectionFailure as error:
                display.warning(f"{host}: backup_verify: {error}; trying again")
                self._connection.reset()
                continue
            if result.get("finished"):
                self._call("ansible.legacy.async_status", {**status, "mode": "cleanup"}, variables)
                return result
            if result.get("failed"):
                return result
            pause = _FIRST
        return {"failed": True, "msg": f"the verification did not end within {_LIMIT // 3600} hours"}

    def _progress(self, host: str, path: str, variables: dict[str, Any]) -> str:
        """Return the line to show, an empty one while there is nothing to tell."""
        result = self._call("ansible.legacy.slurp", {"src": path}, variables)
        if result.get("failed"):
            return ""
        try:
            return line(host, json.loads(base64.b64decode(result["content"])))
        except (ValueError, KeyError, TypeError):
            return ""

    def _call(
        self, module: str, arguments: dict[str, Any], variables: dict[str, Any], wrap_async: bool = False
    ) -> dict[str, Any]:
        # What only looks after the job also works in check mode, where async_status would be skipped.
        check_mode = self._task.check_mode
        if module != _MODULE:
            self._task.check_mode = False
        try:
            return self._execute_module(
                module_name=module, module_args=arguments, task_vars=variables, wrap_async=wrap_async
            )
        finally:
            self._task.check_mode = check_mode

    @staticmethod
    def _clean(result: dict[str, Any]) -> dict[str, Any]:
        """Take out what only the background run knows."""
        for key in ("ansible_job_id", "started", "finished", "results_file", "deferred"):
            result.pop(key, None)
        result["changed"] = False
        for key in ("defer_above", "progress_file"):
            result.get("invocation", {}).get("module_args", {}).pop(key, None)
        return result
