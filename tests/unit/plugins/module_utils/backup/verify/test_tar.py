# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""tar: every header and the end are judged, hostile ones give a finding, whatever the pieces."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import Members
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.tar import (
    MAX_EXTENSION,
    TarWalker,
    parse_pax,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plugins.module_utils.backup.verify.builders import (
    END,
    cut,
    flip,
    header,
    padded,
    tar,
    text,
    walk,
    zeroed,
)

pytestmark = pytest.mark.capability("A8")

FORMATS = [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]


class Sink:
    """Keeps a payload."""

    def __init__(self) -> None:
        self.data = b""
        self.complete: bool | None = None

    def feed(self, data: bytes) -> None:
        self.data += data

    def close(self, complete: bool = True) -> None:
        self.complete = complete


def follow(data: bytes, sizes: int | random.Random = 1 << 20, wanted: tuple[str, ...] = ()) -> TarWalker:
    """Have an archive followed, in pieces of one size or of many."""
    walker = TarWalker(Members(wanted))
    walk(walker, data, (lambda: sizes.randrange(1, 1500)) if isinstance(sizes, random.Random) else lambda: sizes)
    return walker


def notes(walker: TarWalker) -> list[str]:
    return sorted(problem.check for problem in walker.members.problems())


@pytest.mark.parametrize("format", FORMATS)
def test_whole_archives_pass(format: int) -> None:
    walker = follow(tar(40, format))
    assert walker.problems == []
    assert walker.members.count == 42
    assert walker.facts.attributes["entries"] == 43
    assert notes(walker) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_cut_between_members_is_told(format: int) -> None:
    data = tar(12, format)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        offsets = [member.offset for member in archive.getmembers()][1:]
    for offset in [*offsets, len(data.rstrip(b"\0")) + 511 & ~511]:
        for zeros in (0, 512):
            walker = follow(data[:offset] + bytes(zeros))
            assert [problem.check for problem in walker.problems] == ["tar.end"], (offset, zeros)
            assert walker.problems[0].damage


@pytest.mark.parametrize("format", FORMATS)
def test_headers_and_truncation(format: int) -> None:
    data = tar(40, format)
    source = random.Random(format)
    end = len(data) - len(END)
    while data[end - 512 : end] == bytes(512):
        end -= 512
    for _unused in range(150):
        assert follow(data[: source.randrange(1, end)]).problems
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        offsets = [member.offset for member in archive.getmembers()]
    missed = 0
    for offset in offsets[:-1]:  # the last one is a link: lost, it looks as if it had never been there
        block = data[offset : offset + 512]
        for _unused in range(10):
            broken = flip(block, source)
            missed += not follow(data[:offset] + broken + data[offset + 512 :]).problems
        assert follow(data[:offset] + bytes(512) + data[offset + 512 :]).problems
    # The byte after the checksum's digits is not part of anything.
    assert missed <= len(offsets) * 10 // 100


def test_a_payload_without_compression_has_no_checksum() -> None:
    data = tar(40)
    assert follow(data.replace(b"user=", b"User=", 1)).problems == []


def test_what_follows_the_end_is_told() -> None:
    data = tar(5)
    for behind in (tar(2), b"x", bytes(5000) + b"x"):
        walker = follow(data + behind)
        assert [problem.check for problem in walker.problems] == ["tar.trailing"]
    assert follow(data + bytes(100_000)).problems == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_pieces_make_no_difference(seed: int) -> None:
    source = random.Random(seed)
    data = tar(8, source.choice(FORMATS), seed)
    data = source.choice((lambda: data, lambda: cut(data, source), lambda: zeroed(data, source), lambda: data + data))()
    whole, parts = follow(data), follow(data, source)
    assert whole.problems == parts.problems
    assert whole.facts == parts.facts
    assert notes(whole) == notes(parts)
    assert follow(data[:3000], 1).problems == follow(data[:3000]).problems


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.booleans())
def test_nonsense_never_raises(data: bytes, valid: bool) -> None:
    if valid and len(data) >= 512:  # a right checksum on nonsense
        block = bytearray(data[:512])
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        data = bytes(block) + data[512:]
    walker = follow(data)
    assert data == b"" or walker.problems


def test_payloads_are_handed_out_whole() -> None:
    data = tar(12)
    sinks: dict[str, Sink] = {}

    def wants(name: str, size: int) -> Sink:
        return sinks.setdefault(name, Sink())

    for size in (1 << 20, 100):
        sinks.clear()
        walk(TarWalker(Members(), wants), data, lambda size=size: size)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive.getmembers():
                if member.isreg():
                    stream = archive.extractfile(member)
                    assert stream is not None
                    assert sinks[member.name].data == stream.read()
                    assert sinks[member.name].complete
    sinks.clear()
    walk(TarWalker(Members(), wants), data[:-15000])
    assert [sink.complete for sink in sinks.values()].count(False) <= 1


