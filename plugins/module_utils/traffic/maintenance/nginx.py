# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nginx: a file in the server that asks for a flag in each request, and a link that is switched by a rename."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, ConfigError, Tree
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.effective import (
    Scope,
    UnknownServer,
    answers,
    build,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import (
    Instance,
    InstanceError,
    ReloadError,
    changed_since,
    locate,
    prove_reload,
    serving_since,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance import pages
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.base import (
    Change,
    Switchable,
    read,
    write,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import (
    MARK,
    MODES,
    PROBE_PATH,
    READING,
    TOKEN_HEADER,
    Site,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError

#: nginx takes no longer directive (NGX_CONF_BUFFER).
_LONGEST = 4000
_ANSWERS = "/.worklog-maintenance/"
_TYPES = {"html": "text/html; charset=utf-8", "json": "application/json"}


def http_part(site: Site) -> str:
    """Return what belongs into the http block: who passes, what is asked, and the texts."""
    key = site.key
    allow = "".join(f"    {network} 1;\n" for network in site.allow)
    exempt = "".join(f"    {_path(path)} exempt;\n" for path in site.exempt)
    token = f'    "~^{site.token}$" 1;\n' if site.token else ""
    reading = "|".join(READING)
    text = f"""\
# {site.name}: who passes (allowed client, token), which paths do, and what a request is answered with
geo ${key}_allow {{
    default 0;
{allow}}}
map $http_{TOKEN_HEADER.lower().replace("-", "_")} ${key}_token {{
    default 0;
{token}}}
map $uri ${key}_path {{
    default normal;
    {PROBE_PATH} probe;
{exempt}}}
map $host ${key}_mode {{
    default "";
}}
map "${key}_path:${key}_allow${key}_token:${key}_mode:$request_method" ${key}_do {{
    default "";
    "~^(probe:[01][01]|normal:00):page:" refuse;
    "~^(probe:[01][01]|normal:00):read_only:(?!({reading})$)" refuse;
    "~^probe:[01][01]:limit:" tell;
}}
map "${key}_path:${key}_allow${key}_token:${key}_mode" ${key}_limited {{
    default "";
    "normal:00:limit" $binary_remote_addr;
}}
limit_req_zone ${key}_limited zone={key}:1m rate={site.rate}r/s;
map $http_accept ${key}_kind {{
    default html;
    "~*text/html" html;
    "~*application/([a-z.]+[+])?json" json;
}}
map $http_accept_language ${key}_language {{
    default en;
    "~*^([^e]|e[^n])*zh" zh;
}}
"""
    for status in (503, 429):
        lines = [
            f"    {kind}{language} {_quoted(pages.body(site, status, kind, language))};\n"
            for kind in ("html", "json")
            for language in pages.LANGUAGES
        ]
        text += f'map "${{{key}_kind}}${key}_language" ${key}_{status} {{\n{"".join(lines)}}}\n'
    return text


def server_part(site: Site, flag: str, limit: bool) -> str:
    """Return what belongs into the server.

    :param flag: the link that leads to the mode.
    :param limit: whether the site can be limited.
    """
    key = site.key
    text = f'set ${key}_mode "";\n'
    for mode in MODES:
        text += f"if (-f {flag}/{mode}) {{\n    set ${key}_mode {mode};\n}}\n"
    text += f"""\
if (${key}_do = refuse) {{
    rewrite ^ {_ANSWERS}503-${key}_kind last;
}}
if (${key}_do = tell) {{
    rewrite ^ {_ANSWERS}limit last;
}}
location = {_ANSWERS}limit {{
    internal;
    default_type text/plain;
    add_header {MARK} limit always;
    return 200 "limit\\n";
}}
"""
    for status in (503, 429):
        for kind, content_type in _TYPES.items():
            text += f"""\
location = {_ANSWERS}{status}-{kind} {{
    internal;
    default_type "{content_type}";
    client_max_body_size 0;
    add_header {MARK} ${key}_mode always;
    add_header Retry-After {pages.retry_after(site, status)} always;
    add_header Cache-Control no-store always;
    add_header Vary "Accept, Accept-Language" always;
    return {status} ${key}_{status};
}}
"""
    if limit:
        text += f"""\
limit_req zone={key} burst={site.burst} nodelay;
limit_req_status 429;
error_page 429 {_ANSWERS}429-${key}_kind;
"""
    return text


def _path(path: str) -> str:
    return f'"~^{re.escape(path[:-1])}"' if path.endswith("*") else path


def _quoted(text: str) -> str:
    """Return a text as nginx reads it; it has neither apostrophes nor ``$``."""
    word = "'" + text.replace("\\", "\\\\") + "'"
    if len(word.encode()) > _LONGEST:
        raise TrafficError(
            "'text' makes a page of more than 4,000 bytes, which nginx does not take: write less", refused=True
        )
    return word


@dataclass
class Nginx(Switchable):
    """One site of the nginx of this host."""

    _found: Instance | None = None

    @property
    def instance(self) -> Instance:
        """The nginx of this host, running or not.

        :raises TrafficError: when there is none, or several.
        """
        if self._found is None:
            try:
                self._found = locate(self.system, executable=self.access.executable, config=self.access.config)
            except (InstanceError, CommandError) as error:
                raise TrafficError(str(error), refused=True) from error
        return self._found

    def running(self) -> bool:
        return self.instance.master is not None

    @property
    def flag(self) -> str:
        """The link that leads to the mode."""
        return os.path.join(self.root, "flags", self.site.file)

    @property
    def in_server(self) -> str:
        """The file that the server includes."""
        return os.path.join(os.path.dirname(self.instance.config), "worklog-maintenance", f"{self.site.file}.conf")

    @property
    def in_http(self) -> str:
        """The file that the http block includes."""
        directory = os.path.dirname(self.instance.config)
        return os.path.join(directory, "conf.d", f"worklog-maintenance-{self.site.file}.conf")

    # -- set-up

    def _scopes(self, config: Config, *, known: bool) -> tuple[Scope, list[Scope]]:
        """Return the http block and the servers of the site.

        :param known: whether there has to be one.
        """
        try:
            http = build(config)
            found = [one.server for one in answers(http, self.site.name)]
        except UnknownServer as error:
            if not known:
                return http, []
            raise TrafficError(f"nginx has no site {self.site.name!r}: {error}", refused=True) from error
        except ConfigError as error:
            raise TrafficError(f"{error}; correct it first", refused=True) from error
        exact = [server for server in found if self.site.name in server.names]
        if not exact and known:
            names = ", ".join(" ".join(server.names) for server in found)
            raise TrafficError(
                f"{self.site.name!r} is answered by a server with the name {names}, which answers for others too: "
                "write its name as it stands there",
                refused=True,
            )
        return http, exact

    def _config(self) -> Config:
        try:
            return Config(self.instance.config, Tree())
        except (ConfigError, OSError) as error:
            raise TrafficError(
                f"the configuration of nginx is broken already, nothing was touched: {error}; correct it first",
                refused=True,
            ) from error

    def changes(self, *, present: bool, overwrite: bool) -> list[Change]:
        config = self._config()
        http, servers = self._scopes(config, known=present)
        line = f"include {self.in_server};"
        edits: dict[str, bytes] = {}
        olds: dict[str, bytes] = {}
        for source, end, indent, there in sorted(_places(servers, self.in_server), key=lambda one: -one[1]):
            old = olds.setdefault(source.real, source.data)
            data = edits.get(source.real, old)
            if present and not there:
                edits[source.real] = data[:end] + b"\n" + indent + line.encode() + data[end:]
            elif there and not present:
                edits[source.real] = re.sub(rb"\n[ \t]*" + re.escape(line.encode()), b"", data)
        foreign = [Change(path, olds[path], new, ours=False) for path, new in edits.items() if new != olds[path]]
        paths = (self.in_http, self.in_server)
        if not present:
            gone = [Change(path, read(path), None, secret=path == self.in_http) for path in paths]
            for one in gone:
                self.refuse_edited(one.path, one.old, overwrite)
            ours = [one for one in gone if one.old is not None]
        else:
            limit = not self._limits(http, servers)
            wanted = {self.in_http: http_part(self.site), self.in_server: server_part(self.site, self.flag, limit)}
            ours = self.generated(wanted, overwrite, secret=[self.in_http])
            self._must_see_flag(servers)
        found = [*ours, *foreign]
        if found:
            self._test("the configuration of nginx is broken already, nothing was touched")
        return found

    def _must_see_flag(self, servers: list[Scope]) -> None:
        for server in servers:
            cache = server.find("open_file_cache")
            if cache is not None and cache.args[:1] != ["off"]:
                raise TrafficError(
                    f"nginx would see a mode late, since open_file_cache is on there ({cache.place}): set "
                    "'open_file_cache off;' in that server",
                    refused=True,
                )

    def _limits(self, http: Scope, servers: list[Scope]) -> str:
        """Return the place of what a limit of ours would change or be lost to."""
        ours = (self.in_server, self.in_http)

        def own(scope: Scope, *names: str) -> str:
            return next((one.place for one in scope.body if one.name in names and one.source.path not in ours), "")

        limits = ("limit_req", "limit_req_status", "limit_req_dry_run")
        for server in servers:
            found = own(http, *limits) or ("" if own(server, "error_page") else own(http, "error_page"))
            for scope in server.walk():
                found = found or own(scope, *limits, *(() if scope is server else ("error_page",)))
            if found:
                return found
        return ""

    def no_limit(self) -> str:
        http, servers = self._scopes(self._config(), known=True)
        place = self._limits(http, servers)
        return (
            f"a limit or error_page of its own is there ({place}), which would change or take precedence"
            if place
            else ""
        )

    def _test(self, broken: str) -> None:
        """See that nginx takes the configuration on disk.

        :param broken: what to say when it does not.
        :raises TrafficError: when it does not.
        """
        try:
            tested = self.instance.test()
        except CommandError as error:
            raise TrafficError(f"{broken}: {error}", refused=True) from error
        if not tested.ok:
            raise TrafficError(f"{broken}: {tested.describe()}", refused=True)

    def stale(self) -> bool:
        since = serving_since(self.instance)
        if since is None:
            return False
        return bool({self.in_http, self.in_server} & set(changed_since(self._config(), since)))

    def load(self) -> dict[str, Any]:
        self._test("nginx refuses the set-up")
        config = self._config()
        if os.path.lexists(self.in_http) and self.in_http not in config.files:
            raise TrafficError(
                f"{self.in_http} is not included by {config.path}: write "
                f"'include {os.path.dirname(self.in_http)}/*.conf;' into the http block"
            )
        self.asked = True
        try:
            proof = prove_reload(
                self.instance, self.instance.error_logs(config), self.access.reload, self.access.timeout
            )
        except ReloadError as error:
            raise TrafficError(str(error)) from error
        return proof.as_dict()

    # -- the switch

    def mode(self) -> str:
        try:
            found = os.path.basename(os.readlink(self.flag)) if os.path.lexists(self.flag) else "off"
        except OSError as error:
            raise TrafficError(f"{self.flag} is no link ({error.strerror}): remove it", refused=True) from error
        return found if found in MODES else "off"

    def switch(self, mode: str) -> None:
        try:
            if mode == "off":
                write(self.flag, None)
                return
            os.makedirs(os.path.dirname(self.flag), mode=0o755, exist_ok=True)
            write(os.path.join(self.root, "modes", mode, mode), b"")
            files.switch_link(self.flag, os.path.join("..", "modes", mode))
        except OSError as error:
            raise TrafficError(f"cannot switch {self.flag}: {error.strerror}") from error
        for place in (self.root, os.path.dirname(self.flag)):
            if not os.stat(place).st_mode & 0o001:
                raise TrafficError(f"the workers of nginx cannot look into {place}: let others enter it (mode o+x)")


def _places(servers: list[Scope], path: str) -> Iterator[tuple[Any, int, bytes, bool]]:
    """Yield file, offset behind the brace, indentation, and whether the line is there, once for each server block."""
    seen = set()
    for server in servers:
        block, source = server.directive, server.directive.source
        if (source.real, block.end) in seen:
            continue
        seen.add((source.real, block.end))
        there = any(one.name == "include" and one.args == [path] for one in block.block or [])
        first = block.block[0].start if block.block else block.end
        before = source.data[source.data.rfind(b"\n", 0, first) + 1 : first]
        yield source, block.end, before if not before.strip() else b"    ", there
