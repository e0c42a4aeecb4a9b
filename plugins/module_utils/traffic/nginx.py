# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nginx: a generated include with a reload that is proven, or a link or flag file that needs none."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import (
    Config,
    ConfigError,
    Directive,
    Tree,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import (
    Instance,
    InstanceError,
    ReloadError,
    System,
    changed_since,
    locate,
    prove_reload,
    serving_since,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import connections, nginx_text
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.balancer import Balancer
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import (
    NAME,
    Side,
    State,
    TrafficError,
    division,
    server_shares,
    weights,
)

#: nginx takes larger ones, but nobody can read them.
_MOST = 1000


@dataclass
class Nginx(Balancer):
    """What the strategies of nginx have in common."""

    system: System | None = None
    _found: Instance | None = None

    @property
    def subject(self) -> str:
        return self.request.path

    @property
    def instance(self) -> Instance:
        """The running nginx.

        :raises TrafficError: when there is none, or several.
        """
        if self._found is None:
            if self.system is None:
                raise TrafficError("there is no system to look for nginx on")
            try:
                found = locate(self.system, executable=self.request.executable, config=self.request.config)
            except (InstanceError, CommandError) as error:
                raise TrafficError(str(error), refused=True) from error
            if found.master is None:
                raise TrafficError(f"nginx does not run with {found.config}; start it first", refused=True)
            self._found = found
        return self._found

    def config(self) -> Config:
        """Return the configuration on disk.

        :raises TrafficError: when nginx would refuse it.
        """
        try:
            return Config(self.instance.config, Tree())
        except (ConfigError, OSError) as error:
            raise TrafficError(
                f"the configuration of nginx is broken already, nothing was touched: {error}; correct it first",
                refused=True,
            ) from error

    def all_or_nothing(self) -> Side:
        """Return the side that is to get everything.

        :raises TrafficError: when the traffic is to be divided, which this strategy cannot.
        """
        for side in self.request.sides:
            if side.percent not in (0, 100):
                raise TrafficError(
                    f"{self.request.strategy} gives all or nothing, not {side.percent:g} % to {side.name}: use "
                    "nginx_include, nginx_split_clients or haproxy for shares",
                    refused=True,
                )
        return next(side for side in self.request.sides if side.percent)

    def only_percent(self, asked: str) -> None:
        """See that nothing is asked that only HAProxy has.

        :raises TrafficError: when it is.
        """
        if asked != "percent" or any(side.state is not None for side in self.request.sides):
            raise TrafficError(
                f"{self.request.strategy} divides by 'percent'; 'weight' and 'state' are of haproxy", refused=True
            )

    def settings(self, name: str, value: Any) -> dict[str, Any]:
        """Return what can be given back: one value beside what it is of."""
        return {"strategy": self.request.strategy, "path": self.request.path, name: value}

    def in_flight(self, side: Side) -> int:
        if not side.servers:
            raise TrafficError(
                f"the requests in flight of {side.name} cannot be counted: name its 'servers' as nginx reaches them",
                refused=True,
            )
        proc = self.system.proc if self.system is not None else "/proc"
        return connections.count((server.split()[0] for server in side.servers), proc)


# -- with a reload --------------------------------------------------------------------------------------------------


@dataclass
class Generated(Nginx):
    """A file that nginx includes, written here and loaded by a reload."""

    _asked: bool = False

    def render(self) -> str:
        """Return the file for what is asked."""
        raise NotImplementedError

    def parse(self, text: str) -> dict[str, float]:
        """Return side → percent of a file."""
        raise NotImplementedError

    def read(self) -> State:
        path = self.request.path
        self.instance  # noqa: B018, it has to run before anything else is of interest
        try:
            text = files.read(path).decode("utf-8", "surrogateescape") if os.path.lexists(path) else None
        except files.FileError as error:
            raise TrafficError(f"{error}; set become: true", refused=True) from error
        return self._state(text)

    def _state(self, text: str | None) -> State:
        shares = self.parse(text) if text is not None else {side.name: 0.0 for side in self.request.sides}
        return State(shares, self.settings("content", text), text or "")

    def plan(self, before: State, asked: str) -> State:
        self.only_percent(asked)
        old = before.settings["content"]
        if old is not None and not old.startswith(nginx_text.MARK):
            raise TrafficError(
                f"{self.request.path} was not written by this module and would be overwritten: move what is in it into "
                "another file, or name another 'path'",
                refused=True,
            )
        if old is not None:
            self._must_be_good("the configuration of nginx is broken already, nothing was touched")
        return self._state(self.render())

    def given_back(self, before: State, settings: Mapping[str, Any]) -> State:
        self.of_same(settings, path=self.request.path)
        return self._state(settings.get("content"))

    def _must_be_good(self, broken: str) -> None:
        """See that nginx takes the configuration on disk, and that the file is in it.

        :param broken: what to say when it does not.
        """
        try:
            config = Config(self.instance.config, Tree())
            tested = self.instance.test()
        except (ConfigError, CommandError, OSError) as error:
            raise TrafficError(f"{broken}: {error}", refused=True) from error
        if not tested.ok:
            raise TrafficError(f"{broken}: {tested.describe()}", refused=True)
        real = os.path.realpath(self.request.path)
        if all(source.real != real for source, _ignored in config.files.values()):
            raise TrafficError(
                f"{self.request.path} is not included by {config.path}, so it divides nothing: include it in the http "
                "block",
                refused=True,
            )

    def differs(self, before: State, target: State) -> bool:
        return super().differs(before, target) or self._stale(target)

    def _stale(self, target: State) -> bool:
        """Whether the workers are older than the file: a run was cut off between writing and reloading."""
        since = serving_since(self.instance)
        if since is None or target.settings["content"] is None:
            return False
        changed = changed_since(self.config(), since)
        real = os.path.realpath(self.request.path)
        return any(os.path.realpath(path) == real for path in changed)

    def apply(self, before: State, target: State) -> dict[str, Any]:
        self._write(before.settings["content"], target.settings["content"])
        if target.settings["content"] is not None:
            self._must_be_good("nginx refuses the new division")
        return self._load()

    def undo(self, before: State) -> None:
        path = self.request.path
        try:
            now = files.read(path).decode("utf-8", "surrogateescape") if os.path.lexists(path) else None
        except files.FileError as error:
            raise TrafficError(str(error)) from error
        if now != before.settings["content"]:
            self._write(now, before.settings["content"])
        if self._asked:
            self._load()

    def _write(self, old: str | None, new: str | None) -> None:
        path = self.request.path
        try:
            if new is None:
                os.unlink(path)
                files.sync_directory(os.path.dirname(path))
            elif new != old:
                expected = old.encode("utf-8", "surrogateescape") if old is not None else None
                files.replace(path, new.encode("utf-8", "surrogateescape"), expected=expected)
        except (files.FileError, OSError) as error:
            raise TrafficError(str(error)) from error

    def _load(self) -> dict[str, Any]:
        self._asked, self.told_at = True, self.now()
        try:
            logs = self.instance.error_logs(self.config())
            return prove_reload(self.instance, logs, self.request.reload, self.request.timeout).as_dict()
        except ReloadError as error:
            raise TrafficError(str(error)) from error


@dataclass
class Include(Generated):
    """An upstream whose servers have weights."""

    def render(self) -> str:
        request = self.request
        if not NAME.fullmatch(request.upstream):
            raise TrafficError(f"{request.upstream!r} is no name for an upstream; set 'upstream'", refused=True)
        for option in request.upstream_options:
            nginx_text.check_plain("option", option)
        for side in request.sides:
            for server in side.servers:
                nginx_text.check_plain("server", server)
            if not side.servers:
                raise TrafficError(f"the side {side.name} has no servers; name their addresses", refused=True)
        given = weights(server_shares(request.sides), _MOST)
        shares = division(request.sides, given)
        return nginx_text.upstream(request.upstream, request.upstream_options, request.sides, given, shares)

    def parse(self, text: str) -> dict[str, float]:
        found = nginx_text.read_upstream(text, self.request.path, self.request.upstream)
        named = {server for side in self.request.sides for server in side.servers}
        others = [Side(server, (server,)) for server, weight in found.items() if server not in named and weight]
        return division([*self.request.sides, *others], found)


@dataclass
class SplitClients(Generated):
    """A split_clients block, which sends one key always to the same side."""

    def render(self) -> str:
        request = self.request
        if not request.key or not nginx_text._PLAIN.fullmatch(request.key.replace("{", "").replace("}", "")):
            raise TrafficError(
                f"{request.key!r} is no key for split_clients; set 'key', such as $cookie_uid", refused=True
            )
        if not request.variable.isidentifier():
            raise TrafficError(f"{request.variable!r} is no name for a variable; set 'variable'", refused=True)
        return nginx_text.split_clients(request.key, request.variable, request.sides)

    def parse(self, text: str) -> dict[str, float]:
        found = nginx_text.read_split_clients(text, self.request.path, self.request.variable)
        return {**{side.name: 0.0 for side in self.request.sides}, **found}


# -- without a reload -----------------------------------------------------------------------------------------------


@dataclass
class Link(Nginx):
    """An upstream at a UNIX socket whose path is a link that is replaced by a rename."""

    def read(self) -> State:
        path = self.request.path
        self._must_be_used()
        try:
            link = os.readlink(path) if os.path.lexists(path) else None
        except OSError as error:
            raise TrafficError(
                f"{path} is not a symbolic link ({error.strerror}): the application listens on a path of its own for "
                "each side, and this one is a link to one of them",
                refused=True,
            ) from error
        return self._state(link)

    def _state(self, link: str | None) -> State:
        shares = {side.name: 0.0 for side in self.request.sides}
        if link is not None:
            full = os.path.realpath(os.path.join(os.path.dirname(self.request.path), link))
            owner = next((s.name for s in self.request.sides if os.path.realpath(_socket(s)) == full), link)
            shares[owner] = 100.0
        return State(shares, self.settings("link", link), f"{self.request.path} -> {link}\n" if link else "")

    def plan(self, before: State, asked: str) -> State:
        self.only_percent(asked)
        path = _socket(self.all_or_nothing())
        target = self._state(path)
        if before.division == target.division:
            return before  # another spelling of the same link
        try:
            with socket.socket(socket.AF_UNIX) as probing:
                probing.settimeout(self.request.timeout)
                probing.connect(path)
        except OSError as error:
            raise TrafficError(
                f"nobody answers at {path} ({error.strerror or error}); start that side first", refused=True
            ) from error
        return target

    def given_back(self, before: State, settings: Mapping[str, Any]) -> State:
        self.of_same(settings, path=self.request.path)
        return self._state(settings.get("link"))

    def _must_be_used(self) -> None:
        """See that an upstream of nginx has the path, and keeps no connections that would go on to the old side."""
        path = self.request.path
        used = False
        for directive, around in _walk(self.config()):
            if directive.name in ("server", "proxy_pass") and any(
                _names_socket(word, path) for word in directive.args[:1]
            ):
                used = True
                if any(one.name == "keepalive" and one.args != ["0"] for one in around if directive.name == "server"):
                    raise TrafficError(
                        f"the upstream with unix:{path} keeps connections ({directive.place}), which would go on to "
                        "the old side: remove its 'keepalive'",
                        refused=True,
                    )
        if not used:
            raise TrafficError(
                f"nothing in the configuration of nginx sends to unix:{path}: write 'server unix:{path};' into the "
                "upstream",
                refused=True,
            )

    def apply(self, before: State, target: State) -> dict[str, Any]:
        path, link = self.request.path, target.settings["link"]
        try:
            _replace_link(path, link)
            self.told_at = self.now()
            now = os.readlink(path) if os.path.lexists(path) else None
        except OSError as error:
            raise TrafficError(f"cannot replace the link {path}: {error.strerror}") from error
        if now != link:
            raise TrafficError(f"{path} was to point to {link}, but somebody else had it point to {now}")
        return {"link": now}


def _socket(side: Side) -> str:
    """Return the path of the socket of a side.

    :raises TrafficError: when it has none, or more than one.
    """
    if len(side.servers) != 1 or not side.servers[0].startswith("unix:/"):
        raise TrafficError(
            f"the side {side.name} needs one server such as unix:/run/app/{side.name}.sock", refused=True
        )
    return side.servers[0][len("unix:") :]


def _names_socket(word: str, path: str) -> bool:
    place = word.partition("://")[2] if "://" in word else word
    return place.startswith("unix:") and place[len("unix:") :].partition(":")[0] == path


def _replace_link(path: str, link: str | None) -> None:
    if link is None:
        os.unlink(path)
        files.sync_directory(os.path.dirname(path))
    else:
        files.switch_link(path, link)


@dataclass
class Flag(Nginx):
    """A file that nginx looks for in each request: the second side answers while it is there."""

    def read(self) -> State:
        if len(self.request.sides) != 2:
            raise TrafficError(
                "nginx_flag divides between two sides: first the one without the flag file, then the one with it",
                refused=True,
            )
        self._must_be_used(self.request.path)
        return self._state(os.path.lexists(self.request.path))

    def _state(self, present: bool) -> State:
        shares = {side.name: 100.0 if present == bool(index) else 0.0 for index, side in enumerate(self.request.sides)}
        text = f"{self.request.path} {'exists' if present else 'does not exist'}\n"
        return State(shares, self.settings("present", present), text)

    def plan(self, before: State, asked: str) -> State:
        self.only_percent(asked)
        return self._state(self.all_or_nothing() is self.request.sides[1])

    def given_back(self, before: State, settings: Mapping[str, Any]) -> State:
        self.of_same(settings, path=self.request.path)
        return self._state(bool(settings.get("present")))

    def _must_be_used(self, *paths: str) -> None:
        """See that nginx looks for the files, in each request and not in a cache, and that its workers can."""
        unused = set(paths)
        for directive, around in _walk(self.config()):
            words = {word.strip("()\"'") for word in directive.args} if directive.name == "if" else set()
            for path in words.intersection(paths):
                unused.discard(path)
                cache = next((one for one in around if one.name == "open_file_cache"), None)
                if cache is not None and cache.args[:1] != ["off"]:
                    raise TrafficError(
                        f"nginx would see {path} late, since open_file_cache is on there ({cache.place}): set "
                        "'open_file_cache off;' in that server",
                        refused=True,
                    )
        for path in sorted(unused):
            raise TrafficError(
                f"nothing in the configuration of nginx looks for {path}: write 'if (-f {path}) {{ ... }}' into the "
                "server",
                refused=True,
            )
        directory = os.path.dirname(self.request.path)
        while directory != os.path.dirname(directory):
            try:
                hidden = not os.stat(directory).st_mode & 0o001
            except OSError as error:
                raise TrafficError(f"there is no directory {directory}: {error.strerror}", refused=True) from error
            if hidden:
                message = f"the workers of nginx may not be able to look into {directory}"
                advice = "let others enter it (mode o+x), or see by a probe that they do"
                finding = Finding("traffic.flag.hidden", self.request.path, "warning", message, advice=advice)
                self.findings += [finding] if finding not in self.findings else []
            directory = os.path.dirname(directory)

    def apply(self, before: State, target: State) -> dict[str, Any]:
        return {"present": self._set(self.request.path, target.settings["present"])}

    def _set(self, path: str, present: bool) -> bool:
        """Make or remove a flag, and return which."""
        try:
            if present:
                files.replace(path, b"worklog.maintenance.traffic_split\n")
            elif os.path.lexists(path):
                os.unlink(path)
                files.sync_directory(os.path.dirname(path))
            self.told_at = self.now()
        except (files.FileError, OSError) as error:
            raise TrafficError(f"cannot {'make' if present else 'remove'} {path}: {error}") from error
        if os.path.lexists(path) != present:
            raise TrafficError(f"{path} was to be {'there' if present else 'gone'}, but somebody else undid it")
        return present


@dataclass
class Flags(Flag):
    """A file for each side, with which it gets no requests; those without one share them as the upstream says."""

    def _paths(self) -> dict[str, str]:
        if "<side>" not in self.request.path:
            raise TrafficError("nginx_flags has a file for each side: write <side> into its path", refused=True)
        return {side.name: self.request.path.replace("<side>", side.name) for side in self.request.sides}

    def read(self) -> State:
        paths = self._paths()
        self._must_be_used(*paths.values())
        return self._without(name for name, path in paths.items() if os.path.lexists(path))

    def _without(self, names: Iterable[str]) -> State:
        out = sorted(names)
        inside = [side.name for side in self.request.sides if side.name not in out]
        shares = {side.name: 100 / len(inside) if side.name in inside else 0.0 for side in self.request.sides}
        lines = [f"{path} {'exists' if name in out else 'does not exist'}\n" for name, path in self._paths().items()]
        return State(shares, self.settings("out", out), "".join(lines))

    def plan(self, before: State, asked: str) -> State:
        self.only_percent(asked)
        return self._without(side.name for side in self.request.sides if not side.percent)

    def given_back(self, before: State, settings: Mapping[str, Any]) -> State:
        self.of_same(settings, path=self.request.path)
        return self._without(settings.get("out") or ())

    def apply(self, before: State, target: State) -> dict[str, Any]:
        out, paths = target.settings["out"], self._paths()
        for name in sorted(paths, key=lambda name: name in out):  # so that never nobody gets requests
            if (name in out) != os.path.lexists(paths[name]):
                self._set(paths[name], name in out)
        self.told_at = self.now()
        return {"out": out}


def _walk(config: Config) -> Iterator[tuple[Directive, list[Directive]]]:
    """Yield every directive with those that hold beside it: of its own block first, then of the blocks around."""

    def down(directives: Iterable[Directive], around: list[Directive]) -> Iterator[tuple[Directive, list[Directive]]]:
        here = list(directives)
        holding = [*(one for one in here if not one.block), *around]
        for directive in here:
            yield directive, holding
            if directive.block:
                yield from down(config.expand(directive.block), holding)

    return down(config.top(), [])


STRATEGIES: dict[str, type[Nginx]] = {
    "nginx_include": Include,
    "nginx_split_clients": SplitClients,
    "nginx_socket": Link,
    "nginx_flag": Flag,
    "nginx_flags": Flags,
}
