# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which ``client_max_body_size`` holds for a server name and a path, by the rules of nginx.

Server selection follows ``ngx_http_find_virtual_server``, location selection ``ngx_http_core_find_location`` and sizes
``ngx_parse_offset``. nginx compares the Content-Length of a request with the limit of the location it finds first,
before rewrites inside that location, access rules or the application; it is inherited from http to server to location.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, ConfigError, Directive
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.pattern import PatternError, compile_pattern

DIRECTIVE = "client_max_body_size"
#: What holds where no directive says otherwise: 1m.
DEFAULT = 1024 * 1024
_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}
_MAX_OFFSET = 2**63 - 1
_SIZE = re.compile(r"([0-9]+)([kKmMgG]?)", re.ASCII)
#: Directives that make nginx answer ``/x`` with a redirect to ``/x/`` when only ``location /x/`` exists.
_PASSES = ("proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass")


class SizeError(ValueError):
    """A size nginx would not accept."""


class UnknownServer(Exception):
    """No server of the configuration has the name that was asked for."""


def parse_size(text: str) -> int:
    """Return a size in bytes as nginx reads it: digits, then nothing, k, m or g in either case. 0 means unlimited.

    :raises SizeError: for anything else, or more than a file offset can hold.
    """
    match = _SIZE.fullmatch(text)
    value = int(match.group(1)) * _UNITS.get(match.group(2).lower(), 1) if match else -1
    if not 0 <= value <= _MAX_OFFSET:
        raise SizeError(f"{text!r} is not a size nginx accepts; write a number with k, m or g or nothing behind it")
    return value


def show_size(size: int) -> str:
    """Return a size the way an operator writes it, ``unlimited`` for 0."""
    if size == 0:
        return "unlimited"
    for unit in "gmk":
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


@dataclass(frozen=True)
class Listen:
    """One ``listen`` directive.

    :param address: ``*``, an address, ``[::]``, or ``unix:/path``.
    :param port: the TCP port, 0 for a unix socket.
    :param options: what stands behind it, such as ``ssl``.
    """

    address: str
    port: int
    options: frozenset[str] = frozenset()

    @property
    def default(self) -> bool:
        """Whether it makes its server the default of the address."""
        return bool(self.options & {"default_server", "default"})

    def __str__(self) -> str:
        return self.address if self.address.startswith("unix:") else f"{self.address}:{self.port}"


