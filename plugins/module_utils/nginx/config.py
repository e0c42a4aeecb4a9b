# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A whole nginx configuration: every file it includes, every directive with its file and bytes."""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.lexer import (
    Lines,
    SyntaxProblem,
    Word,
    statements,
)


class ConfigError(Exception):
    """A configuration that nginx would refuse; the message names file and line as nginx does."""


class Tree:
    """The file system a configuration lives in; the one of this host, or one seen below another root.

    :param root: directory that is ``/`` for the configuration, such as ``/proc/4711/root``; empty for this host's.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root.rstrip("/")
        self._directories: dict[str, str] = {}

    def real(self, path: str) -> str:
        """Return the path with every symbolic link followed, as the configuration sees it."""
        if not self.root:
            # a directory holds many files: its own links are followed once
            directory, name = os.path.split(path)
            if directory not in self._directories:
                self._directories[directory] = os.path.realpath(directory)
            plain = os.path.join(self._directories[directory], name)
            return os.path.realpath(plain) if name in ("", ".", "..") or os.path.islink(plain) else plain
        done, left, links = "/", [part for part in path.split("/") if part not in ("", ".")], 0
        while left:
            part = left.pop(0)
            if part == "..":
                done = os.path.dirname(done)
                continue
            step = os.path.join(done, part)
            try:
                target = os.readlink(self.root + step)
            except OSError:
                done = step
                continue
            links += 1
            if links > 40:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            left = [piece for piece in target.split("/") if piece not in ("", ".")] + left
            done = "/" if target.startswith("/") else done
        return done

    def outside(self, path: str) -> str:
        """Return the path by which this process reaches a file of the configuration."""
        return self.root + self.real(path) if self.root else path

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        with open(self.outside(path), "rb") as stream:
            if stat.S_ISDIR(os.fstat(stream.fileno()).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            return stream.read()

    def glob(self, pattern: str) -> list[str]:
        """Return what a pattern matches, in the order in which nginx's glob(3) sorts: by bytes."""
        base = self.root
        if base:
            fixed = [part for part in pattern.split("/") if part]
            literal = []
            while fixed and not glob.has_magic(fixed[0]):
                literal.append(fixed.pop(0))
            head = "/" + "/".join(literal)
            inside = os.path.join(glob.escape(base + self.real(head)), *fixed)
            cut = len(base + self.real(head))
            found = [head.rstrip("/") + name[cut:] for name in glob.glob(inside.replace("[^", "[!"))]
        else:
            found = glob.glob(pattern.replace("[^", "[!"))
        return sorted(found, key=os.fsencode)


class Source:
    """One file of a configuration.

    :param path: its name as nginx knows it, which is what nginx's messages say.
    :param real: the file itself, links followed.
    :param data: its content.
    """

    __slots__ = ("_lines", "data", "path", "real")

    def __init__(self, path: str, real: str, data: bytes) -> None:
        self.path = path
        self.real = real
        self.data = data
        self._lines: Lines | None = None

    def line(self, offset: int) -> int:
        """Return the line number of a byte."""
        if self._lines is None:
            self._lines = Lines(self.data)
        return self._lines.number(offset)


class Directive:
    """One directive as it is written in one file.

    :param name: its name.
    :param args: its arguments as nginx understands them.
    :param words: name and arguments with their bytes.
    :param source: the file it is in.
    :param end: offset behind its ``;`` or ``{``.
    """

    __slots__ = ("args", "block", "close", "end", "files", "name", "source", "words")

    def __init__(self, words: Sequence[Word], source: Source, end: int) -> None:
        self.name = words[0].value
        self.args = [word.value for word in words[1:]]
        self.words = words
        self.source = source
        self.end = end
        #: The directives inside, in this file; None when it has no block. A Lua block holds none.
        self.block: list[Directive] | None = None
        #: Offset of the brace that closes the block.
        self.close = -1
        #: For ``include``: the files it brings in, in order.
        self.files: list[str] = []

    @property
    def start(self) -> int:
        """Offset of the first byte."""
        return self.words[0].start

    @property
    def place(self) -> str:
        """File and line, as nginx writes them."""
        return f"{self.source.path}:{self.source.line(self.start)}"


