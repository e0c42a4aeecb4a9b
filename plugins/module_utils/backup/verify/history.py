# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is remembered from run to run: the sizes of earlier backups of the same name, in a plain JSON file."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files

#: Where the file is kept.
DIRECTORY = "/var/lib/worklog-maintenance/backup_verify"

#: Sizes kept for one name, and needed before one can be called unusual.
KEEP = 20
NEEDED = 3

_SCHEMA = 1


class HistoryError(Exception):
    """The history could not be read or written."""


class Document:
    """A plain JSON document with one entry a name.

    :param path: where it is kept; nothing is made before :meth:`save`.
    :param key: under which the entries stand.
    :param read: returns an entry with the right types.
    :raises HistoryError: when there is one that cannot be read.
    """

    def __init__(self, path: str, key: str, read: Callable[[Any], Any]) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.changed = False
        self._key = key
        if not os.path.lexists(path):
            return
        try:
            value = json.loads(files.read(path))
            if value["schema"] != _SCHEMA:
                raise HistoryError(f"{path} has schema {value['schema']!r}, and only {_SCHEMA} is known")
            self.values = {name: read(entry) for name, entry in value[key].items()}
        except files.FileError as error:
            raise HistoryError(str(error)) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HistoryError(f"{path} is damaged ({error}); remove it to begin a new history") from None

    def save(self) -> None:
        """Write it when it was changed.

        :raises HistoryError: when it cannot be written.
        """
        if not self.changed:
            return
        value: Mapping[str, Any] = {"schema": _SCHEMA, self._key: self.values}
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o750, exist_ok=True)
            files.replace(self.path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n", mode=0o640)
        except (OSError, files.FileError) as error:
            raise HistoryError(f"cannot keep the {self._key} in {self.path}: {error}") from error
        self.changed = False


class History:
    """Sizes by name of the backup, oldest first.

    :param directory: where ``sizes.json`` is kept.
    :raises HistoryError: when there is one that cannot be read.
    """

    def __init__(self, directory: str) -> None:
        self._document = Document(os.path.join(directory, "sizes.json"), "sizes", _entries)

    def median(self, name: str, made: float) -> tuple[float | None, int]:
        """Return the median size of the backups made before, None when they are too few, and their number."""
        sizes = [entry["size"] for entry in self._document.values.get(name, []) if entry["time"] < made]
        return (statistics.median(sizes) if len(sizes) >= NEEDED else None), len(sizes)

    def add(self, name: str, made: float, size: int) -> None:
        """Take a good backup; the same one (by the time it was made) is taken once."""
        entries = self._document.values.setdefault(name, [])
        if all(entry["time"] != made for entry in entries):
            entries.append({"time": made, "size": size})
            entries.sort(key=lambda entry: float(entry["time"]))
            del entries[:-KEEP]
            self._document.changed = True

    def save(self) -> None:
        """Write what was added.

        :raises HistoryError: when it cannot be written.
        """
        self._document.save()


def _entries(value: Any) -> list[dict[str, Any]]:
    return [{"time": float(entry["time"]), "size": int(entry["size"])} for entry in value]
