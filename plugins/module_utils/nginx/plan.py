# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what is asked to the fewest edits that do it, byte by byte.

``auto`` is a small optimisation: every server and location that is not asked for must keep its limit, every one that
is must get the asked one, and each either inherits its limit or has a directive of its own. A file that is included
several times has one text for all of its uses, so an edit there must suit them all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, ConfigError, Directive
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.effective import (
    DIRECTIVE,
    Answer,
    Listen,
    Scope,
    UnknownServer,
    answers,
    build,
    find_location,
    normalise,
    parse_size,
)

#: More combinations of shared places than this are not tried.
_MAX_COMBINATIONS = 4096
_INSERT, _OWN = "insert", "own"
_KEEP, _REMOVE = "keep", "remove"


class PlanError(Exception):
    """What was asked cannot be done; one sentence that says why and what to ask instead."""


@dataclass(frozen=True)
class Ask:
    """What is wanted for one server name.

    :param name: the server name.
    :param paths: the paths; empty: the server and all in it that has no limit of its own, and the path ``/``.
    :param port: only the servers that listen on this port.
    :param default_server: whether the default server may be meant.
    :param limit: the limit as nginx shall read it; None: no directive of its own.
    """

    name: str
    paths: tuple[str, ...] = ()
    port: int | None = None
    default_server: bool = False
    limit: str | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """One server and path that an :class:`Ask` means.

    :param path: the path; None: the server as a whole.
    :param scope: where nginx takes the limit from for it.
    """

    ask: Ask
    path: str | None
    server: Scope
    scope: Scope
    listens: tuple[Listen, ...]
    by: str

    @property
    def serving(self) -> Scope:
        """Where a request for it is handled: for a server as a whole its location for ``/``."""
        return self.scope if self.path is not None else find_location(self.server, "/")


@dataclass(frozen=True)
class Edit:
    """One change of one file.

    :param path: the file as nginx names it.
    :param real: the file, links followed.
    :param line: the line where it happens, in the text before.
    :param kind: ``replace``, ``insert`` or ``remove``.
    :param splices: offsets in the text before and the bytes that come there instead.
    """

    path: str
    real: str
    line: int
    kind: str
    before: str | None
    after: str | None
    splices: tuple[tuple[int, int, bytes], ...]

    def as_dict(self) -> dict[str, object]:
        """Return the edit as the module returns it."""
        names = ("path", "real", "line", "kind", "before", "after")
        return {name: getattr(self, name) for name in names}


