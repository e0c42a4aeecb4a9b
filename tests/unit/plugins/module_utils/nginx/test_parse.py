# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parser compared with crossplane, and the lexer on its own."""

from __future__ import annotations

import re

import crossplane
import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx import lexer
from ansible_collections.worklog.maintenance.plugins.module_utils.nginx.config import Config, ConfigError, Tree
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plugins.module_utils.nginx import configs

#: Where crossplane differs from nginx itself, which the lab tests ask about the same files.
CROSSPLANE_DIFFERS = {
    "braces_in_words": "it ends a block at a brace inside a word",
    "comments": "it keeps a comment between the arguments as a directive",
    "escapes": "it keeps the escapes that nginx resolves",
    "lua": "it ends a Lua block at a brace in a Lua string",
    "quotes": "it keeps the escapes that nginx resolves",
}


def _ours(directives, lines=True):
    result = []
    for directive in directives:
        args = list(directive.args)
        if directive.name == "if":
            args = re.sub(r"^\((.*)\)$", r"\1", "\0".join(args)).strip("\0").split("\0")
        entry = [directive.name, args]
        if lines:
            entry.append(directive.source.line(directive.start))
        if directive.block is not None:
            if directive.name.endswith("_by_lua_block"):
                entry[1] = [*args, directive.source.data[directive.end : directive.close].decode()]
            else:
                entry.append(_ours(directive.block))
        result.append(entry)
    return result


def _theirs(directives):
    result = []
    for directive in directives:
        entry = [directive["directive"], directive["args"], directive["line"]]
        if "block" in directive and not directive["directive"].endswith("_by_lua_block"):
            entry.append(_theirs(directive["block"]))
        result.append(entry)
    return result


@pytest.mark.parametrize(
    "case", [case for case in configs.GOOD if case.name not in CROSSPLANE_DIFFERS], ids=lambda case: case.name
)
def test_same_as_crossplane(case):
    config = Config(str(case.path), Tree())
    payload = crossplane.parse(str(case.path), check_ctx=False, check_args=False, strict=False)
    assert payload["status"] == "ok", payload["errors"]
    ours = {path: _ours(directives) for path, (_ignored, directives) in config.files.items()}
    theirs = {file["file"]: _theirs(file["parsed"]) for file in payload["config"]}
    assert ours == theirs


def test_every_word_knows_its_bytes():
    for case in configs.GOOD:
        for source, _ignored in Config(str(case.path), Tree()).files.values():
            for statement in lexer.statements(source.data):
                for word in statement.words:
                    raw = source.data[word.start : word.end].decode("utf-8", "surrogateescape")
                    assert raw[:1] in "\"'" if word.quoted else "\\" in raw or raw == word.value


#: (text, words and marks); the results were confirmed with nginx 1.22.1 by what it answers
TOKENS = [
    (b"a b;", [["a", "b"], ";"]),
    (b"a\tb\r\n;", [["a", "b"], ";"]),
    (b"a#b;", [["a#b"], ";"]),
    (b"a #b;\n;", [["a"], ";"]),
    (b'a "b;c";', [["a", "b;c"], ";"]),
    (b"a 'b\"c';", [["a", 'b"c'], ";"]),
    (b'a b"c d";', [["a", 'b"c', 'd"'], ";"]),
    (b"a \"\\\"\" '\\'' \\\\ \\t \\n \\r \\x;", [["a", '"', "'", "\\", "\t", "\n", "\r", "\\x"], ";"]),
    (b"a b\\ c\\;d\\{;", [["a", "b\\ c\\;d\\{"], ";"]),
    (b"a ${b}c;", [["a", "${b}c"], ";"]),
    (b"a $${b};", [["a", "$${b}"], ";"]),
    (b"a \\${ }", [["a", "\\$"], "{", [], "}"]),
    (b"a b}c;", [["a", "b}c"], ";"]),
    (b"a { b; } ", [["a"], "{", ["b"], ";", [], "}"]),
    (b'if ($a = "b") { }', [["if", "($a", "=", "b", ")"], "{", [], "}"]),
    (b"a_by_lua_block { x = '}' } b;", [["a_by_lua_block"], "lua", ["b"], ";"]),
    (b"a_by_lua_block { -- }\n x = [==[ ]] } ]==] --[[ } \n ]] } b;", [["a_by_lua_block"], "lua", ["b"], ";"]),
    (b"", []),
    (b"# only a comment", []),
    (b"\xff \xfe;", [["\udcff", "\udcfe"], ";"]),
]


@pytest.mark.parametrize(("text", "wanted"), TOKENS)
def test_tokens(text, wanted):
    found = []
    for statement in lexer.statements(text):
        found += [[word.value for word in statement.words], statement.mark]
    assert found == wanted


@pytest.mark.parametrize(
    ("text", "words", "offset"),
    [
        (b"a", 'unexpected end of file, expecting ";" or "}"', 1),
        (b'a "b', 'unexpected end of file, expecting ";" or "}"', 4),
        (b"a \\", 'unexpected end of file, expecting ";" or "}"', 3),
        (b'a "b"c;', 'unexpected "c"', 5),
        (b";", 'unexpected ";"', 0),
        (b"{", 'unexpected "{"', 0),
        (b"a }", 'unexpected "}"', 2),
        (b"a_by_lua_block { {", "unexpected end of file in Lua code", 18),
        (b"a_by_lua_block { [[ }", "unexpected end of file in Lua code", 21),
    ],
)
def test_refused_text(text, words, offset):
    with pytest.raises(lexer.SyntaxProblem) as caught:
        list(lexer.statements(text))
    assert words in caught.value.message
    assert caught.value.offset == offset


@given(st.binary(max_size=80))
def test_any_bytes_end_in_statements_or_a_refusal(data):
    try:
        statements = list(lexer.statements(data))
    except lexer.SyntaxProblem as problem:
        assert 0 <= problem.offset <= len(data)
        return
    ends = [statement.end for statement in statements]
    assert ends == sorted(ends)


def test_an_included_file_keeps_its_name_and_line(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.conf").write_text("\n\nserver { listen 80; }\n")
    (tmp_path / "nginx.conf").write_text("http {\n include sub/*.conf;\n}\n")
    config = Config(str(tmp_path / "nginx.conf"), Tree())
    http = next(config.top())
    server = next(config.expand(http.block))
    assert server.place == f"{tmp_path}/sub/x.conf:3"


def test_a_configuration_below_another_root(tmp_path):
    """As in a container: absolute links are those of the other root."""
    etc = tmp_path / "etc" / "nginx"
    (etc / "sites-available").mkdir(parents=True)
    (etc / "sites-enabled").mkdir()
    (etc / "sites-available" / "a").write_text("server { listen 80; }\n")
    (etc / "sites-enabled" / "a").symlink_to("/etc/nginx/sites-available/a")
    (etc / "sites-enabled" / "b").symlink_to("../sites-available/a")
    (etc / "nginx.conf").write_text("http { include sites-enabled/*; }\n")
    config = Config("/etc/nginx/nginx.conf", Tree(str(tmp_path)))
    assert list(config.files) == ["/etc/nginx/nginx.conf", "/etc/nginx/sites-enabled/a", "/etc/nginx/sites-enabled/b"]
    assert {source.real for source, _ignored in config.files.values()} == {
        "/etc/nginx/nginx.conf",
        "/etc/nginx/sites-available/a",
    }


def test_a_link_that_goes_round_is_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for tree, path in ((Tree(), str(tmp_path / "a")), (Tree(str(tmp_path)), "/a")):
        with pytest.raises((ConfigError, OSError)):
            Config(path, tree)
