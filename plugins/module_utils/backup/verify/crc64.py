# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two 64-bit checksums of backups, fast enough for gigabytes without a compiled extension.

A CRC is the remainder of the data, read as one polynomial over GF(2), divided by a generator of degree 64. Byte by
byte that is some 6 MB/s in Python. Here the data is divided by a *sparse multiple* of the generator first: with terms
as far apart as 4 KiB, and only five or six of them, 4 KiB of data are cleared by a handful of shifts and exclusive ors
of long integers, which run in compiled code. Only the remainder, of some 15 KiB, is divided byte by byte at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Polynomial:
    """A reflected CRC-64 and a sparse multiple of its generator.

    :param reflected: the generator without its leading term, least significant bit first.
    :param preset: the register before the first byte.
    :param final: what the register is combined with after the last byte.
    :param multiple: the exponents of a sparse multiple of the generator in ascending order, from 0 to its degree.
    """

    reflected: int
    preset: int
    final: int
    multiple: tuple[int, ...]


#: Redis: the last eight bytes of an RDB (``crc64.c``; check value 0xe9c6d914c4b8d9ca).
JONES = Polynomial(0x95AC9329AC4BC9B5, 0, 0, (0, 36817, 40831, 46777, 122180))
#: MongoDB's archives and the .xz format (ECMA-182; check value 0x995dc9bbdf1939fa).
XZ = Polynomial(0xC96C5795D7870F42, _MASK, _MASK, (0, 169081, 197752, 229369, 263286, 267382))


@cache
def _ones(bits: int) -> int:
    return (1 << bits) - 1


@cache
def table(reflected: int) -> list[int]:
    """Return the 256 remainders for going through data byte by byte."""
    entries = []
    for value in range(256):
        for _bit in range(8):
            value = value >> 1 ^ (reflected if value & 1 else 0)
        entries.append(value)
    return entries


@cache
def _high_table(reflected: int) -> list[int]:
    """Return, for the eight bits just above the lowest 64, what they leave among the lowest 64."""
    # As an integer the generator is x^64 at bit 0 and 1 at bit 64: its mirror image takes part in this division.
    generator = reflected << 1 & _MASK | 1
    entries = [0] * 256
    remainder = generator
    for bit in range(8):
        for value in range(1 << bit):
            entries[1 << bit | value] = entries[value] ^ remainder
        remainder = remainder << 1 ^ (generator | 1 << 64 if remainder >> 63 else 0)
    return entries


class Crc64:
    """A CRC-64 of data that arrives in pieces.

    :param polynomial: :data:`JONES` or :data:`XZ`.
    """

    def __init__(self, polynomial: Polynomial) -> None:
        self._polynomial = polynomial
        #: So many bytes of data can be cleared at once: no term of the multiple but the first falls among them.
        self._block = polynomial.multiple[1] // 8
        self._shifts = [exponent - self._block * 8 for exponent in polynomial.multiple[1:]]
        self._register = polynomial.preset
        self._waiting = b""

    def update(self, data: bytes) -> None:
        """Take the next piece of the data."""
        if self._waiting:
            data = self._waiting + data
        block, from_bytes = self._block, int.from_bytes
        mask = _ones(block * 8)
        first, second, *others = self._shifts
        register = self._register
        whole = len(data) - len(data) % block
        for at in range(0, whole, block):
            low = from_bytes(data[at : at + block], "little") ^ register & mask
            register = register >> block * 8 ^ low << first ^ low << second
            for shift in others:
                register ^= low << shift
        self._register = register
        self._waiting = data[whole:]

    def value(self) -> int:
        """Return the checksum of everything taken so far."""
        entries = table(self._polynomial.reflected)
        register = self._register
        if register >> 64:
            register = self._remainder(register)
        for byte in self._waiting:
            register = register >> 8 ^ entries[(register ^ byte) & 255]
        return register ^ self._polynomial.final

    def _remainder(self, register: int) -> int:
        """Return the remainder of a register of any length."""
        entries = _high_table(self._polynomial.reflected)
        remainder = 0
        for byte in register.to_bytes((register.bit_length() + 7) // 8, "big"):
            remainder = (remainder << 8 & _MASK | byte) ^ entries[remainder >> 56]
        return remainder
