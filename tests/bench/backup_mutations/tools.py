# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the usual programs say of a backup: True when one of them finds that it is damaged."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping

from tests.bench.backup_mutations import damage

#: The programs by the column of the table.
COLUMNS = ("gzip, zstd, xz, bzip2 -t", "tar -t", "sha256sum -c", "of the format")

#: Seconds for one program. restic tries for minutes to read what is missing: it has found it.
_PATIENCE = 30

_TESTS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}
_TAR = (".tar", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2")

#: Hashes of a backup, as sha256sum wrote them when it was made.
SUMS = "SHA256SUMS"


def write_sums(root: str, names: list[str]) -> None:
    """Write down the hashes of files as sha256sum does."""
    with open(os.path.join(root, SUMS), "wb") as out:
        if names:
            subprocess.run(["sha256sum", "--", *names], cwd=root, stdout=out, check=True, timeout=60)


def judge(root: str, names: list[str], environment: Mapping[str, str]) -> dict[str, bool]:
    """Return by column whether a program finds damage; columns without a program that applies are left out.

    :param names: the files of the backup, as they were when it was made.
    :param environment: secrets of repositories.
    """
    found: dict[str, bool] = {}
    for column, argv in _programs(root, names):
        env = {**os.environ, "LC_ALL": "C", **environment}
        try:
            done = subprocess.run(
                argv, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, timeout=_PATIENCE, check=False,
            )  # fmt: skip
            bad = done.returncode != 0
        except subprocess.TimeoutExpired:
            bad = True
        found[column] = found.get(column, False) or bad
    return found


def _programs(root: str, names: list[str]) -> Iterator[tuple[str, list[str]]]:
    compressors, tar, sums, own = COLUMNS
    if os.path.exists(os.path.join(root, SUMS)):
        yield sums, ["sha256sum", "--check", "--quiet", SUMS]
    for name in names:
        if damage.ending(name):
            yield compressors, [_TESTS[damage.ending(name)], "-t", "-q", name]
        if name.endswith(_TAR):
            yield tar, ["tar", "-tf", name]
        base = os.path.basename(name)
        if base.endswith(".ibd") or base == "ibdata1":
            yield own, ["innochecksum", name]
        elif base.endswith(".rdb"):
            yield own, ["redis-check-rdb", name]
        elif base.endswith(".aof.manifest"):
            yield own, ["redis-check-aof", name]
        elif base.startswith("binlog.") and not damage.ending(base):
            yield own, ["mariadb-binlog", "--verify-binlog-checksum", name]
    for repository, argv in (("restic", ["restic", "--no-lock", "check"]), ("borg", ["borg", "check"])):
        if any(name.startswith(f"{repository}/") for name in names):
            yield own, [*argv, *(["--repo", repository] if repository == "restic" else [repository])]
