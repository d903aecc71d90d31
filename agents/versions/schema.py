"""What an agent's file may say: its fields, their defaults and bounds, and the words for what is wrong with one.

Defaults and bounds are those of the models, so that file and form never disagree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from django.core.exceptions import ValidationError as ModelError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.models import OUT_OF_BOUNDS, Access, Agent, AgentVersion, MemoryScope
from observability.errors import BadRequest

from .content import MAX_FALLBACKS, PROVIDERS, Content, content_fields

MAX_MODEL_CHARS: Final = 200
DEFAULTS: Final[dict[str, Any]] = {
    # A choice's plain value, not the enum member.
    field.name: getattr(field.get_default(), "value", field.get_default())
    for field in (*Agent._meta.concrete_fields, *AgentVersion._meta.concrete_fields)
}
SETTINGS: Final = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class DocumentError(BadRequest):
    """A file that does not describe an agent; `fields` maps each wrong field to what to write instead."""

    code = "agent-file"
    title = "This file does not describe an agent"
    remedy = "Correct the file; docs/agents-as-files.md shows every field."

    def __init__(self, problems: dict[str, list[str]], *, source: str = "") -> None:
        lines = [
            f"{source + ': ' if source else ''}{field + ': ' if field else ''}{text}" for field, texts in problems.items() for text in texts
        ]
        super().__init__("\n".join(lines), fields={field: texts for field, texts in problems.items() if field})
        self.short = self.title


class Memory(BaseModel):
    """`memory:` in a file."""

    model_config = SETTINGS
    enabled: bool = DEFAULTS["memory_enabled"]
    scope: str = DEFAULTS["memory_scope"]
    limit: int = DEFAULTS["memory_limit"]
    budget_tokens: int = DEFAULTS["memory_budget_tokens"]
    threshold: float = DEFAULTS["memory_threshold"]
    cap: int = DEFAULTS["memory_cap"]
    days: int = DEFAULTS["memory_days"]


class Fallback(BaseModel):
    """One entry of `fallbacks:`; empty means the default provider, or the provider's default model."""

    model_config = SETTINGS
    provider: str = ""
    model: str = ""


class AgentDocument(BaseModel):
    """One agent, as its file says it. The order of the fields is their order in the file."""

    model_config = SETTINGS
    slug: str
    name: str
    description: str = DEFAULTS["description"]
    access: str = DEFAULTS["access"]
    active: bool = DEFAULTS["is_active"]
    system_prompt: str
    greeting: str = DEFAULTS["greeting"]
    provider: str = ""
    model: str = DEFAULTS["model"]
    fallbacks: list[Fallback] = Field(default=[], max_length=MAX_FALLBACKS)
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int = DEFAULTS["max_output_tokens"]
    prompt_budget_tokens: int = DEFAULTS["prompt_budget_tokens"]
    simple_provider: str = ""
    simple_model: str = DEFAULTS["simple_model"]
    simple_max_chars: int = DEFAULTS["simple_max_chars"]
    simple_not_words: list[str] = DEFAULTS["simple_not_words"]
    classifier_enabled: bool = DEFAULTS["classifier_enabled"]
    classifier_provider: str = ""
    classifier_model: str = DEFAULTS["classifier_model"]
    classifier_instruction: str = DEFAULTS["classifier_instruction"]
    memory: Memory = Memory()
    knowledge: list[str] = DEFAULTS["knowledge"]
    facts_by_model: bool = DEFAULTS["facts_by_model"]
    summaries: bool = DEFAULTS["summaries"]
    summary_provider: str = ""
    summary_model: str = DEFAULTS["summary_model"]
    conversation_days: int = DEFAULTS["conversation_days"]
    trace_days: int = DEFAULTS["trace_days"]
    reply_cache_s: int = DEFAULTS["reply_cache_s"]
    reply_similarity: float | None = None
    note: str = DEFAULTS["note"]


def content_in(document: AgentDocument) -> Content:
    """Return the version's content that `document` describes."""
    flat = document.model_dump() | {f"memory_{name}": value for name, value in document.memory.model_dump().items()}
    return Content(
        fields={name: flat[name] for name in content_fields()}, fallbacks=tuple((row.provider, row.model) for row in document.fallbacks)
    )


