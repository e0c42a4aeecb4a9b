# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After an update, and after one that was undone, the platform answers from the release with the updated package."""

from __future__ import annotations

import json
import os
from typing import Any

testinfra_hosts = [f"docker://{os.environ['LAB_PREFIX']}-app1"]


def test_the_platform_runs_on_the_updated_packages(host: Any) -> None:
    program = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:3002/health').read().decode())"
    assert json.loads(host.check_output("python3 -c %s", program))["ready"]
    lock = json.loads(host.file("/srv/lowcode/current/package-lock.json").content_string)["packages"]
    for name, version in (("lab-greet", "1.1.0"), ("lab-format", "1.0.0")):
        installed = json.loads(host.file(f"/srv/lowcode/current/node_modules/{name}/package.json").content_string)
        assert lock[f"node_modules/{name}"]["version"] == installed["version"] == version


def test_there_is_one_release_more_and_nothing_half_made(host: Any) -> None:
    names = [name for name in host.file("/srv/lowcode/releases").listdir() if "3.0.0" in name]
    assert len(names) == 2
    assert host.file("/srv/lowcode/current").linked_to.startswith("/srv/lowcode/releases/3.0.0-npm-")
    assert host.file("/srv/lowcode/current/package.json").user == "root"
