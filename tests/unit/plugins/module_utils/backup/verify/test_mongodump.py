# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mongodump: documents, archives with their checksums, directories, and the damage each can show."""

from __future__ import annotations

import gzip
import json
import random
import struct

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import bson
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.crc64 import XZ, Crc64
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.mongodump import (
    MAGIC,
    BsonWalker,
    MongoArchiveWalker,
    looks_like,
    looks_like_bson,
    read_directory,
)

from tests.unit.plugins.module_utils.backup.verify.builders import cut, flip, walk, zeroed
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture, fixture_files

pytestmark = pytest.mark.capability("A8")

ARCHIVE = fixture("mongodump/dump.archive")
FILES = fixture_files("mongodump/directory.tar")
APPS = FILES["dump/lowcode/apps.bson"]
COUNTS = {"audit": {"events": 30}, "lowcode": {"apps": 12, "users": 40, "empty": 0}}
END = b"\xff\xff\xff\xff"


def document(**values: object) -> bytes:
    body = b""
    for name, value in values.items():
        key = name.encode() + b"\0"
        if isinstance(value, str):
            text = value.encode() + b"\0"
            body += b"\x02" + key + struct.pack("<i", len(text)) + text
        elif isinstance(value, bool):
            body += b"\x08" + key + bytes([value])
        elif isinstance(value, bytes):
            body += b"\x03" + key + value
        else:
            body += b"\x12" + key + struct.pack("<q", value)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def described(database: str, collection: str, kind: str = "collection", **options: object) -> bytes:
    text = json.dumps({"collectionName": collection, "type": kind, "options": options, "indexes": []})
    return document(db=database, collection=collection, metadata=text, size=0, type=kind)


def block(database: str, collection: str, *documents: bytes) -> bytes:
    return document(db=database, collection=collection, EOF=False, CRC=0) + b"".join(documents) + END


def end(database: str, collection: str, *documents: bytes) -> bytes:
    checksum = Crc64(XZ)
    checksum.update(b"".join(documents))
    value = struct.unpack("<q", struct.pack("<Q", checksum.value()))[0]
    return document(db=database, collection=collection, EOF=True, CRC=value) + END


def archive(descriptions: list[bytes], *blocks: bytes) -> bytes:
    head = document(concurrent_collections=4, version="0.1", server_version="7.0.1", tool_version="100.9.4")
    return MAGIC + head + b"".join(descriptions) + END + b"".join(blocks)


def checks(data: bytes) -> list[str]:
    return [problem.check for problem in walk(MongoArchiveWalker(), data).problems]


# Archives


def test_the_archive_of_the_real_program() -> None:
    walker = walk(MongoArchiveWalker(), ARCHIVE)
    assert walker.problems == []
    assert walker.facts.counts == COUNTS
    assert walker.facts.attributes["server_version"] == "7.0.42"


def test_pieces_of_any_size_give_the_same_result() -> None:
    whole = walk(MongoArchiveWalker(), ARCHIVE)
    source = random.Random(1)
    for sizes in (lambda: 1, lambda: 5, lambda: source.randrange(1, 5000)):
        walker = walk(MongoArchiveWalker(), ARCHIVE, sizes)
        assert (walker.facts, walker.problems) == (whole.facts, whole.problems)


def test_every_cut_is_damage() -> None:
    for length in range(1, len(ARCHIVE), 7):
        assert checks(ARCHIVE[:length]), f"cut at {length}"


def test_a_cut_between_blocks_is_damage() -> None:
    first, second = document(a=1), document(b="x")
    data = archive([described("d", "one"), described("d", "two")], block("d", "one", first), end("d", "one", first))
    assert checks(data) == ["mongodump.unfinished"]
    assert checks(data + block("d", "two", second)) == ["mongodump.unfinished"]
    assert checks(data + block("d", "two", second) + end("d", "two", second)) == []


