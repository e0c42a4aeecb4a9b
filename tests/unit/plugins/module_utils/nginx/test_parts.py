# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import threading
from socket import create_server

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import (
    diagnose,
    effective,
    instance,
    plan,
    probe,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, Tree
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.pattern import PatternError, compile_pattern

from tests.unit.plugins.module_utils.nginx.machine import DASH_V, Machine

pytestmark = pytest.mark.capability("F3")


# -- which nginx ----------------------------------------------------------------------------------------------------


def test_what_is_compiled_in():
    build = instance.parse_build(DASH_V.format(conf="/etc/nginx/nginx.conf", body="/var/lib/nginx/body"))
    assert (build.version, build.prefix) == ("1.22.1", "/usr/share/nginx")
    assert build.path("conf-path", "x") == "/etc/nginx/nginx.conf"
    plain = instance.parse_build("nginx version: openresty/1.25.3.1\nconfigure arguments:\n")
    assert plain.path("conf-path", "conf/nginx.conf") == "/usr/local/nginx/conf/nginx.conf"
    with pytest.raises(instance.InstanceError, match="this is not nginx"):
        instance.parse_build("hello")


#: title of a master → its options
TITLES = [
    ("nginx: master process /usr/sbin/nginx -g daemon on; master_process on;", {"g": "daemon on; master_process on;"}),
    ("nginx: master process nginx -g daemon off;", {"g": "daemon off;"}),
    ("nginx: master process /opt/nginx/sbin/nginx", {}),
    ("nginx: master process nginx -p /srv/web -c conf/my.conf", {"p": "/srv/web", "c": "conf/my.conf"}),
    ("nginx: master process nginx -c/etc/other.conf -e stderr", {"c": "/etc/other.conf", "e": "stderr"}),
    ("nginx: master process nginx -c /etc/x.conf -q", {"c": "/etc/x.conf"}),
]


@pytest.mark.parametrize(("title", "options"), TITLES)
def test_options_of_a_master(title, options):
    assert instance.options_of(title) == options


def test_a_relative_configuration_of_another_prefix(tmp_path):
    (tmp_path / "conf").mkdir()
    machine = Machine(tmp_path, "http {}", f"/usr/sbin/nginx -p {tmp_path}/ -c conf/my.conf")
    found = instance.locate(machine.system())
    assert found.config == f"{tmp_path}/conf/my.conf"
    assert found.options == ("-p", f"{tmp_path}/", "-c", "conf/my.conf")
    assert found.unit in ("nginx.service", None)


def test_several_masters(tmp_path):
    machine = Machine(tmp_path, "http {}")
    machine.process(300, 1, "nginx: master process /usr/sbin/nginx -c /srv/other.conf")
    with pytest.raises(
        instance.InstanceError, match=r"several nginx masters run here \(pid 100 with .*, pid 300 with /srv/"
    ):
        instance.locate(machine.system())
    assert instance.locate(machine.system(), config="/srv/other.conf").master.pid == 300
    # one in a container on the same machine is not of this host
    machine.namespace = "pid:[2]"
    machine.end(300)
    machine.process(301, 1, "nginx: master process /usr/sbin/nginx -c /srv/other.conf")
    assert instance.locate(machine.system()).master.pid == 100


@pytest.fixture
def container(tmp_path, monkeypatch):
    monkeypatch.setattr(instance, "which", lambda name: f"/usr/bin/{name}")
    machine = Machine(tmp_path, "http {}")
    machine.inspect = {
        "State": {"Running": True, "Pid": 100},
        "Mounts": [
            {"Type": "bind", "Source": "/srv/nginx", "Destination": "/etc/nginx", "RW": True},
            {"Type": "bind", "Source": "/srv/one.conf", "Destination": "/etc/nginx/one.conf", "RW": True},
            {"Type": "volume", "Source": "/var/lib/docker/volumes/x/_data", "Destination": "/data", "RW": True},
            {"Type": "bind", "Source": "/nowhere/fixed", "Destination": "/fixed", "RW": False},
            {"Type": "tmpfs", "Source": "", "Destination": "/tmp"},
        ],
    }
    return machine


def test_a_container(container):
    found = instance.locate(container.system(), container="web")
    assert found.argv == ("docker", "exec", "web", "/usr/sbin/nginx") and found.unit is None
    assert found.tree.root == f"{container.proc}/100/root"
    assert found.outside("/etc/nginx/sites/a") == "/srv/nginx/sites/a"
    assert found.outside("/data/x") == "/var/lib/docker/volumes/x/_data/x"
    for path, words in [
        ("/usr/share/x", "lies in the image of container web"),
        ("/etc/nginx/one.conf", "mounted into container web as a single file"),
        ("/fixed/x", "cannot be written"),
        ("/etc/nginxx", "lies in the image"),
    ]:
        with pytest.raises(instance.InstanceError, match=words):
            found.outside(path)
    container.inspect["State"] = {"Running": False, "Pid": 0}
    with pytest.raises(instance.InstanceError, match="does not run; start it"):
        instance.locate(container.system(), container="web")


def test_files_that_changed(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("")
    (tmp_path / "nginx.conf").write_text("http { include sub/*; }")
    config = Config(str(tmp_path / "nginx.conf"), Tree())
    everything = {str(tmp_path / name) for name in ("nginx.conf", "sub", "sub/a")}
    assert set(instance.changed_since(config, 0.0)) == everything
    assert not instance.changed_since(config, os.stat(tmp_path / "sub" / "a").st_ctime + 3600)


def test_a_reading_that_is_interrupted_between_the_clocks_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file would seem to be newer than the worker that was started after it, and nginx be reloaded again."""
    since_boot = iter([20.0, 20.024, 20.0, 20.0, 20.0])
    monkeypatch.setattr(instance.time, "time", lambda: 1_000_020.0)
    monkeypatch.setattr(instance.time, "clock_gettime", lambda clock: next(since_boot))
    assert instance.boot_time() == 1_000_000.0


# -- asking ---------------------------------------------------------------------------------------------------------


class Server:
    """Answers each connection with fixed bytes and keeps what it was asked."""

    def __init__(self, answer: bytes):
        self.answer, self.asked = answer, []
        self.socket = create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ignored = self.socket.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(65536))
                if self.answer != b"silence":
                    connection.sendall(self.answer)
                else:
                    connection.recv(1)


@pytest.mark.parametrize(
    ("answer", "status"), [(b"HTTP/1.1 100 Continue\r\n\r\n", 100), (b"HTTP/1.1 413 Request Entity Too Large\r\n", 413)]
)
def test_ask(answer, status):
    server = Server(answer)
    one = probe.Probe("127.0.0.1", server.port, "a.test", "/up load/é?x=1", 5)
    assert probe.ask(one, 1 << 40, 5) == status
    server.socket.close()
    lines = server.asked[0].decode().split("\r\n")
    assert lines[0] == "POST /up%20load/%C3%A9?x=1 HTTP/1.1" and lines[-2:] == ["", ""]
    assert {"Host: a.test", "Content-Length: 1099511627776", "Expect: 100-continue"} <= set(lines)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "no HTTP answer"),
        (b"SSH-2.0-x\r\n", "no HTTP answer"),
        (b"silence", "no answer from .* within 0.2 s|timed out"),
    ],
)
def test_no_answer(answer, words):
    server = Server(answer)
    with pytest.raises(probe.ProbeError, match=words):
        probe.ask(probe.Probe("127.0.0.1", server.port, "a.test", "/", 5), 6, 0.2)
    server.socket.close()


def test_nobody_there():
    with create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(probe.ProbeError, match="no answer from"):
        probe.ask(probe.Probe("127.0.0.1", port, "a.test", "/", 5), 6, 2)


def test_sizes_asked():
    asked = []

    def asker(one, size, timeout):
        asked.append(size)
        return 413 if size > 5 else 100

    probe.prove_limit(probe.Probe("x", 1, "a", "/", 5), 1, asker)
    assert asked == [4, 6]
    with pytest.raises(probe.ProbeError, match="at a limit of unlimited"):
        probe.prove_limit(probe.Probe("x", 1, "a", "/", 0), 1, asker)


# -- findings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60),
        ("60s", 60),
        ("1m", 60),
        ("1m 30s", 90),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("2d", 172800),
        ("x", None),
        ("", None),
    ],
)
def test_times(text, seconds):
    assert diagnose.parse_time(text) == seconds


def findings(text, tmp_path, *asks, level="auto"):
    (tmp_path / "nginx.conf").write_text(text)
    config = Config(str(tmp_path / "nginx.conf"), Tree())
    made = plan.make(config, effective.build(config), asks, level, "50m")
    return {one.check: one for one in diagnose.about_plan(made, lambda target: 50 << 20)}


def test_a_limit_that_a_location_hides(tmp_path):
    text = """http { server { server_name a.test;
      location /low { client_max_body_size 1k; }
      location /high { client_max_body_size 1g; } } }"""
    (tmp_path / "nginx.conf").write_text(text)
    config = Config(str(tmp_path / "nginx.conf"), Tree())
    made = plan.make(config, effective.build(config), [plan.Ask("a.test", limit="50m")], "auto", "50m")
    hidden = [
        one for one in diagnose.about_plan(made, lambda target: 50 << 20) if one.check == "nginx.upload_limit.hidden"
    ]
    assert [(one.severity, one.observed) for one in hidden] == [("warning", 1024), ("info", 1 << 30)]


def test_a_fixed_level_that_does_not_reach_what_is_asked(tmp_path):
    text = "http { server { server_name a.test; client_max_body_size 1m; } }"
    found = findings(text, tmp_path, plan.Ask("a.test", ("/",), limit="50m"), level="http")
    assert found["nginx.upload_limit.hidden"].severity == "warning" and "nginx.upload_limit" not in found


def test_a_limit_that_overrides_the_one_above(tmp_path):
    text = "http { client_max_body_size 10m; server { server_name a.test; } server { server_name b.test; } }"
    found = findings(text, tmp_path, plan.Ask("a.test", limit="50m"))
    assert found["nginx.upload_limit.overrides"].limit == 10 << 20


def test_redirects_inside_nginx(tmp_path):
    text = "http { server { server_name a.test; location / { try_files $uri @app; } location @app { } } }"
    assert "try_files" in findings(text, tmp_path, plan.Ask("a.test", limit="50m"))["nginx.internal_redirect"].message


def test_the_limit_of_an_auth_request(tmp_path):
    """nginx compares the body with the limit of the subrequest's location too and answers 500."""
    text = """http { server { server_name a.test;
      location / { auth_request /auth; }
      location = /auth { client_max_body_size 1k; return 204; } } }"""
    found = findings(text, tmp_path, plan.Ask("a.test", ("/",), limit="50m"))
    assert found["nginx.auth_request"].observed == 1024
    assert "nginx.auth_request" not in findings(text, tmp_path, plan.Ask("a.test", ("/", "/auth"), limit="50m"))


def test_a_name_that_nginx_ignores(tmp_path):
    text = "http { server { server_name a.test; } server { server_name a.test; } server { server_name b.test; } }"
    assert findings(text, tmp_path, plan.Ask("a.test", limit="50m"))["nginx.server.shadowed"].severity == "warning"


# -- expressions ----------------------------------------------------------------------------------------------------

#: expression, caseless, subject, whether it matches; by Python alone where PCRE is not needed
PATTERNS = [
    (r"\.php$", False, "/x.php", True),
    (r"\.php$", False, "/x.PHP", False),
    (r"\.PHP$", True, "/x.php", True),
    (r"^/(?<id>\d+)$", False, "/42", True),
    (r"^/a\z", False, "/a", True),
    (r"^/é$", False, "/é", True),
]


@pytest.mark.parametrize("pcre", [True, False])
@pytest.mark.parametrize(("pattern", "caseless", "text", "wanted"), PATTERNS)
def test_patterns(pattern, caseless, text, wanted, pcre):
    assert compile_pattern(pattern, caseless, pcre=pcre)(text.encode()) is wanted


@pytest.mark.parametrize(
    "pattern", ["[[:alpha:]]", r"\Qa.b\E", "a++", "(?i)a", "a{,3}", r"\h", "(?>a)", r"a\Z", "(*UTF8)a"]
)
def test_what_python_reads_differently_is_not_left_to_it(pattern):
    with pytest.raises(PatternError, match="install libpcre2"):
        compile_pattern(pattern, False, pcre=False)


def test_an_expression_that_is_not_valid():
    for pcre in (True, False):
        with pytest.raises(PatternError):
            compile_pattern("(", False, pcre=pcre)
