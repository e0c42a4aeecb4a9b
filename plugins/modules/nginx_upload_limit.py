# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_upload_limit
short_description: Set the upload limit of nginx where it counts, and prove that it is in force
description:
  - Finds the effective C(client_max_body_size) of server names and paths by the rules of nginx itself, through
    includes, levels, inheritance, server and location selection, and sets it with the fewest edits that change
    nothing else.
  - Not one other byte of any file changes. C(nginx -t) judges the new files before they are loaded; a reload counts
    only when a new generation of workers has taken over, since nginx returns 0 also when it keeps the old
    configuration. When anything fails, the old files come back.
  - Tells in findings why uploads may still fail.
  - Copies of replaced files are kept below C(/var/backups/worklog-maintenance), the newest ten of each file.
author:
  - Worklog Maintenance contributors (@worklog)
attributes:
  check_mode:
    description: Returns the plan, the findings and the differences; nothing is written or reloaded.
    support: full
  diff_mode:
    description: Returns every file before and after.
    support: full
  idempotent:
    description: >-
      A second run changes nothing; when a run was cut off after writing, the next one loads what was written.
    support: full
options:
  limit:
    description:
      - The largest request body, as nginx reads it, a number of bytes with V(k), V(m) or V(g) or nothing behind it.
      - V(0) means unlimited.
      - Required with O(state=present), unless every one of O(servers) has its own.
    type: str
  servers:
    description:
      - The servers to change. Required unless O(level=http).
      - Servers that only C(return), such as a redirect to HTTPS, are left alone where another server has the same name.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Host name that clients use, or a C(server_name) as it is written, such as V(_) or V(*.example.com).
          - An empty string means the servers without a name.
        type: str
        required: true
      paths:
        description:
          - URL paths that must have the limit. Each means the location that nginx chooses for it.
          - Without any, the server itself is meant, all locations that inherit from it, and C(location /).
            Other locations with a limit of their own keep it, and a finding names them.
        type: list
        elements: str
        default: []
      port:
        description: Only the servers that listen on this port.
        type: int
      default_server:
        description: Whether to take the default server where no server has the name.
        type: bool
        default: false
      limit:
        description: The limit of this server, when it differs from O(limit).
        type: str
  level:
    description:
      - Where the directive is to stand.
      - V(auto) makes the fewest edits that give the asked servers and paths the limit and change no other.
      - V(http), V(server) and V(location) set it at exactly that level; what inherits from there changes too, and a
        finding names it. A directive below that hides it is left and named in a finding.
    type: str
    choices: [auto, http, server, location]
    default: auto
  state:
    description: Whether the limit is to be set, or the directive to be removed at the level that is meant.
    type: str
    choices: [present, absent]
    default: present
  config:
    description:
      - The main configuration file. By default that of the running nginx, also when it was started with C(-c).
      - Needed when several nginx masters run on the host.
    type: path
  executable:
    description: The program. By default that of the running nginx, else C(nginx) on the path.
    type: path
  container:
    description:
      - Name of the Docker or Podman container in which nginx runs, on the host where this module runs.
      - The directories with the configuration must be mounted from the host, since a change in the image would be lost.
    type: str
  reload:
    description:
      - How to reload. V(auto) goes through systemd when nginx runs in a unit of it, else V(signal), which is C(nginx
        -s reload).
      - In a container always C(nginx -s reload), run inside it.
    type: str
    choices: [auto, systemd, signal]
    default: auto
  timeout:
    description: Seconds to wait for the new workers, and for each answer to a probe.
    type: int
    default: 30
  require_running:
    description:
      - Whether it is an error when nginx does not run.
      - By default the files are changed and tested, and a finding says that the limit counts from the next start.
    type: bool
    default: false
  probe:
    description:
      - Whether to ask nginx afterwards, on its own addresses, to take a body one byte below the limit and to refuse
        one that is one byte above.
      - Only headers with C(Expect, 100-continue) are sent, no body. An application behind nginx sees nothing of it
        unless C(proxy_request_buffering) is off; it may see a request that ends at once then.
    type: bool
    default: false
  probe_urls:
    description:
      - URLs to probe instead of nginx's own addresses, such as the published port of a container or an address of a
        proxy in front.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: An http or https URL.
        type: str
        required: true
      host:
        description: Host header and TLS server name. By default those of the URL.
        type: str
  validate_certs:
    description: Whether probes check TLS certificates.
    type: bool
    default: true
  slow_line:
    description:
      - The slowest line that uploads must still work on, in bytes per second, with V(k) or V(m) behind it if wanted.
      - Timeouts shorter than the time an upload of the limit takes are then named in findings.
    type: str
  application_limit:
    description: The application's own limit, written like O(limit). A finding says when it is below that of nginx.
    type: str
  upload_directory:
    description: Directory in which the application stores uploads. Its free space is compared with the limit.
    type: path
  upload_owner:
    description: Account that the application runs as; whether it may write into O(upload_directory) is checked.
    type: str
