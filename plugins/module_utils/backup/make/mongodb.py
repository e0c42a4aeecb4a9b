# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""MongoDB by mongodump: one archive, with the oplog on a replica set.

mongodump ends with 0 when it has dumped what it saw; how many documents that were it tells on standard error alone.
These counts go into the manifest, and the verification compares the archive with them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import compression, options
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.pipeline import PipelineError
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import (
    Engine,
    Made,
    MakeError,
    Output,
    Stage,
    Work,
    private,
)

#: What mongodump says of a server that has no oplog, which is no member of a replica set.
_NO_OPLOG = re.compile(
    r"error getting oplog start: .*(oplog\.\$main|no documents in result)"
    r"|can't use --oplog option when dumping from a mongos"
)
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\S+\s+")
_BEGUN = re.compile(r"writing (?P<name>.+) to archive ")
_DONE = re.compile(r"done dumping (?P<name>.+) \((?P<count>\d+) documents?\)$")
_OPLOG = re.compile(r"(writing captured oplog to |\s*dumped \d+ oplog entr)")
_PROGRESS = re.compile(r"\[[#.]+\]")

#: Share of the size of the last backup that the next one may have more.
_GROWTH = 1.25

_MAX_WARNINGS = 50


def uri(value: Any) -> str:
    """Return where the server is.

    :raises ValueError: when it is no such address, or holds a password, which everyone on the host could read.
    """
    found = options.text(value)
    if not re.match(r"mongodb(\+srv)?://", found):
        raise ValueError("an address such as mongodb://backup@127.0.0.1:27017/?authSource=admin")
    if re.match(r"[^/]*//[^/@]*:[^/@]*@", found):
        raise ValueError("an address without a password: put that into the file of the option credentials")
    return found


@dataclass
class Told:
    """What mongodump says on standard error.

    :ivar counts: documents by database and collection.
    :ivar open: collections that were begun and not ended.
    :ivar other: lines that are none of its usual ones.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)


def review(lines: Iterable[str]) -> Told:
    """Return what a log of mongodump tells."""
    told, open_ = Told(), dict[str, bool]()
    for line in lines:
        text = _STAMP.sub("", line.rstrip("\r\n"))
        begun, done = _BEGUN.match(text), _DONE.match(text)
        if not text.strip() or _PROGRESS.match(text) or _OPLOG.match(text):
            continue
        if begun:
            open_[begun["name"]] = True
        elif done:
            database, _dot, collection = done["name"].partition(".")
            told.counts.setdefault(database, {})[collection] = int(done["count"])
            open_.pop(done["name"], None)
        else:
            told.other.append(text.strip())
    told.open = list(open_)
    return told


class MongoDB(Engine):
    """Makes archives of mongodump."""

    name = "mongodb"
    kinds: Mapping[str, str] = {"full": "every document, and the oplog on a replica set"}
    OPTIONS: ClassVar[options.Options] = {
        "uri": (uri, None),
        "credentials": (options.path, None),
        "databases": (options.texts, ()),
        "oplog": (options.one_of("auto", True, False), "auto"),
        "compression": compression.OPTION,
    }

    def needed(self, work: Work) -> int | None:
        """Return the size of the last one and a quarter; of the first one it cannot be told."""
        last = work.newest("full")
        return None if last is None else int(last.size * _GROWTH)

    def make(self, work: Work) -> Made:
        """Dump everything into one archive, or each database into its own."""
        if self.options["credentials"]:
            private(self.options["credentials"])  # mongodump reads it, and does not look at its mode
        made = Made(method="mongodump", engine={"mongodump": self._version(work)})
        databases = self.options["databases"]
        if databases and self.options["oplog"] is True:
            raise MakeError("the oplog belongs to all databases: leave out the option databases, or oplog")
        oplog = self.options["oplog"] is not False and not databases
        try:
            if databases:
                for database in databases:
                    self._dump(work, made, f"archive-{database}", ["--db", database])
            else:
                self._dump(work, made, "archive", ["--oplog"] if oplog else [])
        except PipelineError as error:
            if not oplog or self.options["oplog"] is True or not _NO_OPLOG.search(str(error)):
                raise
            work.say("the server is no member of a replica set: dumping without the oplog")
            oplog = False
            self._again(work)
            self._dump(work, made, "archive", [])
        for database in databases:
            if database not in made.counts:
                raise MakeError(f"mongodump found nothing in the database {database}: is its name right?")
        made.more["oplog"] = oplog
        return made

    def _dump(self, work: Work, made: Made, name: str, arguments: list[str]) -> None:
        argv = ["mongodump", "--archive", *arguments]
        if self.options["credentials"]:
            argv.append(f"--config={self.options['credentials']}")
        if self.options["uri"]:
            argv.append(f"--uri={self.options['uri']}")
        compressors, suffix = compression.stages(self.options["compression"])
        output: Output = work.stream([Stage(argv), *compressors], name + suffix)
        made.files[name + suffix] = output.entry
        made.exits.update(output.exits)
        with open(output.logs["mongodump"], encoding="utf-8", errors="replace") as log:
            told = review(log)
        if told.open:
            raise MakeError(f"mongodump ended with 0, but does not say that it has dumped {', '.join(told.open[:10])}")
        made.counts.update(told.counts)
        more = len(told.other) - _MAX_WARNINGS
        made.warnings = [f"mongodump: {line}" for line in told.other[:_MAX_WARNINGS]]
        made.warnings += [f"mongodump: {more} more lines in its log"] if more > 0 else []

    @staticmethod
    def _again(work: Work) -> None:
        """Take away what the attempt has left."""
        for place, _subdirectories, names in os.walk(work.directory):
            for name in names:
                os.unlink(os.path.join(place, name))

    @staticmethod
    def _version(work: Work) -> str:
        said = work.run(["mongodump", "--version"], timeout=60)
        if not said.ok:
            raise MakeError(said.describe())
        return said.stdout.partition("\n")[0].removeprefix("mongodump version: ").strip()
