# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Divides the traffic of an application on a load balancer, by traffic_split."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.worklog.maintenance.plugins.module_utils.release import definition
from ansible_collections.worklog.maintenance.plugins.plugin_utils.run import run_id


class ActionModule(ActionBase):
    """The whole of M(worklog.maintenance.release_split)."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Divide, read or give back, and return what traffic_split did, and the percentages of the sides."""
        variables = task_vars or {}
        super().run(tmp, variables)
        _unused, given = self.validate_argument_spec(
            argument_spec={
                "balancer": {"type": "dict", "required": True},
                "members": {"type": "dict", "required": True},
                "shares": {"type": "dict"},
                "restore": {"type": "dict"},
                "drain": {"type": "list", "elements": "str", "default": []},
                "drain_timeout": {"type": "float", "default": 60},
                "drain_timeout_action": {"type": "str", "choices": ["fail", "continue"], "default": "fail"},
                "note": {"type": "dict"},
            },
            mutually_exclusive=[("shares", "restore")],
        )
        members: dict[str, list[str]] = given["members"]
        shares = None if given["shares"] is None else {side: float(value) for side, value in given["shares"].items()}
        try:
            options = definition.split(given["balancer"], members, shares)
        except (definition.DefinitionError, KeyError) as error:
            raise AnsibleActionFail(f"the definition of the load balancer does not fit: {error}") from error
        if given["restore"] is not None:
            options["restore"] = given["restore"]
        draining = {name for side in given["drain"] for name in [side, *members.get(side, [])]}
        sides = [side["name"] for side in options["sides"] if side["name"] in draining]
        if sides:
            options |= {"drain": sides, **{name: given[name] for name in ("drain_timeout", "drain_timeout_action")}}
        if given["note"] is not None:
            noted = {name: value for name, value in given["note"].items() if value != ""}
            options["note"] = {"id": run_id(variables), **noted}
        result: dict[str, Any] = self._execute_module(
            module_name="worklog.maintenance.traffic_split", module_args=options, task_vars=variables
        )
        if "after" in result:
            result["division"] = definition.division(result["after"]["division"], members)
        return result
