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
    """Return whether the exclusive or of the CRC-32C of all pieces, of four bytes or so at least, is the checksum."""
    if _compiled is not None:
        for piece in pieces:
            checksum ^= _compiled(piece)
        return not checksum
    from_bytes = int.from_bytes
    length = max(map(len, pieces))
    value = checksum << 8 * length
    for piece in pieces:
        # Each begins with all bits set and ends with all bits inverted; all end at the same place.
        register = from_bytes(piece, "little") ^ _PRESET ^ _PRESET << 8 * len(piece)
        value ^= register << 8 * (length - len(piece))
    return _vanishes(value, 8 * length + 32)


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
