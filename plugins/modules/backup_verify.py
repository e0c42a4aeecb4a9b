# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verify
short_description: Verify that backups are whole, fresh and hold what they should
description:
  - Reads every byte of every backup once, decompresses all of it, follows its format to the end, and compares what it
    found with what was expected. Nothing is extracted and nothing is written into a backup.
  - Understands plain files, directory trees, gzip, xz, bzip2 and zstd, tar (GNU, pax, ustar), dumps of
    C(mariadb-dump) and C(mysqldump), directories of C(mydumper), directories and streams of C(mariadb-backup) and
    C(xtrabackup), tablespaces of InnoDB, binary logs of MariaDB and MySQL, C(mongodump) directories and archives, Redis
    RDB and AOF files, and such files inside a tar archive or a directory.
  - Repositories of restic and borg are verified through their own programs, and files that age has encrypted through
    C(age) when their key is given.
  - Says what can be recovered from the backups of a source, taken together, with O(sets).
  - Damage after the backup was made is found by checksums. Damage while it was made, such as an empty table or a dump
    of the wrong database, can only be found by an expectation. So without one the best verdict is V(structure_ok).
  - A file C(manifest.json) in the directory of the backup, or C(<file>.sha256) beside a file, is used when it is there.
options:
  backups:
    description: The backups to verify. All are verified before the module fails. Without any, O(sets) is needed.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - A file, a directory, or a repository of restic or borg.
          - With O(backups[].format=restic) or V(borg) also a repository elsewhere, such as V(sftp:backup@host:/repo).
          - A pattern with V(*), V(?) or V([...]) stands for its newest match by modification time. Names that end in
            C(.partial) are passed over.
        type: str
        required: true
      name:
        description: What the backup is called in the history of sizes. By default O(backups[].path) as it is written.
        type: str
      format:
        description:
          - What is inside, after decompression. Compression is always found out.
          - V(auto) tells it from the content and the name.
          - V(plain) accepts any content, without looking into it.
        type: str
        default: auto
        choices:
          [
            auto, plain, tree, restic, borg, tar, xbstream, mongodump_archive, redis_rdb, redis_aof, binlog, innodb,
            innodb_delta, sqldump, bson, age, openpgp, openssl, env, text,
          ]
      every:
        description:
          - Verify every match of a pattern, not the newest alone. What they share by hard links is read once.
          - O(expect.max_age) and O(expect.size_change) hold for the newest.
        type: bool
        default: false
      manifest:
        description:
          - The manifest of this backup, C(*.json), or a file as C(sha256sum) writes it.
          - By default C(manifest.json) and C(<file>.sha256) are looked for.
        type: path
      log:
        description:
          - What the program that made the backup said, a file or a pattern of which the newest is taken.
          - An error in it makes the verdict V(inconclusive), a missing C(completed OK!) of mariadb-backup V(damaged).
          - The logs in a backup that was made by this collection are looked into in any case.
        type: str
      identity_file:
        description: File on the host with the key for what age has encrypted. Nothing is written to disk.
        type: path
      password_file:
        description: File on the host with the password of a repository.
        type: path
      password_env:
        description: Variable of the task's environment with the password of a repository.
        type: str
      read:
        description:
          - Read a share in each run, for very large stores. By default all of it is read each time.
          - Files of a directory and data of a restic repository fall into parts, of which those are read that were not
            read for longest, and files that are new. With O(backups[].every) it is the older matches that take turns.
            The data of a borg repository is read as a whole when its time has come.
          - What is not read is listed in RV(backups[].unchecked), and what was never read is not V(verified).
        type: dict
        suboptions:
          share:
            description: About this share in each run, as V(0.1) or V(10%); more when O(backups[].read.within) needs it.
            type: str
            required: true
          within:
            description: All of it is read within this time.
            type: str
            default: 7d
      expect:
        description: What must be true of this backup; goes before O(expect), key by key.
        type: dict
        suboptions: &expect
          max_age:
            description:
              - Age at most, in seconds or as V(90m), V(26h), V(7d).
              - It counts from the end of the backup as the manifest or the content says, else from the modification
                time of the file or the change times of the directories.
            type: str
          min_size:
            description: Size on disk at least, in bytes or as V(500K), V(10M), V(1.5G). V(0) accepts an empty file.
            type: str
          max_size:
            description: Size on disk at most.
            type: str
          size_change:
            description:
              - How far the size may be from the median of the earlier good backups of this name, as V(0.5) or V(50%).
              - At least three earlier ones must be known.
            type: str
          members:
            description:
              - Paths that must be in the archive or directory, or keys of an env file.
              - A directory is there when anything in it is. V(*), V(?) and V([...]) also match C(/).
            type: list
            elements: str
          min_members:
            description: Number of members at least; directories do not count. V(0) accepts an empty archive.
            type: int
          databases:
            description: Databases that must be there.
            type: list
            elements: str
          tables:
            description: Tables or collections that must be there, as C(database.table).
            type: list
            elements: str
          min_rows:
            description: Rows at least by C(database.table), counted from the backup itself.
            type: dict
          min_documents:
            description: The same as O(backups[].expect.min_rows), for collections.
            type: dict
          sha256:
            description: SHA-256 of the file.
            type: str
          min_snapshots:
            description: Snapshots or archives of a repository at least.
            type: int
          snapshot_host:
            description: Only snapshots of this host count, for their number, age and members.
            type: str
          snapshot_tags:
            description: Only snapshots with all these tags count.
            type: list
            elements: str
  expect:
    description: What must be true of all backups.
    type: dict
    suboptions: *expect
  sets:
    description:
      - Sources of which the backups together must recover something. They are those that C(worklog-backup) makes, with
        the verdicts it remembers; this reads no payload.
    type: list
    elements: dict
    default: []
    suboptions:
      root:
        description: Directory of all backups.
        type: path
        default: /var/backups/worklog
      sources:
        description: Names of the sources.
        type: list
        elements: str
        required: true
      full_within:
        description: Time at most since the newest verified backup that needs no other.
        type: str
        default: 8d
      recoverable_within:
        description: Time at most between now and the last moment to which the source can be recovered.
        type: str
  accept:
    description: The verdicts that are good enough. The module fails when a backup has any other.
    type: list
    elements: str
    choices: [verified, structure_ok, inconclusive, stale]
    default: [verified, structure_ok]
  report_only:
    description:
      - Report and never fail because of a verdict, so that a playbook can report all hosts before it fails.
      - Use RV(bad) to decide.
    type: bool
    default: false
  history:
    description:
      - Directory in which the sizes of good backups are kept, for O(expect.size_change), and when they were read, for
        O(backups[].read).
    type: path
    default: /var/lib/worklog-maintenance/backup_verify
  max_ratio:
    description:
      - Decompressed bytes for each byte on disk, above which a file is taken for a decompression bomb.
      - The first GiB is always decompressed.
    type: float
    default: 200
  max_expanded:
    description: Decompressed bytes of one backup at most.
    type: str
    default: 8T
  progress_file:
    description: File in which the progress is kept while the module runs. Used by the action plugin of the same name.
    type: path
  defer_above:
    description:
      - Return at once when there are more bytes than this to read. Used by the action plugin of the same name, which
        then runs the module in the background and shows its progress.
    type: int
