# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
version_added: 1.1.0
short_description: Look at an application on a host before a release
description:
  - Tells which version runs, which was before it and which are known as bad, who holds the lock, whether the
    application answers as it should, and whether there is room for a new version.
  - It only reads. A plan is made of the answers of all hosts by the role P(worklog.maintenance.release_plan#role).
author:
  - Worklog Maintenance contributors (@worklog)
attributes:
  check_mode:
    description: It only reads.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
  idempotent:
    description: It never changes anything.
    support: full
options:
  application:
    description: Name of the application.
    type: str
    required: true
  root:
    description:
      - Directory that holds the link C(current), whose target names the version that is live.
      - Without it the version is that which M(worklog.maintenance.release_state) recorded.
    type: path
  address:
    description: Where the host itself reaches the application, such as C(http://127.0.0.1:8080).
    type: str
  requests:
    description:
      - Requests that must be answered as they say, each sent once to O(address).
      - In C(matches), C(<version>) stands for the version that runs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What messages call it. By default method and path.
        type: str
      path:
        description: Path and query.
        type: str
        required: true
      method:
        description: HTTP method.
        type: str
        default: GET
      headers:
        description: Headers to send, such as C(Host).
        type: dict
      body:
        description: Body to send.
        type: str
      status:
        description: Good statuses. By default 200 to 299.
        type: list
        elements: int
        default: []
      matches:
        description: Regular expression that the body must contain.
        type: str
      max_time:
        description: Seconds that the whole answer may take.
        type: float
        default: 5
  disk_free:
    description: Free space needed for a new version, by path, such as C(/srv/worklog) with V(1G).
    type: dict
    default: {}
  directory:
    description: Directory of the state on the host.
    type: path
    default: /var/lib/worklog-maintenance/releases
  validate_certs:
    description: Whether the certificate of an https O(address) must be valid.
    type: bool
    default: true
seealso:
  - module: worklog.maintenance.release_state
  - module: worklog.maintenance.release_gate
"""

EXAMPLES = r"""
- name: Look at the worklog API
  worklog.maintenance.release_info:
    application: worklog-api
    root: /srv/worklog
    address: http://127.0.0.1:8080
    requests:
      - path: /health
        matches: '"version": *"<version>"'
    disk_free:
      /srv/worklog: 1G
"""

RETURN = r"""
version:
  description: The version that runs; empty when it is not known.
  returned: success
  type: str
  sample: 1.4.2
artefact:
  description: What is live, as the link or the state has it.
  returned: success
  type: str
  sample: releases/1.4.2
previous:
  description: The good version before it; empty when there is none.
  returned: success
  type: str
bad:
  description: Versions that are known as bad on this host.
  returned: success
  type: list
  elements: str
under_way:
  description: The release that holds the lock, as M(worklog.maintenance.release_state) returns it; null when none does.
  returned: success
  type: dict
requests:
  description: Each of the requests with what came back.
  returned: success
  type: list
  elements: dict
findings:
  description: What stands for or against a release, each with check, subject, severity, message and advice.
  returned: success
  type: list
  elements: dict
"""

import os
import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils.release import info
from ansible_collections.worklog.maintenance.plugins.module_utils.release import state as releases
from ansible_collections.worklog.maintenance.plugins.module_utils.release.options import (
    OptionError,
    check_targets,
    make_requests,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.release.probes import try_all
from ansible_collections.worklog.maintenance.plugins.module_utils.service.preflight import disk
from ansible_collections.worklog.maintenance.plugins.module_utils.units import size

REQUEST_SPEC: dict[str, Any] = {
    "name": {"type": "str"},
    "path": {"type": "str", "required": True},
    "method": {"type": "str", "default": "GET"},
    "headers": {"type": "dict", "no_log": True},
    "body": {"type": "str", "no_log": True},
    "status": {"type": "list", "elements": "int", "default": []},
    "matches": {"type": "str"},
    "max_time": {"type": "float", "default": 5},
}


def _existing(path: str) -> str:
    """Return the path, or the nearest directory above it: the root of the first release may not be there yet."""
    while path and not os.path.exists(path):
        path = os.path.dirname(path)
    return path or "/"


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "application": {"type": "str", "required": True},
            "root": {"type": "path"},
            "address": {"type": "str"},
            "requests": {"type": "list", "elements": "dict", "default": [], "options": REQUEST_SPEC},
            "disk_free": {"type": "dict", "default": {}},
            "directory": {"type": "path", "default": releases.DIRECTORY},
            "validate_certs": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        state = releases.Store(given["directory"], given["application"]).read()
        requests = make_requests(given["requests"], given["validate_certs"])
        targets = check_targets([given["address"]] if given["address"] and requests else [])
        wanted = {path: size(value) for path, value in given["disk_free"].items()}
    except (releases.StateError, OptionError) as error:
        module.fail_json(msg=str(error))
    except ValueError as error:
        module.fail_json(msg=f"disk_free: {error}")
    subject = f"{given['application']} on {os.uname().nodename}"
    found = info.look(state, info.live(given["root"] or ""), subject, time.time())
    results = try_all(info.fill(requests, found.version), targets)
    found.requests = [asdict(result) for result in results]
    found.findings += info.judge(results, subject)
    found.findings += [disk(_existing(path), count) for path, count in sorted(wanted.items())]
    module.exit_json(changed=False, **{**vars(found), "findings": [one.as_dict() for one in found.findings]})


if __name__ == "__main__":
    main()
