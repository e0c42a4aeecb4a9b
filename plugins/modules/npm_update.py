# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: npm_update
short_description: Update the npm packages of an application in a new release, and switch to it and back
description:
  - Works out which packages C(npm update) and C(npm audit fix) would change, in a directory of its own. When something
    changes it makes a new release beside the one that runs, installs exactly what the new lock file says with
    C(npm ci), and runs the application's test there. The release that runs is only read.
  - Switches the link to the new release, or back, in one step. Restarting the application and judging it is left to
    others, and the role of the same name puts it all together.
  - npm and the test run as the application's account, never as root, in an environment of their own, and scripts of
    packages are not run unless that is allowed.
version_added: 1.1.0
options:
  path:
    description: The link to the release that runs, such as C(/srv/app/current).
    type: path
    required: true
  state:
    description:
      - V(built) makes and tests a new release when there is something to update. A switch that an earlier run has not
        confirmed is returned instead, for the caller to go on with.
      - V(switched) has the link point to O(candidate), and writes down the way back.
      - V(switched_back) has it point to O(previous) again.
      - V(finished) forgets the way back. A new release that was switched back from is removed, and of the others that
        this module has made the oldest.
    type: str
    choices: [built, switched, switched_back, finished]
    default: built
  user:
    description: Account that the application runs as. Required for V(built).
    type: str
  candidate:
    description: Target of the link for the new release, as V(built) returned it. Required for V(switched).
    type: str
  previous:
    description: Target of the link for the release before, as V(built) returned it. Required for V(switched) and
      V(switched_back).
    type: str
  update:
    description: Update packages within the ranges of C(package.json), those that others need too.
    type: bool
    default: true
  packages:
    description: Update only these packages and what they need. By default all.
    type: list
    elements: str
    default: []
  audit_fix:
    description:
      - Change vulnerable packages within the ranges, by C(npm audit fix) without force.
      - Fails when the registry has no advisories.
    type: bool
    default: true
  test:
    description:
      - Argument list of the test, run in the new release. By default the script C(test) of C(package.json).
      - Without any test nothing is updated.
    type: list
    elements: str
    default: []
  omit_dev:
    description: Remove packages for development after the test.
    type: bool
    default: false
  scripts:
    description: Whether packages may run their install scripts, as those do that compile something.
    type: bool
    default: false
  registry:
    description: Address of the registry. By default that of C(.npmrc) of the application or its account.
    type: str
  token_file:
    description: File on this host with the token for O(registry). npm gets it by its environment.
    type: path
  cache:
    description: Directory of npm's cache, which the account must be able to write. By default npm's own.
    type: path
  offline:
    description: Take packages from the cache alone. Needs O(audit_fix=false), since advisories are asked for.
    type: bool
    default: false
  keep:
    description: Releases of this module to keep, besides the one that runs and the one before.
    type: int
    default: 2
  timeout:
    description: Seconds that one call of npm, or the test, may take.
    type: float
    default: 600
attributes:
  check_mode:
    description: Works out what would change and makes nothing of it.
    support: full
  diff_mode:
    description: Shows the packages of the lock file that change.
    support: full
  idempotent:
    description: Nothing is made when the lock file would stay the same.
    support: full
notes:
  - Needs C(become).
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: See what is outdated and what an update would change
  worklog.maintenance.npm_update:
    path: /srv/lowcode/current
    user: lowcode
  check_mode: true
  diff: true
  become: true

- name: Make and test a new release with what the registry of the site has
  worklog.maintenance.npm_update:
    path: /srv/lowcode/current
    user: lowcode
    registry: https://packages.example.com/npm/
    token_file: /etc/worklog-maintenance/npm.token
    test: [node, server.js, --check]
  register: built
  become: true

- name: Switch to it
  worklog.maintenance.npm_update:
    path: /srv/lowcode/current
    state: switched
    candidate: "{{ built.candidate }}"
    previous: "{{ built.previous }}"
  when: built.candidate | length > 0
  become: true
"""

RETURN = r"""
changes:
  description: What the lock file changes, by place; empty versions stand for packages that are not there.
  returned: when O(state=built)
  type: list
  elements: dict
  sample: [{package: node_modules/winston, before: 3.18.2, after: 3.18.3}]
outdated:
  description: Direct dependencies that are not the newest. C(wanted) is the newest in the range, C(latest) of all.
  returned: when O(state=built)
  type: list
  elements: dict
  sample: [{package: mongodb, current: 6.20.0, wanted: 6.20.0, latest: 7.0.0}]
vulnerabilities_before:
  description: Vulnerabilities of the lock file that is there. None when nobody was asked.
  returned: when O(state=built)
  type: list
  elements: str
  sample: [lodash GHSA-jf85-cpcp-j695 (critical)]
vulnerabilities_after:
  description: Those of the new one.
  returned: when O(state=built)
  type: list
  elements: str
  sample: []
candidate:
  description: Target of the link for the new release. Empty when nothing was made.
  returned: when O(state=built)
  type: str
  sample: releases/2.3.0-npm-20261129T150600Z
previous:
  description: Target of the link for the release before.
  returned: when O(state=built)
  type: str
  sample: releases/2.3.0
