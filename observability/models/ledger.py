"""The ledger: a row for every call of a model, and its sums by hour and by day."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class AttemptKind(models.TextChoices):
    CHAT = "chat", "chat"
    EMBEDDING = "embedding", "embedding"
    SUMMARY = "summary", "summary"
    FACTS = "facts", "facts"
    EVALUATION = "evaluation", "evaluation"
    ROUTING = "routing", "routing: asking whether a message is simple"


class AttemptOutcome(models.TextChoices):
    RUNNING = "running", "running"
    DONE = "done", "done"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled: the client left"
    INTERRUPTED = "interrupted", "interrupted: broke midway"
    ORPHANED = "orphaned", "orphaned: its process died, the cost is estimated"
    CACHED = "cached", "answered from the cache"


class SavedBy(models.TextChoices):
    """What made an attempt cost less than it would have."""

    NOTHING = "", "nothing"
    CACHE = "cache", "the reply cache"
    ROUTING = "routing", "a cheaper model for a simple message"
    BUDGET = "budget", "a cheaper model for the sake of a budget"


class Attempt(models.Model):
    """One call of a model: written before it, settled once after it, and never changed again (a trigger sees to it).

    Agents, keys, conversations and people are plain values: the ledger outlives them, and holds nothing of what was said.
    An answer from the reply cache is a row too, without cost, so that savings are counted where costs are.
    """

    id = models.UUIDField(primary_key=True, editable=False, help_text="UUIDv7.")
    turn_id = models.UUIDField(null=True, help_text="The API's message_id.")
    number = models.PositiveSmallIntegerField(default=1, help_text="Which attempt of its turn: 1 is the first.")
    kind = models.CharField(max_length=10, choices=AttemptKind.choices)
    agent = models.CharField(max_length=63, default="")
    version = models.PositiveIntegerField(default=0)
    key = models.CharField(max_length=40, default="", help_text="A key's public id; empty: none.")
    subject_id = models.BigIntegerField(default=0, help_text="A person's opaque number, which means nothing once they are erased.")
    conversation_id = models.BigIntegerField(default=0)
    provider = models.CharField(max_length=63, default="")
    model = models.CharField(max_length=200, default="")
    request_id = models.CharField(max_length=64, default="")
    started_at = models.DateTimeField()
    deadline_at = models.DateTimeField(help_text="An attempt still running after this was left behind by a process that died.")
    settled_at = models.DateTimeField(null=True)
    settled_xid = models.BigIntegerField(null=True, help_text="The transaction that settled it: what the rollups have seen is told by it.")
    outcome = models.CharField(max_length=11, choices=AttemptOutcome.choices, default=AttemptOutcome.RUNNING)
    error_code = models.CharField(max_length=40, default="")
    worst_prompt_tokens = models.PositiveIntegerField(default=0, help_text="The most it may send; what it counts as if nobody settles it.")
    worst_completion_tokens = models.PositiveIntegerField(default=0, help_text="The most it may answer; likewise.")
    prompt_tokens = models.PositiveIntegerField(null=True)
    cached_tokens = models.PositiveIntegerField(null=True, help_text="Of the prompt, what the vendor had in its cache.")
    completion_tokens = models.PositiveIntegerField(null=True)
    counted_prompt_tokens = models.PositiveIntegerField(
        null=True, help_text="The prompt as we count it, of some that the vendor counted too: how far apart the two are is learned from it."
    )
    trimmed_tokens = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="About how many tokens of the conversation so far the prompt left out, or had a summary take the place of.",
    )
    is_estimated = models.BooleanField(default=False, help_text="The vendor reported no usage; the counts are ours.")
    input_usd = models.DecimalField(
        max_digits=16, decimal_places=8, null=True, help_text="The price then, per million tokens; null: unknown."
    )
    cached_input_usd = models.DecimalField(max_digits=16, decimal_places=8, null=True)
    output_usd = models.DecimalField(max_digits=16, decimal_places=8, null=True)
    cost_usd = models.DecimalField(max_digits=18, decimal_places=10, null=True, help_text="Null: the price is unknown.")
    saved_usd = models.DecimalField(max_digits=18, decimal_places=10, default=0)
    saved_by = models.CharField(
        max_length=7,
        choices=SavedBy.choices,
        default=SavedBy.NOTHING,
        db_default=SavedBy.NOTHING.value,
        blank=True,
        help_text="Why it is that saved_usd was saved; set where nothing was, too, as prices may be unknown.",
    )
    first_token_ms = models.PositiveIntegerField(null=True)
    latency_ms = models.PositiveIntegerField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=AttemptKind.values), name="attempt_kind_is_known"),
            models.CheckConstraint(condition=Q(outcome__in=AttemptOutcome.values), name="attempt_outcome_is_known"),
            models.CheckConstraint(condition=Q(saved_by__in=SavedBy.values), name="attempt_saved_by_is_known"),
            models.CheckConstraint(
                condition=Q(outcome=AttemptOutcome.RUNNING, settled_at=None, settled_xid=None)
                | (~Q(outcome=AttemptOutcome.RUNNING) & Q(settled_at__isnull=False, settled_xid__isnull=False)),
                name="attempt_settled_unless_running",
            ),
            models.CheckConstraint(condition=Q(cost_usd=None) | Q(cost_usd__gte=0), name="attempt_cost_is_not_negative"),
            models.UniqueConstraint(fields=["turn_id", "kind", "number"], name="attempt_number_once_per_turn"),
        ]
        indexes = [
            models.Index(fields=["deadline_at"], condition=Q(outcome=AttemptOutcome.RUNNING), name="attempt_running"),
            models.Index(fields=["settled_xid"], name="attempt_by_settling"),
            models.Index(
                fields=["provider", "model", "settled_at"], condition=Q(counted_prompt_tokens__isnull=False), name="attempt_counted"
            ),
            models.Index(
                fields=["started_at"],
                condition=Q(outcome__in=(AttemptOutcome.FAILED, AttemptOutcome.INTERRUPTED, AttemptOutcome.ORPHANED)),
                name="attempt_failed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} attempt {self.number} of {self.turn_id}"


class _Usage(models.Model):
    """Sums over settled attempts. Money in US dollars."""

    attempts = models.BigIntegerField(help_text="Calls of models, and answers from the reply cache.")
    turns = models.BigIntegerField(help_text="Turns of a chat: its first attempts.")
    failed = models.BigIntegerField(help_text="Attempts that failed or broke midway.")
    cached = models.BigIntegerField(help_text="Answers from the reply cache.")
    routed = models.BigIntegerField(help_text="Calls of a cheaper model than the agent's own.")
    prompt_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    trimmed_tokens = models.BigIntegerField(help_text="Of conversations so far: what prompts left out.")
    cost_usd = models.DecimalField(max_digits=24, decimal_places=10)
    saved_usd = models.DecimalField(max_digits=24, decimal_places=10)
    saved_by_routing_usd = models.DecimalField(max_digits=24, decimal_places=10, help_text="Of what was saved: by cheaper models.")
    routing_cost_usd = models.DecimalField(
        max_digits=24, decimal_places=10, help_text="Of what was spent: on asking whether messages are simple."
    )
    saved_by_trimming_usd = models.DecimalField(
        max_digits=24, decimal_places=10, help_text="What the trimmed tokens would have cost as input; not part of saved_usd."
    )
    unpriced = models.BigIntegerField(help_text="Attempts whose price is unknown: their cost is in no sum.")

    class Meta:
        abstract = True


class _UsageOfModel(_Usage):
    """Sums by agent, key and model."""

    agent = models.CharField(max_length=63)
    key = models.CharField(max_length=40)
    kind = models.CharField(max_length=10)
    provider = models.CharField(max_length=63)
    model = models.CharField(max_length=200)

    class Meta:
        abstract = True


class UsageHour(_UsageOfModel):
    """An hour's sums."""

    pk = models.CompositePrimaryKey("hour", "agent", "key", "kind", "provider", "model")
    hour = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.agent} {self.hour:%Y-%m-%d %H}:00"


