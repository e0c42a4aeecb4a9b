# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program of this collection as one file: a zip archive that Python runs, equal bytes from equal sources."""

from __future__ import annotations

import ast
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

#: Where the modules of all programs are, and what they are called when they are imported.
MODULE_UTILS = Path(__file__).resolve().parents[1] / "module_utils"
PACKAGE = "ansible_collections.worklog.maintenance.plugins.module_utils"

_SHEBANG = b"#!/usr/bin/python3\n"
_MAIN = "import sys\n\nfrom {package} import main\n\nsys.exit(main())\n"

#: Every entry has the same date, the first that a zip archive can hold.
_DATE = (1980, 1, 1, 0, 0, 0)


class ProgramError(Exception):
    """The program cannot be built; the message says why."""


def build(module: str, root: Path = MODULE_UTILS) -> bytes:
    """Return a program that calls ``main()`` of a module, with everything of this collection that it imports.

    :param module: its name below ``module_utils``, with dots.
    :param root: the directory ``module_utils``.
    :raises ProgramError: when something is missing, or is not there on a host.
    """
    entries = {"__main__.py": _MAIN.format(package=f"{PACKAGE}.{module}")}
    for name, source in _closure(module, root).items():
        path = f"{PACKAGE}.{name}".replace(".", "/") + ".py"
        entries[path] = source
        for parent in Path(path).parents[:-1]:
            # A package without this file loses against one of the same name that is installed on the host.
            entries[f"{parent}/__init__.py"] = ""
    archive = io.BytesIO()
    archive.write(_SHEBANG)
    # Not compressed: what zlib makes of equal bytes differs between its versions.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        for path, source in sorted(entries.items()):
            entry = zipfile.ZipInfo(path, _DATE)
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3  # Unix, whatever the controller is
            out.writestr(entry, source)
    return archive.getvalue()


def install(action: ActionBase, content: bytes, path: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Copy a program to the host, as ansible.builtin.copy does, and return what that returns.

    :param action: the action plugin whose task asks for it.
    :param path: where it goes; it belongs to root and everybody may run it.
    """
    descriptor, source = tempfile.mkstemp(prefix="worklog-program-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        task = action._task.copy()
        task.args = {"src": source, "dest": path, "owner": "root", "group": "root", "mode": "0755"}
        task.diff = False
        copy = action._shared_loader_obj.action_loader.get(
            "ansible.legacy.copy",
            task=task,
            connection=action._connection,
            play_context=action._play_context,
            loader=action._loader,
            templar=action._templar,
            shared_loader_obj=action._shared_loader_obj,
        )
        result: dict[str, Any] = copy.run(task_vars=variables)
        result.pop("src", None)  # a temporary file
        return result
    finally:
        os.unlink(source)


def _closure(module: str, root: Path) -> dict[str, str]:
    """Return the source of a module and of all that it imports, by name below ``module_utils``."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        try:
            found[name] = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ProgramError(f"{name} cannot be read: {error}") from error
        waiting += _imports(name, found[name], root)
    return found


def _imports(name: str, source: str, root: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # What is imported from a package is a module, what is imported from a module is a part of it.
            inside = node.module.removeprefix(PACKAGE).strip(".").split(".")
            is_module = root.joinpath(*inside).with_suffix(".py").is_file()
            wanted = [node.module] if is_module else [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for other in wanted:
            if other.startswith(PACKAGE + "."):
                yield other[len(PACKAGE) + 1 :]
            elif other.partition(".")[0] == "ansible":
                raise ProgramError(f"{name} imports {other}, which is not there on a host")
