# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The account that owns the backups of a source, and nobody else writes among them.

Root does not either: where another account may make links, root would write wherever they lead.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.config import GROUP, ConfigError, Source


def of(source: Source) -> pwd.struct_passwd:
    """Return the account of a source.

    :raises ConfigError: when there is none of this name on the host.
    """
    try:
        return pwd.getpwnam(source.user) if source.user else pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ConfigError(f"source '{source.name}': there is no account '{source.user}' on this host") from None


def become(source: Source) -> None:
    """Go on as the account of a source, for good.

    :raises ConfigError: when there is no such account, or this one may not become it.
    """
    account = of(source)
    if account.pw_uid == os.geteuid():
        return
    os.setgroups(_groups(source, account))
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.environ.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)


@contextlib.contextmanager
def acting(source: Source) -> Iterator[None]:
    """Act as the account of a source while the block runs.

    :raises ConfigError: when there is no such account, or this one may not become it.
    """
    account = of(source)
    if account.pw_uid == os.geteuid():
        yield
        return
    user, group, groups = os.geteuid(), os.getegid(), os.getgroups()
    os.setgroups(_groups(source, account))
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
        os.setgroups(groups)


def _groups(source: Source, account: pwd.struct_passwd) -> list[int]:
    if os.geteuid() != 0:
        name = account.pw_name
        raise ConfigError(f"the backups of {source.name} belong to {name}; run this as root or as {name}")
    shared = [group.gr_gid for group in grp.getgrall() if group.gr_name == GROUP]
    return [*os.getgrouplist(account.pw_name, account.pw_gid), *shared]
