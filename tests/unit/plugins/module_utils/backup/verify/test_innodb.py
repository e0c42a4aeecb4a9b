# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tablespaces of InnoDB and what has changed in them. How they were made: fixtures/README.md."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import innodb
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.innodb import (
    DeltaWalker,
    InnodbWalker,
    Space,
    looks_like,
    looks_like_delta,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Walker

from tests.unit.plugins.module_utils.backup.verify.builders import cut, flip, walk
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture_files

pytestmark = pytest.mark.capability("A8")

FILES = fixture_files("mariabackup/backups.tar")
SPACES = {name: data for name, data in FILES.items() if name.endswith(".ibd")}
DELTAS = {name: data for name, data in FILES.items() if name.endswith(".delta")}
A = FILES["full/shop/a.ibd"]
K = FILES["full/shop/k.ibd"]
C = FILES["full/shop/c.ibd"]
D = FILES["full/shop/d.ibd"]
#: Bytes of a page's head that have no checksum before full_crc32, and in compressed pages.
UNCOVERED = {16384: {*range(26, 34)}, 4096: {*range(16, 24), *range(26, 34)}}


def follow(data: bytes) -> Walker:
    return walk(InnodbWalker("shop", "a"), data)


def checks(data: bytes) -> list[str]:
    return [problem.check for problem in follow(data).problems]


def delta(data: bytes, system: bool = False) -> list[str]:
    return [problem.check for problem in walk(DeltaWalker(system), data).problems]


@pytest.mark.parametrize("name", sorted([*SPACES, "full/ibdata1", "full/undo001", "full/undo003"]))
def test_the_tablespaces_of_the_real_server(name: str) -> None:
    data, source = FILES[name], random.Random(1)
    whole = follow(data)
    assert whole.problems == []
    assert looks_like(data[:512])
    assert whole.facts.attributes["pages"] * whole.facts.attributes["page_size"] == len(data)
    if len(data) < 1 << 20:
        for longest in (1000, 50_000):
            walker = walk(InnodbWalker("shop", "a"), data, lambda longest=longest: source.randrange(1, longest))
            assert (walker.problems, walker.facts) == (whole.problems, whole.facts)


def test_what_a_tablespace_tells() -> None:
    for data, size, kind in ((A, 16384, "full_crc32"), (K, 16384, "crc32"), (C, 4096, "compressed")):
        facts = follow(data).facts
        assert (facts.attributes["page_size"], facts.attributes["checksum"]) == (size, kind)
        assert facts.counts == {"shop": {"a": None}}
        assert isinstance(facts.part, Space)
        assert facts.part.space == facts.attributes["space_id"] > 0
        assert facts.part.lsn > 40_000


@pytest.mark.parametrize(("data", "size"), [(A, 16384), (K, 16384), (C, 4096), (D, 16384)])
def test_flips_zeros_and_cuts_are_damage(data: bytes, size: int) -> None:
    source = random.Random(size)
    used = [place for place in range(0, len(data), size) if any(data[place : place + size])]
    for _unused in range(200):
        changed = bytearray(data)
        page = source.choice(used)
        # Of a page that the server has compressed, the rest is nothing.
        length = ((data[page + 24] & 0x7F) << 8 | data[page + 25]) << 8 if data[page + 24] & 0x80 else size
        at = source.choice([at for at in range(length) if data is A or data is D or at not in UNCOVERED[size]])
        changed[page + at] ^= 1 << source.randrange(8)
        assert checks(bytes(changed)), (page, at)
    stated = int.from_bytes(data[46:50], "big")
    for length in (*range(0, stated * size, size), *(source.randrange(stated * size) for _unused in range(50))):
        assert checks(data[:length]), length
    assert checks(data + b"x")


def test_the_first_wrong_page_is_named() -> None:
    broken = bytearray(D)
    for page in (3, 5):
        broken[page * 16384 + 100] ^= 1
    (problem,) = follow(bytes(broken)).problems
    assert (problem.check, problem.offset) == ("innodb.checksum", 3 * 16384)
    assert problem.message == "2 of 13 pages have a wrong checksum, the first is page 3"


def test_pages_in_a_wrong_place_are_damage() -> None:
    swapped = D[: 4 * 16384] + D[5 * 16384 : 6 * 16384] + D[4 * 16384 : 5 * 16384] + D[6 * 16384 :]
    assert checks(swapped) == ["innodb.number"]
    other = FILES["full/shop/r.ibd"]
    assert checks(A[: 2 * 16384] + other[2 * 16384 : 3 * 16384] + A[3 * 16384 :]) == ["innodb.space"]


def test_pages_of_zeros_are_sound_and_a_file_of_zeros_is_not() -> None:
    assert checks(A + bytes(5 * 16384)) == []
    assert checks(bytes(4 * 16384)) == ["innodb.header"]


def old(number: int, kind: int, checksum: int | None) -> bytes:
    """Return a page as servers made it before CRC-32C, by hand: there is none to make them."""
    body = random.Random(number).randbytes(16384 - 38 - 8)
    if not number:
        body = struct.pack(">IIIII", 7, 0, 4, 4, 0) + body[20:]
    head = struct.pack(">IIIQHQI", number, 0, 0, 5000, kind, 0, 7)
    page = bytes(4) + head + body + bytes(4) + struct.pack(">I", 5000)
    stored = innodb._fold(page) if checksum is None else checksum
    return struct.pack(">I", stored) + page[4:-8] + struct.pack(">I", stored if checksum else 1) + page[-4:]


def test_servers_before_crc() -> None:
    legacy = b"".join(old(number, 8 if not number else 17855, None) for number in range(4))
    assert checks(legacy) == []
    assert checks(flip(legacy, random.Random(1), (40, 20000))) == ["innodb.checksum"]
    none = follow(b"".join(old(number, 8 if not number else 17855, 0xDEADBEEF) for number in range(4)))
    assert none.problems == []
    assert any("without a checksum" in words for words in none.facts.unchecked)


def test_only_some_pages_are_summed_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(innodb, "_SLOW", 2)
    walker = follow(b"".join(old(number, 8 if not number else 17855, None) for number in range(4)))
    assert walker.problems == []
    assert any("InnoDB's own old checksum" in words for words in walker.facts.unchecked)


def test_pages_that_are_compressed_or_encrypted_are_told() -> None:
    pages = [K[at : at + 16384] for at in range(0, len(K), 16384)]
    pages[3] = pages[3][:24] + struct.pack(">H", 34354) + pages[3][26:]
    walker = follow(b"".join(pages))
    assert walker.problems == []
    assert any("compressed or encrypted" in words for words in walker.facts.unchecked)


def test_adler_of_compressed_pages() -> None:
    page = C[4096:8192]
    summed = zlib.adler32(page[34:], zlib.adler32(page[24:26], zlib.adler32(page[4:16], 0)))
    assert checks(C[:4096] + summed.to_bytes(4, "big") + page[4:] + C[8192:]) == []


@pytest.mark.parametrize("name", sorted(DELTAS))
def test_the_changed_pages_of_the_real_server(name: str) -> None:
    data, source = DELTAS[name], random.Random(1)
    system = "ibdata1" in name
    assert looks_like_delta(data[:512])
    whole = walk(DeltaWalker(system), data)
    assert whole.problems == []
    for longest in (1000, 50_000):
        walker = walk(DeltaWalker(system), data, lambda longest=longest: source.randrange(1, longest))
        assert (walker.problems, walker.facts) == (whole.problems, whole.facts)


@pytest.mark.parametrize("name", ["inc1/shop/a.ibd.delta", "inc1/shop/c.ibd.delta", "inc1/shop/fresh.ibd.delta"])
def test_flips_and_cuts_of_changed_pages_are_damage(name: str) -> None:
    data, source = DELTAS[name], random.Random(name)
    size = 4096 if "/c." in name else 16384
    assert all(delta(data[: source.randrange(len(data))]) for _unused in range(50))
    assert all(delta(data[:length]) for length in range(0, len(data), size))
    assert delta(data + data[-size:])
    for _unused in range(100):
        changed = bytearray(data)
        place = source.choice([at for at in range(size, len(data)) if size > 4096 or at % size not in UNCOVERED[size]])
        changed[place] ^= 1 << source.randrange(8)
        if any(data[place - place % size : place - place % size + size]):
            assert delta(bytes(changed)), place


def build(*numbers: int, magic: bytes = b"XTRA") -> bytes:
    listed = magic + b"".join(struct.pack(">I", number) for number in numbers)
    listed += b"\xff" * 4 if len(listed) < 16384 else b""
    pages = [D[number * 16384 : number * 16384 + 16384] for number in numbers]
    return listed.ljust(16384, b"\0") + b"".join(pages)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (build(), []),
        (build(3, 4, 7), []),
        (build(3, 4)[:-16384], ["innodb.cut"]),
        (build(4, 3), ["innodb.order"]),
        (build(3, 3), ["innodb.order"]),
        (build(3, magic=b"xtra"), ["innodb.header"]),
        (build(3) + build(4), ["innodb.trailing"]),
        (b"XTRA" + bytes(300), ["innodb.cut"]),
        (b"XTRA" + bytes(300_000), ["innodb.header"]),
        (build() + bytes(300_000), ["innodb.header"]),
        (b"hello", ["innodb.cut"]),
    ],
)
def test_lists_of_changed_pages(data: bytes, expected: list[str]) -> None:
    assert delta(data) == expected


@pytest.mark.parametrize("seed", range(30))
def test_hostile_files_never_raise(seed: int) -> None:
    source = random.Random(seed)
    name = source.choice(sorted({**SPACES, **DELTAS}))
    data = bytearray(FILES[name])
    for _unused in range(source.randrange(1, 30)):
        data[source.randrange(len(data) if seed % 3 else 64)] = source.choice((0, 1, 8, 16, 255))
    changed = cut(bytes(data), source) if seed % 2 else bytes(data)
    for walker in (InnodbWalker("", ""), DeltaWalker(False)):
        walk(walker, changed, lambda: source.randrange(1, 30_000))
