# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_artefact
version_added: 1.1.0
short_description: Make a release ready on a host, proven and whole, and make it live in one step
description:
  - Makes a release directory out of an archive, a directory or a tag of git, or an image of Docker out of its digest,
    without a change to what is live. Then makes it live by switching one link, or one tag. Then removes what is too
    old.
  - Checksum and signature are looked at before anything is unpacked. An archive that would write elsewhere is refused.
    Without either there is a warning, unless a directory is copied.
  - A release is built under another name and renamed when it is whole and on disk, with a list of its files beside it.
    What is not as the list says is never made live; what a killed run has left is removed by the next one.
author:
  - Worklog Maintenance contributors (@worklog)
attributes:
  check_mode:
    description: >-
      Looks at what is there and proves an archive, and says what would be done. A tag or an image is not fetched.
    support: full
  diff_mode:
    description: Shows what is live before and after.
    support: full
  idempotent:
    description: A release that is there and whole is not made again. A run that was cut off is completed by the next
      one.
    support: full
options:
  kind:
    description:
      - V(directory) keeps releases in C(root/releases), and the link C(root/current) names that which is live. They are
        made of an archive or a directory on the host, or put there by somebody else.
      - V(git) does the same with a tag.
      - V(image) keeps images of Docker, each with its version as tag. The tag C(current) names that which is live; it
        is what the service has to start, by a unit with C(docker run NAME:current) or by Compose.
    type: str
    choices: [directory, git, image]
    default: directory
  state:
    description:
      - V(read) tells what is live.
      - V(prepared) makes the version ready and proves it.
      - V(live) makes it live, which has to be ready and whole.
      - V(not_live) has nothing live when it is that version, as before a first release.
      - V(absent) removes the version. Without O(version) and O(artefact), removes the oldest until O(keep) are left.
    type: str
    choices: [read, prepared, live, not_live, absent]
    default: prepared
  version:
    description: Name of the release, as its directory or tag has it.
    type: str
  artefact:
    description:
      - What was returned as RV(live), to be made live again instead of O(version).
      - It has run before, so it is not looked at whether it is whole.
    type: str
  root:
    description: Directory with C(releases) and C(current). Needed for V(directory) and V(git).
    type: path
  source:
    description:
      - For V(directory), an archive (tar, tar.gz, tar.xz, tar.zst or zip) or a directory, on the host. Without it
        C(root/releases/VERSION) must be there. It is taken as it is the first time, and must stay so.
      - For V(git), a remote or the path of a bundle. For V(image), its name without tag.
    type: str
  tag:
    description: The tag for V(git). By default v and the version.
    type: str
  archive:
    description: For V(image), a file made by C(docker save) to load it from, on the host. By default it is pulled.
    type: path
  checksum:
    description:
      - SHA-256 of the archive, with or without C(sha256:); or the commit that the tag must be; or for V(image), where
        it is needed, the digest in the registry or the identifier of a saved image.
    type: str
  checksums:
    description: A file on the host as C(sha256sum) writes it, with a line for the archive.
    type: path
  signature:
    description: The detached OpenPGP signature of O(checksums) where that is given, otherwise of the archive.
    type: path
  keyring:
    description:
      - File with the public keys that may sign, in the binary form of C(gpg --export). C(gpgv) is needed.
      - For V(git) the tag must be signed by one of them then.
    type: path
  owner:
    description: Account that owns the files, and that O(commands) run as. By default root.
    type: str
  shared:
    description: Links to make in a new release, by their path in it, with what they point to.
    type: dict
    default: {}
  commands:
    description:
      - Programs to run in a new release, each as an argument list. No shell sees them. When one fails, there is no
        release.
      - The directory has another name at that time.
    type: list
    elements: list
    default: []
  environment:
    description: Environment of O(commands). It is no place for secrets.
    type: dict
    default: {}
  exclude:
    description: Patterns of names that the application itself writes into its release, which are not looked at later.
    type: list
    elements: str
    default: [__pycache__, "*.pyc", "*.log", "*.pid"]
  keep:
    description: How many releases to keep. Only those that this module has made or taken over are removed.
    type: int
    default: 5
  protect:
    description: Versions that are never removed, such as the one before and one under way. The live one never is.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that each program may take.
    type: float
    default: 600
notes:
  - Extracting keeps neither owners nor the bits that run a program as somebody else; nobody but the owner may write.
"""

EXAMPLES = r"""
- name: Unpack the release, signed by the build server
  worklog.maintenance.release_artefact:
    root: /srv/worklog
    version: 1.4.2
    source: /srv/incoming/worklog-1.4.2.tar.gz
    checksums: /srv/incoming/SHA256SUMS
    signature: /srv/incoming/SHA256SUMS.asc
    keyring: /etc/worklog-maintenance/release-keys.gpg

