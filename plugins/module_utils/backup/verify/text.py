# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain text, and files of KEY=VALUE lines such as ``.env``: what their bytes alone can tell."""

from __future__ import annotations

import re

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem, Walker

_KEY = re.compile(rb"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=")
_LINE = 64 * 1024


def is_text(head: bytes) -> bool:
    """Return whether the first bytes of a stream are text: no control bytes but white space, escape and the like."""
    # A block of zero bytes in a text is a hole in it, which the walker will tell.
    written = head.replace(b"\0", b"")
    return len(written) * 4 > len(head) and not re.search(rb"[\x01-\x06\x0e-\x1a\x1c-\x1f\x7f]", written)


def is_env(head: bytes) -> bool:
    """Return whether the first bytes are KEY=VALUE lines, comments and empty lines, with one key at least."""
    lines = head.replace(b"\0", b"").split(b"\n")
    if len(head) >= 512 and len(lines) > 1:
        lines.pop()
    lines = [line for line in (line.strip() for line in lines) if line and not line.startswith(b"#")]
    return is_text(head) and bool(lines) and all(_KEY.match(line) for line in lines)


class TextWalker(Walker):
    """Text: zero bytes in it are what a lost block looks like."""

    format = "text"
    _damage = False

    def __init__(self) -> None:
        super().__init__()
        self._position = 0
        self._last = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        if not self.problems:
            found = data.find(b"\0")
            if found >= 0:
                offset = self._position + found
                message = f"there are zero bytes in the text, from byte {offset} on"
                self.problems.append(Problem("text.zeros", message, self._damage, offset))
        self._position += len(data)
        self._last = data[-1:] or self._last

    def close(self) -> None:
        """Take the end."""
        if self._last not in (b"\n", b""):
            self.problems.append(Problem("text.newline", "the last line has no end, so it may be cut", note=True))
        self.facts.unchecked.append("text: nothing in it tells whether lines are missing")


class EnvWalker(TextWalker):
    """Lines of ``KEY=VALUE``: the keys are kept, never the values.

    :ivar keys: the names of the variables.
    """

    format = "env"
    _damage = True

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []
        self._line = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        super().feed(data)
        lines = (self._line + data).split(b"\n")
        self._line = lines.pop()[:_LINE]
        for line in lines:
            self._take(line)

    def close(self) -> None:
        """Take the end."""
        self._take(self._line)
        self.facts.attributes["keys"] = len(self.keys)
        super().close()

    def _take(self, line: bytes) -> None:
        found = _KEY.match(line.strip())
        if found and len(self.keys) < 10000:
            self.keys.append(found.group(1).decode("ascii"))
