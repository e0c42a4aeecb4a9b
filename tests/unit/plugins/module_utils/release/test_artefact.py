# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Release directories and images: whole or not there, proven before they are used, and what is kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Result, run
from ansible_collections.worklog.maintenance.plugins.module_utils.release import artefact, artefact_work
from ansible_collections.worklog.maintenance.plugins.module_utils.release.artefact import ArtefactError, Outcome

FILES = {"server.py": b"print(1)\n", "lib/a.py": b"A = 1\n"}


def options(**given: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "kind": "directory", "state": "prepared", "version": "1.1.0", "artefact": None, "root": None, "source": None,
        "tag": None, "archive": None, "checksum": None, "checksums": None, "signature": None, "keyring": None,
        "owner": None, "shared": {}, "commands": [], "environment": {}, "exclude": ["__pycache__", "*.log"],
        "keep": 5, "protect": [], "timeout": 20.0,
    }  # fmt: skip
    return {**defaults, **given}


def carry_out(check_mode: bool = False, **given: Any) -> Outcome:
    return artefact_work.make(options(**given), run).carry_out(check_mode=check_mode)


def packed(path: Path, files: dict[str, bytes] | None = None, link: str = "") -> Path:
    """An archive by the ending of its name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (files or FILES).items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:" + {".gz": "gz", ".xz": "xz"}.get(path.suffix, "")) as tar:
        for name, content in (files or FILES).items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o666
            tar.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site that runs 1.0.0, put there by hand."""
    release = tmp_path / "site" / "releases" / "1.0.0"
    release.mkdir(parents=True)
    (release / "server.py").write_text("print(0)\n")
    (tmp_path / "site" / "current").symlink_to("releases/1.0.0")
    return tmp_path / "site"


def names(site: Path) -> list[str]:
    return sorted(path.name for path in (site / "releases").iterdir())


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.zip"])
def test_a_release_of_an_archive_is_made_and_made_live(site: Path, name: str) -> None:
    source = packed(site.parent / name.replace("tgz", "tar.gz"))
    source = source.rename(site.parent / name)
    given = {"root": str(site), "source": str(source), "checksum": hashlib.sha256(source.read_bytes()).hexdigest()}
    would = carry_out(True, **given)
    assert would.changed and names(site) == ["1.0.0"], "check mode changes nothing"
    made = carry_out(**given)
    assert made.changed and made.proof == ["its SHA-256 is that of checksum"]
    assert (site / "releases/1.1.0/lib/a.py").read_bytes() == FILES["lib/a.py"]
    assert (site / "releases/1.1.0/lib").stat().st_mode & 0o777 == 0o755
    assert (site / "releases/1.1.0/server.py").stat().st_mode & 0o022 == 0, "nobody else may write"
    assert os.readlink(site / "current") == "releases/1.0.0", "not live yet"
    assert not carry_out(**given).changed
    assert carry_out(True, **given, state="live").changed and os.readlink(site / "current") == "releases/1.0.0"
    live = carry_out(**given, state="live")
    assert (live.changed, dict(live.live)) == (True, {"version": "1.1.0", "artefact": "releases/1.1.0"})
    assert not carry_out(**given, state="live").changed
    assert carry_out(root=str(site), state="live", version=None, artefact="releases/1.0.0").changed
    assert names(site) == [".1.0.0.json", ".1.1.0.json", "1.0.0", "1.1.0"], "the one that ran was taken over"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"checksum": "0" * 64}, "is not what checksum says"),
        ({"checksum": "abc"}, "'abc' is no SHA-256"),
        ({"checksums": "SUMS"}, "has no line for a.tar.gz"),
        ({"checksums": "WRONG"}, "is not what"),
        ({"checksums": "NONE"}, "cannot be read"),
        ({"signature": "a.asc"}, "signature and keyring belong together"),
        ({"keyring": "a.gpg"}, "signature and keyring belong together"),
        ({"source": "none.tar.gz"}, "is not there; copy it"),
        ({"source": "a.rar"}, "is none of tar"),
        ({"source": "bad.tar.gz"}, "cannot be"),
        ({"source": "short.tar.gz"}, "cannot be"),
        ({"source": "out.tar"}, "'link' leads out of the release"),
        ({"source": "absolute.tar"}, "'link' leads out of the release"),
        ({"source": "climb.tar"}, "leads out of it"),
        ({"source": None}, "put it there whole, or name a source"),
        ({"commands": [["false"]]}, "in the new release 'false' ended with exit code 1"),
        ({"commands": [["no-such-program"]]}, "is not installed"),
        ({"owner": "no-such-account"}, "there is no account"),
        ({"shared": {"../x": "/y"}}, "is not a path in the release"),
        ({"version": "../1"}, "cannot be the name of a release"),
        ({"version": ".hidden"}, "cannot be the name of a release"),
        ({"kind": "git"}, "git"),
    ],
)
def test_what_is_refused_changes_nothing(site: Path, given: dict[str, Any], sentence: str) -> None:
    here = site.parent
    whole = packed(here / "a.tar.gz").read_bytes()
    (here / "a.rar").write_bytes(whole)
    (here / "bad.tar.gz").write_bytes(b"\x1f\x8b" + b"x" * 50)
    (here / "short.tar.gz").write_bytes(whole[:-20])
    packed(here / "out.tar", link="../../x")
    packed(here / "absolute.tar", link="/etc/passwd")
    packed(here / "climb.tar", {"../../x": b"x"})
    (here / "SUMS").write_text(f"{'0' * 64}  other.tar.gz\n")
    (here / "WRONG").write_text(f"{'0' * 64} *a.tar.gz\n")
    given = {"source": "a.tar.gz", **given}
    for name in ("source", "checksums", "signature", "keyring"):
        if given.get(name):
            given[name] = str(here / given[name])
    with pytest.raises((ArtefactError, artefact.CommandError)) as error:
        carry_out(root=str(site), **given)
    assert sentence in str(error.value)
    assert [name for name in names(site) if not name.startswith(".1.0.0")] == ["1.0.0"], "nothing stays behind"
    assert os.readlink(site / "current") == "releases/1.0.0"


