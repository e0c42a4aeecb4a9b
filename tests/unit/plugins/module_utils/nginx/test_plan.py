# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import os

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import effective, plan
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, ConfigError, Tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.plugins.module_utils.nginx import configs

pytestmark = pytest.mark.capability("F3")


def load(files, directory):
    """Write files into a directory and return the configuration of its nginx.conf."""
    for name, text in files.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(text.encode() if isinstance(text, str) else text)
    return Config(os.path.join(directory, "nginx.conf"), Tree())


def make(files, directory, asks, level="auto", limit="50m"):
    config = load(files, str(directory))
    return plan.make(config, effective.build(config), asks, level, limit)


def written(made):
    """Return the new texts by file name."""
    return {
        os.path.basename(real): new.decode("utf-8", "surrogateescape")
        for real, (_ignored, new) in made.contents.items()
    }


def limits(http):
    return [(str(scope), scope.limit) for scope in http.walk() if scope.kind != "http"]


ONE = """http {
    client_max_body_size 10m;
    server {
        listen 80;
        server_name a.test;
        location / { return 200; }
        location /up { return 200; }
    }
    server {
        listen 80;
        server_name b.test;
    }
}
"""
LINE = "client_max_body_size 50m;"


def ask(name, *paths, **more):
    return plan.Ask(name, paths, limit=more.pop("limit", "50m"), **more)


#: asks, level → the text that must come out of ONE
TABLE = {
    "server": ([ask("a.test")], "auto", ONE.replace("    server {\n", f"    server {{\n        {LINE}\n", 1)),
    "every server": ([ask("a.test"), ask("b.test")], "auto", ONE.replace("10m", "50m")),
    "path": ([ask("a.test", "/up/x")], "auto", ONE.replace("/up { return", f"/up {{ {LINE} return")),
    "every path": (
        [ask("a.test", "/", "/up")],
        "auto",
        ONE.replace("    server {\n", f"    server {{\n        {LINE}\n", 1),
    ),
    "http": ([ask("a.test")], "http", ONE.replace("10m", "50m")),
    "http without servers": ([], "http", ONE.replace("10m", "50m")),
    "server level": (
        [ask("a.test", "/up")],
        "server",
        ONE.replace("    server {\n", f"    server {{\n        {LINE}\n", 1),
    ),
    "location level": ([ask("a.test", "/")], "location", ONE.replace("/ { return", f"/ {{ {LINE} return")),
    "the same limit, written otherwise": ([ask("a.test", limit="10240k")], "auto", None),
    "absent there": ([ask("a.test", limit=None)], "auto", None),
}


@pytest.mark.parametrize("name", TABLE)
def test_edits(name, tmp_path):
    asks, level, wanted = TABLE[name]
    made = make({"nginx.conf": ONE}, tmp_path, asks, level)
    assert written(made) == ({"nginx.conf": wanted} if wanted else {})
    assert bool(made.edits) == bool(wanted)


def test_absent_at_http_level(tmp_path):
    made = make({"nginx.conf": ONE}, tmp_path, [], "http", None)
    assert written(made) == {"nginx.conf": ONE.replace("    client_max_body_size 10m;\n", "")}
    assert {limit for _ignored, limit in limits(made.after)} == {1024 * 1024}
    assert len(made.also) == 4


def test_what_inherits_from_an_asked_location_keeps_its_limit(tmp_path):
    text = "http { server { server_name a.test; location /api { location /api/x { } } } }"
    made = make({"nginx.conf": text}, tmp_path, [ask("a.test", "/api")])
    assert limits(made.after)[1:] == [("location /api", 50 << 20), ("location /api/x", 1 << 20)]
    assert [edit.after for edit in made.edits] == ["50m", "1m"]


