# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of tests whose parameters are files."""

from __future__ import annotations

import zlib
from typing import Any


def pytest_make_parametrize_id(config: Any, val: object, argname: str) -> str | None:
    """Name long bytes by what they are, since pytest would have all of them in the name of the test."""
    if isinstance(val, bytes) and len(val) > 40:
        return f"{argname}-{len(val)}-{zlib.crc32(val):08x}"
    return None
