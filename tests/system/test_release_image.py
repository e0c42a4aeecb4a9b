# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of Docker that a unit of systemd runs: released, refused, taken back. On one more host than the lab has."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import SYSTEMD
from tests.system.conftest import Lab, call

pytestmark = [pytest.mark.soak, pytest.mark.capability("B1", "B4", "B6")]

SERVER = """
import http.server, json, pathlib
version = pathlib.Path("/VERSION").read_text()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"version": version}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Handler).serve_forever()
"""
#: The image holds the program only; Python is that of the machine with the engine.
UNIT = """
[Service]
ExecStartPre=-/opt/docker rm --force NAME
ExecStart=/opt/docker run --rm --init --name NAME --network=container:HOST --volume=/usr:/usr:ro NAME:current \
/usr/bin/python3 /server.py
"""
#: The last one ends at once.
VERSIONS = {"1.0.0": SERVER, "1.1.0": SERVER, "1.2.0": "raise SystemExit('no database')"}


def pack(version: str, program: str, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name, text in (("VERSION", version), ("server.py", program)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o644
            archive.addfile(member, io.BytesIO(text.encode()))
        for name in ("bin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(link)


class Shop:
    """A host with systemd and the client of the engine that runs the lab, and the images that it is given."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.host = lab.container("image1")
        self.name = f"{lab.prefix}-shop"
        self.identifiers: dict[str, str] = {}
        self.inventory = directory / "hosts.yml"
        self.inventory.write_text(
            json.dumps({"all": {"hosts": {"image1": {"ansible_host": self.host, "ansible_connection": "node"}}}})
        )

    def docker(self, *argv: str) -> str:
        done = call(["docker", *argv])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self, directory: Path) -> None:
        client = shutil.which("docker")
        mounts = ["--volume=/var/run/docker.sock:/var/run/docker.sock", f"--volume={client}:/opt/docker:ro"]
        # of Debian 13, whose C library serves a client of either release
        image = self.lab.status()["app2"]["image"]
        argv = ["--detach", f"--name={self.host}", "--hostname=image1", "--network=none", *SYSTEMD, *mounts]
        self.docker("run", *argv, image, "/lib/systemd/systemd")
        self.lab.exec("image1", ["ln", "-s", "/opt/docker", "/usr/local/bin/docker"])
        for version, program in VERSIONS.items():
            pack(version, program, directory / "tree.tar")
            self.identifiers[version] = self.docker("import", str(directory / "tree.tar"), f"{self.name}:build")
            self.docker("save", "--output", str(directory / "image.tar"), f"{self.name}:build")
            self.docker("image", "rm", f"{self.name}:build")
            self.docker("cp", str(directory / "image.tar"), f"{self.host}:/root/shop-{version}.tar")
        unit = UNIT.replace("NAME", self.name).replace("HOST", self.host)
        self.lab.write("image1", "/etc/systemd/system/shop.service", unit)
        self.lab.exec("image1", ["systemctl", "daemon-reload"])

    def remove(self) -> None:
        call(["docker", "rm", "--force", "--volumes", self.name, self.host])
        images = call(["docker", "image", "ls", "-q", self.name]).stdout.split()
        if images:
            call(["docker", "image", "rm", "--force", *images])

    def play(self, playbook: str, service: dict[str, str], **variables: Any) -> tuple[int, str]:
        shop: dict[str, Any] = {
            "hosts": "image1",
            "artefact": {"kind": "image", "source": self.name, "archive": "/root/shop-<version>.tar"},
            "service": {"name": "shop", "ready": ["http://127.0.0.1:9000/health"], "timeout": 20, "watch": 3},
            "address": "http://127.0.0.1:9000",
            "requests": [{"path": "/health", "matches": '"version": *"<version>"'}],
        }
        shop["service"].update(service)
        given = {"release_application": "shop", "release_applications": {"shop": shop}, **variables}
        words = [f"worklog.maintenance.{playbook}", "-e", json.dumps(given)]
        done = self.lab.playbook(*words, inventory=self.inventory)
        return done.returncode, done.stdout + done.stderr

    def release(self, version: str, checksum: str = "", manager: str = "", **more: str) -> tuple[int, str]:
        checksum = checksum or self.identifiers[version]
        service = {"manager": manager} if manager else {}
        return self.play("upgrade_in_place", service, release_version=version, release_checksum=checksum, **more)

    def answers(self) -> str:
        asked = ["curl", "--silent", "--max-time", "5", "http://127.0.0.1:9000/health"]
        return str(json.loads(self.lab.exec("image1", asked).stdout)["version"])


@pytest.fixture
def shop(lab: Lab, tmp_path: Path) -> Iterator[Shop]:
    found = Shop(lab, tmp_path)
    found.remove()
    try:
        found.start(tmp_path)
        yield found
    finally:
        found.remove()


def test_an_image_is_released_refused_and_taken_back(shop: Shop) -> None:
    code, output = shop.release("1.0.0", manager="docker")
    assert code != 0 and "a container that is restarted keeps its image" in " ".join(output.split()), output

    code, output = shop.release("1.2.0")
    assert code != 0 and "As before: image1 runs nothing" in " ".join(output.split()), output
    assert shop.docker("image", "ls", "-q", f"{shop.name}:current") == "", "the first one has failed, so none is live"
    active = shop.lab.exec("image1", ["systemctl", "is-active", "shop"], check=False).stdout.strip()
    assert active in ("inactive", "failed"), active

    code, output = shop.release("1.0.0")
    assert code == 0, output
    assert shop.answers() == "1.0.0"

    code, output = shop.release("1.1.0", "sha256:" + "0" * 64)
    assert code != 0 and "has no image with the digest" in " ".join(output.split()), output
    assert shop.answers() == "1.0.0"

    code, output = shop.release("1.1.0")
    assert code == 0, output
    assert shop.answers() == "1.1.0"

    code, output = shop.release("1.2.0", release_accept_bad="1.2.0")
    assert code != 0 and "no database" in output, output
    assert shop.answers() == "1.1.0", "taken back by itself"
    code, output = shop.release("1.2.0")
    assert code != 0 and "known as bad" in " ".join(output.split()), output

    code, output = shop.play("rollback", {}, release_reason="the shop is slow")
    assert code == 0, output
    assert shop.answers() == "1.0.0"
    current = shop.docker("image", "inspect", "--format", "{{.Id}}", f"{shop.name}:current")
    assert current == shop.identifiers["1.0.0"]
