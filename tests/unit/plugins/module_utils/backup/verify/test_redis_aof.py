# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Redis append-only files: commands, the snapshot before them, and the manifest of Redis 7."""

from __future__ import annotations

import random

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.redis_aof import (
    AofWalker,
    looks_like,
    read_manifest,
)

from tests.unit.plugins.module_utils.backup.verify.builders import cut, flip, walk, zeroed
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture, fixture_files

pytestmark = pytest.mark.capability("A8")

PARTS = {name.rpartition("/")[2]: data for name, data in fixture_files("redis/appendonlydir.tar").items()}
INCREMENT = PARTS["appendonly.aof.2.incr.aof"]
FILES = {
    "increment": (INCREMENT, 12),
    "base": (fixture("redis/base.aof"), 3),
    "preamble": (fixture("redis/preamble.aof"), 6),
    "snapshot": (PARTS["appendonly.aof.2.base.rdb"], 0),
}


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def checks(data: bytes) -> list[str]:
    return [problem.check for problem in walk(AofWalker(), data).problems]


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_files_of_the_real_server(name: str) -> None:
    data, commands = FILES[name]
    source = random.Random(1)
    whole = walk(AofWalker(), data)
    assert whole.problems == []
    assert whole.facts.attributes["commands"] == commands
    assert whole.facts.attributes.get("preamble", False) == (name in ("preamble", "snapshot"))
    for sizes in (lambda: 1, lambda: 7, lambda: source.randrange(1, 100)):
        walker = walk(AofWalker(), data, sizes)
        assert (walker.problems, walker.facts) == (whole.problems, whole.facts)


def test_the_time_of_the_last_command() -> None:
    assert walk(AofWalker(), INCREMENT).facts.attributes["last_command"] == int(INCREMENT[4:14])


def test_the_keys_of_the_snapshot_are_counted() -> None:
    facts = walk(AofWalker(), fixture("redis/preamble.aof")).facts
    assert facts.counts == {"db0": {"keys": 1}}


def boundaries(data: bytes) -> set[int]:
    """Return where a file of commands can be cut without a trace."""
    found = {0}
    for place in range(1, len(data)):
        before, after = data[place - 2 : place], data[place : place + 2]
        if before == b"\r\n" and after[:1] == b"*" and after[1:].isdigit():
            found.add(place)
    return found


def test_a_cut_inside_a_command_or_a_transaction_is_damage() -> None:
    unseen = [length for length in range(len(INCREMENT)) if not checks(INCREMENT[:length])]
    assert set(unseen) <= boundaries(INCREMENT)
    inside = INCREMENT.index(b"*3\r\n$3\r\nset\r\n$1\r\nb")
    assert checks(INCREMENT[:inside]) == ["aof.transaction"]
    data = fixture("redis/preamble.aof")
    snapshot = data.index(b"*2\r\n$6\r\nSELECT")
    assert all(checks(data[:length]) for length in range(1, snapshot))


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_lost_block_is_damage(name: str) -> None:
    data, _commands = FILES[name]
    source = random.Random(4)
    # Shorter ones can lie inside a value.
    assert all(checks(zeroed(data, source, 64)) for _unused in range(100))


