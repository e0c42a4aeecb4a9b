# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encrypted files: what can be told without a key, and with one."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import encrypted

from tests.unit.plugins.module_utils.backup.verify.builders import cut, flip, tar, text
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture
from tests.unit.plugins.module_utils.backup.verify.test_verify import check, checks

pytestmark = pytest.mark.capability("A8")

NAMES = {
    "for-key.age": "age",
    "for-key-armor.age": "age",
    "symmetric.gpg": "openpgp",
    "public.gpg": "openpgp",
    "armor.gpg": "openpgp",
    "aes.enc": "openssl",
}

needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="the program age is not installed here")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", [False, True])
def test_the_frame_is_followed(tmp_path: Path, name: str, known: bool) -> None:
    data = fixture(f"encrypted/{name}")
    (tmp_path / name).write_bytes(data)
    result = check(tmp_path / name, **({"sha256": hashlib.sha256(data).hexdigest()} if known else {}))
    assert (result.verdict, result.format) == ("structure_ok", NAMES[name]), result.findings
    assert "what is inside: it is encrypted" in result.unchecked
    assert "what is inside is encrypted" in result.findings[0].message
    (tmp_path / name).rename(tmp_path / "copy.bin")
    assert check(tmp_path / "copy.bin").format == NAMES[name]


def test_what_is_expected_of_the_content_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "files.tar.age").write_bytes(fixture("encrypted/for-key.age"))
    result = check(tmp_path / "files.tar.age", members=[".env"])
    assert (result.verdict, checks(result)) == ("inconclusive", ["expect.members"])


@pytest.mark.parametrize("name", [name for name in NAMES if NAMES[name] == "openpgp" or "armor" in name])
def test_every_cut_is_found(tmp_path: Path, name: str) -> None:
    data, source = fixture(f"encrypted/{name}").rstrip(b"\n"), random.Random(name)
    for _unused in range(50):
        (tmp_path / name).write_bytes(cut(data, source))
        assert check(tmp_path / name).verdict == "damaged"


def test_a_cut_of_age_is_found_where_it_leaves_no_whole_piece(tmp_path: Path) -> None:
    data = fixture("encrypted/for-key.age")
    header = data.index(b"\n---") + 49
    for size in (10, 60, header - 5, header + 3, header + 16, header + 20, header + 16 + 65552 + 9):
        (tmp_path / "x.age").write_bytes(data[:size])
        assert check(tmp_path / "x.age").verdict == "damaged", size
    (tmp_path / "x.age").write_bytes(data[: header + 16 + 65552])
    assert check(tmp_path / "x.age").verdict == "structure_ok"  # only the key or a hash tells that
    (tmp_path / "x.age").write_bytes(fixture("encrypted/empty.age"))
    assert checks(check(tmp_path / "x.age")) == ["age.empty"]


