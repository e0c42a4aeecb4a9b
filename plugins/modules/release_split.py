# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_split
version_added: 1.1.0
short_description: Divide the traffic of an application on a load balancer as its definition says
description:
  - Makes of the definition of an application what M(worklog.maintenance.traffic_split) needs, and calls it on the load
    balancer. What that returns is returned.
  - What can give everything or nothing only gives everything to the side with the largest share. With a flag for each
    host a side also gets requests when its share is at least what its hosts get by themselves.
author:
  - Worklog Maintenance contributors (@worklog)
attributes:
  check_mode:
    description: Reads the division and returns the one that would be.
    support: full
  diff_mode:
    description: Returns the division before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  balancer:
    description: The load balancer as C(release_applications) describes it, which is options of
      M(worklog.maintenance.traffic_split), and C(servers).
    type: dict
    required: true
  members:
    description: The sides, each with a list of its hosts.
    type: dict
    required: true
  shares:
    description: Percentage of each side. Without it, and without O(restore), the division is only read.
    type: dict
  restore:
    description: RV(before) of an earlier result on the same host. Exactly that is brought back.
    type: dict
  drain:
    description: Sides to wait for until no request is under way on them.
    type: list
    elements: str
    default: []
  drain_timeout:
    description: Seconds to wait for one side.
    type: float
    default: 60
  drain_timeout_action:
    description: What happens when requests are still under way then, as for M(worklog.maintenance.traffic_split).
    type: str
    choices: [fail, continue]
    default: fail
  note:
    description:
      - Note what was found in the state of the release before anything is changed, as
        O(worklog.maintenance.traffic_split#module:note) does. C(id) may be left out, as of
        M(worklog.maintenance.release_state).
    type: dict
seealso:
  - module: worklog.maintenance.traffic_split
notes:
  - This is an action plugin; what it calls needs root on the load balancer.
"""

EXAMPLES = r"""
- name: Give a tenth of the requests to green
  worklog.maintenance.release_split:
    balancer: "{{ release_applications['worklog-api'].balancers[inventory_hostname] }}"
    members:
      blue: [app1]
      green: [app2]
    shares:
      blue: 90
      green: 10
  register: switched
"""

RETURN = r"""
before:
  description: What was found, for O(restore).
  returned: success
  type: dict
division:
  description: Percentage of each side when all was done; in check mode what would be.
  returned: success
  type: dict
  sample: {blue: 90.0, green: 10.0}
drained:
  description: Each side that was waited for, as RV(worklog.maintenance.traffic_split#module:drained).
  returned: success
  type: list
  elements: dict
release:
  description: The state of the release, as RV(worklog.maintenance.traffic_split#module:release).
  returned: with O(note)
  type: dict
applied_at:
  description: When the load balancer had been told, in seconds since 1970; null when nothing was changed.
  returned: success
  type: float
proven_at:
  description: When it was proven, in seconds since 1970.
  returned: success
  type: float
findings:
  description: What an operator should know.
  returned: success
  type: list
  elements: dict
"""
