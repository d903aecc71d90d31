"""An agent as one YAML or JSON file, so that a team can review prompts in git.

`export_agent` writes it, `read_document` reads and checks it, `apply_document` brings the database in step with it. A file
that was exported and is read again says exactly the same. Absent fields have the edit page's defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction

from agents.errors import Conflict
from agents.models import Agent, AgentVersion, Provider

from . import formats
from .comparison import FieldChange, compare_contents
from .content import PROVIDERS, Content, content_of, write_fallbacks
from .drafts import create_agent, draft_of, lock_agent, start_draft
from .publishing import publish as publish_draft
from .publishing import roll_back
from .schema import AgentDocument, DocumentError, Fallback, Memory, content_in

__all__ = ["AgentDocument", "Applied", "DocumentError", "DraftInTheWay", "apply_document", "document_of", "export_agent", "read_document"]

AGENT_FIELDS = {"name": "name", "description": "description", "access": "access", "active": "is_active"}


class DraftInTheWay(Conflict):
    """Somebody else's draft would be lost."""

    code = "draft-in-the-way"
    title = "Somebody's draft is in the way"
    remedy = "Publish or discard the draft in the admin, or apply the file again with --replace-draft."


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply_document` did, or in a dry run would do.

    `action` says it in a word: "created", "created and published", "drafted", "published", "made live again", "updated" (only
    what is not versioned, such as the name) or "unchanged".
    `agent_changes` take effect at once; `changes` are those of the version against what it replaces.
    """

    slug: str
    action: str
    version: int
    agent_changes: tuple[FieldChange, ...] = ()
    changes: tuple[FieldChange, ...] = ()

    @property
    def is_change(self) -> bool:
        return self.action != "unchanged"


def export_agent(agent: Agent, *, draft: bool = False, format: str = "yaml") -> str:
    """Return the agent's file: its live version, else its draft; with `draft`, the draft if there is one."""
    version = (draft_of(agent) if draft else None) or agent.live_version or agent.versions.order_by("-number").first()
    if version is None:
        raise Conflict(f"The agent {agent.slug} has no version yet. Start a draft in the admin.")
    return formats.dump(document_of(agent, version), format=format)


def read_document(text: str, *, source: str = "") -> AgentDocument:
    """Return the checked document of a YAML or JSON text; `source` is the file's name, for messages.

    Raises:
        DocumentError: names the file, every wrong field, and what to write instead.
    """
    return formats.parse(text, source=source)


def document_of(agent: Agent, version: AgentVersion) -> AgentDocument:
    """Return what a file about `agent` and `version` says."""
    content = content_of(version)
    fields = content.fields
    return AgentDocument(
        slug=agent.slug,
        **{key: getattr(agent, attribute) for key, attribute in AGENT_FIELDS.items()},
        note=version.note,
        memory=Memory(**{name: fields[f"memory_{name}"] for name in Memory.model_fields}),
        fallbacks=[Fallback(provider=provider, model=model) for provider, model in content.fallbacks],
        **{name: value for name, value in fields.items() if not name.startswith("memory_")},
    )


def apply_document(
    document: AgentDocument,
    *,
    author: AbstractBaseUser | None,
    dry_run: bool = False,
    publish: bool = False,
    replace_draft: bool = False,
    source: str = "",
) -> Applied:
    """Bring the agent in step with `document`: create it, or write its draft; with `publish`, make that live.

    Nothing is written where the file says what is live already (or, without `publish`, what is drafted or newest). With
    `publish`, a version that was live before and says the same is made live again instead of being copied.

    Raises:
        DocumentError: the file names a provider that does not exist.
        DraftInTheWay: the agent has a different draft by somebody else, and `replace_draft` is not given.
        NotPublishable: `publish` is given and the version is incomplete.
    """
    with transaction.atomic():
        applied = _apply(document, author=author, publish=publish, replace_draft=replace_draft, source=source)
        if dry_run:
            transaction.set_rollback(True)
    return applied


def _apply(document: AgentDocument, *, author: AbstractBaseUser | None, publish: bool, replace_draft: bool, source: str) -> Applied:
    providers = _providers_of(document, source=source)
    agent = Agent.objects.filter(slug=document.slug).first()
    if agent is None:
        return _create(document, author=author, publish=publish, providers=providers)
    agent = lock_agent(agent)
    agent_changes = _apply_to_agent(document, agent)
    draft, live = draft_of(agent), agent.live_version
    published = agent.versions.exclude(published_at=None).order_by("-number").first()
    wanted = content_in(document)
    in_step = live if _says(live, wanted) else _newest_that_says(document, draft or published) if not publish else None
    if in_step is not None:
        return Applied(agent.slug, "updated" if agent_changes else "unchanged", in_step.number, agent_changes)
    if publish and published is not None and _says(published, wanted):
        roll_back(agent, to=published, actor=author)
        return Applied(agent.slug, "made live again", published.number, agent_changes, _changes(live, wanted))
    if draft is not None and not _says(draft, wanted):
        _check_replaceable(draft, author=author, replace_draft=replace_draft)
    changes = _changes(live if publish else (draft or live or published), wanted)
    draft = start_draft(agent, author=author)
    _write(draft, document, author=author, providers=providers)
    if publish:
        publish_draft(draft, actor=author)
    return Applied(agent.slug, "published" if publish else "drafted", draft.number, agent_changes, changes)


def _create(document: AgentDocument, *, author: AbstractBaseUser | None, publish: bool, providers: dict[str, int]) -> Applied:
    agent = create_agent(slug=document.slug, name=document.name, description=document.description, access=document.access, author=author)
    Agent.objects.filter(pk=agent.pk).update(is_active=document.active)
    draft = start_draft(agent, author=author)
    _write(draft, document, author=author, providers=providers)
    if publish:
        publish_draft(draft, actor=author)
    changes = _changes(None, content_in(document))
    return Applied(agent.slug, "created and published" if publish else "created", draft.number, changes=changes)


def _apply_to_agent(document: AgentDocument, agent: Agent) -> tuple[FieldChange, ...]:
    changes = []
    for key, attribute in AGENT_FIELDS.items():
        old, new = getattr(agent, attribute), getattr(document, key)
        if old != new:
            changes.append(FieldChange(field=key, label=key.capitalize(), old=_shown(old), new=_shown(new)))
            setattr(agent, attribute, new)
    if changes:
        agent.save(update_fields=[*AGENT_FIELDS.values(), "updated_at"])
    return tuple(changes)


def _write(draft: AgentVersion, document: AgentDocument, *, author: AbstractBaseUser | None, providers: dict[str, int]) -> None:
    if not _says(draft, content_in(document)):
        # Whose draft it was, these are no longer that person's words.
        draft.author_id = author.pk if author else None
    values = content_in(document).fields | {"note": document.note}
    for name in PROVIDERS:
        slug = values.pop(name)
        setattr(draft, f"{name}_id", providers[slug] if slug else None)
    for name, value in values.items():
        setattr(draft, name, value)
    draft.save()
    write_fallbacks(draft, fallbacks=[(providers[row.provider] if row.provider else None, row.model) for row in document.fallbacks])


def _providers_of(document: AgentDocument, *, source: str) -> dict[str, int]:
    named = {getattr(document, name): name for name in PROVIDERS}
    named |= {row.provider: f"fallbacks.{n}.provider" for n, row in enumerate(document.fallbacks, 1)}
    known = dict(Provider.objects.values_list("slug", "pk"))
    problems = {
        where: [
            f"There is no provider {slug!r}. Use one of {', '.join(sorted(known)) or '(none exist)'}, or leave it empty for the default."
        ]
        for slug, where in named.items()
        if slug and slug not in known
    }
    if problems:
        raise DocumentError(problems, source=source)
    return known


def _check_replaceable(draft: AgentVersion, *, author: AbstractBaseUser | None, replace_draft: bool) -> None:
    if replace_draft or draft.author_id == (author.pk if author else None):
        return
    by = f" by {draft.author}" if draft.author else ""
    raise DraftInTheWay(f"The agent {draft.agent.slug} has a different draft, version {draft.number}{by}. {DraftInTheWay.remedy}")


def _newest_that_says(document: AgentDocument, newest: AgentVersion | None) -> AgentVersion | None:
    if newest is None or not _says(newest, content_in(document)):
        return None
    # A note alone is no reason for a new version, but a draft's own note may still change.
    return newest if newest.published_at or newest.note == document.note else None


def _changes(old: AgentVersion | None, wanted: Content) -> tuple[FieldChange, ...]:
    return tuple(compare_contents(content_of(old) if old else None, wanted))


def _says(version: AgentVersion | None, wanted: Content) -> bool:
    return version is not None and content_of(version) == wanted


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
