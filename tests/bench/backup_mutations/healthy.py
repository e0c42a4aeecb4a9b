# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sound backups as the programs can make them, with the options that people use: none of them may be called damaged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

_DUMPS = {
    "default": "", "skip-comments": "--skip-comments", "compact": "--compact", "skip-dump-date": "--skip-dump-date",
    "hex-blob": "--hex-blob", "one row a statement": "--skip-extended-insert", "complete-insert": "--complete-insert",
    "no-create-info": "--no-create-info", "no-data": "--no-data", "skip-opt": "--skip-opt", "replace": "--replace",
    "insert-ignore": "--insert-ignore", "skip-quote-names": "--skip-quote-names", "skip-tz-utc": "--skip-tz-utc",
    "with the place": "--single-transaction --master-data=2 --gtid",
    "with all objects": "--routines --events --triggers",
    "no locks, no keys": "--skip-add-locks --skip-disable-keys --skip-add-drop-table",
    "charset": "--default-character-set=latin1", "order-by-primary": "--order-by-primary",
}  # fmt: skip

_SQUEEZE = {
    "": "cat", ".gz": "gzip -9 -n", ".1.gz": "gzip -1", ".members.gz": "split -n 3 --filter='gzip -c'",
    ".zst": "zstd -q", ".19.zst": "zstd -q -19", ".unchecked.zst": "zstd -q --no-check",
    ".frames.zst": "split -n 3 --filter='zstd -qc'", ".xz": "xz", ".none.xz": "xz --check=none",
    ".crc32.xz": "xz --check=crc32", ".members.xz": "split -n 3 --filter='xz -c'", ".bz2": "bzip2",
    ".1.bz2": "bzip2 -1", ".members.bz2": "split -n 3 --filter='bzip2 -c'",
}  # fmt: skip

_TARS = {
    "gnu": "--format=gnu", "oldgnu": "--format=oldgnu", "pax": "--format=pax", "ustar": "--format=ustar",
    "v7": "--format=v7", "small blocks": "-b 1", "sparse": "--sparse", "owners": "--owner=a:1 --group=b:2 --mode=600",
    "labelled": "--label=worklog", "pax, deep": "--format=pax --xattrs --acls",
}  # fmt: skip

#: What is made from nothing, by name: a script that makes ``$1``, in a directory with ``tree`` in it.
_OTHERS = {
    "mongodump": "mongodump --quiet --db=worklog --out=$1",
    "mongodump, gzip": "mongodump --quiet --gzip --db=worklog --out=$1",
    "mongodump, one at a time": "mongodump --quiet --numParallelCollections=1 --out=$1",
    "mongodump, one collection": "mongodump --quiet --db=worklog --collection=settings --out=$1",
    "mongo.archive": "mongodump --quiet --archive=$1",
    "mongo.archive.gz": "mongodump --quiet --gzip --archive=$1",
    "mongo.archive.zst": "mongodump --quiet --archive | zstd -q > $1",
    "mydumper": "mydumper --user=root --database=worklog --outputdir=$1",
    "mydumper, compressed": "mydumper --user=root --compress --database=worklog --outputdir=$1",
    "mydumper, in pieces": "mydumper --user=root --rows=50 --database=worklog --outputdir=$1",
    "mydumper, all objects": "mydumper --user=root --triggers --routines --events --outputdir=$1",
    "mydumper, with empty files": "mydumper --user=root --build-empty-files --database=worklog --outputdir=$1",
    "mariadb-backup": "mariadb-backup --backup --user=root --target-dir=$1",
    "mariadb-backup, parallel": "mariadb-backup --backup --user=root --parallel=4 --target-dir=$1",
    "mariadb-backup, one database": "mariadb-backup --backup --user=root --databases=worklog --target-dir=$1",
    "mariadb-backup, prepared": "mariadb-backup --backup --user=root --target-dir=$1 && "
                                "mariadb-backup --prepare --target-dir=$1",
    "backup.xb": "mariadb-backup --backup --user=root --stream=mbstream > $1",
    "backup.xb.gz": "mariadb-backup --backup --user=root --stream=mbstream | gzip > $1",
    "backup.xb.unchecked.zst": "mariadb-backup --backup --user=root --stream=mbstream | zstd -q --no-check > $1",
    "binlogs": "mariadb -e 'FLUSH BINARY LOGS' && mkdir $1 && cp /var/lib/mysql/binlog.0* $1",
    "binlogs, statements": "mariadb -e 'FLUSH BINARY LOGS; SET SESSION binlog_format=STATEMENT; CREATE DATABASE busy; "
                           "DROP DATABASE busy; FLUSH BINARY LOGS' && mkdir $1 && cp /var/lib/mysql/binlog.0* $1",
    "binlogs, compressed": "mkdir $1 && cp /var/lib/mysql/binlog.0* $1 && gzip $1/*",
    "rsync": "rsync -a tree/ $1/",
    "rsync, hard links": "rsync -aH tree/ $1/ && ln $1/one.log $1/again.log",
    "incremental.tar.gz": "tar --create --listed-incremental=$1.snar --file=$1 --gzip tree",
    "appended.tar": "tar -cf $1 tree/one.log && tar -rf $1 tree/two.bin && tar -uf $1 tree",
    "several.tar": "tar -cf $1 tree/one.log && tar -cf $1.b tree/two.bin && tar -Af $1 $1.b && rm $1.b",
    "plain.env": "printf '# worklog\\nDB_HOST=db1\\nPORT=3002\\n' > $1",
    "text.log": "cp tree/one.log $1",
    "last line open.log": "printf 'one\\ntwo' > $1",
    "age": "age -r $(age-keygen -y $IDENTITY) -o $1.age tree/one.log && mv $1.age $1",
    "tree.tar.age": "tar -cf - tree | age -r $(age-keygen -y $IDENTITY) > $1",
    "tree.tar.gz.age": "tar -czf - tree | age -r $(age-keygen -y $IDENTITY) > $1",
}  # fmt: skip

