# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After patching, and after a bad version was taken back, the good version is installed and its service answers."""

from __future__ import annotations

import json
import os
from typing import Any

testinfra_hosts = [f"docker://{os.environ['LAB_PREFIX']}-app1"]


def test_the_good_version_is_installed_and_serves(host: Any) -> None:
    assert host.package("wl-demo").version == "1.1" and host.package("wl-demo-data").is_installed
    assert host.service("wl-demo").is_running
    program = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9300/').read().decode())"
    assert host.check_output("python3 -c %s", program).startswith("1.1 greeting=welcome")
    assert host.check_output("dpkg --audit") == ""
    assert host.check_output("apt-mark showauto wl-demo-data") == "wl-demo-data"


def test_the_old_package_is_kept_and_the_change_is_closed(host: Any) -> None:
    directories = host.check_output("ls -d /var/lib/worklog-maintenance/packages/*").split()
    assert host.file(f"{directories[0]}/wl-demo_1.0_all.deb").exists
    last = json.loads(host.file(f"{directories[-1]}/state.json").content_string)
    assert last["settled"] and last["stage"] in ("finished", "rolled_back")
    assert host.file(f"{directories[-1]}/state.json").mode == 0o600
