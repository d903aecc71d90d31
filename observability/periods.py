"""When a budget's periods begin and end."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from observability.models import Budget, Period


def period_of(budget: Budget, at: datetime) -> tuple[datetime, datetime]:
    """Return when the period of `budget` that `at` is in begins and ends, in the budget's own time zone."""
    zone = ZoneInfo(budget.time_zone)
    midnight = at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if budget.period == Period.DAY:
        first = midnight
        after = midnight + timedelta(days=1)  # wall time: a day with a change of clocks has 23 or 25 hours
    elif budget.period == Period.WEEK:
        first = midnight - timedelta(days=midnight.weekday())
        after = first + timedelta(days=7)
    else:
        first = midnight.replace(day=1)
        after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return first, after
