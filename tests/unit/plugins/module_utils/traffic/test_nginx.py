# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The strategies of nginx on a machine of plain files; tests/system does the same on a real nginx."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic import work
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.balancer import Request
from ansible_collections.worklog.maintenance.plugins.module_utils.traffic.split import Side, TrafficError

from tests.unit.plugins.module_utils.nginx.machine import Machine

CONFIG = """error_log {directory}/error.log;
http {{
    include {directory}/conf.d/*.conf;
    upstream linked {{ server unix:{directory}/current.sock; {keepalive} }}
    server {{
        {cache}
        if (-f {directory}/flag) {{ set $side green; }}
        if (-f {directory}/blue.out) {{ set $out blue; }}
        if (-f {directory}/green.out) {{ set $out green; }}
        location / {{ proxy_pass http://$side; }}
    }}
}}
"""


class Setting:
    """An nginx with something to divide for every strategy."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "conf.d").mkdir()
        self.machine = Machine(directory, self.text())
        self.include = directory / "conf.d" / "split.conf"
        self.link, self.flag = directory / "current.sock", directory / "flag"

    def text(self, keepalive: str = "", cache: str = "") -> str:
        return CONFIG.format(directory=self.directory, keepalive=keepalive, cache=cache)

    def call(self, strategy: str, blue: float | None, green: float | None, **options: Any) -> work.Outcome:
        servers = {"blue": ("127.0.0.1:9101",), "green": ("127.0.0.1:9102",)}
        path = {"nginx_socket": self.link, "nginx_flag": self.flag}.get(strategy, self.include)
        if strategy == "nginx_socket":
            servers = {name: (f"unix:{self.directory}/{name}.sock",) for name in servers}
        given = {"path": str(path), "upstream": "web", "key": "$cookie_uid", "variable": "side", **options}
        sides = [Side("blue", servers["blue"], blue), Side("green", servers["green"], green)]
        request = Request(strategy, sides, **given)
        system = self.machine.system()
        return work.carry_out(request, system, work.make(request, system))

    def refusal(self, strategy: str, *shares: float | None, **options: Any) -> str:
        with pytest.raises(TrafficError) as error:
            self.call(strategy, *(shares or (0, 100)), **options)
        assert error.value.refused
        return str(error.value)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    with socket.socket(socket.AF_UNIX) as blue, socket.socket(socket.AF_UNIX) as green:
        for name, one in (("blue", blue), ("green", green)):
            one.bind(str(tmp_path / f"{name}.sock"))
            one.listen()
        yield Setting(tmp_path)


@pytest.mark.parametrize("strategy", ["nginx_include", "nginx_split_clients"])
def test_an_include_is_written_loaded_and_proven(setting: Setting, strategy: str) -> None:
    planned = setting.call(strategy, 90, 10, check_mode=True)
    assert planned.changed and not setting.include.exists() and setting.machine.serving() == [200, 201]
    done = setting.call(strategy, 90, 10)
    assert done.changed and done.diff == planned.diff and done.after.division == {"blue": 90, "green": 10}
    assert (done.proof["old_workers"], done.proof["new_workers"]) == ([200, 201], [202, 203])
    assert not setting.call(strategy, 90, 10).changed and setting.machine.serving() == [202, 203]
    assert setting.call(strategy, None, None).before.division == {"blue": 90, "green": 10}
    back = setting.call(strategy, 90, 10, restore=work.as_dict(done.before))
    assert back.changed and not setting.include.exists()


def test_a_reload_that_does_not_happen_puts_the_old_file_back(setting: Setting) -> None:
    setting.call("nginx_include", 100, 0)
    old = setting.include.read_text()
    setting.machine.reloads = False
    setting.machine.log = (
        "2026/01/01 10:00:00 [emerg] 100#100: bind() to 0.0.0.0:81 failed (98: Address already in use)\n"
    )
    with pytest.raises(TrafficError, match="go on with the old configuration: bind") as error:
        setting.call("nginx_include", 0, 100, timeout=1)
    assert not error.value.refused and setting.include.read_text() == old


def test_a_file_that_nginx_refuses_is_put_back_without_a_reload(setting: Setting) -> None:
    setting.call("nginx_include", 100, 0)
    old, workers = setting.include.read_text(), setting.machine.serving()
    run = setting.machine.run

    def refusing(argv: Any, **options: Any) -> Any:
        result = run(argv, **options)
        bad = list(argv)[-1] == "-t" and "green 100" in setting.include.read_text()
        return type(result)(result.argv, 1, "", "[emerg] unknown directive", 0.0) if bad else result

    setting.machine.run = refusing  # type: ignore[method-assign]
    with pytest.raises(TrafficError, match=r"nginx refuses the new division: .*the old division is back: blue 100 %"):
        setting.call("nginx_include", 0, 100)
    assert setting.include.read_text() == old and setting.machine.serving() == workers


def test_a_run_that_was_cut_off_before_the_reload_is_finished(setting: Setting) -> None:
    setting.call("nginx_include", 0, 100)
    for pid in setting.machine.serving():  # as if they were older than the file
        home = setting.machine.proc / str(pid) / "stat"
        home.write_text(home.read_text().replace(f"{setting.machine.ticks}", "0"))
    done = setting.call("nginx_include", 0, 100)
    assert done.changed and done.proof["new_workers"] == setting.machine.serving()


def test_a_file_of_somebody_is_left_alone(setting: Setting) -> None:
    setting.include.write_text("upstream web { server 127.0.0.1:1; }\n")
    assert "was not written by this module" in setting.refusal("nginx_include")
    read = setting.call("nginx_include", None, None)
    assert read.before.division == {"blue": 0, "green": 0, "127.0.0.1:1": 100}
    setting.include.write_text("upstream web { server 127.0.0.1:1;")
    assert "is not whole (a block is not closed)" in setting.refusal("nginx_include")
    assert "is not included by" in _after(setting, str(setting.directory / "elsewhere.conf"))


def _after(setting: Setting, path: str) -> str:
    setting.include.unlink()
    with pytest.raises(TrafficError) as error:
        setting.call("nginx_include", 0, 100, path=path)
    assert not os.path.exists(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("strategy", "options", "words"),
    [
        ("nginx_include", {"upstream": "a {"}, "'a {' is no name for an upstream"),
        ("nginx_include", {"upstream_options": ["zone x; }"]}, "that nginx would take for something else"),
        ("nginx_split_clients", {"key": ""}, "is no key for split_clients"),
        ("nginx_split_clients", {"key": '" x'}, "is no key for split_clients"),
        ("nginx_split_clients", {"variable": "a-b"}, "is no name for a variable"),
    ],
)
def test_words_that_nginx_would_misread(setting: Setting, strategy: str, options: dict[str, Any], words: str) -> None:
    assert words in setting.refusal(strategy, **options)


# -- without a reload -----------------------------------------------------------------------------------------------


def test_a_link_is_replaced(setting: Setting) -> None:
    os.symlink("blue.sock", setting.link)
    read = setting.call("nginx_socket", None, None)
    assert read.before.division == {"blue": 100, "green": 0} and not read.changed
    assert not setting.call("nginx_socket", 100, 0).changed  # however the link is spelt
    planned = setting.call("nginx_socket", 0, 100, check_mode=True)
    assert planned.changed and os.readlink(setting.link) == "blue.sock"
    done = setting.call("nginx_socket", 0, 100)
    assert done.changed and os.readlink(setting.link) == f"{setting.directory}/green.sock"
    assert not setting.call("nginx_socket", 0, 100).changed
    setting.call("nginx_socket", 0, 100, restore=work.as_dict(done.before))
    assert os.readlink(setting.link) == "blue.sock"
    assert setting.machine.serving() == [200, 201] and not list(setting.directory.glob("*.new"))


def test_links_that_would_not_do(setting: Setting) -> None:
    os.symlink("blue.sock", setting.link)
    assert "gives all or nothing, not 50 % to blue" in setting.refusal("nginx_socket", 50, 50)
    assert "sends to unix:/x/y" in setting.refusal("nginx_socket", path="/x/y")
    os.unlink(setting.directory / "green.sock")
    assert "green.sock (No such file or directory); start that side first" in setting.refusal("nginx_socket")
    setting.machine.config.write_text(setting.text(keepalive="keepalive 8;"))
    assert "keeps connections" in setting.refusal("nginx_socket")
    setting.machine.config.write_text(setting.text())
    os.unlink(setting.link)
    setting.link.write_text("")
    assert "is not a symbolic link" in setting.refusal("nginx_socket")


def test_a_flag_is_made_and_removed(setting: Setting) -> None:
    planned = setting.call("nginx_flag", 0, 100, check_mode=True)
    assert planned.changed and not setting.flag.exists()
    done = setting.call("nginx_flag", 0, 100)
    assert done.changed and setting.flag.exists() and done.after.division == {"blue": 0, "green": 100}
    assert not setting.call("nginx_flag", 0, 100).changed
    setting.call("nginx_flag", 0, 100, restore=work.as_dict(done.before))
    assert not setting.flag.exists() and not setting.call("nginx_flag", 100, 0).changed


def test_each_side_has_a_flag(setting: Setting) -> None:
    flags = {"path": f"{setting.directory}/<side>.out"}
    blue, green = (setting.directory / f"{side}.out" for side in ("blue", "green"))
    done = setting.call("nginx_flags", 0, 100, **flags)
    assert done.changed and (blue.exists(), green.exists()) == (True, False)
    assert done.before.division == {"blue": 50, "green": 50} and done.after.division == {"blue": 0, "green": 100}
    assert not setting.call("nginx_flags", 0, 100, **flags).changed
    back = setting.call("nginx_flags", 0, 100, restore=work.as_dict(done.before), **flags)
    assert back.changed and not (blue.exists() or green.exists())
    blue.touch()
    green.touch()
    assert setting.call("nginx_flags", None, None, **flags).after.division == {"blue": 0, "green": 0}
    assert setting.call("nginx_flags", 90, 10, **flags).after.division == {"blue": 50, "green": 50}
    assert "write <side> into its path" in setting.refusal("nginx_flags", path="/x/y")
    assert "looks for /x/blue" in setting.refusal("nginx_flags", path="/x/<side>")


def test_flags_that_would_not_do(setting: Setting) -> None:
    assert "gives all or nothing" in setting.refusal("nginx_flag", 90, 10)
    assert "looks for /x/y" in setting.refusal("nginx_flag", path="/x/y")
    for cache in ("open_file_cache max=10;", "open_file_cache max=10 inactive=9s;"):
        setting.machine.config.write_text(setting.text(cache=cache))
        assert "would see" in setting.refusal("nginx_flag")
    setting.machine.config.write_text(setting.text(cache="open_file_cache off;"))
    assert setting.call("nginx_flag", 0, 100).changed
    setting.machine.end(100)
    assert "nginx does not run" in setting.refusal("nginx_flag", executable="/usr/sbin/nginx")


def test_a_broken_configuration_is_told(setting: Setting) -> None:
    setting.machine.config.write_text("http { server {")
    for strategy in ("nginx_flag", "nginx_socket"):
        assert "is broken already, nothing was touched" in setting.refusal(strategy)


def test_states_are_of_haproxy(setting: Setting) -> None:
    request = Request("nginx_flag", [Side("a", state="maint"), Side("b")], path=str(setting.flag))
    system = setting.machine.system()
    with pytest.raises(TrafficError, match="'weight' and 'state' are of haproxy"):
        work.carry_out(request, system, work.make(request, system))


def test_what_was_found_is_noted_before_anything_is_changed(setting: Setting) -> None:
    noted: list[tuple[dict[str, Any], bool]] = []

    def note(before: dict[str, Any]) -> None:
        noted.append((before, setting.flag.exists()))

    def refuse(before: dict[str, Any]) -> None:
        raise OSError("the disk is full")

    def run(note: Callable[[dict[str, Any]], None], check_mode: bool = False) -> None:
        sides = [Side("blue", ("127.0.0.1:9101",), 0), Side("green", ("127.0.0.1:9102",), 100)]
        request = Request("nginx_flag", sides, path=str(setting.flag), check_mode=check_mode)
        system = setting.machine.system()
        work.carry_out(request, system, work.make(request, system), note=note)

    run(note, check_mode=True)
    assert noted == []
    with pytest.raises(OSError, match="full"):
        run(refuse)
    assert not setting.flag.exists()
    run(note)
    ((before, was_there),) = noted
    assert before["division"] == {"blue": 100, "green": 0} and not was_there and setting.flag.exists()
