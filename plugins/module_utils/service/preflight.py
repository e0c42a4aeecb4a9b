# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must hold before a service is touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding
from ansible_collections.worklog.maintenance.plugins.module_utils.service import process, programs
from ansible_collections.worklog.maintenance.plugins.module_utils.service.manager import Manager, ServiceError
from ansible_collections.worklog.maintenance.plugins.module_utils.service.probe import Probe
from ansible_collections.worklog.maintenance.plugins.module_utils.service.systemd import Systemd


@dataclass(frozen=True)
class Needs:
    """What a service needs to start.

    :param config_test: name of a built-in test or an argument list; empty: no test.
    :param dependencies: addresses that must answer, and ``unit:NAME`` for units that must be active.
    :param ports: TCP ports that no foreign process may hold.
    :param disk_free: bytes that must be free, by path.
    :param memory_available: bytes of memory that must be available; what the service itself uses does not count.
    :param user: account that runs the configuration test.
    """

    config_test: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    disk_free: Mapping[str, int] = field(default_factory=dict)
    memory_available: int = 0
    user: str | None = None


def inspect(
    manager: Manager,
    needs: Needs,
    run: Runner,
    *,
    holders: Callable[[int, Runner], Sequence[process.Holder]] = process.holders,
    memory: Callable[[], int] = process.memory_available,
) -> Iterator[Finding]:
    """Yield a finding for every need that is met (``ok``) or not (``critical``)."""
    yield from _configuration(manager, needs, run)
    yield from _dependencies(needs.dependencies, run)
    for port in needs.ports:
        yield _port(manager, port, holders(port, run))
    for path, wanted in sorted(needs.disk_free.items()):
        yield disk(path, wanted)
    if needs.memory_available:
        free = memory() + sum(process.resident(pid) for pid in manager.status().pids)
        yield Finding(
            check="service.memory",
            subject=manager.title,
            severity="ok" if free >= needs.memory_available else "critical",
            message=f"{size(free)} of memory are available, {size(needs.memory_available)} are needed to start",
            observed=free,
            limit=needs.memory_available,
            unit="bytes",
            advice=None if free >= needs.memory_available else "see what uses it: ps aux --sort=-rss | head",
        )


def size(count: int) -> str:
    """Return a number of bytes for reading, such as ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    return str(count)


def _configuration(manager: Manager, needs: Needs, run: Runner) -> Iterator[Finding]:
    if not needs.config_test:
        return
    name = needs.config_test[0] if len(needs.config_test) == 1 else " ".join(needs.config_test)
    wrong = programs.test_configuration(needs.config_test, run, needs.user)
    if wrong is None:
        yield Finding("service.configuration", manager.title, "ok", f"the configuration passes its test ({name})")
    else:
        yield Finding(
            check="service.configuration",
            subject=manager.title,
            severity="critical",
            message=f"the configuration fails its test ({name}): {wrong}",
            advice="correct what it names; the service still runs on what it read before",
        )


def _dependencies(dependencies: Sequence[str], run: Runner) -> Iterator[Finding]:
    for dependency in dependencies:
        if dependency.startswith("unit:"):
            name = dependency[len("unit:") :]
            unit = Systemd(name, run)
            try:
                status = unit.status()
                good, said = status.up, "it does not exist" if status.phase == "absent" else f"it is {status.words}"
            except ServiceError as error:
                good, said = False, str(error)
            title = unit.title
            advice = f"start it first: systemctl status {unit.name}"
        else:
            probe = Probe(dependency)
            answer = probe.ask()
            good, said, title = answer.good, answer.said, probe.title
            advice = "start it, or correct its address, first"
        yield Finding(
            check="service.dependency",
            subject=title,
            severity="ok" if good else "critical",
            message=f"the dependency {title} answers" if good else f"the dependency {title} does not answer: {said}",
            observed=said,
            advice=None if good else advice,
        )


def _port(manager: Manager, port: int, held: Sequence[process.Holder]) -> Finding:
    if held and all(holder.pid is None for holder in held) and manager.status().phase == "running":
        return Finding(
            "service.port", str(port), "info",
            f"port {port} is held by {held[0].describe()}; since {manager.title} runs, it is taken for its own",
        )  # fmt: skip
    foreign = [holder for holder in held if holder.pid is None or not manager.owns(holder.pid)]
    if not foreign:
        by = "free" if not held else f"held by {manager.title} itself"
        return Finding("service.port", str(port), "ok", f"port {port} is {by}")
    holder = foreign[0]
    advice = (
        "run with become: true to see who"
        if holder.pid is None
        else f"stop it: systemctl stop {holder.unit}"
        if holder.unit.endswith(".service")
        else f"end process {holder.pid}, or let the service listen elsewhere"
    )
    return Finding(
        check="service.port",
        subject=str(port),
        severity="critical",
        message=f"port {port} is held by {holder.describe()}, which does not belong to {manager.title}",
        observed=holder.describe(),
        advice=advice,
    )


def disk(path: str, wanted: int) -> Finding:
    """Return whether enough is free on the file system of a path."""
    try:
        status = os.statvfs(path)
    except OSError as error:
        return Finding(
            "service.disk", path, "critical", f"the free space of {path} cannot be told: {error.strerror}",
            advice="correct the path in disk_free",
        )  # fmt: skip
    free = status.f_bavail * status.f_frsize
    return Finding(
        check="service.disk",
        subject=path,
        severity="ok" if free >= wanted else "critical",
        message=f"{size(free)} are free on {path}, {size(wanted)} are needed to start",
        observed=free,
        limit=wanted,
        unit="bytes",
        advice=None if free >= wanted else f"make room: du -xh --max-depth=2 {path} | sort -h | tail",
    )
