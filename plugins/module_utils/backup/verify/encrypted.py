# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encrypted files: age, OpenPGP and openssl enc, whose frame can be followed without a key, and age with its key.

With a key the program age decrypts into the same walkers that follow what is not encrypted; nothing is written to disk.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from typing import IO

from ansible_collections.worklog.maintenance.plugins.module_utils import command
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.decoders import PIECE, Decoder
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.pull import PullWalker, Step
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Walker

_AGE = b"age-encryption.org/v1\n"
_AGE_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_PGP_ARMOR = b"-----BEGIN PGP MESSAGE-----"
_SALTED = b"Salted__"

#: A recipient's line in the header of age, its body, and the line that ends the header.
_STANZA = re.compile(rb"-> ([!-~]+)(?: [!-~]+)*")
_BODY = re.compile(rb"[A-Za-z0-9+/]{0,64}")
_MAC = re.compile(rb"--- [A-Za-z0-9+/]{43}")

#: Bytes of a header that are believed, of age's nonce, and of a piece of its payload with and without text in it.
_MAX_HEADER = 1024 * 1024
_NONCE, _TAG, _PIECE = 16, 16, 64 * 1024 + 16

#: Packets of OpenPGP: for whom the message is, and the message.
_PGP_KEYS, _PGP_DATA = (1, 3), (9, 18, 20)

#: Seconds without any progress after which the program is given up.
_STALL = 300.0

_SEALED = "what is inside: it is encrypted"


def looks_like_age(head: bytes) -> bool:
    """Return whether a stream that begins so was encrypted by age."""
    return head.startswith((_AGE, _AGE_ARMOR))


def looks_like_openpgp(head: bytes) -> bool:
    """Return whether a stream that begins so is a message of OpenPGP, as gpg writes it."""
    if head.startswith(_PGP_ARMOR):
        return True
    if len(head) < 16 or not head[0] & 0x80:
        return False
    tag = head[0] & 0x3F if head[0] & 0x40 else (head[0] & 0x3C) >> 2
    if head[0] & 0x40:
        start = 2 if head[1] < 192 else 3 if head[1] < 224 else 0
    else:
        start = {0: 2, 1: 3, 2: 5, 3: 0}[head[0] & 3]
    body = head[start : start + 10]
    if tag == 1:  # version, key id, algorithm
        return start > 0 and (body[0] == 6 or (body[0] == 3 and body[9] in (1, 2, 16, 18, 22, 25)))
    # version, cipher, how the key is made from the passphrase
    return tag == 3 and start > 0 and body[0] == 4 and 1 <= body[1] <= 13 and body[2] in (0, 1, 3, 4)


def looks_like_openssl(head: bytes) -> bool:
    """Return whether a stream that begins so was encrypted by openssl enc."""
    return head.startswith(_SALTED)


class Sealed(PullWalker):
    """What is common to encrypted streams: only their frame can be followed."""

    def _end_of_armor(self, begin: bytes) -> Step:
        """Follow a stream in letters to its closing line."""
        last = b""
        while not self.ended:
            last = (last + self.data[self.at :])[-200:]
            self.at = len(self.data)
            yield from self.more()
        if last.rstrip().rpartition(b"\n")[2].rstrip() != begin.replace(b"BEGIN", b"END"):
            self.problem("truncated", "its closing line is missing: it ends in the middle")

    def problem(
        self, check: str, message: str, offset: int | None = None, damage: bool = True, advice: str | None = None
    ) -> None:
        super().problem(f"{self.format}.{check}", message, offset, damage, advice)

    def cut(self) -> None:
        self.problem("truncated", "it ends in the middle of its header")

    def close(self) -> None:
        super().close()
        self.facts.unchecked.append(_SEALED)


