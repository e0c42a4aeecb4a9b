# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""release_artefact and release_state on a node: real signatures, tags and images, a disk that is full, kill -9."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Lab, Restore, call

ROOT = Path(__file__).resolve().parents[2]
MODULES = "ansible_collections.worklog.maintenance.plugins.modules"
SITE = "/srv/artefacts"
KEYS = f"{SITE}/keys.gpg"

#: Two archives and a repository with two tags; a key that is trusted and one that is not.
PREPARE = r"""
set -eu
mkdir -p /srv/artefacts/in && cd /srv/artefacts/in
export GNUPGHOME=/srv/artefacts/gnupg HOME=/srv/artefacts
mkdir -m 700 $GNUPGHOME
for name in build stranger; do
    gpg --batch --quiet --passphrase '' --quick-generate-key $name@example.test ed25519 sign never
done
gpg --export build@example.test > ../keys.gpg
mkdir tree && echo 'print(1)' > tree/server.py && head -c 200000 /dev/urandom > tree/asset
tar -C tree -czf app-1.0.0.tar.gz . && tar -C tree --zstd -cf app-1.1.0.tar.zst .
sha256sum app-* > SHA256SUMS
for name in build stranger; do
    gpg --batch --quiet --local-user $name@example.test --output $name.asc --armor --detach-sign SHA256SUMS
done
cp SHA256SUMS CHANGED && sed -i 's/^./x/' CHANGED
head -c 60000000 /dev/urandom > tree/asset && tar -C tree -cf app-2.0.0.tar .

mkdir dependency repository
echo '{"name": "dependency", "version": "1.0.0", "main": "index.js"}' > dependency/package.json
echo 'module.exports = 42' > dependency/index.js
cd repository && mkdir vendor
npm pack --silent --offline --pack-destination vendor ../dependency
cat > package.json <<'END'
{"name": "app", "version": "1.0.0", "dependencies": {"dependency": "file:vendor/dependency-1.0.0.tgz"},
 "scripts": {"build": "node -e \"require('fs').writeFileSync('built', String(require('dependency')))\""}}
END
npm install --silent --offline --package-lock-only
git init --quiet . && git config user.name t && git config user.email t@example.test && git config gpg.program gpg
git add . && git commit --quiet -m one
git tag -u build@example.test -m one v1.0.0
git tag -u stranger@example.test -m two v1.1.0
git tag -a -m three v1.2.0
# a good signature under the name of another version
git cat-file tag v1.0.0 | git hash-object -t tag -w --stdin > /dev/null
git update-ref refs/tags/v1.3.0 v1.0.0
git bundle create --quiet ../app.bundle --tags
git rev-parse HEAD > ../commit
"""


