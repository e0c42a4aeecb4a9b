# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files under fixtures/, as the programs wrote them."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

FOLDER = Path(__file__).with_name("fixtures")


def fixture(name: str) -> bytes:
    """Return a fixture's content."""
    return gzip.decompress((FOLDER / f"{name}.gz").read_bytes())


def fixture_files(name: str) -> dict[str, bytes]:
    """Return the files of a fixture that is a directory."""
    with tarfile.open(fileobj=io.BytesIO(fixture(name))) as archive:
        return {
            member.name: file.read()
            for member in archive
            for file in [archive.extractfile(member)]
            if file is not None and member.isfile()
        }