@dataclass
class Plan:
    """The edits and what they lead to.

    :param targets: what was asked, resolved.
    :param edits: in the order of files and lines.
    :param contents: for each file, links followed, what it contains and what it shall contain.
    :param http: the configuration before.
    :param after: the configuration after; its scopes come in the same order.
    """

    targets: list[Target]
    edits: list[Edit]
    contents: dict[str, tuple[bytes, bytes]]
    http: Scope
    after: Scope
    #: Scopes, before and after, whose limit changes although they were not asked for: only below a fixed level.
    also: list[tuple[Scope, Scope]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._later = {id(old): new for old, new in zip(self.http.walk(), self.after.walk())}

    def later(self, scope: Scope) -> Scope:
        """Return the scope after the edits that stands where this one stood before."""
        return self._later[id(scope)]


# -- what is asked --------------------------------------------------------------------------------------------------


def resolve(http: Scope, asks: Sequence[Ask]) -> list[Target]:
    """Return the servers and locations that the asks mean.

    Servers that do nothing but ``return`` are left out where another one has the name: nginx answers there before it
    looks at a location or a limit.

    :raises PlanError: for unknown names, wrong paths, or servers that only return.
    """
    targets: list[Target] = []
    problems: list[str] = []
    for ask in asks:
        try:
            found = answers(http, ask.name, ask.port, default=ask.default_server)
            serving = [answer for answer in found if not returns(answer.server)]
            if not serving:
                places = ", ".join(answer.server.directive.place for answer in found)
                raise PlanError(
                    f"the server {ask.name!r} in {places} only returns: nginx reads no body and no limit there"
                )
            for answer in serving:
                targets += _targets(ask, answer)
        except (UnknownServer, PlanError, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise PlanError("; ".join(problems))
    return targets


def returns(server: Scope) -> bool:
    """Whether every request to a server is answered by a ``return`` at its own level."""
    return any(directive.name == "return" for directive in server.body)


def _targets(ask: Ask, answer: Answer) -> list[Target]:
    if not ask.paths:
        return [Target(ask, None, answer.server, answer.server, answer.listens, answer.by)]
    result = []
    for path in ask.paths:
        scope = find_location(answer.server, normalise(path))
        result.append(Target(ask, path, answer.server, scope, answer.listens, answer.by))
    return result


def _wanted(targets: Iterable[Target], *, whole: bool) -> dict[int, tuple[Scope, str | None, Target]]:
    """Return for each scope that is asked for what it shall have.

    :param whole: whether a server asked for as a whole takes along what inherits from it.
    """
    wanted: dict[int, tuple[Scope, str | None, Target]] = {}

    def want(scope: Scope, target: Target) -> None:
        limit = target.ask.limit
        held = wanted.setdefault(id(scope), (scope, limit, target))
        if _size(held[1]) != _size(limit):
            raise PlanError(
                f"{_asked(held[2])} and {_asked(target)} are both the {scope} in {scope.directive.place}, "
                f"but they are asked to have {held[1]} and {limit}"
            )

    for target in targets:
        want(target.scope, target)
    if whole:
        for target in targets:
            if target.path is None:
                roots = [target.server]
                if target.ask.limit is not None:
                    roots += [child for child in target.server.children if child.modifier != "@" and child.name == "/"]
                for scope in [inside for root in roots for inside in _inheriting(root)]:
                    if id(scope) not in wanted:
                        want(scope, target)
    return wanted


def _inheriting(scope: Scope) -> Iterable[Scope]:
    yield scope
    for child in scope.children:
        if child.own is None:
            yield from _inheriting(child)


def _asked(target: Target) -> str:
    return f"{target.ask.name}{target.path or ''}"


def _size(limit: str | None) -> int | None:
    return None if limit is None else parse_size(limit)


# -- the plan -------------------------------------------------------------------------------------------------------


def make(config: Config, http: Scope, asks: Sequence[Ask], level: str, limit: str | None) -> Plan:
    """Return the plan for what is asked.

    :param config: the configuration as it is.
    :param http: what :func:`effective.build` made of it.
    :param asks: what is wanted; may be empty at level ``http``.
    :param level: ``auto``, ``http``, ``server`` or ``location``: where the directive shall stand.
    :param limit: the limit for level ``http``; None: the directive is to go.
    :raises PlanError: when it cannot be done.
    """
    if not asks and level != "http":
        raise PlanError(f"level {level} needs at least one server; name it in 'servers'")
    targets = resolve(http, asks)
    if level == "auto":
        wanted = _wanted(targets, whole=True)
        actions = _Solver(http, wanted).solve()
        plan = _apply(config, http, targets, actions)
        _check(plan, wanted)
        return plan
    if level == "http":
        others = {ask.limit for ask in asks if _size(ask.limit) != _size(limit)}
        if others:
            raise PlanError(
                f"the http level has one limit, but {limit} and {', '.join(map(str, others))} are asked for"
            )
        scopes: dict[int, tuple[Scope, str | None]] = {id(http): (http, limit)}
    else:
        scopes = {}
        for scope, value, target in _wanted(_at_level(targets, level), whole=False).values():
            if level == "location" and scope.kind != "location":
                raise PlanError(
                    f"no location of {scope} in {scope.directive.place} matches {target.path or '(no path)'}; "
                    "name a path that one matches, or use level server or auto"
                )
            scopes[id(scope)] = scope, value
    plan = _apply(config, http, targets, _at(scopes.values()))
    _spread(plan, set(scopes))
    return plan


def _at_level(targets: Sequence[Target], level: str) -> list[Target]:
    if level == "location":
        return list(targets)
    return [Target(one.ask, None, one.server, one.server, one.listens, one.by) for one in targets]


def _own_slot(scope: Scope) -> tuple[str, str, int] | None:
    return (_OWN, scope.own.source.real, scope.own.start) if scope.own is not None else None


def _insert_slot(scope: Scope) -> tuple[str, str, int]:
    return (_INSERT, scope.directive.source.real, scope.directive.end)


@dataclass(frozen=True)
class _Do:
    """What happens to the place of one scope."""

    scope: Scope
    slot: tuple[str, str, int]
    action: str


def _at(scopes: Iterable[tuple[Scope, str | None]]) -> list[_Do]:
    """Return the actions that put a directive at exactly these scopes, or take it away there."""
    actions: list[_Do] = []
    for scope, value in scopes:
        own = _own_slot(scope)
        if own is None:
            if value is not None:
                actions.append(_Do(scope, _insert_slot(scope), value))
        elif value is None:
            actions.append(_Do(scope, own, _REMOVE))
        elif scope.own is not None and parse_size(scope.own.args[0]) != parse_size(value):
            actions.append(_Do(scope, own, value))
    return actions


def _spread(plan: Plan, changed: set[int]) -> None:
    """Note what else a directive at a fixed level changes; refuse it where that is not below the level."""
    for old, new in zip(plan.http.walk(), plan.after.walk()):
        if old.limit == new.limit or old.kind == "http" or id(old) in changed:
            continue
        above = old.parent
        while above is not None and id(above) not in changed:
            above = above.parent
        if above is None:
            raise PlanError(_shared(old, plan.edits[0].path))
        plan.also.append((old, new))


def _shared(scope: Scope, path: str) -> str:
    server: Scope | None = scope
    while server is not None and server.kind != "server":
        server = server.parent
    return (
        f"{path} is included in several places, and what is asked would also change the {scope} of "
        f"{server or scope} in {scope.directive.place}; ask for all of them, or give each a file of its own"
    )


def _check(plan: Plan, wanted: Mapping[int, tuple[Scope, str | None, Target]]) -> None:
    """Make sure that the edits do what was asked and nothing else."""
    for old, new in zip(plan.http.walk(), plan.after.walk()):
        if id(old) in wanted:
            size = _size(wanted[id(old)][1])
            right = new.limit == size if size is not None else new.own is None
        else:
            right = new.limit == old.limit or _free(old)
        if not right:
            raise PlanError(
                f"no set of edits was found that suits the {old} in {old.directive.place}; use level server"
            )


def _free(scope: Scope) -> bool:
    """Whether no request takes its limit from here: never from http, nor from a server that has a location /."""
    if scope.kind == "http":
        return True
    return scope.kind == "server" and any(
        child.modifier in ("", "^~") and child.name == "/" for child in scope.children
    )


# -- the fewest edits -----------------------------------------------------------------------------------------------


class _Solver:
    """Finds the fewest edits; of equally few the more natural ones.

    :param wanted: the scopes asked for, from :func:`_wanted`.
    """

    def __init__(self, http: Scope, wanted: Mapping[int, tuple[Scope, str | None, Target]]) -> None:
        self.http = http
        self.wanted = wanted
        self.asked = {_size(value): value for value in (one[1] for one in wanted.values()) if value is not None}
        self.uses: dict[tuple[str, str, int], list[Scope]] = {}
        for scope in http.walk():
            for slot in (_own_slot(scope), _insert_slot(scope)):
                if slot is not None:
                    self.uses.setdefault(slot, []).append(scope)
        self.fixed: dict[tuple[str, str, int], str] = {}
        self.dirty: set[int] = set()
        self.memo: dict[tuple[int, int], tuple[tuple[Fraction, int], list[_Do]] | None] = {}

    def solve(self) -> list[_Do]:
        """Return the actions, one for each place in a file.

        :raises PlanError: when no edits of the files can do it.
        """
        shared: list[tuple[str, str, int]] = []
        while True:
            best = self._best(shared)
            if best is None:
                scope = self.uses[shared[-1]][-1]
                place = scope.own.source if shared[-1][0] == _OWN and scope.own else scope.directive.source
                raise PlanError(_shared(scope, place.path))
            more = self._inconsistent(best, shared)
            if not more:
                merged = {do.slot: do for do in best}
                return list(merged.values())
            shared.append(more)

    def _best(self, shared: Sequence[tuple[str, str, int]]) -> list[_Do] | None:
        choices: list[list[str]] = []
        total = 1
        for slot in shared:
            values = self._values_at(slot)
            choices.append([_KEEP, *values, *([_REMOVE] if slot[0] == _OWN else [])])
            total *= len(choices[-1])
        if total > _MAX_COMBINATIONS:
            raise PlanError("what is asked is spread over too many shared files; ask for fewer servers at a time")
        best: tuple[tuple[Fraction, int], list[_Do]] | None = None
        for combination in itertools.product(*choices):
            self.fixed = dict(zip(shared, combination))
            self.memo = {}
            self._mark(shared)
            found = self._scope(self.http, 1024 * 1024)
            if found is None:
                continue
            extra = [_Do(self.uses[slot][0], slot, action) for slot, action in self.fixed.items() if action != _KEEP]
            cost = (found[0][0] + len(extra), found[0][1])
            if best is None or cost < best[0]:
                best = cost, found[1] + extra
        return best[1] if best else None

    def _values_at(self, slot: tuple[str, str, int]) -> list[str]:
        values = dict(self.asked)
        for scope in self.uses[slot]:
            values.setdefault(scope.limit, _text(scope))
        return [value for value in values.values() if value is not None]

    def _mark(self, shared: Sequence[tuple[str, str, int]]) -> None:
        """Mark what may have to change: all others are right as they are when they inherit what they do now."""
        self.dirty = set()
        start = [one[0] for one in self.wanted.values()]
        start += [scope for slot in shared for scope in self.uses[slot]]
        for scope in start:
            above: Scope | None = scope
            while above is not None and id(above) not in self.dirty:
                self.dirty.add(id(above))
                above = above.parent

    def _inconsistent(
        self, actions: Sequence[_Do], shared: Sequence[tuple[str, str, int]]
    ) -> tuple[str, str, int] | None:
        """Return a place with several uses that is edited, and was not tried with all of its possible texts yet."""
        for do in actions:
            if len(self.uses[do.slot]) > 1 and do.slot not in shared:
                return do.slot
        return None

    def _scope(self, scope: Scope, inherited: int) -> tuple[tuple[Fraction, int], list[_Do]] | None:
        """Return the best for a scope and all inside when it would inherit a limit, None when nothing is possible."""
        if id(scope) not in self.dirty and scope.parent is not None and inherited == scope.parent.limit:
            return (Fraction(0), 0), []
        key = id(scope), inherited
        if key not in self.memo:
            self.memo[key] = self._decide(scope, inherited)
        return self.memo[key]

    def _decide(self, scope: Scope, inherited: int) -> tuple[tuple[Fraction, int], list[_Do]] | None:
        best: tuple[tuple[Fraction, int], list[_Do]] | None = None
        for limit, edits, naturalness, actions in self._options(scope, inherited):
            cost, chosen = (edits, naturalness), list(actions)
            if best is not None and cost >= best[0]:
                continue
            for child in scope.children:
                inside = self._scope(child, limit)
                if inside is None:
                    break
                cost = cost[0] + inside[0][0], cost[1] + inside[0][1]
                chosen += inside[1]
            else:
                if best is None or cost < best[0]:
                    best = cost, chosen
        return best

    def _options(self, scope: Scope, inherited: int) -> Iterable[tuple[int, Fraction, int, list[_Do]]]:
        """Yield the limit that would hold, the number of edits, how natural they are (0: most), and the edits."""
        asked = self.wanted.get(id(scope))
        free = asked is None and _free(scope)
        values = {scope.limit: _text(scope)}
        if asked is not None:
            size = _size(asked[1])
            values = {} if size is None else {size: str(asked[1])}
        elif free:
            values.update({size: str(value) for size, value in self.asked.items() if size is not None})
        odd = (4 if scope.kind == "http" else 1) if free else 0
        own, insert = _own_slot(scope), _insert_slot(scope)
        keeps = asked is None or asked[1] is not None

        def inherits() -> bool:
            return free or (asked is not None and asked[1] is None) or inherited in values

        def price(slot: tuple[str, str, int]) -> Fraction:
            return Fraction(0) if slot in self.fixed else Fraction(1, len(self.uses[slot]))

        def may(slot: tuple[str, str, int], action: str) -> bool:
            return self.fixed.get(slot, action) == action

        def done(slot: tuple[str, str, int], action: str) -> list[_Do]:
            return [] if slot in self.fixed else [_Do(scope, slot, action)]

        if own is not None and scope.own is not None:
            now = parse_size(scope.own.args[0])
            if may(insert, _KEEP):
                if may(own, _KEEP) and keeps and (now in values or free):
                    yield now, Fraction(0), 0, []
                for size, text in values.items():
                    fixed = self.fixed.get(own)
                    if size != now and (fixed is None or (fixed not in (_KEEP, _REMOVE) and parse_size(fixed) == size)):
                        yield size, price(own), odd, done(own, text)
                if may(own, _REMOVE) and inherits():
                    yield inherited, price(own), 6 + odd, done(own, _REMOVE)
            if not may(own, _REMOVE):
                return
        elif may(insert, _KEEP) and inherits():
            yield inherited, Fraction(0), 0, []
        for size, text in values.items():
            fixed = self.fixed.get(insert)
            if fixed is None or (fixed != _KEEP and parse_size(fixed) == size):
                removing = done(own, _REMOVE) if own is not None else []
                cost = price(insert) + (price(own) if own is not None else 0)
                yield size, cost, 2 + odd + 6 * len(removing), [*removing, *done(insert, text)]


def _text(scope: Scope) -> str:
    """Return the limit of a scope as it is written where it is decided."""
    deciding = scope.deciding()
    return deciding.args[0] if deciding is not None else "1m"


# -- bytes ----------------------------------------------------------------------------------------------------------


def _apply(config: Config, http: Scope, targets: list[Target], actions: Sequence[_Do]) -> Plan:
    edits: dict[tuple[str, str, int], Edit] = {}
    for do in actions:
        edit = _edit(do)
        held = edits.setdefault(do.slot, edit)
        if held.splices != edit.splices:
            raise PlanError(_shared(do.scope, edit.path))
    ordered = sorted(edits.values(), key=lambda edit: (edit.path, edit.splices[0][0]))
    old = {source.real: source.data for source, _ignored in config.files.values()}
    contents = {}
    for real in {edit.real for edit in ordered}:
        splices = [splice for edit in ordered if edit.real == real for splice in edit.splices]
        contents[real] = old[real], splice(old[real], splices)
    if not contents:
        return Plan(targets, [], {}, http, http)
    try:
        after = build(
            Config(config.path, config.tree, {real: new for real, (_ignored, new) in contents.items()}, config)
        )
    except ConfigError as error:
        raise PlanError(f"the edits would spoil the configuration, nothing is changed: {error}") from error
    return Plan(targets, ordered, contents, http, after)


def splice(data: bytes, splices: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return the text with pieces replaced: (start, end, new), which must not overlap."""
    result: list[bytes] = []
    position = 0
    for start, end, new in sorted(splices):
        result += [data[position:start], new]
        position = end
    return b"".join([*result, data[position:]])


def _edit(do: _Do) -> Edit:
    if do.slot[0] == _INSERT:
        block = do.scope.directive
        offset, text = insertion(block, do.action)
        line = block.source.line(offset)
        return Edit(block.source.path, block.source.real, line, "insert", None, do.action, ((offset, offset, text),))
    own = do.scope.own
    if own is None:
        raise PlanError(f"there is no {DIRECTIVE} of its own in {do.scope.directive.place}")
    line, value = own.source.line(own.start), own.args[0]
    if do.action == _REMOVE:
        return Edit(own.source.path, own.source.real, line, "remove", value, None, tuple(removal(own)))
    word = own.words[1]
    inner = 1 if word.quoted else 0
    change = (word.start + inner, word.end - inner, do.action.encode())
    return Edit(own.source.path, own.source.real, line, "replace", value, do.action, (change,))


def insertion(block: Directive, value: str) -> tuple[int, bytes]:
    """Return where in the file of a block the directive goes and the bytes to put there.

    It becomes the first line of the block, with the indentation and the line ending found there; in a block that goes
    on in the line of its brace it is put behind the brace.
    """
    data, at = block.source.data, block.end
    statement = f"{DIRECTIVE} {value};".encode()
    end = data.find(b"\n", at)
    rest = data[at:end] if end >= 0 else data[at:]
    if end < 0 or rest.strip(b" \t\r")[:1] not in (b"", b"#"):
        return at, b" " + statement + (b"" if rest[:1] in (b" ", b"\t", b"\r") else b" ")
    indent = _indent(data, block.start) + (b"\t" if b"\n\t" in data else b"    ")
    for child in block.block or []:
        line = data.rfind(b"\n", 0, child.start) + 1
        if line > end and not data[line : child.start].strip(b" \t"):
            indent = data[line : child.start]
        break
    return end + 1, indent + statement + (b"\r\n" if rest.endswith(b"\r") else b"\n")


def removal(own: Directive) -> list[tuple[int, int, bytes]]:
    """Return the pieces to cut out for a directive: its whole line where it has one to itself, never a comment."""
    data = own.source.data
    start, end = own.start, own.end
    if b"#" in data[own.words[-1].end : end] or any(
        b"#" in data[first.end : second.start] for first, second in zip(own.words, own.words[1:])
    ):
        return [(word.start, word.end, b"") for word in own.words] + [(end - 1, end, b"")]
    line = data.rfind(b"\n", 0, start) + 1
    stop = data.find(b"\n", end)
    before = data[line:start]
    after = data[end:stop] if stop >= 0 else data[end:]
    if not before.strip(b" \t") and not after.strip(b" \t\r") and stop >= 0:
        return [(line, stop + 1, b"")]
    if before.strip(b" \t") and (not after.strip(b" \t\r") or before[-1:] in (b" ", b"\t")):
        return [(line + len(before.rstrip(b" \t")), end, b"")]
    return [(start, end + len(after) - len(after.lstrip(b" \t")), b"")]


def _indent(data: bytes, offset: int) -> bytes:
    line = data.rfind(b"\n", 0, offset) + 1
    text = data[line:offset]
    return text[: len(text) - len(text.lstrip(b" \t"))]