notes:
  - Needs root on the host.
  - Rewrites, C(try_files) and C(error_page) may send a request on to another location; they are not followed, but a
    finding names them. C(if) and C(limit_except) cannot hold the directive.
  - Included Lua code is left alone.
seealso:
  - name: client_max_body_size
    description: Reference of the directive.
    link: https://nginx.org/en/docs/http/ngx_http_core_module.html#client_max_body_size
"""

EXAMPLES = r"""
- name: Allow uploads of 50 MB to one site and prove it
  worklog.maintenance.nginx_upload_limit:
    limit: 50m
    servers:
      - name: worklog.example.com
    probe: true

- name: Allow large uploads on one path only, and look for what else is in the way
  worklog.maintenance.nginx_upload_limit:
    limit: 2g
    servers:
      - name: files.example.com
        paths: [/api/upload]
        port: 443
    slow_line: 250k
    application_limit: 1g
    upload_directory: /srv/files/uploads
    upload_owner: files

- name: The same limit for all servers, at the http level
  worklog.maintenance.nginx_upload_limit:
    limit: 20m
    level: http

- name: Remove the limit of a site, so that it inherits
  worklog.maintenance.nginx_upload_limit:
    state: absent
    servers:
      - name: files.example.com

- name: In a container whose /etc/nginx is mounted from the host
  worklog.maintenance.nginx_upload_limit:
    container: web
    limit: 50m
    servers:
      - name: worklog.example.com
    probe_urls:
      - url: http://127.0.0.1:8080/
        host: worklog.example.com
"""

RETURN = r"""
limits:
  description: For each server and path what holds before and after. In check mode, after is what would hold.
  returned: when the plan could be made
  type: list
  elements: dict
  contains:
    server: {description: The name asked for., type: str}
    path: {description: The path asked for; null means the server as a whole., type: str}
    listen: {description: Addresses on which this server answers for the name., type: list, elements: str}
    matched_by: {description: "How the name matches: exact, wildcard, regex or default.", type: str}
    scope: {description: The server or location that nginx takes the limit from., type: str}
    scope_at: {description: File and line of that block., type: str}
    before: {description: Limit in bytes before; 0 means unlimited., type: int}
    before_from: {description: "File and line that decide it, or V(default).", type: str}
    after: {description: Limit in bytes after., type: int}
    after_from: {description: "File and line that decide it then, or V(default).", type: str}
  sample:
    - server: worklog.example.com
      path:
      listen: ["*:80"]
      matched_by: exact
      scope: server worklog.example.com
      scope_at: /etc/nginx/sites-enabled/worklog:1
      before: 10485760
      before_from: /etc/nginx/nginx.conf:22
      after: 52428800
      after_from: /etc/nginx/sites-enabled/worklog:2
edits:
  description: The edits, in the order of files and lines.
  returned: when the plan could be made
  type: list
  elements: dict
  contains:
    path: {description: The file as nginx names it., type: str}
    real: {description: The file itself with links followed., type: str}
    line: {description: Line in the file before., type: int}
    kind: {description: "One of replace, insert and remove.", type: str}
    before: {description: Value before; null for an insertion., type: str}
    after: {description: Value after; null for a removal., type: str}
findings:
  description: >-
    What an operator should know, each with check, subject, severity, observed, limit, unit, message and advice.
  returned: always
  type: list
  elements: dict
refused:
  description: Whether nothing was touched, since what was asked or found does not allow it.
  returned: failure
  type: bool
reloaded:
  description: Whether nginx was reloaded.
  returned: success
  type: bool
