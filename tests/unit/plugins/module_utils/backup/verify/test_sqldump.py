# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SQL dumps: every dialect of the dump program, rows counted exactly, and damage that the text can show."""

from __future__ import annotations

import calendar
import random
import time
from collections.abc import Iterator

import pytest
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import sqldump
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.sqldump import (
    SqlDumpWalker,
    count_rows,
    looks_like,
)

from tests.unit.plugins.module_utils.backup.verify.builders import cut, walk, zeroed
from tests.unit.plugins.module_utils.backup.verify.fixture_files import fixture

pytestmark = pytest.mark.capability("A8")

SHOP = {"customers": 7, "orders": 4, "p": 2, "odd `name'' ;": 3, "empty_table": 0}
CRM = {"contacts": 30}
FULL = {key: value for key, value in SHOP.items() if value}
COUNTS = {
    "databases": {"shop": SHOP, "crm": CRM},
    "plain": {"shop": SHOP},
    "skip-dump-date": {"shop": SHOP},
    "skip-comments": {"": SHOP},
    "compact": {"": SHOP},
    "one-row": {"shop": SHOP},
    "replica": {"shop": SHOP, "crm": CRM},
    "replace": {"shop": FULL},
    "no-data": {"shop": dict.fromkeys(SHOP, 0)},
    "force": {"shop": {"customers": 7}},
    "ansi": {"shop": SHOP},
    "server-no-backslash": {"shop": SHOP},
    "empty-database": {"nothing": {}},
}
TITLE = b"-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)\n--\n"
FOOTER = b"-- Dump completed on 2026-01-02  3:04:05\n"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def checks(data: bytes) -> list[str]:
    return [problem.check for problem in walk(SqlDumpWalker(), data).problems if not problem.note]


def dump(*statements: bytes) -> bytes:
    return TITLE + b"/*!40101 SET NAMES utf8mb4 */;\n" + b"".join(statements) + FOOTER


def rows_of(data: bytes, table: str = "t") -> int | None:
    walker = walk(SqlDumpWalker(), data)
    assert walker.problems == []
    return walker.facts.counts[""][table]


# What the dump program writes


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_every_dialect_is_counted_without_a_false_alarm(name: str) -> None:
    walker = walk(SqlDumpWalker(), fixture(f"mariadb/{name}.sql"))
    assert walker.facts.counts == COUNTS[name]
    assert [(problem.check, problem.damage) for problem in walker.problems] == (
        [("sqldump.footer", False)] if name == "compact" else []
    )


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_pieces_of_any_size_give_the_same_result(name: str) -> None:
    data = fixture(f"mariadb/{name}.sql")
    whole = walk(SqlDumpWalker(), data)
    source = random.Random(1)
    for sizes in (lambda: 1, lambda: 7, lambda: source.randrange(1, 3000)):
        walker = walk(SqlDumpWalker(), data, sizes)
        assert (walker.facts, walker.problems) == (whole.facts, whole.problems)


def test_what_the_dump_says_about_itself() -> None:
    facts = walk(SqlDumpWalker(), fixture("mariadb/databases.sql")).facts
    assert facts.attributes["server_version"] == "10.11.19-MariaDB-0+deb12u1-log"
    assert facts.attributes["views"] == ["shop.big_orders"]
    assert facts.attributes["triggers"] == ["shop.trg"]
    assert facts.attributes["events"] == ["shop.ev"]
    assert facts.attributes["routines"] == ["shop.func", "shop.proc"]
    assert facts.attributes["sequences"] == ["crm.s1"]
    assert facts.created == calendar.timegm(time.strptime(facts.attributes["created_local"], "%Y-%m-%d %H:%M:%S"))


@pytest.mark.parametrize("name", ["replica", "replace"])
def test_the_position_is_read_also_from_comments(name: str) -> None:
    attributes = walk(SqlDumpWalker(), fixture(f"mariadb/{name}.sql")).facts.attributes
    assert attributes["gtid"] == "0-1-26"
    if name == "replace":
        assert (attributes["binlog_file"], attributes["binlog_position"]) == ("binlog.000001", 6263)


def test_mysql_8_positions() -> None:
    text = b"SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5';\n"
    text += b"-- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000007', SOURCE_LOG_POS=157;\n"
    walker = walk(SqlDumpWalker(), dump(text))
    assert walker.problems == []
    assert walker.facts.attributes["gtid"] == "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"
    assert walker.facts.attributes["binlog_position"] == 157


