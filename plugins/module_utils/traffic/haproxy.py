# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HAProxy: weights and states by the runtime API, and kept where a reload reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Runner
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import haproxy_api as api
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import haproxy_config as configuration
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.balancer import Balancer, known
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import (
    Side,
    State,
    TrafficError,
    describe,
    division,
    server_shares,
    weights,
)

Rows = dict[str, dict[str, str]]
#: Seconds for ``haproxy -c``; names in the configuration are resolved.
CHECK_TIMEOUT = 60.0
_BITS = {"ready": 0, "maint": api.FORCED_MAINT, "drain": api.FORCED_DRAIN}
_DISABLED_BY_CONFIGURATION = 0x04


@dataclass(frozen=True)
class Program:
    """The running HAProxy: its program, its configuration files in order, its environment."""

    executable: str
    paths: tuple[str, ...]
    environment: Mapping[str, str]


def find_program(pid: str, config: str | None, executable: str | None, proc: str = "/proc") -> Program | None:
    """Return the HAProxy that a process is of; None when it is not seen from here and no configuration is named."""
    home = os.path.join(proc, pid)
    try:
        with open(os.path.join(home, "cmdline"), "rb") as stream:
            argv = stream.read().decode("utf-8", "surrogateescape").split("\0")[:-1]
    except OSError:
        argv = []
    seen = bool(argv) and "haproxy" in os.path.basename(argv[0])
    environment: dict[str, str] = {}
    if seen:
        try:
            with open(os.path.join(home, "environ"), "rb") as stream:
                pairs = stream.read().decode("utf-8", "surrogateescape").split("\0")
            environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        except OSError:
            pass
    program = executable or (argv[0] if seen else "haproxy")
    if config is not None:
        return Program(program, (config,), environment)
    if not seen:
        return None
    try:
        directory = os.readlink(os.path.join(home, "cwd"))
    except OSError:
        directory = "/"
    return Program(program, tuple(os.path.join(directory, path) for path in _named(argv)), environment)


def _named(argv: Sequence[str]) -> list[str]:
    """Return the configuration files that the command line names."""
    found, index = [], 1
    while index < len(argv):
        if argv[index] == "-f" and index + 1 < len(argv):
            found.append(argv[index + 1])
            index += 1
        elif argv[index] == "--":
            found += argv[index + 1 :]
            break
        elif argv[index] == "-C" and index + 1 < len(argv):
            index += 1
        index += 1
    return found


def load(program: Program) -> configuration.Configuration:
    """Return the configuration of a program.

    :raises TrafficError: when it cannot be read.
    """
    contents: dict[str, str] = {}
    for path in program.paths:
        names = [path]
        if os.path.isdir(path):
            names = sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(".cfg"))
        for name in names:
            try:
                contents[name] = files.read(name).decode("utf-8", "surrogateescape")
            except files.FileError as error:
                raise TrafficError(f"{error}; set become: true, or persist: none", refused=True) from error
    return configuration.Configuration(contents)


