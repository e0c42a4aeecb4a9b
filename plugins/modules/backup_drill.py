# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_drill
short_description: Prove on scratch servers that backups can be recovered, and how long it takes
description:
  - Of each source the newest state, a random older backup and a random moment are restored into servers of their own,
    which only this host reaches through a socket, and compared with what was recorded when the backup was made.
  - Then an application can be started on the newest states of all sources, and asked questions.
  - The result is a report that a person can read, as a page and as text, and what a record needs.
  - Everything that was restored is removed in the end, also when the drill fails, takes too long or is killed.
version_added: 1.1.0
options:
  sources:
    description: Names of the sources, in the order in which they are restored.
    type: list
    elements: str
    required: true
  root:
    description: Directory of the backups on this host.
    type: path
    default: /var/backups/worklog
  fetch:
    description: Where the backups are fetched from before, into O(root), by rsync over ssh. By default they are there.
    type: dict
    suboptions:
      from:
        description: C(user@host:/directory) as rsync takes it.
        type: str
        required: true
      identity:
        description: Private key.
        type: path
      known_hosts:
        description: File with the key of the host. A key that is not known is never accepted.
        type: path
      port:
        description: Port of ssh.
        type: int
        default: 22
  scratch:
    description: Directory for the scratch data, on a file system with room for all sources at once.
    type: path
    default: /var/lib/worklog-maintenance/scratch
  reports:
    description: Directory of the reports.
    type: path
    default: /var/lib/worklog-maintenance/drills
  application:
    description:
      - What is started on the restored data. In all of its texts C(<source.socket>), C(<source.account>),
        C(<source.password>) and C(<source.path>) stand for how the data of a source are reached, C(<directory>) for its
        own directory, and C(<port>) for a free port.
    type: dict
    suboptions:
      argv:
        description: Its command. It must stay in the foreground and listen on 127.0.0.1 only.
        type: list
        elements: str
        required: true
      user:
        description: Account that it runs as.
        type: str
        default: nobody
      files:
        description: Content by name of files to write into its directory.
        type: dict
        default: {}
      ready:
        description: Address that answers 200 when it is ready.
        type: str
        default: ''
      timeout:
        description: Seconds until it must be ready, and for each question.
        type: float
        default: 60
      questions:
        description: What it is asked.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: What the question is about.
            type: str
            required: true
          url:
            description: Address to fetch.
            type: str
            default: ''
          argv:
            description: Command to run instead.
            type: list
            elements: str
            default: []
          status:
            description: Status of the answer.
            type: int
            default: 200
          expect:
            description: Regular expression that the answer must hold.
            type: str
            default: ''
  seed:
    description: Makes the random choices of an earlier drill again. By default a new one, which the report tells.
    type: int
  budget:
    description: How long a recovery may take, from the first byte to the first answer, in seconds or as V(30m).
    type: str
  limit:
    description: How long the whole drill may take.
    type: str
    default: 12h
  unverified:
    description: Whether backups count that were never verified.
    type: bool
    default: false
  users:
    description: Account by source that its scratch server runs as. By default those of the packaged servers.
    type: dict
    default: {}
  server:
    description: Command of the scratch server of MongoDB, as for M(worklog.maintenance.backup_restore).
    type: list
    elements: str
  memory:
    description: Memory for preparing and for the scratch server of MariaDB.
    type: str
    default: 128M
  identity:
    description: File with the age identity that decrypts encrypted backups.
    type: path
attributes:
  check_mode:
    description: Tells what can be recovered, and restores nothing.
    support: full
  diff_mode:
    description: There is nothing to show as a difference.
    support: none
  idempotent:
    description: Every drill restores and leaves a report, that is its purpose.
    support: none
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Prove that the work log can be recovered within half an hour
  worklog.maintenance.backup_drill:
    sources: [worklog-db, worklog-cache]
    fetch:
      from: drill@db1.example.com:/
      identity: /root/.ssh/drill
    budget: 30m
    application:
      argv: [/usr/bin/python3, /srv/worklog/current/server.py, --config, <directory>/config.json]
      files:
        config.json: >-
          {"listen": "127.0.0.1", "port": <port>,
          "database": {"unix_socket": "<worklog-db.socket>", "user": "<worklog-db.account>",
          "password": "<worklog-db.password>", "database": "worklog"}}
      ready: http://127.0.0.1:<port>/health
      questions:
        - name: the newest records
          url: http://127.0.0.1:<port>/api/records
          expect: '"count": [1-9]'
"""

RETURN = r"""
good:
  description: Whether everything was as it must be.
  returned: always
  type: bool
report:
  description: What the report tells, for programs.
  returned: always
  type: dict
page:
  description: The report as a page for a browser.
  returned: when a drill was done
  type: str
  sample: /var/lib/worklog-maintenance/drills/20260131T021005Z.html
text:
  description: The report as text.
  returned: when a drill was done
  type: str
recovery_seconds:
  description: From the first byte to the first answer.
  returned: when a drill was done
  type: float