def test_a_deliberate_lower_limit_is_kept_but_the_root_location_is_not_left_behind(tmp_path):
    text = """http { server { server_name a.test;
      location / { client_max_body_size 10m; }
      location /login { client_max_body_size 1k; }
    } }"""
    made = make({"nginx.conf": text}, tmp_path, [ask("a.test")])
    assert limits(made.after)[1:] == [("location /", 50 << 20), ("location /login", 1 << 10)]


def test_a_server_that_only_redirects_is_left_alone(tmp_path):
    text = """http {
  server { listen 80; server_name a.test; return 301 https://a.test$request_uri; }
  server { listen 443 ssl; server_name a.test; client_max_body_size 1m; }
}"""
    made = make({"nginx.conf": text}, tmp_path, [ask("a.test")])
    assert written(made) == {"nginx.conf": text.replace("1m", "50m")}
    with pytest.raises(plan.PlanError, match="only returns"):
        make({"nginx.conf": text}, tmp_path, [ask("a.test", port=80)])


SHARED = {
    "nginx.conf": "http {\n include a.conf;\n include b.conf;\n}\n",
    "a.conf": "server {\n server_name a.test;\n include common.conf;\n}\n",
    "b.conf": "server {\n server_name b.test;\n include common.conf;\n}\n",
    "common.conf": "client_max_body_size 10m;\nlocation /x { }\n",
}


def test_a_shared_file_is_edited_once_when_all_its_users_ask(tmp_path):
    made = make(SHARED, tmp_path, [ask("a.test"), ask("b.test")])
    assert written(made) == {"common.conf": SHARED["common.conf"].replace("10m", "50m")}


def test_a_shared_directive_moves_out_when_one_user_asks(tmp_path):
    made = make(SHARED, tmp_path, [ask("a.test")])
    assert limits(made.after) == [
        ("server a.test", 50 << 20),
        ("location /x", 50 << 20),
        ("server b.test", 10 << 20),
        ("location /x", 10 << 20),
    ]
    assert len(made.edits) == 3


def test_an_edit_of_a_shared_file_counts_once(tmp_path):
    site = "server {{ server_name {}.test; location / {{ client_max_body_size 2m; }} include common.conf; }}\n"
    files = {
        "nginx.conf": "http {\n" + site.format("a") + site.format("b") + "}\n",
        "common.conf": "location /x { }\n",
    }
    made = make(files, tmp_path, [ask("a.test", "/x"), ask("b.test", "/x")])
    assert written(made) == {"common.conf": f"location /x {{ {LINE} }}\n"}


def test_of_equally_few_edits_the_nearest_is_made(tmp_path):
    text = "http {\n  client_max_body_size 10m;\n  server {\n    server_name a.test;\n  }\n}\n"
    made = make({"nginx.conf": text}, tmp_path, [ask("a.test")])
    assert written(made) == {"nginx.conf": text.replace("server {\n", f"server {{\n    {LINE}\n")}


def test_a_shared_location_cannot_suit_both(tmp_path):
    with pytest.raises(plan.PlanError, match=r"common.conf is included in several places.*location /x of server"):
        make(SHARED, tmp_path, [ask("a.test", "/x")])
    with pytest.raises(plan.PlanError, match=r"common.conf is included in several places"):
        make(SHARED, tmp_path, [ask("a.test")], "server")


@pytest.mark.parametrize(
    ("asks", "level", "words"),
    [
        ([ask("a.tset")], "auto", "no server has the name 'a.tset'; did you mean a.test"),
        ([ask("a.test", port=81)], "auto", "no server listens on port 81; there are: *:80"),
        ([ask("a.test", "up")], "auto", "the path 'up' does not start with '/'"),
        (
            [ask("a.test", "/up/1"), ask("a.test", "/up/2", limit="1m")],
            "auto",
            "a.test/up/1 and a.test/up/2 are both the",
        ),
        ([ask("a.test"), ask("a.test", limit="1m")], "server", "a.test and a.test are both the server a.test"),
        ([ask("b.test", "/up")], "location", "no location of server b.test"),
        ([ask("b.test")], "location", "no location of server b.test"),
        ([], "auto", "level auto needs at least one server"),
        ([ask("a.test", limit="1m")], "http", "the http level has one limit"),
        ([ask("c.test", default_server=False)], "auto", "set default_server: true to mean that one"),
    ],
)
def test_what_cannot_be_done(asks, level, words, tmp_path):
    with pytest.raises(plan.PlanError) as caught:
        make({"nginx.conf": ONE}, tmp_path, asks, level)
    assert words in str(caught.value)


