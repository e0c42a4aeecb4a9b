# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_restore
short_description: Restore a backup to a point in time, into a scratch place or in place
description:
  - Works out which of the backups of a source it takes, restores them on a copy, replays the logs to where they shall
    stop, and compares what is there with what was recorded when the backup was made. A backup itself is never touched,
    and each of its files is held against its recorded hash before anything of it is used.
  - Into a scratch place it needs no confirmation. A database gets a server of its own there, which only this host
    reaches through a socket, and which ends with the module, unless O(serve) says otherwise.
  - In place the data are made ready beside those in production, then O(service) is stopped, the two are exchanged, and
    it is started and asked. When that fails the old data are put back. What was there before is kept.
  - Each step in place is written down before it begins. Run it again after a crash, and it says what it found and goes
    on from there.
version_added: 1.1.0
options:
  source:
    description: Name of the source, which is the name of its directory in O(root).
    type: str
    required: true
  root:
    description: Directory of all backups.
    type: path
    default: /var/backups/worklog
  state:
    description:
      - V(planned) tells which backups it takes and where it would stop, and does nothing.
      - V(built) makes the data ready beside those in production; the next V(restored) goes on from there.
      - V(put_back) has the data in production that were there before the last restore in place.
    type: str
    choices: [planned, built, restored, put_back]
    default: restored
  target:
    description: Where to.
    type: str
    choices: [scratch, in_place]
    default: scratch
  time:
    description:
      - Restores all that was committed before this moment, as V(2026-01-31T02:03:04Z).
      - Without O(time), O(gtid), O(before_event) and O(backup), the newest state is restored.
      - Of a source without logs the newest backup not after it is taken.
    type: str
  gtid:
    description: Restores all up to and with this transaction of MariaDB, as V(0-1-4711).
    type: str
  before_event:
    description:
      - Restores all that was committed before the last statement that this regular expression finds, such as
        V(DROP TABLE .*records). Upper and lower case and quotes of names do not matter.
      - With O(time), the last one before that moment.
    type: str
  backup:
    description: Restores the state of this backup, by its id, without logs.
    type: str
  unverified:
    description: Whether backups count that were never verified, or inconclusively. Damaged ones never do.
    type: bool
    default: false
  scratch:
    description:
      - Directory for scratch data, which is made when it is missing. It must be on a file system with room for all
        data, and not inside the data of a running server.
    type: path
    default: /var/lib/worklog-maintenance/scratch
  keep:
    description: Whether scratch data stay. Without it, it is only shown that they can be restored.
    type: bool
    default: true
  serve:
    description: Leaves a server on the scratch data for so long, as V(4h). The data go with it.
    type: str
  directory:
    description:
      - The data directory to replace. Needed with O(target=in_place). It must not be a mount point.
      - Of a source of secrets or logs, the single files below it are replaced, and all others stay.
    type: path
  service:
    description: The unit of systemd that has O(directory) open.
    type: str
    default: ''
  applications:
    description: Further units on this host that are stopped before O(service), and started after it if they ran.
    type: list
    elements: str
    default: []
  confirm:
    description:
      - Names what is replaced and where, as V(source@host). Needed with O(target=in_place), also in check mode.
      - The host is what C(hostname) says there, whatever the inventory calls it.
    type: str
    default: ''
  client:
    description:
      - Configuration file with which the service is asked after the exchange. By default it is asked as the account
        that the module runs as.
    type: path
  user:
    description: Account that the scratch server runs as. By default that of the packaged server.
    type: str
  memory:
    description: Memory for preparing and for the scratch server of MariaDB.
    type: str
    default: 128M
  identity:
    description: File with the age identity that decrypts an encrypted backup.
    type: path
  server:
    description:
      - Command of the scratch server of MongoDB, in which C(<directory>) and C(<port>) stand for where its data are and
        where it listens on 127.0.0.1. By default C(mongod).
    type: list
    elements: str
  timeout:
    description: Limit for each program, in seconds or as V(90m), V(12h).
    type: str
    default: 12h
attributes:
  check_mode:
    description: Tells which backups it takes and where it would stop, as with O(state=planned).
    support: full
  diff_mode:
    description: There is nothing to show as a difference.
    support: none
  idempotent:
    description: A restore restores, every time. With O(state=planned), or without O(keep), nothing is changed.
    support: none
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Have the table that was dropped by accident in a server of its own for four hours
  worklog.maintenance.backup_restore:
    source: worklog-db
    before_event: DROP TABLE .*records
    serve: 4h
  register: restored

- name: Show how to ask it
  ansible.builtin.debug:
    var: restored.ask

- name: Replace the data of the database by those of ten o'clock
  worklog.maintenance.backup_restore:
    source: worklog-db
    target: in_place
    time: "2026-01-31T10:00:00Z"
    directory: /var/lib/mysql
    service: mariadb.service
    confirm: worklog-db@db1
"""

RETURN = r"""
plan:
  description: Which backups it takes, in one sentence.
  returned: when it could be worked out
  type: str
  sample: full of 2026-01-25T02:10:00Z + incremental of 2026-01-31T02:05:00Z + 8 log backups to 2026-01-31T10:00:03Z
backups:
  description: The ids of these backups, in the order in which they are used.
  returned: when it could be worked out
  type: list
  elements: str
event:
  description: The event before which it stops, with its transaction, place and time.
  returned: with O(before_event)
  type: str
reached:
  description: Where the replay stopped.
  returned: when something was restored
  type: str
counts:
  description: Rows, documents or keys by database and table that the restored data have.
  returned: when something was restored
  type: dict
compared:
  description: What was held against what was recorded, in words.
  returned: when something was restored
  type: list
  elements: str
unchecked:
  description: What could not be compared, and why.
  returned: when something was restored
  type: list
  elements: str