proof:
  description: What shows that the limit is in force; null when nothing was reloaded or probed.
  returned: success
  type: dict
  contains:
    old_workers: {description: Process ids that served before., type: list, elements: int}
    new_workers: {description: Process ids that serve now., type: list, elements: int}
    seconds: {description: From asking for the reload until no old worker takes requests., type: float}
    probe: {description: "Each request that was made: url, host, size in bytes, status.", type: list, elements: dict}
backups:
  description: For each replaced file the path of its copy.
  returned: success
  type: dict
"""

import gc
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import limit as work
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.diagnose import Circumstances
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.effective import SizeError, parse_size
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import System
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.plan import Ask


def _options() -> dict[str, Any]:
    server = {
        "name": {"type": "str", "required": True},
        "paths": {"type": "list", "elements": "str", "default": []},
        "port": {"type": "int"},
        "default_server": {"type": "bool", "default": False},
        "limit": {"type": "str"},
    }
    url = {"url": {"type": "str", "required": True}, "host": {"type": "str"}}
    return {
        "limit": {"type": "str"},
        "servers": {"type": "list", "elements": "dict", "default": [], "options": server},
        "level": {"type": "str", "choices": ["auto", "http", "server", "location"], "default": "auto"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "config": {"type": "path"},
        "executable": {"type": "path"},
        "container": {"type": "str"},
        "reload": {"type": "str", "choices": ["auto", "systemd", "signal"], "default": "auto"},
        "timeout": {"type": "int", "default": 30},
        "require_running": {"type": "bool", "default": False},
        "probe": {"type": "bool", "default": False},
        "probe_urls": {"type": "list", "elements": "dict", "default": [], "options": url},
        "validate_certs": {"type": "bool", "default": True},
        "slow_line": {"type": "str"},
        "application_limit": {"type": "str"},
        "upload_directory": {"type": "path"},
        "upload_owner": {"type": "str"},
    }


def _request(given: dict[str, Any], check_mode: bool) -> work.Request:
    """Return the request the options make, or raise SizeError or ValueError with what is wrong with them."""
    # a survey hands in empty strings for what was left out
    given = {name: None if value == "" else value for name, value in given.items()}
    if given["timeout"] < 1:
        raise ValueError(f"the timeout is {given['timeout']} s; set at least 1")
    sizes = {name: parse_size(given[name]) for name in ("limit", "slow_line", "application_limit") if given[name]}
    present = given["state"] == "present"
    asks = []
    for server in given["servers"]:
        limit = (server["limit"] or given["limit"]) if present else None
        if present and limit is None:
            raise ValueError(f"the server {server['name']!r} has no limit: set 'limit', or state: absent")
        if limit is not None:
            parse_size(limit)
        asks.append(Ask(server["name"], tuple(server["paths"]), server["port"], server["default_server"], limit))
    if present and given["limit"] is None and not asks:
        raise ValueError("'limit' is missing: set it, or state: absent")
    told = Circumstances(
        sizes.get("slow_line"), sizes.get("application_limit"), given["upload_directory"], given["upload_owner"]
    )
    same = (
        "level",
        "config",
        "executable",
        "container",
        "reload",
        "timeout",
        "require_running",
        "probe",
        "validate_certs",
    )
    urls = [work.ProbeUrl(one["url"], one["host"]) for one in given["probe_urls"]]
    limit = given["limit"] if present else None
    return work.Request(
        asks, limit, probe_urls=urls, told=told, check_mode=check_mode, **{name: given[name] for name in same}
    )


def _plain(value: Any) -> Any:
    """Return a value without the surrogates that stand for undecodable bytes of names."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=_options(), supports_check_mode=True)
    gc.disable()  # a short life and one large tree: looking for garbage would take a third of the time
    try:
        request = _request(module.params, module.check_mode)
        outcome = work.carry_out(request, System(command.run))
    except (SizeError, ValueError) as error:
        module.fail_json(msg=_plain(str(error)), refused=True)
    except work.LimitError as error:
        module.fail_json(msg=_plain(str(error)), **{"refused": False, **_plain(error.details)})
    result = {name: getattr(outcome, name) for name in ("changed", "limits", "edits", "reloaded", "proof", "backups")}
    result["findings"] = [finding.as_dict() for finding in outcome.findings]
    if module._diff:
        result["diff"] = outcome.diff
    module.exit_json(**_plain(result))


if __name__ == "__main__":
    main()
