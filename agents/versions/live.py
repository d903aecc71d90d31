"""Which version answers: a snapshot of everything a turn needs, read from the database at most twice a second.

Publishing moves one pointer in PostgreSQL; every process looks at it again when its snapshot is older than `FRESH_FOR_S`,
so a publication is seen everywhere within a second without messages between processes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import QuerySet

from agents.models import SLUG_PATTERN, WHAT_IS_SIMPLE, Agent, AgentVersion, MemoryScope, Provider, VersionFallback
from observability.api import run_burst
from observability.errors import NotFound

from .content import PROVIDERS

FRESH_FOR_S: Final = 0.5
_MOST_AGENTS: Final = 1000
_LARGEST_NUMBER: Final = 2**31 - 1
_SLUG: Final = re.compile(SLUG_PATTERN)


class AgentNotFound(NotFound):
    """No such agent, or not one this caller may use: the two look alike."""

    code = "agent-not-found"
    title = "Agent not found"
    remedy = "Check the agent's name; GET /api/agents lists those you may use."


class VersionNotFound(NotFound):
    """The agent has no such published version."""

    code = "version-not-found"
    title = "Version not found"
    remedy = "Choose a version that was published, or leave 'version' out to talk to the live one."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSnapshot:
    """What is needed to call a provider. Timeouts in seconds."""

    slug: str
    base_url: str
    key_variable: str
    encrypted_key: str
    is_demo: bool
    connect_timeout_s: float
    first_token_timeout_s: float
    between_tokens_timeout_s: float
    total_timeout_s: float


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A link of the chain: a provider and the model to ask it for."""

    provider: ProviderSnapshot
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """An agent and the version that answers, frozen. `choices` holds the model and its fallbacks, in order."""

    slug: str
    name: str
    description: str
    access: str
    number: int
    system_prompt: str
    greeting: str
    choices: tuple[ModelChoice, ...]
    temperature: float | None
    top_p: float | None
    max_output_tokens: int
    prompt_budget_tokens: int
    memory_enabled: bool = False
    memory_scope: str = MemoryScope.USER
    memory_limit: int = 0
    memory_budget_tokens: int = 0
    memory_threshold: float = 0.0
    knowledge: tuple[str, ...] = ()
    facts_by_model: bool = False
    summaries: bool = False
    reply_cache_s: int = 0
    reply_similarity: float | None = None
    """How alike a question must be to one that was answered to get the same answer (1: the same); None: only the very same gets it."""
    simple: ModelChoice | None = None
    """The cheaper model, where the version has one that is not its own anyway."""
    simple_max_chars: int = 0
    simple_not_words: tuple[str, ...] = ()
    classifier: ModelChoice | None = None
    """What is asked whether a message is simple, where the version wants that."""
    classifier_instruction: str = ""
    background: tuple[ModelChoice, ...] = ()
    """What summarises and reads facts: one model, or none where none is set up."""
    trace_days: int = 0
    """How long it is kept what the model was sent, and what else was done for a turn; 0: not at all."""
    log_messages_until: datetime | None = None
    """Until then the turn's line in the log holds what was said."""

    @property
    def is_demo(self) -> bool:
        return bool(self.choices) and self.choices[0].provider.is_demo


_Wanted = tuple[str, int | None]