def test_stated_rate_of_flips() -> None:
    source = random.Random(5)
    data = INCREMENT
    caught = sum(bool(checks(flip(data, source))) for _unused in range(300))
    # Numbers, line ends and names of commands are checked; a value has no redundancy.
    assert caught >= 200


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (command(b"SET", b"a", b"1"), []),
        (command(b"SET", b"a", b"x\r\n*3\r\n") * 5, []),
        (command(b"SET", b"a", b"x" * 100_000), []),
        (command(b"json.set", b"a", b".", b"{}"), []),
        (b"#TS:1700000000\r\n" + command(b"DEL", b"a"), []),
        (command(b"MULTI") + command(b"SET", b"a", b"1") + command(b"EXEC"), []),
        (command(b"MULTI") + command(b"SET", b"a", b"1"), ["aof.transaction"]),
        (command(b"SET", b"a", b"1")[:-1], ["aof.cut"]),
        (command(b"SET", b"a", b"1") + b"\0", ["aof.cut"]),
        (command(b"SET", b"a", b"1") + b"\0" * 2000, ["aof.command"]),
        (command(b"S\xffT", b"a", b"1"), ["aof.command"]),
        (b"*0\r\n", ["aof.command"]),
        (b"*-1\r\n", ["aof.command"]),
        (b"*2\r\n$3\r\nDELx\r\n", ["aof.command"]),
        (b"*99999999999\r\n", ["aof.command"]),
        (b"*2\r\n" + b"x" * 5000, ["aof.command"]),
        (b"hello", ["aof.cut"]),
        (b"REDI", ["rdb.cut"]),
        (b"REDIS0010\xfe", ["rdb.cut"]),
    ],
)
def test_transcripts(data: bytes, expected: list[str]) -> None:
    assert checks(data) == expected
    walker = walk(AofWalker(), data, lambda: 3)
    assert [problem.check for problem in walker.problems] == expected


@pytest.mark.parametrize("seed", range(40))
def test_hostile_files_never_raise(seed: int) -> None:
    source = random.Random(seed)
    data = bytearray(source.choice(sorted(FILES.values()))[0])
    for _unused in range(source.randrange(1, 10)):
        data[source.randrange(len(data))] = source.choice(b"*$\r\n0189#R\0\xff")
    changed = cut(bytes(data), source) if seed % 2 else bytes(data)
    whole = walk(AofWalker(), changed)
    for longest in (1, 10, 200):
        walker = walk(AofWalker(), changed, lambda longest=longest: source.randrange(1, longest + 1))
        assert (walker.problems, walker.facts) == (whole.problems, whole.facts)


def test_the_manifest_of_the_real_server() -> None:
    manifest = read_manifest(PARTS["appendonly.aof.manifest"], PARTS)
    assert manifest.problems == []
    assert manifest.base == "appendonly.aof.2.base.rdb"
    assert manifest.increments == ["appendonly.aof.2.incr.aof"]


BASE = b"file a.1.base.rdb seq 1 type b\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BASE + b"file a.1.incr.aof seq 1 type i\nfile a.2.incr.aof seq 2 type i\n", []),
        (b"# a comment\n" + BASE + b"file a.0.base.rdb seq 4 type h\n", []),
        (BASE + b"file a.1.incr.aof seq 1 type i startoffset 0 endoffset 17\n", []),
        (b'file "a.1.base.rdb" seq 1 type b\n', []),
        (b"", ["aof.manifest"]),
        (BASE + BASE, ["aof.manifest"]),
        (BASE + b"file a.2.incr.aof seq 2 type i\nfile a.1.incr.aof seq 1 type i\n", ["aof.manifest"]),
        (BASE + b"file a.1.incr.aof seq 1 type i\nfile a.2.incr.aof seq 1 type i\n", ["aof.manifest"]),
        (b"file a.1.base.rdb seq 1 type x\n", ["aof.manifest"]),
        (b"file a.1.base.rdb seq 0 type b\n", ["aof.manifest"]),
        (b"file ../a.1.base.rdb seq 1 type b\n", ["aof.manifest"]),
        (b"file a.1.base.rdb seq 1\n", ["aof.manifest"]),
        (BASE[:-1], ["aof.manifest"]),
        (BASE + b"file a.3.incr.aof seq 3 type i\n", ["aof.missing"]),
        (BASE + b"\xff\xfe\n", ["aof.manifest"]),
    ],
)
def test_manifests(text: bytes, expected: list[str]) -> None:
    names = ["a.1.base.rdb", "a.1.incr.aof", "a.2.incr.aof"]
    assert [problem.check for problem in read_manifest(text, names).problems] == expected


def test_recognised() -> None:
    assert looks_like(INCREMENT[:512])
    assert looks_like(fixture("redis/base.aof")[:512])
    assert not looks_like(b"* a list in Markdown")
    assert not looks_like(b"")
