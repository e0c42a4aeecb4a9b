# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRC-64: the sparse multiples are multiples, and the fast way gives what the plain one does."""

from __future__ import annotations

import lzma
import random

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.crc64 import (
    JONES,
    XZ,
    Crc64,
    Polynomial,
    table,
)

pytestmark = pytest.mark.capability("A8")

BOTH = pytest.mark.parametrize("polynomial", [JONES, XZ], ids=["jones", "xz"])


def plain(polynomial: Polynomial, data: bytes) -> int:
    register = polynomial.preset
    for byte in data:
        register = register >> 8 ^ table(polynomial.reflected)[(register ^ byte) & 255]
    return register ^ polynomial.final


def power(exponent: int, generator: int) -> int:
    """Return x to a power, divided by the generator."""
    result = 1
    for bit in f"{exponent:b}":
        result = sum(1 << 2 * place for place in range(64) if result >> place & 1) << int(bit)
        while result.bit_length() > 64:
            result ^= generator << result.bit_length() - 65
    return result


@pytest.mark.parametrize(
    ("polynomial", "check"), [(JONES, 0xE9C6D914C4B8D9CA), (XZ, 0x995DC9BBDF1939FA)], ids=["jones", "xz"]
)
def test_the_published_check_value(polynomial: Polynomial, check: int) -> None:
    checksum = Crc64(polynomial)
    checksum.update(b"123456789")
    assert checksum.value() == check


@BOTH
def test_the_sparse_polynomial_is_a_multiple_of_the_generator(polynomial: Polynomial) -> None:
    remainder = 0
    for exponent in polynomial.multiple:
        remainder ^= power(exponent, polynomial.reflected << 1 | 1)
    assert remainder == 0


@BOTH
@pytest.mark.parametrize("size", [0, 1, 8, 4601, 4602, 4603, 21135, 21136, 60000])
def test_any_length_in_any_pieces(polynomial: Polynomial, size: int) -> None:
    source = random.Random(size)
    data = bytes(source.randrange(256) for _unused in range(size))
    expected = plain(polynomial, data)
    for longest in (1, 1000, 30000, 1 << 20):
        checksum = Crc64(polynomial)
        place = 0
        while place < size:
            step = source.randrange(1, longest + 1)
            checksum.update(data[place : place + step])
            place += step
        assert checksum.value() == expected


def test_the_value_can_be_asked_for_and_the_data_go_on() -> None:
    checksum = Crc64(XZ)
    checksum.update(b"1234")
    assert checksum.value() == plain(XZ, b"1234")
    checksum.update(b"56789")
    assert checksum.value() == 0x995DC9BBDF1939FA


def test_liblzma_writes_the_same_checksum() -> None:
    data = random.Random(3).getrandbits(8 * 300_000).to_bytes(300_000, "little")
    stream = lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=0)
    checksum = Crc64(XZ)
    checksum.update(data)
    assert checksum.value().to_bytes(8, "little") in stream[-64:]
