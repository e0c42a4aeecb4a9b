# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source of npm packages for a node of the lab: three tiny packages, and what is known of their vulnerabilities.

It speaks what npm asks for: packuments, tarballs, and the bulk endpoint for advisories. What is published stands in a
JSON file that is read for every request, so that a test can publish a version, or an advisory, while it runs:

    {"versions": {"lab-format": ["1.0.0", "1.1.0"]}, "advisories": true, "token": "", "delay": 0}
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import http.server
import io
import json
import tarfile
import time
import urllib.parse
from pathlib import Path
from typing import Any

GREET = "module.exports = name => `hello ${name}`\n"
FORMAT = "module.exports = text => text.toUpperCase()\n"
#: What the test of an application does not see: it ends the server soon after it is up.
DIES = FORMAT + "if (/server\\.js$/.test(require.main.filename)) setTimeout(() => process.exit(3), 1500)\n"
SCRIPT = {"install": "node -e \"require('fs').writeFileSync('installed.txt', String(process.getuid()))\""}

#: The source of every version, its dependencies and its scripts.
PACKAGES: dict[str, dict[str, tuple[str, dict[str, str], dict[str, str]]]] = {
    "lab-greet": {
        "1.0.0": (GREET, {"lab-format": "^1.0.0"}, {}),
        "1.1.0": (GREET, {"lab-format": "^1.0.0"}, {}),
        "2.0.0": (GREET, {}, {}),
    },
    "lab-format": {
        "1.0.0": (FORMAT, {}, {}),
        "1.1.0": (FORMAT, {}, {}),
        "1.2.0": ("module.exports = text => text.toLowerCase()\n", {}, {}),  # the application's test fails
        "1.3.0": (DIES, {}, {}),
    },
    "lab-script": {"1.0.0": ("module.exports = 1\n", {}, {}), "1.0.1": ("module.exports = 1\n", {}, SCRIPT)},
}
ADVISORIES: dict[str, list[dict[str, Any]]] = {
    "lab-greet": [
        {
            "id": 9000001,
            "url": "https://github.com/advisories/GHSA-lab1-gree-t100",
            "title": "lab-greet runs what it is told to greet",
            "severity": "high",
            "vulnerable_versions": "<1.1.0",
            "cwe": ["CWE-78"],
            "cvss": {"score": 8.1, "vectorString": "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:H/A:H"},
        }
    ]
}


def tarball(name: str, version: str) -> bytes:
    """Return the package; equal bytes every time, as its hash stands in lock files."""
    source, dependencies, scripts = PACKAGES[name][version]
    manifest = {"name": name, "version": version, "main": "index.js", "dependencies": dependencies, "scripts": scripts}
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for path, text in (("package.json", json.dumps(manifest)), ("index.js", source)):
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from the tables above."""

    published: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        published = self.begin()
        parts = [urllib.parse.unquote(part) for part in self.path.strip("/").split("/")]
        name = parts[0]
        versions = published["versions"].get(name)
        if published.get("token") and self.headers.get("Authorization") != f"Bearer {published['token']}":
            self.answer(401, {"error": "a token is needed"})
        elif not versions:
            self.answer(404, {"error": f"there is no {name}"})
        elif len(parts) == 1:
            self.answer(200, self.packument(name, versions))
        else:
            self.send(200, tarball(name, parts[-1].removeprefix(f"{name}-").removesuffix(".tgz")), "application/gzip")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        published = self.begin()
        if not published.get("advisories") or not self.path.endswith("/security/advisories/bulk"):
            self.answer(404, {"error": "there are no advisories here"})
        else:
            self.answer(200, {name: ADVISORIES[name] for name in json.loads(body) if name in ADVISORIES})

    def begin(self) -> dict[str, Any]:
        published: dict[str, Any] = json.loads(self.published.read_text(encoding="utf-8"))
        time.sleep(published.get("delay", 0))
        return published

    def packument(self, name: str, versions: list[str]) -> dict[str, Any]:
        found = {}
        for version in versions:
            content = tarball(name, version)
            _source, dependencies, scripts = PACKAGES[name][version]
            found[version] = {
                "name": name, "version": version, "main": "index.js", "dependencies": dependencies,
                "scripts": scripts, "hasInstallScript": bool(scripts),
                "dist": {
                    "tarball": f"http://{self.headers['Host']}/{name}/-/{name}-{version}.tgz",
                    "shasum": hashlib.sha1(content).hexdigest(),
                    "integrity": "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode(),
                },
            }  # fmt: skip
        return {"name": name, "dist-tags": {"latest": versions[-1]}, "versions": found}

    def answer(self, status: int, value: Any) -> None:
        self.send(status, json.dumps(value).encode(), "application/json")

    def send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=4873)
    parser.add_argument("--published", type=Path, required=True, help="the file that says what is published")
    options = parser.parse_args()
    Handler.published = options.published
    http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