- name: Make it live
  worklog.maintenance.release_artefact:
    state: live
    root: /srv/worklog
    version: 1.4.2

- name: Check out a signed tag from a bundle, and install its packages without a network
  worklog.maintenance.release_artefact:
    kind: git
    root: /srv/lowcode
    version: 2.4.0
    source: /srv/incoming/lowcode.bundle
    keyring: /etc/worklog-maintenance/release-keys.gpg
    owner: lowcode
    shared:
      .env: /srv/lowcode/shared/.env
    commands:
      - [npm, ci, --offline, --omit=dev, --cache, /srv/incoming/npm-cache]

- name: Load an image
  worklog.maintenance.release_artefact:
    kind: image
    version: 1.4.2
    source: example/worklog
    archive: /srv/incoming/worklog-1.4.2.tar
    checksum: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

- name: Keep three releases, and those that may be needed
  worklog.maintenance.release_artefact:
    state: absent
    root: /srv/worklog
    keep: 3
    protect: "{{ [releases.release.previous.version | default('')] }}"
"""

RETURN = r"""
artefact:
  description: What stands for the version, the directory relative to root or the identifier of the image.
  returned: when it is there
  type: str
  sample: releases/1.4.2
live:
  description: Version and artefact that are live now; empty when nothing is.
  returned: success
  type: dict
  sample: {version: 1.4.1, artefact: releases/1.4.1}
was_live:
  description: The same before.
  returned: success
  type: dict
  sample: {version: 1.4.1, artefact: releases/1.4.1}
proof:
  description: What was proven, one sentence each. Empty when nothing was asked to be, or when it was there already.
  returned: success
  type: list
  elements: str
  sample: ["/srv/incoming/SHA256SUMS is signed by 62F7...", "its SHA-256 is that of /srv/incoming/SHA256SUMS"]
removed:
  description: Versions that were removed.
  returned: success
  type: list
  elements: str
msg:
  description: What was done, or why not.
  returned: always
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.release import artefact_work
from ansible_collections.worklog.maintenance.plugins.module_utils.release.artefact import ArtefactError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "kind": {"type": "str", "choices": ["directory", "git", "image"], "default": "directory"},
            "state": {
                "type": "str",
                "choices": ["read", "prepared", "live", "not_live", "absent"],
                "default": "prepared",
            },
            "version": {"type": "str"},
            "artefact": {"type": "str"},
            "root": {"type": "path"},
            "source": {"type": "str"},
            "tag": {"type": "str"},
            "archive": {"type": "path"},
            "checksum": {"type": "str"},
            "checksums": {"type": "path"},
            "signature": {"type": "path"},
            "keyring": {"type": "path", "no_log": False},
            "owner": {"type": "str"},
            "shared": {"type": "dict", "default": {}},
            "commands": {"type": "list", "elements": "list", "default": []},
            "environment": {"type": "dict", "default": {}},
            "exclude": {"type": "list", "elements": "str", "default": ["__pycache__", "*.pyc", "*.log", "*.pid"]},
            "keep": {"type": "int", "default": 5},
            "protect": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 600},
        },
        required_if=[
            ("kind", "directory", ["root"]),
            ("kind", "git", ["root"]),
            ("kind", "image", ["source"]),
            ("state", "prepared", ["version"]),
            ("state", "live", ["version", "artefact"], True),
            ("state", "not_live", ["version"]),
        ],
        supports_check_mode=True,
    )
    given: dict[str, Any] = {name: value or None if value == "" else value for name, value in module.params.items()}
    try:
        work = artefact_work.make(given, command.run)
        before = work.live()
        outcome = work.carry_out(check_mode=module.check_mode)
    except (ArtefactError, command.CommandError) as error:
        module.fail_json(msg=str(error))
    fetched = outcome.changed and given["state"] == "prepared" and given["source"]
    proven = any(given[name] for name in ("checksum", "checksums", "signature", "keyring"))
    if fetched and not proven and not os.path.isdir(given["source"]):
        module.warn(f"nothing proves that {given['source']} is what was built: give checksum, or signature and keyring")
    result: dict[str, Any] = {"was_live": before, "live": dict(outcome.live), "msg": outcome.message}
    result.update(proof=outcome.proof, removed=outcome.removed, artefact=outcome.artefact)
    if module._diff:
        names = [f"{one.get('artefact', 'nothing')}\n" for one in (before, outcome.live)]
        where = f"live in {given['root'] or given['source']}"
        result["diff"] = {"before": names[0], "after": names[1], "before_header": where, "after_header": where}
    module.exit_json(changed=outcome.changed, **result)


if __name__ == "__main__":
    main()
