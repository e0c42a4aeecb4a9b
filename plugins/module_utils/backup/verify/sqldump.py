# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SQL text as mariadb-dump and mysqldump write it: its rows, its objects, and whether it is all there.

The text is split into statements by the lexical rules of the mysql client: strings, quoted names, comments,
conditional comments and ``DELIMITER``. Rows are counted at the parentheses that stand outside strings, so nothing
inside a value can be taken for a row, a statement or a footer.

A dump ends with ``-- Dump completed``. Without comments (``--skip-comments``) it ends by restoring the session's
``SQL_NOTES``, which its head has saved; with ``--compact`` it has no end mark at all.
"""

from __future__ import annotations

import re
import time

from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Problem, Walker

#: How much of the values is looked at in one go: small enough for the processor's cache.
_SLICE = 1 << 17
#: How much of a statement's beginning is kept to tell what it is.
_HEAD = 1 << 14
#: How long the list of columns before VALUES may get.
_HEADER = 1 << 19
#: How many tables and other objects are remembered.
_NAMES = 100_000

_NAME = rb"(?:`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\"|[\w$\x80-\xff]+)"
_INSERT = re.compile(
    rb"(?:INSERT|REPLACE)\s+(?:(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE)\s+)*(?:INTO\s+)?"
    rb"(" + _NAME + rb")(?:\s*\.\s*(" + _NAME + rb"))?\s*"
    rb"(?:\(\s*(?:" + _NAME + rb"(?:\s*,\s*" + _NAME + rb")*\s*)?\)\s*)?VALUES?\s*(?=[(#/-])",
    re.IGNORECASE,
)
_CREATE = re.compile(
    rb"CREATE\s+(?:OR\s+REPLACE\s+)?(?:TEMPORARY\s+|AGGREGATE\s+)?(?:ALGORITHM\s*=\s*\w+\s+)?"
    rb"(?:DEFINER\s*=\s*" + _NAME + rb"(?:\s*@\s*(?:" + _NAME + rb"|'[^']*'))?\s+)?(?:SQL\s+SECURITY\s+\w+\s+)?"
    rb"(TABLE|VIEW|TRIGGER|PROCEDURE|FUNCTION|EVENT|SEQUENCE|PACKAGE(?:\s+BODY)?|DATABASE|SCHEMA)\s+"
    rb"(?:IF\s+NOT\s+EXISTS\s+)?(" + _NAME + rb")(?:\s*\.\s*(" + _NAME + rb"))?",
    re.IGNORECASE,
)
_TABLE_OF_A_VIEW = re.compile(rb"\s*/\*!50001\s+CREATE\s+TABLE\b", re.IGNORECASE)
_PLACEHOLDER = re.compile(rb"\bAS\s+SELECT\s+(?:NULL|1)\s+AS\b", re.IGNORECASE)
_USE = re.compile(rb"USE\s+(" + _NAME + rb")", re.IGNORECASE)
_CONDITIONAL = re.compile(rb"/\*M?!\d*\s*|\*/")
_WORD = re.compile(rb"(?:/\*M?!\d*\s*|\(\s*)*([A-Za-z]+)\b")
_DELIMITER = re.compile(rb"DELIMITER[ \t]+(\S+)[^\n]*(?:\n|\Z)", re.IGNORECASE)
_SQL_MODE = re.compile(rb"\bSQL_MODE\s*=\s*('[^']*'|@\w+)", re.IGNORECASE)
_BINLOG_FILE = re.compile(rb"\b(?:MASTER|SOURCE)_LOG_FILE\s*=\s*'([^']*)'")
_BINLOG_POSITION = re.compile(rb"\b(?:MASTER|SOURCE)_LOG_POS\s*=\s*(\d+)")
_GTID = re.compile(rb"(?:gtid_slave_pos|GTID_PURGED)\s*=\s*(?:'\+'\s*)?'([^']*)'", re.IGNORECASE)
_TITLE = re.compile(rb"-- (?:MySQL|MariaDB) dump .*")
_FOOTER = re.compile(rb"-- Dump completed(?: on +(\d+-\d+-\d+ +\d+:\d+:\d+))?\s*$")
_ERROR = re.compile(rb"(?:mysqldump|mariadb-dump|mysql|mariadb)(?:\.exe)?: [^\n]*|Got error[^\n]*", re.IGNORECASE)
_ROW_TOKENS = re.compile(rb"['\"`();#]|/\*|--(?=\s|\Z)")
#: The same in the lists of rows of the dump programs, which have no comments and no other quotes.
_PLAIN_TOKENS = re.compile(rb"['();\\]")
_ENDS = {quote: re.compile(b"[\\\\" + quote + b"]") for quote in (b"'", b'"')}
_ESCAPE = re.compile(rb"\\[\\']")
_MARKS = b"'();"
_NOT_MARKS = bytes(value for value in range(256) if value not in _MARKS)
_VERBS = frozenset(
    b"ALTER ANALYZE BEGIN BINLOG CACHE CALL CHANGE CHECK COMMIT CREATE DEALLOCATE DELETE DO DROP END EXECUTE FLUSH "
    b"GRANT INSERT INSTALL LOAD LOCK OPTIMIZE PREPARE PURGE RELEASE RENAME REPLACE RESET REVOKE ROLLBACK SAVEPOINT "
    b"SELECT SET SHOW START STOP TRUNCATE UNINSTALL UNLOCK UPDATE USE WITH XA".split()
)
_KINDS = {b"VIEW": "views", b"TRIGGER": "triggers", b"EVENT": "events", b"SEQUENCE": "sequences"}
_SPACE = b" \t\r\n"


def looks_like(head: bytes) -> bool:
    """Return whether a stream that begins like this is SQL text of MariaDB or MySQL."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        head = head.replace(b"\0", b"")[2:]
    if b"PostgreSQL" in head or head.lstrip().startswith(b"PRAGMA "):
        return False
    return (
        re.search(
            rb"(?m)^(?:\xef\xbb\xbf)?(?:-- (?:MySQL|MariaDB) dump |-- phpMyAdmin |/\*M?!\d{5,6}|LOCK TABLES `|USE `|"
            rb"DROP TABLE IF EXISTS `|(?:INSERT|REPLACE) +(?:IGNORE )?INTO [`\"\w]|"
            rb"CREATE (?:DATABASE|TABLE|VIEW|TEMPORARY)[^\n]*`)",
            head,
        )
        is not None
    )


