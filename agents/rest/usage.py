"""What a client's keys used and what it cost: `GET /api/usage`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, Literal, get_args

from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from pydantic import BaseModel, Field, field_validator
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from agents.access import Caller, MissingScope, require_scope
from agents.models import ApiKey, Scope
from agents.rest.asyncview import AsyncAPIView
from agents.rest.authentication import caller_of
from agents.rest.people_shapes import Query, Slug, read_query
from agents.rest.private import check_agent, private_json
from agents.rest.problems import KEY_NEEDED, problems
from memory.api import names_of_sessions, names_of_users
from observability.api import UsageLine, Wanted, dearest, forecast_usd, report_usage, run_burst
from observability.errors import BadRequest

GroupName = Literal["day", "agent", "key", "user", "conversation", "model", "kind"]

MOST_DAYS: Final = 366
MOST_LINES: Final = 10_000
MOST_DEAREST: Final = 100
CSV_TYPE: Final = "text/csv"
_SUMS: Final = tuple(field.name for field in fields(UsageLine) if field.name != "group")
MEASURES: Final = (*_SUMS, "saved_by_caching_usd")
_GROUPS: Final[tuple[GroupName, ...]] = get_args(GroupName)
_KEPT_BY_CONVERSATION: Final = {"conversation", "agent", "day", "key"}
_NAMES_OF: Final[Mapping[str, Callable[[str, Iterable[int]], Mapping[int, str]]]] = {
    "user": names_of_users,
    "conversation": names_of_sessions,
}
# What a spreadsheet would take for a formula.
_FORMULA_BEGINS: Final = ("=", "+", "-", "@", "\t", "\r")


class UsageQuery(Query):
    first: date | None = Field(default=None, alias="from", description="The first UTC day, such as 2026-11-01. Absent: this month's first.")
    last: date | None = Field(default=None, alias="to", description=f"The last UTC day. Absent: today. At most {MOST_DAYS} days in all.")
    by: tuple[GroupName, ...] = Field(
        default=(), description=f"What to group by, in this order, with commas: {', '.join(_GROUPS)}. Absent: one line of everything."
    )
    agent: Slug | None = Field(default=None, description="Only of this agent.")
    dearest: int | None = Field(
        default=None,
        ge=1,
        le=MOST_DEAREST,
        description="Only so many lines, the most expensive first, of those that cost something. By user or conversation: "
        "without what is nobody's, or of no conversation.",
    )
    format: Literal["json", "csv"] | None = Field(default=None, description="`csv`: the same as `Accept: text/csv`.")

    @field_validator("by", mode="before")
    @classmethod
    def _are_groups(cls, value: object) -> object:
        names = str(value).split(",") if value else []
        if unknown := [name for name in names if name not in _GROUPS]:
            raise ValueError(f"cannot be {unknown[0]!r}; choose of {', '.join(_GROUPS)}, with commas between them")
        if len(set(names)) < len(names):
            raise ValueError("names a group twice")
        if "conversation" in names and (others := [name for name in names if name not in _KEPT_BY_CONVERSATION]):
            raise ValueError(f"cannot be 'conversation' together with {others[0]!r}, only with day, agent and key")
        return tuple(names)

    @field_validator("first", "last", mode="before")
    @classmethod
    def _is_a_day(cls, value: object) -> object:
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            raise ValueError("must be a day such as 2026-11-01") from None

    def days(self, today: date) -> tuple[date, date]:
        """Return the first and the last day.

        Raises:
            BadRequest: they are too many, or the wrong way round.
        """
        last = self.last or max(today, self.first or today)
        first = self.first or last.replace(day=1)
        if first > last:
            raise BadRequest(fields={"from": [f"is after 'to', which is {last}"]})
        if (last - first).days >= MOST_DAYS:
            raise BadRequest(fields={"from": [f"is more than {MOST_DAYS} days before 'to', which is {last}; ask for a part at a time"]})
        return first, last


class UsageLineShape(BaseModel):
    """One line: the groups that were asked for, and the sums. Money in US dollars, as a text, because it is exact."""

    day: date | None = Field(default=None, description="In UTC.")
    agent: str | None = Field(default=None, description="The agent's slug.")
    key: str | None = Field(default=None, description="The key's public id.")
    user: str | None = Field(default=None, description="The user; null: none was named, or the user was erased since.")
    conversation: str | None = Field(
        default=None, description="The session_id, unique for an agent and user; null: none, or the conversation was deleted since."
    )
    model: str | None = None
    kind: str | None = Field(default=None, description="chat, embedding, summary, facts, evaluation or routing.")
    attempts: int = Field(description="Calls of models, failed ones included, and answers from the reply cache.")
    turns: int = Field(description="Messages that were answered, or should have been.")
    failed: int = Field(description="Calls that failed or broke midway.")
    cached: int = Field(description="Answers from the reply cache.")
    routed: int = Field(description="Calls of a cheaper model than the agent's own, for simple messages or for a budget's sake.")
    prompt_tokens: int
    cached_tokens: int = Field(description="Of the prompt tokens, those that the vendor had in its cache.")
    completion_tokens: int
    trimmed_tokens: int = Field(description="About how many tokens of conversations so far prompts left out.")
    cost_usd: str = Field(description="What it cost, as far as prices are known.")
    saved_usd: str = Field(description="What was saved: by caching replies, and by routing to cheaper models.")
    saved_by_routing_usd: str = Field(description="Of it, by routing. What asking classifier models cost is not taken off.")
    routing_cost_usd: str = Field(description="Of the cost: what it cost to ask classifier models which messages are simple.")
    saved_by_trimming_usd: str = Field(
        description="What the trimmed tokens would have cost more, at the full price of input. Not part of saved_usd."
    )
    unpriced: int = Field(description="Calls of models whose price is not known; their cost is in no sum.")
    saved_by_caching_usd: str = Field(description="Of saved_usd, by caching replies.")


class UsageAnswer(BaseModel):
    """What was used from the first day to the last, both included."""

    model_config = {"populate_by_name": True}

    first: date = Field(alias="from")
    last: date = Field(alias="to")
    by: list[str]
    forecast_usd: str | None = Field(
        description="What this month will have cost, if it goes on as in the last 14 days; null where other days are asked for."
    )
    lines: list[UsageLineShape]


class CsvRenderer(BaseRenderer):
    """Lets `Accept: text/csv` through; the view writes the text itself."""

    media_type = CSV_TYPE
    format = "csv"
    charset = "utf-8"


class UsageView(AsyncAPIView):
    """What the keys of the caller's owner used, from the sums and what came since: never behind."""

    renderer_classes = [JSONRenderer, CsvRenderer]

    @extend_schema(
        operation_id="get_usage",
        summary="Read what was used and what it cost",
        parameters=[
            OpenApiParameter(
                field.alias or name,
                OpenApiTypes.DATE if field.alias else OpenApiTypes.INT if name == "dearest" else OpenApiTypes.STR,
                description=field.description or "",
                enum=["json", "csv"] if name == "format" else None,
            )
            for name, field in UsageQuery.model_fields.items()
        ],
        responses={
            (200, "application/json"): UsageAnswer,
            (200, CSV_TYPE): OpenApiResponse(OpenApiTypes.STR, description="A header line, then the same lines."),
            **problems(400, 401, 403, 404, 406, 429, 503),
        },
        auth=KEY_NEEDED,
    )
    async def get(self, request: Request) -> HttpResponseBase:
        caller = await caller_of(request)
        require_scope(caller, Scope.USAGE)
        if caller.user:
            raise MissingScope("A token never reads usage. Use the API key itself, on your server.")
        query = read_query(UsageQuery, request.query_params)
        today = datetime.now(UTC).date()
        first, last = query.days(today)
        agent = None if query.agent is None else await check_agent(caller, query.agent)
        wanted, lines = await run_burst(_lines, caller, query, first=first, last=last, agent=agent)
        wants_csv = query.format == "csv" or (query.format is None and request.accepted_renderer.media_type == CSV_TYPE)
        if wants_csv:
            return csv_answer(lines, by=query.by, name=f"usage-{first}-{last}")
        is_this_month = (first, last) == (today.replace(day=1), today)
        forecast = money(await run_burst(forecast_usd, today, agents=wanted.agents, keys=wanted.keys)) if is_this_month else None
        answer = {"from": first, "to": last, "by": query.by, "forecast_usd": forecast}
        return private_json(answer | {"lines": [line_as_json(line) for line in lines]})