@dataclass
class Haproxy(Balancer):
    """One backend of one HAProxy, of one process or several.

    :param speak: sends a command to a socket.
    :param run: runs ``haproxy -c``.
    """

    run: Runner | None = None
    speak: api.Speaker = api.speak
    proc: str = "/proc"
    rows: Rows = field(default_factory=dict)
    stat: Rows = field(default_factory=dict)
    persist: str = "none"
    program: Program | None = None
    config: configuration.Configuration | None = None
    state_file: str | None = None
    static: bool = False
    problem: str = ""
    agree: bool = True

    @property
    def subject(self) -> str:
        return f"backend {self.request.backend}"

    # -- reading

    def read(self) -> State:
        backend = self.request.backend
        api.check_name("backend", backend)
        for server in (server for side in self.request.sides for server in side.servers):
            api.check_name("server", server)
        facts = api.info(self._ask("show info"))
        processes = int(facts.get("Nbproc", "1") or 1)
        if processes > len(self.request.sockets):
            raise TrafficError(
                f"HAProxy runs {processes} processes, each with weights of its own: name a socket of each in 'sockets'",
                refused=True,
            )
        self._tables()
        self._find_persistence(facts)
        for side in self.request.sides:
            for server in side.servers:
                known("server", server, self.rows, f"the backend {backend}")
        kept = self._kept()
        servers = {
            name: {"weight": int(row["srv_uweight"]), "state": api.admin_state(row), "kept": kept[name]}
            for name, row in self.rows.items()
        }
        return self._state(servers)

    def _tables(self) -> None:
        """Read the servers of the backend from every process."""
        backend = self.request.backend
        tables = []
        for address in self.request.sockets:
            text = self._speak(address, f"show servers state {backend}")
            if text.strip() == "Can't find backend.":
                known("backend", backend, api.backends(self._speak(address, "show backend")), f"HAProxy at {address}")
            tables.append(api.servers_state(text, backend))
        self.rows = tables[0]
        decisive = [
            {name: (row["srv_uweight"], api.admin_state(row)) for name, row in table.items()} for table in tables
        ]
        self.agree = all(one == decisive[0] for one in decisive)
        if not self.rows:
            raise TrafficError(f"the backend {backend} has no servers", refused=True)
        self._statistics()

    def _statistics(self) -> None:
        number = next(iter(self.rows.values()))["be_id"]
        text = self._ask(f"show stat {number} 6 -1")
        self.stat = api.statistics(text, self.request.backend)

    def _state(self, servers: dict[str, dict[str, Any]]) -> State:
        given = {name: one["weight"] if one["state"] == "ready" else 0 for name, one in servers.items()}
        shares = division(self._all_sides(given), given)
        settings = {
            "strategy": self.request.strategy,
            "backend": self.request.backend,
            "persist": self.persist,
            "servers": servers,
        }
        lines = [describe(shares)]
        for name, one in servers.items():
            lines.append(f"{name} weight {one['weight']} state {one['state']}{self._kept_text(one['kept'])}")
        return State(shares, settings, "\n".join(lines) + "\n")

    def _all_sides(self, given: Mapping[str, float]) -> list[Side]:
        """Return the sides that are named, and each server of no side that takes traffic as one of its own."""
        named = {server for side in self.request.sides for server in side.servers}
        alone = [name for name in self.rows if name not in named and (given[name] or not self.request.sides)]
        return [*self.request.sides, *(Side(name, (name,)) for name in alone if not self._backup(name))]

    def _strays(self, servers: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the servers of no side that take traffic; backups take none while others do."""
        named = {server for side in self.request.sides for server in side.servers}
        given = {name: one["weight"] for name, one in servers.items() if one["state"] == "ready"}
        return [name for name in servers if name not in named and given.get(name) and not self._backup(name)]

    def _backup(self, name: str) -> bool:
        return self.stat.get(name, {}).get("bck") == "1"

    def look(self, state: State) -> None:
        """Add findings about servers that do not take what the division gives them."""
        asked = {server for side in self.request.sides if side.state == "maint" for server in side.servers}
        for name, row in self.rows.items():
            one, subject = state.settings["servers"][name], f"{self.request.backend}/{name}"
            stat, bits = self.stat.get(name, {}), int(row["srv_admin_state"])
            if bits & api.UNRESOLVED or bits & api.INHERITED_MAINT:
                why = "its address is not known" if bits & api.UNRESOLVED else "a server it follows is in maintenance"
                self._note("server.out", subject, "warning", f"{subject} takes nothing: {why}")
            elif one["state"] == "maint":
                message = f"{subject} is in maintenance; it stays so until 'state: ready' is asked for it"
                self._note("server.maintenance", subject, "info" if name in asked else "warning", message)
            elif int(row["srv_op_state"]) == api.STOPPED and stat.get("status", "").startswith("DOWN"):
                said = stat.get("last_chk") or stat.get("check_status") or "no reason given"
                severity = "critical" if one["state"] == "ready" and one["weight"] else "info"
                self._note("server.down", subject, severity, f"{subject} is down by its check: {said}")
            elif one["state"] == "ready" and one["weight"] and 0 < int(stat.get("weight") or 0) < one["weight"]:
                message = f"{subject} takes less than its share while it starts slowly"
                self._note("server.slowstart", subject, "info", message, int(stat["weight"]), one["weight"])
            if stat.get("agent_status"):
                self._note(
                    "server.agent", subject, "warning", f"an agent may change the weight of {subject} at any time"
                )
            if stat.get("cookie") and one["state"] != "maint" and not one["weight"]:
                message = f"sessions that a cookie ties to {subject} still go there; 'state: maint' ends that"
                self._note("server.persistent", subject, "warning", message)
        for name in self._strays(state.settings["servers"]) if self.request.sides else ():
            message = f"{self.request.backend}/{name} takes traffic and is of no side"
            self._note("server.no_side", f"{self.request.backend}/{name}", "warning", message)
        if self.persist == "none":
            message = f"a reload of HAProxy forgets how {self.subject} is divided"
            self._note("not_kept", self.subject, "warning", message, advice="set persist to another value than none")

    def _note(
        self, check: str, subject: str, severity: str, message: str, observed: Any = None, limit: Any = None,
        advice: str | None = None,
    ) -> None:  # fmt: skip
        self.findings.append(Finding(f"traffic.{check}", subject, severity, message, observed, limit, advice=advice))

    # -- what a reload reads

    def _find_persistence(self, facts: Mapping[str, str]) -> None:
        """Find where a reload reads weights; when that is not found, only a change is refused."""
        backend, self.persist, self.problem = self.request.backend, self.request.persist, ""
        self.program = find_program(facts.get("Pid", ""), self.request.config, self.request.executable, self.proc)
        problem = (
            f"the configuration of the HAProxy at {self.request.sockets[0]} is not found on this host, so a reload "
            "would forget the division: name it in 'config', or set persist: none"
        )
        if self.program is not None:
            try:
                self.config = load(self.program)
            except TrafficError as error:
                problem = str(error)
        if self.config is not None:
            self.state_file = self.config.state_file(backend)
            self.static = self.config.static(backend, self.stat.get("BACKEND", {}).get("algo", ""))
            problem = ""
        if self.persist == "auto":
            self.persist = "state_file" if self.state_file else "configuration"
        if self.persist == "state_file" and not self.state_file and not problem:
            problem = (
                f"the backend {backend} reads no state file at a reload: set 'server-state-file' in the global section "
                "and 'load-server-state-from-file global' in the backend or its defaults, and reload HAProxy"
            )
        self.problem = problem if self.persist != "none" else ""

    def _must_be_kept(self) -> None:
        if self.problem:
            raise TrafficError(self.problem, refused=True)

    def _kept(self) -> dict[str, Any]:
        if self.persist == "configuration" and self.config is not None:
            return dict(self.config.kept(self.request.backend, self.rows))
        if self.persist == "state_file":
            lines = configuration.state_lines(self._state_text(), self.request.backend)
            return {name: lines.get(name) for name in self.rows}
        return dict.fromkeys(self.rows)

    def _state_text(self) -> str:
        path = self.state_file or ""
        try:
            return files.read(path).decode("utf-8", "replace") if os.path.exists(path) else ""
        except files.FileError as error:
            raise TrafficError(f"{error}; set become: true", refused=True) from error

    def _to_keep(self, name: str, weight: int, state: str, kept: Any) -> Any:
        """Return what has to be where a reload reads it, for a server to have this weight and state."""
        if self.persist == "configuration":
            if kept is None:
                raise TrafficError(
                    f"there is no line 'server {name} ...' in the backend {self.request.backend} of "
                    f"{', '.join(self.config.contents if self.config else [])} to keep the weight in: have the backend "
                    "read a state file, or set persist: none",
                    refused=True,
                )
            return {"weight": str(0 if state == "drain" else weight), "disabled": state == "maint"}
        if self.persist == "state_file":
            row = self.rows[name]
            line = configuration.state_line(
                row, weight, _BITS[state] | int(row["srv_admin_state"]) & _DISABLED_BY_CONFIGURATION
            )
            header = list(row)
            same = configuration.state_kept(kept, header) == configuration.state_kept(line, header)
            return kept if same else line
        return None

    def _keep(self, target: State) -> None:
        """Write what a reload reads."""
        kept = {name: one["kept"] for name, one in target.settings["servers"].items()}
        backend = self.request.backend
        if self.persist == "configuration" and self.program is not None:
            self.config = load(self.program)
            edits = self.config.edit(backend, {name: one for name, one in kept.items() if one is not None})
            changes = {path: (_bytes(self.config.contents[path]), _bytes(text)) for path, text in edits.items()}
            try:
                files.replace_all(changes)
            except files.FileError as error:
                raise TrafficError(str(error)) from error
            words = self._refused() if changes else ""
            if words:
                files.restore_all({path: old for path, (old, _ignored) in changes.items()})
                raise TrafficError(
                    f"haproxy -c refuses the configuration with the new weights, it is as it was: {words}"
                )
        elif self.persist == "state_file" and self.state_file:
            old = self._state_text()
            if configuration.state_lines(old, backend) == {name: line for name, line in kept.items() if line}:
                return
            header = list(next(iter(self.rows.values())))
            new = configuration.state_text(old, header, backend, kept)
            try:
                files.replace(self.state_file, new.encode(), mode=0o644)
            except files.FileError as error:
                raise TrafficError(str(error)) from error

    def _refused(self) -> str:
        if self.run is None or self.program is None:
            return ""
        argv = [self.program.executable, "-c"]
        for path in self.program.paths:
            argv += ["-f", path]
        try:
            result = self.run(argv, timeout=CHECK_TIMEOUT, env=self.program.environment)
        except CommandError as error:
            return str(error)
        return "" if result.ok else result.describe()

    @staticmethod
    def _kept_text(kept: Any) -> str:
        if isinstance(kept, dict):
            return f", configured weight {kept['weight']}{' disabled' if kept['disabled'] else ''}"
        return f", state file: {kept}" if kept else ""

    # -- planning

    def plan(self, before: State, asked: str) -> State:
        self._must_be_kept()
        servers = {name: dict(one) for name, one in before.settings["servers"].items()}
        sides = self.request.sides
        for side in sides:
            if not side.servers:
                raise TrafficError(f"the side {side.name} has no servers; name those of the backend", refused=True)
            for name in side.servers:
                servers[name]["state"] = side.state or servers[name]["state"]
                if side.weight is not None:
                    servers[name]["weight"] = side.weight
        if asked == "percent":
            self._may_divide(servers)
            out = [name for name, one in servers.items() if one["state"] != "ready"]
            given = self._static_weights() if self.static else weights(server_shares(sides, out))
            for name, weight in given.items():
                servers[name]["weight"] = weight
        for side in sides:
            for name in side.servers:
                one = servers[name]
                one["kept"] = self._to_keep(name, one["weight"], one["state"], one["kept"])
        target = self._state(servers)
        for side in sides:
            has = target.division[side.name]
            if side.percent is not None and abs(has - side.percent) > max(0.1, side.percent / 20):
                message = f"weights up to 256 give {side.name} {has:g} % instead of {side.percent:g} %"
                self._note("coarse", self.subject, "warning", message, has, side.percent, "use fewer servers for it")
        level = self._ask("show cli level").strip()
        if level in ("user", "operator"):
            raise TrafficError(
                f"the socket {self.request.sockets[0]} has the level {level} and may not change weights: give its "
                "'stats socket' line 'level admin' and reload HAProxy",
                refused=True,
            )
        return target

    def _may_divide(self, servers: Mapping[str, Mapping[str, Any]]) -> None:
        """See that every side that is to get a share can take it, and nobody else takes one."""
        for name in self._strays(servers):
            raise TrafficError(
                f"{self.request.backend}/{name} takes traffic and is of no side, so the percentages would not hold: "
                "name it in a side, or take it out of service",
                refused=True,
            )
        for side in (side for side in self.request.sides if side.percent):
            ready = [name for name in side.servers if servers[name]["state"] == "ready"]
            if not ready:
                states = ", ".join(f"{name} {servers[name]['state']}" for name in side.servers)
                cure = "give it 0 %" if side.state else "find out who did that, then set 'state: ready' for the side"
                raise TrafficError(
                    f"{side.name} is to get {side.percent:g} %, but none of its servers is in service ({states}): "
                    f"{cure}",
                    refused=True,
                )
            down = [name for name in ready if self.stat.get(name, {}).get("status", "").startswith("DOWN")]
            if len(down) == len(ready):
                said = ", ".join(f"{name} ({self.stat[name].get('last_chk') or 'down'})" for name in down)
                raise TrafficError(
                    f"{side.name} is to get {side.percent:g} %, but every server of it is down by its check: {said}; "
                    "bring it up first",
                    refused=True,
                )

    def _static_weights(self) -> dict[str, int]:
        """Return the weights where the algorithm takes only nothing or all of what is configured."""
        algorithm = self.stat.get("BACKEND", {}).get("algo", "")
        given: dict[str, int] = {}
        for side in self.request.sides:
            if side.percent not in (0, 100):
                raise TrafficError(
                    f"the backend {self.request.backend} balances by {algorithm}, which takes only 0 or 100 %, not "
                    f"{side.percent:g}: use roundrobin or leastconn, or 'hash-type consistent'",
                    refused=True,
                )
            for name in side.servers:
                given[name] = int(self.rows[name]["srv_iweight"]) if side.percent else 0
        if self.persist == "configuration":
            raise TrafficError(
                f"the backend {self.request.backend} balances by {algorithm}: a weight of 0 in its configuration could "
                "not be raised again at runtime; have it read a state file, or set persist: none",
                refused=True,
            )
        return given

    def given_back(self, before: State, settings: Mapping[str, Any]) -> State:
        self._must_be_kept()
        self.of_same(settings, backend=self.request.backend)
        for name in settings["servers"]:
            known("server", name, self.rows, f"the backend {self.request.backend}")
        if settings.get("persist") != self.persist:
            raise TrafficError(
                f"what is to be restored was kept by {settings.get('persist')}, now it is {self.persist}: set "
                "'persist'",
                refused=True,
            )
        servers = {name: dict(settings["servers"].get(name, one)) for name, one in before.settings["servers"].items()}
        return self._state(servers)

    def differs(self, before: State, target: State) -> bool:
        return not self.agree or super().differs(before, target)

    # -- doing

    def apply(self, before: State, target: State) -> dict[str, Any]:
        old, new = before.settings["servers"], target.settings["servers"]

        def takes(one: Mapping[str, Any]) -> int:
            return int(one["weight"]) if one["state"] == "ready" else 0

        # what takes more comes first: at no moment is there nobody
        for name in sorted(new, key=lambda name: (takes(new[name]) < takes(old[name]), name)):
            words = (
                [f"weight {new[name]['weight']}"]
                if new[name]["weight"] != old[name]["weight"] or not self.agree
                else []
            )
            if words and self.static:
                words = ["weight 100%" if new[name]["weight"] else "weight 0%"]
            if new[name]["state"] != old[name]["state"] or not self.agree:
                words.append(f"state {new[name]['state']}")
            for word in words:
                self._command(f"set server {self.request.backend}/{name} {word}")
        self.told_at = self.now()
        self._keep(target)
        return {"read_back": self._read_back(target)}

    def _command(self, command: str) -> None:
        for address in self.request.sockets:
            answer = self._speak(address, command).strip()
            if answer:
                cure = ""
                if "static LB algorithm" in answer:
                    cure = "; use roundrobin or leastconn, or 'hash-type consistent'"
                raise TrafficError(f"HAProxy at {address} refuses '{command}': {answer}{cure}")

    def _read_back(self, target: State) -> dict[str, Any]:
        """Return what HAProxy says its servers have; it has to be what they should."""
        self._tables()
        found = {
            name: {"weight": int(row["srv_uweight"]), "state": api.admin_state(row)} for name, row in self.rows.items()
        }
        for name, one in target.settings["servers"].items():
            seen = found.get(name, {})
            if not self.agree or any(seen.get(key) != one[key] for key in ("weight", "state")):
                raise TrafficError(
                    f"HAProxy took the commands, but {self.request.backend}/{name} has weight {seen.get('weight')} and "
                    f"state {seen.get('state')} instead of {one['weight']} and {one['state']}: look for an agent check "
                    "or somebody else who sets them"
                )
        return found

    def in_flight(self, side: Side) -> int:
        total = 0
        number = next(iter(self.rows.values()))["be_id"]
        for address in self.request.sockets:
            stat = api.statistics(self._speak(address, f"show stat {number} 4 -1"), self.request.backend)
            total += sum(int(stat[name][key] or 0) for name in side.servers if name in stat for key in ("scur", "qcur"))
        return total

    def _ask(self, command: str) -> str:
        return self._speak(self.request.sockets[0], command)

    def _speak(self, address: str, command: str) -> str:
        return self.speak(address, command)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
