# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program worklog-backup on a node of the lab, and what must hold after every run of it."""

from __future__ import annotations

import importlib.util
import io
import json
import marshal
import re
import subprocess
import time
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from tests.system.conftest import ROOT, Lab

PROGRAM = "/usr/local/sbin/worklog-backup-test"
_PACKAGE = "ansible_collections.worklog.maintenance.plugins.module_utils.backup.make"
_MAIN = f"import sys\nfrom {_PACKAGE} import cli\nsys.exit(cli.main())\n"


def archive(main: str = _MAIN, more: Path | None = None) -> bytes:
    """The program as one file, or another one with the same modules.

    They are compiled for Python as it is here, as on Debian 12; another one compiles the sources again at each start.

    :param main: what it does.
    :param more: directory with modules that it needs besides.
    """
    source = ROOT / "plugins" / "module_utils"
    names = {path: PurePosixPath("ansible_collections/worklog/maintenance", path.relative_to(ROOT).as_posix())
             for path in sorted(source.rglob("*.py"))}  # fmt: skip
    if more is not None:
        names |= {path: PurePosixPath(path.relative_to(ROOT).as_posix()) for path in sorted(more.glob("*.py"))}
    folders = sorted({str(folder) for name in names.values() for folder in name.parents} - {"."})
    out = io.BytesIO(b"#!/usr/bin/env python3\n")
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as file:
        for folder in folders:
            file.writestr(f"{folder}/__init__.py", "")
        for path, name in names.items():
            if path.name != "__init__.py":
                file.write(path, str(name))
                file.writestr(f"{name}c", compiled(path.read_bytes(), str(name)))
        file.writestr("__main__.py", main)
    return out.getvalue()


def compiled(source: bytes, name: str) -> bytes:
    """A module as zipimport takes it, not compared with its source (PEP 552)."""
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    return head + marshal.dumps(compile(source, name, "exec", dont_inherit=True))


class Program:
    """The program on one node, with a configuration and a root of its own.

    :param sources: as in the configuration.
    """

    def __init__(self, lab: Lab, node: str, folder: str, sources: dict[str, Any], user: str = "root") -> None:
        self.lab, self.node, self.user, self.folder = lab, node, user, folder
        self.root = f"{folder}/backups"
        self.config = f"{folder}/backup.json"
        tee = lab.command(node, ["tee", PROGRAM])
        subprocess.run(tee, input=archive(), stdout=subprocess.DEVNULL, check=True, timeout=60)
        lab.exec(node, ["chmod", "755", PROGRAM])
        lab.exec(node, ["rm", "-rf", "--", folder])
        lab.exec(node, ["install", "-d", "-o", user, "-m", "755", folder])
        self.configure(sources)

    def configure(self, sources: dict[str, Any], **general: Any) -> None:
        document = {"root": self.root, "min_free": 0, "records": f"{self.folder}/records.jsonl", "sources": sources}
        self.lab.write(self.node, self.config, json.dumps({**document, **general}))

    def argv(self, *words: str) -> list[str]:
        start = [] if self.user == "root" else ["runuser", "-u", self.user, "--"]
        return [*start, "python3", PROGRAM, "--config", self.config, *words]

    def run(self, source: str, kind: str, code: int = 0, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Make a backup; the exit code must be this one."""
        done = self.lab.exec(self.node, self.argv("run", source, kind), check=False, timeout=timeout)
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done

    def start(self, source: str, kind: str) -> subprocess.Popen[str]:
        """Begin a backup."""
        command = self.lab.command(self.node, self.argv("run", source, kind))
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def made(self, source: str, kind: str) -> dict[str, Any]:
        """Make a backup, and return its manifest with its path."""
        self.run(source, kind)
        return self.manifest(self.list(source)[-1]["path"])

    def list(self, source: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.lab.exec(self.node, self.argv("list", source, "--json")).stdout)
        return found

    def manifest(self, path: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.lab.read(self.node, f"{path}/manifest.json"))
        return {**document, "path": path}

    def directories(self, source: str) -> list[str]:
        """Every directory of a backup or of what should have become one."""
        argv = ["find", f"{self.root}/{source}", "-mindepth", "2", "-maxdepth", "2", "-type", "d"]
        return sorted(self.lab.exec(self.node, argv, check=False).stdout.split())

    def nothing_false(self, source: str, killed: bool = False) -> None:
        """What looks like a backup is one: listed, and its files are as the manifest says."""
        listed = {row["path"] for row in self.list(source)}
        for path in self.directories(source):
            if path.endswith(".partial"):
                assert killed, f"{path} was left by a program that was not killed"
                continue
            assert path in listed, f"{path} looks like a backup and is none"
        if listed:
            done = self.lab.exec(self.node, self.argv("verify", source, "--all"), check=False, timeout=120)
            assert done.returncode == 0, done.stdout + done.stderr

    def processes(self, pattern: str) -> list[int]:
        """The processes in the node whose command line matches."""
        code = (
            "import os\nfor p in os.listdir('/proc'):\n  if p.isdigit():\n    try:\n"
            "      c = open(f'/proc/{p}/cmdline','rb').read().replace(b'\\0', b' ').decode('utf-8','replace')\n"
            "      s = open(f'/proc/{p}/stat').read().rpartition(')')[2].split()[0]\n"
            "    except OSError: continue\n    if s != 'Z': print(p, c)"
        )
        lines = self.lab.exec(self.node, ["python3", "-c", code]).stdout.splitlines()
        return [int(line.split()[0]) for line in lines if re.search(pattern, line) and "os.listdir" not in line]

    def left(self, pattern: str) -> list[int]:
        """The processes that are still there after ten seconds; what was killed takes a moment to go."""
        for _attempt in range(100):
            if not (found := self.processes(pattern)):
                break
            time.sleep(0.1)
        return found