@dataclass(eq=False)
class Scope:
    """The http level, a server or a location: a place where the limit may be set.

    A file that is included twice gives two scopes that share their bytes.

    :param kind: ``http``, ``server`` or ``location``.
    :param directive: the block.
    :param parent: the scope around it.
    :param children: servers or locations directly inside, in order.
    :param own: its own ``client_max_body_size``.
    :param body: its other directives, includes resolved.
    """

    kind: str
    directive: Directive
    parent: Scope | None = None
    children: list[Scope] = field(default_factory=list)
    own: Directive | None = None
    body: list[Directive] = field(default_factory=list)
    modifier: str = ""
    name: str = ""
    names: tuple[str, ...] = ()
    listens: tuple[Listen, ...] = ()

    def deciding(self) -> Directive | None:
        """Return the directive whose limit holds here, None where the default does."""
        scope: Scope | None = self
        while scope is not None:
            if scope.own is not None:
                return scope.own
            scope = scope.parent
        return None

    @property
    def limit(self) -> int:
        """The limit that holds here, in bytes; 0: unlimited."""
        own = self.deciding()
        return parse_size(own.args[0]) if own is not None else DEFAULT

    def find(self, name: str) -> Directive | None:
        """Return the directive of that name that holds here: its own, else that of the scope around it."""
        scope: Scope | None = self
        while scope is not None:
            for directive in scope.body:
                if directive.name == name:
                    return directive
            scope = scope.parent
        return None

    def walk(self) -> Iterator[Scope]:
        """Yield this scope and all inside, in order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def __str__(self) -> str:
        if self.kind == "server":
            return f"server {' '.join(self.names) or '(without a name)'}"
        return f"location {self.modifier} {self.name}".replace("  ", " ") if self.kind == "location" else "http"


def build(config: Config) -> Scope:
    """Return the http scope of a configuration with everything inside.

    :raises ConfigError: for duplicates and sizes nginx would refuse, or without an http block.
    """
    blocks = [directive for directive in config.top() if directive.name == "http" and directive.block is not None]
    if len(blocks) > 1:
        raise ConfigError(f'"http" directive is duplicate in {blocks[1].place}')
    if not blocks:
        raise ConfigError(f'{config.path} has no "http" block')
    scope = Scope("http", blocks[0])
    _fill(config, scope)
    return scope


def _fill(config: Config, scope: Scope) -> None:
    for directive in config.expand(scope.directive.block or []):
        if directive.name == DIRECTIVE and directive.block is None:
            if scope.own is not None:
                raise ConfigError(f'"{DIRECTIVE}" directive is duplicate in {directive.place}')
            try:
                parse_size(directive.args[0] if len(directive.args) == 1 else "")
            except SizeError:
                raise ConfigError(f'"{DIRECTIVE}" directive invalid value in {directive.place}') from None
            scope.own = directive
        elif directive.block is not None and directive.name == "server" and scope.kind == "http":
            child = Scope("server", directive, scope)
            _fill(config, child)
            _describe(child)
            scope.children.append(child)
        elif directive.block is not None and directive.name == "location" and scope.kind != "http":
            child = Scope("location", directive, scope)
            child.modifier, child.name = _location(directive)
            _fill(config, child)
            scope.children.append(child)
        else:
            scope.body.append(directive)


def _location(directive: Directive) -> tuple[str, str]:
    if len(directive.args) == 2 and directive.args[0] in ("=", "~", "~*", "^~"):
        return directive.args[0], directive.args[1]
    if len(directive.args) != 1:
        raise ConfigError(f"invalid location in {directive.place}")
    text = directive.args[0]
    for modifier in ("~*", "^~", "=", "~", "@"):
        if text.startswith(modifier):
            return modifier, text[len(modifier) :]
    return "", text


def _describe(server: Scope) -> None:
    names: list[str] = []
    listens: list[Listen] = []
    for directive in server.body:
        if directive.name == "server_name":
            names += [socket.gethostname() if name == "$hostname" else name for name in directive.args]
        elif directive.name == "listen":
            listens += _listen(directive)
    server.names = tuple(name if name.startswith("~") else name.lower() for name in names) or ("",)
    server.listens = tuple(listens) or (Listen("*", 80),)


def _listen(directive: Directive) -> list[Listen]:
    if not directive.args:
        raise ConfigError(f'invalid number of arguments in "listen" directive in {directive.place}')
    where, options = directive.args[0], frozenset(directive.args[1:])
    if where.startswith("unix:"):
        return [Listen(where, 0, options)]
    match = re.fullmatch(r"(?:(?P<host>\[[^]]*\]|[^:\[\]]+):)?(?P<first>[0-9]+)(?:-(?P<last>[0-9]+))?", where)
    if match is None:
        host, first, last = where, 80, 80
    else:
        host, first = match.group("host") or "*", int(match.group("first"))
        last = int(match.group("last") or first)
    host = {"0.0.0.0": "*", "localhost": "127.0.0.1"}.get(host, host.lower())
    if last - first > 65535:
        raise ConfigError(f'invalid port range in "listen" directive in {directive.place}')
    return [Listen(host, port, options) for port in range(first, last + 1)]


# -- which server ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A server that answers for a name.

    :param server: the server.
    :param listens: the addresses on which it does.
    :param by: ``exact``, ``wildcard``, ``regex`` or ``default``.
    """

    server: Scope
    listens: tuple[Listen, ...]
    by: str


def answers(http: Scope, name: str, port: int | None = None, *, default: bool = False) -> list[Answer]:
    """Return the servers that answer for a name, on every address where one is chosen by its name.

    :param name: a host name, or a ``server_name`` as it is written (``_``, ``*.example.com``); empty: without a name.
    :param port: only addresses with this port.
    :param default: also take the default server of the addresses where no server has the name.
    :raises UnknownServer: when there is none; the message names the server that answers instead and similar names.
    :raises ConfigError: when a regular expression cannot be evaluated.
    """
    wanted = name if name.startswith("~") else name.lower().rstrip(".")
    found: dict[int, tuple[Scope, list[Listen], str]] = {}
    fallback: list[Scope] = []
    sockets = _sockets(http, port)
    if not sockets:
        raise UnknownServer(f"no server listens on port {port}; " + _listening(http))
    for group in sockets.values():
        choice = _choose([server for server, _ignored in group], wanted)
        if choice is None:
            server = next((server for server, listen in group if listen.default), group[0][0])
            fallback.append(server)
            if not default:
                continue
            choice = server, "default"
        server, how = choice
        listen = next(listen for candidate, listen in group if candidate is server)
        if any(candidate.options & {"ssl"} for _ignored, candidate in group):
            listen = Listen(listen.address, listen.port, listen.options | {"ssl"})
        found.setdefault(id(server), (server, [], how))[1].append(listen)
    if default and any(value[2] != "default" for value in found.values()):
        found = {key: value for key, value in found.items() if value[2] != "default"}
    if not found:
        raise UnknownServer(_unknown(http, name, port, fallback))
    return [Answer(server, tuple(listens), how) for server, listens, how in found.values()]


def _sockets(http: Scope, port: int | None) -> dict[tuple[str, int], list[tuple[Scope, Listen]]]:
    sockets: dict[tuple[str, int], list[tuple[Scope, Listen]]] = {}
    for server in http.children:
        for listen in server.listens:
            if port is None or listen.port == port:
                sockets.setdefault((listen.address, listen.port), []).append((server, listen))
    return sockets


