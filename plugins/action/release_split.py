# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Divides the traffic of an application on a load balancer, by as many calls of traffic_split as its strategy needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.worklog.maintenance.plugins.module_utils.release import definition


class ActionModule(ActionBase):
    """The whole of M(worklog.maintenance.release_split)."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Divide, read or give back, and return what was found for all calls together."""
        variables = task_vars or {}
        super().run(tmp, variables)
        _unused, given = self.validate_argument_spec(
            argument_spec={
                "balancer": {"type": "dict", "required": True},
                "members": {"type": "dict", "required": True},
                "shares": {"type": "dict"},
                "restore": {"type": "list", "elements": "dict"},
                "drain": {"type": "list", "elements": "str", "default": []},
                "drain_timeout": {"type": "float", "default": 60},
                "drain_timeout_action": {"type": "str", "choices": ["fail", "continue"], "default": "fail"},
            },
            mutually_exclusive=[("shares", "restore")],
        )
        members: dict[str, list[str]] = given["members"]
        shares = None if given["shares"] is None else {side: float(value) for side, value in given["shares"].items()}
        try:
            reading = definition.split(given["balancer"], members)
            tasks = definition.split(given["balancer"], members, shares)
        except (definition.DefinitionError, KeyError) as error:
            raise AnsibleActionFail(f"the definition of the load balancer does not fit: {error}") from error
        if given["restore"] is not None:
            tasks = definition.restore(reading, given["restore"])
        draining = {host for side in given["drain"] for host in [side, *members.get(side, [])]}
        how = {name: given[name] for name in ("drain_timeout", "drain_timeout_action")}
        results: list[dict[str, Any]] = []
        for task in tasks:
            sides = [side["name"] for side in task["sides"] if side["name"] in draining]
            result = self._split({**task, **({"drain": sides, **how} if sides else {})}, variables)
            results.append(result)
            if result.get("failed") or result.get("unreachable"):
                return self._failed(tasks, results, variables)
        return self._together(tasks, reading, results, members)

    def _split(self, options: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="worklog.maintenance.traffic_split", module_args=dict(options), task_vars=variables
        )
        result.pop("invocation", None)
        return result

    def _failed(
        self, tasks: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]], variables: dict[str, Any]
    ) -> dict[str, Any]:
        """Give back what was changed before the call that failed, which has undone its own change."""
        failed = dict(results[-1])
        for task, result in reversed([*zip(tasks, results[:-1])]):
            if result["changed"] and not self._task.check_mode:
                sides = [{key: side[key] for key in ("name", "servers") if key in side} for side in task["sides"]]
                back = self._split({**task, "sides": sides, "restore": result["before"]}, variables)
                if back.get("failed"):
                    failed["msg"] = (
                        f"{failed.get('msg')}; and {task.get('path')} could not be put back: {back.get('msg')}"
                    )
        return failed

    @staticmethod
    def _together(
        tasks: Sequence[Mapping[str, Any]],
        reading: Sequence[Mapping[str, Any]],
        results: Sequence[Mapping[str, Any]],
        members: Mapping[str, Sequence[str]],
    ) -> dict[str, Any]:
        """Return the results as one; what was before in the order in which it is read."""
        told = [result["applied_at"] for result in results if result.get("applied_at")]
        proven = [result["proven_at"] for result in results if result.get("proven_at")]
        before = {task.get("path"): result["before"] for task, result in zip(tasks, results)}
        return {
            "changed": any(result["changed"] for result in results),
            "before": [before[task.get("path")] for task in reading],
            "division": definition.division(results, members),
            "drained": [one for result in results for one in result.get("drained", [])],
            "findings": [
                one for result in results for one in result["findings"] if len(results) == 1 or one["severity"] != "ok"
            ],
            "applied_at": max(told, default=None),
            "proven_at": max(proven, default=None),
            "diff": [one for result in results for one in result.get("diff", [])],
        }
