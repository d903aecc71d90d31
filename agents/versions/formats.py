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
from pydantic import ValidationError

from .schema import AgentDocument, DocumentError, out_of_bounds, problems_of

MAX_CHARS: Final = 1_000_000
MAX_DEPTH: Final = 6
MAX_NODES: Final = 500
FORMATS: Final = ("yaml", "json")


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
        raise DocumentError(problems_of(error), source=source) from None
    except RecursionError:
        raise DocumentError({"": ["The file is nested too deeply. See docs/agents-as-files.md."]}, source=source) from None
    except _Unreadable as error:
        raise DocumentError({"": [str(error)]}, source=source) from None
    if problems := out_of_bounds(document):
        raise DocumentError(problems, source=source)
    return document


class _Unreadable(Exception):
    """The text is no usable YAML or JSON."""


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
