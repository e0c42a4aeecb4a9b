# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The low-code platform of app1 with packages of a registry that runs there too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "lab" / "registry"
HOME = "/opt/registry"
ADDRESS = "http://127.0.0.1:4873/"
CURRENT = "/srv/lowcode/current"

#: Everything below a directory by path: what it is, its mode, owner and content or target.
DIGEST = """
import hashlib, json, os, sys
found = {}
for directory, names, others in os.walk(sys.argv[1]):
    for name in (*names, *others):
        path = os.path.join(directory, name)
        status = os.lstat(path)
        what = os.readlink(path) if os.path.islink(path) else (
            hashlib.sha256(open(path, "rb").read()).hexdigest() if os.path.isfile(path) else "directory")
        found[os.path.relpath(path, sys.argv[1])] = [status.st_mode, status.st_uid, status.st_gid, what]
print(json.dumps(found))
"""


class Platform:
    """The application and its registry."""

    node = "app1"

    def __init__(self, lab: Any) -> None:
        self.lab = lab

    def up(self) -> None:
        self.lab.exec(self.node, ["mkdir", "-p", HOME])
        for name in ("registry.py", "application.py"):
            self.lab.write(self.node, f"{HOME}/{name}", (SOURCE / name).read_text(encoding="utf-8"))
        self.lab.exec(self.node, ["python3", f"{HOME}/application.py", "up"])

    def down(self) -> None:
        self.lab.exec(self.node, ["python3", f"{HOME}/application.py", "down"])

    def publish(self, **options: Any) -> None:
        """Publish versions of lab-greet and lab-format; further options are those of registry.py."""
        versions = {f"lab-{name}": options.pop(name) for name in ("greet", "format", "script") if name in options}
        content = {"versions": {"lab-script": ["1.0.0"], **versions}, "advisories": True, **options}
        self.lab.write(self.node, f"{HOME}/published.json", json.dumps(content))

    def tree(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lab.exec(self.node, ["python3", "-c", DIGEST, path]).stdout)
        return found

    def target(self) -> str:
        return str(self.lab.exec(self.node, ["readlink", CURRENT]).stdout.strip())

    def releases(self) -> list[str]:
        names: list[str] = self.lab.exec(self.node, ["ls", "-A", "/srv/lowcode/releases"]).stdout.split()
        return [name for name in names if "3.0.0" in name]

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.lab.wait_for(self.node, 3002))
        return answer

    def pid(self) -> int:
        return int(json.loads(self.lab.request(self.node, 3002, "/whoami")[1])["pid"])

    def versions(self) -> dict[str, str]:
        """The versions that the running release has installed."""
        names = ("lab-greet", "lab-format")
        return {
            name: json.loads(self.lab.read(self.node, f"{CURRENT}/node_modules/{name}/package.json"))["version"]
            for name in names
        }
