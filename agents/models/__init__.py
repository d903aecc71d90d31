"""Agents, their versions, the providers whose models answer for them, and the keys that open them."""

from .agents import WHAT_IS_SIMPLE, Access, Agent, AgentVersion, MemoryScope, VersionFallback
from .kept_questions import KeptQuestion
from .keys import ApiKey, KeyOwner, Scope
from .providers import (
    KEY_VARIABLE_PATTERN,
    OUT_OF_BOUNDS,
    SLUG_PATTERN,
    Provider,
    validate_base_url,
    validate_slug,
    validate_variable_name,
)
from .publications import Publication

__all__ = [
    "KEY_VARIABLE_PATTERN",
    "OUT_OF_BOUNDS",
    "SLUG_PATTERN",
    "WHAT_IS_SIMPLE",
    "Access",
    "Agent",
    "AgentVersion",
    "ApiKey",
    "KeptQuestion",
    "KeyOwner",
    "MemoryScope",
    "Provider",
    "Publication",
    "Scope",
    "VersionFallback",
    "validate_base_url",
    "validate_slug",
    "validate_variable_name",
]
