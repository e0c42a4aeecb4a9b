# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRC-32C, the checksum of InnoDB's pages, fast enough for gigabytes without a compiled extension.

As :mod:`.crc64` does, this divides the data, read as one polynomial over GF(2), by sparse multiples of the generator
first: each step halves it, by a few shifts and exclusive ors of long integers, which run in compiled code. What is
asked is only whether a checksum is right, so no remainder is ever needed: with the checksum behind the data, all must
vanish. The Python package crc32c is used when it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import crc64

_compiled: Callable[[bytes], int] | None
try:
    from crc32c import crc32c  # type: ignore[import-not-found,unused-ignore]

    _compiled = crc32c
except ImportError:
    _compiled = None

#: The generator without its leading term, least significant bit first (check value 0xe3069283).
REFLECTED = 0x82F63B78

#: Exponents of sparse multiples of the generator, from 0 to the degree. A square of one has all exponents doubled.
_SMALL = (0, 71, 88, 121, 143, 266)
_MULTIPLES = (
    (0, 2854, 2916, 67044),
    (0, 608, 632, 34402),
    (0, 320, 2329, 19278),
    (0, 217, 2612, 8902),
    *(tuple(exponent << doubled for exponent in _SMALL) for doubled in (4, 3, 2, 1, 0)),
)
_PRESET = 0xFFFFFFFF


def right(pieces: Sequence[bytes], checksum: int) -> bool:
    """Return whether the exclusive or of the CRC-32C of all pieces is the checksum."""
    return all_right([(pieces, checksum)])


def all_right(pages: Sequence[tuple[Sequence[bytes], int]]) -> bool:
    """Return whether all of these checksums are right; the longest piece must have the same length everywhere.

    They are divided together, each moved by another power of x, so that errors do not cancel each other out but for one
    chance in four thousand million.
    """
    if _compiled is not None:
        for pieces, checksum in pages:
            for piece in pieces:
                checksum ^= _compiled(piece)
            if checksum:
                return False
        return True
    from_bytes = int.from_bytes
    length = max(map(len, pages[0][0]))
    total = begin = end = 0
    for shift, (pieces, checksum) in enumerate(pages):
        # Each piece begins with all bits set and ends with all bits inverted; all end at the same place.
        for piece in pieces:
            if len(piece) == length:
                total ^= from_bytes(piece, "little") << 8 * shift
                begin ^= _PRESET << 8 * shift
            else:
                total ^= (from_bytes(piece, "little") ^ _PRESET) << 8 * (length - len(piece) + shift)
            checksum ^= _PRESET
        end ^= checksum << 8 * shift
    return _vanishes(total ^ begin ^ end << 8 * length, 8 * length + 24 + 8 * len(pages))


def _vanishes(value: int, bits: int) -> bool:
    """Return whether a polynomial of so many bits, the highest power first, is a multiple of the generator."""
    for count, mask, shifts in _steps(bits):
        low = value & mask
        value >>= count
        for shift in shifts:
            value ^= low << shift
        bits -= count
    entries = crc64.table(REFLECTED)
    while bits > 32:
        value = value >> 8 ^ entries[value & 255]
        bits -= 8
    return not value


@cache
def _steps(bits: int) -> list[tuple[int, int, list[int]]]:
    """Return how so many bits are reduced: how many at once, their mask, and where they are added again."""
    steps = []
    for multiple in _MULTIPLES:
        degree = multiple[-1]
        while bits > degree + 8:
            # Whole bytes, and none of the terms but the first falls among the bits that are cleared.
            count = min(bits - degree, degree - multiple[-2]) & ~7
            steps.append((count, (1 << count) - 1, [degree - exponent - count for exponent in multiple[:-1]]))
            bits -= count
    return steps
