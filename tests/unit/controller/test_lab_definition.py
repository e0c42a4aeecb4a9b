# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""tests/lab/nodes.toml, the inventory and the images speak of the same lab."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
LAB = ROOT / "tests" / "lab"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """lab.py as a module."""
    spec = importlib.util.spec_from_file_location("lab_program", LAB / "lab.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["lab_program"] = module
    spec.loader.exec_module(module)
    return module


def hosts(group: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All hosts of a group and its children, with their variables."""
    found = {name: values or {} for name, values in group.get("hosts", {}).items()}
    for child in group.get("children", {}).values():
        found.update(hosts(child))
    return found


@pytest.fixture(scope="module")
def inventory() -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((ROOT / "inventories" / "lab" / "hosts.yml").read_text(encoding="utf-8"))
    return whole["all"]


def test_the_inventory_has_every_node_under_its_container_name(program: Any, inventory: dict[str, Any]) -> None:
    _unused, nodes = program.definition()
    assert {name: values["ansible_host"] for name, values in hosts(inventory).items()} == {
        name: "{{ lab_prefix }}-" + name for name in nodes
    }
    assert program.Copy("worklog").name("app1") == "worklog-app1"


def test_groups_hold_the_nodes_with_their_image(program: Any, inventory: dict[str, Any]) -> None:
    _unused, nodes = program.definition()
    groups = {**inventory["children"], **inventory["children"]["load_balancers"]["children"]}
    for group in ("nginx", "haproxy", "app", "database", "operations"):
        assert set(hosts(groups[group])) == {name for name, node in nodes.items() if node.image == group}


def test_the_application_ports_are_those_that_the_nodes_publish(program: Any) -> None:
    _unused, nodes = program.definition()
    ports = yaml.safe_load((ROOT / "inventories" / "lab" / "group_vars" / "app.yml").read_text(encoding="utf-8"))
    for name in ("app1", "app2"):
        assert list(nodes[name].ports) == ports["lab_application_ports"]


def test_one_application_node_runs_the_newer_release(program: Any) -> None:
    _unused, nodes = program.definition()
    assert {name for name, node in nodes.items() if node.release != "bookworm"} == {"app2"}


def test_every_image_has_a_setup_and_its_sources(program: Any) -> None:
    images, nodes = program.definition()
    assert {node.image for node in nodes.values()} == set(images)
    for name, copies in images.items():
        assert (LAB / "image" / name / "setup").is_file()
        for source in copies:
            if source.startswith("@"):
                artefact = source[1:].split("/")[0]
                assert (LAB / "mongo" / "go.sum" if artefact == "mongo" else LAB / "apps" / artefact).exists()
            else:
                assert (LAB / source).exists()


def test_nodes_need_only_nodes_that_exist(program: Any) -> None:
    _unused, nodes = program.definition()
    for node in nodes.values():
        assert set(node.needs) <= set(nodes)


def test_the_hash_of_an_image_follows_its_inputs(program: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(program, "LAB", tmp_path)
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "file"
    file.write_text("one", encoding="utf-8")
    seen = [program.digest([tmp_path / "a", "x"])]
    assert program.digest([tmp_path / "a", "x"]) == seen[0]
    file.write_text("two", encoding="utf-8")
    seen.append(program.digest([tmp_path / "a", "x"]))
    file.chmod(0o755)
    seen.append(program.digest([tmp_path / "a", "x"]))
    file.rename(tmp_path / "a" / "other")
    seen.append(program.digest([tmp_path / "a", "x"]))
    seen.append(program.digest([tmp_path / "a", "y"]))
    assert len(set(seen)) == 5