def _choose(servers: Sequence[Scope], name: str) -> tuple[Scope, str] | None:
    for server in servers:
        if name in server.names or (name and "." + name in server.names):
            return server, "exact"
    best: tuple[int, Scope] | None = None
    for head in (True, False):
        for server in servers:
            for pattern in server.names:
                length = _wildcard(pattern, name, head)
                if length and (best is None or length > best[0]):
                    best = length, server
        if best is not None:
            return best[1], "wildcard"
    for server in servers:
        for pattern in server.names:
            if pattern.startswith("~") and _search(pattern[1:], name, pattern != pattern.lower(), server):
                return server, "regex"
    return None


def _wildcard(pattern: str, name: str, head: bool) -> int:
    """Return how long the fixed part of a matching wildcard name is, 0 when it does not match."""
    if head:
        fixed = pattern[1:] if pattern.startswith("*.") else pattern if pattern.startswith(".") else ""
        return len(fixed) if fixed and name.endswith(fixed) and len(name) > len(fixed) else 0
    fixed = pattern[:-1] if pattern.endswith(".*") else ""
    return len(fixed) if fixed and name.startswith(fixed) and len(name) > len(fixed) else 0


def _search(pattern: str, subject: str, caseless: bool, scope: Scope) -> bool:
    try:
        return compile_pattern(pattern, caseless)(subject.encode("utf-8", "surrogateescape"))
    except PatternError as error:
        raise ConfigError(f"{error} in {scope.directive.place}") from error


def _unknown(http: Scope, name: str, port: int | None, fallback: Sequence[Scope]) -> str:
    from difflib import get_close_matches

    known = sorted({known for server in http.children for known in server.names if known})
    near = get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    on_port = f" on port {port}" if port is not None else ""
    message = f"no server has the name {name!r}{on_port}"
    if near:
        message += "; did you mean " + " or ".join(near) + "?"
    elif known:
        message += "; there are: " + ", ".join(known[:20]) + (" and more" if len(known) > 20 else "")
    if fallback:
        message += (
            f"; nginx answers such a request from the default {fallback[0]} in {fallback[0].directive.place}: "
            "set default_server: true to mean that one"
        )
    return message


def _listening(http: Scope) -> str:
    return "there are: " + ", ".join(sorted({str(listen) for server in http.children for listen in server.listens}))


def shadowed(http: Scope) -> list[tuple[Scope, str, Listen, Scope]]:
    """Return the names that nginx ignores because an earlier server on the same address has them too."""
    result = []
    for group in _sockets(http, None).values():
        first: dict[str, Scope] = {}
        for server, listen in group:
            for name in server.names:
                if first.setdefault(name, server) is not server:
                    result.append((server, name, listen, first[name]))
    return result


# -- which location -------------------------------------------------------------------------------------------------


def normalise(path: str) -> str:
    """Return the path nginx matches locations with: decoded, without query, dot segments and repeated slashes.

    :raises ValueError: when it does not start with ``/`` or leaves the root.
    """
    if not path.startswith("/"):
        raise ValueError(f"the path {path!r} does not start with '/'")
    raw = re.split(r"[?#]", path, maxsplit=1)[0].encode("utf-8", "surrogateescape")
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found.group(1), 16)]), raw)
    parts: list[bytes] = []
    pieces = raw.split(b"/")[1:]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        if piece == b"..":
            if not parts:
                raise ValueError(f"the path {path!r} leaves the root")
            parts.pop()
        elif piece not in (b"", b"."):
            parts.append(piece)
            continue
        if last:
            parts.append(b"")
    return (b"/" + b"/".join(parts)).decode("utf-8", "surrogateescape")


def find_location(server: Scope, path: str) -> Scope:
    """Return the location whose limit nginx applies to a path, the server itself where none matches.

    :param path: a path as :func:`normalise` returns it.
    :raises ConfigError: when a regular expression cannot be evaluated.
    """
    return _find(server, path)[0]


def _find(scope: Scope, path: str) -> tuple[Scope, bool]:
    """Return the scope found inside, or the scope itself, and whether the search ends there."""
    found, final = _static(scope, path)
    if final:
        return found, True
    if found is not scope:
        inner, done = _find(found, path)
        if done:
            return inner, True
        if found.modifier == "^~":
            return inner, False
        found = inner
    for location in scope.children:
        if location.modifier in ("~", "~*") and _search(location.name, path, location.modifier == "~*", location):
            return _find(location, path)[0], True
    return found, False


def _static(scope: Scope, path: str) -> tuple[Scope, bool]:
    """Return the exact or longest prefix location, else the scope itself, and whether nginx looks no further."""
    best: Scope | None = None
    redirect: Scope | None = None
    inclusive_equal: Scope | None = None
    for location in scope.children:
        if location.modifier == "=" and location.name == path:
            return location, True
        if location.modifier in ("", "^~"):
            if location.name == path:
                inclusive_equal = location
            if path.startswith(location.name) and (best is None or len(location.name) > len(best.name)):
                best = location
        if location.modifier in ("", "^~", "=") and location.name == path + "/" and _passes(location):
            redirect = location if redirect is None or location.modifier == "=" else redirect
    if inclusive_equal is None and redirect is not None:
        return redirect, True
    return best or scope, False


def _passes(location: Scope) -> bool:
    return any(directive.name in _PASSES for directive in location.body)
