# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module backup_verify, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import store
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import expect, formats, history
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.access import Secret
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.rotation import Share
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.sets import Wanted
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import Backup
from ansible_collections.worklog.maintenance.plugins.module_utils.units import duration, share

ROOT = "/var/backups/worklog"


def argument_spec() -> dict[str, Any]:
    """Return the options of the module."""
    expectation = {
        "type": "dict",
        "options": {
            "max_age": {"type": "str"},
            "min_size": {"type": "str"},
            "max_size": {"type": "str"},
            "size_change": {"type": "str"},
            "members": {"type": "list", "elements": "str"},
            "min_members": {"type": "int"},
            "databases": {"type": "list", "elements": "str"},
            "tables": {"type": "list", "elements": "str"},
            "min_rows": {"type": "dict"},
            "min_documents": {"type": "dict"},
            "sha256": {"type": "str"},
            "min_snapshots": {"type": "int"},
            "snapshot_host": {"type": "str"},
            "snapshot_tags": {"type": "list", "elements": "str"},
        },
    }
    reading = {"share": {"type": "str", "required": True}, "within": {"type": "str", "default": "7d"}}
    backup = {
        "path": {"type": "str", "required": True},
        "name": {"type": "str"},
        "format": {
            "type": "str",
            "default": "auto",
            "choices": ["auto", "plain", "tree", "restic", "borg", *formats.NAMES],
        },
        "every": {"type": "bool", "default": False},
        "manifest": {"type": "path"},
        "log": {"type": "str"},
        "identity_file": {"type": "path"},
        "password_file": {"type": "path"},
        "password_env": {"type": "str", "no_log": False},
        "read": {"type": "dict", "options": reading},
        "expect": expectation,
    }
    wanted = {
        "root": {"type": "path", "default": ROOT},
        "sources": {"type": "list", "elements": "str", "required": True},
        "full_within": {"type": "str", "default": "8d"},
        "recoverable_within": {"type": "str"},
    }
    return {
        "backups": {"type": "list", "elements": "dict", "default": [], "options": backup},
        "sets": {"type": "list", "elements": "dict", "default": [], "options": wanted},
        "expect": expectation,
        "accept": {
            "type": "list",
            "elements": "str",
            "choices": ["verified", "structure_ok", "inconclusive", "stale"],
            "default": ["verified", "structure_ok"],
        },
        "report_only": {"type": "bool", "default": False},
        "history": {"type": "path", "default": history.DIRECTORY},
        "max_ratio": {"type": "float", "default": 200},
        "max_expanded": {"type": "str", "default": "8T"},
        "progress_file": {"type": "path"},
        "defer_above": {"type": "int"},
    }


def backup(entry: Mapping[str, Any], common: Mapping[str, Any] | None) -> Backup:
    """Return what is to be verified.

    :param entry: one of ``backups``.
    :param common: what is expected of all.
    :raises ExpectationError: when a value cannot be understood.
    """
    subject = entry["path"]
    return Backup(
        subject,
        entry["name"] or subject,
        entry["format"],
        expect.parse(subject, common, entry["expect"]),
        entry["manifest"],
        every=entry["every"],
        log=entry["log"],
        identity=entry["identity_file"],
        secret=Secret(entry["password_file"], entry["password_env"]),
        share=None if entry["read"] is None else _share(subject, entry["read"]),
    )


def wanted(entry: Mapping[str, Any]) -> Wanted:
    """Return what must be recoverable.

    :param entry: one of ``sets``.
    :raises ExpectationError: when a value cannot be understood.
    """
    for name in entry["sources"]:
        if not store.NAME.fullmatch(name):
            raise expect.ExpectationError(f"'{name}' in sets is no name of a source")
    within = entry["recoverable_within"]
    return Wanted(
        entry["root"],
        tuple(entry["sources"]),
        _time("full_within", entry["full_within"]),
        None if within is None else _time("recoverable_within", within),
    )


def _share(subject: str, value: Mapping[str, Any]) -> Share:
    try:
        part = share(value["share"])
    except ValueError as error:
        raise expect.ExpectationError(f"{subject}: share is {value['share']!r}, but must be {error}") from None
    if not 0 < part <= 1:
        raise expect.ExpectationError(f"{subject}: share is {value['share']!r}, but must be above 0 and at most 100%")
    return Share(part, _time(f"{subject}: within", value["within"]))


def _time(subject: str, value: Any) -> float:
    try:
        return duration(value)
    except ValueError as error:
        raise expect.ExpectationError(f"{subject} is {value!r}, but must be {error}") from None