class LiveVersions:
    """The versions that this process has used lately, by slug and number (None is the live one).

    That nothing answers under a slug is remembered just as long: otherwise an agent that the caller may not use
    would be told from an absent one by how quickly it is refused.
    """

    def __init__(self) -> None:
        self._snapshots: dict[_Wanted, tuple[float, Answering]] = {}
        self._absences: dict[_Wanted, tuple[float, type[NotFound]]] = {}
        self._loading: dict[_Wanted, asyncio.Task[Answering]] = {}

    async def find(self, slug: str, *, version: int | None = None) -> Answering:
        """Return the live version of the active agent `slug`, or the published one with the number `version`.

        Raises:
            AgentNotFound: no such agent, or it is switched off or never published.
            VersionNotFound: it has no such published version.
        """
        wanted = (slug, version)
        fresh_since = time.monotonic() - FRESH_FOR_S
        known = self._snapshots.get(wanted)
        if known is not None and known[0] > fresh_since:
            return known[1]
        absent = self._absences.get(wanted)
        if absent is not None and absent[0] > fresh_since:
            raise absent[1]
        if not _SLUG.fullmatch(slug):  # no such name was ever stored, and PostgreSQL cannot even be asked for some
            raise AgentNotFound
        task = self._loading.get(wanted)
        if task is None:
            task = self._loading[wanted] = asyncio.create_task(self._load(wanted))
            task.add_done_callback(lambda done: self._loaded(wanted, done))
        return await asyncio.shield(task)

    def _loaded(self, wanted: _Wanted, task: asyncio.Task[Answering]) -> None:
        self._loading.pop(wanted, None)
        if not task.cancelled():
            task.exception()  # those who waited were told; where all of them left, nobody need be

    async def _load(self, wanted: _Wanted) -> Answering:
        asked_at = time.monotonic()
        slug, version = wanted
        try:
            snapshot = await (run_burst(load_live, slug) if version is None else run_burst(load_published, slug, version))
        except (AgentNotFound, VersionNotFound) as absence:
            self._snapshots.pop(wanted, None)
            _make_room(self._absences)
            self._absences[wanted] = (asked_at, type(absence))
            raise
        self._absences.pop(wanted, None)
        _make_room(self._snapshots)
        self._snapshots[wanted] = (asked_at, snapshot)
        return snapshot


def _make_room(remembered: dict[_Wanted, Any]) -> None:
    if len(remembered) >= _MOST_AGENTS:
        remembered.clear()


def load_live(slug: str) -> Answering:
    """Read the live version of the active agent `slug` from the database.

    Raises:
        AgentNotFound: no such agent, or it is switched off or never published.
    """
    agent = _agents().filter(slug=slug, is_active=True).first()
    if agent is None or agent.live_version is None:
        raise AgentNotFound
    return snapshot_of(agent, agent.live_version)


def _agents() -> QuerySet[Agent]:
    return Agent.objects.select_related(*(f"live_version__{name}" for name in PROVIDERS))


def load_published(slug: str, number: int) -> Answering:
    """Read version `number` of the active agent `slug` from the database.

    Raises:
        AgentNotFound: no such agent, or it is switched off.
        VersionNotFound: it has no published version of that number.
    """
    agent = Agent.objects.filter(slug=slug, is_active=True).first()
    if agent is None:
        raise AgentNotFound
    published = agent.versions.select_related(*PROVIDERS).filter(number=number).exclude(published_at=None)
    version = published.first() if number <= _LARGEST_NUMBER else None
    if version is None:
        raise VersionNotFound
    return snapshot_of(agent, version)


def load_draft(slug: str) -> Answering:
    """Return what an editor tries of `slug`: see `version_to_try`.

    Raises:
        AgentNotFound: no such agent, or one without any version.
    """
    agent = _agents().filter(slug=slug).first()
    version = version_to_try(agent) if agent else None
    if agent is None or version is None:
        raise AgentNotFound
    return snapshot_of(agent, version)


def version_to_try(agent: Agent) -> AgentVersion | None:
    """Return the agent's draft, or its live version where it has no draft."""
    return agent.versions.select_related(*PROVIDERS).filter(published_at=None).first() or agent.live_version


def list_live(may_use: Callable[[Agent], bool]) -> list[Answering]:
    """Return the live version of every active agent that `may_use` lets pass, by slug."""
    agents = _agents().filter(is_active=True, live_version__isnull=False).prefetch_related("live_version__fallbacks__provider")
    found = [(agent, agent.live_version) for agent in agents if may_use(agent)]
    default = _default_provider()
    return [_snapshot_with(default, agent, version, version.fallbacks.all()) for agent, version in found if version]


