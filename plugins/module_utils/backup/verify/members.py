# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names in an archive or a directory tree: which wanted ones are there, and which are dangerous to extract."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from fnmatch import translate

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem

#: Names that are compared with each other, to find those that occur twice.
MAX_NAMES = 200_000

#: Longest path that Linux takes.
_MAX_PATH = 4096

_NOTES = {
    "absolute": "absolute names, written outside when extracted with --absolute-names",
    "parent": "names that climb out of the archive with '..'",
    "link": "links that point out of the archive",
    "tricky": "links that climb with '..' through another name, and may lead out of the archive",
    "device": "devices or named pipes",
    "special": "devices, sockets or named pipes, which no copy can hold",
    "unknown": "members of an unknown type",
    "encoding": "names that are not valid UTF-8",
    "control": "names with control characters",
    "long": "names that are empty or longer than a path may be",
    "repeated": "names that occur more than once, of which extracting keeps the last",
}


def printable(text: str | bytes, limit: int = 200) -> str:
    """Return a name as it can be shown: escapes for what is not printable, its end when it is too long."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    shown = "".join(
        char
        if char.isprintable()
        else f"\\x{ord(char) - 0xDC00:02x}"
        if "\udc80" <= char <= "\udcff"
        else char.encode("unicode_escape").decode("ascii")
        for char in (text if len(text) <= limit else text[-limit:])
    )
    return shown if len(text) <= limit else "…" + shown


def normal(name: str) -> str:
    """Return a member's name as it is compared: without a leading ``./`` or ``/`` and a closing ``/``."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name.strip("/")


class Members:
    """Take the names one by one, in bounded memory.

    :param wanted: paths that must be there; ``*``, ``?`` and ``[…]`` match as in a shell, also across ``/``. A
        directory is there when it, or anything in it, is.
    """

    def __init__(self, wanted: Iterable[str] = ()) -> None:
        self.count = 0
        self.sparse = 0
        self._plain: dict[str, str] = {}
        self._patterns: dict[str, re.Pattern[str]] = {}
        for name in wanted:
            if any(char in name for char in "*?["):
                self._patterns[name] = re.compile(translate(normal(name)))
            else:
                self._plain[normal(name)] = name
        self._noted: dict[str, tuple[int, list[str]]] = {}
        self._seen: set[int] = set()
        self._missing = bool(self._plain or self._patterns)

    @property
    def missing(self) -> list[str]:
        """The wanted names that were not seen."""
        return sorted([*self._plain.values(), *self._patterns])

    @property
    def names_compared(self) -> bool:
        """Whether there were few enough names to find all that occur twice."""
        return len(self._seen) < MAX_NAMES

    def add(self, name: str, directory: bool = False) -> None:
        """Take a name; directories are not counted."""
        if not directory:
            self.count += 1
            if len(self._seen) < MAX_NAMES:
                before = len(self._seen)
                self._seen.add(hash(name))
                if len(self._seen) == before:
                    self.note("repeated", name)
        if self._missing:
            self.found(name)
        if name[:1] == "/":
            self.note("absolute", name)
        if ".." in name and ".." in name.split("/"):
            self.note("parent", name)
        if not name.isprintable():
            try:
                name.encode("utf-8")
            except UnicodeEncodeError:
                self.note("encoding", name)
            else:
                if any(ord(char) < 32 or ord(char) == 127 for char in name):
                    self.note("control", name)
        if not name or len(name) > _MAX_PATH:
            self.note("long", name)

    def found(self, name: str) -> None:
        """Take a name that is only looked for."""
        name = normal(name)
        if self._plain:
            self._plain.pop(name, None)
            end = name.rfind("/")
            while end > 0 and self._plain:
                self._plain.pop(name[:end], None)
                end = name.rfind("/", 0, end)
        if self._patterns:
            for pattern in [key for key, value in self._patterns.items() if value.match(name)]:
                del self._patterns[pattern]
        self._missing = bool(self._plain or self._patterns)

    def link(self, name: str, target: str, hard: bool = False) -> None:
        """Take a link's name and what it points to."""
        if not hard and not target.startswith("/"):
            joined = posixpath.join(posixpath.dirname(normal(name)), target)
        else:
            joined = target
        parts = joined.split("/")
        if (not hard and target.startswith("/")) or posixpath.normpath(joined).split("/")[0] == "..":
            self.note("link", name)
        elif ".." in parts and not hard:
            own = target.split("/")
            while own and own[0] in ("..", "."):
                del own[0]
            if ".." in own:
                self.note("tricky", name)
        elif hard and ".." in parts:
            self.note("link", name)

    def note(self, kind: str, name: str) -> None:
        """Count something worth telling, and keep the first three names."""
        count, examples = self._noted.get(kind, (0, []))
        if len(examples) < 3:
            examples.append(printable(name, 100))
        self._noted[kind] = (count + 1, examples)

    def problems(self) -> list[Problem]:
        """Return what was noted, one entry a kind."""
        return [
            Problem(f"members.{kind}", f"{_NOTES[kind]}: {count}, such as {', '.join(examples)}", note=True)
            for kind, (count, examples) in self._noted.items()
        ]
