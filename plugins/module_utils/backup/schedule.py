# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units of systemd by which a host makes its backups itself, and how to get from those that are there to them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.config import (
    GROUP,
    PATH,
    PROGRAM,
    Config,
    Source,
)

DIRECTORY = "/etc/systemd/system"

#: First line of every unit of ours; one without it is never touched.
MARKER = "# Made by worklog.maintenance.backup_schedule from backup.json; changes are lost, use a drop-in instead."

#: Names that a unit of ours can have.
NAME = re.compile(r"worklog-backup-[a-z0-9_.-]+@?\.(service|timer|path)")

_CALL = f"{PROGRAM} --config {PATH}"
_FAILED = "worklog-backup-failed@"

#: Seconds that a change of a watched file has to be over; an editor or a deployment writes more than once.
_SETTLE = 5

#: What a run may do. Reading is not restricted beyond what systemd's `strict` means, as any file can be a source.
_HARDENING = (
    "NoNewPrivileges=yes",
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectControlGroups=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
)


def unit(source: str, work: str) -> str:
    """Return the name of the units of a source for one of its works, without its ending."""
    return f"worklog-backup-{source}-{work}"


def units(config: Config) -> dict[str, str]:
    """Return the content of every unit by its name, for what the host backs up."""
    found = {}
    for source in config.sources.values():
        for work in dict.fromkeys([*source.engine.kinds, *source.calendars]):
            name = unit(source.name, work)
            watched = bool(source.watch) and work == "snapshot"
            found[f"{name}.service"] = _service(config, source, work, watched)
            if work in source.calendars:
                found[f"{name}.timer"] = _timer(source, work)
            if watched:
                found[f"{name}.path"] = _path(source, work)
    if found:
        found[f"{_FAILED}.service"] = _failed_service()
    return {name: f"{MARKER}\n{text}" for name, text in found.items()}


def _service(config: Config, source: Source, work: str, watched: bool) -> str:
    made = work in source.engine.kinds
    timeout = 2 * source.timeout + 600
    places = [_quoted(path) for path in (config.root, os.path.dirname(config.records))]
    if not made:
        tiers = [tier.location for tier in source.tiers.values()]
        timeout += sum(location.timeout for location in tiers)
        # Whether one is there, restic says better than systemd.
        places += [_quoted(f"-{tier.repository}") for tier in tiers if os.path.isabs(tier.repository)]
    lines = [
        "[Unit]",
        f"Description={_description(source, work)}",
        f"OnFailure={_FAILED}%n.service",
        *(["StartLimitIntervalSec=0"] if watched else []),
        "",
        "[Service]",
        "Type=oneshot",
        f"User={source.user or 'root'}",
        *([f"SupplementaryGroups={GROUP}"] if _other(source) else []),
        *([f"ExecStartPre=sleep {_SETTLE}"] if watched else []),
        f"ExecStart={_CALL} run {source.name} {work}" if made else f"ExecStart={_CALL} {work} {source.name}",
        "SuccessExitStatus=75",
        f"TimeoutStartSec={timeout:.0f}",
        "UMask=0077",
        "Nice=10",
        "IOSchedulingClass=idle",
        *([] if made or _other(source) else ["CacheDirectory=worklog-maintenance", "CacheDirectoryMode=0700"]),
        *_HARDENING,
        f"ReadWritePaths={' '.join(dict.fromkeys(places))}",
        "",
    ]
    return "\n".join(lines)


def _other(source: Source) -> bool:
    """Return whether another account than root makes the backups."""
    return source.user not in (None, "root")


def _description(source: Source, work: str) -> str:
    if work in source.engine.kinds:
        return f"Backup of {source.name} ({source.engine.name} {work})"
    return {"copy": "Copies of the backups", "prune": "Pruning of the backups"}[work] + f" of {source.name}"


def _timer(source: Source, work: str) -> str:
    return f"""\
[Unit]
Description={_description(source, work)}, when its time has come

[Timer]
OnCalendar={source.calendars[work]}
RandomizedDelaySec={source.delay:.0f}
Persistent=yes

[Install]
WantedBy=timers.target
"""


def _path(source: Source, work: str) -> str:
    changed = "\n".join(f"PathChanged={_escaped(path)}" for path in source.watch)
    return f"""\
[Unit]
Description={_description(source, work)}, when something changes

[Path]
{changed}

[Install]
WantedBy=paths.target
"""


def _failed_service() -> str:
    return f"""\
[Unit]
Description=Record that %i has failed

[Service]
Type=oneshot
ExecStart={_CALL} failed %i
TimeoutStartSec=180
NoNewPrivileges=yes
"""


def _escaped(path: str) -> str:
    return path.replace("%", "%%")


def _quoted(path: str) -> str:
    """Return a path as an item of a list in a unit."""
    escaped = _escaped(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if re.search(r"[\s'\"\\]", path) else escaped


@dataclass(frozen=True)
class Plan:
    """How to get from the units that are there to those that are wanted.

    :param write: content by name.
    :param remove: names of those of ours that nobody wants any more.
    """

    write: dict[str, str]
    remove: list[str]

    @property
    def empty(self) -> bool:
        """Whether everything is as it should be."""
        return not self.write and not self.remove


class ForeignUnit(Exception):
    """A unit of a wanted name is there that somebody else has made."""


def plan(present: Mapping[str, str], wanted: Mapping[str, str]) -> Plan:
    """Return what is to be written and removed.

    :param present: the units whose names could be ours, with their content.
    :param wanted: the units that shall be there.
    :raises ForeignUnit: when a unit of a wanted name is not ours.
    """
    ours = {name for name, content in present.items() if content.startswith(MARKER)}
    foreign = sorted(name for name in wanted if name in present and name not in ours)
    if foreign:
        raise ForeignUnit(
            f"{', '.join(foreign)} in {DIRECTORY} was not made by this collection and is left alone; "
            "remove it, or give the source another name"
        )
    return Plan(
        {name: content for name, content in wanted.items() if present.get(name) != content},
        sorted(ours - wanted.keys()),
    )
