# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_schedule
short_description: Let the host make its backups by itself
description:
  - Makes a service of systemd, C(worklog-backup-SOURCE-KIND), for every source and kind of the configuration of
    C(worklog-backup), a timer for every kind that has a calendar, and a path unit for what is watched, and starts
    timers and path units.
  - Removes those of its own units that the configuration does not need any more. Backups are never touched, and a
    backup that is being made goes on.
  - Units that somebody else has made are never touched, even if their name is one of these.
version_added: 1.1.0
options:
  config:
    description: The content of the configuration, as the filter P(worklog.maintenance.backup_config#filter) makes it.
    type: dict
    required: true
attributes:
  check_mode:
    description: Tells what would be written, removed, started and stopped.
    support: full
  diff_mode:
    description: Shows the units.
    support: full
  idempotent:
    description: Nothing is done when all units are as they should be and wait for their time.
    support: full
seealso:
  - module: worklog.maintenance.backup_program
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Let the host make its backups by itself
  worklog.maintenance.backup_schedule:
    config: "{{ backup_sources | worklog.maintenance.backup_config }}"
"""

RETURN = r"""
units:
  description: All units that are wanted.
  returned: success
  type: list
  elements: str
  sample: [worklog-backup-database-full.service, worklog-backup-database-full.timer]
written:
  description: The units that were written.
  returned: success
  type: list
  elements: str
  sample: [worklog-backup-database-full.timer]
removed:
  description: The units that were removed.
  returned: success
  type: list
  elements: str
  sample: []
started:
  description: The timers and path units that were enabled and started.
  returned: success
  type: list
  elements: str
  sample: [worklog-backup-database-full.timer]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command, files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import schedule
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config as configuration

_TIMEOUT = 60.0


def _present() -> dict[str, str]:
    names = sorted(name for name in os.listdir(schedule.DIRECTORY) if schedule.NAME.fullmatch(name))
    paths = {name: os.path.join(schedule.DIRECTORY, name) for name in names}
    return {name: files.read(path).decode("utf-8", "replace") for name, path in paths.items() if os.path.isfile(path)}


def _systemctl(*arguments: str) -> None:
    done = command.run(["systemctl", *arguments], timeout=_TIMEOUT)
    if not done.ok:
        raise command.CommandError(done.describe(), list(done.argv))


def _waiting(names: list[str]) -> set[str]:
    """Return which of these units are enabled and active."""
    if not names:
        return set()
    found = command.run(
        ["systemctl", "show", "--property=Id,ActiveState,UnitFileState", "--", *names], timeout=_TIMEOUT
    )
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in found.stdout.split("\n\n")]
    good = ("active", "enabled")
    return {block["Id"] for block in blocks if (block.get("ActiveState"), block.get("UnitFileState")) == good}


def _look_at_calendars(config: configuration.Config) -> None:
    for source in config.sources.values():
        for kind, calendar in source.calendars.items():
            found = command.run(["systemd-analyze", "calendar", "--", calendar], timeout=_TIMEOUT)
            if not found.ok:
                raise configuration.ConfigError(
                    f"source '{source.name}': schedule of {kind} is '{calendar}', which systemd does not understand: "
                    f"{found.stderr.strip()}"
                )


def _apply(plan: schedule.Plan, start: list[str]) -> None:
    # Stopped before they go; a service that runs is left to end.
    stop = [name for name in plan.remove if not name.endswith(".service")]
    if stop:
        _systemctl("disable", "--now", *stop)
    for name in plan.remove:
        os.unlink(os.path.join(schedule.DIRECTORY, name))
    for name, content in plan.write.items():
        files.replace(os.path.join(schedule.DIRECTORY, name), content.encode())
    if not plan.empty:
        _systemctl("daemon-reload")
    if start:
        _systemctl("enable", *start)
        _systemctl("restart", *start)


def main() -> None:
    module = AnsibleModule(
        argument_spec={"config": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    try:
        config = configuration.parse(module.params["config"], "config")
        _look_at_calendars(config)
        wanted = schedule.units(config)
        present = _present()
        plan = schedule.plan(present, wanted)
        awake = [name for name in wanted if not name.endswith(".service")]
        waiting = _waiting(awake)
        start = [name for name in awake if name in plan.write or name not in waiting]
        if not module.check_mode:
            _apply(plan, start)
            asleep = sorted(set(start) - _waiting(start))
            if asleep:
                module.fail_json(msg=f"{', '.join(asleep)} does not wait for its time; look at: systemctl status")
    except (configuration.ConfigError, schedule.ForeignUnit, command.CommandError, files.FileError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot change {error.filename}: {error.strerror}")
    changes = [*plan.write, *plan.remove]
    module.exit_json(
        changed=bool(changes or start),
        units=sorted(wanted),
        written=sorted(plan.write),
        removed=plan.remove,
        started=start,
        diff=[
            {
                "before": present.get(name, ""),
                "after": plan.write.get(name, ""),
                "before_header": os.path.join(schedule.DIRECTORY, name),
                "after_header": os.path.join(schedule.DIRECTORY, name),
            }
            for name in changes
        ],
    )


if __name__ == "__main__":
    main()
