# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds variables against a role's argument specification, for all hosts of a play in one task."""

from __future__ import annotations

import difflib
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

ROLES = Path(__file__).resolve().parents[2] / "roles"
PLAYBOOKS = ROLES.parent / "playbooks"
COLLECTION = "worklog.maintenance."
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


class ActionModule(ActionBase):
    """The whole of M(worklog.maintenance.validate_input)."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Validate and return the hosts, or fail with everything that is wrong."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        _unused, arguments = self.validate_argument_spec(
            argument_spec={
                "role": {"type": "str"},
                "playbook": {"type": "str"},
                "target": {"type": "str"},
                "options": {"type": "dict", "default": {}},
            }
        )
        specification = {**(_role_options(arguments["role"]) if arguments["role"] else {}), **arguments["options"]}
        owner = arguments["role"] or arguments["playbook"]
        prefix = f"{owner}_" if owner else None
        problems: list[str] = []
        hosts: dict[str, Mapping[str, Any]] = {variables["inventory_hostname"]: variables}
        if arguments["target"] is not None:
            # The variables of a play are not among those that hosts show to each other.
            hosts = {
                name: ChainMap(variables["hostvars"][name], variables)
                for name in self._match(arguments["target"], variables)
            }
            if not hosts:
                known = sorted({*variables["groups"], *variables["groups"]["all"]} - {"all", "ungrouped"})
                problems.append(
                    f"target: no host of the inventory matches '{arguments['target']}'"
                    + _suggestion(arguments["target"], known)
                    + ("" if known else "; the inventory is empty, name it with -i")
                )
        for name, values in hosts.items():
            problems.extend(f"{name}: {problem}" for problem in self._problems(specification, prefix, values))
        known = [*specification, *(["target"] if arguments["target"] is not None else [])]
        problems.extend(self._misspelt(known, prefix or "\n"))
        if problems:
            result.update(failed=True, msg="; ".join(_merge(problems)), problems=problems)
        else:
            result.update(changed=False, hosts=list(hosts))
        return result

    def _match(self, pattern: str, variables: Mapping[str, Any]) -> list[str]:
        lookup = self._shared_loader_obj.lookup_loader.get(
            "ansible.builtin.inventory_hostnames", loader=self._loader, templar=self._templar
        )
        names: list[str] = lookup.run([pattern], variables=variables)
        return names

    def _misspelt(self, known: list[str], prefix: str) -> Iterator[str]:
        """Yield what was typed with -e, does not begin with the prefix, and is nearly a variable or looks like one."""
        others = [name for name in known if not name.startswith(prefix)]
        for name in set(load_extra_vars(self._loader)).difference(known):
            if name.startswith(prefix) or _is_of_a_role(name):
                continue
            if _suggestion(name, others, 0.85):
                yield f"-e: there is no variable '{name}'{_suggestion(name, others)}"
            elif any(name.startswith(f"{playbook}_") and not _is_in(playbook, name) for playbook in _running()):
                yield f"-e: there is no variable '{name}'{_suggestion(name, known)}"

    def _problems(
        self, specification: Mapping[str, Any], prefix: str | None, variables: Mapping[str, Any]
    ) -> Iterator[str]:
        if prefix:
            # Those of a role or playbook whose name begins with that of this one are its own, unless it is what runs.
            names = {path.stem for path in (*ROLES.iterdir(), *PLAYBOOKS.glob("*.yml"))}.difference(_running())
            others = tuple(f"{name}_" for name in names if name.startswith(prefix))
            for name in sorted(variables):
                if name.startswith(others):
                    continue
                if name.startswith(prefix) and name not in specification and not name.endswith("_result"):
                    yield f"there is no variable '{name}'{_suggestion(name, list(specification))}"
        values = {}
        for name in specification:
            if name in variables:
                try:
                    values[name] = self._templar.template(variables[name])
                except AnsibleError as error:
                    yield f"the value of '{name}' cannot be worked out: {error}"
                    return
        for message in ArgumentSpecValidator(specification).validate(values).error_messages:
            yield _plain(message, values)


def _plain(message: str, values: Mapping[str, Any]) -> str:
    """Return the message of the validator; a value of the wrong kind is shown instead of classes of Python."""
    found = re.match(r"argument '(\w+)' is of type .* unable to convert to (\w+): ", message)
    if found and found[1] in values and found[2] in KINDS:
        return f"{found[1]} is '{values[found[1]]}'; give {KINDS[found[2]]}"
    return message


def _role_options(role: str) -> dict[str, Any]:
    try:
        text = (ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    except OSError as error:
        raise AnsibleActionFail(f"role: there is no role '{role}' with an argument specification") from error
    options: dict[str, Any] = yaml.safe_load(text)["argument_specs"]["main"].get("options", {})
    return options


def _running() -> list[str]:
    """Return the names of this collection's playbooks that ansible-playbook was called with."""
    called = [str(one) for one in context.CLIARGS.get("args") or ()]
    names = [Path(one).stem for one in called if Path(one).resolve().parent == PLAYBOOKS]
    names += [one.removeprefix(COLLECTION) for one in called if one.startswith(COLLECTION)]
    return [name for name in names if (PLAYBOOKS / f"{name}.yml").exists()]


def _is_in(playbook: str, name: str) -> bool:
    text = (PLAYBOOKS / f"{playbook}.yml").read_text(encoding="utf-8")
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def _is_of_a_role(name: str) -> bool:
    texts = (path.read_text(encoding="utf-8") for path in ROLES.glob("*/meta/argument_specs.yml"))
    return any(re.search(rf"^ +{re.escape(name)}:", text, re.MULTILINE) for text in texts)


def _suggestion(name: str, known: list[str], cutoff: float = 0.6) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean '{near[0]}'?" if near else ""


def _merge(problems: list[str]) -> list[str]:
    """Return each problem once, with the hosts that have it in front."""
    hosts: dict[str, list[str]] = {}
    for line in problems:
        host, _unused, problem = line.partition(": ")
        hosts.setdefault(problem, []).append(host)
    return [f"{', '.join(names)}: {problem}" for problem, names in hosts.items()]
