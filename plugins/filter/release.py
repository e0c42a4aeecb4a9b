# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What playbooks of releases work out on the controller: the plan, the idle side, what a gate watches.

Ansible loads every file of filters, and compiles what it imports, in each worker that needs one of them: the functions
import what they need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleFilterError

if TYPE_CHECKING:
    from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding


def release_plan(
    looked: Mapping[str, Mapping[str, Any]],
    application: str,
    version: str,
    defined: Mapping[str, Any],
    members: Mapping[str, Sequence[str]],
    declared: Mapping[str, Any],
    balancers: Mapping[str, Mapping[str, Any]],
    backup: Sequence[Mapping[str, Any]] = (),
    locks: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the plan of a release from what the hosts, the load balancers and the backups said."""
    from ansible_collections.worklog.maintenance.plugins.module_utils.release import plan

    database = defined.get("database") or {}
    migrates = bool(database.get("expand") or database.get("contract"))
    there = plan.Topology(
        hosts=tuple(looked),
        sides={side: tuple(hosts) for side, hosts in members.items()},
        balancers={name: str(options["strategy"]) for name, options in (defined.get("balancers") or {}).items()},
        database=str(database.get("host") or next(iter(looked), "")) if migrates else "",
        contract=bool(database.get("contract")),
        data_sync=bool(defined.get("data_sync")),
        backup=str((defined.get("backup") or {}).get("host") or ""),
        gate=bool(defined.get("gate")),
    )
    held = {name: result for name, result in (locks or {}).items() if not result.get("unreachable")}  # said once
    findings = [*_of("host", looked), *_of("load balancer", balancers), *_of("load balancer", held)]
    findings += map(_finding, backup)
    try:
        return plan.make(application, version, there, plan.Declared(**declared), looked, findings)
    except ValueError as error:
        raise AnsibleFilterError(f"release_version: {error}") from error


def release_plan_text(made: Mapping[str, Any], language: str = "en") -> list[str]:
    """Return a plan as lines that a person can approve, in English or Chinese."""
    from ansible_collections.worklog.maintenance.plugins.module_utils.release import plan

    return plan.text(made, language)


def release_fill(value: Any, **words: str) -> Any:
    """Return a value with ``<word>`` replaced in all of its texts."""
    from ansible_collections.worklog.maintenance.plugins.module_utils.release import definition

    return definition.fill(value, words)


def release_idle(divisions: Mapping[str, Mapping[str, float]]) -> str:
    """Return which of two sides gets no requests on any load balancer."""
    from ansible_collections.worklog.maintenance.plugins.module_utils.release import definition

    return definition.idle(divisions)


def release_steps(given: Any, to_all: bool = True) -> list[float]:
    """Return the percentages that a new version gets one after the other; an empty list when they make no sense."""
    from ansible_collections.worklog.maintenance.plugins.module_utils.release import definition

    return definition.steps(given, to_all)


def release_watch(
    given: Mapping[str, Any],
    balancer: Mapping[str, Any],
    candidate: Sequence[str],
    baseline: Sequence[str],
    **words: str,
) -> dict[str, Any]:
    """Return the options of a gate that watches the hosts with the new version."""
    from ansible_collections.worklog.maintenance.plugins.module_utils.release import definition

    try:
        return definition.gate(given, balancer, candidate, baseline, words)
    except definition.DefinitionError as error:
        raise AnsibleFilterError(str(error)) from error


def release_report(records: Sequence[Mapping[str, Any]], title: str, application: str = "", html: bool = False) -> str:
    """Return the report of releases and rollbacks that records tell of, as text or as a page."""
    from ansible_collections.worklog.maintenance.plugins.module_utils.release import report

    found = report.runs(records, application)
    return report.page(found, title) if html else report.text(found, title)


def _of(kind: str, results: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return the findings of results by host; one that has failed is a finding itself."""
    from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

    found = []
    for name, result in results.items():
        if result.get("unreachable") or result.get("failed") or not result:
            words = str(result.get("msg") or "it was not asked")
            message = (
                f"the {kind} {name} {'cannot be reached' if result.get('unreachable') else 'does not answer'}: {words}"
            )
            found.append(Finding("release.reach", name, "critical", message, advice="see to it before the release"))
        found += [_finding(one) for one in result.get("findings", ()) if one["severity"] != "ok"]
    return found


def _finding(value: Mapping[str, Any]) -> Finding:
    from ansible_collections.worklog.maintenance.plugins.module_utils.finding import from_dict

    return from_dict({name: item for name, item in value.items() if name != "host"})


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "release_fill": release_fill,
            "release_idle": release_idle,
            "release_plan": release_plan,
            "release_plan_text": release_plan_text,
            "release_report": release_report,
            "release_steps": release_steps,
            "release_watch": release_watch,
        }
