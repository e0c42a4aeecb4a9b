# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates, ``.env`` files and configuration: an archive whenever something has changed, and only then."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import IO, Any, ClassVar

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make import options, tarball
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.source import (
    REQUIRED,
    Engine,
    Made,
    MakeError,
    Stage,
    Unchanged,
    Work,
    private,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.manifest import Entry
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.reading import Unreadable, open_file
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.members import printable

#: Largest file; it is read into memory so that what is written is one state of it.
MAX_FILE = 64 * 1024 * 1024

#: Name of the archive; ``.age`` is added when it is encrypted.
NAME = "files.tar"

_KEY = "fingerprint.key"


def recipients(value: Any) -> tuple[str, ...]:
    """Return public keys of age.

    :raises ValueError: when one is none; a private key must never get into an argument list.
    """
    found = options.texts(value)
    if not all(entry.startswith(("age1", "ssh-")) for entry in found):
        raise ValueError("a list of public keys that begin with age1 or ssh-")
    return found


class Secrets(Engine):
    """Makes archives of a few small files that must not be read by others."""

    name = "secrets"
    kinds: Mapping[str, str] = {"snapshot": "everything, if something has changed since the last one"}
    OPTIONS: ClassVar[options.Options] = {
        "paths": (options.paths, REQUIRED),
        "recipients": (recipients, ()),
        "recipients_file": (options.path, None),
    }

    def needed(self, work: Work) -> int | None:
        """Return the size of the archive."""
        members, _special = tarball.find(self.options["paths"])
        return 10240 + sum(1024 + (member.status.st_size if member.is_file else 0) for member in members)

    def make(self, work: Work) -> Made:
        """Read everything, compare it with the newest archive by its fingerprint, and write it if it differs."""
        members, special = tarball.find(self.options["paths"])
        if not any(member.is_file for member in members):
            raise MakeError(f"there is no file in {', '.join(self.options['paths'])}: put the paths right")
        key = self._key(os.path.join(work.state, _KEY))
        last = work.newest("snapshot")
        recorded = last.manifest.document.get("fingerprint") if last else None
        if last is not None and last is work.last and recorded == self._read(members, key, None):
            raise Unchanged(last)
        said: list[str] = []

        def feed(stream: IO[bytes]) -> None:
            said.append(self._read(members, key, stream))

        encryption = self._encryption()
        name = NAME + (".age" if encryption else "")
        output = work.stream(encryption, name, feed=feed)
        written = Entry(output.entry.size, output.entry.sha256)  # a hash of what is encrypted would tell about it
        return Made(
            method="tar and age" if encryption else "tar",
            files={name: written},
            exits=output.exits,
            warnings=[
                *(f"{printable(path)} is no file, directory or link, and was left out" for path in special),
                *_astray(members),
            ],
            more={"fingerprint": said[0], "members": len(members), "encrypted": bool(encryption)},
        )

    def _read(self, members: Sequence[tarball.Member], key: bytes, stream: IO[bytes] | None) -> str:
        """Return the fingerprint of all members, which are written into an archive besides.

        It tells whether something has changed and, without the key, nothing else: not even a password that can be
        guessed could be told from it.
        """
        mac = hmac.new(key, digestmod=hashlib.sha256)
        mac.update(json.dumps([sorted(self.options["recipients"]), self._recipients_file()]).encode() + b"\n")

        def content(member: tarball.Member) -> tuple[os.stat_result, IO[bytes]]:
            status, data = _whole(member.path)
            note(member.path, status, "", hashlib.sha256(data).hexdigest())
            return status, io.BytesIO(data)

        def note(path: str, status: os.stat_result, link: str, digest: str) -> None:
            mac.update(json.dumps([path, status.st_mode, status.st_uid, status.st_gid, link, digest]).encode() + b"\n")

        for member in members:
            if not member.is_file:
                note(member.path, member.status, os.readlink(member.path) if member.is_link else "", "")
        if stream is not None:
            tarball.write(stream, members, content)
        else:
            for member in members:
                if member.is_file:
                    content(member)
        return mac.hexdigest()

    def _encryption(self) -> list[Stage]:
        flags = [part for key in self.options["recipients"] for part in ("--recipient", key)]
        if self.options["recipients_file"]:
            flags += ["--recipients-file", self.options["recipients_file"]]
        return [Stage(["age", "--encrypt", *flags])] if flags else []

    def _recipients_file(self) -> str:
        path = self.options["recipients_file"]
        try:
            return files.read(path).decode("utf-8", "replace") if path else ""
        except files.FileError as error:
            raise MakeError(f"recipients_file: {error}") from error

    @staticmethod
    def _key(path: str) -> bytes:
        """Return the key of the fingerprints; it never leaves the directory of the source."""
        if not os.path.lexists(path):
            try:
                files.replace(path, secrets.token_hex(32).encode() + b"\n", mode=0o600)
            except files.FileError as error:
                raise MakeError(str(error)) from error
        return private(path)


def _whole(path: str) -> tuple[os.stat_result, bytes]:
    """Return one state of a file.

    :raises MakeError: when it cannot be read, is too large, or changes all the time.
    """
    for _attempt in range(5):
        try:
            descriptor = open_file(path)
        except Unreadable as error:
            raise MakeError(f"{printable(path)}: {error}") from error
        with os.fdopen(descriptor, "rb") as stream:
            before = os.fstat(descriptor)
            if before.st_size > MAX_FILE:
                raise MakeError(
                    f"{printable(path)} has {before.st_size} bytes, and a file of this source may have {MAX_FILE}: "
                    "leave it to a source with the engine 'files'"
                )
            data = stream.read(MAX_FILE + 1)
            after = os.fstat(descriptor)
        if len(data) == after.st_size and before.st_mtime_ns == after.st_mtime_ns:
            return after, data
    raise MakeError(f"{printable(path)} was written whenever it was read; run it again when it is quiet")


def _astray(members: Sequence[tarball.Member]) -> list[str]:
    """Return a warning for every link that would lead nowhere after a restore of this archive alone."""
    there = {member.path for member in members}
    found = []
    for member in members:
        if not member.is_link:
            continue
        target = os.path.normpath(os.path.join(os.path.dirname(member.path), os.readlink(member.path)))
        if target not in there:
            what = "is not part of this backup" if os.path.lexists(target) else "does not exist"
            found.append(f"{printable(member.path)} is a link to {printable(target)}, which {what}")
    return found
