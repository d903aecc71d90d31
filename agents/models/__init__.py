"""Agents, their versions, and the providers whose models answer for them."""

from .agents import Access, Agent, AgentVersion, MemoryScope, Publication, VersionFallback
from .providers import (
    KEY_VARIABLE_PATTERN,
    OUT_OF_BOUNDS,
    SLUG_PATTERN,
    Provider,
    validate_base_url,
    validate_slug,
    validate_variable_name,
)

__all__ = [
    "KEY_VARIABLE_PATTERN",
    "OUT_OF_BOUNDS",
    "SLUG_PATTERN",
    "Access",
    "Agent",
    "AgentVersion",
    "MemoryScope",
    "Provider",
    "Publication",
    "VersionFallback",
    "validate_base_url",
    "validate_slug",
    "validate_variable_name",
]
