# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why an upload may fail although the limit is right, and what else the operator should know, as findings."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Directive
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.effective import (
    Scope,
    find_location,
    normalise,
    shadowed,
    show_size,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.instance import Instance
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.plan import Plan, Target

#: What a location passes requests on with → how its directives begin.
_PROTOCOLS = {
    "proxy_pass": "proxy",
    "fastcgi_pass": "fastcgi",
    "uwsgi_pass": "uwsgi",
    "scgi_pass": "scgi",
    "grpc_pass": "grpc",
}
_ELSEWHERE = ("rewrite", "try_files", "error_page")
_TIME = re.compile(r"(?:(\d+)y)?\s*(?:(\d+)M)?\s*(?:(\d+)w)?\s*(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+)s?)?")
_SECONDS = (31536000, 2592000, 604800, 86400, 3600, 60, 1)
#: Less than this on a file system is called full, in bytes.
_FULL = 16 * 1024 * 1024


@dataclass(frozen=True)
class Circumstances:
    """What the operator tells about the uploads.

    :param slow_line: bytes per second of the slowest line (or storage) that must still work; None: not told.
    :param application_limit: the application's own limit, in bytes; None: not told.
    :param upload_directory: where the application stores uploads.
    :param upload_owner: the account it runs as.
    """

    slow_line: int | None = None
    application_limit: int | None = None
    upload_directory: str | None = None
    upload_owner: str | None = None


def parse_time(text: str) -> float | None:
    """Return a time in seconds as nginx reads it, such as ``60``, ``1m 30s``, ``500ms``; None when it is not one."""
    if re.fullmatch(r"\d+ms", text):
        return int(text[:-2]) / 1000
    match = _TIME.fullmatch(text)
    if match is None or not text:
        return None
    return float(sum(int(value) * unit for value, unit in zip(match.groups(), _SECONDS) if value))


def subject(target: Target) -> str:
    """Return how a target is called in findings: name, port where one was asked for, path."""
    port = f":{target.ask.port}" if target.ask.port is not None else ""
    return f"{target.ask.name}{port}{target.path or ''}"


# -- about the configuration ----------------------------------------------------------------------------------------


def about_plan(plan: Plan, wanted: Callable[[Target], int | None]) -> list[Finding]:
    """Return what the plan leads to, and which directives hide or override which.

    :param wanted: the limit asked for a target in bytes, None when the directive is to go.
    """
    findings: list[Finding] = []
    for target in plan.targets:
        findings += _about_target(plan, target, wanted(target))
    for old, new in plan.also:
        message = f"{_of(old)} inherits and changes from {show_size(old.limit)} to {show_size(new.limit)} too"
        findings.append(Finding("nginx.upload_limit.also_changed", _of(old), "info", message, new.limit, None, "bytes"))
    for server, name, listen, first in shadowed(plan.http):
        if any(name == target.ask.name.lower() for target in plan.targets):
            message = (
                f"nginx ignores the name {name!r} of the server in {server.directive.place} on {listen}: "
                f"the server in {first.directive.place} has it already"
            )
            findings.append(Finding("nginx.server.shadowed", name, "warning", message, advice="remove one of the two"))
    return findings


def _of(scope: Scope) -> str:
    server: Scope | None = scope
    while server is not None and server.kind != "server":
        server = server.parent
    inside = f"{scope} of " if scope.kind == "location" else ""
    return f"{inside}{server or scope} ({scope.directive.place})"


def _about_target(plan: Plan, target: Target, wanted: int | None) -> list[Finding]:
    after = plan.later(target.scope)
    name, limit, deciding = subject(target), after.limit, after.deciding()
    place = deciding.place if deciding is not None else "the default of nginx"
    findings = []
    if wanted is None or limit == wanted:
        message = f"{name} takes bodies up to {show_size(limit)} ({place})"
        findings.append(Finding("nginx.upload_limit", name, "ok", message, limit, wanted, "bytes"))
    else:
        message = (
            f"{name} takes bodies up to {show_size(limit)}, not {show_size(wanted)}: {place} hides the limit above it"
        )
        advice = "use level auto, or name the path with level location"
        findings.append(Finding("nginx.upload_limit.hidden", name, "warning", message, limit, wanted, "bytes", advice))
    if target.path is None:
        findings += _hidden(plan, target, limit)
    above = after.parent.deciding() if after.own is not None and after.parent is not None else None
    if above is not None and after.parent is not None and after.parent.limit != limit:
        message = f"{place} overrides {show_size(after.parent.limit)} of {above.place} for {name}"
        findings.append(
            Finding("nginx.upload_limit.overrides", name, "info", message, limit, after.parent.limit, "bytes")
        )
    findings += _elsewhere(plan, target, limit)
    return findings


def _hidden(plan: Plan, target: Target, limit: int) -> list[Finding]:
    """Return the locations of a server asked for as a whole that keep a limit of their own."""
    findings = []
    for scope in target.server.walk():
        later = plan.later(scope)
        if scope.kind == "location" and later.own is not None and later.limit != limit:
            lower = later.limit != 0 and (limit == 0 or later.limit < limit)
            message = (
                f"{_of(scope)} keeps its own limit of {show_size(later.limit)} ({later.own.place}), "
                f"which hides {show_size(limit)} of the server"
            )
            advice = f"name the path {scope.name!r} in 'paths' to change it" if scope.modifier != "@" else None
            severity = "warning" if lower else "info"
            findings.append(
                Finding(
                    "nginx.upload_limit.hidden", subject(target), severity, message, later.limit, limit, "bytes", advice
                )
            )
    return findings


def _elsewhere(plan: Plan, target: Target, limit: int) -> list[Finding]:
    """Return what nginx does with a request after it has found the location, where another limit may count."""
    findings = []
    used = [one for one in target.serving.body if one.name in _ELSEWHERE]
    if target.serving is not target.server:
        used += [one for one in target.server.body if one.name == "rewrite"]
    if used:
        places = ", ".join(f"{one.name} ({one.place})" for one in used)
        message = f"a request for {subject(target)} may go on to another location, whose limit counts too: {places}"
        advice = "name the paths it ends at as well, or probe the URL"
        findings.append(Finding("nginx.internal_redirect", subject(target), "info", message, advice=advice))
    auth = target.serving.find("auth_request")
    if auth is not None and auth.args and auth.args[0].startswith("/"):
        location = plan.later(find_location(target.server, normalise(auth.args[0])))
        if location.limit != 0 and (limit == 0 or location.limit < limit):
            message = (
                f"bodies above {show_size(location.limit)} for {subject(target)} fail with 500: nginx compares "
                f"them with the limit of the auth_request location {auth.args[0]} too ({auth.place})"
            )
            advice = f"name the path {auth.args[0]!r} in 'paths' as well"
            findings.append(
                Finding(
                    "nginx.auth_request", subject(target), "warning", message, location.limit, limit, "bytes", advice
                )
            )
    return findings


# -- about the machine ----------------------------------------------------------------------------------------------


def about_uploads(instance: Instance, plan: Plan, user: Directive | None, told: Circumstances) -> list[Finding]:
    """Return why uploads of the allowed size may fail all the same.

    :param user: the ``user`` directive of the configuration.
    """
    account = user.args[0] if user is not None and user.args else instance.build.arguments.get("user", "nobody")
    findings: list[Finding] = []
    for target in plan.targets:
        scope = plan.later(target.serving)
        findings += _temporary(instance, target, scope, account)
        if told.slow_line:
            findings += _timeouts(target, scope, told.slow_line)
        if told.application_limit is not None:
            findings += _application(target, scope.limit, told.application_limit)
    if told.upload_directory is not None:
        largest = _largest(plan.later(target.serving).limit for target in plan.targets)
        what = "the application's upload directory"
        place = _Place(told.upload_directory, told.upload_directory, told.upload_owner)
        findings += _directory(instance, place, largest, "application.upload_directory", what)
    return list(dict.fromkeys(findings))


def _largest(limits: Iterable[int]) -> int:
    known = list(limits)
    return 0 if 0 in known else max(known, default=0)


@dataclass(frozen=True)
class _Place:
    """A directory: as its user names it, as this process reaches it, and the account that writes there."""

    path: str
    outside: str
    account: str | None
    inside_container: bool = False


def _passes(scope: Scope) -> tuple[str, Directive] | None:
    for directive in scope.body:
        if directive.name in _PROTOCOLS:
            return _PROTOCOLS[directive.name], directive
    return None


def _switched_off(scope: Scope, name: str) -> bool:
    directive = scope.find(name)
    return directive is not None and directive.args[:1] == ["off"]


def _temporary(instance: Instance, target: Target, scope: Scope, account: str) -> list[Finding]:
    findings: list[Finding] = []
    passes = _passes(scope)
    if passes is None or not _switched_off(scope, f"{passes[0]}_request_buffering"):
        place = _temporary_place(instance, scope, "client_body_temp_path", "client_body_temp", account)
        what = f"client_body_temp_path, where nginx keeps the body of an upload to {subject(target)},"
        findings += _directory(instance, place, scope.limit, "nginx.client_body_temp_path", what)
    if passes is not None and passes[0] != "grpc" and not _switched_off(scope, f"{passes[0]}_buffering"):
        place = _temporary_place(instance, scope, f"{passes[0]}_temp_path", f"{passes[0]}_temp", account)
        free = _free(place.outside)
        if free is not None and free < _FULL:
            message = f"{place.path}, where nginx buffers long answers of {target.ask.name}, has {show_size(free)} left"
            message = message.replace("unlimited", "nothing")
            findings.append(
                Finding(
                    f"nginx.{passes[0]}_temp_path.space", place.path, "warning", message, free, _FULL, "bytes", _ROOM
                )
            )
    return findings


_ROOM = "make room, or move it to a larger file system"


def _temporary_place(instance: Instance, scope: Scope, directive: str, default: str, account: str) -> _Place:
    set_to = scope.find(directive)
    compiled = "http-" + directive.replace("_", "-")
    path = set_to.args[0] if set_to is not None and set_to.args else instance.build.arguments.get(compiled, default)
    path = os.path.join(instance.build.prefix, path)
    return _Place(path, instance.tree.outside(path), account, instance.container is not None)


def _free(path: str) -> int | None:
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _directory(instance: Instance, place: _Place, size: int, check: str, what: str) -> list[Finding]:
    """Return what keeps a body of a size out of a directory; 0: any size."""
    findings: list[Finding] = []
    path = place.path
    if not os.path.isdir(place.outside):
        message = f"{what} {path} is not a directory, so uploads fail"
        return [
            Finding(f"{check}.missing", path, "critical", message, advice="create it for the account that writes there")
        ]
    status = os.statvfs(place.outside)
    free = status.f_bavail * status.f_frsize
    needed = size or _FULL
    if status.f_flag & os.ST_RDONLY:
        message = f"{what} {path} is on a file system mounted read-only, so uploads fail"
        findings.append(
            Finding(f"{check}.read_only", path, "critical", message, advice="remount it, look for disk errors")
        )
    elif free < needed:
        message = f"{what} {path} has {free} bytes left, less than one upload of {show_size(needed)}"
        findings.append(Finding(f"{check}.space", path, "warning", message, free, needed, "bytes", _ROOM))
    elif status.f_files and not status.f_favail:
        message = f"{what} {path} has no inode left, so no file can be created"
        findings.append(
            Finding(f"{check}.inodes", path, "critical", message, 0, 1, "inodes", "remove many small files")
        )
    if place.account is not None:
        findings += _permission(instance, place, check, what)
    return findings


def _permission(instance: Instance, place: _Place, check: str, what: str) -> list[Finding]:
    """Let the kernel say whether the account may create files there: it knows ACLs and the directories above."""
    may_write = ["test", "-w", place.path, "-a", "-x", place.path]
    advice = f"see 'namei -l {place.path}'; the account needs w and x on it and x on every directory above"
    try:
        if place.inside_container and instance.container is not None:
            argv = [str(instance.engine), "exec", "--user", str(place.account), instance.container, *may_write]
            result = instance.system.run(argv, timeout=30.0)
        else:
            result = instance.system.run(may_write, timeout=30.0, user=place.account)
    except CommandError as error:
        message = f"whether {place.account!r} may write into {place.path} could not be seen: {error}"
        return [Finding(f"{check}.permission", place.path, "warning", message)]
    if result.ok:
        return []
    message = f"{what} {place.path} cannot be written by {place.account!r}, so uploads fail"
    return [Finding(f"{check}.permission", place.path, "critical", message, advice=advice)]


def _timeouts(target: Target, scope: Scope, line: int) -> list[Finding]:
    """Compare timeouts with the time a body takes at a slow line."""
    if scope.limit == 0:
        return []
    seconds = scope.limit / line
    size = f"a body of {show_size(scope.limit)} takes {seconds:.0f} s at {show_size(line)} bytes/s"
    findings = []
    pauses = "it counts the pause between two reads, so a line that stalls for so long ends the upload with 408"
    names = [("client_body_timeout", pauses)]
    passes = _passes(scope)
    if passes is not None:
        protocol = passes[0]
        after = "it counts from the last byte passed on, so an application that stores it at that rate ends in 504"
        names.append((f"{protocol}_read_timeout", after))
        names.append((f"{protocol}_send_timeout", "it counts the pause between two writes to the application"))
    for name, meaning in names:
        directive = scope.find(name)
        value = parse_time(" ".join(directive.args)) if directive is not None else 60.0
        place = directive.place if directive is not None else "the default of nginx"
        if value is not None and value < seconds:
            message = f"{size}, {name} for {subject(target)} is {value:g} s ({place}); {meaning}"
            advice = f"set {name} {seconds:.0f}s where such lines are to work"
            severity = "info" if name.endswith("send_timeout") else "warning"
            findings.append(
                Finding(
                    f"nginx.{name}", subject(target), severity, message, value, round(seconds, 1), "seconds", advice
                )
            )
    return findings


def _application(target: Target, limit: int, application: int) -> list[Finding]:
    if application == 0 or (limit != 0 and application >= limit):
        return []
    message = (
        f"the application behind {subject(target)} takes {show_size(application)}, nginx {show_size(limit)}: what lies "
        "between passes nginx and is refused by the application"
    )
    advice = "raise the application's own limit too"
    return [Finding("application.limit", subject(target), "warning", message, application, limit, "bytes", advice)]