class AgeWalker(Sealed):
    """age: recipients, and whether the size of the payload is one that whole pieces have."""

    format = "age"

    def walk(self) -> Step:
        yield from self.need(len(_AGE))
        if self.data.startswith(_AGE_ARMOR):
            yield from self._end_of_armor(_AGE_ARMOR)
            return
        if not self.data.startswith(_AGE):
            self.problem("header", "it does not begin as age writes it", 0)
            return
        self.at = len(_AGE)
        recipients: list[str] = []
        while True:
            line = yield from self._line()
            if line is None:
                self.problem("header", "its header has a line that is too long")
                return
            stanza = _STANZA.fullmatch(line)
            if stanza:
                if len(recipients) < 100:
                    recipients.append(printable(stanza.group(1), 50))
            elif _MAC.fullmatch(line):
                break
            elif not recipients or not _BODY.fullmatch(line) or self.base + self.at > _MAX_HEADER:
                self.problem("header", "its header is damaged")
                return
        self.facts.attributes["recipients"] = recipients
        header = self.base + self.at
        while not self.ended:
            self.at = len(self.data)
            yield from self.more()
        payload = self.base + len(self.data) - header - _NONCE
        if payload == _TAG:
            self.problem(
                "empty", "nothing was encrypted", advice="Find out why the program that should write it failed."
            )
        elif payload < _TAG or 0 < payload % _PIECE <= _TAG:
            self.problem("truncated", f"{payload} bytes of payload cannot be whole: it ends in the middle")

    def _line(self) -> Generator[None, None, bytes | None]:
        """Take one line; None: it is too long for one."""
        while True:
            end = self.data.find(b"\n", self.at)
            if end >= 0:
                line, self.at = self.data[self.at : end], end + 1
                return line
            if len(self.data) - self.at > 4096:
                return None
            yield from self.need(len(self.data) - self.at + 1)


class OpenPgpWalker(Sealed):
    """OpenPGP: the lengths of the packets lead to the end of the file."""

    format = "openpgp"

    def walk(self) -> Step:
        yield from self.need(len(_PGP_ARMOR))
        if self.data.startswith(_PGP_ARMOR):
            yield from self._end_of_armor(_PGP_ARMOR)
            return
        if not looks_like_openpgp(self.data):
            self.problem("header", "it does not begin as a message of OpenPGP", 0)
            return
        keys = 0
        while True:
            yield from self.need(1)
            first = self.data[self.at]
            tag = first & 0x3F if first & 0x40 else (first & 0x3C) >> 2
            if not first & 0x80 or tag not in _PGP_KEYS + _PGP_DATA:
                self.problem("packet", f"a packet with the number {tag} does not belong into an encrypted message")
                return
            keys += tag in _PGP_KEYS
            self.at += 1
            yield from self._packet(first)
            if tag in _PGP_DATA:
                break
        self.facts.attributes["recipients"] = keys
        if self.at == len(self.data):
            yield from self.more()
        if self.at < len(self.data):
            self.problem("trailing", "bytes that do not belong to it follow the message")

    def _packet(self, first: int) -> Step:
        """Pass over the body of a packet, whose length may come in parts."""
        if not first & 0x40:
            width = (1, 2, 4, 0)[first & 3]
            if not width:  # it goes on to the end of the file
                while not self.ended:
                    self.at = len(self.data)
                    yield from self.more()
                return
            yield from self.need(width)
            size = int.from_bytes(self.data[self.at : self.at + width], "big")
            self.at += width
            yield from self.skip(size)
            return
        partial = True
        while partial:
            yield from self.need(1)
            octet = self.data[self.at]
            partial = 224 <= octet < 255
            width = 1 if octet < 192 or partial else 2 if octet < 224 else 5
            yield from self.need(width)
            if partial:
                size = 1 << (octet & 0x1F)
            elif width == 1:
                size = octet
            elif width == 2:
                size = ((octet - 192) << 8) + self.data[self.at + 1] + 192
            else:
                size = int.from_bytes(self.data[self.at + 1 : self.at + 5], "big")
            self.at += width
            yield from self.skip(size)

    def cut(self) -> None:
        self.problem("truncated", "it ends in the middle of a packet")


