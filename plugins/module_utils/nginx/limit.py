# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole work of the module: observe, plan, apply, prove, and put everything back when the proof fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import diagnose, probe
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, ConfigError
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.effective import (
    Listen,
    Scope,
    build,
    parse_size,
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
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.plan import (
    Ask,
    Plan,
    PlanError,
    Target,
    make,
    resolve,
)


class LimitError(Exception):
    """What was asked was not done; files and nginx are as they were, or the message says what is not.

    :param details: what the module returns beside the message.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class ProbeUrl:
    """A URL to probe besides, or instead of, the addresses in the configuration."""

    url: str
    host: str | None = None


@dataclass(frozen=True)
class Request:
    """What the operator asks for; see the module's options."""

    asks: Sequence[Ask]
    limit: str | None
    level: str = "auto"
    config: str | None = None
    executable: str | None = None
    container: str | None = None
    reload: str = "auto"
    timeout: float = 30.0
    require_running: bool = False
    probe: bool = False
    probe_urls: Sequence[ProbeUrl] = ()
    validate_certs: bool = True
    told: diagnose.Circumstances = field(default_factory=diagnose.Circumstances)
    check_mode: bool = False


@dataclass
class Outcome:
    """What was found and done."""

    changed: bool
    limits: list[dict[str, Any]]
    edits: list[dict[str, Any]]
    diff: list[dict[str, str]]
    findings: list[Finding]
    reloaded: bool = False
    proof: dict[str, Any] | None = None
    backups: dict[str, str] = field(default_factory=dict)


def carry_out(request: Request, system: System, asker: probe.Asker = probe.ask) -> Outcome:
    """Do what is asked and return what was found and done.

    :raises LimitError: when it cannot be done, or did not take effect; everything is as it was then.
    """
    try:
        instance = locate(system, executable=request.executable, config=request.config, container=request.container)
        if instance.master is None and request.require_running:
            raise LimitError(
                f"nginx does not run with {instance.config}; start it, or set require_running: false", refused=True
            )
        _must_be_valid(instance)
        config = Config(instance.config, instance.tree)
        http = build(config)
        plan = make(config, http, request.asks, request.level, request.limit)
        hosts = {real: instance.outside(real) for real in plan.contents}
        probes, unprobed = _probes(request, plan, instance)
    except (InstanceError, ConfigError, PlanError, probe.ProbeError, CommandError, OSError) as error:
        raise LimitError(str(error), refused=True) from error
    outcome = Outcome(
        changed=bool(plan.contents),
        limits=[_limit(plan, target) for target in plan.targets],
        edits=[edit.as_dict() for edit in plan.edits],
        diff=[_diff(hosts[real], old, new) for real, (old, new) in sorted(plan.contents.items())],
        findings=_findings(request, instance, config, plan) + unprobed,
    )
    stale = _stale(instance, config, plan, outcome)
    outcome.changed = outcome.changed or stale
    if request.check_mode:
        return outcome
    changes = {hosts[real]: texts for real, texts in plan.contents.items()}
    if changes:
        _write(instance, changes, outcome)
    try:
        if instance.master is not None and (changes or stale):
            proof = prove_reload(instance, instance.error_logs(config), request.reload, request.timeout)
            outcome.reloaded, outcome.proof = True, proof.as_dict()
        if probes:
            outcome.proof = {**(outcome.proof or {}), "probe": _ask_all(probes, request, outcome, asker)}
    except (ReloadError, probe.ProbeError) as error:
        raise LimitError(_undo(instance, config, changes, request, str(error)), **_details(outcome)) from error
    except BaseException:
        files.restore_all({path: old for path, (old, _ignored) in changes.items()})
        raise
    return outcome


def _ask_all(
    probes: Sequence[probe.Probe], request: Request, outcome: Outcome, asker: probe.Asker
) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    for one in probes:
        try:
            answers += probe.prove_limit(one, request.timeout, asker)
        except probe.NoAddress as error:
            outcome.findings.append(Finding("nginx.probe.skipped", one.host, "info", str(error)))
    if not answers:
        raise probe.ProbeError("none of the addresses of nginx can be reached from this host; name one in 'probe_urls'")
    return answers


def _details(outcome: Outcome) -> dict[str, Any]:
    return {"findings": [one.as_dict() for one in outcome.findings], "limits": outcome.limits, "edits": outcome.edits}


# -- before ---------------------------------------------------------------------------------------------------------


def _must_be_valid(instance: Instance) -> None:
    result = instance.test()
    if not result.ok:
        raise LimitError(
            f"the configuration is broken already, nothing was touched: {result.describe()}",
            refused=True,
            rc=result.rc,
            stderr=result.stderr,
        )


def _limit(plan: Plan, target: Target) -> dict[str, Any]:
    before, after = target.scope, plan.later(target.scope)
    return {
        "server": target.ask.name,
        "path": target.path,
        "listen": [str(listen) for listen in target.listens],
        "matched_by": target.by,
        "scope": str(before),
        "scope_at": before.directive.place,
        "before": before.limit,
        "before_from": _from(before),
        "after": after.limit,
        "after_from": _from(after),
    }


def _from(scope: Scope) -> str:
    deciding = scope.deciding()
    return deciding.place if deciding is not None else "default"


def _diff(path: str, old: bytes, new: bytes) -> dict[str, str]:
    return {
        "before_header": path,
        "after_header": path,
        "before": old.decode("utf-8", "replace"),
        "after": new.decode("utf-8", "replace"),
    }


def _findings(request: Request, instance: Instance, config: Config, plan: Plan) -> list[Finding]:
    def wanted(target: Target) -> int | None:
        return parse_size(target.ask.limit) if target.ask.limit is not None else None

    user = next((one for one in config.top() if one.name == "user"), None)
    findings = diagnose.about_plan(plan, wanted) + diagnose.about_uploads(instance, plan, user, request.told)
    if instance.master is None:
        message = f"nginx does not run with {instance.config}: the limit counts from its next start"
        findings.append(Finding("nginx.not_running", instance.config, "warning", message, advice="start nginx"))
    return findings


def _stale(instance: Instance, config: Config, plan: Plan, outcome: Outcome) -> bool:
    """Whether the workers are older than files that decide what was asked; note what else a reload would bring.

    So it is after a run that was killed between writing and reloading: the files are right, nginx does not know.
    """
    since = serving_since(instance)
    if since is None:
        return False
    changed = changed_since(config, since)
    scopes = [target.scope for target in plan.targets] or [plan.http]
    deciding = {path for scope in scopes for path in _deciding(scope)}
    stale = bool(deciding & set(changed))
    others = sorted(set(changed) - deciding) if not plan.contents else sorted(changed)
    if stale and not plan.contents:
        message = (
            f"{', '.join(sorted(deciding & set(changed)))} changed after nginx read it: it is loaded and proven now"
        )
        outcome.findings.append(Finding("nginx.workers.older", instance.config, "info", message))
    if others and (plan.contents or stale):
        message = f"changes made by others since nginx read its configuration take effect too: {', '.join(others)}"
        outcome.findings.append(
            Finding("nginx.pending_change", instance.config, "warning", message, advice="see that they are meant")
        )
    return stale


def _deciding(start: Scope) -> set[str]:
    """Return the files that a limit comes from: those of the blocks around and of their own directives."""
    scope: Scope | None = start
    paths: set[str] = set()
    while scope is not None:
        paths.add(scope.directive.source.path)
        if scope.own is not None:
            paths.add(scope.own.source.path)
        scope = scope.parent
    return paths


def _probes(request: Request, plan: Plan, instance: Instance) -> tuple[list[probe.Probe], list[Finding]]:
    """Return where to ask after the reload, with the limits that must be found there, and what cannot be asked."""
    probes: list[probe.Probe] = []
    findings: list[Finding] = []
    if request.probe and not request.probe_urls:
        if instance.container is not None:
            raise InstanceError(
                f"the addresses inside container {instance.container} are not those of this host; name a published one "
                "in 'probe_urls'"
            )
        for target in plan.targets:
            for listen in target.listens:
                reason = _unaskable(plan, target, listen)
                if reason is None:
                    probes.append(_probe(plan, target, listen, request.validate_certs))
                else:
                    name = diagnose.subject(target)
                    findings.append(Finding("nginx.probe.skipped", name, "info", f"{name} on {listen} {reason}"))
    for one in request.probe_urls:
        template = probe.from_url(one.url, one.host, 0, request.validate_certs)
        matching = resolve(plan.http, [Ask(template.host, (template.path,), default_server=True)])
        limits = {plan.later(target.scope).limit for target in matching}
        if len(limits) > 1:
            raise PlanError(f"servers with different limits answer for {one.url}; make them agree or probe another URL")
        probes.append(replace(template, limit=limits.pop()))
    return (probes, findings) if instance.master is not None else ([], findings)


def _unaskable(plan: Plan, target: Target, listen: Listen) -> str | None:
    """Return why an address cannot be asked whether a limit is in force there."""
    if not target.ask.name or any(char in target.ask.name for char in "*~^$"):
        return "is not probed: this is not one host name that a client could send"
    if "quic" in listen.options or ("http2" in listen.options and "ssl" not in listen.options):
        return "is not probed: it does not speak HTTP/1.1"
    errors = target.serving.find("error_page")
    if errors is not None and "413" in errors.args and any(word.startswith("=") for word in errors.args):
        return f"is not probed: error_page answers too large bodies with another status ({errors.place})"
    return None


def _probe(plan: Plan, target: Target, listen: Listen, verify: bool) -> probe.Probe:
    anywhere = {"*": "127.0.0.1", "[::]": "::1"}
    address = listen.address[5:] if listen.address.startswith("unix:") else listen.address
    return probe.Probe(
        anywhere.get(address, address),
        listen.port,
        target.ask.name,
        target.path or "/",
        plan.later(target.serving).limit,
        "ssl" in listen.options,
        verify,
        "proxy_protocol" in listen.options,
    )


# -- after ----------------------------------------------------------------------------------------------------------


def _write(instance: Instance, changes: Mapping[str, tuple[bytes, bytes]], outcome: Outcome) -> None:
    """Replace the files and let nginx test them; put them back when it refuses them."""
    try:
        outcome.backups = {path: files.backup(path) for path in changes}
        files.replace_all(changes)
    except files.FileError as error:
        raise LimitError(f"{error}; nothing was changed", refused=True, **_details(outcome)) from error
    old = {path: text for path, (text, _ignored) in changes.items()}
    try:
        result = instance.test()
        words = "" if result.ok else result.describe()
    except CommandError as error:
        words = str(error)
    except BaseException:
        files.restore_all(old)
        raise
    if words:
        try:
            files.restore_all(old)
        except files.FileError as error:
            words += f"; {error}; copies are in {', '.join(outcome.backups.values())}"
        raise LimitError(
            f"nginx refuses the new configuration, the files are as they were: {words}", **_details(outcome)
        )


def _undo(
    instance: Instance, config: Config, changes: Mapping[str, tuple[bytes, bytes]], request: Request, reason: str
) -> str:
    """Put the old files back and load them; return the sentence that tells what became of it."""
    if not changes:
        return reason
    try:
        files.restore_all({path: old for path, (old, _ignored) in changes.items()})
    except files.FileError as error:
        return f"{reason}; {error}"
    said = f"{reason}; the old files are back"
    try:
        prove_reload(instance, instance.error_logs(config), request.reload, request.timeout)
    except ReloadError as error:
        return f"{said}, but nginx did not load them either and goes on with what it had before: {error}"
    return f"{said} and loaded"