def test_what_a_killed_run_has_left_is_not_used(site: Path) -> None:
    (site / "releases/.1.1.0.partial").mkdir()
    (site / "releases/.1.1.0.partial/junk").write_text("x")
    (site / "releases/.1.1.0.json").write_text('{"files": {}}')
    (site / "releases/.git-x").mkdir()
    carry_out(root=str(site), source=str(packed(site.parent / "a.tar")))
    assert names(site) == [".1.0.0.json", ".1.1.0.json", "1.0.0", "1.1.0"]
    assert not (site / "releases/1.1.0/junk").exists()


@pytest.mark.parametrize(
    ("harm", "again"),
    [
        (lambda place: (place / "server.py").write_text("other"), True),
        (lambda place: (place / "lib/a.py").unlink(), True),
        (lambda place: (place / "app.log").write_text("written by the application"), False),
        (lambda place: (place / "server.py").chmod(0o600), False),
        (lambda place: (place.parent / ".1.1.0.json").write_text("{"), True),
    ],
)
def test_a_release_that_is_not_as_it_was_made(site: Path, harm: Callable[[Path], Any], again: bool) -> None:
    given = {"root": str(site), "source": str(packed(site.parent / "a.tar"))}
    carry_out(**given)
    harm(site / "releases/1.1.0")
    if again:
        with pytest.raises(ArtefactError, match="it must not be made live"):
            carry_out(root=str(site), state="live")
        assert os.readlink(site / "current") == "releases/1.0.0"
    assert carry_out(**given).changed is again
    assert carry_out(root=str(site), state="live").changed


def test_a_directory_that_somebody_else_has_put_there(site: Path) -> None:
    place = site / "releases/1.1.0"
    place.mkdir()
    (place / "server.py").write_text("print(1)\n")
    with pytest.raises(ArtefactError, match="was not made or finished"):
        carry_out(root=str(site), state="live")
    with pytest.raises(ArtefactError, match="it was left alone"):
        carry_out(root=str(site), source=str(packed(site.parent / "a.tar")))
    assert carry_out(root=str(site)).changed, "taken as it is when it has no source"
    (place / "server.py").write_text("print(2)\n")
    with pytest.raises(ArtefactError, match=r"is not as it was made: server\.py"):
        carry_out(root=str(site))


def test_links_and_programs_of_a_new_release(site: Path) -> None:
    place = site / "releases/1.1.0"
    programs = [["sh", "-c", 'echo "$WORD" > built'], ["python3", "-c", "import os; os.mkdir('dist')"]]
    shared = {".env": "/srv/shared/.env", "var/up": "../x"}
    given = {"root": str(site), "source": str(packed(site.parent / "a.tar"))}
    carry_out(**given, shared=shared, commands=programs, environment={"WORD": 7})
    assert (place / "built").read_text() == "7\n" and (place / "dist").is_dir()
    assert (os.readlink(place / ".env"), os.readlink(place / "var/up")) == ("/srv/shared/.env", "../x")
    assert json.loads((site / "releases/.1.1.0.json").read_text())["files"][".env"] == "link:/srv/shared/.env"


@pytest.mark.parametrize(
    ("there", "keep", "protect", "gone"),
    [
        ([], 3, [], []),
        (["1", "2", "3"], 3, [], []),
        (["1", "2", "3", "4", "5"], 3, [], ["1", "2"]),
        (["1", "2", "3", "4", "5"], 3, ["1"], ["2", "3"]),
        (["1", "2", "3", "4", "5"], 3, ["1", "2", "3", "4"], ["5"]),
        (["1", "2", "3"], 1, ["1", "2", "3"], []),
        (["1", "2", "3"], 0, [], ["1", "2"]),
        (["1", "2"], -5, ["", "9"], ["1"]),
    ],
)
def test_what_is_more_than_is_to_be_kept(there: list[str], keep: int, protect: list[str], gone: list[str]) -> None:
    assert artefact.surplus(there, keep, protect) == gone


