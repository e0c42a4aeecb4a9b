# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where HAProxy reads its servers' weights and states from when it is reloaded: its configuration, or a state file.

The configuration is read as far as that needs: sections, ``server`` lines, and where a state file is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

#: Keywords that begin a section.
SECTIONS = frozenset(
    (
        *("global", "defaults", "frontend", "backend", "listen"),
        *("userlist", "peers", "mailers", "resolvers", "program", "http-errors", "ring", "cache"),
        *("log-forward", "fcgi-app", "crt-store", "traces", "log-profile"),
    )
)
#: White space, a comment, or a piece of a word: escaped, quoted or bare.
_PIECE = re.compile(r"(?P<space>\s+)|(?P<comment>#.*)|(?P<word>(?:\\.|\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\s#\"'\\])+)|.")


@dataclass(frozen=True)
class Word:
    """One word of a line with its place in the line."""

    value: str
    start: int
    end: int


def words(line: str) -> list[Word]:
    """Return the words of a line of the configuration, without quotes and escapes; a comment ends it."""
    found: list[Word] = []
    for piece in _PIECE.finditer(line):
        if piece.lastgroup == "comment":
            break
        if piece.lastgroup == "word":
            plain = re.sub(r"\\(.)|[\"']", lambda escape: escape.group(1) or "", piece.group())
            found.append(Word(plain, piece.start(), piece.end()))
    return found


@dataclass
class Section:
    """One section: its kind, its name, and its lines with file and number."""

    kind: str
    name: str
    parent: Section | None = None
    lines: list[tuple[str, int, list[Word]]] = field(default_factory=list)

    def find(self, *start: str) -> list[Word] | None:
        """Return the last line that begins with these words, its own before that of its defaults section."""
        for section in (self, self.parent):
            for _path, _number, line in reversed(section.lines if section is not None else []):
                if [word.value for word in line[: len(start)]] == list(start):
                    return line
        return None


class Configuration:
    """The configuration files of one HAProxy.

    :param contents: path → text, in the order in which HAProxy reads them.
    """

    def __init__(self, contents: Mapping[str, str]) -> None:
        self.contents = dict(contents)
        self.sections: list[Section] = []
        default: Section | None = None
        current = Section("", "")
        for path, text in contents.items():
            for number, line in enumerate(text.splitlines(keepends=True)):
                found = words(line)
                if found and found[0].value in SECTIONS:
                    values = [word.value for word in found]
                    current = Section(values[0], values[1] if len(values) > 1 else "")
                    if current.kind == "defaults":
                        default = current
                    elif current.kind in ("frontend", "backend", "listen"):
                        current.parent = self._named(values) or default
                    self.sections.append(current)
                elif found:
                    current.lines.append((path, number, found))

    def _named(self, values: Sequence[str]) -> Section | None:
        name = values[values.index("from") + 1] if "from" in values[:-1] else None
        return next((one for one in self.sections if one.kind == "defaults" and name and one.name == name), None)

    def backend(self, name: str) -> Section | None:
        """Return the section of a backend."""
        return next((one for one in self.sections if one.kind in ("backend", "listen") and one.name == name), None)

    def setting(self, *start: str) -> str | None:
        """Return the word behind these words in the global section."""
        for section in self.sections:
            line = section.find(*start) if section.kind == "global" else None
            if line is not None and len(line) > len(start):
                return line[len(start)].value
        return None

    def state_file(self, backend: str) -> str | None:
        """Return the file that the servers of a backend get their state from at a reload; None without one."""
        section = self.backend(backend)
        line = section.find("load-server-state-from-file") if section is not None else None
        how = line[1].value if line is not None and len(line) > 1 else "none"
        if section is None or how == "none":
            return None
        base = self.setting("server-state-base") or ""
        if how == "global":
            name = self.setting("server-state-file")
            return os.path.join(base, name) if name else None
        named = section.find("server-state-file-name")
        given = named[1].value if named is not None and len(named) > 1 else backend
        return os.path.join(base, backend if given == "use-backend-name" else given)

    def static(self, backend: str, algorithm: str) -> bool:
        """Whether the balancing of a backend takes only the weights 0 and 100 %."""
        section = self.backend(backend)
        kind = section.find("hash-type") if section is not None else None
        consistent = kind is not None and len(kind) > 1 and kind[1].value == "consistent"
        hashing = algorithm in ("source", "uri", "url_param", "hdr", "rdp-cookie", "hash", "unknown")
        return algorithm == "static-rr" or (hashing and not consistent)

    def kept(self, backend: str, servers: Iterable[str]) -> dict[str, dict[str, str | bool | None] | None]:
        """Return for each server the weight on its line and whether it is ``disabled``; None for one without a line."""
        lines = {line[1].value: line for _path, _number, line in self._lines(backend)}
        found: dict[str, dict[str, str | bool | None] | None] = {}
        for server in servers:
            line = lines.get(server)
            if line is None:
                found[server] = None
                continue
            weight = _argument(line, "weight")
            found[server] = {"weight": weight.value if weight else None, "disabled": bool(_flags(line))}
        return found

    def edit(self, backend: str, wanted: Mapping[str, Mapping[str, str | bool | None]]) -> dict[str, str]:
        """Return path → new text of the files whose ``server`` lines differ from what is wanted."""
        changed: dict[str, list[str]] = {}
        for path, number, line in self._lines(backend):
            ask = wanted.get(line[1].value)
            if ask is not None:
                text = self.contents[path].splitlines(keepends=True)[number]
                new = _edited(text, line, ask)
                if new != text:
                    changed.setdefault(path, self.contents[path].splitlines(keepends=True))[number] = new
        return {path: "".join(lines) for path, lines in changed.items()}

    def _lines(self, backend: str) -> Iterator[tuple[str, int, list[Word]]]:
        for section in self.sections:
            if section.kind in ("backend", "listen") and section.name == backend:
                yield from (one for one in section.lines if one[2][0].value == "server" and len(one[2]) > 2)


