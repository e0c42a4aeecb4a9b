# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the values of options are read: each function returns the value or raises ValueError with what it must be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

#: Options by name: what reads the value, and the default.
Options = Mapping[str, tuple[Callable[[Any], Any], Any]]


def path(value: Any) -> str:
    """Return an absolute path.

    :raises ValueError: when it is none.
    """
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise ValueError("an absolute path")
    return os.path.normpath(value)


def paths(value: Any) -> tuple[str, ...]:
    """Return absolute paths, or patterns of such, at least one.

    :raises ValueError: when one is none.
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("a list of absolute paths")
    try:
        return tuple(path(entry) for entry in value)
    except ValueError:
        raise ValueError("a list of absolute paths") from None


def text(value: Any) -> str:
    """Return a text that is not empty.

    :raises ValueError: when it is none.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a text")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Return a list of texts.

    :raises ValueError: when it is none.
    """
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) and entry for entry in value):
        raise ValueError("a list of texts")
    return tuple(value)


def number(value: Any) -> int:
    """Return a number that is not negative.

    :raises ValueError: when it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a number that is not negative")
    return value


def boolean(value: Any) -> bool:
    """Return a boolean.

    :raises ValueError: when it is none.
    """
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping.

    :raises ValueError: when it is none.
    """
    if not isinstance(value, Mapping):
        raise ValueError("a mapping")
    return value


def one_of(*possible: Any) -> Callable[[Any], Any]:
    """Return what reads one of these values."""

    def read(value: Any) -> Any:
        if not any(value is entry or (isinstance(entry, str) and value == entry) for entry in possible):
            raise ValueError(f"one of {', '.join(str(entry).lower() for entry in possible)}")
        return value

    return read