def snapshot_of(agent: Agent, version: AgentVersion) -> Answering:
    """Return everything a turn needs of `version`, with the default provider where it names none."""
    return _snapshot_with(_default_provider(), agent, version, version.fallbacks.select_related("provider"))


def _default_provider() -> Provider | None:
    return Provider.objects.filter(is_default=True).first()


def _snapshot_with(default: Provider | None, agent: Agent, version: AgentVersion, fallbacks: Iterable[VersionFallback]) -> Answering:
    chain = [(version.provider, version.model), *((row.provider, row.model) for row in fallbacks)]
    choices: list[ModelChoice] = []
    for chosen, model in chain:
        provider = chosen or default
        # The demo model never stands in for a real one that failed.
        if provider is not None and not (choices and provider.is_demo):
            choices.append(ModelChoice(_snapshot_of_provider(provider), model or provider.default_model))
    simple = _simple_of(version, choices[0] if choices else None)
    return Answering(
        slug=agent.slug,
        name=agent.name,
        description=agent.description,
        access=agent.access,
        number=version.number,
        system_prompt=version.system_prompt,
        greeting=version.greeting,
        choices=tuple(choices),
        temperature=version.temperature,
        top_p=version.top_p,
        max_output_tokens=version.max_output_tokens,
        prompt_budget_tokens=version.prompt_budget_tokens,
        memory_enabled=version.memory_enabled,
        memory_scope=version.memory_scope,
        memory_limit=version.memory_limit,
        memory_budget_tokens=version.memory_budget_tokens,
        memory_threshold=version.memory_threshold,
        knowledge=tuple(version.knowledge),
        facts_by_model=version.facts_by_model,
        summaries=version.summaries,
        reply_cache_s=_reply_cache_s(version),
        reply_similarity=version.reply_similarity,
        simple=simple,
        simple_max_chars=version.simple_max_chars,
        simple_not_words=tuple(version.simple_not_words),
        classifier=_classifier_of(version, simple),
        classifier_instruction=version.classifier_instruction.strip() or WHAT_IS_SIMPLE,
        background=_background_of(version, tuple(choices[:1])),
        trace_days=version.trace_days,
        log_messages_until=agent.log_messages_until,
    )


def _reply_cache_s(version: AgentVersion) -> int:
    """Return for how many seconds answers are kept: no longer than the conversations that they are of."""
    most_s = version.conversation_days * 86_400
    return min(version.reply_cache_s, most_s) if most_s else version.reply_cache_s


def _simple_of(version: AgentVersion, own: ModelChoice | None) -> ModelChoice | None:
    """Return the cheaper model of `version`; None where there is none beside its `own`."""
    if provider := version.simple_provider:
        found = ModelChoice(_snapshot_of_provider(provider), version.simple_model or provider.default_model)
    elif own is not None and version.simple_model:
        found = ModelChoice(own.provider, version.simple_model)
    else:
        return None
    return found if found.model and found != own else None


def _classifier_of(version: AgentVersion, simple: ModelChoice | None) -> ModelChoice | None:
    """Return what is asked whether a message is simple enough for the cheaper model; None: nothing is."""
    if simple is None or not version.classifier_enabled:
        return None
    if provider := version.classifier_provider:
        model = version.classifier_model or provider.default_model
        return ModelChoice(_snapshot_of_provider(provider), model) if model else None
    return ModelChoice(simple.provider, version.classifier_model or simple.model)


def _background_of(version: AgentVersion, answering: tuple[ModelChoice, ...]) -> tuple[ModelChoice, ...]:
    """Return the model of `version` for background work: the one it names, or else the first that is `answering`."""
    if provider := version.summary_provider:
        model = version.summary_model or provider.default_model
        return (ModelChoice(_snapshot_of_provider(provider), model),) if model else ()
    return tuple(ModelChoice(choice.provider, version.summary_model or choice.model) for choice in answering)


def _snapshot_of_provider(provider: Provider) -> ProviderSnapshot:
    return ProviderSnapshot(**{name: getattr(provider, name) for name in ProviderSnapshot.__dataclass_fields__})
