"""What was measured, for people, and what of it must not be."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_REPORT_GOAL_MS: Final = 200
_PROTECTION_GOAL_MS: Final = 3
_REFUSALS: Final = {"status 402", "status 429"}


def complaints(found: Mapping[str, Any]) -> list[str]:
    """Return what is wrong: money that was overspent, lines that do not add up, errors. Goals of speed are told, and not enforced."""
    wrong = []
    if (reports := found.get("reports")) and not reports["is_exact"]:
        wrong.append("reports: the sums are not those of the ledger")
    if race := found.get("race"):
        if Decimal(race["overshoot_usd"]):
            wrong.append(f"race: the budget was overspent by {race['overshoot_usd']} USD")
        if len({race["spent_usd"], race["ledger_usd"], race["upstream_usd"]}) > 1 or Decimal(race["reserved_usd"]):
            wrong.append("race: budget, ledger and upstream do not agree")
        if others := set(race["refused"]) - _REFUSALS:
            wrong.append(f"race: {', '.join(sorted(others))}")
    if cached := found.get("cached"):
        if cached["upstream_calls"] > 1:
            wrong.append(f"cached: the upstream was called {cached['upstream_calls']} times for one question")
        if cached["stored"] != cached["replies"]:
            wrong.append(f"cached: {cached['replies']} replies were acknowledged, but {cached['stored']} turns are stored")
    for part in ("cached", "protection"):
        if errors := found.get(part, {}).get("errors"):
            wrong.append(f"{part}: {errors}")
    return wrong


def as_text(found: Mapping[str, Any]) -> str:
    """Return the figures as text."""
    lines = [f"machine: {found['machine']}"]
    for part, tell in _TELLING.items():
        if part in found:
            lines += ["", *tell(found[part])]
    lines += [f"WRONG: {complaint}" for complaint in found["complaints"]]
    return "\n".join(lines)


def _reports(found: Mapping[str, Any]) -> list[str]:
    lines = [f"reports over {found['rows']:,} rows (goal: under {_REPORT_GOAL_MS} ms; summing them took {found['summing_s']:.0f} s)"]
    lines += [f"  {row['report']:<44}{row['p50_ms']:>9.1f} ms p50{row['p95_ms']:>9.1f} ms p95" for row in found["figures"]]
    return lines


def _race(found: Mapping[str, Any]) -> list[str]:
    return [
        f"race of 64 on a budget of {found['limit_usd']} USD: overshoot {found['overshoot_usd']} USD",
        f"  spent {found['spent_usd']}, ledger {found['ledger_usd']}, upstream's count {found['upstream_usd']} USD; "
        f"{found['answered']} answered, refused: {found['refused']}",
    ]


def _cached(found: Mapping[str, Any]) -> list[str]:
    return [
        f"cached replies, 64 at once: {found['ours_per_s']:,.0f} a second, p50 {found['ours_p50_ms']:.1f} ms; "
        f"bare view: {found['bare_per_s']:,.0f}, {found['bare_p50_ms']:.1f} ms; ratio {found['ratio']:.2f} (goal: 1)",
        f"  {found['replies']:,} replies, {found['stored']:,} turns stored, {found['upstream_calls']} calls of the upstream",
    ]


def _protection(found: Mapping[str, Any]) -> list[str]:
    lines = [f"limits, budgets and cache on an uncached call (goal: under {_PROTECTION_GOAL_MS} ms at p50)"]
    lines += [
        f"  upstream {row['upstream_ms']:>3} ms, {row['at_once']:>3} at once: {row['without_p50_ms']:>8.2f} ms without, "
        f"{row['with_p50_ms']:>8.2f} ms with: {row['added_p50_ms']:+.2f} ms"
        for row in found["figures"]
    ]
    return lines


_TELLING: Final = {"reports": _reports, "race": _race, "cached": _cached, "protection": _protection}
