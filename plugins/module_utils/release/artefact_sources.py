# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where releases come from: archives, directories and tags of git, each proven before a file of it is unpacked."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

from ansible_collections.worklog.maintenance.plugins.module_utils.archive import ArchiveError, extract, extract_zip
from ansible_collections.worklog.maintenance.plugins.module_utils.command import Runner, which
from ansible_collections.worklog.maintenance.plugins.module_utils.release.artefact import (
    ArtefactError,
    check_links,
    sha256,
)

_SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_COMMIT = re.compile(r"[0-9a-fA-F]{40}(?:[0-9a-fA-F]{24})?")
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_BAD_SIGNATURES = ("BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG")


@dataclass(frozen=True)
class Proof:
    """What an artefact is held against.

    :param checksum: SHA-256 of an archive, or the commit of a tag.
    :param checksums: a file as sha256sum writes it.
    :param signature: the detached signature, of ``checksums`` where that is given, else of the archive.
    :param keyring: the keys that may sign.
    """

    checksum: str = ""
    checksums: str = ""
    signature: str = ""
    keyring: str = ""


class Archive:
    """An archive or a directory on this host."""

    def __init__(self, source: str, proof: Proof, run: Runner) -> None:
        self.source = source
        self.proof = proof
        self._run = run
        self._digest = ""

    def prove(self) -> list[str]:
        """Hold it against what it should be, and return what that has proven.

        :raises ArtefactError: when it is something else.
        """
        proof = self.proof
        if not os.path.exists(self.source):
            raise ArtefactError(f"nothing was changed: {self.source} is not there; copy it to this host first")
        asked = any((proof.checksum, proof.checksums, proof.signature, proof.keyring))
        if os.path.isdir(self.source):
            if asked:
                raise ArtefactError(
                    "nothing was changed: only an archive has a checksum or a signature, not a directory"
                )
            return []
        if bool(proof.signature) != bool(proof.keyring):
            raise ArtefactError("nothing was changed: signature and keyring belong together; give both")
        said = []
        self._digest = sha256(self.source)
        if proof.signature:
            signed = proof.checksums or self.source
            said.append(f"{signed} is signed by {check_signature(signed, proof.signature, proof.keyring, self._run)}")
        for wanted, where in ((_listed(proof.checksums, self.source), proof.checksums), (proof.checksum, "checksum")):
            if wanted:
                self._compare(wanted, where)
                said.append(f"its SHA-256 is that of {where}")
        return said

    def fill(self, place: str) -> Mapping[str, Any]:
        """Unpack it below a directory.

        :raises ArtefactError: when it is not what was proven any more.
        :raises ArchiveError: when it cannot be unpacked, or would write elsewhere.
        """
        if os.path.isdir(self.source):
            check_links(self.source)
            shutil.copytree(self.source, place, symlinks=True, dirs_exist_ok=True)
            return {"source": self.source}
        with open(self.source, "rb") as raw:
            if self.source.endswith(".zip"):
                extract_zip(raw, place)
            else:
                with _plain(self.source, raw) as stream:
                    extract(stream, place)
        if sha256(self.source) != self._digest:  # it was proven before, but somebody may have written to it since
            raise ArtefactError(f"nothing was changed: {self.source} was changed while it was unpacked")
        return {"source": self.source, "sha256": self._digest}

    def _compare(self, wanted: str, where: str) -> None:
        found = _SHA256.fullmatch(wanted.strip())
        if not found:
            raise ArtefactError(f"nothing was changed: '{wanted}' is no SHA-256")
        if found.group(1).lower() != self._digest:
            raise ArtefactError(
                f"nothing was changed: {self.source} is not what {where} says: its SHA-256 is {self._digest}, not "
                f"{found.group(1).lower()}; fetch it again"
            )


