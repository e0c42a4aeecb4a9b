# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nginx configuration text as statements, by the tokenising rules of nginx itself, with the place of every byte.

The rules are those of ``ngx_conf_read_token`` in nginx's ``src/core/ngx_conf_file.c``: a word ends at white space,
``;`` or ``{``; ``#`` starts a comment and ``}`` ends a block only where a word could start; a backslash takes the next
character with it; ``${`` does not open a block; after a quoted word only white space, ``;``, ``{`` or ``)`` may follow.
The bodies of ``*_by_lua_block`` are Lua and end where Lua says so.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

#: White space and comments, then one of: a mark, a quoted word, a bare word.
_TOKEN = re.compile(
    rb"(?:[ \t\r\n]+|#[^\n]*)*"
    rb"(?:([;{}])|(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|((?!['\"])(?:[^ \t\r\n;{\\$]|\\.|\$\{?)+))?",
    re.DOTALL,
)
_MARK, _QUOTED, _BARE = 1, 2, 3
_AFTER_QUOTE = b" \t\r\n;{)"
_ESCAPE = re.compile(rb"\\([\"'\\trn])")
_ESCAPES = {b"t": b"\t", b"r": b"\r", b"n": b"\n"}
_LUA = re.compile(
    rb"--\[(?P<comment>=*)\[|--[^\n]*|\[(?P<string>=*)\[|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|(?P<brace>[{}])",
    re.DOTALL,
)


class SyntaxProblem(Exception):
    """Text that nginx would refuse.

    :param message: what is wrong, in nginx's words where it has some.
    :param offset: the byte where it was seen.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class Word(NamedTuple):
    """One word of a statement.

    :param value: what nginx understands: without quotes, escapes resolved, undecodable bytes as surrogates.
    :param start: offset of its first byte, the opening quote if it has one.
    :param end: offset behind its last byte.
    :param quoted: whether it stands in quotes.
    """

    value: str
    start: int
    end: int
    quoted: bool


class Statement(NamedTuple):
    """What stands before a ``;`` or ``{``, or a ``}`` that closes a block.

    :param words: name and arguments; empty for ``}``.
    :param mark: ``;``, ``{``, ``}``, or ``lua`` for a block whose body is Lua.
    :param end: offset behind the mark; for ``lua`` behind the opening brace.
    :param close: for ``lua`` the offset of the closing brace, else -1.
    """

    words: list[Word]
    mark: str
    end: int
    close: int


def statements(data: bytes) -> Iterator[Statement]:
    """Yield the statements of one file in order.

    :param data: the content of the file.
    :raises SyntaxProblem: where nginx would refuse the text. Braces are not balanced here.
    """
    position, size = 0, len(data)
    match, make = _TOKEN.match, tuple.__new__  # a large configuration has 100,000 words: calls cost
    words: list[Word] = []
    while True:
        token = match(data, position)
        kind = token.lastindex if token is not None else None
        if token is None or kind is None:
            # nothing but the end follows, or an open quote, or a backslash with nothing behind it
            if words or token is None or token.end() < size:
                raise SyntaxProblem('unexpected end of file, expecting ";" or "}"', size)
            return
        start, position = token.span(kind)
        if kind != _MARK:
            raw = token.group(kind)
            if kind == _QUOTED:
                raw = raw[1:-1]
                if position < size and data[position] not in _AFTER_QUOTE:
                    raise SyntaxProblem(f'unexpected "{chr(data[position])}"', position)
            if b"\\" in raw:
                raw = _ESCAPE.sub(_unescape, raw)
            words.append(make(Word, (raw.decode("utf-8", "surrogateescape"), start, position, kind == _QUOTED)))
            continue
        mark = chr(data[start])
        if (mark == "}") == bool(words):
            raise SyntaxProblem(f'unexpected "{mark}"', start)
        close = -1
        if mark == "{" and words[0].value.endswith("_by_lua_block"):
            mark, close = "lua", _lua_end(data, position)
        yield make(Statement, (words, mark, position, close))
        if mark == "lua":
            position = close + 1
        words = []


def _unescape(found: re.Match[bytes]) -> bytes:
    return _ESCAPES.get(found.group(1), found.group(1))


def _lua_end(data: bytes, position: int) -> int:
    """Return the offset of the brace that closes the Lua block whose body starts at ``position``."""
    depth = 0
    while True:
        match = _LUA.search(data, position)
        if match is None:
            raise SyntaxProblem("unexpected end of file in Lua code, expecting the closing brace", len(data))
        position = match.end()
        if match.group("brace") == b"{":
            depth += 1
        elif match.group("brace") == b"}":
            if depth == 0:
                return match.start()
            depth -= 1
        else:
            level = match.group("comment") if match.group("comment") is not None else match.group("string")
            if level is not None:
                closing = data.find(b"]" + level + b"]", position)
                if closing < 0:
                    raise SyntaxProblem("unexpected end of file in Lua code, expecting a closing bracket", len(data))
                position = closing + len(level) + 2


class Lines:
    """Offsets of one text as line numbers."""

    def __init__(self, data: bytes) -> None:
        self._starts = [0]
        find = data.find
        position = find(b"\n")
        while position >= 0:
            self._starts.append(position + 1)
            position = find(b"\n", position + 1)

    def number(self, offset: int) -> int:
        """Return the number, from 1, of the line that holds the byte at ``offset``."""
        return bisect_right(self._starts, offset)
