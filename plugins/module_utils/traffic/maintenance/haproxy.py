# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HAProxy: a block of rules in each frontend, and a map that is switched by the runtime API and kept for a reload."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import unit_of
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import haproxy_api as api
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.balancer import known
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.haproxy import (
    CHECK_TIMEOUT,
    Program,
    find_program,
    load,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.haproxy_config import (
    Configuration,
    Section,
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
    sealed,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError

#: Rules that would be evaluated before ours if ours stood behind them.
_BEFORE = ("http-request", "redirect", "use_backend", "default_backend", "http-response", "http-after-response")
_TYPES = {"html": "text/html; charset=utf-8", "json": "application/json"}


def rules(site: Site, directory: str, limit: bool) -> str:
    """Return the rules for a frontend.

    :param directory: where the map, the texts and the token are.
    :param limit: whether the site can be limited.
    """
    key, own = site.key, os.path.join(directory, site.file)
    exact = [path for path in site.exempt if not path.endswith("*")]
    begins = [path[:-1] for path in site.exempt if path.endswith("*")]
    lines = [f"acl {key}_probe path {PROBE_PATH}"]
    lines += [f"acl {key}_client always_false", f"acl {key}_exempt always_false"]
    lines += [f"acl {key}_client src {' '.join(site.allow)}"] if site.allow else []
    lines += [f"acl {key}_client req.hdr({TOKEN_HEADER}) -m str -f {own}.token"] if site.token else []
    lines += [f"acl {key}_exempt path {' '.join(exact)}"] if exact else []
    lines += [f"acl {key}_exempt path_beg {' '.join(begins)}"] if begins else []
    lines += [f"acl {key}_climbs path -m sub -i /. %2e"]  # from an exempt path to another
    host = "" if site.name == "*" else f"{{ {_host(site)} }} "
    lines += [
        f"http-request set-var(txn.{key}) str({site.name}),map_str({directory}/modes.map,off) "
        f"if {host}{key}_probe or {host}!{key}_client !{key}_exempt or {host}!{key}_client {key}_climbs",
        f"acl {key}_page var(txn.{key}) -m str page",
        f"acl {key}_read_only var(txn.{key}) -m str read_only",
        f"acl {key}_limit var(txn.{key}) -m str limit",
        f"acl {key}_reading method {' '.join(READING)}",
        f"acl {key}_json req.hdr(Accept) -m reg -i application/([a-z.]+[+])?json",
        f"acl {key}_html req.hdr(Accept) -m sub -i text/html",
        f"acl {key}_zh req.fhdr(Accept-Language) -m reg -i '^([^e]|e[^n])*zh'",
        f"http-request set-var(txn.{key}_do) str(refuse) if {key}_page or {key}_read_only !{key}_reading",
        f"acl {key}_refuse var(txn.{key}_do) -m str refuse",
    ]
    lines += _returns(site, 503, own, f"{key}_refuse")
    lines += [
        f'http-request return status 200 content-type text/plain string "limit" hdr {MARK} limit '
        f"if {key}_limit {key}_probe"
    ]
    if limit:
        over = f"{{ src,table_http_req_rate({key}) ge {max(site.rate, site.burst)} }}"
        lines += _returns(site, 429, own, f"{key}_limit {over}")
        lines += [f"http-request track-sc2 src table {key} if {key}_limit"]
    return "".join(f"\t{line}\n" for line in lines)


def _returns(site: Site, status: int, own: str, condition: str) -> list[str]:
    key = site.key
    found = []
    for kind, among in (("json", f"{key}_json !{key}_html"), ("html", "")):
        for language, spoken in (("zh", f"{key}_zh"), ("en", "")):
            also = " ".join(one for one in (condition, among, spoken) if one)
            found.append(
                f'http-request return status {status} content-type "{_TYPES[kind]}" '
                f"file {own}.{status}.{kind}.{language} "
                f"hdr {MARK} %[var(txn.{key})] hdr Retry-After {pages.retry_after(site, status)} "
                f'hdr Cache-Control no-store hdr Vary "Accept, Accept-Language" if {also}'
            )
    return found


def _host(site: Site) -> str:
    if site.name.startswith("*."):
        return f"hdr(host),field(1,:) -m end -i {site.name[1:]}"
    return f"hdr(host),field(1,:) -i {site.name}"


def table(site: Site) -> str:
    """Return the section that counts requests: in any time that the burst is made for, no more than the rate allows."""
    window = max(1, round(site.burst / site.rate))
    return (
        f"backend {site.key}\n\tstick-table type ipv6 size 100k expire {window + 1}s store http_req_rate({window}s)\n"
    )


def begin(site: Site) -> str:
    """Return the line before a block of ours."""
    return f"\t# {site.name}: maintenance mode, made by worklog.maintenance.maintenance_mode\n"


def end(site: Site) -> str:
    """Return the line behind a block of ours."""
    return f"\t# {site.name}: end of maintenance mode\n"


def without(text: str, site: Site) -> tuple[str, list[str]]:
    """Return a text without the blocks of a site, and those blocks."""
    pattern = re.compile(re.escape(begin(site)) + r"(.*?)" + re.escape(end(site)), re.DOTALL)
    return pattern.sub("", text), pattern.findall(text)


def place(section: Section) -> int:
    """Return the number of the line before which the rules of a frontend belong.

    Before all that answers or chooses, but after what tells the address of the client.
    """
    rules_there = [
        (number, line[1].value if len(line) > 1 else "")
        for _path, number, line in section.lines
        if line[0].value in _BEFORE
    ]
    address = [number + 1 for number, action in rules_there if action.startswith("set-src")]
    return (
        address[-1] if address else min((number for number, _action in rules_there), default=section.lines[-1][1] + 1)
    )


def mode_of(text: str, site: str) -> str | None:
    """Return the mode of a site in the map, None when it is not there."""
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return next((row[1] for row in rows if len(row) == 2 and row[0] == site), None)


def map_with(text: str, site: str, mode: str | None) -> str:
    """Return the map with another mode of a site; None takes the site out."""
    rows = [line for line in text.splitlines() if line.strip() and line.split()[0] != site]
    rows += [f"{site} {mode}"] if mode is not None else []
    return "".join(f"{row}\n" for row in rows)


@dataclass
class Haproxy(Switchable):
    """One site of the HAProxy of this host."""

    speak: api.Speaker = api.speak
    _program: Program | None = None

    # -- the process

    def running(self) -> bool:
        address = self.access.sockets[0]
        return not (address.startswith("/") and not os.path.exists(address)) and bool(self._pid(missing=""))

    def _pid(self, missing: str | None = None) -> str:
        try:
            return api.info(self.speak(self.access.sockets[0], "show info")).get("Pid", "")
        except TrafficError as error:
            if missing is not None and "no HAProxy answers" in str(error):
                return missing
            raise

    @property
    def program(self) -> Program:
        """The running HAProxy.

        :raises TrafficError: when it is not found on this host.
        """
        if self._program is None:
            missing = "" if self.access.config else None
            pid = self._pid(missing) or "none"
            self._program = find_program(pid, self.access.config, self.access.executable, self.system.proc)
        if self._program is None:
            raise TrafficError(
                "the configuration of HAProxy is not found on this host: name it in 'config'", refused=True
            )
        return self._program

    @property
    def directory(self) -> str:
        """Where the map, the texts and the token are."""
        path = self.program.paths[0]
        return os.path.join(path if os.path.isdir(path) else os.path.dirname(path), "worklog-maintenance")

    @property
    def map(self) -> str:
        """The map of the modes, as HAProxy knows it."""
        return os.path.join(self.directory, "modes.map")

    # -- set-up

    def changes(self, *, present: bool, overwrite: bool) -> list[Change]:
        config = load(self.program)
        texts: dict[str, str] = dict(config.contents)
        for path in texts:
            text, blocks = without(texts[path], self.site)
            for block in blocks:
                self.refuse_edited(path, block.lstrip("\t").encode("utf-8", "surrogateescape"), overwrite)
            texts[path] = text
        own = os.path.join(self.directory, self.site.file)
        wanted: dict[str, str] = {}
        if present:
            bare = Configuration(texts)
            sections = self._sections(bare)
            limit = not self._conflict(bare)
            block = begin(self.site) + "\t" + sealed(rules(self.site, self.directory, limit)) + end(self.site)
            last = list(texts)[-1]
            for section in sorted(sections, key=place, reverse=True):
                path, number = section.lines[0][0], place(section)
                lines = texts[path].splitlines(keepends=True)
                if lines and not lines[-1].endswith("\n"):
                    lines[-1] += "\n"
                texts[path] = "".join([*lines[:number], block, *lines[number:]])
            tail = begin(self.site) + "\t" + sealed(table(self.site)) + end(self.site)
            texts[last] = texts[last] + ("" if texts[last].endswith("\n") else "\n") + tail
            for status in (503, 429):
                for kind in _TYPES:
                    for language in pages.LANGUAGES:
                        wanted[f"{own}.{status}.{kind}.{language}"] = pages.body(self.site, status, kind, language)
        foreign = [
            Change(path, _bytes(config.contents[path]), _bytes(text), ours=False)
            for path, text in texts.items() if text != config.contents[path]
        ]  # fmt: skip
        found = [*self._texts(own, wanted), *self._mapped(present), *foreign]
        if foreign:
            words_of_it = self._refused()
            if words_of_it:
                raise TrafficError(
                    f"the configuration of HAProxy is broken already, nothing was touched: {words_of_it}", refused=True
                )
        return found

    def _texts(self, own: str, wanted: dict[str, str]) -> list[Change]:
        """Return the changes of what is answered, and of the token."""
        found = []
        for status in (503, 429):
            for kind in _TYPES:
                for language in pages.LANGUAGES:
                    path = f"{own}.{status}.{kind}.{language}"
                    old, new = read(path), wanted[path].encode() if path in wanted else None
                    found += [Change(path, old, new)] if old != new else []
        old = read(f"{own}.token")
        new = f"{self.site.token}\n".encode() if wanted and self.site.token else None
        return found + ([Change(f"{own}.token", old, new, secret=True)] if old != new else [])

    def _mapped(self, present: bool) -> list[Change]:
        """Return the change that gives the site a line of the map, or takes it out."""
        old = read(self.map)
        text = (old or b"").decode("utf-8", "surrogateescape")
        has = mode_of(text, self.site.name)
        if present == (has is not None):
            return []
        new = map_with(text, self.site.name, "off" if present else None)
        return [Change(self.map, old, _bytes(new))]

    def _sections(self, config: Configuration) -> list[Section]:
        named = {one.name: one for one in config.sections if one.kind in ("frontend", "listen")}
        if not self.access.frontends:
            raise TrafficError(
                f"name the frontends of {self.site.name} in 'frontends'; there are: {', '.join(named) or 'none'}",
                refused=True,
            )
        for name in self.access.frontends:
            known("frontend", name, named, "the configuration of HAProxy")
            mode = named[name].find("mode")
            if mode is None or len(mode) < 2 or mode[1].value != "http":
                raise TrafficError(
                    f"the frontend {name} is not in mode http, so it cannot answer with a page", refused=True
                )
        sections = [named[name] for name in self.access.frontends]
        # Not what our own blocks name, and nothing where hosts are looked up in a map.
        lines = [line for one in sections for _path, _number, line in one.lines]
        hosts = {
            word.value.lower() for line in lines if not any("wlm_" in word.value for word in line) for word in line
        }
        if self.site.name != "*" and self.site.name not in hosts and not any(",map" in word for word in hosts):
            names = sorted(word for word in hosts if re.fullmatch(r"(?:[a-z0-9*-]+\.)+[a-z]{2,}", word))
            known("site", self.site.name, names, f"the frontend {', '.join(self.access.frontends)} of HAProxy")
        return sections

    def _conflict(self, config: Configuration) -> str:
        """Return the place of what counts by the counter that a limit needs."""
        for section in config.sections:
            for path, number, line in section.lines:
                values = [word.value for word in line]
                ours = values[1:2] == ["track-sc2"] and values[4:5] and values[4].startswith("wlm_")
                if not ours and any("sc2" in value for value in values):
                    return f"{path}:{number + 1}"
        return ""

    def no_limit(self) -> str:
        found = self._conflict(load(self.program))
        return f"the counter sc2 is used already ({found})" if found else ""

    def _refused(self) -> str:
        argv = [self.program.executable, "-c"]
        for path in self.program.paths:
            argv += ["-f", path]
        try:
            result = self.system.run(argv, timeout=CHECK_TIMEOUT, env=self.program.environment)
        except CommandError as error:
            return str(error)
        return "" if result.ok else result.describe()

    def stale(self) -> bool:
        return self.site.key not in api.backends(self.speak(self.access.sockets[0], "show backend"))

    def load(self) -> dict[str, Any]:
        refused = self._refused()
        if refused:
            raise TrafficError(f"haproxy -c refuses the set-up: {refused}")
        old, start = self._pid(), self.system.monotonic()
        unit = unit_of(self.system, int(old))
        if unit is None:
            raise TrafficError("HAProxy does not run as a service of systemd, so it cannot be reloaded from here")
        self.asked = True
        try:
            result = self.system.run(["systemctl", "reload", unit], timeout=CHECK_TIMEOUT)
        except CommandError as error:
            raise TrafficError(str(error)) from error
        if not result.ok:
            raise TrafficError(result.describe())
        while True:
            now = self._pid(missing=old)
            if now != old:
                break
            if self.system.monotonic() - start > self.access.timeout:
                raise TrafficError(
                    f"'systemctl reload {unit}' ended with exit code 0, but the process {old} goes on with the old "
                    f"configuration: look into 'journalctl -u {unit}'"
                )
            self.system.sleep(0.05)
        return {"old_process": int(old), "new_process": int(now), "seconds": round(self.system.monotonic() - start, 3)}

    # -- the switch

    def mode(self) -> str:
        text = (read(self.map) or b"").decode("utf-8", "surrogateescape")
        kept = mode_of(text, self.site.name) or "off"
        serving = self._serving()
        if serving not in (None, kept):
            self.note(
                "not_kept", self.site.name, "warning",
                f"HAProxy serves the mode {serving}, but a reload would bring {kept}: somebody has changed one of them",
            )  # fmt: skip
        found = serving or kept
        return found if found in MODES else "off"

    def _serving(self) -> str | None:
        """Return the mode in force; None when HAProxy does not run or knows none."""
        found: set[str | None] = set()
        if not self.running():
            return None
        for address in self.access.sockets:
            answer = self.speak(address, f"show map {self.map}")
            rows = [line.split() for line in answer.splitlines()]
            found.add(next((row[2] for row in rows if len(row) == 3 and row[1] == self.site.name), None))
        if len(found) > 1:
            return "different ones"
        return found.pop()

    def switch(self, mode: str) -> None:
        old = read(self.map)
        text = (old or b"").decode("utf-8", "surrogateescape")
        write(self.map, _bytes(map_with(text, self.site.name, mode)), old=old)
        if not self.running():
            return
        for address in self.access.sockets:
            answer = self.speak(address, f"set map {self.map} {self.site.name} {mode}").strip()
            if answer:
                answer = self.speak(address, f"add map {self.map} {self.site.name} {mode}").strip()
            if answer and mode != "off":
                raise TrafficError(f"HAProxy at {address} does not take the mode {mode} for {self.site.name}: {answer}")
        serving = self._serving()
        if serving != mode and not (mode == "off" and serving is None):
            raise TrafficError(f"HAProxy took the mode {mode}, but serves {serving}: somebody else sets it")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