def count_rows(values: bytes, inside: bool, depth: int) -> tuple[int, bool, int] | None:
    """Return how many rows begin in a piece of a list of rows, and how the piece ends.

    Only what can matter is kept: everything but quotes, parentheses and semicolons is deleted in one go, then the
    strings, and what remains must be ``()`` again and again.

    :param values: the piece; it does not end between a backslash and the character it escapes.
    :param inside: whether the piece begins inside a string.
    :param depth: how many parentheses are open where it begins.
    :returns: rows, whether the piece ends inside a string, and how many parentheses are open at its end; ``None``:
        this is not the plain list of rows that the dump programs write.
    """
    if depth > 1 or (inside and not depth):
        return None
    if values.count(b"'", 0, 4096) * 128 < min(len(values), 4096):
        # Very few quotes, so long strings: go from quote to quote.
        outside = []
        pieces = values.split(b"'")
        last = pieces.pop()
        for piece in pieces:
            escaped = piece.endswith(b"\\") and (len(piece) - len(piece.rstrip(b"\\"))) & 1
            if not inside:
                outside.append(piece)
            if not escaped:
                inside = not inside
        if not inside:
            outside.append(last)
        marks = b"".join(outside).translate(None, _NOT_MARKS)
        if depth:
            marks = b"(" + marks
    else:
        if b"\\" in values:
            values = _ESCAPE.sub(b"", values)
        marks = values.translate(None, _NOT_MARKS)
        marks = (b"('" if inside else b"(" if depth else b"") + marks
        # The closing quote of one string meets the opening quote of another, or of its own: both vanish, the others
        # stay what they are.
        marks = marks.replace(b"''", b"")
        inside = False
        if b"'" in marks:
            pieces = marks.split(b"'")
            inside = not len(pieces) & 1
            marks = b"".join(pieces[::2])
    pairs = len(marks) // 2
    if marks != b"()" * pairs + b"(" * (len(marks) & 1):
        return None
    return len(marks) - pairs - depth, inside, len(marks) & 1


