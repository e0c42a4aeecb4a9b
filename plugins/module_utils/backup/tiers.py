# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of backups in other places: made, read back, counted only when they are proven equal, and brought back.

What is proven stands in a state file of the source. It is a note of what was seen, never the only place that knows of a
copy: the snapshots themselves tell which backups they are.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
import os
import tarfile
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from ansible_collections.worklog.maintenance.plugins.module_utils import files
from ansible_collections.worklog.maintenance.plugins.module_utils.backup import listing, manifest, prune, pruning
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restic import (
    Damaged,
    Location,
    Locked,
    PrunableRepository,
    Repository,
    ResticError,
    Snapshot,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import (
    NAME,
    PARTIAL,
    Kept,
    Store,
    StoreError,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify import check
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.content import Limits
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.verify.verdict import GOOD, Backup
from ansible_collections.worklog.maintenance.plugins.module_utils.finding import Finding

#: Parts at most into which restic divides the data of a repository.
_PARTS = 256

_BLOCK = 1 << 20


class TierError(Exception):
    """A copy could not be made, proven or brought back; the message says why and what to do."""


@dataclass(frozen=True)
class Tier:
    """A place for copies.

    :param name: ``remote`` or ``offsite``.
    :param location: the repository.
    :param read_share: share of the data that every run reads besides what is new; all is read in turn.
    :param before_prune: whether a local backup may only go after its copy here is proven.
    :param keep: what is kept here, None: everything, for ever.
    """

    name: str
    location: Location
    read_share: float = 0.05
    before_prune: bool = True
    keep: prune.Policy | None = None


@dataclass
class State:
    """What is known of a tier.

    :param repository: id of the repository.
    :param copies: by id of the backup: the snapshot, the SHA-256 of its manifest, and when it was proven.
    :param pending: likewise, read back and equal, but the repository was not checked since.
    :param retired: SHA-256 of the manifest by id, of copies that were proven and have served their time here.
    :param checked: when the repository was last found sound, in seconds since the epoch.
    :param trouble: why the copies cannot be relied upon now.
    :param part: the part of the data that was read last.
    :param seen: the clock at the last pruning.
    :param deleting: ids that are being removed.
    :param unfreed: whether the space of removed copies is still to be freed.
    """

    repository: str | None = None
    copies: dict[str, dict[str, Any]] = field(default_factory=dict)
    pending: dict[str, dict[str, Any]] = field(default_factory=dict)
    retired: dict[str, str] = field(default_factory=dict)
    checked: float | None = None
    trouble: str | None = None
    part: int = 0
    seen: float | None = None
    deleting: list[str] = field(default_factory=list)
    unfreed: bool = False


@dataclass
class Copied:
    """What a run of copying did.

    :param subject: source and tier.
    :param added: paths of the backups that were copied.
    :param proven: ids of the copies that count from now on.
    :param findings: what an operator must know.
    """

    subject: str
    added: list[str] = field(default_factory=list)
    proven: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def failed(self) -> str | None:
        """Return what went wrong."""
        return "; ".join(finding.message for finding in self.findings if finding.severity == "critical") or None


def holding(store: Store, tier: Tier) -> prune.Holding:
    """Return what a tier proves to hold, or has held for as long as its policy asks, as far as is known here."""
    state = _load(store, tier)
    proven = {id: str(copy["sha256"]) for id, copy in state.copies.items()}
    return prune.Holding(tier.name, {**state.retired, **proven}, state.checked, state.trouble)


def copy(
    store: Store,
    tier: Tier,
    repository: Repository,
    *,
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> Copied:
    """Copy the verified backups that the tier lacks, read them back, check the repository, and count them then.

    :raises ResticError: when the repository cannot be used at all.
    :raises StoreError: when the backups cannot be read, or another program works on the copies.
    """
    result = Copied(f"{store.source} {tier.name}")
    with store.lock(f"copy to {tier.name}", part=tier.name):
        state = _load(store, tier)
        snapshots = _look(store, tier, repository, state, result)
        backups = [kept for kept in store.backups()[0] if kept.verdict in GOOD]
        here = {kept.id for kept in backups}
        state.retired = {id: sha256 for id, sha256 in state.retired.items() if id in here}
        lacking = [kept for kept in backups if not _is_known(kept, state)]
        for kept in [kept for kept in lacking if kept.id not in snapshots]:
            try:
                _add(store, repository, kept)
            except ResticError as error:
                if not os.path.isdir(kept.path):
                    continue  # pruned meanwhile
                result.findings.append(_critical("copy", kept.path, f"{kept.path} was not copied: {error}"))
                break
            result.added.append(kept.path)
            say(f"copied {kept.path} to {tier.name}")
        if result.added:
            snapshots = _by_id(repository.snapshots(store.source)[0])
        for kept in lacking:
            for snapshot in snapshots.get(kept.id, []):
                difference = _prove(repository, kept, snapshot, state, result)
                if difference is None:
                    entry = {"snapshot": snapshot.id, "sha256": kept.manifest.sha256, "time": clock()}
                    state.pending[kept.id] = entry
                    _save(store, tier, state)
                    say(f"read {kept.path} back from {tier.name}: equal")
                    break
        _check(store, tier, repository, state, result, clock())
    return result


def prune_tier(
    store: Store,
    tier: Tier,
    repository: PrunableRepository,
    policy: prune.Policy,
    *,
    now: float,
    allow: Collection[str] = (),
    dry: bool = False,
    say: Callable[[str], None],
) -> pruning.Outcome:
    """Prune the copies in a tier: by the same plan as on this host, and by naming each snapshot.

    :raises ResticError: when the repository cannot be used.
    :raises TierError: when it is another one than before.
    :raises StoreError: when another program works on the copies.
    """
    with contextlib.nullcontext() if dry else store.lock(f"pruning of {tier.name}", part=tier.name):
        state = _load(store, tier)
        identity = repository.identity()
        if state.repository != identity:
            raise TierError(
                f"the repository of {store.source} {tier.name} is not the one whose copies were proven; nothing is "
                f"pruned; run a copy first"
            )
        snapshots, foreign = repository.snapshots(store.source)
        copies = [_as_kept(snapshot, state) for snapshot in snapshots]
        plan = prune.plan(
            store.source,
            copies,
            policy,
            now=now,
            seen=state.seen,
            tiers=[holding(store, tier)],
            approved=state.deleting,
            allow=allow,
        )
        subject = f"{store.source} {tier.name}"
        outcome = pruning.Outcome(subject, plan, findings=[*plan.findings(subject), *_foreign(subject, foreign)])
        outcome.freed = None
        doomed = [kept.path for kept in plan.delete]
        if dry:
            outcome.deleted = doomed
            return outcome
        if not {"time", "clock"} & set(plan.refusals):
            state.seen = now
        if doomed or state.unfreed:
            repository.unlock()
            state.deleting = sorted({*state.deleting, *[kept.id for kept in plan.delete]})
            state.unfreed = True
            _save(store, tier, state)
            order = {path: number for number, path in enumerate(doomed)}
            named = [snapshot for snapshot in snapshots if _path(snapshot) in order]
            repository.forget(sorted(named, key=lambda snapshot: order[_path(snapshot)]))
            left = {snapshot.id for snapshot in repository.snapshots(store.source)[0]}
            lost = [snapshot for snapshot in snapshots if snapshot not in named and snapshot.id not in left]
            stayed = [snapshot for snapshot in named if snapshot.id in left]
            if lost or stayed:
                state.trouble = f"{len(stayed)} copies stayed that were to go and {len(lost)} went that were to stay"
                _save(store, tier, state)
                raise TierError(f"{subject}: {state.trouble}; look at it with 'restic snapshots'")
            outcome.deleted = doomed
            _retire(state, {snapshot.tags["id"] for snapshot in snapshots if snapshot.id in left})
            say(f"removed {len(doomed)} copies from {tier.name}; its space is freed now")
            repository.prune()
            state.deleting, state.unfreed = [], False
        _save(store, tier, state)
    return outcome


def catalog(store: Store, tier: Tier, repository: Repository) -> list[dict[str, Any]]:
    """Return the copies in a tier, in the order in which the backups were made; no state file is needed for it."""
    state = _load(store, tier)
    copies = [_as_kept(snapshot, state) for snapshot in repository.snapshots(store.source)[0]]
    copies.sort(key=lambda kept: (kept.manifest.sequence, kept.path))
    return [
        {
            "source": store.source,
            "kind": kept.manifest.kind,
            "id": kept.id,
            "parent": kept.manifest.parent,
            "sequence": kept.manifest.sequence,
            "end": None if kept.manifest.ended is None else utc(kept.manifest.ended),
            "verdict": kept.verdict,
            "verified": None if kept.verified is None else utc(kept.verified),
            "path": kept.path,
        }
        for kept in copies
    ]


def fetch(
    store: Store,
    tier: Tier,
    repository: Repository,
    id: str,
    *,
    now: float,
    hold: float,
    say: Callable[[str], None],
) -> Kept:
    """Bring a backup back under its own name, verify all of it, and hold it for a while.

    :param id: of the backup.
    :param hold: seconds for which pruning leaves it alone.
    :raises TierError: when the tier has no such backup, or it is not what it was; nothing is left of it then.
    """
    with store.lock(f"fetch from {tier.name}"):
        for path in store.clean():
            say(f"removed {path}, which an interrupted run has left")
        for kept in store.backups()[0]:
            if kept.id == id:
                pruning.hold(store, id, now + hold)
                say(f"{kept.path} is here already")
                return kept
        found = _by_id(repository.snapshots(store.source)[0]).get(id)
        if not found:
            raise TierError(
                f"{store.source} {tier.name} has no backup '{id}'; list them with: "
                f"worklog-backup list {store.source} --tier {tier.name}"
            )
        snapshot = found[-1]
        _unused, kind, name = snapshot.path.split("/")
        final = os.path.join(store.path, kind, name)
        if not NAME.fullmatch(kind) or name in ("", ".", "..") or name.endswith(PARTIAL) or os.path.lexists(final):
            raise TierError(f"{final} cannot be made, or is taken by something else; nothing was fetched")
        partial = final + PARTIAL
        try:
            os.makedirs(os.path.dirname(partial), mode=0o700, exist_ok=True)
            os.mkdir(partial, 0o700)
            repository.restore(snapshot, partial)
            inner = partial + snapshot.path
            document = manifest.load(os.path.join(inner, manifest.NAME))
            proven = _load(store, tier).copies.get(id, {}).get("sha256", document.sha256)
            if (document.id, document.source, document.sha256) != (id, store.source, proven):
                raise TierError(f"what came back as {id} is another backup; nothing of it is kept")
            result = check.verify(Backup(inner, f"{store.source}/{kind}"), now=now, limits=Limits())
            if result.verdict not in GOOD:
                raise TierError(f"what came back is not what it was: {result.sentence()}; nothing of it is kept")
            pruning.hold(store, id, now + hold)
            os.rename(inner, final)
            files.sync_directory(os.path.dirname(final))
        except (OSError, manifest.ManifestError) as error:
            raise TierError(f"cannot bring {final} back: {error}") from error
        finally:
            if os.path.lexists(partial):
                store.discard(partial)
        kept = Kept(final, manifest.load(os.path.join(final, manifest.NAME)))
        store.set_verdict(kept, result.verdict, now)
        say(f"{final} is back, {result.verdict}")
        return kept


def utc(moment: float) -> str:
    """Return a time as it stands in manifests and records."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _look(store: Store, tier: Tier, repository: Repository, state: State, result: Copied) -> dict[str, list[Snapshot]]:
    """Hold what is known against what is there, and return the snapshots by the id of the backup."""
    identity = repository.identity()
    if state.repository not in (None, identity):
        text = f"another repository than before is at {tier.name}; all of its copies are proven anew"
        result.findings.append(Finding("backup.tier.replaced", result.subject, "warning", text))
        state.copies, state.pending, state.checked = {}, {}, None
    state.repository = identity
    repository.unlock()
    snapshots, foreign = repository.snapshots(store.source)
    result.findings += _foreign(result.subject, foreign)
    _retire(state, {snapshot.tags["id"] for snapshot in snapshots})
    present = {snapshot.id for snapshot in snapshots}
    for copies in (state.copies, state.pending):
        for id in [id for id, entry in copies.items() if entry["snapshot"] not in present]:
            del copies[id]
            text = f"the copy of {id} is gone from {tier.name}, and it was not pruned by this program"
            result.findings.append(Finding("backup.tier.gone", result.subject, "warning", text))
    _save(store, tier, state)
    return _by_id(snapshots)


def _retire(state: State, present: Collection[str]) -> None:
    """Note those that were to be removed and are gone: they were proven here, and are not copied again."""
    for id in [id for id in state.deleting if id not in present]:
        entry = state.copies.pop(id, None)
        if entry is not None:
            state.retired[id] = str(entry["sha256"])


def _add(store: Store, repository: Repository, kept: Kept) -> None:
    document = kept.manifest
    tags = {"source": store.source, "kind": document.kind, "id": kept.id, "sequence": document.sequence}
    if document.parent is not None:
        tags["parent"] = document.parent
    ended = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(document.ended or 0))
    repository.add(
        store.path, os.path.relpath(kept.path, store.path), {name: str(value) for name, value in tags.items()}, ended
    )


def _prove(repository: Repository, kept: Kept, snapshot: Snapshot, state: State, result: Copied) -> str | None:
    """Read a copy back and return how it differs from the backup, None when it does not."""
    contents = _Contents(snapshot.path, kept)
    try:
        repository.archive(snapshot, contents.read)
        difference = contents.trouble or contents.difference()
    except Damaged as error:
        state.trouble = difference = str(error)
    if difference is not None:
        text = f"the copy of {kept.path} does not count: {difference}"
        result.findings.append(_critical("differs", result.subject, text))
    return difference


def _check(store: Store, tier: Tier, repository: Repository, state: State, result: Copied, now: float) -> None:
    """Have the repository checked; what was read back counts when it is sound."""
    parts = min(_PARTS, math.ceil(1 / tier.read_share)) if tier.read_share else 0
    state.part = state.part % parts + 1 if parts else 0
    known = state.trouble
    broken = any(finding.check == "backup.tier.differs" for finding in result.findings) and known is not None
    try:
        repository.check("all" if known is not None else f"{state.part}/{parts}" if parts else None)
    except Locked:
        raise
    except Damaged as error:
        state.trouble = str(error)
        result.findings.append(_critical("damaged", result.subject, f"no copy in {tier.name} counts: {error}"))
        _save(store, tier, state)
        return
    if not broken:
        state.trouble = None
        state.checked = now
        result.proven = list(state.pending)
        state.copies.update(state.pending)
        state.pending = {}
    _save(store, tier, state)


class _Tree:
    """What is known of a tree that may have a million files, whatever their order: how many, and a sum of hashes."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0

    def add(self, path: str, size: int | None, sha256: str | None, link: str | None) -> None:
        """Add a file or a symbolic link."""
        line = json.dumps([path, size, sha256, link]).encode("ascii")
        self.count += 1
        self.sum = (self.sum + int.from_bytes(hashlib.sha256(line).digest(), "big")) % (1 << 256)


class _Contents:
    """The files of a copy, from the tar archive that restic makes of it.

    :param path: of the backup in the snapshot.
    :param kept: the backup.
    """

    def __init__(self, path: str, kept: Kept) -> None:
        self.path = path.strip("/") + "/"
        self.kept = kept
        self.listing = kept.manifest.listing
        self.below = f"{self.listing.root}/" if self.listing else None
        self.tree = _Tree()
        self.found: dict[str, manifest.Entry] = {}
        self.trouble: str | None = None

    def read(self, stream: IO[bytes]) -> None:
        """Read size and SHA-256 of every file."""
        try:
            with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # a million files would stay in memory
                    self._take(archive, member)
        except (tarfile.TarError, EOFError) as error:
            self.trouble = f"it cannot be read to its end: {error}"

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = member.name.lstrip("/")
        name = name[len(self.path) :] if name.startswith(self.path) else f"/{name}"
        inner = self.below is not None and name.startswith(self.below)
        if member.issym() and inner:
            self.tree.add(name[len(self.below or "") :], None, None, member.linkname)
        content = archive.extractfile(member) if member.isreg() else None
        if content is None:
            return
        digest, size = hashlib.sha256(), 0
        while block := content.read(_BLOCK):
            digest.update(block)
            size += len(block)
        if inner:
            self.tree.add(name[len(self.below or "") :], size, digest.hexdigest(), None)
        else:
            self.found[name] = manifest.Entry(size, digest.hexdigest())

    def difference(self) -> str | None:
        """Return how the copy differs from what was written down when the backup was made."""
        document = self.kept.manifest
        if self.found.get(manifest.NAME, manifest.Entry()).sha256 != document.sha256:
            return "its manifest is another one"
        for path, entry in document.files.items():
            found = self.found.get(path)
            if found is None:
                return f"{path} is missing"
            if entry.size not in (None, found.size) or entry.sha256 not in (None, found.sha256):
                return f"{path} is not what the manifest says; verify the backup on this host too"
        if self.listing is None:
            return None
        expected = _Tree()
        try:
            for item in listing.read(os.path.join(self.kept.path, self.listing.path)):
                expected.add(item.path, item.size, item.sha256, item.link)
        except listing.ListingError as error:
            return str(error)
        if vars(expected) != vars(self.tree):
            return f"{self.listing.root} is not what its list says; verify the backup on this host too"
        return None


def _is_known(kept: Kept, state: State) -> bool:
    entry = state.copies.get(kept.id) or state.pending.get(kept.id) or {"sha256": state.retired.get(kept.id)}
    return kept.manifest.sha256 is not None and entry["sha256"] == kept.manifest.sha256


def _as_kept(snapshot: Snapshot, state: State) -> Kept:
    entry = state.copies.get(snapshot.tags["id"], {})
    proven = entry.get("snapshot") == snapshot.id
    number = snapshot.tags["sequence"]
    path = _path(snapshot)
    document = manifest.Manifest(
        path,
        id=snapshot.tags["id"],
        source=snapshot.tags["source"],
        kind=snapshot.tags["kind"],
        parent=snapshot.tags.get("parent"),
        sequence=int(number) if number.isdecimal() else 0,
        ended=_epoch(snapshot.time),
        sha256=str(entry["sha256"]) if proven else None,
    )
    return Kept(path, document, "verified" if proven else None, entry.get("time") if proven else None)


def _path(snapshot: Snapshot) -> str:
    """Return what names a copy: where its backup was, and the snapshot, as there may be two of one."""
    return f"{snapshot.path.strip('/')}@{snapshot.id[:8]}"


def _epoch(value: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(value[:19] + "+00:00").timestamp()
    except ValueError:
        return None


def _by_id(snapshots: list[Snapshot]) -> dict[str, list[Snapshot]]:
    found: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        found.setdefault(snapshot.tags["id"], []).append(snapshot)
    return found


def _foreign(subject: str, number: int) -> list[Finding]:
    text = f"{number} snapshots have the tag of the source but are no copies of ours; they are not touched"
    return [Finding("backup.tier.foreign", subject, "info", text)] if number else []


def _critical(name: str, subject: str, message: str) -> Finding:
    return Finding(f"backup.tier.{name}", subject, "critical", message)


def _load(store: Store, tier: Tier) -> State:
    value = store.recall(f"tier-{tier.name}.json")
    try:
        return State(**value)
    except TypeError as error:
        raise StoreError(
            f"the state of {store.source} {tier.name} cannot be used: {error}; remove it to begin anew"
        ) from None


def _save(store: Store, tier: Tier, state: State) -> None:
    store.remember(f"tier-{tier.name}.json", asdict(state))