def _lines(caller: Caller, query: UsageQuery, *, first: date, last: date, agent: str | None) -> tuple[Wanted, list[UsageLine]]:
    """Return what is wanted, of all keys of the caller's owner, revoked ones included, and its lines."""
    key_owner = ApiKey.objects.filter(prefix=caller.key_id).values("owner")
    keys = list(ApiKey.objects.filter(owner__in=key_owner).values_list("prefix", flat=True))
    wanted = Wanted(first=first, last=last, keys=keys, agents=None if agent is None else [agent])
    if query.dearest:
        return wanted, _named(dearest(wanted, by=query.by, limit=query.dearest), caller.owner)
    lines = report_usage(wanted, by=query.by, limit=MOST_LINES + 1)
    if len(lines) > MOST_LINES:
        raise BadRequest(
            f"That is more than {MOST_LINES:,} lines. Ask for fewer days, one agent, fewer groups, or the dearest ones.",
            fields={"by": ["is too fine"]},
        )
    return wanted, _merge(_named(lines, caller.owner))


def _named(lines: Sequence[UsageLine], owner: str) -> list[UsageLine]:
    """Return `lines` with what `owner` calls people and conversations for their numbers; None for those without a name."""
    names: dict[str, Mapping[int, str]] = {}
    for group, names_of in _NAMES_OF.items():
        if numbers := {line.group[group] for line in lines if group in line.group}:
            names[group] = names_of(owner, numbers)
    return [replace(line, group=line.group | {group: known.get(line.group[group]) for group, known in names.items()}) for line in lines]


