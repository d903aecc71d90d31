"""What limits a key limits those that come of it, too: else whoever rotates a key, or makes others with it, would lift its budgets.

Keys that a key made, and the one that takes its place, spend from its own budgets, all together, and so do those that come of them.
It is written with a key and never changes. Limits on requests are each key's own: a successor's are like the old one's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from observability.models import Budget, Limit, LimitScope, SharedBudget


def share_budgets(payers: Collection[str], *, key: str) -> None:
    """Let the new API key `key` spend from the budgets of `payers`, and from those that these spend from; all are public ids.

    Runs inside the transaction that makes the key.
    """
    all_payers = sorted({*payers, *payers_of(payers)})
    SharedBudget.objects.bulk_create([SharedBudget(key=key, payer=payer) for payer in all_payers], ignore_conflicts=True)


def payers_of(keys: Collection[str]) -> list[str]:
    """Return the other keys whose budgets `keys` spend from."""
    return list(SharedBudget.objects.filter(key__in=keys).values_list("payer", flat=True))


def with_sharing(budgets: Iterable[Budget]) -> list[Budget]:
    """Return `budgets`, each with the keys that share it."""
    found = list(budgets)
    sharing: defaultdict[str, set[str]] = defaultdict(set)
    if payers := {budget.key for budget in found if budget.key}:
        for key, payer in SharedBudget.objects.filter(payer__in=payers).values_list("key", "payer"):
            sharing[payer].add(key)
    for budget in found:
        budget.sharing = frozenset(sharing[budget.key]) if budget.key in sharing else ()
    return found


def hand_on_limits(old: str, *, to: str) -> None:
    """Give the API key with the public id `to` limits on requests and tokens a minute like those of `old`."""
    for limit in Limit.objects.filter(scope=LimitScope.KEY, name=old):
        limit.pk, limit.name = None, to
        limit.save(force_insert=True)
