# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backup that was restored is still there, and nothing was left running or lying about."""

from __future__ import annotations

import os
from typing import Any

import pytest
import testinfra

APP1 = f"docker://{os.environ.get('LAB_PREFIX', 'molecule')}-app1"


@pytest.fixture(scope="module")
def host() -> Any:
    return testinfra.get_host(APP1)


@pytest.mark.capability("A11")
def test_the_configuration_can_be_recovered(host: Any) -> None:
    said = host.run("worklog-backup status configuration")
    assert said.rc == 0
    assert "configuration is recoverable to 1 moment" in said.stdout


def test_production_is_as_it_was(host: Any) -> None:
    assert host.file("/srv/lowcode/shared/.env").contains("PORT=3002")
    assert host.file("/srv/lowcode/shared/.env").user == "lowcode"
