# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: record_info
short_description: Read the records that maintenance runs left on the host
description:
  - Returns the records of the host, oldest first, all of them or those of one run, one kind of work or one time.
  - A line that a crash left unfinished is passed over.
options:
  run_id:
    description:
      - Only the records of this run.
      - V(current) means the run that this task belongs to.
    type: str
  what:
    description: Only the records of this maintenance work, such as C(restart).
    type: str
  since:
    description: Only records of runs that ended at or after this time, in ISO 8601 and UTC, such as C(2026-11-01) or
      C(2026-11-01T04:00:00Z).
    type: str
  path:
    description: File on the host.
    type: path
    default: /var/log/worklog-maintenance/records.jsonl
attributes:
  check_mode:
    description: It only reads.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: It only reads.
    support: full
seealso:
  - module: worklog.maintenance.record
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Read the restarts of this month
  worklog.maintenance.record_info:
    what: restart
    since: "2026-11-01"
"""

RETURN = r"""
records:
  description: The records, oldest first, as M(worklog.maintenance.record) wrote them. Empty when there is no file.
  returned: success
  type: list
  elements: dict
"""

from datetime import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import record


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "run_id": {"type": "str"},
            "what": {"type": "str"},
            "since": {"type": "str"},
            "path": {"type": "path", "default": record.PATH},
        },
        supports_check_mode=True,
    )
    given = module.params
    since = given["since"]
    if since is not None:
        try:
            datetime.fromisoformat(since.replace("Z", "+00:00"))
        except ValueError:
            module.fail_json(msg=f"since: '{since}' is not a time in ISO 8601, such as 2026-11-01T04:00:00Z")
    try:
        records = [
            line
            for line in record.read(given["path"])
            if given["run_id"] in (None, line.get("run_id"))
            and given["what"] in (None, line.get("what"))
            and (since is None or str(line.get("ended", "")) >= since)
        ]
    except FileNotFoundError:
        records = []
    except OSError as error:
        module.fail_json(msg=f"cannot read the records in {given['path']}: {error.strerror}")
    module.exit_json(changed=False, records=records)


if __name__ == "__main__":
    main()