def test_flips_in_documents_are_found_every_time() -> None:
    source = random.Random(3)
    begin = ARCHIVE.index(END) + 4
    assert all(checks(flip(ARCHIVE, source, (begin + 70, 120))) for _unused in range(300))


def test_lost_blocks_are_found_every_time() -> None:
    source = random.Random(4)
    begin = ARCHIVE.index(END)
    for size in (16, 512, 4096):
        assert all(checks(ARCHIVE[:begin] + zeroed(ARCHIVE[begin:], source, size)) for _unused in range(50))


def test_a_document_lost_swapped_or_added_is_found() -> None:
    one, two, three = document(n=1), document(n=2), document(n=3)
    head = [described("d", "c")]
    for documents in ((one, three), (two, one, three), (one, two, three, three), ()):
        assert checks(archive(head, block("d", "c", *documents), end("d", "c", one, two, three))) == [
            "mongodump.checksum"
        ]


def test_interleaved_blocks() -> None:
    one, two, three = document(n=1), document(n=2), document(n=3)
    blocks = [block("d", "a", one), block("e", "b", two), block("d", "a", three), end("e", "b", two)]
    walker = walk(
        MongoArchiveWalker(), archive([described("d", "a"), described("e", "b")], *blocks, end("d", "a", one, three))
    )
    assert walker.problems == []
    assert walker.facts.counts == {"d": {"a": 2}, "e": {"b": 1}}


def test_views_have_no_end_and_time_series_are_buckets() -> None:
    bucket = document(control=1)
    head = [described("d", "v", "view", viewOn="c"), described("d", "t", "timeseries", timeseries={})]
    head.append(document(db="", collection="oplog", metadata="", size=0, type=""))
    name = "system.buckets.t"
    data = archive(head, block("d", name, bucket), end("d", name, bucket), end("", "oplog"))
    walker = walk(MongoArchiveWalker(), data)
    assert walker.problems == []
    assert walker.facts.counts == {"d": {"t": None, name: 1}}
    assert walker.facts.attributes["views"] == ["d.v"]
    assert walker.facts.attributes["oplog_documents"] == 0
    assert checks(archive(head, end("", "oplog"))) == ["mongodump.unfinished"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ["mongodump.cut"]),
        (MAGIC, ["mongodump.cut"]),
        (b"xxxx", ["mongodump.magic"]),
        (archive([]), []),
        (archive([], block("d", "c")), ["mongodump.undeclared"]),
        (archive([described("d", "c")], end("d", "c"), block("d", "c")), ["mongodump.order"]),
        (archive([described("d", "c")], end("d", "c"), b"garbage!"), ["mongodump.frame"]),
        (archive([described("d", "c").replace(b'"indexes"', b'"indexes')], end("d", "c")), ["mongodump.frame"]),
        (archive([described("d", "c").replace(b'"indexes"', b'"indexes ')], end("d", "c")), ["mongodump.metadata"]),
        (
            archive([described("d", "c")], document(db="d", collection="c", EOF=False, CRC=1) + END),
            ["mongodump.frame", "x"],
        ),
    ],
)
def test_transcripts(data: bytes, expected: list[str]) -> None:
    assert checks(data)[: len(expected)] == [check for check in expected if check != "x"]


def test_large_documents_are_followed_without_being_kept() -> None:
    import tracemalloc

    large = document(text="x" * 12_000_000)
    data = archive([described("d", "c")], block("d", "c", large, document(n=1)), end("d", "c", large, document(n=1)))
    tracemalloc.start()
    walker = walk(MongoArchiveWalker(), data, lambda: 65536)
    peak = tracemalloc.get_traced_memory()[1]
    assert walker.problems == []
    assert walker.facts.counts == {"d": {"c": 2}}
    assert peak < 4_000_000
    file = walk(BsonWalker("d", "c"), large + document(n=1), lambda: 65536)
    tracemalloc.stop()
    assert (file.problems, file.facts.counts) == ([], {"d": {"c": 2}})
    assert walk(BsonWalker("d", "c"), large[:-1] + b"x").problems[0].check == "mongodump.document"