class UsageDay(_UsageOfModel):
    """A UTC day's sums. It knows no people, so that it stays small however many there are."""

    pk = models.CompositePrimaryKey("day", "agent", "key", "kind", "provider", "model")
    day = models.DateField()

    class Meta:
        verbose_name = "usage"
        verbose_name_plural = "usage"

    def __str__(self) -> str:
        return f"{self.agent} {self.day}"


class UsagePerson(_UsageOfModel):
    """A UTC day's sums of one person."""

    pk = models.CompositePrimaryKey("day", "subject_id", "agent", "key", "kind", "provider", "model")
    day = models.DateField()
    subject_id = models.BigIntegerField(help_text="0: of nobody.")

    class Meta:
        indexes = [
            models.Index(fields=["subject_id", "day"], name="usage_by_person"),
            # Of all people of some days, only who and how much: without a look at the rows, which are long.
            models.Index(fields=["day", "subject_id"], include=["cost_usd"], name="cost_of_people"),
        ]

    def __str__(self) -> str:
        return f"{self.subject_id} {self.day}"


class UsageConversation(_Usage):
    """A UTC day's sums of one conversation."""

    pk = models.CompositePrimaryKey("day", "conversation_id", "agent", "key")
    day = models.DateField()
    conversation_id = models.BigIntegerField(help_text="0: of none.")
    agent = models.CharField(max_length=63)
    key = models.CharField(max_length=40)

    class Meta:
        indexes = [models.Index(fields=["conversation_id", "day"], name="usage_by_conversation")]

    def __str__(self) -> str:
        return f"{self.conversation_id} {self.day}"


class _Total(models.Model):
    """What something cost over all time, in US dollars, and on which UTC days: on some of them it cannot have cost more."""

    cost_usd = models.DecimalField(max_digits=24, decimal_places=10)
    first_day = models.DateField()
    last_day = models.DateField()

    class Meta:
        abstract = True


class TotalOfPerson(_Total):
    """What a person cost over all time."""

    subject_id = models.BigIntegerField(primary_key=True, help_text="0: of nobody.")

    class Meta:
        indexes = [models.Index(fields=["-cost_usd", "-last_day"], include=["subject_id", "first_day"], name="dearest_person")]

    def __str__(self) -> str:
        return f"{self.subject_id}: {self.cost_usd}"


class TotalOfConversation(_Total):
    """What a conversation cost over all time."""

    conversation_id = models.BigIntegerField(primary_key=True, help_text="0: of none.")

    class Meta:
        indexes = [models.Index(fields=["-cost_usd", "-last_day"], include=["conversation_id", "first_day"], name="dearest_conversation")]

    def __str__(self) -> str:
        return f"{self.conversation_id}: {self.cost_usd}"


class RollupState(models.Model):
    """Up to which transaction attempts are in the sums: one row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    upto_xid = models.BigIntegerField(default=0)
    totals_upto_xid = models.BigIntegerField(default=0, db_default=0, help_text="The same of what people and conversations cost in all.")
    xid_offset = models.BigIntegerField(
        default=0, db_default=0, help_text="Added to transactions' numbers, which begin anew where a dump is restored elsewhere."
    )
    totals_xid_offset = models.BigIntegerField(default=0, db_default=0, help_text="What it was when the totals were added to last.")
    rolled_up_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_rollup_state")]

    def __str__(self) -> str:
        return f"rolled up to {self.upto_xid}"