#: A server of its own for each set of options of Redis.
_REDIS = (
    "redis-server --port 0 --unixsocket $PWD/redis.sock --dir $PWD --daemonize yes --save '' {options} >/dev/null; "
    "for i in $(seq 50); do redis-cli -s redis.sock ping >/dev/null 2>&1 && break; sleep 0.1; done; "
    'redis-cli -s redis.sock eval \'for i=1,200 do redis.call("set","k"..i,string.rep("v"..i,i)) '
    'redis.call("rpush","l"..i%9,i) redis.call("hset","h"..i%5,i,i) redis.call("zadd","z",i,i) '
    'redis.call("sadd","s"..i%3,i) redis.call("xadd","x","*","f",i) end\' 0 >/dev/null; '
    "redis-cli -s redis.sock expire k1 1000 >/dev/null; {save}; redis-cli -s redis.sock shutdown nosave; {keep}"
)


def variants(quick: bool) -> Iterator[tuple[str, str]]:
    """Yield the name of each variant, which is the name of what its script makes as ``$1``.

    :param quick: only some of each.
    """
    for name, script in _scripts(quick):
        yield name, script.replace("$1", '"$1"')


def _scripts(quick: bool) -> Iterator[tuple[str, str]]:
    step = 29 if quick else 1
    dumps = [(f"dump, {name}{end}", end, f"mariadb-dump {flags} worklog", filter_) for (name, flags), (end, filter_)
             in itertools.product(_DUMPS.items(), _SQUEEZE.items())]  # fmt: skip
    tars = [(f"tar, {name}{end}", end, f"tar {flags} -cf - tree", filter_) for (name, flags), (end, filter_)
            in itertools.product(_TARS.items(), _SQUEEZE.items())]  # fmt: skip
    for kind, made in ((".sql", dumps), (".tar", tars)):
        for name, end, script, filter_ in made[::step]:
            whole = name[: len(name) - len(end)] + end[: end.rindex(".")] + kind + end[end.rindex(".") :] if end else (
                name + kind
            )  # fmt: skip
            yield whole, f"{script} > plain && {filter_} < plain > $1"
    others = list(_OTHERS.items())
    yield from others[:: 6 if quick else 1]
    snapshot = "redis-cli -s redis.sock save >/dev/null"
    settings = itertools.product(("yes", "no"), ("yes", "no"))
    for checksum, compression in list(settings)[:: 3 if quick else 1]:
        options = f"--rdbchecksum {checksum} --rdbcompression {compression}"
        yield (
            f"redis, checksum {checksum}, compression {compression}.rdb",
            _REDIS.format(options=options, save=snapshot, keep="mv dump.rdb $1"),
        )
        if not quick:
            options += " --appendonly yes --aof-use-rdb-preamble " + ("yes" if compression == "yes" else "no")
            rewritten = "redis-cli -s redis.sock bgrewriteaof >/dev/null; sleep 1; redis-cli -s redis.sock set new 1"
            for name, save in (("", ":"), (", rewritten", rewritten + " >/dev/null")):
                yield (
                    f"redis, append only, checksum {checksum}, compression {compression}{name}",
                    _REDIS.format(options=options, save=save, keep="mv appendonlydir $1"),
                )