seconds:
  description: How long each part took.
  returned: when something was restored
  type: dict
  sample: {decompress: 12.1, prepare: 3.4, start: 1.2, replay: 8.0, examine: 2.2, total: 26.9}
path:
  description: Where the data are, empty when they were not kept.
  returned: when something was restored
  type: str
ask:
  description: How to ask the server that was left on the data.
  returned: with O(serve)
  type: str
  sample: mariadb --defaults-file=/var/lib/worklog-maintenance/scratch/worklog-db-1/client.cnf
aside:
  description: Where the data from before are kept.
  returned: with O(target=in_place)
  type: str
  sample: /var/lib/mysql.before-20260131T101112Z
downtime_seconds:
  description: Time from the first service stopped to the last one started.
  returned: when production was touched
  type: float
recovery_seconds:
  description: Time for all of it.
  returned: always
  type: float
refused:
  description: Nothing in production was touched.
  returned: always
  type: bool
found:
  description: What an interrupted restore has left, and what was done, a line each.
  returned: always
  type: list
  elements: str
findings:
  description: What was compared, and what is wrong.
  returned: always
  type: list
  elements: dict
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command, units
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import inplace, job, scratch
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import StoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

ARGUMENTS: dict[str, Any] = {
    "source": {"type": "str", "required": True},
    "root": {"type": "path", "default": "/var/backups/worklog"},
    "state": {"type": "str", "choices": ["planned", "built", "restored", "put_back"], "default": "restored"},
    "target": {"type": "str", "choices": ["scratch", "in_place"], "default": "scratch"},
    "time": {"type": "str"},
    "gtid": {"type": "str"},
    "before_event": {"type": "str"},
    "backup": {"type": "str"},
    "unverified": {"type": "bool", "default": False},
    "scratch": {"type": "path", "default": scratch.ROOT},
    "keep": {"type": "bool", "default": True},
    "serve": {"type": "str"},
    "directory": {"type": "path"},
    "service": {"type": "str", "default": ""},
    "applications": {"type": "list", "elements": "str", "default": []},
    "confirm": {"type": "str", "default": ""},
    "client": {"type": "path"},
    "user": {"type": "str"},
    "memory": {"type": "str", "default": "128M"},
    "identity": {"type": "path"},
    "server": {"type": "list", "elements": "str"},
    "timeout": {"type": "str", "default": "12h"},
}


def main() -> None:
    """Plan, restore, compare."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        mutually_exclusive=[["gtid", "before_event", "backup"], ["gtid", "time"], ["backup", "time"]],
        required_if=[["target", "in_place", ["directory"]]],
        supports_check_mode=True,
    )
    given, began = module.params, time.monotonic()
    values: dict[str, Any] = {"changed": False, "refused": True, "found": [], "findings": []}
    try:
        request = job.Request(
            given["root"],
            given["source"],
            time=job.parse_time(given["time"]),
            gtid=given["gtid"],
            event=given["before_event"],
            backup=given["backup"],
            unverified=given["unverified"],
            scratch=given["scratch"],
            options={key: given[key] for key in ("user", "memory", "identity", "server", "directory")},
            timeout=units.duration(given["timeout"]),
        )
        if given["target"] == "in_place" and given["state"] != "planned":
            inplace.confirmed(given["confirm"], request.source)
        if module.check_mode or given["state"] == "planned":
            _plan(request, values)
        elif given["target"] == "in_place":
            _in_place(request, given, values)
        else:
            _scratch(request, given, values)
    except (RestoreError, StoreError, command.CommandError, ValueError) as error:
        values["findings"].append(Finding("restore", given["source"], "critical", str(error)).as_dict())
        module.fail_json(msg=str(error), recovery_seconds=round(time.monotonic() - began, 3), **values)
    module.exit_json(recovery_seconds=round(time.monotonic() - began, 3), **values)


def _plan(request: job.Request, values: dict[str, Any]) -> None:
    with scratch.directory(request.scratch, request.source) as place:
        plan, _restorer, event = job.decide(request, job.work_in(place, request, values["found"].append))
    backups = [kept.id for kept in (*plan.base.chain, *plan.logs)]
    values.update(plan=plan.sentence(), event=event, backups=backups)


def _scratch(request: job.Request, given: dict[str, Any], values: dict[str, Any]) -> None:
    serve = units.duration(given["serve"]) if given["serve"] else 0.0
    result, how = job.to_scratch(request, values["found"].append, keep=given["keep"], serve=serve)
    values.update(result.as_dict(), ask=how, changed=bool(result.path))
    values["findings"] += [finding.as_dict() for finding in job.findings_of(result)]
    if not result.good:
        reasons = "; ".join(finding.message for finding in result.examined.findings)
        raise RestoreError(f"what was restored of {request.source} is not what was recorded: {reasons}")


def _in_place(request: job.Request, given: dict[str, Any], values: dict[str, Any]) -> None:
    production = inplace.Production(given["directory"], given["service"], tuple(given["applications"]), given["client"])
    with inplace.held(request.source) as journal:
        restore = inplace.InPlace(request, production, journal, command.run, values["found"].append)
        try:
            if given["state"] == "put_back":
                restore.put_back()
            else:
                restore.look()
                restore.restore(only_build=given["state"] == "built")
            values["changed"] = True
        finally:
            kept = ("plan", "backups", "event", "reached", "counts", "compared", "unchecked", "seconds", "aside")
            values.update({key: journal.values[key] for key in kept if key in journal.values})
            values["findings"] += [finding.as_dict() for finding in restore.findings]
            values["refused"] = journal.stage in ("", inplace.BUILDING, inplace.BUILT)
            if restore.downtime is not None:
                values["downtime_seconds"] = restore.downtime


if __name__ == "__main__":
    main()
