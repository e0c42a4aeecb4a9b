# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The house rules that no other linter knows. Prints one line a violation; exit status 1 when there is any."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SHELLS = re.compile(r"^ansible\.(builtin|legacy)\.(shell|raw)$")
COMMANDS = re.compile(r"^ansible\.(builtin|legacy)\.command$")
# A site's package source is the business of its machines: no address of one belongs here.
PACKAGE_SOURCE = re.compile(
    r"https?://[^/\s\"'<>]*(pypi|pythonhosted|npm|registry|mirror|artifactory|(?<!\w)deb\.|goproxy)"
)
CAPABILITY = re.compile(r"\b[A-J]\d{1,2}\b")


class Loader(yaml.SafeLoader):
    """Reads Ansible's YAML; values behind tags such as !vault are of no interest here."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def files() -> list[Path]:
    """Every file of the tree that git would commit."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [path for name in sorted(set(listing.split("\0")) - {""}) if (path := ROOT / name).is_file()]


def load(path: Path) -> Any:
    """The first document of a YAML file, None when the file is not there."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader) if path.is_file() else None


def mappings(node: Any) -> Iterator[dict[Any, Any]]:
    """Every mapping inside a YAML value."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from mappings(value)


def check_tasks(path: Path) -> Iterator[str]:
    """No shell, no raw, and commands as argument lists."""
    for mapping in mappings(load(path)):
        for key, value in mapping.items():
            if SHELLS.match(str(key)):
                yield f"task {mapping.get('name')!r} uses {key}: use a module, or ansible.builtin.command with argv"
            elif COMMANDS.match(str(key)) and not (isinstance(value, dict) and "argv" in value):
                yield f"task {mapping.get('name')!r} gives {key} a string: give it argv, a list"


def check_text(path: Path) -> Iterator[str]:
    """No address of a package source, no path of the machine this runs on."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        if found := PACKAGE_SOURCE.search(line):
            yield f"line {number} names a package source: {found.group()}"
        if f"{ROOT}/" in line:
            yield f"line {number} names a path of this machine: {ROOT}/"


def check_role(role: Path) -> Iterator[str]:
    """A README, a typed interface whose defaults are the role's defaults, and a Molecule scenario."""
    if not (role / "README.md").is_file():
        yield "has no README.md"
    specs = load(role / "meta" / "argument_specs.yml")
    if not specs:
        yield "has no meta/argument_specs.yml"
        return
    options = specs["argument_specs"]["main"].get("options", {})
    defaults = load(role / "defaults" / "main.yml") or {}
    documented = {name: option["default"] for name, option in options.items() if "default" in option}
    for name in sorted(documented.keys() | defaults.keys()):
        if name not in defaults:
            yield f"{name} has a default in argument_specs but not in defaults/main.yml"
        elif name not in documented:
            yield f"{name} has a default in defaults/main.yml but not in argument_specs"
        elif documented[name] != defaults[name]:
            yield f"{name} is {defaults[name]!r} in defaults/main.yml but {documented[name]!r} in argument_specs"
    for name in options:
        if not name.startswith(f"{role.name}_"):
            yield f"{name} does not start with {role.name}_"
    scenarios = (ROOT / "molecule").glob("*/*.yml")
    reference = re.compile(rf"worklog\.maintenance\.{role.name}\b")
    if not any(reference.search(path.read_text(encoding="utf-8")) for path in scenarios):
        yield "is not used by any scenario under molecule/"


def check_playbook(path: Path) -> Iterator[str]:
    """A header, no play that --limit leaves out, other playbooks of this collection by their file."""
    for play in load(path) or []:
        if str(play.get("ansible.builtin.import_playbook")).startswith("worklog.maintenance."):
            yield f"'{play.get('name')}' imports by collection name, which Galaxy's importer cannot find: name the file"
        if play.get("hosts") == "localhost":
            yield f"the play '{play.get('name')}' is skipped with --limit: write localhost:all, and run_once"
    lines = path.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines[:4] if line.startswith("#")]
    if len(header) < 2:
        yield "has no header: begin with comment lines that tell what it does and which variables it takes"


def check_capabilities(tests: list[Path]) -> Iterator[str]:
    """Tests name known capabilities only, and what is called done is named by a test."""
    page = ROOT / "docs" / "capabilities.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    known = {row.split("|")[1].strip(): row.split("|")[3].strip() for row in rows}
    used: set[str] = set()
    for path in tests:
        text = path.read_text(encoding="utf-8")
        marks = re.findall(r"mark\.capability\(([^)]*)\)", text) + re.findall(r"#.*\bcapabilit(?:y|ies):(.*)", text)
        for identifier in {found for mark in marks for found in CAPABILITY.findall(mark)}:
            used.add(identifier)
            if identifier not in known:
                yield f"{path.relative_to(ROOT)}: capability {identifier} is not in docs/capabilities.md"
    for identifier, status in known.items():
        if status == "done" and identifier not in used:
            yield f"docs/capabilities.md: {identifier} is called done but no test is marked with it"


def main() -> int:
    """Run every check and print the violations."""
    found: list[str] = []
    tests: list[Path] = []
    for path in files():
        name = path.relative_to(ROOT)
        problems = list(check_text(path)) if name.name != "LICENSE" else []
        if name.suffix in (".yml", ".yaml") and name.parts[0] in ("roles", "playbooks", "molecule", "inventories"):
            problems += check_tasks(path)
        if name.match("playbooks/*.yml"):
            problems += check_playbook(path)
        if name.parts[0] in ("tests", "molecule") and name.suffix in (".py", ".yml"):
            tests.append(path)
        found += [f"{name}: {problem}" for problem in problems]
    for role in sorted(path for path in (ROOT / "roles").glob("*") if any(path.glob("**/*.yml"))):
        found += [f"roles/{role.name}: {problem}" for problem in check_role(role)]
    found += check_capabilities(tests)
    print("\n".join(found) if found else "house-check: no violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