interrupted:
  description:
    - Whether an earlier run has switched and neither confirmed nor undone it. The new release of that run is returned.
    - When the link already points back, C(candidate) equals C(previous), and the application must only be restarted.
  returned: when O(state=built)
  type: bool
  sample: false
removed:
  description: Releases that were removed.
  returned: when O(state=finished)
  type: list
  elements: str
  sample: [/srv/lowcode/releases/2.3.0-npm-20260829T150600Z]
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.npm import manifest, releases, update
from ansible_collections.worklog.maintenance.plugins.module_utils.npm.program import Npm, NpmError


def make(module: AnsibleModule, place: releases.Place, journal: str) -> dict[str, Any]:
    """Make a new release where there is something to update, and return what there is to know.

    :raises NpmError: when it cannot be made, or fails its test.
    """
    given = module.params
    token = files.read(given["token_file"]).decode("utf-8", "replace").strip() if given["token_file"] else ""
    if token:
        module.no_log_values.add(token)
    if given["offline"] and given["audit_fix"]:
        raise NpmError("audit_fix: advisories are asked for, which offline forbids; set audit_fix to false")
    npm = Npm(
        given["user"],
        registry=given["registry"] or "",
        token=token,
        cache=given["cache"] or "",
        offline=given["offline"],
        scripts=given["scripts"],
        timeout=given["timeout"],
    )
    wish = update.Wish(
        update=given["update"],
        only=tuple(given["packages"]),
        audit_fix=given["audit_fix"],
        test=tuple(given["test"]),
        omit_dev=given["omit_dev"],
    )
    result: dict[str, Any] = {"candidate": "", "previous": place.target, "interrupted": False, "changed": False}
    old = update.unconfirmed(journal, place)
    if old:
        result.update(old, interrupted=True, changed=True, changes=[], outdated=[])
        if place.target == old["previous"]:
            result["candidate"] = place.target
        result.update(vulnerabilities_before=None, vulnerabilities_after=None)
        result["msg"] = f"an earlier run has switched {place.link} and was interrupted; it is gone on with"
        return result
    if not wish.test:
        content = files.read(f"{place.release}/{update.PACKAGE}")
        manifest.test_of(manifest.read(content, f"{place.release}/{update.PACKAGE}"))
    plan = update.plan(npm, place, wish)
    result.update(
        changes=plan.changes,
        outdated=plan.outdated,
        vulnerabilities_before=plan.before,
        vulnerabilities_after=plan.after,
        changed=bool(plan.changes),
        diff={
            side: "".join(f"{one['package']} {one[side]}\n" for one in plan.changes if one[side])
            for side in ("before", "after")
        },
    )
    result["msg"] = f"packages that change: {len(plan.changes)}" if plan.changes else "no package changes"
    if plan.changes and not module.check_mode:
        name = releases.name_of(place.release, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        update.build(npm, place, plan, wish, name)
        result["candidate"] = place.target_of(name)
        result["msg"] += f"; {result['candidate']} has them and passed the test"
    return result


def act(module: AnsibleModule, place: releases.Place, journal: str) -> dict[str, Any]:
    """Do what the state asks for.

    :raises NpmError: when that cannot be done.
    """
    given, check = module.params, module.check_mode
    if given["state"] == "built":
        return make(module, place, journal)
    if given["state"] == "switched":
        changed = place.target != given["candidate"]
        if changed and place.target != given["previous"]:
            raise NpmError(f"{place.link} points to {place.target} now, not to {given['previous']}; begin anew")
        if changed and not check:
            update.switch(journal, place, given["candidate"], given["previous"])
        return {"changed": changed, "msg": f"{place.link} points to {given['candidate']}"}
    if given["state"] == "switched_back":
        changed = place.target != given["previous"] if check else update.back(place, given["previous"])
        return {"changed": changed, "msg": f"{place.link} points to {given['previous']}"}
    removed = [] if check else update.finish(journal, place, given["keep"])
    return {"changed": bool(removed), "removed": removed, "msg": f"{place.link} points to {place.target}"}


def main() -> None:
    states = ["built", "switched", "switched_back", "finished"]
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": states, "default": "built"},
            "user": {"type": "str"},
            "candidate": {"type": "str"},
            "previous": {"type": "str"},
            "update": {"type": "bool", "default": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "audit_fix": {"type": "bool", "default": True},
            "test": {"type": "list", "elements": "str", "default": []},
            "omit_dev": {"type": "bool", "default": False},
            "scripts": {"type": "bool", "default": False},
            "registry": {"type": "str"},
            "token_file": {"type": "path", "no_log": False},
            "cache": {"type": "path"},
            "offline": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 2},
            "timeout": {"type": "float", "default": 600},
        },
        required_if=[
            ("state", "built", ["user"]),
            ("state", "switched", ["candidate", "previous"]),
            ("state", "switched_back", ["previous"]),
        ],
        supports_check_mode=True,
    )
    path = module.params["path"].rstrip("/")
    try:
        with update.locked(path):
            result = act(module, releases.find(path), update.journal_of(path))
    except (NpmError, files.FileError, OSError) as error:
        module.fail_json(msg=f"{path}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