# Files of documents


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.endswith(".bson")))
def test_files_of_the_real_program(name: str) -> None:
    _root, database, collection = name[:-5].split("/")
    for sizes in (lambda: 1 << 20, lambda: 1, lambda: 333):
        walker = walk(BsonWalker(database, collection), FILES[name], sizes)
        assert walker.problems == []
        assert walker.facts.counts == {database: {collection: COUNTS[database][collection]}}


def test_a_file_is_cut_inside_a_document_or_unseen_between_two() -> None:
    ends = {0}
    while max(ends) < len(APPS):
        ends.add(max(ends) + int.from_bytes(APPS[max(ends) : max(ends) + 4], "little"))
    for length in range(len(APPS)):
        assert bool(walk(BsonWalker("d", "c"), APPS[:length]).problems) == (length not in ends)


def test_stated_rate_of_flips_in_a_file() -> None:
    source = random.Random(1)
    caught = sum(bool(walk(BsonWalker("d", "c"), flip(APPS, source)).problems) for _unused in range(500))
    # A file has no checksum: types, lengths and ends of elements are checked, values are not.
    assert caught >= 100
    assert caught < 500


def test_every_flip_in_a_frame_is_found() -> None:
    one = document(text="hello", n=5, yes=True, inside=document(a="b"))
    data = one * 3
    frame = [0, 1, 2, 3, len(one) - 1, 4, 10, 11, 12, 13, one.index(b"hello\0") + 5]
    for place in frame:
        for bit in range(8):
            changed = bytearray(data)
            changed[len(one) + place] ^= 1 << bit
            problems = walk(BsonWalker("d", "c"), bytes(changed)).problems
            if place == 4:
                continue
            assert [problem.check for problem in problems] in (["mongodump.document"], ["mongodump.cut"]), (place, bit)


def test_a_lost_block_in_a_file_is_found() -> None:
    source = random.Random(9)
    assert all(walk(BsonWalker("d", "c"), zeroed(APPS, source, 512)).problems for _unused in range(60))


@pytest.mark.parametrize("seed", range(40))
def test_hostile_documents_never_raise(seed: int) -> None:
    source = random.Random(seed)
    data = bytearray(APPS if seed % 2 else ARCHIVE)
    for _unused in range(source.randrange(1, 20)):
        data[source.randrange(len(data))] = source.choice((0, 1, 2, 3, 4, 5, 11, 15, 127, 255, source.randrange(256)))
    changed = cut(bytes(data), source)
    for make in (MongoArchiveWalker, lambda: BsonWalker("d", "c"), lambda: BsonWalker("", "oplog")):
        whole = walk(make(), changed)
        pieces = walk(make(), changed, lambda: source.randrange(1, 700))
        assert (pieces.problems, pieces.facts) == (whole.problems, whole.facts)


def test_every_type_of_element() -> None:
    element = {
        1: 8 * b"x",
        2: b"\x02\0\0\0a\0",
        3: document(),
        4: document(),
        5: b"\x03\0\0\0\0abc",
        6: b"",
        7: 12 * b"x",
        8: b"\1",
        9: 8 * b"x",
        10: b"",
        11: b"a\0i\0",
        12: b"\x02\0\0\0a\0" + 12 * b"x",
        13: b"\x02\0\0\0a\0",
        15: struct.pack("<i", 4 + 6 + 5) + b"\x02\0\0\0a\0" + document(),
        16: 4 * b"x",
        17: 8 * b"x",
        18: 8 * b"x",
        19: 16 * b"x",
        127: b"",
        255: b"",
    }
    body = b"".join(bytes([kind]) + b"name\0" + value for kind, value in element.items())
    data = struct.pack("<i", len(body) + 5) + body + b"\0"
    assert bson.broken(data, 0) is None
    for kind in set(range(256)) - set(element) - {14}:
        assert bson.broken(document(n=1).replace(b"\x12", bytes([kind])), 0)