#: text with one server a.test → what it becomes when the server gets 50m
INSERTIONS = [
    ("http{server{server_name a.test;}}", "http{server{ client_max_body_size 50m; server_name a.test;}}"),
    ("http { server { server_name a.test; } }", "http { server { client_max_body_size 50m; server_name a.test; } }"),
    (
        "http {\n\tserver {\n\t\tserver_name a.test;\n\t}\n}",
        f"http {{\n\tserver {{\n\t\t{LINE}\n\t\tserver_name a.test;\n\t}}\n}}",
    ),
    (
        "http {\r\n  server {\r\n    server_name a.test;\r\n  }\r\n}",
        f"http {{\r\n  server {{\r\n    {LINE}\r\n    server_name a.test;\r\n  }}\r\n}}",
    ),
    (
        "http {\nserver { # main\n# one\n  server_name a.test;\n}\n}",
        f"http {{\nserver {{ # main\n  {LINE}\n# one\n  server_name a.test;\n}}\n}}",
    ),
    (
        "http {\nserver {# {\n\n\n  server_name a.test;}}",
        f"http {{\nserver {{# {{\n  {LINE}\n\n\n  server_name a.test;}}}}",
    ),
    (
        "http { server\n{\n   \t server_name a.test;\n} }",
        f"http {{ server\n{{\n   \t {LINE}\n   \t server_name a.test;\n}} }}",
    ),
    ("http { server { server_name\na.test; } }", "http { server { client_max_body_size 50m; server_name\na.test; } }"),
    ("http {\n\tserver { server_name a.test;\n\t}\n}", f"http {{\n\tserver {{ {LINE} server_name a.test;\n\t}}\n}}"),
    (
        "http { server { server_name a.test; client_max_body_size 1m; } }",
        "http { server { server_name a.test; client_max_body_size 50m; } }",
    ),
    (
        "http { server { server_name a.test; client_max_body_size '1m' ; } }",
        "http { server { server_name a.test; client_max_body_size '50m' ; } }",
    ),
    (
        'http { server { server_name a.test; client_max_body_size # 9m\n "1m"\n; } }',
        'http { server { server_name a.test; client_max_body_size # 9m\n "50m"\n; } }',
    ),
]


@pytest.mark.parametrize(("before", "after"), INSERTIONS)
def test_layout(before, after, tmp_path):
    made = make({"nginx.conf": before}, tmp_path, [ask("a.test")], "server")
    assert written(made) == {"nginx.conf": after}


def test_layout_of_an_empty_block(tmp_path):
    text = "http {\n\tserver {\n\t\tserver_name a.test;\n\t\tlocation /x {\n\t\t}\n\t\tlocation /y {}\n\t}\n}\n"
    made = make({"nginx.conf": text}, tmp_path, [ask("a.test", "/x", "/y")], "location")
    wanted = text.replace("/x {\n", f"/x {{\n\t\t\t{LINE}\n").replace("/y {}", f"/y {{ {LINE} }}")
    assert written(made) == {"nginx.conf": wanted}


