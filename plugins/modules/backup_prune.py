# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_prune
short_description: Remove backups that newer verified ones make redundant
description:
  - Plans first, and says for each backup whether it stays or goes and why; then removes what may go.
  - What is kept of a source, and where copies of it must be first, is in the configuration of the program
    C(worklog-backup), which does the same from a timer with C(worklog-backup prune).
  - Never removes the newest two verified backups, of a source and of each kind that stands alone; what another one that
    stays is based on; the logs from the oldest recent full backup on; what a tier has no proven copy of, where that is
    asked for; what is no backup of this collection.
  - Removes nothing at all when the newest backup that stands alone is not verified or the newest verified one is too
    old, when the clock jumped, or when more than the allowed share of all backups would go.
  - Age counts against the newest verified backup, and the order is that in which the backups were made, so that nothing
    grows old while backups fail.
version_added: 1.1.0
options:
  config:
    description: The configuration of the program.
    type: path
    default: /etc/worklog-maintenance/backup.json
  sources:
    description: The sources to prune. By default all in the configuration.
    type: list
    elements: str
  places:
    description:
      - Where to prune, V(local) on this host, V(remote) in the remote tier of those sources that have one.
      - The off-site tier is kept for ever, and nothing can remove what is in it.
    type: list
    elements: str
    choices: [local, remote]
    default: [local]
  allow:
    description:
      - Refusals to override this time.
      - V(share), more than the allowed share of all backups goes.
      - V(clock), more time than the allowed pause has passed since the last run.
    type: list
    elements: str
    choices: [share, clock]
    default: []
  report_only:
    description:
      - Report and never fail because of a refusal, so that a playbook can report all hosts before it fails.
      - Use RV(refused) to decide.
    type: bool
    default: false
attributes:
  check_mode:
    description: Returns the plan with all reasons, and what would go. Nothing is written.
    support: full
  diff_mode:
    description: Shows the backups before and after.
    support: full
  idempotent:
    description: A second run removes nothing, unless something has grown old meanwhile.
    support: full
notes:
  - What is about to go is written down first, and a backup loses its name before it is removed. After a crash there are
    whole backups only, and the next run goes on.
  - The remote tier needs the program C(restic) on the host.
seealso:
  - module: worklog.maintenance.backup_verify
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Show what would go, and why
  worklog.maintenance.backup_prune:
  check_mode: true
  register: backup_prune_result

- name: Prune the backups of one source, here and in the remote tier
  worklog.maintenance.backup_prune:
    sources: [worklog]
    places: [local, remote]

- name: Prune for the first time where old backups have piled up
  worklog.maintenance.backup_prune:
    allow: [share]
"""

RETURN = r"""
plan:
  description: What becomes of each backup, in the order in which they were made.
  returned: always
  type: list
  elements: dict
  contains:
    subject:
      description: The source, and the tier when it is not this host.
      type: str
    id:
      description: Names the backup for ever.
      type: str
    path:
      description: Its directory, or its place in the tier.
      type: str
    kind:
      description: C(full), C(incremental), C(log), ...
      type: str
    sequence:
      description: Its number in the order in which they were made.
      type: int
    verdict:
      description: What the last verification said, null before the first.
      type: str
    size:
      description: Bytes of its files; 0 in a tier, where that is not known.
      type: int
    keep:
      description: Whether it stays.
      type: bool
    reason:
      description: Why, in one sentence.
      type: str
      sample: it is older than 7 d, and 5 newer verified ones stand alone
deleted:
  description: Paths that are gone, or would be in check mode.
  returned: always
  type: list
  elements: str
freed:
  description: Bytes on disk that this freed on this host; files that other snapshots share do not count.
  returned: always
  type: int
refused:
  description: Why nothing went, as C(subject, sentence), for those sources where that was refused or failed.
  returned: always
  type: list
  elements: str
findings:
  description: The findings of all sources.
  returned: always
  type: list
  elements: dict
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import prune, pruning, store
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import account, keeping
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import config as configuration
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restic import ResticError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.tiers import TierError
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding


def main() -> None:
    """Prune every source in every place, then judge."""
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "path", "default": configuration.PATH},
            "sources": {"type": "list", "elements": "str"},
            "places": {"type": "list", "elements": "str", "choices": ["local", "remote"], "default": ["local"]},
            "allow": {"type": "list", "elements": "str", "choices": list(prune.OVERRIDES), "default": []},
            "report_only": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        config = configuration.load(options["config"])
        chosen = [configuration.find(config, name) for name in options["sources"] or config.sources]
    except configuration.ConfigError as error:
        module.fail_json(msg=str(error))

    outcomes: list[pruning.Outcome] = []
    refused: list[str] = []
    findings: list[Finding] = []
    for source in chosen:
        for place in [name for name in options["places"] if name in keeping.prunable(source)]:
            try:
                with account.acting(source):
                    outcome = keeping.prune(
                        config,
                        source,
                        place,
                        now=time.time(),
                        allow=options["allow"],
                        dry=module.check_mode,
                        say=lambda text: None,
                    )
            except (configuration.ConfigError, store.StoreError, ResticError, TierError) as error:
                refused.append(f"{source.name} {place}: {error}")
                findings.append(Finding("backup.prune", f"{source.name} {place}", "critical", str(error)))
                continue
            outcomes.append(outcome)
            findings += outcome.findings
            if outcome.failed or outcome.refused:
                refused.append(f"{outcome.subject}: {outcome.failed or outcome.refused}")

    deleted = [path for outcome in outcomes for path in outcome.deleted]
    before = [decision.backup.path for outcome in outcomes for decision in outcome.plan.decisions]
    values: dict[str, Any] = {
        "changed": bool(deleted),
        "plan": [row for outcome in outcomes for row in outcome.rows()],
        "deleted": deleted,
        "freed": sum(outcome.freed or 0 for outcome in outcomes),
        "refused": refused,
        "findings": [finding.as_dict() for finding in findings],
        "diff": {
            "before": "".join(f"{path}\n" for path in before),
            "after": "".join(f"{path}\n" for path in before if path not in set(deleted)),
        },
    }
    if refused and not options["report_only"]:
        module.fail_json(msg="; ".join(refused), **values)
    module.exit_json(**values)


if __name__ == "__main__":
    main()
