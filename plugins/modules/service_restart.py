# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_restart
short_description: Restart a service and prove that it is up
description:
  - Restarts, reloads, starts or stops a systemd unit, a PM2 process or a Docker container, and fails unless the service
    is really up afterwards.
  - Before, it looks whether the restart can succeed, that is whether the service exists and is not masked, its
    configuration passes its test, its dependencies answer, no foreign process holds its ports, and disk and memory
    suffice. If one of these fails, nothing is touched.
  - After, it waits until the service is ready and then keeps watch, since a service that is up for two seconds and
    crashes, or that its manager starts again and again, has failed.
  - On failure it returns the last lines of the log, how the process ended and the probable cause, and can put back the
    previous configuration or release and restart the service on that.
  - The downtime is measured, from the last good to the first good answer of the readiness probe.
options:
  name:
    description:
      - Name of the unit, of the PM2 process or of the container.
      - A unit may be a template's instance such as V(worker@2). Without a suffix it is a C(.service).
    type: str
    required: true
  state:
    description:
      - V(restarted) always restarts, a service that did not run is started.
      - V(reloaded) lets a running service read its configuration again, and fails when its manager knows no way to.
        The main process must stay the same. Of nginx, HAProxy and Apache new workers must appear. PM2 replaces the
        instances one after the other. A container gets a SIGHUP.
      - V(reload_or_restarted) reloads where that is possible and restarts otherwise; a container is restarted.
      - V(started) and V(stopped) act only when needed.
    type: str
    choices: [restarted, reloaded, reload_or_restarted, started, stopped]
    default: restarted
  manager:
    description:
      - What manages the service. With V(auto) the one that knows the name; when several do, it fails and names them.
    type: str
    choices: [auto, systemd, pm2, docker]
    default: auto
  user:
    description:
      - Account that PM2 runs as, or whose user manager has the unit. By default the account of the task for PM2 and the
        system's units for systemd.
    type: str
  pm2_home:
    description: The directory PM2_HOME. By default C(.pm2) in the account's home.
    type: path
  pm2_ecosystem:
    description:
      - File that defines the PM2 process. It is read again with every action, and starts a process not defined yet.
    type: path
  config_test:
    description:
      - Test of the configuration before anything is touched.
      - One of V(nginx), V(haproxy), V(sshd), V(mariadb), V(redis) and V(apache), or the argument list of a program that
        exits with 0 when all is well. No shell sees it. It runs as O(user) if that is given.
    type: list
    elements: str
    default: []
  dependencies:
    description:
      - What must answer before anything is touched, each as C(tcp://host:port), C(http://host:port/path),
        C(https://...), C(unix:///path) or C(unit:name).
    type: list
    elements: str
    default: []
  ports:
    description: TCP ports that the service listens on. No process of another service may hold them.
    type: list
    elements: int
    default: []
  disk_free:
    description: Free space needed to start, by path, such as C(/var/lib/mysql) with V(1G).
    type: dict
    default: {}
  memory_available:
    description: Memory needed to start, such as V(512M). What the running service uses counts as available.
    type: str
  ready:
    description:
      - Addresses that must answer for the service to be ready, each as C(http://host:port/path), C(https://...),
        C(tcp://host:port) or C(unix:///path).
      - The manager's own word always counts too, that is the state of the unit (a unit of type notify is up when it has
        said so), C(online) and the C(ready) message of PM2, and the health check of the container.
    type: list
    elements: str
    default: []
  http_status:
    description: HTTP statuses that are good answers. By default 200 to 299.
    type: list
    elements: int
    default: []
  http_body:
    description: Regular expression that the HTTP answer must contain.
    type: str
  http_headers:
    description: Headers to send, such as C(Host).
    type: dict
    default: {}
  validate_certs:
    description: Whether the certificates of https addresses in O(ready) must be valid.
    type: bool
    default: true
  ready_log:
    description: Regular expression of a line that the service logs when it is ready.
    type: str
  ready_status:
    description: Regular expression of the status text that the service tells by sd_notify. Only for systemd.
    type: str
  timeout:
    description: Seconds from the beginning of the action until the service must be ready. Later is a failure.
    type: float
    default: 60
  watch:
    description: Seconds that the service must stay ready after that, as the same processes and without a restart.
    type: float
    default: 10
  fallback_files:
    description:
      - Previous copies of configuration files, by the path of the file, to be put back when the service fails.
    type: dict
    default: {}
  fallback_links:
    description:
      - Previous targets of symbolic links, by the path of the link, to be switched back when the service fails.
    type: dict
    default: {}
  log_files:
    description: Files that the service writes its log to, besides its manager's log.
    type: list
    elements: path
    default: []
  log_lines:
    description: Lines of the log to return after a failure. With V(0) no line of it is returned anywhere.
    type: int
    default: 20
  reset_failed:
    description:
      - Let systemd forget failed starts of the past first, so that its start limit does not refuse this one.
      - After a failure of its own, before it falls back, the module does this by itself and says so.
    type: bool
    default: false
attributes:
  check_mode:
    description: >-
      Looks at everything that it would look at before, touches nothing and says what it would do. A service that runs
      already and is to be V(started) is asked whether it is ready, as otherwise.
    support: full
  diff_mode:
    description: Shows the state and the processes before and after.
    support: full
  idempotent:
    description: V(started) and V(stopped) change nothing when the service is so already; a restart is always a change.
    support: partial
notes:
  - The log may hold secrets of the service. Set O(log_lines=0) to leave it out.
  - For ports of other accounts' processes, units and PM2 of another account, become root.
  - Two calls for one service, as root, wait for each other, also when the controller of one has died.
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Restart the API, and go back to the previous release if it does not come up
  worklog.maintenance.service_restart:
    name: worklog-api
    dependencies: [tcp://db1:3306, tcp://db1:6379]
    ports: [8080]
    ready: [http://127.0.0.1:8080/health]
    http_body: '"ready": *true'
    fallback_links:
      /opt/worklog-api/current: releases/41

- name: Reload nginx only if its configuration is good, and prove that it serves with it
  worklog.maintenance.service_restart:
    name: nginx
    state: reloaded
    config_test: nginx
    ready: [http://127.0.0.1/]

- name: Restart the Node.js application of another account, each instance followed
  worklog.maintenance.service_restart:
    name: lowcode-platform
    manager: pm2
    user: lowcode
    pm2_ecosystem: /srv/lowcode/ecosystem.config.js
    ready: [http://127.0.0.1:3002/health]

- name: Restart a container and wait for its health check
  worklog.maintenance.service_restart:
    name: search
    manager: docker
    timeout: 120
"""

RETURN = r"""
operation:
  description: What was done or would be done, C(start), C(stop), C(restart) or C(reload); none when nothing was needed.
  returned: always
  type: str
  sample: restart
refused:
  description: Whether it failed before anything was touched.
  returned: always
  type: bool
  sample: false
serving:
  description:
    - Whether the service is up and ready now. After a failure this tells whether the node may be put back into a load
      balancer, as after a reload that had no effect. None when it was not looked at.
  returned: always
  type: bool
  sample: true
restored:
  description: Whether it failed, the previous state was put back, and the service runs on that.
  returned: always
  type: bool
  sample: false
downtime_seconds:
  description:
    - Seconds from the last good to the first good answer of the readiness probe, to about 0.05 s. Without an address
      to ask, seconds from the end of the old process to readiness.
    - None when the service did not answer before, or when it never answered again.
  returned: always
  type: float
  sample: 0.412
start_seconds:
  description: Seconds from the beginning of the action until the service was ready.
  returned: always
  type: float
  sample: 0.633
restarts:
  description: How often its manager started it again by itself.
  returned: always
  type: int
  sample: 0
state_before:
  description: State before, in the manager's words.
  returned: always
  type: str
  sample: active (running)
state_after:
  description: State after, in the manager's words.
  returned: always
  type: str
  sample: active (running)
pids_before:
  description: Main processes before, one for each instance.
  returned: always
  type: list
  elements: int
  sample: [1204]
pids_after:
  description: Main processes after.
  returned: always
  type: list
  elements: int
  sample: [2210]
exit_status:
  description: Exit status of the process that failed.
  returned: always
  type: int
  sample: 3
exit_signal:
  description: Signal that ended the process that failed.
  returned: always
  type: str
  sample: SIGSEGV
oom_killed:
  description: Whether the kernel killed it for want of memory.
  returned: always
  type: bool
  sample: false
cause:
  description:
    - Probable cause of the failure, C(configuration), C(dependency), C(port), C(resource), C(permission), C(crash) or
      C(unknown).
  returned: always
  type: str
  sample: port
findings:
  description: Everything that was looked at, as the records of this collection.
  returned: always
  type: list
  elements: dict
  sample:
    - check: service.port
      subject: "8080"
      severity: critical
      message: port 8080 is held by process 811 (python3 -m http.server 8080), which does not belong to unit api.service
      observed: process 811 (python3 -m http.server 8080)
      limit:
      unit:
      advice: end process 811, or let the service listen elsewhere
log_tail:
  description: Last lines of the log after a failure.
  returned: always
  type: list
  elements: str
  sample: ["Error: listen EADDRINUSE: address already in use :::3002"]
"""

import contextlib
import re
import shlex
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible_collections.worklog.maintenance.plugins.module_utils.command import run
from ansible_collections.worklog.maintenance.plugins.module_utils.service.choose import choose
from ansible_collections.worklog.maintenance.plugins.module_utils.service.fallback import prepare
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import ServiceError
from ansible_collections.worklog.maintenance.plugins.module_utils.service.preflight import Needs
from ansible_collections.worklog.maintenance.plugins.module_utils.service.probe import Probe, parse_address
from ansible_collections.worklog.maintenance.plugins.module_utils.service.restart import (
    Outcome,
    Ready,
    Request,
    Restarter,
    alone,
)


def request_of(given: dict[str, Any]) -> Request:
    """Return what the options ask for.

    :raises ServiceError: when an option makes no sense or a previous copy does not exist.
    """
    try:
        for option in ("http_body", "ready_log", "ready_status"):
            re.compile(given[option] or "")
        addresses = [parse_address(url) for url in given["ready"]]
        for dependency in given["dependencies"]:
            if not dependency.startswith("unit:"):
                parse_address(dependency)
        disk_free = {path: human_to_bytes(amount) for path, amount in given["disk_free"].items()}
        memory = human_to_bytes(given["memory_available"] or 0)
        test = given["config_test"]
        test = shlex.split(test[0]) if len(test) == 1 else test
    except re.error as error:
        raise ServiceError(f"'{option}' is not a regular expression: {error}") from error
    except ValueError as error:
        raise ServiceError(str(error)) from error
    headers = {name: str(value) for name, value in given["http_headers"].items()}
    probes = [
        Probe(url, tuple(given["http_status"]), given["http_body"] or "", headers, given["validate_certs"])
        for url in addresses
    ]
    return Request(
        state=given["state"],
        needs=Needs(
            config_test=tuple(test),
            dependencies=tuple(given["dependencies"]),
            ports=tuple(given["ports"]),
            disk_free=disk_free,
            memory_available=memory,
            user=given["user"],
        ),
        ready=Ready(tuple(probes), given["ready_log"] or "", given["ready_status"] or ""),
        timeout=given["timeout"],
        watch=given["watch"],
        fallback=prepare(given["fallback_files"], given["fallback_links"]),
        log_files=tuple(given["log_files"]),
        log_lines=given["log_lines"],
        reset_failed=given["reset_failed"],
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["restarted", "reloaded", "reload_or_restarted", "started", "stopped"],
                "default": "restarted",
            },
            "manager": {"type": "str", "choices": ["auto", "systemd", "pm2", "docker"], "default": "auto"},
            "user": {"type": "str"},
            "pm2_home": {"type": "path"},
            "pm2_ecosystem": {"type": "path"},
            "config_test": {"type": "list", "elements": "str", "default": []},
            "dependencies": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "disk_free": {"type": "dict", "default": {}},
            "memory_available": {"type": "str"},
            "ready": {"type": "list", "elements": "str", "default": []},
            "http_status": {"type": "list", "elements": "int", "default": []},
            "http_body": {"type": "str"},
            "http_headers": {"type": "dict", "default": {}, "no_log": True},
            "validate_certs": {"type": "bool", "default": True},
            "ready_log": {"type": "str"},
            "ready_status": {"type": "str"},
            "timeout": {"type": "float", "default": 60},
            "watch": {"type": "float", "default": 10},
            "fallback_files": {"type": "dict", "default": {}},
            "fallback_links": {"type": "dict", "default": {}},
            "log_files": {"type": "list", "elements": "path", "default": []},
            "log_lines": {"type": "int", "default": 20},
            "reset_failed": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    outcome = Outcome(refused=True)
    try:
        request = request_of(given)
        manager = choose(
            given["name"],
            run,
            kind=given["manager"],
            user=given["user"],
            pm2_home=given["pm2_home"],
            pm2_ecosystem=given["pm2_ecosystem"],
        )
        # twice: the other may have to put back what was there before, and wait for that
        patience = 2 * (request.timeout + request.watch)
        with contextlib.nullcontext() if module.check_mode else alone(manager.title, patience):
            outcome = Restarter(manager, request, run).work(check=module.check_mode)
    except ServiceError as error:
        module.fail_json(msg=f"nothing was touched: {error}", **outcome.as_dict())
    result = outcome.as_dict()
    result["diff"] = {
        side: f"{result[f'state_{side}']}, process {result[f'pids_{side}']}\n" for side in ("before", "after")
    }
    if outcome.failed:
        module.fail_json(msg=outcome.message, **result)
    module.exit_json(msg=outcome.message, **result)


if __name__ == "__main__":
    main()
