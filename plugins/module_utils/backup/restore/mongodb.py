# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore MongoDB: archives of mongodump, with their oplog, into a scratch server of its own."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import pipeline
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
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restore.unpack import plain_name, unpack

_ARCHIVE = re.compile(r"archive(-.+)?")
_DONE = re.compile(r"finished restoring (?P<name>.+?) \((?P<count>\d+) documents?, (?P<failures>\d+) failures?\)")
_NO_INDEX = "is unknown"
_START = 120.0
_SERVER = ("mongod", "--dbpath", "<directory>", "--bind_ip", "127.0.0.1", "--port", "<port>")


class MongoDB(Restorer):
    """Restores archives.

    Options: ``user``, the account of the scratch server; ``server``, its command, in which ``<directory>`` and
    ``<port>`` stand for where its data are and where it listens on 127.0.0.1.
    """

    name = "mongodb"
    swaps = False

    @property
    def user(self) -> str:
        """Return the account that the scratch server runs as."""
        return str(self.options.get("user") or "mongodb")

    def prepare(self, plan: Plan, work: Work) -> str:
        """Make the empty directory of the server; the archive is read when that runs."""
        data = os.path.join(work.directory, "data")
        os.mkdir(data, 0o700)
        scratch.give(data, self.user)
        return data

    @contextlib.contextmanager
    def serve(self, work: Work) -> Iterator[Session]:
        """Start an empty server."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        data = os.path.join(work.directory, "data")
        given = self.options.get("server") or _SERVER
        argv = [str(part).replace("<directory>", data).replace("<port>", str(port)) for part in given]
        with contextlib.ExitStack() as stack:
            with work.parts.part("start"):
                stack.enter_context(
                    scratch.serving(
                        argv,
                        user=self.user,
                        log=os.path.join(work.logs, "server.log"),
                        ready=lambda: _listens(port),
                        timeout=_START,
                    )
                )
            yield Session({"port": str(port), "uri": f"mongodb://127.0.0.1:{port}/"}, port)

    def replay(self, plan: Plan, work: Work, session: Session) -> str:
        """Read the archives, and the oplog in them."""
        kept = plan.base.last
        names = [name for name in kept.manifest.files if _ARCHIVE.fullmatch(plain_name(name))]
        oplog = bool(kept.manifest.document.get("oplog"))
        for name in names:
            try:
                self._read(plan, name, work, session, ["--oplogReplay"] if oplog else [])
            except RestoreError as error:
                # A server that does not know all options of an index: without them the documents can be restored.
                if _NO_INDEX not in str(error):
                    raise
                self._read(plan, name, work, session, ["--noIndexRestore", "--drop"])
                session.variables["indexes"] = "no"
        return "with its oplog" if oplog else ""

    def examine(self, plan: Plan, work: Work, session: Session) -> Examined:
        """Compare what mongorestore says that it has restored with what was dumped."""
        result = Examined()
        with open(os.path.join(work.logs, "mongorestore.log"), encoding="utf-8", errors="replace") as stream:
            for line in stream:
                found = _DONE.search(line)
                if found:
                    database, _dot, collection = found["name"].strip("`").partition(".")
                    result.counts.setdefault(database, {})[collection.strip("`")] = int(found["count"])
        recorded = {
            database: {name: rows for name, rows in tables.items() if not name.startswith("system.")}
            for database, tables in (work.expected.get("counts") or {}).items()
            if database not in ("admin", "config", "local")
        }
        result.findings += compare_counts(plan.base.last.path, recorded, result.counts)
        result.compared.append(f"the documents of {sum(map(len, recorded.values()))} collections")
        if session.variables.get("indexes") == "no":
            result.unchecked.append("the indexes: the scratch server does not take those of the archive")
        return result

    def _read(self, plan: Plan, name: str, work: Work, session: Session, more: list[str]) -> None:
        log = os.path.join(work.logs, "mongorestore.log")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        argv = ["mongorestore", f"--uri={session.variables['uri']}", "--archive", "--stopOnError", *more]
        unpack(plan.base.last, name, None, work, then=[pipeline.Stage(argv)], part="load")


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(2)
        return client.connect_ex(("127.0.0.1", port)) == 0
