# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a long module in the background of the host, through Ansible's asynchronous wrapper, and shows its progress."""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

#: Seconds until the progress is shown for the first time, and at most between two lines.
_FIRST = 2.0
_MOST = 15.0


class BackgroundAction(ActionBase):
    """The controller's half of a module that keeps its progress in the file ``progress_file``."""

    TRANSFERS_FILES = False
    _supports_async = True

    #: The module by its full name.
    MODULE = ""
    #: Seconds after which it is given up.
    LIMIT = 24 * 3600

    def line(self, host: str, content: bytes) -> str:
        """Return what to show of a progress file, an empty line while there is nothing to tell."""
        raise NotImplementedError

    def call_module(self, arguments: dict[str, Any], variables: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Run the module to its end in the foreground."""
        return self._call(self.MODULE, arguments, variables, **options)

    def call_in_background(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Run the module in the background, show its progress, and return its result."""
        directory = self.get_shell_option("async_dir", default="~/.ansible_async")
        path = f"{directory}/{self.MODULE.replace('.', '_')}_{uuid.uuid4().hex}.progress"
        self._task.async_val = self.LIMIT
        try:
            job = self._call(self.MODULE, {**arguments, "progress_file": path}, variables, wrap_async=True)
        finally:
            self._task.async_val = 0
        if "ansible_job_id" not in job:
            return job
        result = self._follow(job["ansible_job_id"], directory, path, variables)
        for key in ("ansible_job_id", "started", "finished", "results_file"):
            result.pop(key, None)
        result.get("invocation", {}).get("module_args", {}).pop("progress_file", None)
        return result

    def _follow(self, job: str, directory: str, path: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Show the progress until the module has ended, and return its result."""
        host = str(variables.get("inventory_hostname", ""))
        status = {"jid": job, "_async_dir": directory}
        deadline = time.monotonic() + self.LIMIT + 60
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
                display.warning(f"{host}: {self.MODULE}: {error}; trying again")
                self._connection.reset()
                continue
            if result.get("finished"):
                self._call("ansible.legacy.async_status", {**status, "mode": "cleanup"}, variables)
                return result
            if result.get("failed"):
                return result
            pause = _FIRST
        return {"failed": True, "msg": f"{self.MODULE} did not end within {self.LIMIT // 3600} hours"}

    def _progress(self, host: str, path: str, variables: dict[str, Any]) -> str:
        result = self._call("ansible.legacy.slurp", {"src": path}, variables)
        if result.get("failed"):
            return ""
        try:
            return self.line(host, base64.b64decode(result["content"]))
        except (ValueError, KeyError, TypeError):
            return ""

    def _call(
        self, module: str, arguments: dict[str, Any], variables: dict[str, Any], wrap_async: bool = False
    ) -> dict[str, Any]:
        # What only looks after the job also works in check mode, where async_status would be skipped.
        check_mode = self._task.check_mode
        if module != self.MODULE:
            self._task.check_mode = False
        try:
            return self._execute_module(
                module_name=module, module_args=arguments, task_vars=variables, wrap_async=wrap_async
            )
        finally:
            self._task.check_mode = check_mode
