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

_GAP = re.compile(rb"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE = re.compile(rb"(?:[^ \t\r\n;{\\$]|\\.|\$\{?)+", re.DOTALL)
_QUOTED = {
    b'"': re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL),
    b"'": re.compile(rb"'(?:[^'\\]|\\.)*'", re.DOTALL),
}
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
    words: list[Word] = []
    while True:
        gap = _GAP.match(data, position)
        position = gap.end() if gap else position
        if position >= size:
            if words:
                raise SyntaxProblem('unexpected end of file, expecting ";" or "}"', size)
            return
        char = data[position : position + 1]
        if char in b";{":
            if not words:
                raise SyntaxProblem(f'unexpected "{char.decode()}"', position)
            position += 1
            if char == b";":
                yield Statement(words, ";", position, -1)
            elif words[0].value.endswith("_by_lua_block"):
                close = _lua_end(data, position)
                yield Statement(words, "lua", position, close)
                position = close + 1
            else:
                yield Statement(words, "{", position, -1)
            words = []
        elif char == b"}":
            if words:
                raise SyntaxProblem('unexpected "}"', position)
            position += 1
            yield Statement([], "}", position, -1)
        else:
            word = _word(data, position, char)
            words.append(word)
            position = word.end


def _word(data: bytes, position: int, char: bytes) -> Word:
    quote = _QUOTED.get(char)
    match = (quote or _BARE).match(data, position)
    if match is None:
        # an open quote, or a backslash with nothing behind it
        raise SyntaxProblem('unexpected end of file, expecting ";" or "}"', len(data))
    end = match.end()
    if quote is None:
        raw = match.group()
    else:
        raw = data[position + 1 : end - 1]
        if end < len(data) and data[end] not in _AFTER_QUOTE:
            raise SyntaxProblem(f'unexpected "{chr(data[end])}"', end)
    if b"\\" in raw:
        raw = _ESCAPE.sub(lambda found: _ESCAPES.get(found.group(1), found.group(1)), raw)
    return Word(raw.decode("utf-8", "surrogateescape"), position, end, quote is not None)


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
