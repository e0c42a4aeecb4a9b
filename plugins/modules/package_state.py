# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_state
version_added: 1.1.0
short_description: Tell what is installed, what would change, and what has to start again
description:
  - Reads the packages of a host in one call, in one shape for apt and dnf, and says what stands in the way of changing
    them, such as a package manager at work, an unfinished change, a repository that failed, or a full disk.
  - Names the CVEs that each update fixes, from data in the format of debsecan, from the program debsecan, from the
    changelog of a new package that is on the host already, or with dnf from its advisories.
  - Says what has to start again, by needrestart or C(dnf needs-restarting) where they are installed, else by the files
    that processes have mapped and that were replaced.
  - Compares the services with those before the last change, and watches them.
options:
  gather:
    description: What is read.
    type: list
    elements: str
    choices: [packages, services]
    default: [packages, services]
  include_installed:
    description: Whether all installed packages are returned, which is long.
    type: bool
    default: true
  refresh:
    description:
      - Load the lists of the repositories first, also in check mode, since the answer is about them.
      - A repository that is not reachable or has no good signature is a critical finding, whatever the exit code. Other
        warnings of C(apt-get update) are findings too.
    type: bool
    default: false
  refresh_timeout:
    description: Seconds for that.
    type: float
    default: 300
  lock_timeout:
    description: Seconds to wait for another package manager.
    type: float
    default: 60
  security_only:
    description:
      - Only updates whose origin has C(security) in its name, or that fix a known CVE. What they need comes with them.
    type: bool
    default: false
  allow:
    description: Shell patterns of the names of packages that may change. Empty means all.
    type: list
    elements: str
    default: []
  deny:
    description: Shell patterns of the names of packages that stay. When something chosen needs one, that is a finding.
    type: list
    elements: str
    default: []
  minimum_age:
    description:
      - How old a version has to be, such as V(7d).
      - Known only from the changelog of a new package that is on the host already; a version of unknown age is old
        enough.
    type: str
    default: 0s
  disk_free:
    description: What shall be left free after the change, such as V(500M).
    type: str
    default: 200M
  vulnerability_data:
    description: File on the host in the format that debsecan loads for the release, compressed or not.
    type: path
  manifest:
    description:
      - The manifest of what was proven elsewhere, as a dictionary or as its JSON. Exactly its versions are wanted then.
      - What it does not name stays; nothing goes back to an older version.
    type: raw
  manifest_key:
    description: The secret that the manifest must have been sealed with.
    type: str
  manifest_max_age:
    description: How long ago it may have been proven, such as V(30d). V(0s) means at any time.
    type: str
    default: 30d
  manifest_soak:
    description: For how long it must have been proven.
    type: str
    default: 0s
  compare:
    description:
      - Compare the services with how they were when M(worklog.maintenance.package_apply) prepared the last change.
      - What was running and is not, has failed since, or was started again by systemd after the change was finished,
        is a critical finding.
    type: bool
    default: false
  settle:
    description: Seconds that services may take to come up, with O(compare).
    type: float
    default: 60
  watch:
    description: Seconds that they have to stay up after that, without a restart by systemd.
    type: float
    default: 0
attributes:
  check_mode:
    description: It only reads; see O(refresh).
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: It only reads.
    support: full
notes:
  - With dnf it was tested on transcripts only, not on a host.
  - The age of versions and O(manifest) are for apt.
seealso:
  - module: worklog.maintenance.package_apply
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: See what would change, with the CVEs
  worklog.maintenance.package_state:
    refresh: true
    include_installed: false
    security_only: true
    deny: [mariadb-*, linux-image-*]
  register: packages

- name: Watch the services after a change
  worklog.maintenance.package_state:
    gather: [services]
    compare: true
    watch: 20
"""

RETURN = r"""
manager:
  description: Which package manager the host has, C(apt) or C(dnf).
  returned: when packages are gathered
  type: str
release:
  description: Distribution, version, code name and architecture.
  returned: when packages are gathered
  type: dict
  sample: {id: debian, version: "12", codename: bookworm, architecture: amd64}
installed:
  description: >-
    Every installed package with name, architecture, version, source, source_version, held, automatic, and state, which
    is C(ok) or what is wrong.
  returned: when packages are gathered
  type: list
  elements: dict
changes:
  description: What would change.
  returned: when packages are gathered
  type: list
  elements: dict
  contains:
    name: {description: Name of the package., type: str}
    architecture: {description: Its architecture., type: str}
    from: {description: The installed version; null when it is new., type: str}
    to: {description: The version to come., type: str}
    origins: {description: "Where it comes from, as the manager names it.", type: list, elements: str}
    security: {description: Whether it comes from a source of security updates., type: bool}
    cves: {description: What it fixes., type: list, elements: str}
    age: {description: Seconds since it was made; null when that is not known., type: float}
    left_out: {description: Why it is not chosen; empty when it is., type: str}
left_out:
  description: What could change and is not chosen, in the same form.
  returned: when packages are gathered
  type: list
  elements: dict
