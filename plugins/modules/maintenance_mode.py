# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance_mode
version_added: 1.1.0
short_description: Show a maintenance page, take reading requests only or limit requests, until a time, and prove it
description:
  - Switches one site of one nginx or HAProxy into a maintenance mode, out of it, or tells which one it is in.
  - What the load balancer needs is set up the first time, tested, loaded by a reload that is proven, and taken back
    byte for byte when that fails. From then on a switch needs no reload, so that no request is lost by it, and
    requests under way are answered.
  - A mode ends by itself at a time. A timer of systemd on the load balancer sees to that, whether a controller is there
    or not, and leaves a record. A mode that nothing would end is not switched on.
  - An exit code is not taken for proof. The switch is read back, and the load balancer is asked by a request that only
    it answers, in the way of the mode. When anything fails, everything is put back, and the task fails.
author:
  - Worklog Maintenance contributors (@worklog)
attributes:
  check_mode:
    description: Tells what would be; nothing is changed or asked of the load balancer.
    support: full
  diff_mode:
    description: Shows every file that is written, and the mode before and after. Of a token only that it changes.
    support: full
  idempotent:
    description: >-
      The same mode without O(expires), or with the same time, is unchanged. Minutes count from now, so that they extend
      the mode.
    support: full
options:
  site:
    description:
      - The host name of the site, as the load balancer has it.
      - With V(nginx) a C(server_name) as it is written; every server that has it is switched. V(_) and wildcards too.
      - With V(haproxy) V(*) means every host of the frontends.
    type: str
    required: true
  mode:
    description:
      - V(page) answers everything with 503, C(Retry-After) and a page in English or Chinese, or JSON for clients that
        ask for it and for no HTML.
      - V(read_only) does that to every method but GET, HEAD and OPTIONS.
      - V(limit) answers with 429 and C(Retry-After) what a client address asks beyond O(rate) and O(burst).
      - V(off) lets everything pass.
      - V(absent) is off, and takes out of the configuration what was set up.
      - V(status) only reads, and tells by findings what is not as it seems.
    type: str
    choices: [page, read_only, limit, "off", absent, status]
    required: true
  balancer:
    description: Which load balancer it is.
    type: str
    choices: [nginx, haproxy]
    required: true
  expires:
    description:
      - When the mode ends, in minutes from now, such as V(90), or as a time with its zone, such as
        V(2026-01-31T04:00:00Z). At most 24 hours ahead.
      - By default two hours from now; a mode that is on already keeps its time.
    type: str
  reason:
    description: Why. Required with V(page), V(read_only) and V(limit).
    type: str
  by:
    description: Who. By default the user of AWX, or of the controller.
    type: str
  run_id:
    description: Names the run in the record. By default that of the run that the task belongs to.
    type: str
  allow:
    description: Addresses and networks of clients that pass in every mode.
    type: list
    elements: str
    default: []
  token:
    description:
      - Whoever sends this in the header C(X-Maintenance-Token) passes in every mode. 16 to 128 letters, digits, C(_) or
        C(-).
      - It is kept in a file that only root can read. The application sees the header.
    type: str
  exempt:
    description: Paths that pass in every mode, such as those of health checks. With C(*) at the end all that begin so.
    type: list
    elements: str
    default: []
  text:
    description: What the page says, by language, C(en) and C(zh); one line each. By default a friendly general text.
    type: dict
    default: {}
  retry_after:
    description: Seconds after which clients are asked to come again, in V(page) and V(read_only).
    type: int
    default: 120
  rate:
    description: Requests a second that a client address has in V(limit).
    type: int
    default: 10
  burst:
    description: Requests that it may send at once.
    type: int
    default: 20
  url:
    description: Where the load balancer answers for the site, as seen from its host.
    type: str
    default: http://127.0.0.1/
  validate_certs:
    description: Whether the certificate is checked then.
    type: bool
    default: true
  frontends:
    description: The frontends of HAProxy that the site is in. Required to switch a mode on.
    type: list
    elements: str
    default: []
  sockets:
    description: The runtime API of HAProxy, a path or C(host:port), with C(level admin).
    type: list
    elements: str
    default: [/run/haproxy/admin.sock]
  config:
    description: The main configuration file. By default that of the running nginx or HAProxy.
    type: path
  executable:
    description: The program. By default that of the running nginx or HAProxy.
    type: path
  reload:
    description: How nginx is reloaded for the set-up. V(auto) goes through systemd when nginx runs in a unit of it.
    type: str
    choices: [auto, systemd, signal]
    default: auto
  timeout:
    description: Seconds to wait for a reload to take effect.
    type: int
    default: 30
  overwrite:
    description: Whether generated files that were edited by hand are written anew. By default they are left alone, with
      an error.
    type: bool
    default: false
  restore:
    description: RV(before) of an earlier result of the same task on the same host; that is brought back. Several load
      balancers are switched as one by it; see the examples.
    type: dict
notes:
  - Needs root, and systemd.
  - This is an action plugin. It also puts the program C(/usr/local/sbin/worklog-maintenance-mode) on the host, which
    ends modes and can be used there by hand (C(status), C(off SITE)).
  - With HAProxy the block of rules in the configuration is gone when something writes that file from a template. The
    next call sets it up again.
seealso:
  - module: worklog.maintenance.traffic_split
"""

EXAMPLES = r"""
- name: Show the page for half an hour
  worklog.maintenance.maintenance_mode:
    site: worklog.example.com
    balancer: nginx
    mode: page
    expires: 30
    reason: upgrade of the database
    allow: [192.0.2.0/24]
    exempt: [/health]