def test_a_dump_without_data_says_so() -> None:
    assert walk(SqlDumpWalker(), fixture("mariadb/no-data.sql")).facts.attributes["schema_only"] is True
    assert "schema_only" not in walk(SqlDumpWalker(), fixture("mariadb/plain.sql")).facts.attributes


def test_two_dumps_one_after_the_other() -> None:
    data = fixture("mariadb/plain.sql") + fixture("mariadb/empty-database.sql")
    walker = walk(SqlDumpWalker(), data)
    assert walker.problems == []
    assert set(walker.facts.counts) == {"shop", "nothing"}
    assert walker.facts.attributes["dumps"] == 2


# Rows, exactly


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        (b"(1)", 1),
        (b"(1),(2)", 2),
        (b"\n(1,'a'),\n(2,'b')", 2),
        (b"('),('),(NULL)", 2),
        (b"('a''),(''b'),('')", 2),
        (rb"('a\'),(\'b'),('\\'),('\\\'')", 3),
        (rb"('x);\nINSERT INTO `t` VALUES (1)')", 1),
        (b"('-- Dump completed on 2026-01-01'),('/* ('),('# (')", 3),
        (b"(0x27285C,_binary 'x',-1.5e-7,NULL)", 1),
        (b"(_binary '" + b"ab\\'" * 3000 + b"'),(2)", 2),
        (b"(_binary '" + b"ab\\\\" * 3000 + b"'),(2)", 2),
    ],
)
def test_rows(values: bytes, rows: int) -> None:
    assert rows_of(dump(b"INSERT INTO `t` VALUES " + values + b";\n")) == rows
    assert rows_of(dump(b"INSERT  IGNORE INTO `t` (`a`, `(`) VALUES" + values + b" ;\r\n")) == rows
    assert rows_of(dump(b"REPLACE INTO t VALUES\r\n" + values + b";\r\n") * 2) == rows * 2


def test_clauses_nested_parentheses_and_comments_after_all() -> None:
    values = (
        b"-- it's one\n(1, (2), POINT(3, 4)), /* (5) */\n(6, \"a)('\") ON DUPLICATE KEY UPDATE a = VALUES(a), b = (1)"
    )
    walker = walk(SqlDumpWalker(), b"INSERT INTO t (a, b) VALUES " + values + b";\n")
    assert walker.facts.counts == {"": {"t": 2}}


def test_without_backslash_escapes_when_the_dump_says_so() -> None:
    text = b"SET SQL_MODE='NO_BACKSLASH_ESCAPES';\nINSERT INTO t VALUES ('C:\\'),('it''s\0');\n"
    assert rows_of(dump(text)) == 2


def random_value(source: random.Random) -> bytes:
    if source.random() < 0.4:
        return source.choice((b"NULL", b"17", b"-0.5", b"0xAF27"))
    parts = (
        b"a",
        b"),(",
        b"\\'",
        b"''",
        b"\\\\",
        b";",
        b");\\n",
        b"(",
        b")",
        b"INSERT INTO `t` VALUES (",
        b"\\n",
        b'"',
        b"--",
    )
    return b"'" + b"".join(source.choices(parts, k=source.randrange(12))) + b"'"


