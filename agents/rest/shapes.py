"""The bodies of the API, as types: what is read strictly, and what is promised back (docs/errors.md has the refusals)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from django.conf import settings
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from pydantic_core import ErrorDetails

from observability.errors import BadRequest


def _is_storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("contains a NUL character; remove it")
    return text


def _is_one_path_segment(name: str) -> str:
    if "/" in name or name in (".", ".."):
        raise ValueError("must not contain '/' or be '.' or '..'; choose another name")
    return name


Storable = Annotated[str, AfterValidator(_is_storable)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_is_storable)]
UserName = Annotated[Name, AfterValidator(_is_one_path_segment)]
KeyName = Annotated[str, StringConstraints(min_length=1, max_length=50, strip_whitespace=True), AfterValidator(_is_storable)]
MetadataText = Annotated[str, StringConstraints(max_length=500), AfterValidator(_is_storable)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_is_storable)]


class Strict(BaseModel):
    """A body that is read: no field too many, and no value that would have to be converted."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ChatRequest(Strict):
    """A message to an agent."""

    message: Storable = Field(min_length=1, description="What the person says.")
    session_id: Name | None = Field(
        default=None,
        validation_alias=AliasChoices("session_id", "sessionId"),
        description="The conversation. Absent: a new one is begun and its id returned. `sessionId` is accepted too.",
    )
    user: UserName | None = Field(default=None, description="The end user on whose behalf you call; no '/'. Needs an API key.")
    stream: bool = Field(default=False, description="The same as `Accept: text/event-stream`.")
    version: int | None = Field(
        default=None, ge=1, description="A published version other than the live one. Needs an API key with the scope `pinned_versions`."
    )
    metadata: dict[MetadataKey, MetadataText] = Field(
        default={}, max_length=16, description="Up to 16 texts that are kept with the turn and never sent to the model."
    )

    @field_validator("message")
    @classmethod
    def _is_a_message(cls, value: str) -> str:
        if len(value) > settings.CHAT_MAX_MESSAGE_CHARS:
            raise ValueError(f"has {len(value):,} characters; at most {settings.CHAT_MAX_MESSAGE_CHARS:,} are allowed")
        if not value.strip():
            raise ValueError("is empty; write something")
        return value


class UsageReport(BaseModel):
    """Tokens of one answer, and money in US dollars (null until prices exist)."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: str | None = None
    saved_usd: str | None = None


class MatchedQuestion(BaseModel):
    """The other question that a cached answer was given to, where the agent answers similar questions from its cache."""

    similarity: float = Field(description="Of both questions, 0 to 1.")
    age_s: int = Field(description="How old the answer is, in seconds.")
    question: str | None = Field(description="The other question; null without an API key, as it may be a stranger's.")


class ChatAnswer(BaseModel):
    """An agent's answer."""

    reply: str
    session_id: str
    message_id: str
    agent: str
    version: int
    model: str
    cached: bool = False
    finish_reason: str
    usage: UsageReport
    matched: MatchedQuestion | None = Field(default=None, description="Present where the answer was given to a similar question.")


class AgentCard(BaseModel):
    """What anyone may know of an agent."""

    slug: str
    name: str
    description: str
    greeting: str
    version: int
    demo: bool = Field(description="The built-in demo model answers; not for real answers.")


class AgentList(BaseModel):
    """The agents that the caller may talk to, by slug."""

    agents: list[AgentCard]


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    error: str
    errors: dict[str, list[str]] | None = None


Shape = TypeVar("Shape", bound=Strict)

_REMEDIES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request; remove it or check its spelling",
    "string_type": "must be a text in quotes",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "dict_type": "must be an object of texts",
    "string_too_short": "is empty; write something",
    "string_unicode": "contains characters that are not valid Unicode; remove them",
}


def read(shape: type[Shape], data: Any) -> Shape:
    """Return `data`, a parsed JSON body, as a `shape`.

    Raises:
        BadRequest: names every field that is wrong and what is wrong with it.
    """
    if not isinstance(data, dict):
        raise BadRequest('The body must be a JSON object, such as {"message": "Hello!"}.')
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False, include_input=False)[:20]:
            fields.setdefault(_field_name(detail), []).append(_explanation(detail))
    raise BadRequest(" ".join(f"{name} {text}." for name, texts in fields.items() for text in texts), fields=fields)


def _field_name(detail: ErrorDetails) -> str:
    # A name the caller made up is repeated, but not a whole page of it.
    return ".".join(str(part) for part in detail["loc"] if part != "[key]")[:80] or "body"


def _explanation(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    return _REMEDIES.get(detail["type"], message[:1].lower() + message[1:])
