# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The formats that are known: a new one is a file with its walker and a line here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import binlogs
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.binlog import BinlogWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.binlog import (
    looks_like as looks_like_binlog,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.decoders import (
    Bzip2Decoder,
    Decoder,
    GzipDecoder,
    XzDecoder,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.encrypted import (
    AgeDecoder,
    AgeWalker,
    OpenPgpWalker,
    OpensslWalker,
    looks_like_age,
    looks_like_openpgp,
    looks_like_openssl,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.innodb import NAME as INNODB_NAME
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.innodb import NEW as INNODB_NEW
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.innodb import (
    DeltaWalker,
    InnodbWalker,
    looks_like_delta,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.innodb import (
    looks_like as looks_like_innodb,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.mariabackup import XbstreamWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.mariabackup import (
    looks_like as looks_like_xbstream,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.mongodump import (
    ARCHIVE,
    BsonWalker,
    MongoArchiveWalker,
    looks_like_bson,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.mongodump import (
    looks_like as looks_like_mongo_archive,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.redis_aof import AofWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.redis_aof import (
    looks_like as looks_like_aof,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.redis_rdb import RdbWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.redis_rdb import (
    looks_like as looks_like_rdb,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.sqldump import SqlDumpWalker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.sqldump import (
    looks_like as looks_like_sql,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.tar import TarWalker, is_header
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.text import (
    EnvWalker,
    TextWalker,
    is_env,
    is_text,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.walker import Walker
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.zstd_frames import MAGIC, ZstdDecoder

#: Bytes that are enough to recognise every format.
HEAD = 512


@dataclass(frozen=True)
class Codec:
    """A way to compress one stream.

    :param suffixes: endings of file names, and what the name without compression ends with instead.
    """

    name: str
    suffixes: dict[str, str]
    sniff: Callable[[bytes], bool]
    decoder: Callable[[], Decoder]


@dataclass(frozen=True)
class Format:
    """What a stream can hold.

    :param sniff: whether the first bytes are surely of this format.
    :param walker: makes what follows it, from the path.
    :param suffixes: endings of file names that promise this format.
    :param inside: whether members of archives and files of trees are followed: always, or only when ``sniff`` says
        so, or never.
    :param shape: what such members and files are called when no ending promises the format.
    """

    name: str
    sniff: Callable[[bytes], bool]
    walker: Callable[[str], Walker]
    suffixes: tuple[str, ...] = ()
    inside: str = "never"
    shape: re.Pattern[str] | None = None


def _is_bzip2(head: bytes) -> bool:
    return head[:3] == b"BZh" and head[3:4].isdigit() and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")


def _is_zstd(head: bytes) -> bool:
    return head[:4] == MAGIC or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50)


def namespace(path: str) -> tuple[str, str]:
    """Return the database and the collection that the path of a BSON file names."""
    folder, _slash, name = path.rpartition("/")
    stem = name[:-5] if name.endswith(".bson") else name
    return ("" if name == "oplog.bson" else folder.rpartition("/")[2], unquote(stem))


def table(path: str) -> tuple[str, str]:
    """Return the database and the table that the path of a tablespace names, empty when it is no table's."""
    folder, _slash, name = path.rpartition("/")
    if not folder or not name.endswith((".ibd", ".new")):
        return "", ""
    stem = re.split("#[Pp]#", name[:-4])[0]
    return _decoded(folder.rpartition("/")[2]), _decoded(stem)


def _decoded(name: str) -> str:
    """Return a name that MariaDB has encoded for the file system."""
    return re.sub("@([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), name)


def base_name(path: str) -> str:
    """Return a name without its folders and compression."""
    return promised_codec(path)[1].rpartition("/")[2]


def _redis(path: str) -> Walker:
    """Return what follows a snapshot: an append-only file may begin with one and goes on behind it."""
    return AofWalker() if promised_codec(path)[1].lower().endswith(".aof") else RdbWalker()


CODECS = (
    Codec("gzip", {".gz": "", ".tgz": ".tar"}, lambda head: head[:3] == b"\x1f\x8b\x08", GzipDecoder),
    Codec("xz", {".xz": "", ".txz": ".tar"}, lambda head: head[:6] == b"\xfd7zXZ\0", XzDecoder),
    Codec("bzip2", {".bz2": "", ".tbz2": ".tar", ".tbz": ".tar"}, _is_bzip2, Bzip2Decoder),
    Codec("zstd", {".zst": "", ".tzst": ".tar"}, _is_zstd, ZstdDecoder),
)

FORMATS = (
    Format("tar", lambda head: is_header(head[:512]), lambda path: TarWalker(), (".tar",)),
    Format("xbstream", looks_like_xbstream, lambda path: XbstreamWalker(), (".xbstream", ".mbstream", ".xb"), "sniff"),
    Format("mongodump_archive", looks_like_mongo_archive, lambda path: MongoArchiveWalker(), (), "sniff", ARCHIVE),
    Format("redis_rdb", looks_like_rdb, _redis, (".rdb",), "always"),
    Format("redis_aof", looks_like_aof, lambda path: AofWalker(), (".aof",), "always"),
    Format("binlog", looks_like_binlog, lambda path: BinlogWalker(base_name(path)), (), "sniff", binlogs.NAME),
    Format("innodb", looks_like_innodb, lambda path: InnodbWalker(*table(path)), (".ibd",), "always", INNODB_NAME),
    # mariadb-backup renames it to .ibd when it prepares the backup.
    Format("innodb", looks_like_innodb, lambda path: InnodbWalker(*table(path)), (), "sniff", INNODB_NEW),
    Format("innodb_delta", looks_like_delta, lambda path: DeltaWalker("ibdata1" in path), (".delta",), "sniff"),
    Format("sqldump", looks_like_sql, lambda path: SqlDumpWalker(), (".sql",), "sniff"),
    Format("bson", looks_like_bson, lambda path: BsonWalker(*namespace(path)), (".bson",), "always"),
    Format("age", looks_like_age, lambda path: AgeWalker(), (".age",), "sniff"),
    Format("openpgp", looks_like_openpgp, lambda path: OpenPgpWalker(), (".gpg", ".pgp"), "sniff"),
    Format("openssl", looks_like_openssl, lambda path: OpensslWalker()),
    Format("env", is_env, lambda path: EnvWalker()),
    Format("text", is_text, lambda path: TextWalker()),
)

NAMES = tuple(dict.fromkeys(entry.name for entry in FORMATS))


def age(identity: str) -> Codec:
    """Return how a stream is opened that age has encrypted, with the key in a file."""
    return Codec("age", {".age": ""}, looks_like_age, partial(AgeDecoder, identity))


def codec_of(head: bytes) -> Codec | None:
    """Return how a stream that begins so is compressed."""
    return next((codec for codec in CODECS if codec.sniff(head)), None)


def promised_codec(path: str) -> tuple[Codec | None, str]:
    """Return the compression that a name promises, and the name without it."""
    lower = path.lower()
    for codec in CODECS:
        for suffix, replacement in codec.suffixes.items():
            if lower.endswith(suffix):
                return codec, path[: -len(suffix)] + replacement
    return None, path


def format_of(head: bytes) -> Format | None:
    """Return what a stream that begins so holds."""
    return next((entry for entry in FORMATS if entry.sniff(head)), None)


def promised_format(path: str) -> Format | None:
    """Return the format that a name without compression promises."""
    lower = path.lower()
    return next((entry for entry in FORMATS if entry.suffixes and lower.endswith(entry.suffixes)), None)


def is_archive(path: str) -> bool:
    """Return whether a name promises an archive of files."""
    found = promised_format(promised_codec(path)[1])
    return found is not None and found.name in ("tar", "xbstream")


def named(name: str) -> Format:
    """Return the format of this name."""
    return next(entry for entry in FORMATS if entry.name == name)


def followed_inside(path: str) -> Format | None:
    """Return the format to look for in a member of an archive or a file of a tree, by its name."""
    return inside_format(promised_codec(path)[1])


def inside_format(path: str) -> Format | None:
    """Return the same for a name without compression."""
    entry = promised_format(path) or next((found for found in FORMATS if found.shape and found.shape.match(path)), None)
    return entry if entry is not None and entry.inside != "never" else None
