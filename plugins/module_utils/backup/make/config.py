# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration of the backup program: what is backed up on this host, and where to."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files, record, units
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.engines import ENGINES
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.options import (
    Options,
    boolean,
    mapping,
    number,
    path,
    paths,
    texts,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import REQUIRED, Engine
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.prune import Policy
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restic import Location
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import NAME
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.tiers import Tier

PATH = "/etc/worklog-maintenance/backup.json"

#: Where the program is on a host.
PROGRAM = "/usr/local/sbin/worklog-backup"

#: Group of the accounts other than root that make backups: it may read the configuration, enter the directory of all
#: backups and append records.
GROUP = "worklog-backup"


class ConfigError(Exception):
    """The configuration cannot be used; the message names the key, its value and what is possible."""


@dataclass(frozen=True)
class Source:
    """One thing that is backed up.

    :param name: names its directory.
    :param engine: makes its backups.
    :param timeout: seconds for one backup.
    :param expect: what must be true of its backups, as for the module ``backup_verify``.
    :param verify: whether every backup is read again as soon as it is made.
    :param keep: what is kept of its backups on this host.
    :param tiers: where copies of them go, by name.
    :param user: account that makes its backups and owns them; None: whoever runs the program.
    :param calendars: when each kind is made, copied and pruned by itself, as systemd.time(7) writes it.
    :param delay: seconds at most by which that is put off, so that not all hosts begin at once.
    :param watch: files and directories; when one changes, a snapshot is made.
    """

    name: str
    engine: Engine
    timeout: float
    expect: Mapping[str, Any]
    verify: bool
    keep: Policy
    tiers: dict[str, Tier]
    user: str | None = None
    calendars: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0
    watch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """What the program is told.

    :param root: directory of all backups.
    :param min_free: share of the file system that must stay free.
    :param records: file of the maintenance records.
    :param sources: by name.
    :param notify: program and arguments that are given the record of a failed run on standard input.
    """

    root: str
    min_free: float
    records: str
    sources: dict[str, Source]
    notify: tuple[str, ...] = ()


def plain_paths(value: Any) -> tuple[str, ...]:
    """Return absolute paths in which nothing stands for something else, or none.

    :raises ValueError: when one is none.
    """
    found = paths(value) if value else ()
    if any(set("*?[") & set(entry) for entry in found):
        raise ValueError("a list of absolute paths without patterns")
    return found


def account(value: Any) -> str:
    """Return the name of an account.

    :raises ValueError: when it is none.
    """
    if not isinstance(value, str) or not _ACCOUNT.fullmatch(value):
        raise ValueError("the name of an account")
    return value


_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")

#: When the kinds of an engine are made by themselves, unless the source says otherwise.
CALENDARS: Mapping[str, Mapping[str, str]] = {
    "mariadb": {
        "full": "Sun *-*-* 01:30",
        "incremental": "Mon..Sat *-*-* 01:30",
        "log": "hourly",
        "dump": "*-*-* 03:00",
    },
    "mongodb": {"full": "*-*-* 02:00"},
    "redis": {"full": "*-*-* 02:15"},
    "files": {"snapshot": "*-*-* 02:30"},
    "secrets": {"snapshot": "*-*-* 02:45"},
    "archive": {"archive": "Sun *-*-* 03:30"},
}

#: When what was made is copied to the tiers, and when what is redundant is removed.
_KEEPING: Mapping[str, str] = {"copy": "*-*-* 04:00", "prune": "*-*-* 05:00"}

_GENERAL: Options = {
    "root": (path, "/var/backups/worklog"),
    "min_free": (units.share, "5%"),
    "records": (path, record.PATH),
    "notify": (texts, ()),
    "sources": (mapping, REQUIRED),
}
_SOURCE: Options = {
    "engine": (str, REQUIRED),
    "timeout": (units.duration, "12h"),
    "expect": (mapping, {}),
    "verify": (boolean, True),
    "keep": (mapping, {}),
    "tiers": (mapping, {}),
    "user": (account, None),
    "schedule": (mapping, {}),
    "delay": (units.duration, "10m"),
    "watch": (plain_paths, ()),
}
_KEEP: Options = {
    "age": (units.duration, "7d"),
    "last": (number, 2),
    "weekly": (number, 0),
    "monthly": (number, 0),
    "fresh": (units.duration, "8d"),
    "max_share": (units.share, "50%"),
    "max_pause": (units.duration, "3d"),
}
_TIER: Options = {
    "repository": (str, REQUIRED),
    "password_file": (path, REQUIRED),
    "environment_file": (path, None),
    "options": (texts, []),
    "timeout": (units.duration, "12h"),
    "read_share": (units.share, "5%"),
    "before_prune": (boolean, True),
}
#: The tiers: what is kept there by default; None: everything for ever, and no option can change that.
_TIERS: Mapping[str, Mapping[str, Any] | None] = {"remote": {"age": "90d"}, "offsite": None}


def load(file: str) -> Config:
    """Return the configuration in a file.

    :raises ConfigError: when it cannot be used.
    """
    try:
        value = json.loads(files.read(file))
    except files.FileError as error:
        advice = "" if os.path.lexists(file) else "; the playbook worklog.maintenance.backup_setup makes it"
        raise ConfigError(f"{error}{advice}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is not valid JSON: {error}") from None
    return parse(value, file)


def parse(value: Any, subject: str) -> Config:
    """Return the configuration in a document.

    :param subject: what to name in an error.
    :raises ConfigError: when it cannot be used.
    """
    general = _read(subject, value, _GENERAL)
    sources = {}
    for name, given in general["sources"].items():
        where = f"{subject}: source '{name}'"
        if not NAME.fullmatch(str(name)):
            raise ConfigError(f"{where}: a name is made of lower-case letters, digits, '-', '_' and '.'")
        if not isinstance(given, Mapping):
            raise ConfigError(f"{where} must be a mapping")
        kind = given.get("engine")
        engine = ENGINES.get(str(kind))
        if engine is None:
            raise ConfigError(f"{where}: engine is {kind!r}, but must be one of {', '.join(ENGINES)}")
        common = _read(where, {key: given[key] for key in given if key in _SOURCE}, _SOURCE)
        own = {key: given[key] for key in given if key not in _SOURCE}
        options = _read(where, own, engine.OPTIONS, also=_SOURCE)
        calendars = _calendars(where, engine, common.pop("schedule"), bool(common["tiers"]))
        if common["watch"] and "snapshot" not in engine.kinds:
            raise ConfigError(f"{where}: watch is for engines that make snapshots, and {engine.name} does not")
        del common["engine"]
        common["keep"] = Policy(**_read(f"{where}: keep", common["keep"], _KEEP))
        common["tiers"] = {str(tier): _tier(where, str(tier), given) for tier, given in common["tiers"].items()}
        sources[name] = Source(name, engine(options), calendars=calendars, **common)
    del general["sources"]
    return Config(sources=sources, **general)


def _calendars(subject: str, engine: type[Engine], given: Mapping[str, Any], copied: bool) -> dict[str, str]:
    possible = [*engine.kinds, *(["copy"] if copied else []), "prune"]
    for work, calendar in given.items():
        if work not in possible:
            raise ConfigError(f"{subject}: schedule has '{work}', but there are {', '.join(possible)}")
        if not isinstance(calendar, str) or "\n" in calendar:
            raise ConfigError(f"{subject}: schedule of {work} is {calendar!r}, but must be a text such as 'Sun 01:30'")
    wanted = {**CALENDARS.get(engine.name, {}), **_KEEPING, **given}
    return {work: wanted[work] for work in possible if wanted.get(work)}


def find(config: Config, name: str) -> Source:
    """Return a source.

    :raises ConfigError: when there is none of this name.
    """
    if name not in config.sources:
        raise ConfigError(f"there is no source '{name}'; there are {', '.join(config.sources) or 'none'}")
    return config.sources[name]


def _tier(subject: str, name: str, given: Any) -> Tier:
    where = f"{subject}: tier '{name}'"
    if name not in _TIERS:
        raise ConfigError(f"{where} is not known; the tiers are {', '.join(_TIERS)}")
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} must be a mapping")
    default = _TIERS[name]
    if default is None and "keep" in given:
        raise ConfigError(f"{where} is kept for ever: it has no keep, and nothing here can remove what is in it")
    found = _read(where, {key: given[key] for key in given if key != "keep"}, _TIER, also=("keep",))
    keep = None
    if default is not None:
        own = given.get("keep") or {}
        keep = Policy(**_read(f"{where}: keep", {**default, **own} if isinstance(own, Mapping) else own, _KEEP))
    try:
        location = Location(**{key: found[key] for key in found if key not in ("read_share", "before_prune")})
    except ValueError as error:
        raise ConfigError(f"{where} must have {error}") from None
    return Tier(name, location, found["read_share"], found["before_prune"], keep)


def _read(subject: str, value: Any, options: Options, also: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{subject} must be a mapping")
    for key in value:
        if key not in options:
            possible = [*options, *also]
            near = difflib.get_close_matches(str(key), possible, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"possible are {', '.join(possible)}"
            raise ConfigError(f"{subject}: there is no option '{key}'; {hint}")
    found = {}
    for key, (reader, default) in options.items():
        given = value.get(key)
        if given is None and default is REQUIRED:
            raise ConfigError(f"{subject}: {key} is missing")
        given = default if given is None else given
        try:
            found[key] = None if given is None else reader(given)
        except ValueError as error:
            raise ConfigError(f"{subject}: {key} is {given!r}, but must be {error}") from None
    return found
