# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is written into a configuration of nginx and taken out again, and where a limit would do harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.base import Change
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.mode import Access, Site
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.maintenance.nginx import Nginx
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import TrafficError

from tests.unit.plugins.module_utils.nginx.machine import Machine

SHOP = "server { server_name shop.example.com; }"


def nginx(directory: Path, http: str, site: str = "shop.example.com") -> Nginx:
    (directory / "conf.d").mkdir(exist_ok=True)
    machine = Machine(directory, f"http {{\ninclude conf.d/*.conf;\n{http}\n}}\n")
    return Nginx(Site(site), Access("nginx"), machine.system(), str(directory / "modes"))


def write(changes: list[Change]) -> None:
    for change in changes:
        path = Path(change.path)
        path.parent.mkdir(exist_ok=True)
        if change.new is None:
            path.unlink()
        else:
            path.write_bytes(change.new)


@pytest.mark.parametrize(
    "http",
    [
        SHOP,
        "server {\n\tlisten 80;\n\tserver_name other.example.com shop.example.com;\n}",
        "server { listen 80; server_name shop.example.com; return 301 https://x; }"
        "server {\n    listen 443 ssl;\n    server_name shop.example.com;\n    location / { }\n}\n",
    ],
)
def test_each_server_of_the_site_includes_it_until_it_is_taken_out(tmp_path: Path, http: str) -> None:
    balancer = nginx(tmp_path, http)
    before = Path(balancer.instance.config).read_bytes()
    write(balancer.changes(present=True, overwrite=False))
    text = Path(balancer.instance.config).read_text()
    assert text.count(f"include {balancer.in_server};") == http.count("shop.example.com")
    assert balancer.changes(present=True, overwrite=False) == []
    write(balancer.changes(present=False, overwrite=False))
    assert Path(balancer.instance.config).read_bytes() == before
    assert not Path(balancer.in_server).exists() and not Path(balancer.in_http).exists()


@pytest.mark.parametrize(
    ("http", "site", "word"),
    [
        (SHOP, "shpo.example.com", "shop.example.com"),
        ("server { server_name *.example.com; }", "shop.example.com", "answers for others too"),
        ("open_file_cache max=10;" + SHOP, "shop.example.com", "would see a mode late"),
        ("server {", "shop.example.com", "is broken already, nothing was touched"),
    ],
)
def test_what_is_refused(tmp_path: Path, http: str, site: str, word: str) -> None:
    with pytest.raises(TrafficError, match=word) as caught:
        nginx(tmp_path, http, site).changes(present=True, overwrite=False)
    assert caught.value.refused and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("http", "harm"),
    [
        (SHOP, False),
        ("limit_req zone=x;" + SHOP, True),
        ("server { server_name shop.example.com; limit_req_status 444; }", True),
        ("server { server_name shop.example.com; location / { limit_req zone=x; } }", True),
        ("error_page 404 /x;" + SHOP, True),
        ("error_page 404 /x; server { server_name shop.example.com; error_page 404 /y; }", False),
        ("server { server_name shop.example.com; location / { error_page 404 /x; } }", True),
        ("server { server_name other.example.com; limit_req zone=x; }" + SHOP, False),
    ],
)
def test_a_limit_that_would_do_harm_is_left_out(tmp_path: Path, http: str, harm: bool) -> None:
    balancer = nginx(tmp_path, http)
    for _time in range(2):  # also when our own limit is there already
        assert bool(balancer.no_limit()) == harm
        write(balancer.changes(present=True, overwrite=False))
    assert ("limit_req zone" in Path(balancer.in_server).read_text()) == (not harm)


def test_what_was_edited_by_hand_is_left_alone(tmp_path: Path) -> None:
    balancer = nginx(tmp_path, SHOP)
    write(balancer.changes(present=True, overwrite=False))
    with open(balancer.in_server, "a") as stream:
        stream.write("# mine\n")
    for present in (True, False):
        with pytest.raises(TrafficError, match="was edited by hand") as caught:
            balancer.changes(present=present, overwrite=False)
        assert caught.value.refused
    assert [change.path for change in balancer.changes(present=True, overwrite=True)] == [balancer.in_server]
    assert balancer.findings[-1].check == "maintenance.edited"


@pytest.mark.parametrize("mode", ["page", "read_only", "limit"])
def test_a_switch_is_one_link(tmp_path: Path, mode: str) -> None:
    balancer = nginx(tmp_path, SHOP)
    assert balancer.mode() == "off"
    balancer.switch("page")
    balancer.switch(mode)
    found = [name for name in ("page", "read_only", "limit") if (Path(balancer.flag) / name).is_file()]
    assert balancer.mode() == mode and found == [mode]
    balancer.switch("off")
    balancer.switch("off")
    assert balancer.mode() == "off" and not Path(balancer.flag).exists()