#: text with one server a.test → what it becomes when its directive goes
REMOVALS = [
    (
        "http {\nserver {\n  server_name a.test;\n  client_max_body_size 1m;\n}}",
        "http {\nserver {\n  server_name a.test;\n}}",
    ),
    ("http { server { server_name a.test; client_max_body_size 1m; } }", "http { server { server_name a.test; } }"),
    ("http {server {client_max_body_size 1m;server_name a.test;}}", "http {server {server_name a.test;}}"),
    (
        "http { server {\r\n client_max_body_size 1m;\r\n server_name a.test;\r\n}}",
        "http { server {\r\n server_name a.test;\r\n}}",
    ),
    (
        "http { server {\n  client_max_body_size 1m; # why\n server_name a.test; }}",
        "http { server {\n  # why\n server_name a.test; }}",
    ),
    (
        "http { server {\n  server_name a.test; client_max_body_size 1m; # why\n}}",
        "http { server {\n  server_name a.test; # why\n}}",
    ),
    (
        "http { server {\n  server_name a.test;\n  client_max_body_size\n  1m;\n}}",
        "http { server {\n  server_name a.test;\n}}",
    ),
    (
        "http { server { client_max_body_size # why\n1m; server_name a.test; }}",
        "http { server {  # why\n server_name a.test; }}",
    ),
]


@pytest.mark.parametrize(("before", "after"), REMOVALS)
def test_removal(before, after, tmp_path):
    made = make({"nginx.conf": before}, tmp_path, [ask("a.test", limit=None)], "server", None)
    assert written(made) == {"nginx.conf": after}


# -- properties -----------------------------------------------------------------------------------------------------

SIZES = st.sampled_from([None, "1m", "10m", "50m"])
PATHS = ["/", "/a", "/a/b", "/c"]


def _block(draw, kind, own, inside, newline):
    lines = ([f"client_max_body_size {own};"] if own else []) + inside
    lines = draw(st.permutations(lines))
    return f"{kind} {{{newline}" + newline.join(lines) + f"{newline}}}"


@st.composite
def configurations(draw):
    """A configuration of up to three servers, some of whose text is shared, as files."""
    newline = draw(st.sampled_from(["\n", "\r\n", "\n\t", " "]))
    shared = draw(SIZES)
    files = {"shared.conf": (f"client_max_body_size {shared};\n" if shared else "") + "location /c { }\n"}
    files["http.conf"] = ""
    servers = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        uses = draw(st.booleans())
        locations = []
        for path in draw(st.lists(st.sampled_from(PATHS[:2] if uses else PATHS), unique=True)):
            inner = (
                [_block(draw, "location /a/b", draw(SIZES), [], newline)]
                if path == "/a" and draw(st.booleans())
                else []
            )
            if path == "/a/b" and any("/a/b" in text for text in locations):
                continue
            locations.append(_block(draw, f"location {path}", draw(SIZES), inner, newline))
        inside = [f"server_name {name}.test;", *locations, *(["include shared.conf;"] if uses else [])]
        own = None if uses and shared else draw(SIZES)
        servers.append(_block(draw, "server", own, inside, newline))
    files["nginx.conf"] = _block(draw, "http", draw(SIZES), servers, newline)
    return files


ASKS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.lists(st.sampled_from([*PATHS, "/c/x"]), unique=True, max_size=3)),
    min_size=1,
    max_size=3,
    unique_by=lambda one: one[0],
)


