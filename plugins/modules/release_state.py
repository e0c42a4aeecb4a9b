# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_state
version_added: 1.1.0
short_description: Remember on a host which release runs, which is under way, and who does it
description:
  - Keeps one JSON file for each application on a target host or a load balancer, with the release that runs, the good
    one before it, the versions known as bad, the release that is under way with its steps, and those that have ended.
  - A release that is under way is a lock with an owner, a reason and an end. Of two that begin at once one is refused,
    and is told who holds the lock, why and until when. A run whose lock was taken over is refused at its next step.
  - Each step is noted before it is done, so that what was cut off can be taken up again where it stopped.
  - The file is replaced in one step and synced to disk. One that is damaged, or of another application, is left alone.
author:
  - Worklog Maintenance contributors (@worklog)
attributes:
  check_mode:
    description: Answers what it would, and writes nothing.
    support: full
  diff_mode:
    description: Shows the state before and after.
    support: full
  idempotent:
    description: To begin, note or finish the same again changes nothing.
    support: full
options:
  application:
    description: Name of the application.
    type: str
    required: true
  action:
    description:
      - V(read) only reads, and makes O(copies).
      - V(begin) takes the lock. One that the same O(id) holds is taken up again, another only as O(resume),
        O(break_lock) or its end allow. What was noted stays then.
      - V(step) notes that O(step) is about to be done.
      - V(irreversible) notes that the version before cannot run any more, as when its tables were removed.
      - V(pause) keeps the lock for O(lock_time) without a step, as while a version is held.
      - V(finish) ends the release with O(result).
    type: str
    choices: [read, begin, step, irreversible, pause, finish]
    default: read
  id:
    description: Identifier of the release, the same on all hosts. By default the job of AWX or the run of the
      controller.
    type: str
  version:
    description: The version as MAJOR.MINOR.PATCH, with or without a leading v. Needed to begin.
    type: str
  method:
    description: How it is released, such as C(in_place), C(blue_green), C(canary) or C(rollback).
    type: str
    default: in_place
  owner:
    description: Who does it. By default the user of AWX or the account on the controller.
    type: str
  reason:
    description: Why. For a refused one it says why the lock is held; with V(bad) and V(rolled_back) it says what was
      wrong.
    type: str
    default: ""
  found:
    description:
      - C(version) and C(artefact) that are live on this host, as RV(worklog.maintenance.release_artefact#module:live).
        When it is not what was recorded, it is taken for what there is to go back to.
    type: dict
    default: {}
  lock_time:
    description: After this time without a step somebody else may take the lock, as seconds or such as V(90m) or V(2h).
    type: str
    default: 2h
  resume:
    description:
      - That a release of the same version by the same owner is taken over although its lock holds, to go V(on) or to go
        V(back).
    type: str
    choices: ["", "on", "back"]
    default: ""
  break_lock:
    description: Identifier of the release whose lock is taken, whoever holds it.
    type: str
    default: ""
  step:
    description: Name of the step.
    type: str
  weights_before:
    description: With V(step), how the load balancer divided its traffic before, to be remembered. What was noted first
      stays.
    type: dict
    default: {}
  copies:
    description:
      - With V(step), files of this host to copy when it is noted, and not done already; with V(read) at any time.
        Owner and mode stay, a file is replaced in one step, and one that is not there is passed over.
      - So the configuration of the version before is kept, and put back. Missing directories are made with mode 0700.
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description: The file, or a link to it.
        type: path
        required: true
      dest:
        description: Where it is copied to. A link stays, and the file that it names is replaced.
        type: path
        required: true
  result:
    description:
      - How it has ended. V(good), the version runs. V(bad), it does not work and the one before runs. V(rolled_back),
        the version runs again and the one that ran is bad. V(undone), nothing was changed and no version is to blame.
    type: str
    choices: [good, bad, rolled_back, undone]
  artefact:
    description: What is live now, as release_artefact returns it. Needed for V(good) and V(rolled_back) on a target
      host.
    type: str
    default: ""
  keep:
    description: How many releases that have ended are remembered.
    type: int
    default: 20
  directory:
    description: Directory of the files. It is made with mode 0750, a file with 0640.
    type: path
    default: /var/lib/worklog-maintenance/releases
"""

EXAMPLES = r"""
- name: Take the lock
  worklog.maintenance.release_state:
    application: worklog-api
    action: begin
    version: v1.4.2
    reason: faster search
    found: "{{ artefact.live }}"

- name: Note that the node is taken out of the load balancers now
  worklog.maintenance.release_state:
    application: worklog-api
    action: step
    step: drain
  register: noted

- name: Take it out
  ansible.builtin.include_tasks: drain.yml
  when: not noted.done

- name: End it
  worklog.maintenance.release_state:
    application: worklog-api
    action: finish
    result: good
    artefact: "{{ artefact.artefact }}"

- name: Who holds the lock?
  worklog.maintenance.release_state:
    application: worklog-api
  register: releases
"""

RETURN = r"""
release:
  description: The state after the action; where it has failed, as it is.
  returned: when it could be read
  type: dict
  contains:
    current: {description: "What runs: version, artefact, id, since, and irreversible, when there is no way back.",
      type: dict}
    previous: {description: The good release before it; null where there is none., type: dict}
    bad: {description: "Versions known as bad, with version, reason, at and id.", type: list}
    under_way:
      description: >-
        The release that holds the lock, with id, method, version, step, previous, previous_artefact, owner, reason,
        started, expires, paused, irreversible, weights_before and journal; null when none does.
      type: dict
    finished: {description: "Those that have ended, the last one last, with result, seconds and journal.", type: list}
  sample:
    schema: 1
    application: worklog-api
    current: {version: 1.4.1, artefact: releases/1.4.1, id: job-17, since: "2026-11-02T09:00:11Z", irreversible: false}
    previous: {version: 1.4.0, artefact: releases/1.4.0, id: job-11, since: "2026-10-12T09:10:40Z", irreversible: false}
    bad: []
    under_way:
    finished: []
done:
  description: With V(step), whether it was done already, since a step after it was noted.
  returned: when O(action=step)
  type: bool
resumed:
  description: With V(begin), whether a release that was under way was taken up again.
  returned: when O(action=begin)
  type: bool
notes:
  description: What an operator should know of how the lock was taken.
  returned: success
  type: list
  elements: str
file:
  description: The file.
  returned: always
  type: str
  sample: /var/lib/worklog-maintenance/releases/worklog-api.json
holder:
  description: The release that holds the lock, as RV(release.under_way); empty when none does.
  returned: when the action was refused for that
  type: dict
msg:
  description: The state in one sentence, or why the action was refused.
  returned: always
  type: str
"""

import contextlib
import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.release import state as releases
from ansible_collections.worklog.maintenance.plugins.module_utils.units import duration


def act(given: dict[str, Any], before: dict[str, Any], now: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the next state, and what the action returns beside it.

    :raises StateError: when it is refused.
    """
    action, id = given["action"], given["id"]
    seconds = duration(given["lock_time"])
    if action == "begin":
        asked = releases.Begin(
            id, given["version"], given["method"], given["owner"], given["reason"], seconds,
            given["found"], given["break_lock"], given["resume"],
        )  # fmt: skip
        after, notes = releases.begin(before, asked, now)
        held, was = after["under_way"], before["under_way"]
        return after, {"notes": notes, "resumed": bool(was) and was["started"] == held["started"]}
    if action == "step":
        after, done = releases.step(before, id, given["step"], now, given["weights_before"])
        return after, {"done": done}
    if action == "irreversible":
        return releases.irreversible(before, id), {}
    if action == "pause":
        return releases.pause(before, id, seconds, now), {}
    if action == "finish":
        return releases.finish(
            before, id, given["result"], now, reason=given["reason"], artefact=given["artefact"], keep=given["keep"]
        ), {}
    return before, {}


def copy(copies: list[dict[str, str]], check_mode: bool) -> bool:
    """Copy the files that are there, and return whether one of them was, or would be, another.

    :raises FileError: when one cannot be copied.
    """
    there = [one for one in copies if os.path.exists(one["src"]) and files.differ(one["src"], one["dest"])]
    if not check_mode:
        for one in there:
            files.copy(one["src"], one["dest"])
    return bool(there)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "application": {"type": "str", "required": True},
            "action": {
                "type": "str",
                "choices": ["read", "begin", "step", "irreversible", "pause", "finish"],
                "default": "read",
            },
            "id": {"type": "str"},
            "version": {"type": "str"},
            "method": {"type": "str", "default": "in_place"},
            "owner": {"type": "str"},
            "reason": {"type": "str", "default": ""},
            "found": {"type": "dict", "default": {}},
            "lock_time": {"type": "str", "default": "2h"},
            "resume": {"type": "str", "choices": ["", "on", "back"], "default": ""},
            "break_lock": {"type": "str", "default": ""},
            "step": {"type": "str"},
            "weights_before": {"type": "dict", "default": {}},
            "copies": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"src": {"type": "path", "required": True}, "dest": {"type": "path", "required": True}},
            },
            "result": {"type": "str", "choices": list(releases.RESULTS)},
            "artefact": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 20},
            "directory": {"type": "path", "default": releases.DIRECTORY},
        },
        required_if=[
            ("action", "begin", ["id", "version", "owner"]),
            ("action", "step", ["id", "step"]),
            ("action", "irreversible", ["id"]),
            ("action", "pause", ["id"]),
            ("action", "finish", ["id", "result"]),
        ],
        supports_check_mode=True,
    )
    given, now = module.params, time.time()
    before = None
    writes = given["action"] != "read" and not module.check_mode
    try:
        store = releases.Store(given["directory"], given["application"])
    except releases.StateError as error:
        module.fail_json(msg=str(error))
    try:
        with store.alone() if writes else contextlib.nullcontext():
            before = store.read()
            after, said = act(given, before, now)
            if writes and after != before:
                store.write(after)
            copies = given["copies"] if given["action"] in ("read", "step") and not said.get("done") else []
            copied = copy(copies, module.check_mode)
    except ValueError as error:
        module.fail_json(msg=f"lock_time: {error}", file=store.path)
    except (releases.StateError, files.FileError) as error:
        told = {"release": before, "holder": getattr(error, "holder", None)}
        told = {name: value for name, value in told.items() if value is not None}
        module.fail_json(msg=str(error), file=store.path, **told)
    result = {"notes": [], **said, "release": after, "file": store.path, "msg": releases.describe(after, now)}
    if module._diff:
        texts = [json.dumps(one, indent=2, sort_keys=True) + "\n" for one in (before, after)]
        result["diff"] = {
            "before": texts[0],
            "after": texts[1],
            "before_header": store.path,
            "after_header": store.path,
        }
    module.exit_json(changed=after != before or copied, **result)


if __name__ == "__main__":
    main()
