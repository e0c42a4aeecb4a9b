# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Regular expressions as nginx sees them: by PCRE2, its own library, or by Python's where both mean the same."""

from __future__ import annotations

import ctypes
import re
from functools import lru_cache
from typing import Any, Callable

_LIBRARIES = ("libpcre2-8.so.0", "libpcre2-8.so")
_CASELESS = 0x00000008
#: Constructs that Python refuses or, worse, reads differently.
_ONLY_PCRE = re.compile(rb"\[\[:|\[:|\{,|\\Z|\(\?[a-zA-Z-]+\)|\(\?[a-z]*-|\(\*|\(\?[|>R&+0-9]|[*+?}]\+")

#: A compiled expression: does it match somewhere in these bytes?
Matcher = Callable[[bytes], bool]


class PatternError(Exception):
    """An expression that is not valid, or that cannot be evaluated here."""


@lru_cache(maxsize=1)
def _pcre2() -> Any:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        library.pcre2_compile_8.restype = pointer
        library.pcre2_compile_8.argtypes = [
            ctypes.c_char_p, size, ctypes.c_uint32, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(size), pointer,
        ]  # fmt: skip
        library.pcre2_match_data_create_from_pattern_8.restype = pointer
        library.pcre2_match_data_create_from_pattern_8.argtypes = [pointer, pointer]
        library.pcre2_match_8.restype = ctypes.c_int
        library.pcre2_match_8.argtypes = [
            pointer, ctypes.c_char_p, size, size, ctypes.c_uint32, pointer, pointer,
        ]  # fmt: skip
        return library
    return None


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str, caseless: bool, *, pcre: bool = True) -> Matcher:
    """Return a function that tells whether the expression matches.

    :param pattern: the expression as nginx understands it.
    :param caseless: whether upper and lower case are the same.
    :param pcre: whether PCRE2 may be used, where it is installed.
    :raises PatternError: when it is not valid, or needs PCRE2 and that is not installed.
    """
    raw = pattern.encode("utf-8", "surrogateescape")
    library = _pcre2() if pcre else None
    return _by_pcre2(library, raw, caseless) if library is not None else _by_python(raw, caseless)


def _by_pcre2(library: Any, raw: bytes, caseless: bool) -> Matcher:
    code, offset = ctypes.c_int(), ctypes.c_size_t()
    options = _CASELESS if caseless else 0
    compiled = library.pcre2_compile_8(raw, len(raw), options, ctypes.byref(code), ctypes.byref(offset), None)
    if not compiled:
        raise PatternError(f"the regular expression {raw!r} is not valid at character {offset.value}")
    room = library.pcre2_match_data_create_from_pattern_8(compiled, None)

    def matches(subject: bytes) -> bool:
        # both are kept for the life of the process: there are as many as the configuration has expressions
        return bool(library.pcre2_match_8(compiled, subject, len(subject), 0, 0, room, None) >= 0)

    return matches


def _by_python(raw: bytes, caseless: bool) -> Matcher:
    needs = f"the regular expression {raw!r} cannot be evaluated without the PCRE2 library; install libpcre2"
    if _ONLY_PCRE.search(raw):
        raise PatternError(needs)
    translated = re.sub(rb"\(\?<(?=[A-Za-z_])", b"(?P<", raw).replace(rb"\z", rb"\Z")
    try:
        compiled = re.compile(translated, re.IGNORECASE if caseless else 0)
    except re.error as error:
        raise PatternError(f"{needs} ({error})") from error
    return lambda subject: compiled.search(subject) is not None
