# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore Redis: a snapshot, or the append-only files of the backup, in a scratch server of its own."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.recoverable import Plan
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore import scratch
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.base import (
    Examined,
    RestoreError,
    Restorer,
    Session,
    Work,
    compare_counts,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.unpack import verify
from ansible_collections.worklog.maintenance.plugins.module_utils.command import CommandError
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

SNAPSHOT, APPENDED = "dump.rdb", "appendonlydir"

_EXPIRED = re.compile(r"keys loaded: (\d+), keys expired: (\d+)")
_KEYS = re.compile(r"^db(\d+):keys=(\d+)", re.MULTILINE)
_START = 600.0


class Redis(Restorer):
    """Restores snapshots and append-only files.

    Options: ``user``, the account of the scratch server.
    """

    name = "redis"

    @property
    def user(self) -> str:
        """Return the account that the scratch server runs as."""
        return str(self.options.get("user") or "redis")

    def prepare(self, plan: Plan, work: Work) -> str:
        """Copy the files, each held against its hash."""
        kept, data = plan.base.last, os.path.join(work.directory, "data")
        names = [name for name in kept.manifest.files if name == SNAPSHOT or name.startswith(f"{APPENDED}/")]
        if not names:
            raise RestoreError(f"{kept.path} has neither {SNAPSHOT} nor {APPENDED}: it cannot be restored")
        verify(kept, names, work)
        os.mkdir(data, 0o750)
        with work.parts.part("copy"):
            for name in names:
                target = os.path.join(data, name)
                os.makedirs(os.path.dirname(target), mode=0o750, exist_ok=True)
                shutil.copyfile(os.path.join(kept.path, name), target)
        return data

    @contextlib.contextmanager
    def serve(self, work: Work) -> Iterator[Session]:
        """Start a server on the data that only this host reaches, through a socket."""
        ask, argv, variables = self._server(work)
        with contextlib.ExitStack() as stack:
            with work.parts.part("start"):
                stack.enter_context(
                    scratch.serving(
                        argv,
                        user=self.user,
                        log=os.path.join(work.logs, "server.log"),
                        ready=ask.answers,
                        stop=ask.end,
                        timeout=_START,
                    )
                )
                ask.append()
            yield Session(variables, ask)

    def serve_on(self, work: Work, unit: str, seconds: float) -> str:
        """Leave a server on the kept data for some time."""
        _ask, argv, variables = self._server(work)
        scratch.serve_on(work.directory, argv, user=self.user, unit=unit, seconds=seconds, run=work.run)
        return f"redis-cli -s {variables['socket']} (its password stands in {argv[1]})"

    def examine(self, plan: Plan, work: Work, session: Session) -> Examined:
        """Count the keys; those whose time was over when they were loaded count, too."""
        ask: Ask = session.handle
        result, subject = Examined(), plan.base.last.path
        with work.parts.part("examine"):
            result.counts = ask.keys()
            recorded = work.expected.get("counts") or {}
            if not recorded:
                result.unchecked.append("the keys: they changed while the backup was made, so none were recorded")
                return result
            with open(os.path.join(work.logs, "server.log"), encoding="utf-8", errors="replace") as stream:
                told = _EXPIRED.search(stream.read())
            total = sum(tables.get("keys", 0) for tables in recorded.values())
            if told and int(told[2]) and int(told[1]) + int(told[2]) == total:
                result.compared.append(f"{told[1]} keys, and {told[2]} whose time is over")
            else:
                result.findings += compare_counts(subject, recorded, result.counts)
                result.compared.append(f"{total} keys of {len(recorded)} databases")
        return result

    def ask_running(self, client: str | None, counts: Mapping[str, Mapping[str, int]], work: Work) -> list[Finding]:
        """Count the keys again; some may be over since, but not all."""
        ask = Ask(["redis-cli"], {}, work)
        try:
            found = ask.keys()
        except RestoreError as error:
            return [Finding("restore.counts", work.directory, "warning", f"the keys were not counted: {error}")]
        lost = [name for name, tables in counts.items() if tables.get("keys") and name not in found]
        return [
            Finding("restore.counts", work.directory, "critical", f"{name} is empty in production, but was restored")
            for name in lost
        ]

    def _server(self, work: Work) -> tuple[Ask, list[str], dict[str, str]]:
        data, password = os.path.join(work.directory, "data"), secrets.token_hex(24)
        place = os.path.join(work.directory, "run")
        os.makedirs(place, mode=0o755, exist_ok=True)
        os.chmod(place, 0o755)
        address = os.path.join(place, "redis.sock")
        appended = os.path.isdir(os.path.join(data, APPENDED))
        lines = [
            "port 0",
            f"unixsocket {address}",
            "unixsocketperm 777",
            f"requirepass {password}",
            f"dir {data}",
            f"dbfilename {SNAPSHOT}",
            f"appendonly {'yes' if appended else 'no'}",
            'save ""',
            "daemonize no",
        ]
        config = os.path.join(work.directory, "redis.conf")
        with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")
        for path in (data, place, config):
            scratch.give(path, self.user)
        ask = Ask(["redis-cli", "-s", address], {"REDISCLI_AUTH": password}, work)
        return ask, ["redis-server", config], {"socket": address, "password": password}


class Ask:
    """Asks a server through redis-cli."""

    def __init__(self, argv: list[str], env: Mapping[str, str], work: Work) -> None:
        self._argv = argv
        self._env = env
        self._work = work

    def say(self, *words: str) -> str:
        """Return the answer to a command.

        :raises RestoreError: when the server does not answer, or with an error.
        """
        try:
            done = self._work.run([*self._argv, *words], timeout=60, env=self._env)
        except CommandError as error:
            raise RestoreError(str(error)) from error
        answer = done.stdout.strip()
        if not done.ok or answer.startswith(("ERR", "NOAUTH", "WRONGPASS", "LOADING", "NOPERM")):
            raise RestoreError(f"Redis answers to {' '.join(words)}: {answer or done.stderr.strip()}")
        return answer

    def answers(self) -> bool:
        """Return whether it has loaded its data."""
        try:
            return self.say("PING") == "PONG"
        except RestoreError:
            return False

    def keys(self) -> dict[str, dict[str, int]]:
        """Return the number of keys by database."""
        return {f"db{number}": {"keys": int(keys)} for number, keys in _KEYS.findall(self.say("INFO", "keyspace"))}

    def append(self) -> None:
        """Have append-only files made: a server that keeps them would not look at the snapshot at all."""
        if "aof_enabled:1" in self.say("INFO", "persistence"):
            return
        self.say("CONFIG", "SET", "appendonly", "yes")
        limit = time.monotonic() + _START
        while time.monotonic() < limit:
            state = self.say("INFO", "persistence")
            if "aof_rewrite_in_progress:0" in state and "aof_rewrite_scheduled:0" in state:
                if "aof_last_bgrewrite_status:ok" in state:
                    return
                break
            time.sleep(0.1)
        raise RestoreError("the scratch server could not write its append-only files; look at its space")

    def end(self) -> None:
        """Let the server end by itself, with all on disk."""
        self._work.run([*self._argv, "SHUTDOWN", "SAVE"], timeout=600, env=self._env)
