# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx_upload_limit on a real nginx: what it promises, and what it leaves behind when something fails."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crossplane
import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import effective
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, Tree

from tests.unit.plugins.module_utils.nginx import configs

ROOT = Path(__file__).resolve().parents[2]
SITE = "/etc/nginx/sites-available/worklog.example.test"
NAME = "worklog.example.test"
pytestmark = [pytest.mark.capability("F3")]


class Nginx:
    """The nginx of lb1 and the module on it."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab

    def module(self, *flags: str, **options: Any) -> dict[str, Any]:
        """Run the module on lb1 and return its result."""
        result: dict[str, Any] = self.lab.module("lb1", "nginx_upload_limit", *flags, **options)
        return result

    def sh(self, *argv: str, check: bool = True) -> str:
        return str(self.lab.exec("lb1", list(argv), check=check).stdout)

    def write(self, path: str, text: str) -> None:
        self.lab.write("lb1", path, text)

    def state(self) -> str:
        """Every file of /etc/nginx with content, owner, mode and link target, and the workers that serve."""
        listing = self.sh("find", "/etc/nginx", "-printf", "%p %y %m %u:%g %l\n")
        sums = self.sh("find", "/etc/nginx", "-type", "f", "-exec", "sha256sum", "{}", "+")
        return "\n".join(sorted(listing.splitlines()) + sorted(sums.splitlines()))

    def workers(self) -> list[str]:
        """Those that stay; the ones before a reload take a moment to go."""
        seen: list[list[str]] = []
        while len(seen) < 2 or seen[-1] != seen[-2]:
            time.sleep(0.1)
            master = self.sh("cat", "/run/nginx.pid").strip()
            lines = self.sh("ps", "--ppid", master, "-o", "pid=,args=").splitlines()
            workers = [line.split()[0] for line in lines if "worker process" in line and "shutting down" not in line]
            seen.append(sorted(workers))
        return seen[-1]

    def status(self, size: int, path: str = "/upload", port: int = 80, name: str = NAME) -> int:
        """The status that nginx answers a declared body with."""
        out = self.sh(
            "curl", "--silent", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code}",
            "--header", f"Host: {name}", "--header", f"Content-Length: {size}", "--header", "Expect:",
            "--request", "POST", "--data-binary", "x" * min(size, 1000), f"http://127.0.0.1:{port}{path}", check=False,
        )  # fmt: skip
        return int(out or 0)


def found(result: dict[str, Any], check: str) -> list[dict[str, Any]]:
    return [finding for finding in result["findings"] if finding["check"] == check]


@pytest.fixture
def nginx(lab: Any, restore: Any) -> Iterator[Nginx]:
    """The nginx of lb1 as its image brings it, and after the test as it was before."""
    restore.run("lb1", ["systemctl", "reload", "nginx"])
    restore.path("lb1", "/etc/nginx")
    image = ROOT / "tests" / "lab" / "image" / "nginx" / "rootfs" / "etc" / "nginx"
    _docker("cp", f"{image}/.", f"{lab.container('lb1')}:/etc/nginx/")
    lab.exec("lb1", ["systemctl", "reload", "nginx"])
    yield Nginx(lab)


ASK = {"limit": "50m", "servers": [{"name": NAME}]}


# -- what it promises -----------------------------------------------------------------------------------------------


def test_the_limit_is_raised_and_proven(nginx: Nginx) -> None:
    before, old = nginx.sh("cat", SITE), nginx.workers()
    link = nginx.sh("readlink", f"/etc/nginx/sites-enabled/{NAME}")
    body = b"x" * (20 << 20)
    assert nginx.lab.request("lb1", 80, "/upload", host=NAME, method="POST", body=body)[0] == 413
    planned = nginx.module("--check", "--diff", **ASK)
    assert planned["changed"] and not planned["reloaded"]
    assert nginx.workers() == old and nginx.sh("cat", SITE) == before
    done = nginx.module("--diff", **ASK, probe=True)
    assert done["changed"] and done["reloaded"]
    assert done["diff"] == planned["diff"] and done["edits"] == planned["edits"] and done["limits"] == planned["limits"]
    assert nginx.sh("cat", SITE) == before.replace("server {\n", "server {\n\tclient_max_body_size 50m;\n", 1)
    assert nginx.sh("readlink", f"/etc/nginx/sites-enabled/{NAME}") == link
    assert sorted(map(str, done["proof"]["old_workers"])) == old
    assert sorted(map(str, done["proof"]["new_workers"])) == nginx.workers()
    assert [(one["size"], one["status"] == 413) for one in done["proof"]["probe"]] == [
        ((50 << 20) - 1, False),
        ((50 << 20) + 1, True),
    ]
    (limit,) = done["limits"]
    assert (limit["before"], limit["before_from"]) == (10 << 20, "/etc/nginx/nginx.conf:23")
    assert (limit["after"], limit["after_from"]) == (50 << 20, f"/etc/nginx/sites-enabled/{NAME}:2")
    assert nginx.sh("cat", *done["backups"].values()) == before
    assert nginx.lab.request("lb1", 80, "/upload", host=NAME, method="POST", body=body)[0] in (200, 201)

    now = nginx.workers()
    again = nginx.module(**ASK, probe=True)
    assert not again["changed"] and not again["reloaded"] and not again["edits"]
    assert nginx.workers() == now

    removed = nginx.module(state="absent", servers=[{"name": NAME}], probe=True)
    assert removed["changed"] and removed["proof"]["probe"][0]["size"] == (10 << 20) - 1
    assert nginx.sh("cat", SITE) == before


def test_several_servers_and_levels_at_once(nginx: Nginx) -> None:
    servers = [{"name": NAME}, {"name": "lowcode.example.test", "paths": ["/upload"], "limit": "30m"}]
    done = nginx.module(limit="50m", servers=servers, probe=True)
    assert [edit["kind"] for edit in done["edits"]] == ["replace", "insert"]
    assert nginx.status((30 << 20) + 1, name="lowcode.example.test") == 413
    assert nginx.status((10 << 20) + 1, "/other", name="lowcode.example.test") == 413
    raised = nginx.module(limit="12m", level="http")
    assert raised["edits"][0]["path"] == "/etc/nginx/nginx.conf"
    assert {one["check"] for one in raised["findings"]} >= {"nginx.upload_limit.also_changed"}
    hidden = nginx.module(limit="60m", level="server", servers=[{"name": "lowcode.example.test"}])
    (finding,) = found(hidden, "nginx.upload_limit.hidden")
    assert finding["severity"] == "warning" and "location = /upload" in finding["message"]


def test_layout_stays(nginx: Nginx) -> None:
    """CRLF, a link, a one-line block, bytes that are not UTF-8, mode, owner and extended attributes."""
    text = (
        "server { listen 80; server_name one.test; root /srv; }\r\n"
        "# caf\udce9\r\nserver {\r\n\tlisten 80;\r\n\tserver_name two.test;\r\n}"
    )
    nginx.write("/etc/nginx/odd", text)
    nginx.sh("chown", "www-data:adm", "/etc/nginx/odd")
    nginx.sh("chmod", "0604", "/etc/nginx/odd")
    nginx.sh("ln", "-s", "../odd", "/etc/nginx/sites-enabled/odd")
    nginx.sh("systemctl", "reload", "nginx")
    done = nginx.module(limit="3m", servers=[{"name": "one.test"}, {"name": "two.test"}], probe=True)
    assert done["changed"], done
    wanted = text.replace("{ listen", "{ client_max_body_size 3m; listen").replace(
        "server {\r\n", "server {\r\n\tclient_max_body_size 3m;\r\n"
    )
    assert nginx.sh("sha256sum", "/etc/nginx/odd").split()[0] == _sha256(wanted)
    assert nginx.sh("stat", "-c", "%U:%G %a", "/etc/nginx/odd").strip() == "www-data:adm 604"
    assert nginx.sh("readlink", "/etc/nginx/sites-enabled/odd").strip() == "../odd"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


# -- when something fails -------------------------------------------------------------------------------------------

WRAPPER = """#!/bin/sh
# a stricter nginx: it refuses 50m
case " $* " in *" -t "*) grep -rq 'client_max_body_size 50m' /etc/nginx && {do} ;; esac
exec /usr/sbin/nginx "$@"
"""


@pytest.fixture
def wrapper(nginx: Nginx, restore: Any) -> Any:
    """A program in front of nginx that does something as soon as nginx -t sees the new files."""
    restore.path("lb1", "/usr/local/sbin/nginx-wrapper")

    def make(what: str) -> str:
        nginx.write("/usr/local/sbin/nginx-wrapper", WRAPPER.replace("{do}", what))
        nginx.sh("chmod", "0755", "/usr/local/sbin/nginx-wrapper")
        return "/usr/local/sbin/nginx-wrapper"

    return make


def test_what_nginx_refuses_is_put_back(nginx: Nginx, wrapper: Any) -> None:
    program = wrapper("{ echo 'nginx: [emerg] too large for me in x:1' >&2; exit 1; }")
    state, workers = nginx.state(), nginx.workers()
    result = nginx.module(**ASK, executable=program)
    assert result["failed"] and "[emerg] too large for me in x:1" in result["msg"]
    assert "the files are as they were" in result["msg"]
    assert nginx.state() == state and nginx.workers() == workers


def test_a_run_killed_between_writing_and_reloading_is_finished_by_the_next(nginx: Nginx, wrapper: Any) -> None:
    program = wrapper("kill -9 $PPID")
    workers = nginx.workers()
    assert nginx.module(**ASK, executable=program)["failed"]
    assert "50m" in nginx.sh("cat", SITE) and nginx.workers() == workers
    assert nginx.status(20 << 20) == 413
    planned = nginx.module("--check", **ASK)
    assert planned["changed"] and not planned["edits"] and nginx.workers() == workers
    done = nginx.module(**ASK, probe=True)
    assert done["changed"] and done["reloaded"] and not done["edits"]
    assert found(done, "nginx.workers.older") and not set(workers) & set(nginx.workers())
    assert not nginx.module(**ASK)["changed"]


def test_a_reload_that_nginx_ignores_is_a_failure(nginx: Nginx, restore: Any) -> None:
    """Another change waits on disk, with an address that is taken: nginx says 0 and keeps the old configuration."""
    time.sleep(1)  # the workers of the test before have read what is there
    nginx.write("/etc/nginx/conf.d/other.conf", "server { listen 127.0.0.1:7099; server_name other.test; }\n")
    restore.run("lb1", ["systemctl", "stop", "holder.service"])
    nginx.sh("systemd-run", "--unit=holder", "/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "7099")
    nginx.sh(
        "curl", "--silent", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-o", "/dev/null",
        "http://127.0.0.1:7099/",
    )  # fmt: skip
    state, workers = nginx.state(), nginx.workers()
    result = nginx.module(**ASK, reload="signal", probe=True)
    assert result["failed"]
    assert "127.0.0.1:7099 failed (98: Address already in use)" in result["msg"]
    assert "go on with the old configuration" in result["msg"] and "the old files are back" in result["msg"]
    assert "other.conf" in found(result, "nginx.pending_change")[0]["message"]
    assert nginx.state() == state and nginx.workers() == workers
    assert nginx.status(20 << 20) == 413


def test_a_broken_configuration_is_not_touched(nginx: Nginx) -> None:
    nginx.write("/etc/nginx/conf.d/broken.conf", "server { listen 80 }\n")
    state = nginx.state()
    result = nginx.module(**ASK)
    assert result["failed"] and result["refused"] and "broken already" in result["msg"] and "[emerg]" in result["msg"]
    nginx.write("/etc/nginx/conf.d/broken.conf", "include conf.d/broken.conf;\n")
    result = nginx.module(**ASK)
    assert result["failed"] and result["refused"] and "broken already" in result["msg"]
    nginx.write("/etc/nginx/conf.d/broken.conf", "server { listen 80 }\n")
    assert nginx.state() == state


#: options beside those of ASK → what the message must say
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"limit": "50 m"}, "'50 m' is not a size nginx accepts"),
    ({"limit": "50t"}, "'50t' is not a size nginx accepts"),
    ({"limit": None}, f"the server '{NAME}' has no limit"),
    ({"servers": [{"name": "worklog.exmaple.test"}]}, f"did you mean {NAME}"),
    ({"servers": [{"name": NAME, "port": 443}]}, "no server listens on port 443"),
    ({"servers": [{"name": NAME, "paths": ["upload"]}]}, "does not start with '/'"),
    ({"servers": [{"name": NAME}, {"name": NAME, "limit": "1m"}]}, "they are asked to have 50m and 1m"),
    ({"servers": []}, "needs at least one server"),
    ({"config": "/etc/nginx/none.conf"}, "/etc/nginx/none.conf"),
    ({"executable": "/bin/true"}, "this is not nginx"),
    ({"container": "none", "probe": False}, "neither docker nor podman is installed"),
    ({"probe_urls": [{"url": "ftp://x/"}]}, "is not an http or https URL"),
    ({"servers": [{"name": "none.test", "default_server": True}], "limit": "x"}, "'x' is not a size nginx accepts"),
]


def test_wrong_input_is_one_clear_sentence(nginx: Nginx) -> None:
    state, workers = nginx.state(), nginx.workers()
    for options, words in WRONG:
        result = nginx.module(**{**ASK, **options})
        assert result["failed"] and result["refused"] and words in result["msg"], (options, result)
        assert "Traceback" not in json.dumps(result)
    assert nginx.state() == state and nginx.workers() == workers


# -- other instances ------------------------------------------------------------------------------------------------

SMALL = """pid /mnt/small/nginx.pid;
error_log /mnt/small/error.log;
events {}
http {
    access_log off;
    client_body_temp_path /mnt/small/body;
    server { listen 127.0.0.1:7080; server_name small.test; location / { proxy_pass http://127.0.0.1:9; } }
}
"""
ON_SMALL = {"limit": "5m", "servers": [{"name": "small.test"}], "config": "/mnt/small/nginx.conf"}


@pytest.fixture
def small(nginx: Nginx, restore: Any) -> Nginx:
    """A second nginx on a small file system of its own."""
    restore.run("lb1", ["umount", "--lazy", "/mnt/small"])
    nginx.sh("mkdir", "-p", "/mnt/small")
    nginx.sh("mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=200,mode=0755", "tmpfs", "/mnt/small")
    nginx.write("/mnt/small/nginx.conf", SMALL)
    restore.run("lb1", ["sh", "-c", "test ! -s /mnt/small/nginx.pid || kill -QUIT $(cat /mnt/small/nginx.pid)"])
    nginx.sh("nginx", "-c", "/mnt/small/nginx.conf")
    return nginx


def test_one_of_several_masters(small: Nginx) -> None:
    result = small.module(limit="5m", servers=[{"name": "small.test"}])
    assert result["failed"] and "several nginx masters run here" in result["msg"]
    assert "/etc/nginx/nginx.conf" in result["msg"] and "/mnt/small/nginx.conf" in result["msg"]
    workers, state = small.workers(), small.state()
    done = small.module(**ON_SMALL, probe=True)
    assert done["reloaded"] and done["proof"]["probe"][1]["status"] == 413
    assert small.workers() == workers and small.state() == state
    assert small.status((5 << 20) + 1, "/", 7080, "small.test") == 413
    # the disk is smaller than one upload
    (finding,) = found(done, "nginx.client_body_temp_path.space")
    assert finding["severity"] == "warning" and finding["limit"] == 5 << 20


def test_a_stopped_nginx_gets_its_limit_for_the_next_start(small: Nginx) -> None:
    small.sh("nginx", "-c", "/mnt/small/nginx.conf", "-s", "stop")
    result = small.module(**ON_SMALL, require_running=True)
    assert result["failed"] and result["refused"] and "does not run" in result["msg"]
    done = small.module(**ON_SMALL, probe=True)
    assert done["changed"] and not done["reloaded"] and found(done, "nginx.not_running")[0]["severity"] == "warning"
    small.sh("nginx", "-c", "/mnt/small/nginx.conf")
    assert small.status((5 << 20) + 1, "/", 7080, "small.test") == 413


def test_a_full_disk_and_a_read_only_one_leave_the_file_alone(small: Nginx) -> None:
    small.sh("sh", "-c", "head -c 1M /dev/zero > /mnt/small/filler || true")
    result = small.module(**ON_SMALL)
    assert result["failed"] and result["refused"] and "No space left on device" in result["msg"]
    assert small.sh("cat", "/mnt/small/nginx.conf") == SMALL
    small.sh("rm", "/mnt/small/filler")
    assert small.sh("ls", "-A", "/mnt/small").split() == ["body", "error.log", "nginx.conf", "nginx.pid"]
    small.sh("mount", "--bind", "/mnt/small/nginx.conf", "/mnt/small/nginx.conf")
    try:
        result = small.module(**ON_SMALL)
        assert result["failed"] and "busy" in result["msg"].lower()
    finally:
        small.sh("umount", "/mnt/small/nginx.conf")
    assert small.sh("cat", "/mnt/small/nginx.conf") == SMALL


def test_directories_that_cannot_be_written_are_found(small: Nginx) -> None:
    small.sh("chown", "root:root", "/mnt/small/body")
    small.sh("mkdir", "-m", "0755", "/mnt/small/uploads")
    done = small.module(
        **ON_SMALL,
        upload_directory="/mnt/small/uploads",
        upload_owner="www-data",
        slow_line="10k",
        application_limit="2m",
    )
    assert done["changed"]
    assert found(done, "application.upload_directory.permission")[0]["severity"] == "critical"
    assert "2m" in found(done, "application.limit")[0]["message"]
    assert found(done, "nginx.client_body_timeout")[0]["limit"] == 512.0
    assert found(done, "nginx.proxy_read_timeout")
    # nginx gives its own directory back to the workers whenever it reads its configuration, but not the one above
    small.sh("chmod", "0700", "/mnt/small")
    again = small.module(**ON_SMALL)
    assert not again["changed"], again
    assert "cannot be written by" in found(again, "nginx.client_body_temp_path.permission")[0]["message"]


def test_nginx_in_a_container(lab: Any, tmp_path: Path) -> None:
    """On the host of the engine, with /etc/nginx mounted from there."""
    image = json.loads(_docker("inspect", lab.container("lb1")))[0]["Config"]["Image"]
    etc = tmp_path / "nginx"
    etc.mkdir()
    (etc / "nginx.conf").write_text(
        "events {}\nhttp {\n  include /etc/nginx/sites/*;\n"
        "  server { listen 80; server_name other.test; return 204; }\n}\n"
    )
    (etc / "sites").mkdir()
    (etc / "a").write_text(
        "server {\n  listen 80;\n  server_name a.test;\n  location / { proxy_pass http://127.0.0.1:9; }\n}\n"
    )
    (etc / "sites" / "a").symlink_to("/etc/nginx/a")
    name = f"{lab.prefix}-mounted-nginx"
    _docker(
        "run", "--detach", "--rm", "--name", name, "--publish", "127.0.0.1::80", "--volume", f"{etc}:/etc/nginx",
        "--stop-signal", "SIGQUIT", "--entrypoint", "/usr/sbin/nginx", image, "-g", "daemon off;",
    )  # fmt: skip
    try:
        port = _docker("port", name, "80/tcp").split(":")[-1].strip()
        options = {"container": name, "limit": "7m", "servers": [{"name": "a.test"}]}
        probe = {"probe_urls": [{"url": f"http://127.0.0.1:{port}/", "host": "a.test"}]}
        result = lab.module("localhost", "nginx_upload_limit", probe=True, **options)
        assert result["failed"] and "probe_urls" in result["msg"]
        done = lab.module("localhost", "nginx_upload_limit", **options, **probe)
        assert done["reloaded"] and [one["status"] == 413 for one in done["proof"]["probe"]] == [False, True]
        assert "client_max_body_size 7m;" in (etc / "a").read_text()
        assert done["limits"][0]["after_from"] == "/etc/nginx/sites/a:2"
        assert not lab.module("localhost", "nginx_upload_limit", **options, **probe)["changed"]
    finally:
        _docker("rm", "--force", name)
    assert "there is no container" in lab.module("localhost", "nginx_upload_limit", **options)["msg"]


def _docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- the same answer as nginx and as crossplane ---------------------------------------------------------------------


def test_the_table_of_configurations_is_what_nginx_does(lab: Any, restore: Any) -> None:
    restore.path("lb1", "/opt/nginx-oracle")
    lab.exec("lb1", ["mkdir", "-p", "/opt/nginx-oracle"])
    _docker("cp", f"{configs.CONFIGS}/.", f"{lab.container('lb1')}:/opt/nginx-oracle/")
    _docker(
        "cp", str(Path(__file__).with_name("nginx_oracle.py")), f"{lab.container('lb1')}:/opt/nginx-oracle/oracle.py"
    )
    cases = []
    for case in configs.CASES:
        requests = []
        for one in case.expectations:
            if one.limit != "unknown" and not one.lua:
                limit = effective.parse_size(one.limit)
                sizes = [limit, limit + 1] if limit else [1 << 40]
                requests += [
                    {"host": one.host, "port": one.port or 8080, "path": one.path, "size": size} for size in sizes
                ]
        path = "/opt/nginx-oracle/" + str(case.path.relative_to(configs.CONFIGS))
        cases.append({"name": case.name, "path": path, "requests": requests})
    argv = ["unshare", "--net", "python3", "/opt/nginx-oracle/oracle.py"]
    answers = json.loads(lab.exec("lb1", argv, timeout=300, stdin=json.dumps(cases)).stdout)
    wrong = [problem for case in configs.CASES for problem in _differences(case, answers[case.name])]
    assert not wrong, "\n".join(wrong)


def _differences(case: configs.Case, nginx: dict[str, Any]) -> Iterator[str]:
    error = case.error if case.error is not None else case.nginx_error
    if error is not None:
        if nginx["valid"] or error not in nginx["words"]:
            yield f"{case.name}: nginx does not say {error!r} but {nginx['words']!r}"
        return
    if any(one.lua for one in case.expectations):
        return  # this nginx has no Lua
    if not nginx["valid"]:
        yield f"{case.name}: nginx refuses it: {nginx['words']}"
        return
    replies = list(nginx["answers"])
    for one in case.expectations:
        if one.limit == "unknown":
            continue
        status, body = replies.pop(0)
        if status in (0, 413) or (one.body and body != one.body):
            yield f"{case.name}: {one} at the limit: {status} {body!r}"
        if effective.parse_size(one.limit):
            status, body = replies.pop(0)
            if status != 413:
                yield f"{case.name}: {one} above the limit: {status} {body!r}"


def test_the_configuration_that_the_package_brings(lab: Any, restore: Any, tmp_path: Path) -> None:
    """Debian's own nginx.conf, sites, snippets and parameter files, which were not written here."""
    restore.path("lb1", "/opt/nginx-common")
    lab.exec("lb1", ["mkdir", "-p", "/opt/nginx-common"])
    steps = "cd /opt/nginx-common && apt-get download -qq nginx-common && dpkg-deb -x nginx-common*.deb ."
    done = lab.exec("lb1", ["sh", "-c", steps], check=False, timeout=120)
    if done.returncode:
        pytest.skip(f"the package nginx-common cannot be downloaded in lb1: {done.stderr}")
    _docker("cp", f"{lab.container('lb1')}:/opt/nginx-common/etc", str(tmp_path))
    etc = tmp_path / "etc" / "nginx"
    default = etc / "sites-available" / "default"
    # what an administrator does with these files: enable the site, PHP and TLS
    text = re.sub(
        r"(?m)^(\t)# ?(include snippets/snakeoil.conf;|listen 443 ssl default_server;)", r"\1\2", default.read_text()
    )
    text = text.replace(
        "#location ~ \\.php$ {\n\t#\tinclude snippets/fastcgi-php.conf;",
        "location ~ \\.php$ {\n\t\tinclude snippets/fastcgi-php.conf;",
    )
    default.write_text(
        re.sub(r"(?m)^\t#\tfastcgi_pass 127.0.0.1:9000;\n\t#}", "\t\tfastcgi_pass 127.0.0.1:9000;\n\t}", text)
    )
    (etc / "sites-enabled").mkdir(exist_ok=True)
    (etc / "sites-enabled" / "default").symlink_to("/etc/nginx/sites-available/default")
    config = Config("/etc/nginx/nginx.conf", Tree(str(tmp_path)))
    assert len(config.files) >= 5 and any(path.endswith("fastcgi-php.conf") for path in config.files)
    for path, (_ignored, directives) in config.files.items():
        real = str(tmp_path) + config.tree.real(path)
        parsed = crossplane.parse(real, single=True, check_ctx=False, check_args=False)
        assert parsed["status"] == "ok", parsed
        assert _shape(directives) == _crossplane_shape(parsed["config"][0]["parsed"]), path
    http = effective.build(config)
    (answer,) = effective.answers(http, "_")
    assert str(effective.find_location(answer.server, "/x.php")) == r"location ~ \.php$"
    assert effective.find_location(answer.server, "/x.php").limit == 1 << 20


def _shape(directives: Any) -> list[Any]:
    return [[one.name, one.args, one.source.line(one.start), _shape(one.block or [])] for one in directives]


def _crossplane_shape(directives: Any) -> list[Any]:
    return [[one["directive"], one["args"], one["line"], _crossplane_shape(one.get("block", []))] for one in directives]


# -- the playbook ---------------------------------------------------------------------------------------------------

PLAYBOOK = "worklog.maintenance.upload_limit"


def test_the_playbook_as_it_stands(nginx: Nginx) -> None:
    state = nginx.state()
    planned = nginx.lab.playbook(PLAYBOOK, "--check", "--diff")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "+\tclient_max_body_size 50m;" in planned.stdout and nginx.state() == state
    done = nginx.lab.playbook(PLAYBOOK, "-e", "nginx_upload_limit_servers=worklog.example.test,lowcode.example.test")
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(nginx.sh("tail", "-n", "1", "/var/log/worklog-maintenance/records.jsonl"))
    assert (record["what"], record["result"]) == ("upload_limit", "ok")
    assert [one["after"] for one in record["details"]["limits"]] == [50 << 20, 50 << 20]
    assert record["details"]["proof"]["new_workers"] and record["findings"]


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("nginx_upload_limit_limt=50m", "did you mean"),
        ("nginx_upload_limit_level=sever", "nginx_upload_limit_level"),
        ("nginx_upload_limit_timeout=soon", "nginx_upload_limit_timeout"),
        ("target=nowhere", "nowhere"),
    ],
)
def test_a_wrong_variable_of_the_playbook(lab: Any, variable: str, words: str) -> None:
    done = lab.playbook(PLAYBOOK, "-e", variable)
    assert done.returncode != 0 and words in done.stdout + done.stderr
    assert "Set the limit" not in done.stdout


def test_the_playbook_stops_when_one_node_fails(nginx: Nginx, tmp_path: Path) -> None:
    """Two names for one node: the first fails, so the second is not touched, and the failure is recorded."""
    container = nginx.lab.container("lb1")
    host = f"ansible_host={container} ansible_connection=community.docker.docker"
    inventory = tmp_path / "hosts.ini"
    inventory.write_text(
        f"[nginx]\nfirst {host} nginx_upload_limit_servers=nobody.test\n"
        f"second {host} nginx_upload_limit_servers={NAME}\n"
    )
    state = nginx.state()
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), PLAYBOOK]
    done = subprocess.run(
        [*argv, "-e", "nginx_upload_limit_limit=50m"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=180,
        check=False,
    )
    assert done.returncode != 0 and "no server has the name 'nobody.test'" in done.stdout
    assert "second" not in done.stdout.split("PLAY RECAP")[0] and nginx.state() == state
    record = json.loads(nginx.sh("tail", "-n", "1", "/var/log/worklog-maintenance/records.jsonl"))
    assert record["result"] == "refused" and "nobody.test" in record["details"]["message"]