kept_back:
  description: Names of what is held, or for which something would have to be removed.
  returned: when packages are gathered
  type: list
  elements: str
reboot:
  description: Whether the host has to start again, and why.
  returned: when packages are gathered
  type: dict
  sample: {required: false, reasons: []}
restart:
  description: The services that have to start again, each with the reason.
  returned: when packages are gathered
  type: dict
foreseen:
  description: What will have to start again after the changes, services with the reason and reboot with its reasons.
  returned: when packages are gathered
  type: dict
  sample: {services: {nginx.service: "runs on /usr/sbin/nginx, which changes"}, reboot: []}
differences:
  description: Where the host is not what the manifest says, each with package, here, proven and kind.
  returned: when packages are gathered
  type: list
  elements: dict
since:
  description: Where the installed versions are not those that the last change has left, one sentence each.
  returned: when packages are gathered
  type: list
  elements: str
services:
  description: State, sub-state, restarts by systemd and invocation of each service that is not inactive.
  returned: when services are gathered
  type: dict
transaction:
  description: >-
    The last change of this host with name, stage, owner, created, updated, changes, message and directory; null when
    there was none. It is open in the stages C(prepared), C(applying), C(applied) and C(rolling_back).
  returned: always
  type: dict
boot:
  description: What tells this boot from the next one.
  returned: always
  type: str
findings:
  description: What stands in the way, each with check, subject, severity, observed, limit, unit, message and advice.
  returned: always
  type: list
  elements: dict
"""

from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command, units
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.packages import manifest, needs, state, transaction
from ansible_collections.worklog.maintenance.plugins.module_utils.packages.model import PackageError, Wish


def question_of(given: dict[str, Any]) -> state.Question:
    """Return what the options ask.

    :raises PackageError: when an option makes no sense, or the manifest may not be used.
    """
    times = {}
    for name in ("minimum_age", "manifest_max_age", "manifest_soak"):
        try:
            times[name] = units.duration(given[name])
        except ValueError as error:
            raise PackageError(f"{name}: '{given[name]}' is not {error}") from error
    try:
        disk_free = units.size(given["disk_free"])
    except ValueError as error:
        raise PackageError(f"disk_free: '{given['disk_free']}' is not {error}") from error
    promoted = None
    if given["manifest"]:
        promoted = manifest.check(
            given["manifest"],
            datetime.now(timezone.utc),
            max_age=times["manifest_max_age"],
            soak=times["manifest_soak"],
            key=given["manifest_key"] or "",
        )
    return state.Question(
        wish=Wish(given["security_only"], given["allow"], given["deny"], times["minimum_age"]),
        refresh=given["refresh"],
        refresh_timeout=given["refresh_timeout"],
        lock_timeout=given["lock_timeout"],
        disk_free=disk_free,
        data=given["vulnerability_data"] or "",
        promoted=promoted,
    )


def services_of(given: dict[str, Any], last: transaction.Transaction | None) -> tuple[dict[str, Any], list[Finding]]:
    """Return how the services are, and what is worse than before."""
    if not given["compare"]:
        return needs.services(command.run), []
    now, found = needs.watch(command.run, last.services if last else {}, given["settle"], given["watch"])
    if last and last.stage == "finished":
        found += needs.flapping(last.restarts, now, "since the last change")
    return now, found


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "gather": {
                "type": "list",
                "elements": "str",
                "choices": ["packages", "services"],
                "default": ["packages", "services"],
            },
            "include_installed": {"type": "bool", "default": True},
            "refresh": {"type": "bool", "default": False},
            "refresh_timeout": {"type": "float", "default": 300},
            "lock_timeout": {"type": "float", "default": 60},
            "security_only": {"type": "bool", "default": False},
            "allow": {"type": "list", "elements": "str", "default": []},
            "deny": {"type": "list", "elements": "str", "default": []},
            "minimum_age": {"type": "str", "default": "0s"},
            "disk_free": {"type": "str", "default": "200M"},
            "vulnerability_data": {"type": "path"},
            "manifest": {"type": "raw"},
            "manifest_key": {"type": "str", "no_log": True},
            "manifest_max_age": {"type": "str", "default": "30d"},
            "manifest_soak": {"type": "str", "default": "0s"},
            "compare": {"type": "bool", "default": False},
            "settle": {"type": "float", "default": 60},
            "watch": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    given = module.params
    result: dict[str, Any] = {"findings": [], "boot": transaction.boot_identity()}
    try:
        question = question_of(given)
        last = transaction.last()
        if "packages" in given["gather"]:
            found = state.read(question)
            result.update(found.as_dict(given["include_installed"]))
            result["since"] = transaction.since(last, {one.key: one.version for one in found.installed.values()})
        if "services" in given["gather"]:
            result["services"], worse = services_of(given, last)
            result["findings"] += [one.as_dict() for one in worse]
    except (PackageError, command.CommandError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, transaction=last.summary() if last else None, **result)


if __name__ == "__main__":
    main()