class OpensslWalker(Sealed):
    """openssl enc: a salt and nothing else that could be followed."""

    format = "openssl"

    def walk(self) -> Step:
        yield from self.need(16)
        while not self.ended:
            self.at = len(self.data)
            yield from self.more()
        self.facts.unchecked.append("whether it is whole: openssl enc has no mark at the end and no checksum")


class AgeDecoder(Decoder):
    """Decrypts through the program age, with a key that is in a file.

    :param identity: path of the file.
    """

    name = "age"

    def __init__(self, identity: str) -> None:
        super().__init__()
        self._identity = identity
        self._process: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] | None = None
        self._ended = False

    def _inside(self) -> bool:
        return not self._ended

    def _decode(self, data: bytes) -> Iterator[bytes]:
        if self._process is None and not self._start():
            return
        yield from self._exchange(memoryview(data), close=False)

    def _finish(self) -> Iterator[bytes]:
        if self._process is None and not self._start():
            return
        yield from self._exchange(memoryview(b""), close=True)
        if not self.stopped:
            self._judge()

    def _start(self) -> bool:
        program = command.which("age")
        if program is None:
            self._give_up("the program 'age' is not installed on this host", "Install it.")
            return False
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed in _end
        try:
            self._process = subprocess.Popen(
                [program, "--decrypt", "--identity", self._identity],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                bufsize=0,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,  # without a terminal to ask for a passphrase
            )
        except OSError as error:
            self._give_up(f"{program} could not be started: {error.strerror}")
            return False
        for stream in (self._process.stdin, self._process.stdout):
            os.set_blocking(stream.fileno(), False)  # type: ignore[union-attr]  # both were asked for
        return True

    def _exchange(self, view: memoryview, close: bool) -> Iterator[bytes]:
        """Write all data and yield what comes back meanwhile; with ``close`` until the program closes its output."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                if close:
                    process.stdin.close()
                else:
                    selector.register(process.stdin, selectors.EVENT_WRITE)
                while view or close:
                    events = selector.select(_STALL)
                    if not events:
                        self._give_up(f"age made no progress for {_STALL:g} s and was ended")
                        return
                    for key, _mask in events:
                        if key.fileobj is process.stdin:
                            view = view[os.write(process.stdin.fileno(), view) :]
                            continue
                        piece = os.read(process.stdout.fileno(), PIECE)
                        if piece:
                            self._produced += len(piece)
                            yield piece
                        elif close:
                            return
                        else:
                            self._judge()  # it ended before its input did
                            return
        except BrokenPipeError:
            self._judge()
        except GeneratorExit:
            self._end()
            raise

    def _judge(self) -> None:
        """Say what the program's end means."""
        try:
            code = self._process.wait(_STALL) if self._process else 1
        except subprocess.TimeoutExpired:
            code = 1
        said = self._said()
        self._end()
        self._ended = code == 0
        if code == 0:
            return
        if "failed to decrypt and authenticate" in said or "unexpected EOF" in said or "failed to read header" in said:
            self._stop("corrupt", f"age cannot decrypt it to its end, after {self._produced} bytes: {said}")
        elif "no identity matched" in said or "incorrect passphrase" in said:
            self._give_up(f"the key in {self._identity} does not open it: {said}", "Name the identity_file it is for.")
        else:
            self._give_up(f"age ended with exit code {code}: {said}", "Look at identity_file and at the program age.")

    def _said(self) -> str:
        if self._words is None:
            return "it said nothing"
        self._words.seek(0)
        first = self._words.read(2000).decode("utf-8", "replace").partition("\n")[0]
        return printable(first.strip(), 500) or "it said nothing"

    def _give_up(self, message: str, advice: str | None = None) -> None:
        self._end()
        self._stop("key", message, damage=False, advice=advice)

    def _end(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None
        if self._words is not None:
            self._words.close()
            self._words = None


def is_sealed(walker: Walker) -> bool:
    """Return whether a walker followed something that it could not look into."""
    return isinstance(walker, Sealed)
