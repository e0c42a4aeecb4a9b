# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: validate_input
short_description: Refuse a wrong host pattern, a wrong value or a misspelt variable before anything is touched
description:
  - Reads the argument specification of a role of this collection and holds the variables of one or of many hosts
    against it, on the controller, in one task.
  - Unlike the check that Ansible makes when a role starts, it also refuses variables that begin with the role's name
    and that the role does not know, which are otherwise ignored silently, and a host pattern that matches no host,
    with which a play otherwise ends successfully without having done anything.
options:
  role:
    description:
      - Name of a role of this collection, without namespace.
      - Variables that begin with this name and an underscore belong to it. Those that end in C(_result) are its output
        and are not looked at.
    type: str
  playbook:
    description:
      - Name of the playbook, when its variables are not those of a role.
      - Variables that begin with this name and an underscore belong to it, and must be among the O(options).
    type: str
  target:
    description:
      - Host pattern. The variables of all hosts that it matches are validated, and it must match at least one.
      - By default only the variables of the current host are validated.
    type: str
  options:
    description: Argument specification of further variables, such as those of the playbook itself.
    type: dict
    default: {}
attributes:
  check_mode:
    description: It only reads.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: It only reads.
    support: full
notes:
  - This is an action plugin, it runs on the controller and needs no connection to a host.
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Validate the input
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Refuse what cannot work
      worklog.maintenance.validate_input:
        role: nginx_upload_limit
        target: "{{ target | default('nginx') }}"
        options:
          upload_limit_serial:
            type: int
"""

RETURN = r"""
hosts:
  description: The hosts whose variables were validated.
  returned: success
  type: list
  elements: str
  sample: [lb1]
problems:
  description: Everything that is wrong, one sentence each.
  returned: failure
  type: list
  elements: str
  sample:
    - "lb1: there is no variable 'nginx_upload_limit_limt'; did you mean 'nginx_upload_limit_limit'?"
"""
