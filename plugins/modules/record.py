# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: record
short_description: Leave the record of a maintenance run on the host
description:
  - Appends one JSON object as one line to a file on the managed host, under a lock and synced to disk.
    Reports about availability, roll-backs and drills are views of these records.
  - What the controller knows is filled in by the action plugin of the same name, the run's identifier, who started it
    and on which controller.
options:
  what:
    description: Name of the maintenance work, such as C(restart) or C(backup_verify).
    type: str
    required: true
  result:
    description:
      - How it ended on this host.
      - V(refused) means that a precondition was not met and nothing was touched.
    type: str
    choices: [ok, failed, refused]
    required: true
  subject:
    description: What was worked on, such as a unit or a server name.
    type: str
  findings:
    description:
      - Findings of the run, as the modules of this collection return them.
      - A finding has C(check), C(subject), C(severity) and C(message), and may have C(observed), C(limit), C(unit) and
        C(advice).
    type: list
    elements: dict
    default: []
  downtime_seconds:
    description: Measured time without service, in seconds.
    type: float
  recovery_seconds:
    description: Measured time until the service or the data was back, in seconds.
    type: float
  details:
    description: Whatever else belongs to this kind of run. It must hold no secret.
    type: dict
    default: {}
  path:
    description: File on the host. It is created with mode 0640, its directory with mode 0750.
    type: path
    default: /var/log/worklog-maintenance/records.jsonl
  run_id:
    description: Identifier shared by all records of one run. By default the job of AWX or the run of the controller.
    type: str
  started_at:
    description: When the run began, in ISO 8601 and UTC. By default when the controller's run began.
    type: str
  by:
    description: Who started it. By default the user of AWX or the account on the controller.
    type: str
  controller:
    description: Host name of the controller. Found out by default.
    type: str
  host:
    description: Name of the managed host. By default its name in the inventory.
    type: str
attributes:
  check_mode:
    description: Returns the record and writes nothing.
    support: full
  diff_mode:
    description: Shows the record as the added line.
    support: full
  idempotent:
    description: Every run leaves a record of its own, that is its purpose.
    support: none
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Leave a record of the restart
  worklog.maintenance.record:
    what: restart
    subject: worklog-api.service
    result: "{{ 'failed' if service_restart_result is failed else 'ok' }}"
    downtime_seconds: "{{ service_restart_result.downtime_seconds | default(omit) }}"
    findings: "{{ service_restart_result.findings | default([]) }}"
"""

RETURN = r"""
record:
  description: The record as written.
  returned: always
  type: dict
  sample:
    schema: 1
    run_id: control1-18213-5512201
    what: restart
    subject: worklog-api.service
    host: app1
    by: operator
    controller: control1
    started: "2026-11-21T10:45:01Z"
    ended: "2026-11-21T10:45:09Z"
    result: ok
    severity: ok
    downtime_seconds: 0.42
    recovery_seconds:
    findings: []
    details: {}
path:
  description: The file that holds it.
  returned: always
  type: str
  sample: /var/log/worklog-maintenance/records.jsonl
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import finding, record


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "what": {"type": "str", "required": True},
            "result": {"type": "str", "choices": ["ok", "failed", "refused"], "required": True},
            "subject": {"type": "str"},
            "findings": {"type": "list", "elements": "dict", "default": []},
            "downtime_seconds": {"type": "float"},
            "recovery_seconds": {"type": "float"},
            "details": {"type": "dict", "default": {}},
            "path": {"type": "path", "default": record.PATH},
            "run_id": {"type": "str"},
            "started_at": {"type": "str"},
            "by": {"type": "str"},
            "controller": {"type": "str"},
            "host": {"type": "str"},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        findings = [finding.from_dict(value) for value in given["findings"]]
    except ValueError as error:
        module.fail_json(msg=f"findings: {error}")
    path, given["started"] = given.pop("path"), given.pop("started_at")
    line = record.line(**{**given, "findings": findings})
    if not module.check_mode:
        try:
            record.append(path, line)
        except record.RecordError as error:
            module.fail_json(msg=str(error), record=line)
    after = json.dumps(line, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    module.exit_json(
        changed=True,
        record=line,
        path=path,
        diff={"before": "", "after": after, "after_header": path},
    )


if __name__ == "__main__":
    main()