def test_what_runs_and_what_was_not_made_here_is_never_removed(site: Path) -> None:
    (site / "releases/by-hand").mkdir()
    source = str(packed(site.parent / "a.tar"))
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        carry_out(root=str(site), source=source, version=version)
    given = {"root": str(site), "state": "absent", "version": None, "keep": 1, "protect": ["1.2.0"]}
    assert carry_out(True, **given).removed == ["1.1.0", "1.3.0"]
    assert carry_out(**given).removed == ["1.1.0", "1.3.0"]
    assert [name for name in names(site) if name[0] != "."] == ["1.0.0", "1.2.0", "by-hand"]
    assert not carry_out(**given).changed
    for version, why in (("1.0.0", "is live"), ("1.2.0", "is protected")):
        with pytest.raises(ArtefactError, match=why):
            carry_out(root=str(site), state="absent", version=version, protect=["1.2.0"])


def test_nothing_is_live_after_a_first_release_that_has_failed(site: Path) -> None:
    other = carry_out(state="not_live", root=str(site), version="1.1.0")
    assert not other.changed and (site / "current").is_symlink()
    planned = carry_out(check_mode=True, state="not_live", root=str(site), version="1.0.0")
    assert planned.changed and planned.live == {} and (site / "current").is_symlink()
    done, again = (carry_out(state="not_live", root=str(site), version="1.0.0") for _unused in range(2))
    assert (done.changed, again.changed, done.live) == (True, False, {})
    assert names(site) == ["1.0.0"] and not os.path.lexists(site / "current")


def test_a_directory_in_the_place_of_the_link(site: Path) -> None:
    (site / "current").unlink()
    (site / "current").mkdir()
    with pytest.raises(ArtefactError, match="is not a symbolic link"):
        carry_out(root=str(site))


ID, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Docker:
    """Answers as the client of Docker 28 does, for images that it has been told of: tags and what can be loaded."""

    def __init__(self, tags: dict[str, str], loads: str = "", pulls: str = "") -> None:
        self.tags, self.loads, self.pulls = tags, loads, pulls
        self.digests: dict[str, str] = {}

    def __call__(self, argv: Sequence[str], **_unused: Any) -> Result:
        code, out, verb = 0, "", argv[1]
        if verb == "image" and argv[2] == "inspect":
            known = {**self.tags, **self.digests, **{one: one for one in (*self.tags.values(), *self.digests.values())}}
            found = known.get(argv[-1])
            if found is None:
                return Result(tuple(argv), 1, "\n", f"Error response from daemon: No such image: {argv[-1]}\n", 0)
            tags = [tag for tag, one in self.tags.items() if one == found]
            out = json.dumps({"Id": found, "RepoTags": tags, "RepoDigests": [*self.digests]})
        elif verb == "image" and argv[2] == "ls":
            out = "".join(f"{tag.rpartition(':')[2]}\t2026-11-0{day}\n" for day, tag in enumerate(self.tags, 1))
        elif verb == "image" and argv[2] == "rm":
            del self.tags[argv[-1]]
        elif verb == "tag":
            self.tags[argv[3]] = argv[2]
        elif verb == "load":
            self.tags["loaded:x"] = self.loads
        elif verb == "pull":
            self.digests[argv[-1]] = self.pulls
        return Result(tuple(argv), code, out, "", 0)


def test_an_image_is_pulled_made_live_and_kept(tmp_path: Path) -> None:
    docker = Docker({"shop:1.0.0": OTHER, "shop:current": OTHER}, pulls=ID)

    def call(**given: Any) -> Outcome:
        return artefact_work.make(options(kind="image", source="shop", **given), docker).carry_out(check_mode=False)

    with pytest.raises(ArtefactError, match="prepare it first"):
        call(state="live", checksum=ID)
    made = call(checksum=ID)
    assert (made.changed, made.artefact) == (True, ID)
    assert dict(made.live) == {"version": "1.0.0", "artefact": OTHER}
    assert not call(checksum=ID).changed
    assert dict(call(state="live", checksum=ID).live) == {"version": "1.1.0", "artefact": ID}
    assert call(state="absent", version=None, keep=1, protect=["1.0.0"]).removed == []
    assert call(state="live", version=None, artefact=OTHER).changed
    assert call(state="absent", version=None, keep=1).removed == ["1.1.0"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "an image needs its digest"),
        ({"checksum": "latest"}, "an image needs its digest"),
        ({"checksum": ID, "archive": "/none.tar"}, "/none.tar is not there"),
        ({"checksum": ID, "archive": __file__}, "has no image with the digest"),
        ({"checksum": ID, "source": "--help"}, "is no name of an image"),
    ],
)
def test_an_image_that_is_another_one_gets_no_tag(given: dict[str, Any], sentence: str) -> None:
    docker = Docker({"shop:current": OTHER}, loads=OTHER)
    with pytest.raises(ArtefactError, match=sentence):
        artefact_work.make(options(kind="image", **{"source": "shop", **given}), docker).carry_out(check_mode=False)
    assert "shop:1.1.0" not in docker.tags and docker.tags["shop:current"] == OTHER