def member(name: bytes, data: bytes = b"", kind: bytes = b"0", link: bytes = b"") -> bytes:
    return header(name, len(data), kind, link) + padded(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (member(b"/etc/passwd", b"x"), ["members.absolute"]),
        (member(b"../../etc/passwd", b"x"), ["members.parent"]),
        (member(b"a/../../b", b"x"), ["members.parent"]),
        (member(b"a", kind=b"2", link=b"/etc/passwd"), ["members.link"]),
        (member(b"a/b", kind=b"2", link=b"../../x"), ["members.link"]),
        (member(b"a/b", kind=b"2", link=b"../x"), []),
        (member(b"a", kind=b"2", link=b"b/../c/../../x"), ["members.link"]),
        (member(b"a", kind=b"2", link=b"b/../c"), ["members.tricky"]),
        (member(b"a", kind=b"1", link=b"../x"), ["members.link"]),
        (member(b"a", kind=b"1", link=b"b"), []),
        (member(b"sda", kind=b"4"), ["members.device"]),
        (member(b"tty", kind=b"3"), ["members.device"]),
        (member(b"fifo", kind=b"6"), ["members.device"]),
        (member(b"a", kind=b"Q"), ["members.unknown"]),
        (member(b"\xff\xfe.txt"), ["members.encoding"]),
        (member(b"a\x1b[31m"), ["members.control"]),
        (member(b""), ["members.long"]),
        (member(b"a") + member(b"b") + member(b"a"), ["members.repeated"]),
        (member(b"././@LongLink", b"x" * 5000 + b"\0", b"L") + member(b"a"), ["members.long"]),
        (member(b"p", b"19 path=/etc/shadow\n"[:20].replace(b"19", b"20"), b"x") + member(b"a"), ["members.absolute"]),
    ],
)
def test_dangerous_members_are_noted(data: bytes, expected: list[str]) -> None:
    walker = follow(data + END)
    assert walker.problems == []
    assert notes(walker) == expected
    assert all(problem.note and problem.message.isprintable() for problem in walker.members.problems())


@pytest.mark.parametrize(
    ("data", "check", "damage"),
    [
        (
            header(b"p", MAX_EXTENSION + 1, b"x") + padded(bytes(MAX_EXTENSION + 1)) + member(b"a"),
            "tar.extension",
            False,
        ),
        (member(b"p", b"99 path=x\n", b"x") + member(b"a"), "tar.header", True),
        (member(b"p", b"nonsense", b"x") + member(b"a"), "tar.header", True),
        (member(b"p", b"9999999999 path=x\n", b"x") + member(b"a"), "tar.header", True),
        (member(b"p", b"11 size=-1\n", b"x") + member(b"a"), "tar.header", True),
        (member(b"p", b"10 size=x\n", b"x") + member(b"a"), "tar.header", True),
        (header(b"a", 10**9) + padded(b"short"), "tar.truncated", True),
        (
            b"".join(member(b"g", b"600011 a%d=%s\n" % (n, b"x" * 600_000), b"g") for n in (1, 2)) + member(b"a"),
            "tar.extension",
            False,
        ),
    ],
)
def test_extended_headers(data: bytes, check: str, damage: bool) -> None:
    walker = follow(data + END)
    assert [(problem.check, problem.damage) for problem in walker.problems] == [(check, damage)]


def test_pax_records() -> None:
    assert parse_pax(b"19 path=a=b\nc d e \n11 size=99\n") == {b"path": b"a=b\nc d e ", b"size": b"99"}


def test_sizes_in_base_256_and_of_old_programs() -> None:
    block = bytearray(header(b"big"))
    block[124:136] = b"\x80" + (70_000).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert follow(bytes(block) + padded(bytes(70_000)) + END).problems == []
    signed = bytearray(header(b"\xe4\xf6.txt"))
    signed[148:156] = b" " * 8
    signed[148:156] = b"%06o\0 " % (sum(byte - 256 if byte > 127 else byte for byte in signed) % (1 << 18))
    assert follow(bytes(signed) + END).problems == []


def test_wanted_members() -> None:
    data = tar(12)
    found = ("uploads", "uploads/file-1", "./uploads/file-2", "/uploads/file-4", "*/file-5", "uploads/long/")
    assert follow(data, wanted=found).members.missing == []
    walker = follow(data, wanted=("uploads/file-1", "uploads/file-99", "file-1", "*.sql"))
    assert walker.members.missing == ["*.sql", "file-1", "uploads/file-99"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format=gnu"],
        ["--format=pax"],
        ["--format=posix", "--pax-option=globexthdr.name=g,comment=hello"],
        ["--format=ustar"],
        ["--format=v7"],
        ["--format=oldgnu", "--sparse"],
        ["--format=gnu", "--sparse"],
        ["--format=pax", "--sparse", "--sparse-version=1.0"],
        ["--format=pax", "--sparse", "--sparse-version=0.0"],
        ["--blocking-factor=1"],
        ["--format=gnu", "--incremental"],
        ["--format=gnu", "--label=nightly"],
        ["--numeric-owner", "--owner=4000000000", "--group=4000000000", "--format=gnu"],
        ["--xattrs", "--acls", "--format=pax"],
        ["--absolute-names"],
    ],
    ids=" ".join,
)
def test_healthy_archives_of_tar_itself(tmp_path: Path, arguments: list[str]) -> None:
    root = tmp_path / "data"
    (root / "empty").mkdir(parents=True)
    for index in range(6):
        (root / f"file{index}").write_bytes(text(index * 700))
    (root / "soft").symlink_to("file1")
    os.link(root / "file2", root / "hard")
    if "--format=v7" not in arguments and "--format=ustar" not in arguments:
        (root / ("long" * 40)).write_bytes(b"long")
    with (root / "sparse").open("wb") as stream:
        for offset in range(0, 40 * 2**20, 2**20):  # more holes than a header has places for
            stream.seek(offset)
            stream.write(b"data")
    done = subprocess.run(
        ["tar", "-C", str(tmp_path), *arguments, "-cf", "-", "data"], stdout=subprocess.PIPE, check=True, timeout=60
    )
    walker = follow(done.stdout, 1 << 20, ("data/file3", "data/soft", "data/hard", "data/sparse"))
    assert walker.problems == []
    assert walker.members.missing == []
    assert [check for check in notes(walker) if check != "members.absolute"] == []