class Config:
    """A configuration and its files.

    :param path: the main file.
    :param tree: the file system it lives in.
    :param overlay: contents that count instead of what is on disk, by real path.
    :param base: this configuration as it was read before; only files in ``overlay`` are read anew.
    :raises ConfigError: where nginx would refuse it for its syntax or a missing file.
    """

    def __init__(
        self, path: str, tree: Tree, overlay: Mapping[str, bytes] | None = None, base: Config | None = None
    ) -> None:
        self.path = path
        self.prefix = os.path.dirname(path)
        self.tree = tree
        #: Every file by the name nginx knows, in the order of first use, with its own directives.
        self.files: dict[str, tuple[Source, list[Directive]]] = {}
        #: Directories whose listing decides what is included.
        self.listed: set[str] = set()
        self._overlay = overlay or {}
        self._base = base
        self._includes: dict[str, list[Directive]] = {}
        self._load(path, [], "")

    def top(self) -> Iterator[Directive]:
        """Yield the directives of the main level, includes resolved."""
        return self.expand(self.files[self.path][1])

    def expand(self, directives: Sequence[Directive]) -> Iterator[Directive]:
        """Yield directives with every ``include`` replaced by what it brings in."""
        for directive in directives:
            if directive.name == "include" and directive.block is None:
                for path in directive.files:
                    yield from self.expand(self.files[path][1])
            else:
                yield directive

    def full(self, path: str) -> str:
        """Return a path of the configuration in full: relative ones start at the directory of the main file."""
        return path if path.startswith("/") else os.path.join(self.prefix, path)

    def _load(self, path: str, stack: list[str], place: str) -> None:
        if path in stack:
            raise ConfigError(f"{path} includes itself in {place}")
        if path in self.files:
            # the same file again; what it includes was looked at, except for a loop through this one
            return
        known = self._base.files.get(path) if self._base is not None else None
        if self._base is not None and known is not None and known[0].real not in self._overlay:
            self.files[path], self._includes[path] = known, self._base._includes[path]
        else:
            self._read(path, place)
        for include in self._includes[path]:
            for file in include.files:
                if file not in self.files or file in stack or file == path:
                    self._load(file, [*stack, path], include.place)

    def _read(self, path: str, place: str) -> None:
        real = self.tree.real(path)
        try:
            data = self._overlay[real] if real in self._overlay else self.tree.read(path)
        except OSError as error:
            what = "pread()" if error.errno == errno.EISDIR else "open()"
            where = f" in {place}" if place else ""
            raise ConfigError(f'{what} "{path}" failed ({error.errno}: {error.strerror}){where}') from error
        includes = self._includes[path] = []
        source = Source(path, real, data)
        self.files[path] = source, _parse(source, includes)
        for include in includes:
            if len(include.args) != 1:
                raise ConfigError(f'invalid number of arguments in "include" directive in {include.place}')
            name = self.full(include.args[0])
            if any(char in name for char in "*?["):
                include.files = self.tree.glob(name)
                self.listed.add(os.path.dirname(name))
            else:
                include.files = [name]


def _parse(source: Source, includes: list[Directive]) -> list[Directive]:
    top: list[Directive] = []
    current = top
    stack: list[tuple[Directive, list[Directive]]] = []
    try:
        for statement in statements(source.data):
            if statement.mark == "}":
                if not stack:
                    raise SyntaxProblem('unexpected "}"', statement.end - 1)
                opened, current = stack.pop()
                opened.close = statement.end - 1
                continue
            directive = Directive(statement.words, source, statement.end)
            current.append(directive)
            if statement.mark == "{":
                directive.block = []
                stack.append((directive, current))
                current = directive.block
            elif statement.mark == "lua":
                directive.block = []
                directive.close = statement.close
            elif directive.name == "include":
                includes.append(directive)
        if stack:
            raise SyntaxProblem('unexpected end of file, expecting "}"', len(source.data))
    except SyntaxProblem as problem:
        raise ConfigError(f"{problem.message} in {source.path}:{source.line(problem.offset)}") from problem
    return top
