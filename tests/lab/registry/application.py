# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the low-code platform of a node depend on the packages of registry.py, which must lie beside this file.

    python3 application.py up      start the registry, make and run the release 3.0.0 that uses it
    python3 application.py down    run the release 2.3.0 again and remove all of it

The packages that the platform needs anyway it finds in a directory above its release, so that the lock file has only
those of the registry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = Path("/srv/lowcode")
RELEASE = ROOT / "releases" / "3.0.0"
ADDRESS = "http://127.0.0.1:4873/"
TEST = """
const said = require('lab-format')(require('lab-greet')('x'))
if (said !== 'HELLO X') { console.error(`the greeting is wrong: ${said}`); process.exit(1) }
"""


def run(*argv: str, **environment: str) -> None:
    subprocess.run(argv, check=True, env={**os.environ, **environment}, cwd="/", stdout=subprocess.DEVNULL)


def publish(**versions: list[str]) -> None:
    published = {"versions": {f"lab-{name}": found for name, found in versions.items()}, "advisories": True}
    (HERE / "published.json").write_text(json.dumps(published), encoding="utf-8")


def wait(address: str) -> None:
    limit = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 404 and address == ADDRESS:
                return
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)


def restart() -> None:
    pm2 = ["env", "HOME=/home/lowcode", "PM2_HOME=/home/lowcode/.pm2", "pm2", "restart", "lowcode-platform"]
    run("setpriv", "--reuid=lowcode", "--regid=lowcode", "--init-groups", *pm2)
    wait("http://127.0.0.1:3002/health")


def link(target: str) -> None:
    run("ln", "-sfn", target, str(ROOT / "current"))


def up() -> None:
    publish(greet=["1.0.0"], format=["1.0.0"], script=["1.0.0"])
    program = ["/usr/bin/python3", str(HERE / "registry.py"), "--published", str(HERE / "published.json")]
    run("systemd-run", "--quiet", "--collect", "--unit=lab-registry", *program)
    shutil.copytree(ROOT / "releases" / "2.3.0", RELEASE, symlinks=True)
    (RELEASE / "node_modules").unlink()
    (ROOT / "node_modules").symlink_to("shared/node_modules")
    manifest = {
        "name": "lowcode-platform", "version": "3.0.0", "private": True, "scripts": {"test": "node test.js"},
        "dependencies": {"lab-greet": "^1.0.0", "lab-format": "^1.0.0", "lab-script": "^1.0.0"},
    }  # fmt: skip
    (RELEASE / "package.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    (RELEASE / "package-lock.json").unlink()
    (RELEASE / "test.js").write_text(TEST, encoding="utf-8")
    program_text = (RELEASE / "server.js").read_text(encoding="utf-8")
    (RELEASE / "server.js").write_text(f"require('lab-greet'); require('lab-format')\n{program_text}", encoding="utf-8")
    wait(ADDRESS)
    install = ["npm", "install", "--prefix", str(RELEASE), "--ignore-scripts", "--no-audit", "--no-fund"]
    run(*install, npm_config_registry=ADDRESS, npm_config_cache=str(HERE / "cache"), npm_config_update_notifier="false")
    link("releases/3.0.0")
    restart()


def down() -> None:
    subprocess.run(["systemctl", "stop", "lab-registry"], check=False, stderr=subprocess.DEVNULL)
    link("releases/2.3.0")
    restart()
    for path in (*ROOT.glob("releases/3.0.0*"), *ROOT.glob("releases/.3.0.0*"), Path("/home/lowcode/.npm")):
        shutil.rmtree(path, ignore_errors=True)
    (ROOT / "node_modules").unlink(missing_ok=True)
    shutil.rmtree(HERE)


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]]()