@pytest.mark.parametrize("name", ["for-key.age", "symmetric.gpg"])
def test_what_is_not_what_its_name_says(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(text(5000))
    assert check(tmp_path / name).verdict == "damaged"
    (tmp_path / name).write_bytes(fixture(f"encrypted/{name}") + b"\0" * 600)
    assert check(tmp_path / name, min_size=0).verdict in ("damaged", "structure_ok")


def test_bytes_behind_a_message_of_openpgp(tmp_path: Path) -> None:
    (tmp_path / "x.gpg").write_bytes(fixture("encrypted/public.gpg") + b"more")
    assert checks(check(tmp_path / "x.gpg")) == ["openpgp.trailing"]


def test_recipients_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.age").write_bytes(fixture("encrypted/for-key.age"))
    assert check(tmp_path / "x.age").attributes["recipients"] == ["X25519"]
    (tmp_path / "x.gpg").write_bytes(fixture("encrypted/public.gpg"))
    assert check(tmp_path / "x.gpg").attributes["recipients"] == 1


def test_random_bytes_are_no_message() -> None:
    source = random.Random(7)
    found = 0
    for _unused in range(20_000):
        head = bytes(source.getrandbits(8) for _byte in range(16))
        found += encrypted.looks_like_openpgp(head) or encrypted.looks_like_age(head)
    assert found <= 2


def own(path: Path, names: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in names.items():
        (path / name).write_bytes(data)
    files = [{"path": name, "sha256": hashlib.sha256(data).hexdigest()} for name, data in names.items()]
    (path / "manifest.json").write_text(json.dumps({"schema": 1, "id": "a", "files": files}))
    return path


def test_a_backup_of_our_own_that_is_encrypted(tmp_path: Path) -> None:
    sealed = fixture("encrypted/for-key.age")
    assert check(own(tmp_path / "a", {"files.tar.age": sealed})).verdict == "structure_ok"
    assert check(own(tmp_path / "b", {"files.tar.age": sealed, "x.txt": text(99)})).verdict == "verified"


def test_a_program_or_key_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.age").write_bytes(fixture("encrypted/for-key.age"))
    monkeypatch.setattr(encrypted.command, "which", lambda name: None)
    result = check(tmp_path / "x.age", identity="/nowhere")
    assert (result.verdict, checks(result)) == ("inconclusive", ["age.key"])
    assert "'age' is not installed" in result.sentence()


# --- with the key -----------------------------------------------------------------------------------------------------


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    path.write_bytes(fixture("encrypted/identity"))
    path.chmod(0o600)
    return path


def encrypt(identity: Path, data: bytes) -> bytes:
    key = subprocess.run(["age-keygen", "-y", str(identity)], capture_output=True, check=True).stdout.decode().strip()
    return subprocess.run(["age", "-r", key], input=data, capture_output=True, check=True).stdout


@needs_age
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_inside_is_followed(tmp_path: Path, identity: Path, packed: bool) -> None:
    plain = tar(30)
    path = tmp_path / ("files.tar.gz.age" if packed else "files.tar.age")
    path.write_bytes(encrypt(identity, gzip.compress(plain) if packed else plain))
    result = check(path, identity=str(identity), members=["uploads/file-1"])
    assert (result.verdict, result.format) == ("verified", "tar"), result.findings
    assert result.compression == (["age", "gzip"] if packed else ["age"])
    assert checks(check(path, identity=str(identity), members=["uploads/file-99"])) == ["expect.members"]
    short = plain[: len(plain) // 2]
    path.write_bytes(encrypt(identity, gzip.compress(short) if packed else short))
    assert check(path, identity=str(identity)).verdict == "damaged"
    inside = own(tmp_path / "own", {path.name: encrypt(identity, gzip.compress(plain) if packed else plain)})
    result = check(inside, identity=str(identity), members=["uploads/file-1"])
    assert result.verdict == "verified" and not checks(result, "info")[1:], result.findings


@needs_age
def test_all_damage_is_found_with_the_key(tmp_path: Path, identity: Path) -> None:
    data, source = fixture("encrypted/for-key.age"), random.Random(3)
    path = tmp_path / "x.age"
    header = data.index(b"\n---") + 49
    path.write_bytes(data)
    assert checks(check(path, identity=str(identity))) == ["backup.unknown"]  # to its end: random bytes
    mutants = [data[:header] + flip(data[header:], source) for _unused in range(15)]
    mutants += [data[: header + 16 + 65552], data + b"x", data[:-1]]
    for mutant in mutants:
        path.write_bytes(mutant)
        assert checks(check(path, identity=str(identity)))[0] == "age.corrupt"


@needs_age
def test_another_key(tmp_path: Path, identity: Path) -> None:
    (tmp_path / "x.age").write_bytes(fixture("encrypted/for-key.age"))
    other = tmp_path / "other"
    subprocess.run(["age-keygen", "-o", str(other)], check=True, capture_output=True)
    for key, words in ((other, "does not open it"), (tmp_path / "none", "no such file")):
        result = check(tmp_path / "x.age", identity=str(key))
        assert result.verdict == "inconclusive" and words in result.sentence()