- name: Take no changes while the database is copied
  worklog.maintenance.maintenance_mode:
    site: worklog.example.com
    balancer: haproxy
    frontends: [web]
    mode: read_only
    expires: "2026-01-31T04:00:00+08:00"
    reason: copy of the database

- name: Switch it off
  worklog.maintenance.maintenance_mode:
    site: worklog.example.com
    balancer: nginx
    mode: "off"

# All load balancers are switched, or none
- hosts: load_balancers
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Switch all of them as one
      block:
        - name: Show the page
          worklog.maintenance.maintenance_mode: &mode
            site: worklog.example.com
            balancer: "{{ balancer }}"
            frontends: "{{ frontends | default([]) }}"
            mode: page
            reason: upgrade of the database
          register: switched
      rescue:
        - name: Put back those that were switched
          worklog.maintenance.maintenance_mode:
            site: worklog.example.com
            balancer: "{{ balancer }}"
            frontends: "{{ frontends | default([]) }}"
            mode: page
            restore: "{{ switched.before }}"
          when: switched is success
        - name: Say that it failed
          ansible.builtin.fail:
            msg: One load balancer was not switched, so none is
"""

RETURN = r"""
before:
  description: The mode that was found. Given to O(restore), it comes back.
  returned: unless the load balancer could not be read
  type: dict
  contains:
    mode: {description: The mode., type: str}
    by: {description: Who set it., type: str}
    reason: {description: Why., type: str}
    since: {description: Since when., type: str}
    until: {description: When it ends., type: str}
    run_id: {description: The run that set it., type: str}
  sample:
    mode: page
    by: operator
    reason: upgrade of the database
    since: "2026-01-31T02:00:00Z"
    until: "2026-01-31T04:00:00Z"
    run_id: job-4711
after:
  description: The same when all was done; in check mode what would be.
  returned: success
  type: dict
seconds:
  description: How long the mode was on that has ended; null when none has.
  returned: success
  type: int
setup:
  description: The files that were written or removed, or would be.
  returned: success
  type: list
  elements: str
proof:
  description: What shows that the mode is in force.
  returned: success
  type: dict
  contains:
    reload: {description: The processes before and after a reload., type: dict}
    answers: {description: "Method, status and mode of each answer to the probe.", type: list, elements: dict}
applied_at:
  description: When the load balancer was switched, in seconds since 1970; null when it was not.
  returned: success
  type: float
proven_at:
  description: When that was proven, in seconds since 1970.
  returned: success
  type: float
findings:
  description: >-
    The mode, and what an operator should know of it, each with check, subject, severity, observed, limit, unit, message
    and advice.
  returned: always
  type: list
  elements: dict
refused:
  description: Whether nothing was touched, since what was asked or found does not allow it.
  returned: failure
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import System
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance import work
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.host import Host
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import Access, Site
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError


def _options() -> dict[str, Any]:
    return {
        "site": {"type": "str", "required": True},
        "mode": {"type": "str", "choices": ["page", "read_only", "limit", "off", "absent", "status"], "required": True},
        "balancer": {"type": "str", "choices": ["nginx", "haproxy"], "required": True},
        "expires": {"type": "str"},
        "reason": {"type": "str"},
        "by": {"type": "str"},
        "run_id": {"type": "str"},
        "allow": {"type": "list", "elements": "str", "default": []},
        "token": {"type": "str", "no_log": True},
        "exempt": {"type": "list", "elements": "str", "default": []},
        "text": {"type": "dict", "default": {}},
        "retry_after": {"type": "int", "default": 120},
        "rate": {"type": "int", "default": 10},
        "burst": {"type": "int", "default": 20},
        "url": {"type": "str", "default": "http://127.0.0.1/"},
        "validate_certs": {"type": "bool", "default": True},
        "frontends": {"type": "list", "elements": "str", "default": []},
        "sockets": {"type": "list", "elements": "str", "default": ["/run/haproxy/admin.sock"]},
        "config": {"type": "path"},
        "executable": {"type": "path"},
        "reload": {"type": "str", "choices": ["auto", "systemd", "signal"], "default": "auto"},
        "timeout": {"type": "int", "default": 30},
        "overwrite": {"type": "bool", "default": False},
        "restore": {"type": "dict"},
    }


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=_options(), supports_check_mode=True)
    # a survey hands in empty strings for what was left out
    given: dict[str, Any] = {name: None if value == "" else value for name, value in module.params.items()}

    def chosen(*names: str) -> dict[str, Any]:
        return {name: tuple(given[name]) if isinstance(given[name], list) else given[name] for name in names}

    site = Site(
        given["site"] or "",
        text={language: str(said) for language, said in given["text"].items() if said},
        **chosen("allow", "token", "exempt", "retry_after", "rate", "burst"),
    )
    reached = ("url", "validate_certs", "frontends", "sockets", "config", "executable", "reload", "timeout")
    access = Access(**chosen("balancer", *reached))
    ask = work.Ask(
        check_mode=module.check_mode, **chosen("mode", "expires", "reason", "by", "run_id", "overwrite", "restore")
    )
    try:
        outcome = work.carry_out(site, access, ask, Host(System(command.run)))
    except TrafficError as error:
        module.fail_json(msg=str(error), refused=error.refused, **{"findings": [], **error.details})
    names = ("changed", "proof", "setup", "seconds", "applied_at", "proven_at")
    result = {name: getattr(outcome, name) for name in names}
    result.update(before=outcome.before.as_dict(), after=outcome.after.as_dict())
    result["findings"] = [finding.as_dict() for finding in outcome.findings]
    if module._diff:
        result["diff"] = outcome.diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
