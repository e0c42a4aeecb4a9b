# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Redis snapshots: every structure followed, the checksum verified, and what is left without one."""

from __future__ import annotations

import random
import struct

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.crc64 import JONES, Crc64
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.redis_rdb import (
    RdbWalker,
    looks_like,
    packed_is_broken,
)

from tests.unit.plugins.module_utils.backup.verify.builders import cut, flip, walk, zeroed
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture

pytestmark = pytest.mark.capability("A8")

FULL = ("v9", "v10", "v10-no-checksum")
COUNTS = {"db0": {"keys": 144}, "db3": {"keys": 2}}


def text(value: bytes) -> bytes:
    size = len(value)
    return (bytes([size]) if size < 64 else b"\x80" + struct.pack(">I", size)) + value


def rdb(*parts: bytes, version: int = 12, checksum: bool = True) -> bytes:
    data = b"REDIS%04d" % version + b"".join(parts) + b"\xff"
    value = Crc64(JONES)
    value.update(data)
    return data + (value.value() if checksum else 0).to_bytes(8, "little")


def checks(data: bytes) -> list[str]:
    return [problem.check for problem in walk(RdbWalker(), data).problems]


def packed(kind: str, entries: bytes = b"\x01\x01") -> bytes:
    if kind == "intset":
        return struct.pack("<II", 2, 2) + b"\1\0\2\0"
    if kind == "zipmap":
        return b"\x01\x01a\x01\0b\xff"
    head = b"" if kind == "listpack" else struct.pack("<I", 10)
    size = 4 + len(head) + 2 + len(entries) + 1
    return struct.pack("<I", size) + head + b"\1\0" + entries + b"\xff"


@pytest.mark.parametrize("name", FULL)
def test_the_snapshots_of_the_real_server(name: str) -> None:
    walker = walk(RdbWalker(), fixture(f"redis/{name}.rdb"))
    assert walker.problems == []
    assert walker.facts.counts == COUNTS
    assert (walker.facts.attributes["keys"], walker.facts.attributes["expires"]) == (146, 22)
    assert walker.facts.created is not None and walker.facts.created > 1_700_000_000
    assert walker.facts.attributes["checksum"] == (name != "v10-no-checksum")
    assert any("rdbchecksum" in text for text in walker.facts.unchecked) == (name == "v10-no-checksum")


def test_an_empty_snapshot_is_a_fact() -> None:
    walker = walk(RdbWalker(), fixture("redis/empty.rdb"))
    assert walker.problems == []
    assert walker.facts.attributes["keys"] == 0
    assert walker.facts.counts == {}


@pytest.mark.parametrize("name", [*FULL, "empty"])
def test_pieces_of_any_size_give_the_same_result(name: str) -> None:
    data = fixture(f"redis/{name}.rdb")
    whole = walk(RdbWalker(), data)
    source = random.Random(1)
    for sizes in (lambda: 1, lambda: 7, lambda: source.randrange(1, 3000)):
        walker = walk(RdbWalker(), data, sizes)
        assert (walker.facts, walker.problems) == (whole.facts, whole.problems)


