"""Agents and their versions.

A version's state is never stored: it follows from `published_at` (written once) and the agent's `live_version`.
    draft      published_at is null (at most one an agent)
    live       the agent points to it
    published  was live before; immutable, can be rolled back to
Triggers in the migrations hold what a form could only hope: published versions and their fallbacks never change, only a
published version can be live, and only on its own agent.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from .providers import Provider, validate_slug


class Access(models.TextChoices):
    """Who may chat with an agent."""

    PUBLIC = "public", "public: anyone may chat"
    KEY = "key", "key only: callers need an API key"


class Agent(models.Model):
    """A chatbot: a stable name that callers use, and a pointer to the version that answers."""

    slug = models.CharField(
        "address name",
        max_length=63,
        unique=True,
        validators=[validate_slug],
        help_text="Callers use it: /api/chat/<this>. It cannot change later.",
    )
    name = models.CharField(max_length=100, help_text="What people see.")
    description = models.TextField(
        blank=True, default="", max_length=1000, help_text="One or two sentences that people see: what this agent is for."
    )
    is_active = models.BooleanField("active", default=True, help_text="Switched off, the agent answers nobody; nothing is deleted.")
    access = models.CharField("who may chat", max_length=6, choices=Access.choices, default=Access.PUBLIC)
    live_version = models.ForeignKey(
        "AgentVersion",
        null=True,
        blank=True,
        editable=False,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="The version that answers now.",
    )
    log_messages_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Until then the log holds what is said to this agent, and what it answers."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["slug"]
        constraints = [models.CheckConstraint(condition=Q(access__in=Access.values), name="agent_access_is_known")]

    def __str__(self) -> str:
        return self.name


class MemoryScope(models.TextChoices):
    """Whose earlier words an agent may remember."""

    SESSION = "session", "this conversation"
    USER = "user", "this person, in every conversation"


LONGEST_DAYS: Final = 36_500
LONGEST_TRACE_DAYS: Final = 365
WHAT_IS_SIMPLE: Final = (
    "A message is simple if a short, general answer is enough: a greeting, thanks, small talk, or a question about one plain fact such as "
    "opening hours, an address or a price. It is not simple if it takes several steps, a judgement, advice, calculation or code; if "
    "somebody complains, wants money back, cancels, or reports a mistake; if it is about health, law or safety; or if you are not sure."
)


class AgentVersion(models.Model):
    """Everything that decides how an agent answers. Immutable once published."""

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="versions", editable=False)
    number = models.PositiveIntegerField(editable=False)
    system_prompt = models.TextField(
        "instructions (system prompt)",
        max_length=100_000,
        help_text="Who the agent is, what it knows and how it speaks. Sent before every conversation, word for word.",
    )
    greeting = models.TextField(
        blank=True, default="", max_length=2000, help_text="What the chat page shows before the first message. Not sent to the model."
    )
    provider = models.ForeignKey(
        Provider,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="versions",
        help_text="Who runs the model. Empty: the default provider.",
    )
    model = models.CharField(
        max_length=200, blank=True, default="", help_text="The model's name, such as gpt-6-luna. Empty: the provider's default model."
    )
    temperature = models.FloatField(
        "liveliness (temperature)",
        null=True,
        blank=True,
        validators=[MinValueValidator(0.0), MaxValueValidator(2.0)],
        help_text="0 is steady, 1 lively, 2 wild. Empty: the model's own default.",
    )
    top_p = models.FloatField(
        "word choice (top-p)",
        null=True,
        blank=True,
        validators=[MinValueValidator(0.01), MaxValueValidator(1.0)],
        help_text="An alternative to temperature: keep only the likeliest words that together reach this share. "
        "Empty: the model's default.",
    )
    max_output_tokens = models.PositiveIntegerField(
        "longest answer (tokens)",
        default=1024,
        validators=[MinValueValidator(1), MaxValueValidator(200_000)],
        help_text="An answer is cut here. 100 tokens are about 75 English words.",
    )
    prompt_budget_tokens = models.PositiveIntegerField(
        "prompt budget (tokens)",
        default=4000,
        validators=[MinValueValidator(100), MaxValueValidator(2_000_000)],
        help_text="The most that is sent to the model for one answer: prompt, earlier turns and the new message. "
        "Older turns are left out first.",
    )
    simple_provider = models.ForeignKey(
        Provider,
        verbose_name="provider of the cheaper model",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="Who runs the model below. Empty: the provider that answers.",
    )
    simple_model = models.CharField(
        "cheaper model",
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="Answers simple messages, and all of them once a budget asks for it. The model above steps in where it cannot. "
        "Empty: the chosen provider's default model or, if none is chosen, there is no cheaper model.",
    )
    simple_max_chars = models.PositiveIntegerField(
        "longest simple message (characters)",
        default=200,
        db_default=200,
        validators=[MaxValueValidator(100_000)],
        help_text="A longer one is not simple. 0: none is; the cheaper model then answers only where a budget asks for it.",
    )
    simple_not_words = ArrayField(
        models.CharField(max_length=100),
        verbose_name="words of messages that are not simple",
        default=list,
        db_default=[],
        blank=True,
        size=100,
        error_messages={"item_invalid": "Line %(nth)s:"},
        help_text="Words or phrases, one a line. A message with one of them is not simple, however short. Capitals make no difference; "
        "“refund” is not found in “refunds”.",
    )
    classifier_enabled = models.BooleanField(
        "ask a model which messages are simple",
        default=False,
        db_default=False,
        help_text="Of messages that are short enough and hold none of these words. It has a moment to answer; where it does not, or says "
        "that a message is not simple, the agent's own model answers.",
    )
    classifier_provider = models.ForeignKey(
        Provider,
        verbose_name="provider of the model that is asked",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="Who runs the model below. Empty: the provider of the cheaper model.",
    )
    classifier_model = models.CharField(
        "model that is asked",
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="A small, quick one that answers without thinking first. Empty: the chosen provider's default model or, if none is "
        "chosen, the cheaper model itself.",
    )
    classifier_instruction = models.TextField(
        "what counts as simple",
        max_length=2000,
        blank=True,
        default=WHAT_IS_SIMPLE,
        db_default=WHAT_IS_SIMPLE,
        help_text="What that model is told, in your words. It sees this and the message alone, nothing else of the conversation. "
        "Empty: the text that stands here at first.",
    )
    memory_enabled = models.BooleanField(
        "long-term memory",
        default=False,
        help_text="Remember what people said, and send what helps to answer along with their next message.",
    )
    memory_scope = models.CharField("remember for", max_length=7, choices=MemoryScope.choices, default=MemoryScope.USER)
    memory_limit = models.PositiveIntegerField(
        "memories in an answer", default=5, validators=[MaxValueValidator(50)], help_text="How many memories an answer may draw on."
    )
    memory_budget_tokens = models.PositiveIntegerField(
        "memory budget (tokens)",
        default=400,
        validators=[MaxValueValidator(100_000)],
        help_text="How much of the prompt budget memories may take.",
    )
    memory_threshold = models.FloatField(
        "how sure a memory must be",
        default=5.5,
        db_default=5.5,
        validators=[MinValueValidator(0.0), MaxValueValidator(40.0)],
        help_text="Memories with a lower score are left out. 0: the best are sent, however weak; 5.5: nearly all that help are, and little "
        "else; 40: hardly any ever is.",
    )
    memory_cap = models.PositiveIntegerField(
        "memories kept about a person",
        default=5000,
        db_default=5000,
        validators=[MaxValueValidator(10_000_000)],
        help_text="Beyond this, the least useful are forgotten. 0: all are kept.",
    )
    memory_days = models.PositiveIntegerField(
        "forget memories after (days)",
        default=0,
        db_default=0,
        validators=[MaxValueValidator(LONGEST_DAYS)],
        help_text="Counted from when it was said. 0: they are kept.",
    )
    knowledge = ArrayField(
        models.CharField(max_length=63, validators=[validate_slug]),
        verbose_name="shared knowledge",
        default=list,
        db_default=[],
        blank=True,
        size=20,
        error_messages={"item_invalid": "Name %(nth)s:"},
        help_text="Names of collections that the agent may draw on besides what people told it, separated by commas.",
    )
    facts_by_model = models.BooleanField(
        "let a model read facts out of conversations",
        default=False,
        db_default=False,
        help_text="What people say about themselves in passing is found too. Costs tokens. Without it, only "
        "plain statements such as “my name is …” become facts.",
    )
    summaries = models.BooleanField(
        "summarise long conversations",
        default=False,
        db_default=False,
        help_text="What no longer fits the prompt budget is sent as a short summary, written in the background. Costs tokens.",
    )
    summary_provider = models.ForeignKey(
        Provider,
        verbose_name="provider for summaries and facts",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="Who runs the model below. Empty: the provider that answers.",
    )
    summary_model = models.CharField(
        "model for summaries and facts",
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="A small, cheap model is enough. Empty: the model that answers or, if a provider is chosen, that provider's default.",
    )
    conversation_days = models.PositiveIntegerField(
        "delete conversations after (days)",
        default=0,
        db_default=0,
        validators=[MaxValueValidator(LONGEST_DAYS)],
        help_text="Counted from the last message. What was said is forgotten with them; facts stay. 0: conversations are kept.",
    )
    trace_days = models.PositiveIntegerField(
        "keep traces for (days)",
        default=7,
        db_default=7,
        validators=[MaxValueValidator(LONGEST_TRACE_DAYS)],
        help_text="For how long you can look up what the model was sent for an answer, and what was decided and done for it. "
        "0: it is not kept.",
    )
    reply_cache_s = models.PositiveIntegerField(
        "reply cache (seconds)",
        default=300,
        validators=[MaxValueValidator(30 * 86_400)],
        help_text="How long the same question may be answered from the cache. 0: never.",
    )
    reply_similarity = models.FloatField(
        "answer similar questions too (similarity)",
        null=True,
        blank=True,
        validators=[MinValueValidator(0.7), MaxValueValidator(1.0)],
        help_text="Empty: only the very same question is answered from the cache. A number from 0.7 to 1: so is one that is as much like "
        "it, with the other's answer; 0.95 asks for nearly the same meaning, at 0.8 often only the subject is the same. Such an answer may "
        "be wrong, so try your visitors' wordings first. Needs an embedding model, and works where the reply cache does: without "
        "long-term memory.",
    )
    note = models.CharField(max_length=500, blank=True, default="", help_text="For colleagues: what changed and why.")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    published_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["agent", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["agent", "number"], name="version_number_once_per_agent"),
            # What the composite foreign key (agent.id, agent.live_version_id) refers to.
            models.UniqueConstraint(fields=["agent", "id"], name="version_belongs_to_agent"),
            models.UniqueConstraint(fields=["agent"], condition=Q(published_at=None), name="one_draft_per_agent"),
            models.CheckConstraint(condition=Q(number__gte=1), name="version_numbers_start_at_1"),
            models.CheckConstraint(condition=Q(temperature=None) | Q(temperature__range=(0, 2)), name="temperature_0_to_2"),
            models.CheckConstraint(condition=Q(top_p=None) | (Q(top_p__gt=0) & Q(top_p__lte=1)), name="top_p_0_to_1"),
            models.CheckConstraint(condition=Q(max_output_tokens__gte=1), name="max_output_tokens_positive"),
            models.CheckConstraint(condition=Q(simple_max_chars__lte=100_000), name="simple_messages_at_most_100000_chars"),
            models.CheckConstraint(
                condition=Q(reply_similarity=None) | Q(reply_similarity__range=(0.7, 1)), name="reply_similarity_0_7_to_1"
            ),
            models.CheckConstraint(condition=Q(memory_scope__in=MemoryScope.values), name="memory_scope_is_known"),
            models.CheckConstraint(condition=Q(memory_threshold__range=(0, 40)), name="memory_threshold_0_to_40"),
            models.CheckConstraint(condition=Q(memory_cap__lte=10_000_000), name="memory_cap_at_most_10_million"),
            models.CheckConstraint(condition=Q(trace_days__lte=LONGEST_TRACE_DAYS), name="traces_kept_at_most_a_year"),
            models.CheckConstraint(
                condition=Q(memory_days__lte=LONGEST_DAYS) & Q(conversation_days__lte=LONGEST_DAYS), name="kept_at_most_100_years"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.agent.slug} v{self.number}"


class VersionFallback(models.Model):
    """A model that answers when those before it could not."""

    version = models.ForeignKey(AgentVersion, on_delete=models.CASCADE, related_name="fallbacks")
    position = models.PositiveSmallIntegerField(default=1, help_text="1 is tried first.")
    provider = models.ForeignKey(
        Provider, null=True, blank=True, on_delete=models.PROTECT, related_name="+", help_text="Empty: the default provider."
    )
    model = models.CharField(max_length=200, blank=True, default="", help_text="Empty: the provider's default model.")

    class Meta:
        ordering = ["version", "position"]
        constraints = [models.UniqueConstraint(fields=["version", "position"], name="fallback_position_once_per_version")]

    def __str__(self) -> str:
        return f"{self.position}. {self.model or 'default model'}"