attributes:
  check_mode:
    description: Gives the same answer as a real run; the history is not written.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
  idempotent:
    description: Changes nothing on the host, apart from its own history.
    support: full
notes:
  - The Python packages isal, zlib-ng and zstandard are used on the host when they are there. They change the speed and
    never the verdict. zstd needs Python 3.14, python3-zstandard or the program C(zstd) on the host.
  - Page checksums of InnoDB (CRC-32C) are computed without a compiled extension; with the Python package crc32c
    (C(python3-crc32c) in Debian) this is several times as fast.
  - Memory stays below 100 MB whatever the size. What needs more to decompress (C(xz) or C(zstd) with windows above
    64 MiB) is inconclusive.
  - A check that reads more than 512 MB runs in the background of the host, for 24 hours at most, and shows how far it
    is. Set C(async) on the task to do without.
  - restic and borg are run without a lock, so that no backup fails because of a check. borg may write its C(nonce) and
    its index all the same.
seealso:
  - module: worklog.maintenance.record
author:
  - Worklog Maintenance contributors (@worklog)
"""

EXAMPLES = r"""
- name: Verify last night's backups
  worklog.maintenance.backup_verify:
    expect:
      max_age: 26h
    backups:
      - path: /backup/mongodb/*/worklog_*.tar.gz
        expect:
          tables: [worklog.users, worklog.entries]
          min_documents:
            worklog.users: 1
          size_change: 50%
      - path: /backup/mysql/worklog.sql.gz
        expect:
          min_rows:
            worklog.users: 100
      - path: /backup/redis/dump.rdb
      - path: /backup/files/uploads
        expect:
          min_members: 1

- name: Verify a repository of restic, a tenth of its data a day
  worklog.maintenance.backup_verify:
    backups:
      - path: /srv/restic/worklog
        password_file: /etc/worklog-maintenance/restic.password
        read:
          share: 10%
          within: 14d
        expect:
          max_age: 26h
          min_snapshots: 7
          snapshot_host: db1
          members: [/var/backups/worklog]

- name: Say what can be recovered
  worklog.maintenance.backup_verify:
    sets:
      - sources: [worklog-db]
        full_within: 8d
        recoverable_within: 2h

- name: Verify the backups of the low-code platform, and decide later
  worklog.maintenance.backup_verify:
    report_only: true
    backups:
      - path: /path/to/backups/env_latest.bak
        expect:
          members: [PORT, NODE_ENV]
      - path: /path/to/backups/logs_latest.tar.gz
        expect:
          members: ['*.log']
  register: backups
"""

RETURN = r"""
backups:
  description: One entry for each backup, in the order of O(backups).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: What it is called in the history.
      type: str
    path:
      description: The file or directory that was read.
      type: str
    verdict:
      description:
        - V(verified), sound and what was expected of its content is true.
        - V(structure_ok), sound, but nothing was expected of its content.
        - V(inconclusive), it cannot be told.
        - V(stale), too old.
        - V(damaged), damaged or not what was expected.
        - V(missing), not there.
      type: str
      sample: verified
    findings:
      description: What was found, the worst first.
      type: list
      elements: dict
    unchecked:
      description: What was not checked, in words.
      type: list
      elements: str
    format:
      description: What is inside, null when it is not recognised.
      type: str
      sample: tar
    compression:
      description: How it is compressed and encrypted, from the outside in.
      type: list
      elements: str
    size:
      description: Bytes on disk, null when it was not read.
      type: int
    expanded:
      description: Bytes after decompression.
      type: int
    sha256:
      description: SHA-256 of the file, null for a directory.
      type: str
    made:
      description: When it was made, in ISO 8601 and UTC.
      type: str
    made_from:
      description:
        - How that is known, C(manifest), C(content), C(newest snapshot), C(modification time) or
          C(directory change time).
      type: str
    age:
      description: Seconds since it was made.
      type: int
    members:
      description: Number of members without directories, null when it has none to count.
      type: int
    counts:
      description: Rows or documents by database and by table or collection; null where they cannot be counted.
      type: dict
      sample: {worklog: {users: 120}}
    attributes:
      description: What else the format tells.
      type: dict
sets:
  description: One entry for each source of O(sets).
  returned: always
  type: list
  elements: dict
  contains:
    source:
      description: Its name.
      type: str
    good:
      description: Whether all that is wanted is there.
      type: bool
    recoverable:
      description: Whether anything can be recovered.
      type: bool
    from:
      description: The first moment to which it can be recovered, null when there is none.
      type: str
    to:
      description: The last one.
      type: str
    gaps:
      description: The periods between them to which it cannot be recovered, each with C(from), C(to) and C(reason).
      type: list
      elements: dict
    moments:
      description: The moments of all backups that need no logs.
      type: list
      elements: str
    unusable:
      description: The backups that do not count, and why.
      type: list
      elements: str
    sentence:
      description: All this in one sentence.
      type: str
      sample: "worklog-db is recoverable from 2026-01-25T02:03:04Z to 2026-01-31T14:00:05Z, gaps: none"
    findings:
      description: What was found.
      type: list
      elements: dict
bad:
  description:
    - The backups whose verdict is not in O(accept), as C(path is verdict), and the sources that are not recoverable.
  returned: always
  type: list
  elements: str
reasons:
  description: For each of RV(bad) one sentence that says why.
  returned: always
  type: list
  elements: str
findings:
  description: The findings of all backups and sets.
  returned: always
  type: list
  elements: dict
deferred:
  description: There is more to read than O(defer_above), and nothing was checked.
  returned: when O(defer_above) is exceeded
  type: bool
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import (
    check,
    expect,
    history,
    options,
    rotation,
    sets,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.progress import Progress
from ansible_collections.worklog.maintenance.plugins.module_utils.units import size


def main() -> None:
    """Verify all backups, then judge."""
    module = AnsibleModule(argument_spec=options.argument_spec(), supports_check_mode=True)
    given = module.params
    if not given["backups"] and not given["sets"]:
        module.fail_json(
            msg="nothing is named that could be verified, which proves nothing; give backups or sets (in an inventory "
            "backup_verify_backups or backup_verify_sets of the host)"
        )
    try:
        backups = [options.backup(entry, given["expect"]) for entry in given["backups"]]
        wanted = [options.wanted(entry) for entry in given["sets"]]
        limits = Limits(given["max_ratio"], size(given["max_expanded"]))
        sizes = history.History(given["history"])
        turns = rotation.Turns(given["history"])
    except ValueError as error:
        module.fail_json(msg=f"max_expanded is {given['max_expanded']!r}, but must be {error}")
    except (expect.ExpectationError, history.HistoryError) as error:
        module.fail_json(msg=str(error))
    if given["defer_above"] is not None and check.exceeds(backups, given["defer_above"]):
        module.exit_json(deferred=True, backups=[], sets=[], bad=[], reasons=[], findings=[])

    progress = Progress(given["progress_file"])
    try:
        results = check.verify_all(
            backups,
            now=time.time(),
            limits=limits,
            history=sizes,
            turns=turns,
            progress=progress.advance,
            started=progress.start,
        )
    finally:
        progress.end()
    answers = sets.answer(wanted, time.time())
    if not module.check_mode:
        try:
            sizes.save()
            turns.save()
        except history.HistoryError as error:
            module.warn(str(error))

    bad = [result for result in results if result.verdict not in given["accept"]]
    gone = [answer for answer in answers if not answer.good]
    reasons = [*(result.sentence() for result in bad), *(answer.reasons() for answer in gone)]
    values = {
        "changed": False,
        "backups": [result.as_dict() for result in results],
        "sets": [answer.as_dict() for answer in answers],
        "bad": [
            *(f"{result.path} is {result.verdict}" for result in bad),
            *(f"{answer.statement.source} is not recoverable as it must be" for answer in gone),
        ],
        "reasons": reasons,
        "findings": [
            *(finding.as_dict() for result in results for finding in result.findings),
            *(finding.as_dict() for answer in answers for finding in answer.findings),
        ],
    }
    if reasons and not given["report_only"]:
        total = len(results) + len(answers)
        module.fail_json(msg=f"{len(reasons)} of {total} cannot be relied upon: {'; '.join(reasons)}", **values)
    module.exit_json(**values)


if __name__ == "__main__":
    main()
