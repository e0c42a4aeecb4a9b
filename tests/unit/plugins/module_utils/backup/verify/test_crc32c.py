# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRC-32C without a compiled extension, against the division bit by bit."""

from __future__ import annotations

import random

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import crc32c

pytestmark = pytest.mark.capability("A8")


def slow(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _bit in range(8):
            register = register >> 1 ^ (crc32c.REFLECTED if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crc32c, "_compiled", None)


def test_the_check_value_of_the_standard() -> None:
    assert slow(b"123456789") == 0xE3069283
    assert crc32c.right([b"123456789"], 0xE3069283)


@pytest.mark.parametrize("size", [4, 5, 22, 100, 266, 532, 1020, 2000, 4092, 8188, 16380, 32764, 65532])
def test_any_length_and_any_flip(size: int) -> None:
    source = random.Random(size)
    data = source.randbytes(size)
    checksum = slow(data)
    assert crc32c.right([data], checksum)
    assert not crc32c.right([data], checksum ^ 1 << source.randrange(32))
    for _unused in range(20):
        changed = bytearray(data)
        changed[source.randrange(size)] ^= 1 << source.randrange(8)
        assert not crc32c.right([bytes(changed)], checksum)


def test_pieces_are_combined() -> None:
    page = random.Random(1).randbytes(16384)
    for pieces in ((page[4:26], page[38:-8]), (page[4:16], page[24:26], page[34:])):
        checksum = 0
        for piece in pieces:
            checksum ^= slow(piece)
        assert crc32c.right(pieces, checksum)
        assert not crc32c.right(pieces[::-1][:1], checksum)


def test_pages_together() -> None:
    source = random.Random(2)
    pages = [((page[4:26], page[38:-8]), slow(page[4:26]) ^ slow(page[38:-8])) for page in (
        source.randbytes(4096) for _unused in range(9))]  # fmt: skip
    assert crc32c.all_right(pages)
    assert crc32c.all_right(pages[:1])
    # the same error in two pages does not cancel itself out
    for wrong in ((3,), (0, 8), (1, 2, 5)):
        broken = [(pieces, checksum ^ 64 if number in wrong else checksum)
                  for number, (pieces, checksum) in enumerate(pages)]  # fmt: skip
        assert not crc32c.all_right(broken)


def test_the_compiled_one_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crc32c, "_compiled", slow)
    assert crc32c.right([b"123456789"], 0xE3069283)
    assert not crc32c.right([b"123456788"], 0xE3069283)
    assert crc32c.right([b"12345", b"6789"], slow(b"12345") ^ slow(b"6789"))


def test_the_multiples_are_multiples() -> None:
    generator = 0x11EDC6F41
    for multiple in crc32c._MULTIPLES:
        value = sum(1 << exponent for exponent in multiple)
        while value.bit_length() > 32:
            value ^= generator << value.bit_length() - 33
        assert not value, multiple
