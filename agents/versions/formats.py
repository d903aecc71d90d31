"""The text of an agent's file: YAML or JSON in, a checked `AgentDocument` out, and back.

A file comes from anywhere, so reading is strict: no YAML tags, anchors or aliases (nothing that builds objects or grows),
no duplicate or unknown keys, no guessing of types, and a limit on size and depth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import yaml
from django.core.exceptions import ValidationError as ModelError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.models import Access, Agent, AgentVersion, MemoryScope
from observability.errors import BadRequest

from .content import MAX_FALLBACKS, Content, content_fields

MAX_CHARS: Final = 1_000_000
MAX_DEPTH: Final = 6
MAX_NODES: Final = 500
MAX_MODEL_CHARS: Final = 200
FORMATS: Final = ("yaml", "json")
DEFAULTS: Final[dict[str, Any]] = {
    # A choice's plain value, not the enum member.
    field.name: getattr(field.get_default(), "value", field.get_default())
    for field in (*Agent._meta.concrete_fields, *AgentVersion._meta.concrete_fields)
}
SETTINGS: Final = ConfigDict(strict=True, extra="forbid", frozen=True)


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
    memory: Memory = Memory()
    reply_cache_s: int = DEFAULTS["reply_cache_s"]
    note: str = DEFAULTS["note"]


def content_in(document: AgentDocument) -> Content:
    """Return the version's content that `document` describes."""
    flat = document.model_dump() | {f"memory_{name}": value for name, value in document.memory.model_dump().items()}
    return Content(
        fields={name: flat[name] for name in content_fields()}, fallbacks=tuple((row.provider, row.model) for row in document.fallbacks)
    )


def dump(document: AgentDocument, *, format: str = "yaml") -> str:
    """Return the document's text: every field, always in the same order, so that two exports differ only where agents do."""
    data = document.model_dump()
    if format == "json":
        return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)


def parse(text: str, *, source: str = "") -> AgentDocument:
    """Return the checked document of `text`, JSON if it starts with a brace, YAML otherwise.

    Raises:
        DocumentError: with every problem found.
    """
    if len(text) > MAX_CHARS:
        raise DocumentError({"": [f"The file has more than {MAX_CHARS:,} characters. One file holds one agent."]}, source=source)
    try:
        data = _from_json(text) if text.lstrip("\ufeff \t\r\n").startswith("{") else _from_yaml(text)
        document = AgentDocument.model_validate(data)
    except ValidationError as error:
        raise DocumentError(_problems(error), source=source) from None
    except RecursionError:
        raise DocumentError({"": ["The file is nested too deeply. See docs/agents-as-files.md."]}, source=source) from None
    except _Unreadable as error:
        raise DocumentError({"": [str(error)]}, source=source) from None
    if problems := _out_of_bounds(document):
        raise DocumentError(problems, source=source)
    return document


class _Unreadable(Exception):
    """The text is no usable YAML or JSON."""


# --- reading ------------------------------------------------------------------------------------------------------


def _from_json(text: str) -> Any:
    try:
        return json.loads(text.lstrip("\ufeff"), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except ValueError as error:
        raise _Unreadable(f"This is no valid JSON: {error}. Correct that place.") from None


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _Unreadable(f"{key} stands there twice. Remove one of the two.")
        result[key] = value
    return result


def _refuse_constant(name: str) -> Any:
    raise _Unreadable(f"{name} is no number that a setting can have. Write one, or null.")


def _from_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        raise _Unreadable(
            f"This is no valid YAML{where}: {what}. Correct that place; put text with special characters in quotes."
        ) from None
    except ValueError as error:
        raise _Unreadable(f"A value cannot be read: {error}. Put it in quotes if it is text.") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """YAML's plain values, lists and mappings, and nothing else."""

    def __init__(self, text: str) -> None:
        try:
            super().__init__(text)
        except yaml.YAMLError as error:
            raise _Unreadable(f"The file holds a character that no text has ({error}). Remove it.") from None
        self.depth = 0
        self.nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        peek: Any = self.peek_event  # PyYAML's stubs leave its result out
        event = peek()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Unreadable(f"Anchors and aliases (& and *) are not used here: line {line}. Write the value out, or put it in quotes.")
        if getattr(event, "tag", None):
            raise _Unreadable(f"Tags (!) are not used here: line {line}. Write a plain value, or put it in quotes.")
        self.nodes += 1
        self.depth += 1
        if self.depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise _Unreadable(f"The file holds more than an agent has, from line {line} on. See docs/agents-as-files.md.")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        return _without_duplicates(
            (str(self.construct_object(key, deep=True)), self.construct_object(value, deep=True)) for key, value in node.value
        )

    def construct_yaml_map(self, node: Any) -> Any:
        return self.construct_mapping(node)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_yaml_map)

# --- writing ------------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, as people write them; whatever a block would not bring back exactly, in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = None
        if re.search(r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010fffe]", text):
            style = '"'
        elif "\n" in text:
            style = '"' if re.search(r"[ \t](?:\n|\Z)", text) or text.startswith((" ", "\n")) else "|"
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)

# --- checking -----------------------------------------------------------------------------------------------------

REMEDIES: Final = {
    "string_type": "Write text; put it in quotes if it looks like a number, a date or yes/no.",
    "bool_type": "Write true or false.",
    "int_type": "Write a whole number, without quotes.",
    "int_parsing_size": "Write a smaller number.",
    "float_type": "Write a number such as 0.7, without quotes, or null for the model's default.",
    "finite_number": "Write a number such as 0.7, or null for the model's default.",
    "list_type": "Write a list: each entry on a line of its own that starts with '- '.",
    "too_long": f"At most {MAX_FALLBACKS} are possible. Remove some.",
    "model_type": "Write fields under it, each on a line of its own, such as 'provider: openai'.",
    "missing": "This field is needed. Add it.",
}


def _problems(error: ValidationError) -> dict[str, list[str]]:
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


def _out_of_bounds(document: AgentDocument) -> dict[str, list[str]]:
    """Check the values against the models' own bounds, so that file and form never disagree."""
    problems: dict[str, list[str]] = {}
    for path, text in _texts(document.model_dump()):
        if unusable := _unusable(text):
            problems[path] = [unusable]
    agent = Agent(slug=document.slug, name=document.name, description=document.description, access=document.access)
    content = content_in(document).fields
    version = AgentVersion(**{name: value for name, value in content.items() if name != "provider"}, note=document.note)
    for instance in (agent, version):
        try:
            instance.clean_fields(exclude={"agent", "number", "provider", "live_version"})
        except ModelError as error:
            for name, messages in error.message_dict.items():
                problems.setdefault(name.replace("memory_", "memory.", 1), []).extend(messages)
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