class GitTag:
    """A tag of a remote or a bundle."""

    def __init__(self, source: str, tag: str, proof: Proof, run: Runner, timeout: float) -> None:
        self.source = source
        self.tag = tag
        self.proof = proof
        self._run = run
        self._timeout = timeout
        self._commit = ""
        #: What was proven, when it was filled.
        self.proof_said: list[str] = []

    def fill(self, place: str) -> Mapping[str, Any]:
        """Fetch the tag into a repository of our own, prove it, and take its files out.

        Nothing of the configuration or the hooks of the source is used.

        :raises ArtefactError: when the tag is not there or is something else.
        """
        with tempfile.TemporaryDirectory(prefix=".git-", dir=os.path.dirname(place)) as scratch:
            repository = os.path.join(scratch, "repository.git")
            self._git(["init", "--quiet", "--bare", repository])
            reference = f"refs/tags/{self.tag}"
            shallow = [] if os.path.isfile(self.source) else ["--depth", "1"]
            self._git(
                [
                    "-C",
                    repository,
                    "fetch",
                    "--quiet",
                    "--no-tags",
                    *shallow,
                    "--",
                    self.source,
                    f"+{reference}:{reference}",
                ]
            )
            self._commit = self._git(["-C", repository, "rev-parse", "--verify", f"{reference}^{{commit}}"]).strip()
            self.proof_said += self._prove(repository, reference, scratch)
            archive = os.path.join(scratch, "tree.tar")
            self._git(["-C", repository, "archive", "--format=tar", f"--output={archive}", self._commit])
            with open(archive, "rb") as stream:
                extract(stream, place)
        return {"source": self.source, "tag": self.tag, "commit": self._commit}

    def _prove(self, repository: str, reference: str, scratch: str) -> list[str]:
        said = []
        wanted = self.proof.checksum.strip().lower()
        if wanted:
            if not _COMMIT.fullmatch(wanted):
                raise ArtefactError(f"nothing was changed: '{wanted}' is no commit; give all its 40 digits")
            if wanted != self._commit:
                raise ArtefactError(
                    f"nothing was changed: the tag {self.tag} is the commit {self._commit}, not {wanted}; somebody has "
                    "moved it"
                )
            said.append(f"the tag {self.tag} is the commit {wanted}")
        if self.proof.keyring:
            kind = self._git(["-C", repository, "cat-file", "-t", reference]).strip()
            text = self._git(["-C", repository, "cat-file", "tag", reference]).encode() if kind == "tag" else b""
            body, mark, signature = text.partition(_SIGNATURE)
            # the signature is of the name too: a good tag must not pass under the name of another version
            headers = body.split(b"\n\n", 1)[0].decode("utf-8", "replace").splitlines()
            if not mark:
                raise ArtefactError(f"nothing was changed: the tag {self.tag} is not signed")
            if f"tag {self.tag}" not in headers or f"object {self._commit}" not in headers:
                raise ArtefactError(f"nothing was changed: the signature is not of the tag {self.tag}")
            signed, detached = os.path.join(scratch, "tag"), os.path.join(scratch, "tag.asc")
            for path, content in ((signed, body), (detached, mark + signature)):
                with open(path, "wb") as stream:
                    stream.write(content)
            said.append(f"the tag is signed by {check_signature(signed, detached, self.proof.keyring, self._run)}")
        return said

    def _git(self, arguments: list[str]) -> str:
        environment = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}
        done = self._run(["git", *arguments], timeout=self._timeout, env=environment)
        if not done.ok:
            raise ArtefactError(f"nothing was changed: the tag {self.tag} of {self.source}: {done.describe()}")
        return done.stdout


def check_signature(path: str, signature: str, keyring: str, run: Runner) -> str:
    """Return the fingerprint of the key that has signed a file.

    :raises ArtefactError: when none of the keyring has, or the key or the signature is not good any more.
    """
    for needed in (signature, keyring):
        if not os.path.isfile(needed):
            raise ArtefactError(f"nothing was changed: {needed} is not there")
    done = run(["gpgv", "--status-fd", "1", "--keyring", os.path.abspath(keyring), signature, path], timeout=120)
    status = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] ")]
    bad = [words[0] for words in status if words and words[0] in _BAD_SIGNATURES]
    valid = [words[1] for words in status if len(words) > 1 and words[0] == "VALIDSIG"]
    if not done.ok or bad or not valid:
        last = (done.stderr.strip().splitlines() or ["gpgv said nothing"])[-1]
        raise ArtefactError(
            f"nothing was changed: {signature} is no good signature of {path} by a key of {keyring}: {last} "
            f"{' '.join(bad)}".rstrip()
        )
    return valid[0]


def _listed(checksums: str, source: str) -> str:
    if not checksums:
        return ""
    name = os.path.basename(source)
    try:
        with open(checksums, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"nothing was changed: {checksums} cannot be read: {error}") from error
    for line in lines:
        digest, _unused, rest = line.partition(" ")
        if os.path.basename(rest.strip().lstrip("*")) == name:
            return digest
    raise ArtefactError(f"nothing was changed: {checksums} has no line for {name}")


@contextlib.contextmanager
def _plain(path: str, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give the plain content of an archive; a compression that fails is an error."""
    if path.endswith((".gz", ".tgz")):
        with gzip.open(raw) as stream:
            yield cast(IO[bytes], stream)
    elif path.endswith((".xz", ".txz")):
        with lzma.open(raw) as stream:
            yield cast(IO[bytes], stream)
    elif path.endswith((".zst", ".tzst")):
        program = which("zstd")
        if program is None:
            raise ArchiveError("the program 'zstd' is not installed on this host")
        with subprocess.Popen(
            [program, "-dcq"], stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield cast(IO[bytes], process.stdout)
                while cast(IO[bytes], process.stdout).read(1 << 20):
                    pass
                if process.wait() != 0:
                    raise ArchiveError(f"zstd cannot read {path}: it is damaged")
            finally:
                process.kill()
    elif path.endswith(".tar"):
        yield raw
    else:
        raise ArchiveError(f"{path} is none of tar, tar.gz, tar.xz, tar.zst and zip")