REMEDIES: Final = {
    "string_type": "Write text; put it in quotes if it looks like a number, a date or yes/no.",
    "bool_type": "Write true or false.",
    "int_type": "Write a whole number, without quotes.",
    "int_parsing_size": "Write a smaller number.",
    "float_type": "Write a number such as 0.7, without quotes; temperature, top_p and reply_similarity may be null.",
    "finite_number": "Write a number such as 0.7; temperature, top_p and reply_similarity may be null.",
    "list_type": "Write a list: each entry on a line of its own that starts with '- '.",
    "too_long": f"At most {MAX_FALLBACKS} are possible. Remove some.",
    "model_type": "Write fields under it, each on a line of its own, such as 'provider: openai'.",
    "missing": "This field is needed. Add it.",
}


def problems_of(error: ValidationError) -> dict[str, list[str]]:
    """Return the wrong fields of a file that does not fit `AgentDocument`, each with what to write instead."""
    problems: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        # Lists count from 1 in messages, as people do.
        field = ".".join(str(part + 1) if isinstance(part, int) else part for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            known: type[BaseModel] = (AgentDocument, Memory, Fallback)[len(detail["loc"]) - 1]
            text = f"There is no such field. Remove it, or use one of {', '.join(known.model_fields)}."
        elif not detail["loc"]:
            text = "The file must hold the fields of one agent, such as 'slug: support'. See docs/agents-as-files.md."
        else:
            text = REMEDIES.get(detail["type"], f"{detail['msg']}.")
        problems.setdefault(field, []).append(text)
    return problems


def out_of_bounds(document: AgentDocument) -> dict[str, list[str]]:
    """Return the fields whose values break the models' bounds, each with what to write instead."""
    problems: dict[str, list[str]] = {}
    for path, text in _texts(document.model_dump()):
        if unusable := _unusable(text):
            problems[path] = [unusable]
    agent = Agent(slug=document.slug, name=document.name, description=document.description, access=document.access)
    content = content_in(document).fields
    version = AgentVersion(**{name: value for name, value in content.items() if name not in PROVIDERS}, note=document.note)
    for instance in (agent, version):
        try:
            instance.clean_fields(exclude={"agent", "number", *PROVIDERS, "live_version"})
        except ModelError as error:
            for name, errors in error.error_dict.items():
                for one in errors:
                    one.message = OUT_OF_BOUNDS.get(str(one.code), one.message)
                    problems.setdefault(name.replace("memory_", "memory.", 1), []).extend(one.messages)
        for field in instance._meta.concrete_fields:
            value = getattr(instance, field.attname)
            if field.max_length and isinstance(value, str) and len(value) > field.max_length and field.name not in problems:
                problems[field.name] = [f"At most {field.max_length:,} characters are possible; these are {len(value):,}. Shorten it."]
    for position, row in enumerate(document.fallbacks, start=1):
        if len(row.model) > MAX_MODEL_CHARS:
            problems[f"fallbacks.{position}.model"] = [f"A model's name has at most {MAX_MODEL_CHARS} characters. Shorten it."]
    if not document.system_prompt.strip():
        problems["system_prompt"] = ["Write who the agent is and how it speaks."]
    if document.access not in Access.values:
        problems["access"] = [f"Write {' or '.join(Access.values)}."]
    if document.memory.scope not in MemoryScope.values:
        problems["memory.scope"] = [f"Write {' or '.join(MemoryScope.values)}."]
    return problems


def _texts(data: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(value, f"{path}.{key}" if path else key)
    elif isinstance(data, list):
        for position, value in enumerate(data, start=1):
            yield from _texts(value, f"{path}.{position}")


def _unusable(text: str) -> str:
    if "\0" in text:
        return "It holds a NUL character, which cannot be stored. Remove it."
    if re.search(r"[\ud800-\udfff]", text):
        return "It holds half of a character (a lone surrogate). Write the whole character."
    return ""
