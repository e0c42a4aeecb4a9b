# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring the backups to the host that tries them: pulled by rsync over ssh, with a host key that is known."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import RestoreError
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError, Runner

#: Some files have vanished: a backup was pruned meanwhile, which the restore itself would notice.
_VANISHED = 24


@dataclass(frozen=True)
class Remote:
    """Where the backups are.

    :param address: ``user@host:/directory`` as rsync takes it; with a forced rrsync the directory is ``/`` there.
    :param identity: private key, None: those of the account.
    :param known_hosts: file with the host's key, None: that of the account. An unknown key is never accepted.
    :param port: of ssh.
    """

    address: str
    identity: str | None = None
    known_hosts: str | None = None
    port: int = 22


def fetch(remote: Remote, source: str, root: str, *, run: Runner, timeout: float, say: Callable[[str], None]) -> None:
    """Have the finished backups of a source below a directory of this host as they are on the other one.

    :raises RestoreError: when they cannot be fetched.
    """
    target = os.path.join(root, source)
    try:
        os.makedirs(target, mode=0o700, exist_ok=True)
    except OSError as error:
        raise RestoreError(f"cannot make {target}: {error.strerror}") from error
    shell = [
        "ssh",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "ConnectTimeout=20",
        "-p",
        str(remote.port),
    ]
    if remote.identity:
        shell += ["-i", remote.identity, "-o", "IdentitiesOnly=yes"]
    if remote.known_hosts:
        shell += ["-o", f"UserKnownHostsFile={remote.known_hosts}"]
    if any(" " in part for part in shell):
        raise RestoreError("the paths of the key and of the known hosts must not hold spaces: rsync would split them")
    say(f"fetching the backups of {source} from {remote.address}")
    argv = ["rsync", "--archive", "--hard-links", "--delete", "--exclude=*.partial", "--exclude=.lock"]
    argv += [f"--rsh={' '.join(shell)}", "--", f"{remote.address.rstrip('/')}/{source}/", f"{target}/"]
    try:
        done = run(argv, timeout=timeout)
    except CommandError as error:
        raise RestoreError(f"the backups of {source} could not be fetched: {error}") from error
    if done.rc not in (0, _VANISHED):
        raise RestoreError(
            f"the backups of {source} could not be fetched from {remote.address}: {done.describe()}"
            + ("; its host key is not known here: compare it on the host and add it to the known hosts"
               if "Host key verification failed" in done.stderr else "")
        )  # fmt: skip