@pytest.mark.parametrize("seed", range(40))
def test_random_rows_in_every_style(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(seed)
    monkeypatch.setattr(sqldump, "_SLICE", source.choice((8, 100, 3000, 1 << 18)))
    count = source.randrange(1, 400)
    rows = [b"(" + b",".join(random_value(source) for _unused in range(4)) + b")" for _row in range(count)]
    styles = (
        b"INSERT INTO `t` VALUES " + b",".join(rows) + b";\n",
        b"INSERT INTO `t` VALUES\n" + b",\n".join(rows) + b";\n",
        b"".join(b"INSERT INTO `t` VALUES " + row + b";\n" for row in rows),
        b"".join(b"INSERT INTO `t` (`a`) VALUES " + row + b" ;\n" for row in rows),
    )
    for style in styles:
        data = dump(style)
        for size in (1 << 20, source.randrange(1, 64), source.randrange(64, 5000)):
            walker = walk(SqlDumpWalker(), data, lambda size=size: size)
            assert walker.problems == []
            assert walker.facts.counts == {"": {"t": len(rows)}}
        assert walk(SqlDumpWalker(), style).facts.counts == {"": {"t": len(rows)}}


def test_broken_rows_are_not_taken_for_rows() -> None:
    for values in (b"(1)),(2)", b"((1)", b")(", b"(1);(2)", b"(1),((2)", b"(1))", b"('a);"):
        assert count_rows(values, False, 0) in (None, (1, True, 1))
    assert checks(dump(b"INSERT INTO `t` VALUES (1)),(2);\n")) == ["sqldump.rows"]
    assert checks(dump(b"INSERT INTO `t` VALUES (1),(2;\n")) == ["sqldump.rows"]


def test_a_broken_row_among_many_short_statements() -> None:
    rows = [b"INSERT INTO `t` VALUES (%d,'value');\n" % number for number in range(300)]
    for broken in (b"(1)),(2)", b"(1;2)"):
        changed = [*rows[:150], b"INSERT INTO `t` VALUES " + broken + b";\n", *rows[150:]]
        for size in (1 << 20, 1000):
            walker = walk(SqlDumpWalker(), dump(b"SET @OLD_SQL_NOTES=@@SQL_NOTES;\n", *changed), lambda size=size: size)
            assert "sqldump.rows" in [problem.check for problem in walker.problems]
            assert walker.facts.counts[""]["t"] in (301, 302)


def test_after_a_lost_quote_the_next_tables_are_counted() -> None:
    lost = b"INSERT INTO `a` VALUES (1,'x);\nINSERT INTO `b` VALUES (1,'y'),(2,'z');\n"
    walker = walk(SqlDumpWalker(), dump(b"SET @OLD_SQL_NOTES=@@SQL_NOTES;\n", lost))
    assert [problem.check for problem in walker.problems] == ["sqldump.rows"]
    assert walker.facts.counts == {"": {"a": 1, "b": 2}}


# Damage


def test_the_text_after_a_cut_decides_nothing() -> None:
    data = fixture("mariadb/plain.sql")
    for end in range(1, len(data) - len("-- Dump completed on 2026-11-21 23:37:01\n"), 23):
        assert checks(data[:end]), f"cut at {end}"


@pytest.mark.parametrize("name", ["plain", "skip-dump-date", "databases", "replica", "one-row", "no-data"])
def test_a_cut_on_a_statement_boundary_is_damage(name: str) -> None:
    data = fixture(f"mariadb/{name}.sql")
    ends = [place for place in range(len(data)) if data.startswith(b";\n", place)]
    for end in ends:
        assert [problem.damage for problem in walk(SqlDumpWalker(), data[: end + 2]).problems] != []


def test_a_cut_dump_without_comments_is_damage_too() -> None:
    data = fixture("mariadb/skip-comments.sql")
    closing = data.rindex(b"/*!40111 SET SQL_NOTES=@OLD")
    saving = data.index(b"/*!40111 SET @OLD_SQL_NOTES")
    for end in range(saving + 60, closing, 19):
        assert checks(data[:end]), f"cut at {end}"


def test_a_compact_dump_shows_a_cut_only_inside_a_statement() -> None:
    data = fixture("mariadb/compact.sql")
    assert "sqldump.cut" in checks(data[: data.index(b"O\\'Brien")])
    end = data.index(b"CREATE TABLE `orders`")
    problems = walk(SqlDumpWalker(), data[:end]).problems
    assert ("sqldump.footer", False) in [(problem.check, problem.damage) for problem in problems]


def test_a_cut_in_the_rows_says_where() -> None:
    data = fixture("mariadb/plain.sql")
    walker = walk(SqlDumpWalker(), data[: data.index(b"(4,'quote")])
    assert [problem.check for problem in walker.problems] == ["sqldump.cut", "sqldump.view"]
    assert "shop.customers" in walker.problems[0].message
    assert walker.facts.counts["shop"]["customers"] == 3


@pytest.mark.parametrize("name", ["plain", "one-row", "skip-comments", "compact"])
def test_a_lost_block_is_damage(name: str) -> None:
    data = fixture(f"mariadb/{name}.sql")
    source = random.Random(2)
    for size in (1, 16, 512, 4096):
        for _unused in range(20):
            assert "sqldump.nul" in checks(zeroed(data, source, size))


@pytest.mark.parametrize("name", ["plain", "databases", "one-row"])
def test_a_changed_quote_or_parenthesis_of_the_rows_is_damage(name: str) -> None:
    data = fixture(f"mariadb/{name}.sql")
    begin, end = data.index(b"(1,'Ann'"), data.index(b",NULL)", data.index(b"(1,'Ann'"))
    places = [place for place in range(begin, end) if data[place] in b"'()" and data[place - 1] != 92]
    caught = sum(bool(checks(data[:place] + b"x" + data[place + 1 :])) for place in places)
    # In a string a parenthesis is text like any other: four of "),(" twice, and six of two whole statements.
    assert caught == len(places) - 10


def test_stated_rate_of_flips_that_the_text_shows() -> None:
    data = fixture("mariadb/databases.sql")
    source = random.Random(5)
    caught = 0
    for _unused in range(300):
        place = source.randrange(len(data))
        changed = bytearray(data)
        changed[place] ^= 1 << source.randrange(8)
        caught += bool(checks(bytes(changed)))
    # SQL text has no checksum: a flip in a value or a comment cannot be seen.
    assert caught >= 20


@pytest.mark.parametrize("seed", range(30))
def test_hostile_text_never_raises_and_pieces_do_not_matter(seed: int) -> None:
    source = random.Random(seed)
    data = fixture(f"mariadb/{source.choice(sorted(COUNTS))}.sql")
    changed = bytearray(cut(data, source) if seed % 3 == 0 else data)
    for _unused in range(source.randrange(1, 30)):
        place = source.randrange(len(changed))
        changed[place : place + source.randrange(3)] = bytes(
            source.choices(b"'\"`;()\\\0-#/*!\n$x", k=source.randrange(4))
        )
    whole = walk(SqlDumpWalker(), bytes(changed))
    for longest in (1, 40, 3000):
        walker = walk(SqlDumpWalker(), bytes(changed), lambda longest=longest: source.randrange(1, longest + 1))
        assert walker.problems == whole.problems
        assert walker.facts == whole.facts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", ["sqldump.empty"]),
        (b" \n\n", ["sqldump.empty"]),
        (TITLE, ["sqldump.footer"]),
        (dump(b"x\xffx gibberish\n"), ["sqldump.foreign"]),
        (
            b"mysqldump: [Warning] Using a password on the command line interface can be insecure.\n" + dump(),
            ["sqldump.error"],
        ),
        (
            dump(b"mariadb-dump: Got error: 1146: \"Table 'shop.x' doesn't exist\" when using LOCK TABLES\n"),
            ["sqldump.error"],
        ),
        (dump() + b"INSERT INTO t VALUES (1);\n", ["sqldump.trailing"]),
        (dump() + b"tail\n", ["sqldump.trailing", "sqldump.foreign"]),
        (dump() + b"\n\n", []),
        (dump()[:-1], []),
        (b"\xef\xbb\xbf" + dump(), []),
        (dump(b"/*!50001 CREATE VIEW `v` AS SELECT\n 1 AS `a` */;\n"), ["sqldump.view"]),
        (dump(b"/*!50001 CREATE TABLE `v` (\n `a` tinyint NOT NULL\n) */;\n"), ["sqldump.view"]),
        (dump().decode().encode("utf-16"), ["sqldump.foreign", "sqldump.nul"]),
    ],
)
def test_transcripts(text: bytes, expected: list[str]) -> None:
    assert [check for check in checks(text) if check != "sqldump.footer" or check in expected] == expected