def test_the_oplog_tells_its_time() -> None:
    entries = b""
    for second in (1_700_000_000, 1_700_000_060):
        body = b"\x11ts\0" + struct.pack("<II", 1, second)
        entries += struct.pack("<i", len(body) + 5) + body + b"\0"
    facts = walk(BsonWalker("", "oplog"), entries).facts
    assert (facts.attributes["oplog_first"], facts.attributes["oplog_last"]) == (1_700_000_000, 1_700_000_060)
    assert facts.counts == {}


# Directories


def test_the_directory_of_the_real_program() -> None:
    for name, unpack in (("directory", bytes), ("directory-gzip", gzip.decompress)):
        files = fixture_files(f"mongodump/{name}.tar")
        found = read_directory(files, lambda path, files=files, unpack=unpack: unpack(files[path]))
        assert found is not None
        assert found.problems == []
        assert {key: dict.fromkeys(value) for key, value in COUNTS.items()} == found.counts
        assert sorted(found.streams.values()) == [
            ("audit", "events"),
            ("lowcode", "apps"),
            ("lowcode", "empty"),
            ("lowcode", "users"),
        ]


def listing(*names: str, **contents: bytes) -> tuple[list[str], object]:
    found = read_directory(names, lambda path: contents.get(path.rpartition("/")[2].partition(".")[0], b"{}"))
    assert found is not None
    return [problem.check for problem in found.problems], found


def test_partners_that_are_missing() -> None:
    plain = b'{"type": "collection", "collectionName": "a"}'
    assert listing("d/a.bson", "d/a.metadata.json", a=plain)[0] == []
    assert listing("d/a.bson")[0] == ["mongodump.metadata"]
    assert listing("d/a.metadata.json", a=plain)[0] == ["mongodump.missing"]
    assert listing("d/a.bson", "d/a.metadata.json", a=plain[:-3])[0] == ["mongodump.metadata"]


def test_views_time_series_oplog_and_prelude() -> None:
    problems, found = listing(
        "x/d/v.metadata.json",
        "x/d/t.metadata.json",
        "x/d/system.buckets.t.bson",
        "x/oplog.bson",
        "x/prelude.json",
        v=b'{"type": "view", "options": {"viewOn": "a"}}',
        t=b'{"type": "timeseries"}',
        prelude=b'{"ServerVersion": "7.0.1", "ToolVersion": "100.12.0"}',
    )
    assert problems == []
    assert found.streams == {"x/d/system.buckets.t.bson": ("d", "system.buckets.t"), "x/oplog.bson": ("", "oplog")}
    assert found.attributes == {
        "views": ["d.v"],
        "timeseries": ["d.t"],
        "server_version": "7.0.1",
        "tool_version": "100.12.0",
    }


def test_escaped_and_shortened_names() -> None:
    long = b'{"collectionName": "' + b"n" * 300 + b'"}'
    names = ("d/a%2Fb.bson", "d/a%2Fb.metadata.json", "d/s%24x.bson", "d/s%24x.metadata.json")
    _problems, found = listing(*names, **{"s%24x": long})
    assert {key: key for key in found.counts["d"]} == {"a/b": "a/b", "n" * 300: "n" * 300}


def test_other_directories_are_none() -> None:
    assert read_directory(["a.txt", "b/c.json", "x.bson"], lambda path: None) is None


def test_recognised() -> None:
    assert looks_like(ARCHIVE[:512])
    assert looks_like_bson(APPS[:512])
    assert looks_like_bson(document(text="x" * 5000)[:512])
    for head in (b"", b"REDIS0010", b"hello world, this is text", b"\0" * 512, ARCHIVE[:512], b"\x1f\x8b\x08\0" * 9):
        assert not looks_like_bson(head)
