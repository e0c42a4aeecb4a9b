# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A walker written as one procedure that asks for the bytes it needs, whatever pieces they arrive in."""

from __future__ import annotations

from collections.abc import Generator

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem, Walker

#: A step of a walk: it yields whenever it wants the next piece of the stream.
Step = Generator[None, None, None]


class Stop(Exception):
    """The walk cannot go on: the reason has been added to the problems."""


class Ended(Exception):
    """The stream ended where more bytes were needed."""


class PullWalker(Walker):
    """A walker whose format is followed by the generator :meth:`walk`.

    ``self.data[self.at:]`` is what has arrived and is not consumed; ``self.base + self.at`` is its place in the stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.at = 0
        self.base = 0
        self.ended = False
        self._walk: Step | None = self.walk()
        self._resume()

    def walk(self) -> Step:
        """Follow the format from the first byte to the end of the stream."""
        raise NotImplementedError

    def cut(self) -> None:
        """Add the problem of a stream that ended where more bytes were needed."""
        raise NotImplementedError

    def consumed(self, data: bytes) -> None:
        """Take bytes that the walk has left behind; a format with a checksum over them overrides this."""

    def feed(self, data: bytes) -> None:
        if self._walk is None or not data:
            return
        if self.at:
            self._drop()
        self.data = self.data + data if self.data else data
        self._resume()

    def close(self) -> None:
        self.ended = True
        self._resume()
        self._walk = None
        self.data = b""

    def _resume(self) -> None:
        if self._walk is None:
            return
        try:
            next(self._walk)
        except (StopIteration, Stop):
            self._walk = None
        except Ended:
            self._walk = None
            self.cut()

    def _drop(self) -> None:
        self.consumed(self.data[: self.at])
        self.base += self.at
        self.data = self.data[self.at :]
        self.at = 0

    def need(self, size: int) -> Step:
        """Wait until at least ``size`` bytes (a few) are there."""
        while len(self.data) - self.at < size:
            if self.ended:
                raise Ended
            yield

    def more(self) -> Step:
        """Wait for the next piece, or for the end of the stream: then ``self.ended`` is true."""
        have = len(self.data) - self.at
        while len(self.data) - self.at == have and not self.ended:
            yield

    def skip(self, size: int) -> Step:
        """Pass over any number of bytes without keeping them."""
        while len(self.data) - self.at < size:
            size -= len(self.data) - self.at
            self.at = len(self.data)
            if self.ended:
                raise Ended
            yield
        self.at += size

    def problem(
        self, check: str, message: str, offset: int | None = None, damage: bool = True, advice: str | None = None
    ) -> None:
        """Add a problem, at the present place unless another is given."""
        place = self.base + self.at if offset is None else offset
        self.problems.append(Problem(check, message, damage, place, advice))
