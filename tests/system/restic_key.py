# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restic repositories that open at once.

restic makes the key of a new repository such that every call takes about half a second of a processor to derive it from
the password. That protects passwords, of which tests have none worth it, and it is most of what a test would take.
The format: https://restic.readthedocs.io/en/stable/100_references.html#keys-encryption-and-mac
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

if TYPE_CHECKING:
    from tests.system.conftest import Lab

#: The least of N, r and p that scrypt knows.
_QUICK = {"N": 2, "r": 1, "p": 1}
_CLAMP = int.from_bytes(bytes.fromhex("0ffffffc0ffffffc0ffffffc0fffffff"), "big")


def quicken(lab: Lab, node: str, repository: str, password: str) -> None:
    """Replace the only key of a new repository in a directory of a node by a cheap one for the same password."""
    (old,) = lab.exec(node, ["find", f"{repository}/keys", "-type", "f"]).stdout.split()
    made = quick_key(lab.read(node, old), password)
    lab.exec(node, ["cp", "--preserve=all", old, f"{old}.new"])
    lab.write(node, f"{old}.new", made)
    lab.exec(node, ["mv", f"{old}.new", f"{repository}/keys/{hashlib.sha256(made.encode()).hexdigest()}"])
    lab.exec(node, ["rm", "-f", old])


def quick_key(text: str, password: str) -> str:
    """Return a cheap key that opens what this one opens."""
    key = json.loads(text)
    sealed = base64.b64decode(key["data"])
    body, tag = sealed[16:-16], sealed[-16:]
    user = _derive(password, key)
    assert _authenticate(user, sealed[:16], body) == tag, "the password does not open this key"
    master = _crypt(user, sealed[:16], body)
    key |= _QUICK
    user, nonce = _derive(password, key), os.urandom(16)
    body = _crypt(user, nonce, master)
    key["data"] = base64.b64encode(nonce + body + _authenticate(user, nonce, body)).decode()
    return json.dumps(key)


def _derive(password: str, key: dict[str, object]) -> bytes:
    """64 bytes: 32 to encrypt, 16 and 16 for Poly1305-AES."""
    n, r, p = (int(str(key[name])) for name in "Nrp")
    salt = base64.b64decode(str(key["salt"]))
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=1 << 28, dklen=64)


def _crypt(user: bytes, nonce: bytes, data: bytes) -> bytes:
    step = Cipher(algorithms.AES(user[:32]), modes.CTR(nonce)).encryptor()
    return step.update(data) + step.finalize()


def _authenticate(user: bytes, nonce: bytes, data: bytes) -> bytes:
    """Poly1305-AES: the one-time key is r, and the nonce encrypted by k."""
    step = Cipher(algorithms.AES(user[32:48]), modes.ECB()).encryptor()  # one block: there is nothing to chain
    r = (int.from_bytes(user[48:], "little") & _CLAMP).to_bytes(16, "little")
    return Poly1305.generate_tag(r + step.update(nonce) + step.finalize(), data)
