# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_program
short_description: Install the program that makes backups on the host
description:
  - Packs the program C(worklog-backup) and everything of this collection that it imports into one file on the
    controller, and copies it to the host. It needs Python 3.9 or newer there and nothing else, and no controller once
    it is there.
  - Equal sources make equal bytes, so that a second run changes nothing.
  - It becomes C(/usr/local/sbin/worklog-backup), belongs to root and has mode 0755.
  - The role P(worklog.maintenance.backup#role) calls this, and configures and schedules the program.
version_added: 1.1.0
options: {}
attributes:
  check_mode:
    description: Tells whether the program would be replaced.
    support: full
  diff_mode:
    description: Shows the checksum of the old and of the new program.
    support: full
  idempotent:
    description: Nothing is written when the program is there already.
    support: full
notes:
  - This is an action plugin, it uses M(ansible.builtin.copy) on the host.
seealso:
  - module: worklog.maintenance.backup_schedule
  - module: worklog.maintenance.backup_run
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Install the program
  worklog.maintenance.backup_program:
"""

RETURN = r"""
dest:
  description: Where the program is.
  returned: success
  type: str
  sample: /usr/local/sbin/worklog-backup
checksum:
  description: Its SHA-1.
  returned: success
  type: str
  sample: 6e642bb8dd5c2e027bf21dd923337cbb4214f827
"""