def _merge(lines: Sequence[UsageLine]) -> list[UsageLine]:
    """Return `lines` with those as one that differ in nothing but whose they are, where that has no name."""
    merged: dict[Any, UsageLine] = {}
    for number, line in enumerate(lines):
        values = tuple(line.group.values())
        place = values if None in values else number  # two users may call their sessions the same
        merged[place] = UsageLine(group=line.group, **_sums(line, merged.get(place)))
    return list(merged.values())


def _sums(line: UsageLine, other: UsageLine | None) -> dict[str, Any]:
    return {name: getattr(line, name) + (getattr(other, name) if other else 0) for name in _SUMS}


def line_as_json(line: UsageLine) -> dict[str, Any]:
    """Return a line flat, with money as text."""
    values = asdict(line) | {"saved_by_caching_usd": line.saved_by_caching_usd}
    group = values.pop("group")
    return {**group, **{name: money(value) if isinstance(value, Decimal) else value for name, value in values.items()}}


def money(amount: Decimal) -> str:
    """Return an amount in full, without an exponent and without zeros at its end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def csv_answer(lines: Iterable[UsageLine], *, by: Sequence[str], name: str) -> HttpResponse:
    """Return `lines` as a file to download. Texts that a spreadsheet would run as formulas begin with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*by, *MEASURES])
    for line in lines:
        values = line_as_json(line)
        writer.writerow([*(_harmless(values[group]) for group in by), *(values[measure] for measure in MEASURES)])
    response = HttpResponse(text.getvalue(), content_type=f"{CSV_TYPE}; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    response["Cache-Control"] = "no-store"
    return response


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_BEGINS) else value
