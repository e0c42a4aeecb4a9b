# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of the backups of a configured source: pruned, copied to its tiers, brought back from them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ansible_collections.worklog.maintenance.plugins.module_utils.backup import pruning, tiers
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.make.config import (
    Config,
    ConfigError,
    Source,
)
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.restic import PrunableRepository, Repository
from ansible_collections.worklog.maintenance.plugins.module_utils.backup.store import Kept, Store

#: The place that is no tier.
LOCAL = "local"


def prunable(source: Source) -> list[str]:
    """Return the places of a source that are pruned at all; the off-site tier is none of them."""
    return [LOCAL, *[name for name, tier in source.tiers.items() if tier.keep is not None]]


def prune(
    config: Config,
    source: Source,
    place: str,
    *,
    now: float,
    allow: Collection[str] = (),
    dry: bool = False,
    say: Callable[[str], None],
) -> pruning.Outcome:
    """Prune the backups of a source in one place.

    :param place: ``local``, or a tier that has a policy.
    :param now: seconds since the epoch.
    :param allow: refusals to override.
    :param dry: plan only.
    :raises ConfigError: when the place is none that is pruned.
    """
    store = Store(config.root, source.name)
    if place == LOCAL:
        proofs = [tiers.holding(store, tier) for tier in source.tiers.values() if tier.before_prune]
        return pruning.local(store, source.keep, now=now, tiers=proofs, allow=allow, dry=dry, say=say)
    tier = find_tier(source, place)
    if tier.keep is None:
        raise ConfigError(
            f"the tier '{place}' of {source.name} is kept for ever; nothing here can remove what is in it"
        )
    repository = PrunableRepository(tier.location)
    return tiers.prune_tier(store, tier, repository, tier.keep, now=now, allow=allow, dry=dry, say=say)


def copy(
    config: Config, source: Source, name: str, *, clock: Callable[[], float], say: Callable[[str], None]
) -> tiers.Copied:
    """Copy the backups of a source that a tier lacks, and prove them there."""
    tier = find_tier(source, name)
    return tiers.copy(Store(config.root, source.name), tier, Repository(tier.location), clock=clock, say=say)


def fetch(config: Config, source: Source, name: str, id: str, *, now: float, say: Callable[[str], None]) -> Kept:
    """Bring a backup back from a tier; pruning leaves it alone as long as a new one."""
    tier = find_tier(source, name)
    store = Store(config.root, source.name)
    return tiers.fetch(store, tier, Repository(tier.location), id, now=now, hold=source.keep.age, say=say)


def catalog(config: Config, source: Source, name: str) -> list[dict[str, Any]]:
    """Return what a tier has of a source."""
    tier = find_tier(source, name)
    return tiers.catalog(Store(config.root, source.name), tier, Repository(tier.location))


def create(source: Source, name: str) -> str:
    """Make the repository of a tier and return its id."""
    repository = Repository(find_tier(source, name).location)
    repository.create()
    return repository.identity()


def find_tier(source: Source, name: str) -> tiers.Tier:
    """Return a tier of a source.

    :raises ConfigError: when it has none of this name.
    """
    if name not in source.tiers:
        raise ConfigError(f"{source.name} has no tier '{name}'; it has {', '.join(source.tiers) or 'none'}")
    return source.tiers[name]