@pytest.mark.parametrize("name", [*FULL, "empty"])
def test_every_cut_and_every_byte_too_many_is_damage(name: str) -> None:
    data = fixture(f"redis/{name}.rdb")
    for length in range(0, len(data), max(1, len(data) // 700)):
        assert checks(data[:length]), f"cut at {length}"
    assert checks(data + b"\0") == ["rdb.trailing"]


@pytest.mark.parametrize("name", ["v9", "v10", "empty"])
def test_flips_and_lost_blocks_are_found_every_time(name: str) -> None:
    data = fixture(f"redis/{name}.rdb")
    source = random.Random(2)
    assert all(checks(flip(data, source)) for _unused in range(200))
    assert all(checks(zeroed(data, source, size)) for size in (1, 16, 512) for _unused in range(30))


def test_stated_rate_without_a_checksum() -> None:
    data = fixture("redis/v10-no-checksum.rdb")
    source = random.Random(3)
    caught = sum(bool(checks(flip(data, source))) for _unused in range(300))
    # Values have no redundancy: lengths, types, packed structures and the announced number of keys do.
    assert 20 <= caught < 300
    lost = sum(bool(checks(zeroed(data, source, 4096))) for _unused in range(60))
    assert lost >= 40


def test_the_announced_number_of_keys_is_compared_without_a_checksum() -> None:
    parts = b"\xfe\x00\xfb\x03\x00" + b"\x00" + text(b"a") + text(b"1") + b"\x00" + text(b"b") + text(b"2")
    assert checks(rdb(parts, checksum=False)) == ["rdb.keys"]
    assert checks(rdb(parts)) == []


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (0, text(b"v")),
        (0, b"\xc0\x05"),
        (0, b"\xc1\x05\x00"),
        (0, b"\xc2\x05\x00\x00\x00"),
        (0, b"\xc3\x09\x40\xc8" + b"x" * 9),
        (0, b"\x81" + struct.pack(">Q", 3) + b"abc"),
        (1, b"\x02" + text(b"a") + text(b"b")),
        (2, b"\x02" + text(b"a") + text(b"b" * 100)),
        (3, b"\x03" + text(b"a") + b"\x031.5" + text(b"b") + b"\xff" + text(b"c") + b"\xfd"),
        (4, b"\x01" + text(b"f") + text(b"v")),
        (5, b"\x02" + text(b"a") + bytes(8) + text(b"b") + bytes(8)),
        (
            7,
            b"\x81" + bytes(8) + b"\x01\x05\x02\x06\x03" + bytes(4) + b"\x04" + bytes(8) + b"\x05" + text(b"s") + b"\0",
        ),
        (9, text(packed("zipmap"))),
        (10, text(packed("ziplist"))),
        (11, text(packed("intset"))),
        (12, text(packed("ziplist"))),
        (13, text(packed("ziplist"))),
        (14, b"\x01" + text(packed("ziplist"))),
        (16, text(packed("listpack"))),
        (17, text(packed("listpack", b"x" * 5000))),
        (18, b"\x02\x02" + text(packed("listpack")) + b"\x01" + text(b"big")),
        (20, text(packed("listpack"))),
        (22, b"\x01\x05" + text(b"f") + text(b"v")),
        (24, bytes(8) + b"\x02\x05" + text(b"f") + text(b"v") + b"\x00" + text(b"g") + text(b"w")),
        (25, bytes(8) + text(packed("listpack"))),
        (15, b"\x01" + text(bytes(16)) + text(packed("listpack")) + b"\x01\x02\x03" + b"\x00"),
        (
            19,
            b"\x00"
            + bytes(range(1, 9))
            + b"\x01"
            + text(b"g")
            + b"\x01\x02\x03"
            + b"\x01"
            + bytes(24)
            + b"\x01"
            + b"\x01"
            + text(b"c")
            + bytes(8)
            + b"\x01"
            + bytes(16),
        ),
        (
            21,
            b"\x00"
            + bytes(range(1, 9))
            + b"\x01"
            + text(b"g")
            + b"\x01\x02\x03"
            + b"\x00"
            + b"\x01"
            + text(b"c")
            + bytes(16)
            + b"\x00",
        ),
    ],
)
def test_every_type(code: int, value: bytes) -> None:
    key = bytes([code]) + text(b"key") + value
    plain = b"\x00" + text(b"last") + text(b"v" * 100)
    for data in (rdb(b"\xfe\x05", key, plain), rdb(b"\xfe\x05", key, plain, checksum=False)):
        for size in (1, 1 << 20):
            walker = walk(RdbWalker(), data, lambda size=size: size)
            assert walker.problems == []
            assert walker.facts.counts == {"db5": {"keys": 2}}
    # It is really followed: one byte less, and the keys after it are not where they should be.
    assert checks(rdb(b"\xfe\x05", key[:-1], plain, checksum=False)) or code in (0, 3, 5, 22, 24, 14, 18)