def _argument(line: list[Word], keyword: str) -> Word | None:
    """Return the value behind the last such keyword of a server line."""
    at = [index for index, word in enumerate(line) if index > 2 and word.value == keyword]
    return line[at[-1] + 1] if at and at[-1] + 1 < len(line) else None


def _flags(line: list[Word]) -> list[Word]:
    return [word for index, word in enumerate(line) if index > 2 and word.value == "disabled"]


def _edited(text: str, line: list[Word], wanted: Mapping[str, str | bool | None]) -> str:
    pieces: list[tuple[int, int, str]] = []
    end, added = line[-1].end, ""
    weight = _argument(line, "weight")
    if wanted["weight"] is None and weight is not None:
        before = line[line.index(weight) - 2]
        pieces.append((before.end, weight.end, ""))
    elif weight is not None:
        pieces.append((weight.start, weight.end, str(wanted["weight"])))
    elif wanted["weight"] is not None:
        added += f" weight {wanted['weight']}"
    flags = _flags(line)
    if wanted["disabled"] and not flags:
        added += " disabled"
    elif not wanted["disabled"]:
        pieces += [(line[line.index(flag) - 1].end, flag.end, "") for flag in flags]
    for start, stop, new in sorted([*pieces, (end, end, added)], reverse=True):
        text = text[:start] + new + text[stop:]
    return text


# -- the state file -------------------------------------------------------------------------------------------------

#: Columns of a line of the state file that would bring back what was true when it was written: an address that a name
#: had then, and a health that checks found then. "-" and "running" are what a fresh start takes.
_FRESH = {"srv_addr": "-", "srv_op_state": "2"}


def state_lines(text: str, backend: str) -> dict[str, str]:
    """Return the lines of a state file of a backend by server name."""
    found = {}
    for line in text.splitlines():
        parts = line.split()
        if len(parts) > 4 and not line.startswith("#") and parts[1] == backend:
            found[parts[3]] = line
    return found


def state_kept(line: str | None, header: Sequence[str]) -> dict[str, str] | None:
    """Return the columns of a line that decide what a reload brings; None without a line."""
    if line is None:
        return None
    row = dict(zip(header, line.split()))
    return {name: row.get(name, "") for name in ("srv_admin_state", "srv_uweight", "srv_iweight", "srv_op_state")}


def state_line(row: Mapping[str, str], weight: int, admin: int) -> str:
    """Return the line that has a reload bring this weight and administrative state, and nothing else."""
    return " ".join({**row, **_FRESH, "srv_uweight": str(weight), "srv_admin_state": str(admin)}.values())


def state_text(old: str, header: Sequence[str], backend: str, lines: Mapping[str, str | None]) -> str:
    """Return the text of a state file with the lines of some servers replaced; None takes one out."""
    kept = []
    for line in old.splitlines():
        parts = line.split()
        ours = len(parts) > 4 and parts[1] == backend and parts[3] in lines
        if line.strip() and line != "1" and not line.startswith("#") and not ours:
            kept.append(line)
    new = [line for line in lines.values() if line is not None]
    return "\n".join(["1", "# " + " ".join(header), *kept, *new]) + "\n"
