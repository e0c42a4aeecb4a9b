# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_apply
version_added: 1.1.0
short_description: Change packages to exact versions, prove it, and take it back
description:
  - Changes the packages of a host with apt to exact versions in steps that survive a crash, and takes it back to the
    versions that were there before.
  - Before anything is touched the old packages are kept, the new ones loaded, and what is installed is written down.
  - The exit code of apt-get is not taken for proof; the versions are read back from dpkg.
  - A run that was cut off is finished by the next one, which first has dpkg configure what is unpacked.
options:
  state:
    description:
      - V(prepared) keeps the old packages, loads the new ones and writes down what is there.
      - V(applied) makes the change that was prepared; with O(prepare) it is prepared by the same call.
      - V(finished) says that all is well with it; with O(compare) it looks whether that is so. Until then it is open,
        and another run keeps its hands off.
      - V(rolled_back) puts back the versions that were there before the last change, from the packages that were kept.
        Where no change was recorded there is nothing to do.
    type: str
    choices: [prepared, applied, finished, rolled_back]
    required: true
  changes:
    description:
      - The versions that are wanted, as M(worklog.maintenance.package_state) returns them in C(changes), or with
        C(name), C(architecture) and C(to) of your own. What they need comes with them.
    type: list
    elements: dict
    default: []
  prepare:
    description: With O(state=applied), prepare the change first, for who has nothing to do between.
    type: bool
    default: false
  finish:
    description:
      - With O(state=applied), compare the services with how they were and finish the change in the same call, when no
        service has to start again and the host has not to either. Else it stays open, as without this option.
    type: bool
    default: false
  record:
    description:
      - With O(finish), leave this record as M(worklog.maintenance.record) does, when the change is finished in the same
        call. Its result is V(ok); what happened, the configuration files and the findings are added.
      - RV(record) tells that it was left. One that cannot be written does not fail a change that was made.
    type: dict
    suboptions:
      what:
        description: As O(worklog.maintenance.record#module:what).
        type: str
        required: true
      subject:
        description: As O(worklog.maintenance.record#module:subject).
        type: str
      findings:
        description: As O(worklog.maintenance.record#module:findings), those that were known before.
        type: list
        elements: dict
        default: []
      details:
        description: As O(worklog.maintenance.record#module:details).
        type: dict
        default: {}
      run_id:
        description: Filled in by itself.
        type: str
      started_at:
        description: Filled in by itself.
        type: str
      by:
        description: Filled in by itself.
        type: str
      controller:
        description: Filled in by itself.
        type: str
      host:
        description: Filled in by itself.
        type: str
  compare:
    description:
      - With O(state=finished), compare the services with how they were when the change was prepared.
      - When what was running is not, or another has failed since, the change is not finished, and the module fails.
    type: bool
    default: false
  settle:
    description: Seconds that services may take to come up, with O(compare) and O(finish).
    type: float
    default: 60
  watch:
    description: Seconds that they have to stay up after that, without a restart by systemd.
    type: float
    default: 0
  hold:
    description:
      - Shell patterns of installed packages to be held for good, when it is prepared. They are left out of O(changes).
    type: list
    elements: str
    default: []
  anyway:
    description: Begin also when no package changes, as for a reboot, when it is prepared.
    type: bool
    default: false
  without_rollback:
    description: Whether to go on when an old package can be had nowhere, and so could not be put back.
    type: bool
    default: false
  one_way:
    description:
      - Shell patterns of packages that may be taken back although that is not safe, such as a database server that may
        have changed its data on disk.
    type: list
    elements: str
    default: []
  unfinished:
    description:
      - With O(state=rolled_back), take back only a change that is not finished, and fail when there is none. For who
        does not know whether the change was begun.
    type: bool
    default: false
  take_over:
    description:
      - Whether an open change of another run is taken over at once. By default when that run was started from the same
        controller and has ended, or when it was not heard of for O(lease) seconds.
    type: bool
    default: false
  lease:
    description: Seconds after which a run that is not heard of is taken for dead.
    type: float
    default: 900
  timeout:
    description: Seconds for apt-get to load or to change the packages.
    type: float
    default: 3600
  lock_timeout:
    description: Seconds to wait for another package manager.
    type: float
    default: 60
  keep:
    description: How many changes stay on the host with their old packages.
    type: int
    default: 3
  owner:
    description: The run, by default the job of AWX or the controller's process.
    type: str
  ended_owner:
    description: A run that is known to have ended. Filled in by itself.
    type: str
attributes:
  check_mode:
    description: Says what would change; nothing is held, loaded or written.
    support: full
  diff_mode:
    description: Returns the versions before and after.
    support: full
  idempotent:
    description: >-
      A second run in the same O(state) changes nothing; V(prepared) prepares anew, unless the change was begun.
    support: full
notes:
  - Needs root. This module is for apt; with dnf a host is only read.
  - A configuration file that was changed on the host is kept, and the new one is put beside it; a finding says so.
  - Nothing is ever removed, except with V(rolled_back) what the change had added.
seealso:
  - module: worklog.maintenance.package_state
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: See what there is
  worklog.maintenance.package_state:
    refresh: true
    include_installed: false
  register: packages

- name: Make it ready, while the host still serves
  worklog.maintenance.package_apply:
    state: prepared
    changes: "{{ packages.changes }}"

- name: Change the packages
  worklog.maintenance.package_apply:
    state: applied

- name: Do both in one call, and finish it when nothing has to start again
  worklog.maintenance.package_apply:
    state: applied
    prepare: true
    finish: true
    watch: 20
    changes: "{{ packages.changes }}"

- name: Finish it, when the services are as well as before
  worklog.maintenance.package_apply:
    state: finished
    compare: true
    watch: 20

- name: Take it back
  worklog.maintenance.package_apply:
    state: rolled_back
"""

RETURN = r"""
message:
  description: What was done, in one sentence.
  returned: success
  type: str
transaction:
  description: The change with name, stage, owner, created, updated, changes, message and directory; null without one.
  returned: success
  type: dict
restart:
  description: The services that have to start again, each with the reason.
  returned: success
  type: dict
reboot:
  description: Why the host has to start again; empty when it has not.
  returned: success
  type: list
  elements: str
conffiles:
  description: >-
    Configuration files that became the new ones (C(changed)), and those that were kept since they had been changed on
    the host (C(kept)).
  returned: success
  type: dict
record:
  description: The record that was left, as RV(worklog.maintenance.record#module:record).
  returned: with O(record), when the change is finished
  type: dict
findings:
  description: >-
    What an operator should know, each with check, subject, severity, observed, limit, unit, message and advice.
  returned: always
  type: list
  elements: dict
refused:
  description: Whether nothing was touched.
  returned: failure
  type: bool
locked_by:
  description: The run that has an open change.
  returned: when another run may still work on the host
  type: str
"""

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command, finding, record
from ansible_collections.worklog.maintenance.plugins.module_utils.packages import transaction, work
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.apt import Apt
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import Change, PackageError


def request_of(given: dict[str, Any], check_mode: bool) -> work.Request:
    """Return what the options ask for.

    :raises PackageError: when a change does not say what is wanted.
    """
    try:
        changes = [
            Change(
                one["name"], one["architecture"], one.get("from") or "", str(one["to"]), cves=tuple(one.get("cves", ()))
            )
            for one in given["changes"]
        ]
    except KeyError as error:
        raise PackageError(f"changes: each needs name, architecture and to; {error} is missing") from error
    same = (
        *("hold", "anyway", "without_rollback", "one_way", "lease", "timeout", "lock_timeout", "keep"),
        *("unfinished", "finish", "compare", "settle", "watch"),
    )
    last = transaction.last()
    ended = last.owner if last and given["take_over"] else given["ended_owner"] or ""
    return work.Request(
        changes=changes,
        owner=given["owner"] or "",
        dead=ended,
        check_mode=check_mode,
        **{name: given[name] for name in same},
    )


def leave_record(given: dict[str, Any], known: list[finding.Finding], outcome: work.Outcome) -> dict[str, Any]:
    """Leave a record of a change that was made and is finished, and return it.

    :raises RecordError: when it cannot be written.
    """
    given["details"].update(message=outcome.message, conffiles=outcome.conffiles)
    given["started"] = given.pop("started_at")
    findings = known + [one for one in outcome.findings if one not in known]
    line = record.line(**{**given, "result": "ok", "findings": findings})
    record.append(record.PATH, line)
    return line


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["prepared", "applied", "finished", "rolled_back"],
                "required": True,
            },
            "changes": {"type": "list", "elements": "dict", "default": []},
            "prepare": {"type": "bool", "default": False},
            "finish": {"type": "bool", "default": False},
            "compare": {"type": "bool", "default": False},
            "settle": {"type": "float", "default": 60},
            "watch": {"type": "float", "default": 0},
            "hold": {"type": "list", "elements": "str", "default": []},
            "anyway": {"type": "bool", "default": False},
            "without_rollback": {"type": "bool", "default": False},
            "one_way": {"type": "list", "elements": "str", "default": []},
            "unfinished": {"type": "bool", "default": False},
            "take_over": {"type": "bool", "default": False},
            "lease": {"type": "float", "default": 900},
            "timeout": {"type": "float", "default": 3600},
            "lock_timeout": {"type": "float", "default": 60},
            "keep": {"type": "int", "default": 3},
            "record": {
                "type": "dict",
                "options": {
                    "what": {"type": "str", "required": True},
                    "findings": {"type": "list", "elements": "dict", "default": []},
                    "details": {"type": "dict", "default": {}},
                    **{
                        name: {"type": "str"}
                        for name in ("subject", "run_id", "started_at", "by", "controller", "host")
                    },
                },
            },
            "owner": {"type": "str"},
            "ended_owner": {"type": "str"},
        },
        supports_check_mode=True,
    )
    if not command.which("apt-get"):
        module.fail_json(msg="this host has no apt-get; packages are changed with apt only", refused=True)
    try:
        known = [finding.from_dict(one) for one in (module.params["record"] or {}).get("findings", ())]
    except ValueError as error:
        module.fail_json(msg=f"record: findings: {error}", refused=True)
    try:
        worker = work.Worker(Apt(), command.run)
        request = request_of(module.params, module.check_mode)
        verbs = {
            "prepared": worker.prepare,
            "applied": worker.change if module.params["prepare"] else worker.apply,
            "finished": worker.finish,
            "rolled_back": worker.roll_back,
        }
        outcome = verbs[module.params["state"]](request)
    except transaction.Locked as error:
        module.fail_json(msg=str(error), refused=True, locked_by=error.owner)
    except (PackageError, command.CommandError) as error:
        found = [one.as_dict() for one in getattr(error, "findings", ())]
        module.fail_json(msg=str(error), refused=getattr(error, "refused", False), findings=found)
    current = outcome.current.summary() if outcome.current else None
    result: dict[str, Any] = {"changed": outcome.changed, "message": outcome.message, "transaction": current}
    result.update(restart=outcome.restart, reboot=outcome.reboot, conffiles=outcome.conffiles)
    result["findings"] = [one.as_dict() for one in outcome.findings]
    if module.params["record"] and current and current["stage"] == "finished":
        with contextlib.suppress(record.RecordError):  # the change was made; without it in the result it is tried again
            result["record"] = leave_record(module.params["record"], known, outcome)
    for one in outcome.findings:
        if one.check == "packages.one_way":
            module.warn(one.message)
    if module._diff and outcome.changed:
        result["diff"] = work.diff(request, outcome, module.params["state"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