class SqlDumpWalker(Walker):
    """Follows a dump in SQL text.

    ``facts.counts`` has the rows of every table; the database is ``""`` where the dump does not name one.
    ``facts.created`` comes from the footer, which is in the local time of the host that made the dump, and is read in
    the time zone of this one.
    """

    format = "sqldump"

    def __init__(self) -> None:
        super().__init__()
        self._data = b""
        self._base = 0
        self._delimiter = b";"
        self._tokens = _tokens(b";")
        #: What the text is inside of: a quote, ``*/`` for a comment, a line end for a comment up to it, or nothing.
        self._quote = b""
        #: The beginning of the present statement; ``None`` between statements.
        self._head: bytearray | None = None
        self._start = 0
        #: The table whose rows are being read, and the text before its list of rows.
        self._table: tuple[str, str] | None = None
        self._header = b""
        self._depth = 0
        self._rows = 0
        #: The list of rows has ended and a clause such as ON DUPLICATE KEY follows.
        self._clause = False
        #: Backslashes escape, unless the dump itself sets NO_BACKSLASH_ESCAPES.
        self._escapes = True
        self._literal = False
        #: A mark of the dump programs has been seen: lists of rows are plain, and no string holds a line end.
        self._plain = False
        self._newline = b"\n"
        self._database = ""
        self._wait = 0
        self._nul: int | None = None
        self._last = b""
        self._begun = False
        self._title = False
        self._notes: bool | None = None
        self._complete = False
        self._names = 0
        self._dumps = 0
        self._placeholders: set[str] = set()
        self._finals: set[str] = set()
        self._data_seen = False
        self._said: set[str] = set()

    def feed(self, data: bytes) -> None:
        if not data:
            return
        if self._nul is None and b"\0" in data:
            self._nul = self._base + len(self._data) + data.index(b"\0")
        self._last = (self._last + data[-4096:])[-4096:]
        self._data = self._data + data if self._data else data
        self._run(False)

    def close(self) -> None:
        self._run(True)
        self._judge()
        self._data = self._last = b""

    def _run(self, final: bool) -> None:
        data, at = self._data, 0
        while at < len(data):
            if self._table is not None:
                after = self._values(data, at, final)
            elif self._head is not None or self._quote:
                after = self._statement(data, at, final)
            else:
                after = self._between(data, at, final)
            if after <= at:
                break
            at = after
        self._data = data[at:]
        self._base += at

    def _say(self, check: str, message: str, at: int | None, damage: bool = True, advice: str | None = None) -> None:
        """Add a problem; of each kind the first is enough."""
        if check not in self._said:
            self._said.add(check)
            self.problems.append(Problem(check, message, damage, at, advice))

    # Between statements

    def _between(self, data: bytes, at: int, final: bool) -> int:
        begin = at
        while at < len(data) and data[at] in _SPACE:
            at += 1
        rest = len(data) - at
        if not rest or at > begin or (rest < 32 and not final):
            return at
        if not self._begun:
            self._begun = True
            if data.startswith(b"\xef\xbb\xbf", at):
                return at + 3
        if self._complete:
            self._after_footer(data, at)
        if data[at : at + 1] == b"#" or (data.startswith(b"--", at) and (rest == 2 or data[at + 2] in _SPACE)):
            line = self._line(data, at, final)
            if line is None:
                return at
            self._comment(line)
            return self._past_line(data, at, line)
        if data.startswith((b"/*!999999", b"/*M!999999"), at) or (
            data.startswith(b"/*", at) and not data.startswith((b"/*!", b"/*M!"), at)
        ):
            self._plain = self._plain or data.startswith(b"/*M!", at)
            self._quote = b"*/"
            return at + 2
        if data.startswith(self._delimiter, at):
            return at + len(self._delimiter)
        verb = data[at : at + 9].upper()
        if verb == b"DELIMITER":
            line = self._line(data, at, final)
            if line is None:
                return at
            match = _DELIMITER.match(line)
            if match:
                self._delimiter = match.group(1)[:16]
                self._tokens = _tokens(self._delimiter)
                return self._past_line(data, at, line)
        word = _WORD.match(data, at, at + 48)
        if not word or word.group(1).upper() not in _VERBS:
            line = self._line(data, at, final)
            if line is None:
                return at
            self._foreign(line, self._base + at)
            return self._past_line(data, at, line)
        if self._delimiter == b";" and verb.startswith((b"INSERT", b"REPLACE")):
            match = _INSERT.match(data, at, at + _HEADER)
            if match:
                return self._begin_values(data, match)
            if rest < _HEADER and not final:
                # The list of columns may be long: look again when twice as much has arrived.
                if rest >= self._wait:
                    self._wait = rest * 2
                return at
        self._wait = 0
        self._head = bytearray()
        self._start = self._base + at
        return self._statement(data, at, final)

    def _line(self, data: bytes, at: int, final: bool) -> bytes | None:
        """Return the line that begins here, at most 4 KiB of it; ``None``: it has not arrived yet."""
        end = data.find(b"\n", at, at + 4096)
        if end >= 0:
            return data[at : end + 1]
        return data[at : at + 4096] if final or len(data) - at >= 4096 else None

    def _past_line(self, data: bytes, at: int, line: bytes) -> int:
        if not line.endswith(b"\n"):
            self._quote = b"\n"
        return at + len(line)

    def _after_footer(self, data: bytes, at: int) -> None:
        if data.startswith((b"/*M!999999", b"-- MariaDB dump ", b"-- MySQL dump "), at):
            self._complete = False
            return
        self._say(
            "sqldump.trailing",
            f"text follows the footer: {_shown(data[at : at + 80])}",
            self._base + at,
            advice="keep the dump's standard output apart from everything else that writes into the file",
        )

    def _foreign(self, line: bytes, at: int) -> None:
        text = line.strip()
        if _ERROR.match(text):
            advice = "send the dump program's messages elsewhere, and check its exit status"
            self._say("sqldump.error", f"the dump holds an error message: {_shown(text)}", at, True, advice)
        else:
            advice = "the restore stops here; look at what wrote into the file"
            self._say("sqldump.foreign", f"this is not SQL: {_shown(text)}", at, True, advice)

    def _comment(self, line: bytes) -> None:
        line = line.strip()
        attributes = self.facts.attributes
        if line.startswith(b"-- Dump completed"):
            match = _FOOTER.match(line)
            if match:
                self._complete = True
                self._note_created(match.group(1))
        elif _TITLE.match(line):
            self._title = self._plain = True
            self._dumps += 1
            attributes["dump_tool"] = _text(line[3:])
            if self._dumps > 1:
                attributes["dumps"] = self._dumps
        elif line.startswith(b"-- Host: "):
            name = line.partition(b"Database: ")[2].strip()
            if name:
                self._use(_text(name))
        elif line.startswith(b"-- Server version"):
            attributes["server_version"] = _text(line[17:].strip())
        elif line.startswith(b"-- Dumping data for table "):
            self._data_seen = True
        elif line.startswith((b"-- CHANGE ", b"-- SET GLOBAL gtid")):
            self._position(line)

    def _note_created(self, stamp: bytes | None) -> None:
        if stamp is None:
            return
        text = " ".join(_text(stamp).split())
        try:
            created = time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))
        except (ValueError, OverflowError):
            return
        # Of several dumps in one stream the oldest tells how old the backup is.
        if self.facts.created is None or created < self.facts.created:
            self.facts.created = created
            self.facts.attributes["created_local"] = text

    # Within a statement

    def _statement(self, data: bytes, at: int, final: bool) -> int:
        limit = len(data) if final else len(data) - 16
        if self._head is None:
            return self._leave(data, at, limit)
        after, ended = self._lex(data, at, limit, self._tokens)
        if len(self._head) < _HEAD:
            self._head += data[at : min(after, at + _HEAD - len(self._head))]
        if ended:
            head, self._head = bytes(self._head), None
            self._classify(head)
        return after

    def _leave(self, data: bytes, at: int, limit: int) -> int:
        """Go on to the end of the string, quoted name or comment that the text is inside of, or to the limit."""
        quote = self._quote
        if quote in _ENDS and self._escapes:
            search = _ENDS[quote].search
            while True:
                match = search(data, at)
                if match is None or match.start() >= limit:
                    return max(at, limit)
                at = match.end()
                if match.group() == quote:
                    self._quote = b""
                    return at
                at += 1
        end = data.find(quote, at)
        if end < 0 or end >= limit:
            return max(at, limit)
        self._quote = b""
        return end + len(quote)

    def _lex(self, data: bytes, at: int, limit: int, tokens: re.Pattern[bytes]) -> tuple[int, bool]:
        """Go through code token by token; return where it stopped and whether the statement ended there."""
        while at < limit:
            if self._quote:
                at = self._leave(data, at, limit)
                continue
            match = tokens.search(data, at)
            stop = min(match.start(), limit) if match else limit
            if tokens is _ROW_TOKENS and not self._depth and not self._clause:
                self._clause = any(value not in b" \t\r\n," for value in data[at:stop])
            if match is None or match.start() >= limit:
                return limit, False
            token, at = match.group(), match.end()
            if token in b"'\"`":
                self._quote = token
            elif token == b"/*":
                if not data.startswith((b"!", b"M!"), at):
                    self._quote = b"*/"
            elif token == b"\\":
                at += 1
            elif token in (b"#", b"--"):
                self._quote = b"\n"
            elif token == b"(":
                self._rows += not self._depth and not self._clause
                self._depth += 1
            elif token == b")":
                self._depth -= 1
                if self._depth < 0:
                    self._depth = 0
                    self._broken_rows(match.start())
            else:
                return at, True
        return at, False

    def _broken_rows(self, at: int) -> None:
        table = ".".join(self._table or ())
        self._say("sqldump.rows", f"the list of rows of {table} is broken", self._base + at)

    def _classify(self, head: bytes) -> None:
        text = _CONDITIONAL.sub(b"", head).strip()
        verb = text[:8].upper()
        if verb.startswith(b"SET"):
            self._set(text)
        elif verb.startswith(b"USE"):
            match = _USE.match(text)
            if match:
                self._use(_name(match.group(1)))
        elif verb.startswith(b"CREATE"):
            self._create(head, text)
        elif verb.startswith(b"CHANGE"):
            self._position(text)
        elif verb.startswith(b"LOCK"):
            self._data_seen = True
        elif verb.startswith((b"INSERT", b"REPLACE")) and self._delimiter == b";":
            self._data_seen = True
            match = re.match(rb"\w+\s+(?:IGNORE\s+)?INTO\s+(" + _NAME + rb")", text, re.IGNORECASE)
            if match and self._known(self._database, _name(match.group(1))):
                self.facts.counts[self._database][_name(match.group(1))] = None
            words = f"a statement with rows that cannot be counted: {_shown(text)}"
            self._say("sqldump.uncounted", words, self._start, self._plain)

    def _set(self, text: bytes) -> None:
        self._plain = self._plain or b"@saved_cs_client" in text
        if b"SQL_NOTES" in text:
            if b"@OLD_SQL_NOTES=" in text:
                self._notes = False
                self._plain = True
            elif b"=@OLD_SQL_NOTES" in text:
                self._notes = True
        mode = _SQL_MODE.search(text)
        if mode:
            self._escapes = b"NO_BACKSLASH_ESCAPES" not in mode.group(1).upper()
            self._literal = self._literal or not self._escapes
        self._position(text)

    def _position(self, text: bytes) -> None:
        attributes = self.facts.attributes
        name, position, gtid = _BINLOG_FILE.search(text), _BINLOG_POSITION.search(text), _GTID.search(text)
        if name and position:
            attributes["binlog_file"] = _text(name.group(1))
            attributes["binlog_position"] = int(position.group(1)[:20])
        if gtid:
            attributes["gtid"] = _text(gtid.group(1)).replace("\n", "")

    def _create(self, head: bytes, text: bytes) -> None:
        match = _CREATE.match(text)
        if not match:
            return
        kind, first, second = match.group(1).upper(), _name(match.group(2)), match.group(3)
        if kind in (b"DATABASE", b"SCHEMA"):
            self._known(first, None)
            return
        database, name = (first, _name(second)) if second else (self._database, first)
        if kind == b"TABLE" and not _TABLE_OF_A_VIEW.match(head):
            self._known(database, name)
            return
        full = f"{database}.{name}" if database else name
        if kind == b"TABLE" or (kind == b"VIEW" and _PLACEHOLDER.search(text) and b"ALGORITHM" not in text):
            if len(self._placeholders) < _NAMES:
                self._placeholders.add(full)
            return
        if kind == b"VIEW" and len(self._finals) < _NAMES:
            self._finals.add(full)
        names: list[str] = self.facts.attributes.setdefault(_KINDS.get(kind, "routines"), [])
        if self._countable():
            names.append(full)

    def _use(self, database: str) -> None:
        self._database = database
        self._known(database, None)

    def _countable(self) -> bool:
        self._names += 1
        if self._names > _NAMES:
            self._say("sqldump.names", f"more than {_NAMES} objects: the others are not listed", None, False)
        return self._names <= _NAMES

    def _known(self, database: str, table: str | None) -> bool:
        """Make the database and the table known; return whether there is room for them."""
        tables = self.facts.counts.get(database)
        if tables is None:
            if not self._countable():
                return False
            tables = self.facts.counts[database] = {}
        if table is not None and table not in tables:
            if not self._countable():
                return False
            tables[table] = 0
        return True

    # Within a list of rows

    def _begin_values(self, data: bytes, match: re.Match[bytes]) -> int:
        first, second = _name(match.group(1)), match.group(2)
        self._table = (first, _name(second)) if second else (self._database, first)
        self._header = match.group()
        self._start = self._base + match.start()
        self._wait = self._depth = self._rows = 0
        self._clause = False
        self._data_seen = True
        if data.find(b"\r\n", match.start() - 2, match.end()) >= 0:
            self._newline = b"\r\n"
        return match.end()

    def _end_values(self, at: int) -> None:
        if self._depth:
            self._broken_rows(at)
        self._add_rows()
        self._table = None

    def _add_rows(self) -> None:
        if self._table is not None:
            database, table = self._table
            if self._known(database, table):
                count = self.facts.counts[database][table]
                self.facts.counts[database][table] = None if count is None else count + self._rows
        self._rows = 0

    def _values(self, data: bytes, at: int, final: bool) -> int:
        # A closing parenthesis and what follows it must be seen together.
        limit = len(data) if final else len(data) - 16
        ending = b");" + self._newline
        short = False
        plain = self._plain and self._escapes
        while at < limit:
            if short:
                at = self._merged(data, at, min(limit, at + _SLICE), ending)
            stop = min(limit, at + _SLICE)
            end = _find_end(data, ending, at, stop)
            if end >= 0:
                stop = end + 1
            elif data[stop - 1] == 92 and (stop - at - len(data[at:stop].rstrip(b"\\"))) & 1 and stop < len(data):
                # What the backslash escapes goes with it.
                stop += 1
            state = count_rows(data[at:stop], self._quote == b"'", self._depth) if plain else None
            if state is None:
                at, ended = self._lex(data, at, stop, _PLAIN_TOKENS if plain else _ROW_TOKENS)
                if ended:
                    self._end_values(at)
                    return at
            else:
                rows, inside, self._depth = state
                self._rows += rows
                self._quote = b"'" if inside else b""
                short = end >= 0 and stop - at < 4096
                at = stop
            if end < 0 or at != end + 1 or not plain:
                continue
            at = end + len(ending)
            if self._quote:
                # The dump programs write a line end in a string as \n: a quote has been lost or added.
                self._quote, self._depth = b"", 1
            if self._depth or not data.startswith(self._header + b"(", at):
                self._end_values(at)
                return at
            self._start = self._base + at
            at += len(self._header)
        return at

    def _merged(self, data: bytes, at: int, limit: int, ending: bytes) -> int:
        """Count the rows of many short statements of one table together, if that is what follows.

        ``); INSERT INTO table VALUES (`` becomes ``),(``; inside a string that changes nothing that is counted.
        """
        between = ending + self._header + b"("
        last = data.rfind(between, at, limit)
        if last - at < 1024 or b"'" in between or b"\\" in between or data[last - 1] == 92:
            return at
        merged = data[at:last].replace(between, b"),(")
        state = None if ending in merged else count_rows(merged, self._quote == b"'", self._depth)
        if state is None:
            return at
        rows, inside, self._depth = state
        self._rows += rows
        self._quote = b"'" if inside else b""
        return last

    # The end

    def _judge(self) -> None:
        length = self._base + len(self._data)
        facts = self.facts
        if not self._begun:
            self._say("sqldump.empty", "the dump is empty", None, advice="check the exit status of the dump program")
            return
        if self._nul is not None and not self._literal:
            self._say(
                "sqldump.nul",
                f"a zero byte at {self._nul}: SQL text has none; a lost block of the disk, or UTF-16",
                self._nul,
                advice="make the dump again; in PowerShell use --result-file instead of >",
            )
        error = _ERROR.search(self._last)
        if self._table is not None or self._head is not None or self._quote not in (b"", b"\n"):
            where = "a comment" if self._table is None and self._head is None else "a statement"
            if self._table is not None:
                where = f"the rows of {'.'.join(self._table)}"
                self._add_rows()
            words = f"; its last words: {_shown(error.group())}" if error and not self._complete else ""
            self._say("sqldump.cut", f"the dump ends inside {where}, which begins at byte {self._start}{words}", length)
        elif not self._complete:
            self._judge_unfinished(length)
        missing = sorted(self._placeholders - self._finals)
        if missing:
            self._say("sqldump.view", f"announced, but not there: the view {missing[0]} ({len(missing)} in all)", None)
        if self._title and not self._data_seen and any(facts.counts.values()):
            facts.attributes["schema_only"] = True
        facts.attributes["complete"] = self._complete or bool(self._notes)
        facts.unchecked.append("SQL text has no checksum: a value changed before the dump was hashed is not seen")
        facts.unchecked.append("whether the dump has all tables and rows of its source: compare with expected counts")
        if facts.created is not None:
            facts.unchecked.append("the footer's time is local time of the dumping host, read in this host's time zone")

    def _judge_unfinished(self, length: int) -> None:
        advice = "check the exit status of the dump program and the space on the disk"
        if self._title:
            self._say("sqldump.footer", "the footer (-- Dump completed) is missing: it is cut", length, True, advice)
        elif self._notes is False:
            text = "the session's settings are not restored at the end: the dump is cut"
            self._say("sqldump.footer", text, length, True, advice)
        elif self._notes is None:
            text = "this dump has no end mark (--compact): whether it is complete cannot be told"
            self._say("sqldump.footer", text, length, False, "dump without --compact and --skip-comments")


def _tokens(delimiter: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"['\"`#]|/\*|--(?=\s|\Z)|" + re.escape(delimiter))


def _find_end(data: bytes, ending: bytes, at: int, stop: int) -> int:
    """Return the first place before ``stop`` where a list of rows may end, -1 when there is none."""
    # Looking for one byte is twenty times as fast as for three, as long as it is rare.
    semicolon = at
    for _attempt in range(64):
        semicolon = data.find(b";", semicolon + 1, stop + 1)
        if semicolon < 0 or data.startswith(ending, semicolon - 1):
            return max(semicolon - 1, -1)
    return data.find(ending, at, stop + len(ending) - 1)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _name(value: bytes) -> str:
    if value[:1] in (b"`", b'"'):
        value = value[1:-1].replace(value[:1] * 2, value[:1])
    return _text(value)


def _shown(value: bytes) -> str:
    """Return the first line of a text for a message, without control characters."""
    line = _text(value.strip().split(b"\n")[0][:120])
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)
