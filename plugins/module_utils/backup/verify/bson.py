# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""BSON documents (bsonspec.org, version 1.1): their frame and their elements, without decoding the values."""

from __future__ import annotations

import re
import struct
from typing import Any

#: The largest document that MongoDB and its tools take, in bytes: 16 MiB and 16 KiB for the command around it.
MAX_SIZE = 16 * 1024 * 1024 + 16 * 1024

_int32 = struct.Struct("<i").unpack_from
_int64 = struct.Struct("<q").unpack_from
#: Any number of elements of fixed size in a row: double, date, timestamp and int64; int32; boolean; null, undefined,
#: minimum and maximum; object id; decimal.
_FIXED = re.compile(
    rb"(?:[\x01\x09\x11\x12][^\0]*\0.{8}|\x10[^\0]*\0.{4}|\x08[^\0]*\0[\0\1]|[\x0a\x06\xff\x7f][^\0]*\0|"
    rb"\x07[^\0]*\0.{12}|\x13[^\0]*\0.{16})+",
    re.DOTALL,
)


def broken(data: bytes, at: int) -> str | None:
    """Return what is wrong with the elements of a document and of those inside it, ``None`` when nothing is.

    :param data: holds the whole document.
    :param at: where it begins; its length and its last byte have been checked.
    """
    open_ends: list[int] = []
    end = at + _int32(data, at)[0] - 1
    at += 4
    fixed, find = _FIXED.match, data.find
    while True:
        if at >= end:
            if at > end:
                return "an element is longer than its document"
            if not open_ends:
                return None
            end = open_ends.pop()
            at += 1
            continue
        match = fixed(data, at, end)
        if match:
            at = match.end()
            continue
        kind = data[at]
        at = find(b"\0", at + 1, end) + 1
        if not at:
            return "an element's name does not end"
        if kind in (2, 13, 14):
            if at + 4 > end:
                return "an element is longer than its document"
            size = _int32(data, at)[0]
            at += 4 + size
            if size < 1 or at > end or data[at - 1]:
                return "a string does not end where it should"
        elif kind in (3, 4):
            size = _int32(data, at)[0] if at + 4 <= end else 0
            if size < 5 or at + size > end or data[at + size - 1] or len(open_ends) > 200:
                return "a document inside it does not end where it should"
            open_ends.append(end)
            end = at + size - 1
            at += 4
        elif kind == 5:
            size = _int32(data, at)[0] if at + 5 <= end else -1
            if size < 0:
                return "a binary value has no valid length"
            at += 5 + size
        elif kind == 11:
            at = find(b"\0", find(b"\0", at, end) + 1, end) + 1
            if not at:
                return "a regular expression does not end"
        elif kind == 12:
            size = _int32(data, at)[0] if at + 4 <= end else 0
            if size < 1:
                return "a string does not end where it should"
            at += 4 + size + 12
        elif kind == 15:
            size = _int32(data, at)[0] if at + 4 <= end else 0
            if size < 14:
                return "a code value has no valid length"
            at += size
        else:
            return f"there is no element of type 0x{kind:02x}, or its value is not valid"


def flat(data: bytes) -> dict[str, Any] | None:
    """Return the strings, numbers, booleans and timestamps of a small document, ``None`` when it is broken."""
    if len(data) < 5 or _int32(data, 0)[0] != len(data) or data[-1] or broken(data, 0):
        return None
    values: dict[str, Any] = {}
    at, end = 4, len(data) - 1
    while at < end:
        kind = data[at]
        stop = data.index(b"\0", at + 1)
        name = data[at + 1 : stop].decode("utf-8", "replace")
        at = stop + 1
        if kind == 2:
            size = _int32(data, at)[0]
            values[name] = data[at + 4 : at + 3 + size].decode("utf-8", "replace")
            at += 4 + size
        elif kind == 8:
            values[name] = bool(data[at])
            at += 1
        elif kind == 16:
            values[name] = _int32(data, at)[0]
            at += 4
        elif kind in (9, 17, 18):
            values[name] = _int64(data, at)[0]
            at += 8
        elif kind == 1:
            at += 8
        elif kind != 10:
            break
    return values
