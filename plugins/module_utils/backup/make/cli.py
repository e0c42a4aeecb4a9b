# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backups of this host: made, verified, copied, pruned, fetched, with or without a controller.

Exit codes: 0 done; 1 failed or refused, nothing that looks like a backup was left; 2 wrong usage or configuration,
nothing was touched; 3 the backup was made, but something needs an operator now; 75 another program works on the source,
try again later.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    options = _parser().parse_args(arguments)
    # Not before: to read all of it takes longer than to say how it is used.
    from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import verbs

    return verbs.call(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="worklog-backup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", help="default: /etc/worklog-maintenance/backup.json")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text)

    sub = verb("run", "make one backup of a source, and verify it")
    sub.add_argument("source")
    sub.add_argument("kind", nargs="?", help="full, incremental, log, ...; by default the first that the source has")
    sub.add_argument("--dry-run", action="store_true", help="say what would be made, and make nothing")
    sub.add_argument("--run-id", help="names the run in the record")
    sub.add_argument("--json", action="store_true", help="print the record of the run on the last line")
    sub.add_argument("--progress", metavar="FILE", help="keep in this file what is done now")
    sub = verb("verify", "read backups again and remember the verdict; by default the newest")
    sub.add_argument("source")
    sub.add_argument("backup", nargs="?", help="its id or path")
    sub.add_argument("--all", action="store_true", help="every backup of the source")
    sub = verb("list", "show the backups of a source, or of all")
    sub.add_argument("source", nargs="?")
    sub.add_argument("--json", action="store_true", help="for programs")
    sub.add_argument("--tier", help="what a tier has, as its repository tells")
    sub = verb("prune", "remove what newer verified backups make redundant, here and in the remote tier")
    sub.add_argument("source")
    sub.add_argument("place", nargs="?", help="local, or a tier; by default all that are not kept for ever")
    sub.add_argument("--dry-run", action="store_true", help="tell the plan and change nothing")
    sub.add_argument("--allow", action="append", default=[], choices=["share", "clock"], help="override a refusal once")
    sub.add_argument("--json", action="store_true", help="for programs")
    sub.add_argument("--run-id", help="names the run in the record")
    sub = verb("copy", "copy what the tiers lack, read it back, and check the repositories")
    sub.add_argument("source")
    sub.add_argument("--tier", help="by default all of the source")
    sub.add_argument("--run-id", help="names the run in the record")
    sub = verb("fetch", "bring a backup back from a tier, and verify it")
    sub.add_argument("source")
    sub.add_argument("backup", help="its id")
    sub.add_argument("--tier", required=True)
    sub.add_argument("--run-id", help="names the run in the record")
    sub = verb("init", "make the repository of a tier")
    sub.add_argument("source")
    sub.add_argument("tier")
    sub = verb("status", "tell what can be recovered: from when, to when, and which gaps there are")
    sub.add_argument("source", nargs="?")
    sub.add_argument("--json", action="store_true", help="for programs")
    sub.add_argument("--unverified", action="store_true", help="count backups that were never verified")
    sub = verb("restore", "restore a source, by default into a scratch directory, which changes nothing else")
    sub.add_argument("source")
    sub.add_argument("--time", help="all that was committed before this moment, as 2026-01-31T02:03:04Z")
    sub.add_argument("--gtid", help="all up to and with this transaction, as 0-1-4711")
    sub.add_argument("--before-event", metavar="PATTERN", help="all before the last statement that this finds")
    sub.add_argument("--backup", help="the state of this backup, by its id")
    sub.add_argument("--unverified", action="store_true", help="use backups that were never verified")
    sub.add_argument("--scratch", help="directory for it; default: /var/lib/worklog-maintenance/scratch")
    sub.add_argument("--identity", metavar="FILE", help="the age identity that decrypts an encrypted backup")
    sub.add_argument("--serve", metavar="TIME", help="leave a server on the data for so long, as 4h")
    sub.add_argument("--plan", action="store_true", help="only tell which backups it takes")
    sub.add_argument("--in-place", metavar="DIRECTORY", help="replace the data in this directory")
    sub.add_argument("--service", default="", help="the unit that has the directory open")
    sub.add_argument("--application", action="append", default=[], help="a unit to stop before and start after it")
    sub.add_argument("--confirm", default="", metavar="SOURCE@HOST", help="needed to replace data")
    sub.add_argument("--put-back", action="store_true", help="with --in-place: have the data from before again")
    verb("check", "read the configuration, say what it means or what is wrong with it, and do nothing")
    sub = verb("failed", "leave a record of a unit of systemd that has failed; systemd starts this by itself")
    sub.add_argument("unit")
    return parser
