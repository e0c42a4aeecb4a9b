# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a stream is compressed on its way to the disk."""

from __future__ import annotations

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.options import one_of
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.pipeline import Stage
from ansible_collections.worklog.maintenance.plugins.module_utils.command import which

#: For the options of an engine.
OPTION = (one_of("auto", "zstd", "gzip", "none"), "auto")


def stages(choice: str) -> tuple[list[Stage], str]:
    """Return the programs that compress, and what they add to the name of a file.

    :param choice: ``auto`` (zstd when it is installed, else gzip), ``zstd``, ``gzip`` or ``none``.
    """
    if choice == "none":
        return [], ""
    if choice == "gzip" or (choice == "auto" and which("zstd") is None):
        return [Stage(["gzip", "--stdout"])], ".gz"
    return [Stage(["zstd", "--quiet", "--stdout", "--threads=0"])], ".zst"
