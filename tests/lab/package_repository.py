# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a signed apt repository of small packages, good and bad ones, for the tests of patching.

python3 tests/lab/package_repository.py DIRECTORY VERSION...

DIRECTORY then holds `repository`, to be copied to a node, and `wl.list`, its line of apt's sources. Each VERSION is one
of wl-demo in `VERSIONS`. The key is made once and lies outside of `repository`. Needs dpkg-deb and gpg.
"""

from __future__ import annotations

import concurrent.futures
import email.utils
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: Where a node has the repository, and where package_apply keeps what it knows of its changes.
TARGET, STATE = "/srv/wl-repository", "/var/lib/worklog-maintenance/packages"
PORT = 9300
SOURCE = f"deb [signed-by={TARGET}/key.gpg] file:{TARGET} ./"

#: Have the repository that was copied as the only source; the node's own sources and their lists stay as they are.
SUPPLY = f"""
rm -rf {TARGET}
mv {TARGET}.new {TARGET}
mkdir -p /var/lib/apt/wl-lists/partial
echo '{SOURCE}' > /etc/apt/wl.list
cat > /etc/apt/apt.conf.d/99wl <<END
Dir::Etc::SourceList "/etc/apt/wl.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "/var/lib/apt/wl-lists/";
END
"""
#: Install 1.0, whatever is there, and forget what was recorded.
INSTALL = f"""
rm -rf {STATE} /run/reboot-required* /etc/wl-demo-bad /etc/wl-demo-fast /etc/wl-demo.conf.dpkg-dist
there=$(dpkg-query -W -f '${{db:Status-Abbrev}}${{Package}}=${{Version}}\n' 'wl-demo*' | grep -v ^un || true)
if [ "$there" = "ii wl-demo=1.0" ]; then exit; fi
dpkg --configure -a || true
apt-get -q update
apt-get -q -y --allow-downgrades -o Dpkg::Options::=--force-confnew install wl-demo=1.0 wl-demo-data-
"""
#: Leave nothing of it.
REMOVE = f"""
dpkg --purge wl-demo wl-demo-data
rm -rf {TARGET} {TARGET}.new {STATE} /run/reboot-required*
rm -rf /etc/apt/wl.list /etc/apt/apt.conf.d/99wl /var/lib/apt/wl-lists
"""

SERVER = """#!/usr/bin/python3
import http.server, os, sys, threading, time
{start}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status})
        self.end_headers()
        self.wfile.write(b"{version} " + open("/etc/wl-demo.conf", "rb").read())
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""

UNIT = """[Unit]
Description=What the tests of patching change
[Service]
ExecStart=/usr/lib/wl-demo/serve
Restart=always
RestartSec=0.5
[Install]
WantedBy=multi-user.target
"""

# It ends what uses it without waiting for requests under way: a host that is not out of the load balancer loses them.
POSTINST = """#!/bin/sh
set -e
systemctl daemon-reload
systemctl enable --quiet wl-demo.service
systemctl restart wl-demo.service || true
if systemctl is-active --quiet worklog-api.service; then
    systemctl kill --signal=KILL worklog-api.service
    systemctl restart worklog-api.service
fi
{more}
"""

PRERM = """#!/bin/sh
set -e
if [ "$1" = remove ]; then systemctl disable --quiet --now wl-demo.service; fi
"""

#: Packages by whose names it is known that they cannot go back: a database server, and the kernel that runs.
DATABASE, KERNEL = "mariadb-server-wl", f"linux-image-{os.uname().release}"

#: What each version of wl-demo has: what its server does when it starts, its HTTP status, the end of its postinst, its
#: dependencies, and the line of its configuration file.
GOOD = {"start": "", "status": 200, "more": "", "depends": "", "conf": "greeting=hello"}
VERSIONS: dict[str, dict[str, object]] = {
    "1.0": {},
    "1.1": {"depends": "wl-demo-data", "conf": "greeting=welcome"},
    "1.2": {"status": 500},
    "1.3": {"more": "if [ -e /etc/wl-demo-bad ]; then echo 'the schema cannot be changed' >&2; exit 1; fi"},
    "1.4": {"start": "sys.exit('it does not start')"},
    "1.5": {"start": "threading.Timer(3, lambda: os._exit(3)).start()"},
    "1.6": {"more": "touch /run/reboot-required; echo wl-demo >> /run/reboot-required.pkgs"},
    "1.7": {"depends": "", "conf": "greeting=welcome"},
    "1.8": {"more": "if [ ! -e /etc/wl-demo-fast ]; then sleep 20; fi"},
    "1.9": {"depends": f"{DATABASE} (>= 1.9)"},
    "1.10": {"depends": KERNEL},
}
CHANGELOG = """wl-demo ({version}) stable; urgency=medium

  * Fixes CVE-2026-1000{number}.

 -- Worklog Maintenance <maintenance@example.test>  {date}

wl-demo (0.9) stable; urgency=medium

  * Fixes CVE-2025-10000.

 -- Worklog Maintenance <maintenance@example.test>  Mon, 03 Nov 2025 10:00:00 +0000
"""