class Node:
    """app1 with the modules on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def command(self, module: str, options: dict[str, Any]) -> list[str]:
        container = self.lab.container("app1")
        given = json.dumps({"ANSIBLE_MODULE_ARGS": options})
        environment = ["--env", f"PYTHONPATH={self.lab.library('app1')}", "--env", f"GIVEN={given}"]
        return ["docker", "exec", *environment, container, "sh", "-c", f'echo "$GIVEN" | python3 -m {MODULES}.{module}']

    def run(self, module: str, **options: Any) -> dict[str, Any]:
        return self.lab.module("app1", module, **options)

    def artefact(self, **options: Any) -> dict[str, Any]:
        return self.run("release_artefact", **{"root": f"{SITE}/app", "version": "1.0.0", **options})

    def sh(self, script: str) -> str:
        return self.lab.exec("app1", ["sh", "-c", script]).stdout

    def releases(self) -> list[str]:
        return self.sh(f"ls -A {SITE}/app/releases 2>/dev/null || true").split()


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    steps, one = Restore(lab), Node(lab)
    steps.path("app1", SITE)
    try:
        lab.exec("app1", ["sh", "-c", PREPARE], timeout=120)
        yield one
    finally:
        one.sh(f"GNUPGHOME={SITE}/gnupg gpgconf --kill all")
        steps.undo()


@pytest.fixture
def site(node: Node) -> Node:
    """No release yet."""
    node.sh(f"rm -rf {SITE}/app")
    return node


IN = f"{SITE}/in"
SIGNED = {"checksums": f"{IN}/SHA256SUMS", "signature": f"{IN}/build.asc", "keyring": KEYS}
GIT = {"kind": "git", "source": f"{IN}/app.bundle", "keyring": KEYS}


@pytest.mark.capability("B6")
def test_only_what_a_trusted_key_has_signed_is_unpacked(site: Node) -> None:
    source = f"{IN}/app-1.0.0.tar.gz"
    for proof, sentence in (
        ({"signature": f"{IN}/stranger.asc"}, "no good signature"),
        ({"checksums": f"{IN}/CHANGED"}, "BADSIG"),
        ({"keyring": f"{IN}/none.gpg"}, "none.gpg is not there"),
        ({"checksum": "0" * 64}, "is not what checksum says"),
    ):
        refused = site.artefact(source=source, **{**SIGNED, **proof})
        assert refused.get("failed") and sentence in refused["msg"], refused
        assert site.releases() == [], proof
    given = {"root": f"{SITE}/app", "version": "1.0.0", "source": source}
    unproven = site.lab.module("app1", "release_artefact", "--check", **given)
    assert unproven["changed"] and "nothing proves that" in str(unproven["warnings"]), unproven
    made = site.artefact(source=source, **SIGNED)
    assert made["changed"] and len(made["proof"]) == 2 and "warnings" not in made, made
    assert not site.artefact(source=source, **SIGNED)["changed"]
    assert site.artefact(source=f"{IN}/app-1.1.0.tar.zst", version="1.1.0", **SIGNED)["changed"]
    assert site.artefact(state="live", version="1.1.0")["live"]["version"] == "1.1.0"
    assert site.sh(f"cat {SITE}/app/current/server.py") == "print(1)\n"


@pytest.mark.capability("B6")
def test_a_tag_from_a_bundle_is_proven_and_built_as_the_user_of_the_application(site: Node) -> None:
    commit = site.sh(f"cat {IN}/commit").strip()
    for given, sentence in (
        ({"version": "1.1.0"}, "no good signature"),
        ({"version": "1.2.0"}, "the tag v1.2.0 is not signed"),
        ({"version": "1.3.0"}, "the signature is not of the tag v1.3.0"),
        ({"version": "9.9.9"}, "v9.9.9"),
        ({"checksum": "0" * 40}, f"is the commit {commit}, not"),
    ):
        refused = site.artefact(**{**GIT, **given})
        assert refused.get("failed") and sentence in refused["msg"], refused
        assert site.releases() == []
    made = site.artefact(
        **GIT, checksum=commit, owner="lowcode", shared={".env": "/srv/lowcode/shared/.env"},
        commands=[["npm", "ci", "--offline", "--no-audit"], ["npm", "run", "build"], ["sh", "-c", "id -un > who"]],
    )  # fmt: skip
    assert made.get("changed") and len(made["proof"]) == 2, made
    place = f"{SITE}/app/releases/1.0.0"
    assert site.sh(f"cat {place}/built {place}/who") == "42lowcode\n"
    assert site.sh(f"stat -c %U {place} {place}/package.json {place}/node_modules").split() == ["lowcode"] * 3
    assert site.sh(f"ls -A {place}/.git 2>/dev/null | wc -l").strip() == "0"


@pytest.mark.capability("B6")
def test_a_full_disk_leaves_what_was_there(site: Node) -> None:
    site.sh(f"mkdir {SITE}/app && mount -t tmpfs -o size=1m none {SITE}/app")
    try:
        assert site.artefact(source=f"{IN}/app-1.0.0.tar.gz")["changed"]
        assert site.artefact(state="live")["changed"]
        refused = site.artefact(source=f"{IN}/app-2.0.0.tar", version="2.0.0")
        assert refused.get("failed") and "make room there, nothing was changed" in refused["msg"], refused
        assert site.releases() == [".1.0.0.json", "1.0.0"]

        kept = {"application": "app", "directory": f"{SITE}/app/state", "id": "run", "owner": "me"}
        assert site.run("release_state", **kept, action="begin", version="2.0.0", found={})["changed"]
        before = site.sh(f"cat {SITE}/app/state/app.json")
        site.sh(f"dd if=/dev/zero of={SITE}/app/filler bs=4k 2>/dev/null || true")
        refused = site.run("release_state", **kept, action="step", step="drain" + "x" * 9000)
        assert refused.get("failed") and "it is as it was" in refused["msg"], refused
        assert site.sh(f"cat {SITE}/app/state/app.json") == before
    finally:
        site.sh(f"umount {SITE}/app")


@pytest.mark.capability("B6")
def test_a_run_that_is_killed_is_completed_by_the_next_one(site: Node) -> None:
    given = {"source": f"{IN}/app-2.0.0.tar", "version": "2.0.0"}
    site.artefact(source=f"{IN}/app-1.0.0.tar.gz")
    site.artefact(state="live")
    chance, caught = random.Random(7), set()
    for _unused in range(6):
        with subprocess.Popen(site.command("release_artefact", {"root": f"{SITE}/app", **given})) as process:
            deadline = time.monotonic() + 120
            while not (seen := [name for name in site.releases() if "2.0.0" in name]) and time.monotonic() < deadline:
                pass
            time.sleep(chance.random() * 0.25)
            site.sh("pkill -9 -f '^python3 -m .*release_artefact' || true")
            process.wait(timeout=120)
        seen = [name for name in site.releases() if "2.0.0" in name]
        caught.update(seen)
        assert "2.0.0" not in seen or ".2.0.0.json" in seen, "never a release without its list"
        live = site.artefact(state="live", version="2.0.0")
        if "2.0.0" not in seen:
            assert live.get("failed"), "half a release is never made live"
            break
        site.artefact(state="live", version="1.0.0")
        site.artefact(state="absent", version="2.0.0")
    assert ".2.0.0.partial" in caught, "no run was killed in the middle"
    assert site.artefact(**given)["changed"] and site.artefact(state="live", version="2.0.0")["changed"]
    assert site.releases() == [".1.0.0.json", ".2.0.0.json", "1.0.0", "2.0.0"]


@pytest.mark.capability("B6")
def test_an_image_is_loaded_by_its_identifier_and_made_live_by_its_tag(lab: Lab, tmp_path: Path) -> None:
    """On the engine that runs the lab, since no node has one."""
    name, versions = f"{lab.prefix}-shop", ("1.0.0", "1.1.0")
    identifiers = {}
    try:
        for version in versions:
            (tmp_path / "VERSION").write_text(version, encoding="utf-8")
            packed = tmp_path / f"{version}.tree.tar"
            assert call(["tar", "-C", str(tmp_path), "-cf", str(packed), "VERSION"]).returncode == 0
            identifiers[version] = call(["docker", "import", str(packed), f"{name}:build"]).stdout.strip()
            archive = str(tmp_path / f"{version}.tar")
            assert call(["docker", "save", "--output", archive, f"{name}:build"]).returncode == 0
            assert call(["docker", "image", "rm", f"{name}:build"]).returncode == 0

        def run(**given: Any) -> dict[str, Any]:
            return lab.module("localhost", "release_artefact", kind="image", source=name, **given)

        archive = str(tmp_path / "1.0.0.tar")
        wrong = run(version="1.0.0", archive=archive, checksum=identifiers["1.1.0"])
        assert "has no image with the digest" in wrong["msg"], wrong
        for version in versions:
            archive = str(tmp_path / f"{version}.tar")
            made = run(version=version, archive=archive, checksum=identifiers[version])
            assert made["changed"] and made["artefact"] == identifiers[version], made
            live = run(version=version, state="live")
            assert live["live"] == {"version": version, "artefact": identifiers[version]}, live
        assert not run(version="1.1.0", state="live")["changed"]
        assert run(state="absent", keep=1)["removed"] == ["1.0.0"]
        assert run(state="read")["live"] == {"version": "1.1.0", "artefact": identifiers["1.1.0"]}
    finally:
        tags = call(["docker", "image", "ls", "-q", name]).stdout.split()
        if tags:
            call(["docker", "image", "rm", "--force", *tags])