def test_the_last_words_of_the_program_are_quoted() -> None:
    text = (
        dump()[: -len(FOOTER)]
        + b"INSERT INTO `t` VALUES (1),(2)\nmysqldump: Error 2013: Lost connection to MySQL server"
    )
    problem = walk(SqlDumpWalker(), text).problems[0]
    assert problem.check == "sqldump.cut"
    assert "Error 2013: Lost connection" in problem.message


def test_memory_stays_small_on_one_endless_line() -> None:
    import tracemalloc

    piece = b",(1,'" + b"x" * 200 + b"')"
    tracemalloc.start()
    walker = SqlDumpWalker()
    walker.feed(TITLE + b"/*!40101 SET NAMES utf8 */;\nINSERT INTO `t` VALUES (0)")
    for _unused in range(60):
        walker.feed(piece * 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    walker.feed(b";\n" + FOOTER)
    walker.close()
    assert walker.problems == []
    assert walker.facts.counts == {"": {"t": 120_001}}
    assert peak < 8_000_000


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_recognised(name: str) -> None:
    assert looks_like(fixture(f"mariadb/{name}.sql")[:512])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"REDIS0010",
        b"-- PostgreSQL database dump\nCREATE TABLE x (\n",
        b"hello\n",
        b"<?xml version='1.0'?>",
        b"{}",
    ],
)
def test_not_recognised(text: bytes) -> None:
    assert not looks_like(text)
