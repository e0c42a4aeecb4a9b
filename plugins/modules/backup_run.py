# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_run
short_description: Make backups now, with the program that makes them by itself otherwise
description:
  - Runs C(worklog-backup run) on the host for one source after the other, with low priority. When one fails, the others
    are made all the same, and the module fails at the end.
  - The program holds the same lock as the host's own timers, verifies what it has made and leaves a record of every
    backup on the host.
  - It runs in the background of the host, and the operator sees what it does.
version_added: 1.1.0
options:
  sources:
    description: Names of the sources. By default all that are configured on the host.
    type: list
    elements: str
    default: []
  kinds:
    description:
      - The kinds of backups to make of each source, in this order, such as V(full) and V(log). Sources that have none
        of them are passed over.
      - By default the first that a source has, which stands for itself.
    type: list
    elements: str
    default: []
  report_only:
    description: Report and never fail because a backup was not made.
    type: bool
    default: false
  run_id:
    description: Identifier shared by all records of one run. By default the job of AWX or the run of the controller.
    type: str
  progress_file:
    description: Where the program keeps what it does. Set by the action plugin.
    type: path
attributes:
  check_mode:
    description: Says what would be made.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: Every run makes backups, that is its purpose.
    support: none
seealso:
  - module: worklog.maintenance.backup_verify
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Make a full backup of the database before the upgrade
  worklog.maintenance.backup_run:
    sources: [database]
    kinds: [full]
"""

RETURN = r"""
backups:
  description: What came of each source.
  returned: always
  type: list
  elements: dict
  contains:
    source:
      description: Name of the source.
      type: str
      sample: database
    kind:
      description: The kind of backup.
      type: str
      sample: full
    result:
      description:
        - V(ok), V(failed), V(refused) when another program works on the source, V(planned) in check mode.
        - V(alarm) when the backup was made, but something needs an operator now.
      type: str
      sample: ok
    message:
      description: One sentence.
      type: str
      sample: /var/backups/worklog/database/full/20260131T020000Z is verified
    sentence:
      description: All of this in one line.
      type: str
      sample: "database full ok: /var/backups/worklog/database/full/20260131T020000Z is verified"
    path:
      description: The backup, when one was made.
      type: str
      sample: /var/backups/worklog/database/full/20260131T020000Z
    recorded:
      description: Whether the program has left a record of it.
      type: bool
      sample: true
    findings:
      description: What was found while it was made and verified.
      type: list
      elements: dict
      sample: []
bad:
  description: One line for each backup that was not made, or needs attention.
  returned: always
  type: list
  elements: str
  sample: []
passed_over:
  description: Sources that have none of these kinds.
  returned: always
  type: list
  elements: str
  sample: [uploads]
"""

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config as configuration

#: The program knows the time limit of each source; this one is for a program that hangs.
_TIMEOUT = 7 * 86400.0

#: Exit codes of the program that are neither success nor failure.
_RESULTS = {3: "alarm", 75: "refused"}

_GENTLE = ("nice", "-n", "10", "ionice", "-c", "3")


def _choose(
    config: configuration.Config, names: list[str], kinds: list[str]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return what is to be made, and the sources that have none of the kinds."""
    unknown = [name for name in names if name not in config.sources]
    if unknown:
        raise configuration.ConfigError(
            f"there is no source '{unknown[0]}' on this host; there are {', '.join(config.sources) or 'none'}"
        )
    possible = {name: config.sources[name].engine.kinds for name in names or config.sources}
    chosen = {
        name: [kind for kind in kinds if kind in own] if kinds else [next(iter(own))] for name, own in possible.items()
    }
    return [(name, kind) for name in chosen for kind in chosen[name]], [name for name in chosen if not chosen[name]]


def _run(source: str, kind: str, options: dict[str, Any], dry: bool) -> dict[str, Any]:
    argv = [*_GENTLE, configuration.PROGRAM, "run", source, kind, "--json"]
    argv += ["--dry-run"] if dry else []
    argv += ["--run-id", options["run_id"]] if options["run_id"] else []
    argv += ["--progress", options["progress_file"]] if options["progress_file"] else []
    done = command.run(argv, timeout=_TIMEOUT)
    lines = done.stdout.strip().splitlines() or [""]
    said = (done.stderr.strip().splitlines() or lines)[-1].partition("worklog-backup: ")[2]
    try:
        record = {} if dry else json.loads(lines.pop())
    except ValueError:
        record = {}
    if done.ok:
        result, message = ("planned" if dry else "ok"), (lines or [""])[-1]
    else:
        result, message = _RESULTS.get(done.rc, "failed"), said or done.describe()
    return {
        "source": source,
        "kind": kind,
        "result": result,
        "message": message,
        "sentence": f"{source} {kind} {result}: {message}",
        "path": record.get("details", {}).get("path"),
        "recorded": bool(record),
        "findings": record.get("findings", []),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "sources": {"type": "list", "elements": "str", "default": []},
            "kinds": {"type": "list", "elements": "str", "default": []},
            "report_only": {"type": "bool", "default": False},
            "run_id": {"type": "str"},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    options = module.params
    results: list[dict[str, Any]] = []
    passed_over: list[str] = []

    def values() -> dict[str, Any]:
        bad = [entry["sentence"] for entry in results if entry["result"] not in ("ok", "planned")]
        return {"changed": bool(results), "backups": results, "bad": bad, "passed_over": passed_over}

    try:
        if not os.path.exists(configuration.PROGRAM) or not os.path.exists(configuration.PATH):
            missing = "worklog-backup is not set up on this host; use the playbook worklog.maintenance.backup_setup"
            if module.check_mode:  # which has not set it up
                module.exit_json(msg=missing, **values())
            module.fail_json(msg=missing, **values())
        config = configuration.load(configuration.PATH)
        work, passed_over = _choose(config, options["sources"], options["kinds"])
        for source, kind in work:
            results.append(_run(source, kind, options, module.check_mode))
    except (configuration.ConfigError, command.CommandError) as error:
        module.fail_json(msg=str(error), **values())
    finally:
        if options["progress_file"] and os.path.exists(options["progress_file"]):
            os.unlink(options["progress_file"])
    found = values()
    if found["bad"] and not options["report_only"]:
        module.fail_json(
            msg=f"{len(found['bad'])} of {len(results)} backups need attention: {'; '.join(found['bad'])}", **found
        )
    module.exit_json(**found)


if __name__ == "__main__":
    main()