statements:
  description: What can be recovered, a sentence a source.
  returned: always
  type: list
  elements: str
found:
  description: What was done, a line each.
  returned: always
  type: list
  elements: str
findings:
  description: What was compared, and what is wrong.
  returned: always
  type: list
  elements: dict
"""

import os
import random
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command, files, units
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import (
    drill,
    fetch,
    job,
    report,
    scratch,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import Parts, RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import StoreError


def argument_spec() -> dict[str, Any]:
    """Return the options of the module."""
    question = {
        "name": {"type": "str", "required": True},
        "url": {"type": "str", "default": ""},
        "argv": {"type": "list", "elements": "str", "default": []},
        "status": {"type": "int", "default": 200},
        "expect": {"type": "str", "default": ""},
    }
    application = {
        "argv": {"type": "list", "elements": "str", "required": True},
        "user": {"type": "str", "default": "nobody"},
        "files": {"type": "dict", "default": {}},
        "ready": {"type": "str", "default": ""},
        "timeout": {"type": "float", "default": 60},
        "questions": {"type": "list", "elements": "dict", "default": [], "options": question},
    }
    remote = {
        "from": {"type": "str", "required": True},
        "identity": {"type": "path"},
        "known_hosts": {"type": "path"},
        "port": {"type": "int", "default": 22},
    }
    return {
        "sources": {"type": "list", "elements": "str", "required": True},
        "root": {"type": "path", "default": "/var/backups/worklog"},
        "fetch": {"type": "dict", "options": remote},
        "scratch": {"type": "path", "default": scratch.ROOT},
        "reports": {"type": "path", "default": "/var/lib/worklog-maintenance/drills"},
        "application": {"type": "dict", "options": application},
        "seed": {"type": "int"},
        "budget": {"type": "str"},
        "limit": {"type": "str", "default": "12h"},
        "unverified": {"type": "bool", "default": False},
        "users": {"type": "dict", "default": {}},
        "server": {"type": "list", "elements": "str"},
        "memory": {"type": "str", "default": "128M"},
        "identity": {"type": "path"},
    }


def main() -> None:
    """Fetch, restore, compare, ask, report."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    given = module.params
    found: list[str] = []
    try:
        budget = units.duration(given["budget"]) if given["budget"] else None
        limit = units.duration(given["limit"])
    except ValueError as error:
        module.fail_json(msg=f"budget and limit must be {error}")
    requests = [
        job.Request(
            given["root"],
            source,
            unverified=given["unverified"],
            scratch=given["scratch"],
            options={
                **{key: given[key] for key in ("memory", "identity", "server")},
                "user": given["users"].get(source),
            },
            timeout=limit,
        )
        for source in given["sources"]
    ]
    parts = Parts()
    try:
        if module.check_mode:
            statements = [job.catalogue(request)[0].statement().sentence() for request in requests]
            module.exit_json(changed=False, good=True, report={}, statements=statements, found=found, findings=[])
        if given["fetch"]:
            remote = fetch.Remote(given["fetch"].pop("from"), **given["fetch"])
            for source in given["sources"]:
                with parts.part("fetch"):
                    fetch.fetch(remote, source, given["root"], run=command.run, timeout=limit, say=found.append)
    except (RestoreError, StoreError) as error:
        module.fail_json(msg=str(error), good=False, report={}, statements=[], found=found, findings=[])
    done = drill.drill(
        requests,
        seed=random.SystemRandom().randrange(1 << 31) if given["seed"] is None else given["seed"],
        application=_application(given["application"]) if given["application"] else None,
        budget=budget,
        limit=limit,
        say=found.append,
        seconds=parts.seconds,
    )
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(done.began))
    base = os.path.join(given["reports"], stamp)
    values: dict[str, Any] = {
        "changed": True,
        "good": done.good,
        "report": done.as_dict(),
        "statements": done.statements,
        "text": report.text(done),
        "page": f"{base}.html",
        "recovery_seconds": done.recovery,
        "found": found,
        "findings": [finding.as_dict() for finding in done.findings],
    }
    try:
        os.makedirs(given["reports"], mode=0o750, exist_ok=True)
        files.replace(values["page"], report.page(done).encode(), mode=0o640)
        files.replace(f"{base}.txt", values["text"].encode(), mode=0o640)
    except (OSError, files.FileError) as error:
        module.fail_json(msg=f"the report could not be written: {error}", **values)
    if not done.good:
        reasons = "; ".join(finding.message for finding in done.findings if finding.severity == "critical")
        module.fail_json(msg=f"the drill has failed: {reasons}", **values)
    module.exit_json(**values)


def _application(given: dict[str, Any]) -> drill.Application:
    questions = tuple(
        drill.Question(**{**question, "argv": tuple(question["argv"])}) for question in given.pop("questions")
    )
    return drill.Application(**{**given, "argv": tuple(given["argv"])}, questions=questions)


if __name__ == "__main__":
    main()
