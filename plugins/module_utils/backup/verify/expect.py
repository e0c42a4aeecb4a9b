# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup is expected to be, as an operator writes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.units import duration, share, size


class ExpectationError(Exception):
    """An expectation that cannot be understood; the message names it and says what is possible."""


@dataclass(frozen=True)
class Expectation:
    """What must be true of a backup. None and empty: not asked for.

    :param max_age: seconds.
    :param min_size: bytes on disk.
    :param max_size: bytes on disk.
    :param size_change: share of the median size of the backups before it, such as 0.5.
    :param members: paths (or keys of an env file) that must be there.
    :param min_members: number of members that are not directories.
    :param databases: names that must be there.
    :param tables: ``database.table`` (or ``database.collection``) that must be there.
    :param min_rows: rows or documents by ``database.table``.
    :param sha256: of the file.
    :param min_snapshots: number of snapshots of a repository that are to be there.
    :param snapshot_host: only snapshots of this host count.
    :param snapshot_tags: only snapshots with all these tags count.
    """

    max_age: float | None = None
    min_size: int | None = None
    max_size: int | None = None
    size_change: float | None = None
    members: tuple[str, ...] = ()
    min_members: int | None = None
    databases: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    min_rows: dict[str, int] = field(default_factory=dict)
    sha256: str | None = None
    min_snapshots: int | None = None
    snapshot_host: str | None = None
    snapshot_tags: tuple[str, ...] = ()


def _count(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]+", str(value).strip()):
        raise ValueError("a number that is not negative")
    return int(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) and entry for entry in value):
        raise ValueError("a list of names")
    return tuple(value)


def _tables(value: Any) -> tuple[str, ...]:
    names = _names(value)
    if any("." not in name.strip(".") for name in names):
        raise ValueError("a list of names such as database.table")
    return names


def _rows(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping) or any("." not in str(name).strip(".") for name in value):
        raise ValueError("a mapping such as {database.table: 100}")
    return {str(name): _count(rows) for name, rows in value.items()}


def _hash(value: Any) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", str(value)):
        raise ValueError("64 hexadecimal digits")
    return str(value).lower()


_READERS: dict[str, Callable[[Any], Any]] = {
    "max_age": duration,
    "min_size": size,
    "max_size": size,
    "size_change": share,
    "members": _names,
    "min_members": _count,
    "databases": _names,
    "tables": _tables,
    "min_rows": _rows,
    "min_documents": _rows,
    "sha256": _hash,
    "min_snapshots": _count,
    "snapshot_host": str,
    "snapshot_tags": _names,
}


def parse(subject: str, *values: Mapping[str, Any] | None) -> Expectation:
    """Return the expectation of a backup; later mappings go before earlier ones, key by key.

    :param subject: what to name in an error.
    :param values: keys as in :class:`Expectation`, and ``min_documents``, which means the same as ``min_rows``.
    :raises ExpectationError: when a key or a value is wrong.
    """
    fields: dict[str, Any] = {}
    for mapping in values:
        for key, value in (mapping or {}).items():
            if key not in _READERS:
                raise ExpectationError(f"{subject}: '{key}' is no expectation; possible are {', '.join(_READERS)}")
            if value is None:
                continue
            try:
                fields[key] = _READERS[key](value)
            except ValueError as error:
                raise ExpectationError(f"{subject}: {key} is {value!r}, but must be {error}") from None
    documents = fields.pop("min_documents", {})
    if documents:
        fields["min_rows"] = {**fields.get("min_rows", {}), **documents}
    return Expectation(**fields)