def test_every_operation() -> None:
    before = (
        b"\xfa" + text(b"redis-ver") + text(b"7.4.0") + b"\xfa" + text(b"ctime") + b"\xc2" + struct.pack("<i", 10**9)
    )
    before += b"\xf5" + text(b"#!lua name=x") + b"\xf7\x05\x02\x01\x05" + text(b"aux") + b"\x00"
    before += b"\xfe\x00\xfb\x01\x01\xf4\x00\x01\x00" + b"\xf8\x05\xf9\x05"
    key = b"\x00" + text(b"k") + text(b"v")
    for expiry in (b"\xfc" + bytes(8), b"\xfd" + bytes(4)):
        walker = walk(RdbWalker(), rdb(before, expiry, key))
        assert walker.problems == []
        assert walker.facts.created == 10**9
        assert walker.facts.attributes["server_version"] == "7.4.0"
        assert (walker.facts.attributes["functions"], walker.facts.attributes["expires"]) == (1, 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ["rdb.cut"]),
        (b"REDIS", ["rdb.cut"]),
        (b"SIDER0010" + bytes(20), ["rdb.magic"]),
        (b"REDIS00a0" + bytes(20), ["rdb.magic"]),
        (rdb(), []),
        (rdb(version=3)[:-8], []),
        (rdb(b"\xf1"), ["rdb.opcode"]),
        (rdb(b"\x63" + text(b"k")), ["rdb.type"]),
        (rdb(b"\x00\xc9"), ["rdb.string"]),
        (rdb(b"\x00\x82"), ["rdb.length"]),
        (rdb(b"\x10" + text(b"k") + text(packed("listpack")[:-1] + b"x")), ["rdb.value"]),
        (rdb(b"\x00" + text(b"k") + b"\xc3\x09\x08" + b"x" * 9), ["rdb.string"]),
        (rdb()[:-8] + b"x" * 8, ["rdb.checksum"]),
    ],
)
def test_transcripts(data: bytes, expected: list[str]) -> None:
    assert checks(data) == expected


def test_what_a_newer_version_brings_cannot_be_told() -> None:
    problem = walk(RdbWalker(), rdb(b"\x63" + text(b"k"), version=14)).problems[0]
    assert (problem.check, problem.damage) == ("rdb.type", False)
    assert "newer" in problem.message


@pytest.mark.parametrize("kind", ["ziplist", "listpack", "intset", "zipmap"])
def test_packed_structures(kind: str) -> None:
    good = packed(kind)
    assert not packed_is_broken(kind, good)
    assert packed_is_broken(kind, good[:-1])
    assert packed_is_broken(kind, b"")


@pytest.mark.parametrize("seed", range(40))
def test_hostile_snapshots_never_raise(seed: int) -> None:
    source = random.Random(seed)
    name = source.choice(FULL)
    data = bytearray(fixture(f"redis/{name}.rdb"))
    for _unused in range(source.randrange(1, 12)):
        data[source.randrange(9, len(data))] = source.choice(
            (0, 0x80, 0x81, 0xC3, 0xFC, 0xFE, 0xFF, source.randrange(256))
        )
    changed = cut(bytes(data), source) if seed % 2 else bytes(data)
    whole = walk(RdbWalker(), changed)
    assert whole.problems or name == "v10-no-checksum"
    for longest in (1, 100, 5000):
        walker = walk(RdbWalker(), changed, lambda longest=longest: source.randrange(1, longest + 1))
        assert (walker.problems, walker.facts) == (whole.problems, whole.facts)


def test_memory_stays_small_with_a_large_value() -> None:
    import tracemalloc

    head = b"REDIS0010\xfe\x00\x00" + text(b"k") + b"\x80" + struct.pack(">I", 40_000_000)
    tracemalloc.start()
    walker = RdbWalker()
    walker.feed(head)
    for _unused in range(40):
        walker.feed(bytes(1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    walker.feed(b"\xff" + bytes(8))
    walker.close()
    assert walker.problems == []
    assert walker.facts.counts == {"db0": {"keys": 1}}
    assert peak < 5_000_000


def test_recognised() -> None:
    assert looks_like(fixture("redis/v9.rdb")[:512])
    assert not looks_like(b"REDIS is a database")
    assert not looks_like(b"")