def run(argv: list[str], **options: object) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return str(done.stdout)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def package(directory: Path, name: str, version: str, control: str, files: dict[str, tuple[str, int]]) -> Path:
    """Build one package, unless that was done before."""
    target = directory / "packages" / f"{name}_{version}_all.deb"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    tree = directory / f"build-{name}-{version}"
    head = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Worklog <maintenance@example.test>\n"
    write(tree / "DEBIAN" / "control", f"{head}{control}Description: for the tests of patching\n")
    for path, (text, mode) in files.items():
        write(tree / path, text, mode)
    run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(target)])
    shutil.rmtree(tree)
    return target


def demo(directory: Path, version: str) -> Path:
    """Build a version of wl-demo."""
    made = {**GOOD, **VERSIONS[version]}
    text = CHANGELOG.format(version=version, number=version[-1], date=email.utils.formatdate(time.time() - 86400 * 10))
    depends = f"Depends: {made['depends']}\n" if made["depends"] else ""
    server = SERVER.format(start=made["start"], status=made["status"], version=version, port=PORT)
    return package(directory, "wl-demo", version, depends, {
        "usr/lib/wl-demo/serve": (server, 0o755),
        "usr/lib/systemd/system/wl-demo.service": (UNIT, 0o644),
        "etc/wl-demo.conf": (f"{made['conf']}\n", 0o644),
        "usr/share/doc/wl-demo/changelog": (text, 0o644),
        "DEBIAN/conffiles": ("/etc/wl-demo.conf\n", 0o644),
        "DEBIAN/postinst": (POSTINST.format(more=made["more"]), 0o755),
        "DEBIAN/prerm": (PRERM, 0o755),
    })  # fmt: skip


def publish(directory: Path, *packages: Path, signed: bool = True) -> None:
    """Make the repository with these packages and no others, write its indexes, and sign them."""
    repository = directory / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    repository.mkdir()
    index = ""
    for path in sorted(packages):
        shutil.copy(path, repository)
        content = path.read_bytes()
        index += run(["dpkg-deb", "-f", str(path)])
        index += f"Filename: ./{path.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n\n"
    (repository / "Packages").write_text(index, encoding="utf-8")
    (repository / "Packages.gz").write_bytes(gzip.compress(index.encode(), mtime=0))
    release = "Origin: Worklog-Security\nLabel: Worklog\nSuite: stable-security\nCodename: stable\nVersion: 1\n"
    release += (
        f"Date: {email.utils.formatdate(usegmt=True)}\nArchitectures: all amd64 arm64\nComponents: main\nSHA256:\n"
    )
    for name in ("Packages", "Packages.gz"):
        content = (repository / name).read_bytes()
        release += f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
    (repository / "Release").write_text(release, encoding="utf-8")
    home = directory.absolute() / "gnupg"
    environment = {**os.environ, "GNUPGHOME": str(home)}
    if not (directory / "key.gpg").exists():
        home.mkdir(mode=0o700, exist_ok=True)
        user = ["--passphrase", "", "--quick-generate-key", "wl <maintenance@example.test>", "rsa3072", "sign", "never"]
        run(["gpg", "--batch", "--quiet", *user], env=environment)
        run(["gpg", "--batch", "--output", str(directory / "key.gpg"), "--export"], env=environment)
    if signed:
        argv = [
            "gpg",
            "--batch",
            "--quiet",
            "--digest-algo",
            "SHA512",
            "--clearsign",
            "--output",
            "InRelease",
            "Release",
        ]
        run(argv, env=environment, cwd=repository)
        run(["gpgconf", "--kill", "all"], env=environment)
    write(directory / "wl.list", f"{SOURCE}\n")
    shutil.copy(directory / "key.gpg", repository / "key.gpg")


def make(directory: Path, *versions: str, signed: bool = True) -> None:
    """Make the repository with these versions and no others."""
    data = package(directory, "wl-demo-data", "1.0", "", {"usr/share/wl-demo/data": ("data\n", 0o644)})
    more = [(DATABASE, "1.0"), (DATABASE, "1.9")] * ("1.9" in versions) + [(KERNEL, "1.0")] * ("1.10" in versions)
    needed = [package(directory, name, version, "", {}) for name, version in more]
    publish(directory, data, *needed, *(demo(directory, version) for version in versions), signed=signed)


def offer(directory: Path, containers: Sequence[str], *versions: str, signed: bool = True) -> None:
    """Have the repository of nodes hold these versions and no others, as their only source of packages."""
    make(directory, *versions, signed=signed)
    each(containers, lambda one: run(["docker", "cp", "--quiet", f"{directory}/repository/.", f"{one}:{TARGET}.new"]))
    shell(containers, SUPPLY)


def shell(containers: Sequence[str], script: str) -> None:
    """Run a shell script in nodes, all at once."""
    each(containers, lambda one: run(["docker", "exec", one, "sh", "-ec", script]))


def each(containers: Sequence[str], work: Callable[[str], object]) -> None:
    """Do something with nodes, all at once."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(work, containers))


if __name__ == "__main__":
    make(Path(sys.argv[1]), *sys.argv[2:])
