# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Redis: a snapshot (RDB), and the append-only files where they are wanted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import options
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import (
    Engine,
    Made,
    MakeError,
    Work,
    private,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import Unreadable, open_file
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.redis_aof import (
    AofWalker,
    read_manifest,
)

#: Name of the snapshot.
NAME = "dump.rdb"

#: Seconds between two looks at a server that is at work.
_PAUSE = 0.5

#: Seconds for which the server may hold back what it appends (appendfsync everysec).
_HELD_BACK = 3.0

_LOOK = "look into its log, and at the space of its disk"
_REWRITE = "auto-aof-rewrite-percentage"
_STATE = "redis-rewrite.json"
_RECEIVED = re.compile(r"Transfer finished with success after (\d+) bytes")
_KEYSPACE = re.compile(r"keys=(\d+)")


def parse_info(text: str) -> dict[str, str]:
    """Return the fields of an answer to INFO."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def keys(keyspace: Mapping[str, str]) -> dict[str, int]:
    """Return the number of keys by database from the fields of INFO keyspace."""
    found = {}
    for name, value in keyspace.items():
        number = _KEYSPACE.match(value)
        if re.fullmatch(r"db\d+", name) and number:
            found[name] = int(number[1])
    return found


class Server:
    """One Redis, spoken to by redis-cli; the password goes by the environment.

    :param options: of the source.
    :param work: the backup under way.
    """

    def __init__(self, options: Mapping[str, Any], work: Work) -> None:
        self._work = work
        self.argv = ["redis-cli"]
        if options["socket"]:
            self.argv += ["-s", options["socket"]]
        else:
            self.argv += ["-h", options["host"], "-p", str(options["port"])]
        if options["username"]:
            self.argv += ["--user", options["username"]]
        password = (
            private(options["password_file"]).decode("utf-8", "surrogateescape") if options["password_file"] else ""
        )
        self.env = {"REDISCLI_AUTH": password.rstrip("\r\n")} if password else {}

    def ask(self, *words: str, expect: str | None = None) -> str:
        """Return the answer to a command.

        redis-cli ends with 0 although the server answers with an error, so the answer itself is looked at.

        :param expect: what must be in the answer.
        :raises MakeError: when the server does not answer, or not so.
        """
        said = self._work.run([*self.argv, *words], timeout=60, env=self.env)
        answer = said.stdout.strip()
        if not said.ok or (expect is not None and expect not in answer):
            reason = " ".join(dict.fromkeys(part for part in (said.stderr.strip(), answer) if part)) or "nothing"
            raise MakeError(f"Redis answers to {' '.join(words)}: {reason[-500:]}")
        return answer

    def info(self, section: str, expect: str) -> dict[str, str]:
        """Return the fields of a section of INFO."""
        return parse_info(self.ask("INFO", section, expect=expect))

    def persistence(self) -> dict[str, str]:
        """Return what the server says of its snapshots and append-only files."""
        return self.info("persistence", "rdb_last_bgsave_status")

    def setting(self, name: str) -> str:
        """Return a setting, empty when this version does not know it.

        :raises MakeError: when it may not be asked for.
        """
        lines = self.ask("CONFIG", "GET", name).splitlines()
        if lines and lines[0] != name:
            raise MakeError(f"Redis answers to CONFIG GET {name}: {lines[0]}")
        return lines[1] if len(lines) > 1 else ""

    def wait(self, done: Callable[[dict[str, str]], bool], what: str) -> dict[str, str]:
        """Return what the server says of its persistence as soon as a condition is met.

        :raises MakeError: when that takes too long.
        """
        end = time.monotonic() + self._work.timeout
        while True:
            state = self.persistence()
            if done(state):
                return state
            if time.monotonic() >= end:
                raise MakeError(f"Redis did not {what} within {self._work.timeout:g} s")
            time.sleep(_PAUSE)


class Redis(Engine):
    """Makes snapshots of a Redis."""

    name = "redis"
    kinds: Mapping[str, str] = {
        "full": "every key, as a snapshot; the append-only files besides when the option aof is on"
    }
    OPTIONS: ClassVar[options.Options] = {
        "host": (options.text, "127.0.0.1"),
        "port": (options.number, 6379),
        "socket": (options.path, None),
        "username": (options.text, None),
        "password_file": (options.path, None),
        "method": (options.one_of("rdb", "bgsave"), "rdb"),
        "aof": (options.boolean, False),
    }

    def needed(self, work: Work) -> int | None:
        """Return the memory that the data takes, which a snapshot of it seldom reaches, and the append-only files."""
        server = Server(self.options, work)
        memory = int(server.info("memory", "used_memory").get("used_memory", 0))
        return memory + (int(server.persistence().get("aof_current_size", 0)) if self.options["aof"] else 0)

    def make(self, work: Work) -> Made:
        """Take a snapshot, and copy the append-only files."""
        server = Server(self.options, work)
        _put_back(server, work)
        before = server.wait(lambda state: state.get("loading") == "0", "finish loading its data")
        version = server.info("server", "redis_version")["redis_version"]
        made = Made(method=self.options["method"], engine={"redis": version})
        keys_before = keys(server.info("keyspace", "# Keyspace"))
        if self.options["method"] == "rdb":
            self._receive(work, server, made)
        else:
            self._save(work, server, before, made)
        keys_after = keys(server.info("keyspace", "# Keyspace"))
        after = server.wait(lambda state: state.get("rdb_bgsave_in_progress") == "0", "finish its snapshot")
        if after["rdb_last_bgsave_status"] != "ok":
            message = f"Redis says that its last snapshot failed (rdb_last_bgsave_status): {_LOOK}"
            if before["rdb_last_bgsave_status"] == "ok":
                raise MakeError(message)
            made.warnings.append(message)
        made.more = {"keys_before": keys_before, "keys_after": keys_after, "aof": self.options["aof"]}
        if keys_before == keys_after:
            made.counts = {database: {"keys": number} for database, number in keys_before.items()}
        if self.options["aof"]:
            if after.get("aof_enabled") != "1":
                raise MakeError("Redis keeps no append-only file (appendonly no): leave out the option aof")
            self._copy_aof(work, server)
        return made

    def _receive(self, work: Work, server: Server, made: Made) -> None:
        """Have redis-cli fetch a snapshot.

        Into a file: what it writes to a pipe ends with 40 bytes that are no part of it (the mark of the transfer).
        """
        path = os.path.join(work.directory, NAME)
        said = work.run([*server.argv, "--rdb", path], timeout=work.timeout, env=server.env)
        _log(work, said.stdout + said.stderr)
        made.exits["redis-cli"] = said.rc
        if not said.ok:
            raise MakeError(said.describe())
        told = _RECEIVED.search(said.stderr + said.stdout)
        size = os.path.getsize(path)
        if told and int(told[1]) != size:
            raise MakeError(f"redis-cli says that it has received {told[1]} bytes, but {path} has {size}")
        with open(path, "rb") as stream:
            if stream.read(5) != b"REDIS":
                raise MakeError(f"what redis-cli has received is no snapshot: {said.stderr.strip()[-500:]}")

    def _save(self, work: Work, server: Server, before: Mapping[str, str], made: Made) -> None:
        """Have the server save a snapshot, wait for it, and copy it."""
        if before["rdb_bgsave_in_progress"] != "0":
            before = server.wait(lambda state: state["rdb_bgsave_in_progress"] == "0", "finish the snapshot under way")
        last = int(before["rdb_last_save_time"])
        now = int(server.ask("TIME").split()[0])
        if now <= last:
            time.sleep(last - now + 1.1)  # the time of the last one is told in whole seconds
        started = server.ask("BGSAVE", "SCHEDULE", expect="Background saving")
        sure = "started" in started or before["rdb_last_bgsave_status"] == "ok"

        def done(state: Mapping[str, str]) -> bool:
            if int(state["rdb_last_save_time"]) > last:
                return state["rdb_bgsave_in_progress"] == "0"
            return sure and state["rdb_bgsave_in_progress"] == "0" and state["rdb_last_bgsave_status"] != "ok"

        state = server.wait(done, "finish its snapshot")
        if int(state["rdb_last_save_time"]) <= last:
            raise MakeError(f"Redis could not save a snapshot (BGSAVE): {_LOOK}")
        source = os.path.join(server.setting("dir"), server.setting("dbfilename"))
        _copy(source, os.path.join(work.directory, NAME))
        made.exits["redis-cli"] = 0

    def _copy_aof(self, work: Work, server: Server) -> None:
        """Copy the append-only files as Redis documents it: with their rewriting turned off."""
        place, folder = server.setting("dir"), server.setting("appenddirname")
        with _no_rewrite(server, work):
            server.wait(
                lambda state: state.get("aof_rewrite_in_progress") == "0", "finish rewriting its append-only file"
            )
            _settle(server)
            if not folder:  # before Redis 7 it is one file
                name = server.setting("appendfilename")
                _copy(os.path.join(place, name), os.path.join(work.directory, name))
                _cut(os.path.join(work.directory, name))
                return
            source, target = os.path.join(place, folder), os.path.join(work.directory, folder)
            os.mkdir(target, 0o700)
            name = f"{server.setting('appendfilename')}.manifest"
            listed = _copy(os.path.join(source, name), os.path.join(target, name))
            parts = read_manifest(listed, os.listdir(source))
            if parts.problems:
                raise MakeError(f"{os.path.join(source, name)}: {parts.problems[0].message}")
            for part in filter(None, (parts.base, *parts.increments)):
                _copy(os.path.join(source, part), os.path.join(target, part))
            if parts.increments:
                _cut(os.path.join(target, parts.increments[-1]))
            if files.read(os.path.join(source, name)) != listed:
                raise MakeError("Redis has rewritten its append-only files while they were copied; run it again")


def _settle(server: Server) -> None:
    """Give the server time to write down what it holds back while it syncs; under load there is always something."""
    end = time.monotonic() + _HELD_BACK
    while time.monotonic() < end and server.persistence().get("aof_buffer_length", "0") != "0":
        time.sleep(0.05)


@contextlib.contextmanager
def _no_rewrite(server: Server, work: Work) -> Iterator[None]:
    """Keep the server from rewriting its append-only files meanwhile; the setting is on disk until it is back."""
    value = server.setting(_REWRITE)
    if value in ("", "0"):
        yield
        return
    files.replace(os.path.join(work.state, _STATE), json.dumps({_REWRITE: value}).encode(), mode=0o600)
    try:
        server.ask("CONFIG", "SET", _REWRITE, "0", expect="OK")
        yield
    finally:
        _put_back(server, work)


def _put_back(server: Server, work: Work) -> None:
    """Put back the setting that this run, or one that was killed, has changed."""
    path = os.path.join(work.state, _STATE)
    if not os.path.lexists(path):
        return
    value = str(json.loads(files.read(path))[_REWRITE])
    if server.setting(_REWRITE) == "0":
        server.ask("CONFIG", "SET", _REWRITE, value, expect="OK")
    os.unlink(path)


def _copy(source: str, target: str) -> bytes:
    """Copy a file as long as it is now, and return the first MiB of it."""
    try:
        descriptor = open_file(source)
    except Unreadable as error:
        raise MakeError(
            f"{source}: {error}; the backup must run on the host of Redis, as root or as its account"
        ) from error
    with os.fdopen(descriptor, "rb") as stream, open(target, "xb") as out:
        left = os.fstat(descriptor).st_size
        head = stream.read(min(left, 1 << 20))
        out.write(head)
        left -= len(head)
        while left and (block := stream.read(min(left, 1 << 20))):
            out.write(block)
            left -= len(block)
    return head


def _cut(path: str) -> None:
    """Take away a command, or a transaction, at the end of a file that was copied while the server wrote it."""
    with open(path, "r+b") as stream:
        while True:
            walker = AofWalker()
            stream.seek(0)
            while block := stream.read(1 << 20):
                walker.feed(block)
            walker.close()
            ends = [
                problem.offset
                for problem in walker.problems
                if problem.check in ("aof.cut", "aof.transaction") and problem.offset is not None
            ]
            if not ends:
                return
            stream.truncate(min(ends))  # what is left may still end inside a transaction


def _log(work: Work, text: str) -> None:
    with open(os.path.join(work.directory, "log", "redis-cli.log"), "a", encoding="utf-8") as log:
        log.write(text)
