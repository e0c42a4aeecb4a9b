# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compression: whole streams pass, every damage is told, whatever the pieces and whatever decodes them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import shutil
import zlib
from collections.abc import Callable

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import decoders, zstd_frames
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.decoders import (
    Bzip2Decoder,
    Decoder,
    GzipDecoder,
    XzDecoder,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.zstd_frames import ZstdDecoder
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plugins.module_utils.backup.verify.builders import (
    COMPRESS,
    UNCOVERED,
    cut,
    decode,
    flip,
    program,
    text,
    zeroed,
    zstd_raw,
)

pytestmark = pytest.mark.capability("A8")

PAYLOAD = text(200_000)


def zstd_backends() -> dict[str, Callable[[], zstd_frames.Backend]]:
    """Return every way to decode zstd that is here."""
    found: dict[str, Callable[[], zstd_frames.Backend]] = {}
    if zstd_frames.stdlib_zstd is not None:
        found["compression.zstd"] = zstd_frames._StdlibBackend
    if zstd_frames.zstandard is not None:
        found["zstandard"] = zstd_frames._ZstandardBackend
    path = shutil.which("zstd")
    if path:
        found["program"] = lambda: zstd_frames._ProgramBackend(path)
    return found


VARIANTS: list[tuple[str, str, Callable[[], Decoder]]] = [
    ("xz", "stdlib", XzDecoder),
    ("bzip2", "stdlib", Bzip2Decoder),
    *(
        ("gzip", name, lambda module=module: GzipDecoder(module))
        for name, module in (("zlib", zlib), ("isal", decoders.isal_zlib), ("zlib-ng", decoders.zlib_ng))
        if module is not None
    ),
    *(("zstd", name, lambda make=make: ZstdDecoder(make())) for name, make in zstd_backends().items()),
]

variants = pytest.mark.parametrize(
    ("codec", "make"), [pytest.param(codec, make, id=f"{codec}-{name}") for codec, name, make in VARIANTS]
)


def test_the_accelerators_are_here() -> None:
    assert {(codec, name) for codec, name, _make in VARIANTS} >= {
        ("gzip", "isal"),
        ("gzip", "zlib-ng"),
        ("zstd", "zstandard"),
        ("zstd", "program"),
    }


@variants
def test_whole_streams_pass(codec: str, make: Callable[[], Decoder]) -> None:
    compress = COMPRESS[codec]
    for name, data, payload in (
        ("one", compress(PAYLOAD), PAYLOAD),
        ("empty payload", compress(b""), b""),
        ("two members", compress(PAYLOAD) + compress(b"tail\n"), PAYLOAD + b"tail\n"),
        ("many members", compress(b"") + compress(b"x") * 50 + compress(PAYLOAD), b"x" * 50 + PAYLOAD),
    ):
        decoder = make()
        assert decode(decoder, data) == payload, name
        assert decoder.problems == [], name
        assert decoder.complete, name


@variants
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_pieces_make_no_difference(codec: str, make: Callable[[], Decoder], seed: int) -> None:
    source = random.Random(seed)
    data = COMPRESS[codec](PAYLOAD[:30_000]) + COMPRESS[codec](b"second")
    if seed % 3 == 1:
        data = cut(data, source)
    elif seed % 3 == 2:
        data = flip(data, source)
    largest = source.choice((1, 7, 600, 9000))
    whole, parts = make(), make()
    out = decode(whole, data)
    again = decode(parts, data, lambda: source.randrange(1, largest + 1))
    assert [problem.check for problem in whole.problems] == [problem.check for problem in parts.problems]
    assert whole.complete == parts.complete
    if not whole.problems:
        assert out == again


@variants
def test_every_damage_is_told(codec: str, make: Callable[[], Decoder]) -> None:
    compress = COMPRESS[codec]
    data = compress(PAYLOAD)
    source = random.Random(codec)
    share = 4 if codec == "zstd" else 1  # the program is started for each
    mutants = [("flip", flip(data, source, UNCOVERED[codec])) for _unused in range(100 // share)]
    mutants += [("cut", cut(data, source)) for _unused in range(60 // share)]
    mutants += [("zeroed", zeroed(data, source)) for _unused in range(40 // share)]
    mutants += [
        ("empty", b""),
        ("garbage behind", data + b"garbage"),
        ("one byte behind", data + b"\x01"),
        ("second member cut", data + compress(PAYLOAD)[:-9]),
        ("second member is a stub", data + compress(PAYLOAD)[:3]),
        ("garbage behind zeros", data + bytes(64) + compress(b"lost")[1:]),
    ]
    missed = []
    for name, mutant in mutants:
        decoder = make()
        decode(decoder, mutant)
        if not any(problem.damage for problem in decoder.problems):
            missed.append(name)
        assert len(decoder.problems) <= 1
    assert missed == []


@variants
def test_zero_bytes_behind_are_not_called_good(codec: str, make: Callable[[], Decoder]) -> None:
    decoder = make()
    decode(decoder, COMPRESS[codec](PAYLOAD) + bytes(512))
    if codec == "xz":  # the format has such padding
        assert decoder.problems == []
    elif codec == "zstd":
        assert [problem.check for problem in decoder.problems] == ["zstd.trailing"]
    else:
        assert [(problem.check, problem.damage) for problem in decoder.problems] == [(f"{codec}.padding", False)]
    assert decoder.complete


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_accelerators_never_change_the_answer(codec: str) -> None:
    """Small payloads, so that headers and code tables are hit often."""
    makers = [make for name, _variant, make in VARIANTS if name == codec]
    assert len(makers) > 1
    source = random.Random(7)
    mutations = (flip, cut, lambda value, rng: zeroed(value, rng, 8), lambda value, rng: value + b"\x1f\x8b")
    data = b""
    for round_ in range(100 if codec == "zstd" else 400):  # the program is started for each
        if round_ % 20 == 0:
            data = COMPRESS[codec](text(source.randrange(50, 3000), round_))
        mutant = mutations[round_ % 4](data, source)
        answers = []
        for make in makers:
            decoder = make()
            out = decode(decoder, mutant)
            answers.append(
                ([problem.damage for problem in decoder.problems], decoder.complete, decoder.unchecked)
                + ((out,) if not decoder.problems else ())
            )
        assert all(answer == answers[0] for answer in answers), (round_, answers, mutant.hex())


def gzip_header(flags: int, *fields: bytes) -> bytes:
    """Return a gzip member with these header fields."""
    body = zlib.compressobj(6, zlib.DEFLATED, -15)
    start = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6) + b"".join(fields)
    return (
        start
        + body.compress(b"payload")
        + body.flush()
        + zlib.crc32(b"payload").to_bytes(4, "little")
        + (7).to_bytes(4, "little")
    )


@pytest.mark.parametrize(
    ("data", "good"),
    [
        (gzip_header(8, b"worklog.sql\0"), True),
        (gzip_header(4 | 8 | 16, b"\x03\0abc", b"name\0", b"comment\0"), True),
        (gzip_header(2, (zlib.crc32(b"\x1f\x8b\x08\x02" + bytes(6)) & 0xFFFF).to_bytes(2, "little")), True),
        (gzip_header(2, b"\0\0"), False),
        (gzip_header(0x20), False),
        (gzip_header(8, b"x" * 140_000 + b"\0"), False),
        (b"\x1f\x8b\x07" + gzip_header(0)[3:], False),
        (gzip_header(0)[:-4] + b"\x08\0\0\0", False),
    ],
    ids=["name", "all fields", "header checksum", "bad header checksum", "flags", "endless name", "method", "length"],
)
def test_gzip_headers(data: bytes, good: bool) -> None:
    for size in (1 << 20, 1000, 1 if len(data) < 1000 else 999):
        decoder = GzipDecoder()
        out = decode(decoder, data, lambda size=size: size)
        assert (not decoder.problems) is good
        if good:
            assert out == b"payload"


def test_xz_without_a_checksum_is_told() -> None:
    decoder = XzDecoder()
    decode(decoder, lzma.compress(PAYLOAD, check=lzma.CHECK_NONE))
    assert decoder.problems == []
    assert "no checksum" in decoder.unchecked[0]


def test_xz_that_needs_much_memory_is_inconclusive() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 * 1024 * 1024}]
    decoder = XzDecoder()
    decode(decoder, lzma.compress(b"small", filters=filters))
    assert [(problem.check, problem.damage) for problem in decoder.problems] == [("xz.memory", False)]


def test_xz_9_is_decompressed() -> None:
    decoder = XzDecoder()
    assert decode(decoder, lzma.compress(PAYLOAD, preset=9)) == PAYLOAD
    assert decoder.problems == []


def test_zstd_without_a_checksum_is_told() -> None:
    decoder = ZstdDecoder()
    decode(decoder, zstd_raw(PAYLOAD, checksum=False))
    assert decoder.problems == []
    assert "no content checksum" in decoder.unchecked[0]


def test_zstd_with_a_huge_window_is_inconclusive() -> None:
    data = program(["zstd", "-q", "-c", "-1", "--long=31", "--zstd=wlog=27"], PAYLOAD)
    decoder = ZstdDecoder()
    decode(decoder, data)
    # a window is only as large as the size that is known, and here it is not
    assert [(problem.check, problem.damage) for problem in decoder.problems] == [("zstd.memory", False)]


def test_zstd_skippable_frames_pass() -> None:
    skippable = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    decoder = ZstdDecoder()
    assert decode(decoder, skippable + zstd_raw(b"x") + skippable, lambda: 3) == b"x"
    assert decoder.problems == []


def test_zstd_without_anything_to_decode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd_frames, "find_backend", lambda: None)
    decoder = ZstdDecoder()
    assert decode(decoder, zstd_raw(PAYLOAD)) == b""
    assert [(problem.check, problem.damage) for problem in decoder.problems] == [("zstd.unavailable", False)]
    assert "Install" in (decoder.problems[0].advice or "")
    decoder = ZstdDecoder()
    decode(decoder, zstd_raw(PAYLOAD)[:-5])
    assert "zstd.truncated" in [problem.check for problem in decoder.problems]
    frames = bytearray(zstd_raw(PAYLOAD))
    frames[6] |= 6  # the first block's header, to a kind that does not exist
    decoder = ZstdDecoder()
    decode(decoder, bytes(frames))
    assert "zstd.corrupt" in [problem.check for problem in decoder.problems]


def test_the_zstd_program_that_cannot_be_started_is_inconclusive() -> None:
    decoder = ZstdDecoder(zstd_frames._ProgramBackend("/nonexistent/zstd"))
    decode(decoder, zstd_raw(PAYLOAD))
    assert [(problem.check, problem.damage) for problem in decoder.problems] == [("zstd.unavailable", False)]


@variants
def test_a_bomb_comes_out_in_small_pieces(codec: str, make: Callable[[], Decoder]) -> None:
    data = COMPRESS[codec](bytes(64 * 1024 * 1024))
    largest = total = 0
    decoder = make()
    for start in range(0, len(data), 1 << 20):
        for piece in decoder.decode(data[start : start + (1 << 20)]):
            largest = max(largest, len(piece))
            total += len(piece)
    total += sum(map(len, decoder.finish()))
    assert decoder.problems == []
    assert total == 64 * 1024 * 1024
    assert largest <= 2 * 1024 * 1024


def test_many_tiny_members_take_linear_time() -> None:
    data = (gzip.compress(b"", mtime=0) * 60_000)[:-1]
    decoder = GzipDecoder()
    decode(decoder, data)
    assert decoder.members == 59_999
    data = bz2.compress(b"") * 30_000
    streams = Bzip2Decoder()
    decode(streams, data)
    assert streams.members == 30_000
