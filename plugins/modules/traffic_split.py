# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic_split
version_added: 1.1.0
short_description: Divide the traffic of a load balancer between sides, and prove it
description:
  - Sets how HAProxy or nginx divides its requests between sides such as blue and green, or stable and canary, or only
    reads it. The sides are named by the caller; what a side is made of depends on O(strategy).
  - An exit code is not taken for proof. The division is read back from HAProxy; a reload of nginx counts when only
    workers of a new generation take requests; with O(probe) requests are sent and the answers of each side counted.
  - When anything fails, the old division is put back, and the task fails. Several load balancers are changed as one by
    giving RV(before) back in O(restore) when one of them failed; see the examples.
  - A side can be drained, which is to wait until no request is under way on its servers.
author:
  - Worklog Maintenance contributors (@worklog)
attributes:
  check_mode:
    description: Reads the division and returns the one that would be; nothing is changed, probed or waited for.
    support: full
  diff_mode:
    description: Returns the division before and after, with the weights, states, files or links that make it.
    support: full
  idempotent:
    description: >-
      A second run changes nothing. When a run was cut off, the next one does what is missing of it.
    support: full
options:
  strategy:
    description:
      - What divides the traffic.
      - V(haproxy) sets weights and states by the runtime API, and keeps them for the next reload as O(persist) says.
      - V(nginx_include) writes an C(upstream) with weights into O(path) and reloads.
      - V(nginx_split_clients) writes a C(split_clients) block into O(path) and reloads. A key keeps its side.
      - V(nginx_socket) replaces the symbolic link O(path), which an upstream has as its C(unix:) address. No reload;
        all or nothing.
      - V(nginx_flag) makes or removes the file O(path), which nginx looks for in each request by C(if (-f ...)). No
        reload; all or nothing. The first of O(sides) answers without the file, the second one with it.
      - V(nginx_flags) has such a file for each side, with C(<side>) in O(path). A side gets no requests while its file
        is there; those without one share them as the C(upstream) says, whatever their percentages are.
    type: str
    choices: [haproxy, nginx_include, nginx_split_clients, nginx_socket, nginx_flag, nginx_flags]
    required: true
  sides:
    description:
      - The sides. Without any percentage, weight or state the division is only read.
      - May be left out with O(strategy=haproxy); each server of the backend is a side then.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the side. With V(nginx_split_clients) it is the value of the variable.
        type: str
        required: true
      servers:
        description:
          - With V(haproxy) the names of its servers in the backend.
          - With V(nginx_include) its addresses, each with parameters if wanted, such as C(app1:8080 max_fails=0).
          - With V(nginx_socket) one address C(unix:/path), the socket that this side listens on.
          - Otherwise the addresses by which nginx reaches it; needed only to count what is in flight.
        type: list
        elements: str
        default: []
      percent:
        description:
          - Its share of the requests. The percentages of all sides add up to 100.
          - Servers that somebody has set to drain or maintenance stay so; the others of their side share what it gets.
        type: float
      weight:
        description: The weight of each of its servers, 0 to 256, instead of a percentage. With V(haproxy) only.
        type: int
      state:
        description:
          - The state of its servers. By default it stays as it is. With V(haproxy) only.
          - V(drain) takes no new requests except those of sessions that are tied to a server; V(maint) takes none.
        type: str
        choices: [ready, drain, maint]
      capacity:
        description: How much each server takes compared with the others of its side. By default 1 for each.
        type: dict
        default: {}
      marks:
        description:
          - What O(probe) finds in answers of this side.
          - By default its name, and the names of its servers where no other side has them.
        type: list
        elements: str
        default: []
  restore:
    description:
      - RV(before) of an earlier result of the same task on the same host. Exactly that is brought back; percentages,
        weights and states of O(sides) do not count.
    type: dict
  backend:
    description: The backend of HAProxy.
    type: str
  sockets:
    description:
      - The runtime API of HAProxy, a path or C(host:port), with C(level admin).
      - HAProxy before 2.5 with several processes has one for each; name all.
    type: list
    elements: str
    default: [/run/haproxy/admin.sock]
  persist:
    description:
      - Where the weights and states of HAProxy are kept, since a reload forgets what the runtime API has set.
      - V(configuration) writes C(weight) and C(disabled) into the C(server) lines, and has C(haproxy -c) judge them.
        What writes the configuration afterwards from a template overwrites them.
      - V(state_file) writes the lines of these servers into the file that C(load-server-state-from-file) reads.
      - V(auto) is V(state_file) where the backend reads one, else V(configuration).
      - V(none) keeps nothing, which a finding says.
    type: str
    choices: [auto, configuration, state_file, none]
    default: auto
  path:
    description: The include, link or flag file of the strategies of nginx.
    type: path
  upstream:
    description: Name of the upstream that V(nginx_include) writes.
    type: str
  upstream_options:
    description: Directives for that upstream, each without its semicolon, such as C(least_conn).
    type: list
    elements: str
    default: []
  key:
    description: The key of V(nginx_split_clients), such as C($cookie_uid).
    type: str
  variable:
    description: Name of the variable that V(nginx_split_clients) sets, without C($).
    type: str
  reload:
    description:
      - How nginx is reloaded. V(auto) goes through systemd when nginx runs in a unit of it, else V(signal), which is
        C(nginx -s reload).
    type: str
    choices: [auto, systemd, signal]
    default: auto
  config:
    description: The main configuration file. By default that of the running nginx or HAProxy.
    type: path
  executable:
    description: The program. By default that of the running nginx or HAProxy.
    type: path
  timeout:
    description: Seconds to wait for new workers of nginx.
    type: int
    default: 30
  probe:
    description:
      - Requests that show which side answers. A side that is to get nothing may not answer once, one that gets all has
        to answer always; between them the counts have to be plausible by the binomial distribution (1 in 100,000).
    type: dict
    suboptions:
      url:
        description: An http or https URL of the load balancer.
        type: str
        required: true
      host:
        description: Host header and TLS server name. By default those of the URL.
        type: str
      count:
        description: How many requests, one after the other, each on a connection of its own.
        type: int
        default: 50
      header:
        description:
          - The response header that has the mark.
          - One of O(probe.header), O(probe.json), O(probe.regex) is needed.
        type: str
      json:
        description: Dotted path of the field of a JSON body that has the mark.
        type: str
      regex:
        description: Regular expression over the body; its first group is the mark.
        type: str
      vary:
        description:
          - A request header with C(%s), which is another number in each request; see the examples.
          - Needed where one key always gets the same side.
        type: str
      timeout:
        description: Seconds for one answer.
        type: float
        default: 10
      validate_certs:
        description: Whether TLS certificates are checked.
        type: bool
        default: true
  drain:
    description:
      - Names of sides to wait for until nothing is in flight on them. Each must get 0 percent.
      - HAProxy counts the sessions and the queue of the servers, which is exact. With nginx the connections of this
        host to the servers are counted, which is exact where nginx keeps no connections to its upstream and nothing
        else on the host talks to them.
    type: list
    elements: str
    default: []
  drain_timeout:
    description: Seconds to wait for one side.
    type: float
    default: 60
  drain_timeout_action:
    description:
      - What happens when requests are still under way then. V(fail) fails and puts the old division back if this call
        has changed it. V(continue) goes on with a finding that says how many there are, or why they cannot be counted.
    type: str
    choices: [fail, continue]
    default: fail
  note:
    description:
      - Note RV(before) in the state of a release that is under way, before anything is changed, as
        M(worklog.maintenance.release_state) does with O(worklog.maintenance.release_state#module:weights_before).
      - A release that has lost its lock changes nothing. In check mode nothing is noted.
    type: dict
    suboptions:
      application:
        description: Name of the application.
        type: str
        required: true
      id:
        description: Identifier of the release.
        type: str
        required: true
      step:
        description: Name of the step.
        type: str
        required: true
      name:
        description: Under which name of C(weights_before). What was noted first stays.
        type: str
        required: true
      directory:
        description: Directory of the states.
        type: path
        default: /var/lib/worklog-maintenance/releases
notes:
  - Needs root on the load balancer, or for HAProxy with O(persist=none) an account that may open the socket.
  - Connections that clients hold to old workers of nginx are closed by a reload, which can cost a request that is just
    being sent. C(keepalive_min_timeout) of nginx 1.27.4 and later avoids it.
seealso:
  - name: HAProxy runtime API
    description: The commands used here.
    link: https://docs.haproxy.org/2.6/management.html#9.3
  - name: split_clients
    description: Reference of the module of nginx.
    link: https://nginx.org/en/docs/http/ngx_http_split_clients_module.html
"""

EXAMPLES = r"""
- name: Send a tenth to green, and count the answers
  worklog.maintenance.traffic_split:
    strategy: haproxy
    backend: worklog_api
    sides:
      - name: blue
        servers: [app1]
        percent: 90
      - name: green
        servers: [app2]
        percent: 10
    probe:
      url: http://127.0.0.1/whoami
      host: worklog.example.com
      header: X-Node

- name: Send everything to green, and wait until blue has answered what it has
  worklog.maintenance.traffic_split:
    strategy: nginx_socket
    path: /run/worklog/current.sock
    sides:
      - {name: blue, servers: ["unix:/run/worklog/blue.sock"], percent: 0}
      - {name: green, servers: ["unix:/run/worklog/green.sock"], percent: 100}
    drain: [blue]
    drain_timeout: 30

- name: A canary that keeps its users while it grows
  worklog.maintenance.traffic_split:
    strategy: nginx_split_clients
    path: /etc/nginx/conf.d/worklog-split.conf
    key: $cookie_uid
    variable: worklog_side
    sides:
      - {name: stable, percent: 95, marks: [1.0.0]}
      - {name: canary, percent: 5, marks: [1.1.0]}
    probe:
      url: http://127.0.0.1/health
      host: worklog.example.com
      json: version
      vary: "Cookie: uid=%s"
      count: 400

- name: Read how the backend is divided
  worklog.maintenance.traffic_split:
    strategy: haproxy
    backend: worklog_api
  register: division

# All load balancers change, or none; the options of each are variables of its host
- hosts: load_balancers
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Change all of them as one
      block:
        - name: Switch to green
          worklog.maintenance.traffic_split:
            strategy: "{{ split_strategy }}"
            backend: "{{ split_backend | default(omit) }}"
            path: "{{ split_path | default(omit) }}"
            sides: "{{ split_sides }}"
          register: switched
      rescue:
        - name: Put back those that were changed
          worklog.maintenance.traffic_split:
            strategy: "{{ split_strategy }}"
            backend: "{{ split_backend | default(omit) }}"
            path: "{{ split_path | default(omit) }}"
            sides: "{{ split_sides }}"
            restore: "{{ switched.before }}"
          when: switched is success
        - name: Say that it failed
          ansible.builtin.fail:
            msg: One load balancer did not change, so none has
"""

RETURN = r"""
before:
  description: The division that was found. Given to O(restore), it comes back exactly.
  returned: unless the load balancer could not be read
  type: dict
  contains:
    division: {description: Percentage of each side., type: dict}
    settings:
      description: What makes the division, such as weight, state and kept value of each server, or the file or link.
      type: dict
  sample:
    division: {blue: 100.0, green: 0.0}
    settings:
      strategy: haproxy
      backend: worklog_api
      persist: configuration
      servers:
        app1: {weight: 100, state: ready, kept: {weight: "100", disabled: false}}
        app2: {weight: 0, state: ready, kept: {weight: "0", disabled: false}}
after:
  description: The same when all was done; in check mode what would be.
  returned: success
  type: dict
in_flight:
  description: Requests under way on each side; null where they cannot be counted.
  returned: success
  type: dict
  sample: {blue: 0, green: 12}
proof:
  description: What shows that the division is in force; empty when nothing was changed or probed.
  returned: success
  type: dict
  contains:
    read_back: {description: Weight and state of each server as HAProxy tells them., type: dict}
    old_workers: {description: Process ids of nginx that took requests before., type: list, elements: int}
    new_workers: {description: Process ids of nginx that take requests now., type: list, elements: int}
    seconds: {description: From asking for the reload until no old worker takes requests., type: float}
    link: {description: Where the link points to., type: str}
    present: {description: Whether the flag file is there., type: bool}
    probe: {description: "Number of requests, and of the answers of each side.", type: dict}
drained:
  description: >-
    For each side waited for: requests in flight at first, how many were left, and the seconds it took.
  returned: when something was to be drained
  type: list
  elements: dict
  sample: [{side: blue, in_flight: 20, left: 0, seconds: 1.84}]
applied_at:
  description: >-
    When the load balancer had been told, in seconds since 1970: commands sent, link or flag in place, reload asked for.
    Null when nothing was changed.
  returned: success
  type: float
proven_at:
  description: When it was proven, in seconds since 1970. No request sent later reaches a side that gets nothing.
  returned: success
  type: float
findings:
  description: >-
    The division, and what an operator should know of it, each with check, subject, severity, observed, limit, unit,
    message and advice.
  returned: always
  type: list
  elements: dict
release:
  description: The state of the release, as RV(worklog.maintenance.release_state#module:release).
  returned: with O(note), once it was noted
  type: dict
holder:
  description: The release that holds the lock; empty when none does.
  returned: with O(note), when it is not this one
  type: dict
refused:
  description: Whether nothing was touched, since what was asked or found does not allow it.
  returned: failure
  type: bool
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import System
from ansible_collections.worklog.maintenance.plugins.module_utils.release import state as releases
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import work
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.balancer import Request
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.probe import MarkedProbe
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import Side, TrafficError


def _options() -> dict[str, Any]:
    side = {
        "name": {"type": "str", "required": True},
        "servers": {"type": "list", "elements": "str", "default": []},
        "percent": {"type": "float"},
        "weight": {"type": "int"},
        "state": {"type": "str", "choices": ["ready", "drain", "maint"]},
        "capacity": {"type": "dict", "default": {}},
        "marks": {"type": "list", "elements": "str", "default": []},
    }
    probe = {
        "url": {"type": "str", "required": True},
        "host": {"type": "str"},
        "count": {"type": "int", "default": 50},
        "header": {"type": "str"},
        "json": {"type": "str"},
        "regex": {"type": "str"},
        "vary": {"type": "str"},
        "timeout": {"type": "float", "default": 10},
        "validate_certs": {"type": "bool", "default": True},
    }
    note = {
        "application": {"type": "str", "required": True},
        "id": {"type": "str", "required": True},
        "step": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "directory": {"type": "path", "default": releases.DIRECTORY},
    }
    strategies = ["haproxy", "nginx_include", "nginx_split_clients", "nginx_socket", "nginx_flag", "nginx_flags"]
    return {
        "strategy": {"type": "str", "choices": strategies, "required": True},
        "sides": {"type": "list", "elements": "dict", "default": [], "options": side},
        "restore": {"type": "dict"},
        "backend": {"type": "str"},
        "sockets": {"type": "list", "elements": "str", "default": ["/run/haproxy/admin.sock"]},
        "persist": {"type": "str", "choices": ["auto", "configuration", "state_file", "none"], "default": "auto"},
        "path": {"type": "path"},
        "upstream": {"type": "str"},
        "upstream_options": {"type": "list", "elements": "str", "default": []},
        "key": {"type": "str", "no_log": False},
        "variable": {"type": "str"},
        "reload": {"type": "str", "choices": ["auto", "systemd", "signal"], "default": "auto"},
        "config": {"type": "path"},
        "executable": {"type": "path"},
        "timeout": {"type": "int", "default": 30},
        "probe": {"type": "dict", "options": probe},
        "drain": {"type": "list", "elements": "str", "default": []},
        "drain_timeout": {"type": "float", "default": 60},
        "drain_timeout_action": {"type": "str", "choices": ["fail", "continue"], "default": "fail"},
        "note": {"type": "dict", "options": note},
    }


def _request(given: dict[str, Any], check_mode: bool) -> Request:
    """Return the request the options make."""
    # a survey hands in empty strings for what was left out
    given = {name: None if value == "" else value for name, value in given.items()}
    sides = [
        Side(
            one["name"], tuple(one["servers"]), one["percent"], one["weight"], one["state"],
            {server: float(value) for server, value in one["capacity"].items()}, tuple(one["marks"]),
        )
        for one in given["sides"]
    ]  # fmt: skip
    given_on = ("sockets", "persist", "reload", "config", "executable", "timeout", "drain", "drain_timeout", "restore")
    same: dict[str, Any] = {name: given[name] for name in given_on}
    same.update({name: given[name] or "" for name in ("backend", "path", "upstream", "key", "variable")})
    return Request(
        given["strategy"], sides,
        upstream_options=given["upstream_options"],
        probe=MarkedProbe(**given["probe"]) if given["probe"] else None,
        drain_fails=given["drain_timeout_action"] == "fail",
        check_mode=check_mode,
        **same,
    )  # fmt: skip


def main() -> None:
    """Entry point of the module."""
    nginx = [("strategy", one, ["path", "sides"]) for one in ("nginx_socket", "nginx_flag", "nginx_flags")]
    module = AnsibleModule(
        argument_spec=_options(),
        required_if=[
            ("strategy", "haproxy", ["backend", "sockets"]),
            ("strategy", "nginx_include", ["path", "sides", "upstream"]),
            ("strategy", "nginx_split_clients", ["path", "sides", "key", "variable"]),
            *nginx,
        ],
        supports_check_mode=True,
    )
    balancer = None
    released: dict[str, Any] = {}

    def note(before: dict[str, Any]) -> None:
        """Note in the state of a release what was found."""
        given = module.params["note"]
        if given:
            store = releases.Store(given["directory"], given["application"])
            released["release"] = store.note(given["id"], given["step"], time.time(), {given["name"]: before})

    try:
        system = System(command.run)
        request = _request(module.params, module.check_mode)
        balancer = work.make(request, system)
        outcome = work.carry_out(request, system, balancer, note=note)
    except releases.StateError as error:
        module.fail_json(msg=str(error), refused=True, **({} if error.holder is None else {"holder": error.holder}))
    except ValueError as error:
        module.fail_json(msg=f"the capacity of a server must be a number: {error}", refused=True)
    except TrafficError as error:
        found = [one.as_dict() for one in balancer.findings] if balancer is not None else []
        module.fail_json(msg=str(error), refused=error.refused, **{"findings": found, **error.details, **released})
    names = ("changed", "in_flight", "proof", "drained", "applied_at", "proven_at")
    result = {**{name: getattr(outcome, name) for name in names}, **released}
    result.update(before=work.as_dict(outcome.before), after=work.as_dict(outcome.after))
    result["findings"] = [finding.as_dict() for finding in outcome.findings]
    if module._diff:
        result["diff"] = outcome.diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