def requests(http):
    """Return the limit of everything a client can ask for."""
    found = {}
    for server in http.children:
        for path in [*PATHS, "/c/x", "/a/x", "/a/b/x", "/zz"]:
            found[server.names[0], path] = effective.find_location(server, path).limit
    return found


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=configurations(), wanted=ASKS)
def test_auto_changes_what_is_asked_and_nothing_else(files, wanted, tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("nginx"))
    config = load(files, directory)
    http = effective.build(config)
    names = {server.names[0] for server in http.children}
    asks = [ask(f"{name}.test", *paths) for name, paths in wanted if f"{name}.test" in names]
    if not asks:
        return
    try:
        made = plan.make(config, http, asks, "auto", "50m")
    except plan.PlanError as error:
        assert "included in several places" in str(error)
        assert not _possible(config, http, asks, range(3))
        return
    if len(made.edits) <= 3:
        assert not _possible(config, http, asks, range(len(made.edits)))
    for real, (_ignored, new) in made.contents.items():
        with open(real, "wb") as stream:
            stream.write(new)
    again = effective.build(Config(config.path, Tree()))
    before, after = requests(http), requests(again)
    asked = {id(target.scope) for target in made.targets}
    for (name, path), limit in after.items():
        server = next(one for one in http.children if one.names[0] == name)
        scope = effective.find_location(server, path)
        whole = any(one.name == name and not one.paths for one in asks)
        if id(scope) in asked or (
            whole and (scope.deciding() is None or scope.own is None) and _inherits(scope, server)
        ):
            assert limit == 50 << 20, (name, path)
        elif not (whole and scope.name == "/") and not (whole and _below_root(scope)):
            assert limit == before[name, path], (name, path)
    assert not plan.make(Config(config.path, Tree()), again, asks, "auto", "50m").edits


def _inherits(scope, server):
    while scope is not server:
        if scope.own is not None:
            return False
        scope = scope.parent
    return True


def _below_root(scope):
    while scope is not None:
        if scope.kind == "location" and scope.name == "/":
            return True
        scope = scope.parent
    return False


def _possible(config, http, asks, counts):
    """Whether some set of so many edits does it, by trying all of them."""
    wanted = plan._wanted(plan.resolve(http, asks), whole=True)
    slots = {}
    for scope in http.walk():
        slots.setdefault(plan._insert_slot(scope), scope)
        if scope.own is not None:
            slots.setdefault(plan._own_slot(scope), scope)
    texts = sorted({plan._text(scope) for scope in http.walk()} | {"50m"})
    for count in counts:
        for places in itertools.combinations(slots, count):
            for values in itertools.product([*texts, plan._REMOVE], repeat=count):
                if any(slot[0] == plan._INSERT and value == plan._REMOVE for slot, value in zip(places, values)):
                    continue
                actions = [plan._Do(slots[slot], slot, value) for slot, value in zip(places, values)]
                try:
                    plan._check(plan._apply(config, http, [], actions), wanted)
                except (plan.PlanError, ConfigError):
                    continue
                return True
    return False


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=configurations(), name=st.sampled_from(["a", "b", "c"]), path=st.sampled_from(PATHS))
def test_only_the_edited_bytes_change_and_removing_gives_them_back(files, name, path, tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("nginx"))
    config = load(files, directory)
    http = effective.build(config)
    try:
        made = plan.make(config, http, [ask(f"{name}.test", path, limit="51m")], "auto", "51m")
    except plan.PlanError:
        return
    for real, (old, new) in made.contents.items():
        # cutting the new bytes out again and putting the old ones back gives the old file
        back, shift = [], 0
        for start, end, text in sorted(splice for edit in made.edits if edit.real == real for splice in edit.splices):
            back.append((start + shift, start + shift + len(text), old[start:end]))
            shift += len(text) - (end - start)
        assert plan.splice(new, back) == old
    if len(made.edits) == 1 and made.edits[0].kind == "insert":
        for real, (_ignored, new) in made.contents.items():
            with open(real, "wb") as stream:
                stream.write(new)
        config = Config(config.path, Tree())
        scope = next(one for one in effective.build(config).walk() if one.own is not None and one.own.args == ["51m"])
        source = scope.own.source
        assert plan.splice(source.data, plan.removal(scope.own)).split() == made.contents[source.real][0].split()


@pytest.mark.parametrize("case", configs.GOOD, ids=lambda case: case.name)
def test_every_configuration_of_the_table_can_be_raised(case):
    config = Config(str(case.path), Tree())
    http = effective.build(config)
    names = sorted({one.host for one in case.expectations if one.limit != "unknown" and not one.default})
    for name in names:
        made = plan.make(config, http, [ask(name, limit="77m")], "auto", "77m")
        for target in made.targets:
            assert made.later(target.scope).limit == 77 << 20
