"""Conversations, their turns, and the summaries of what no longer fits a prompt."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from memory.models.people import Subject


class Conversation(models.Model):
    """A session of one subject with one agent. Two subjects who call their sessions the same have two conversations."""

    id = models.BigAutoField(primary_key=True)
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="conversations", db_index=False)
    owner = models.CharField(max_length=100)
    agent = models.CharField(max_length=63, help_text="The agent's slug; a plain value, so that history outlives the agent.")
    session_id = models.CharField(max_length=128)
    last_seq = models.PositiveIntegerField(default=0, help_text="The newest turn's number, allocated under this row's lock.")
    created_at = models.DateTimeField(auto_now_add=True)
    last_turn_at = models.DateTimeField(auto_now_add=True)
    summary = models.TextField(
        default="", db_default="", blank=True, help_text="What was said up to `summarised_seq`; the newest of `Summary`."
    )
    summarised_seq = models.PositiveIntegerField(default=0, db_default=0)
    summary_due = models.BooleanField(
        default=False, db_default=False, help_text="Turns no longer fit the prompt: a worker summarises them."
    )
    summary_busy_until = models.DateTimeField(null=True, blank=True, help_text="A worker is at it, at most until then.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["subject", "agent", "session_id"], name="session_once_per_subject_and_agent"),
            models.CheckConstraint(condition=Q(summarised_seq__lte=F("last_seq")), name="summarised_what_was_said"),
        ]
        indexes = [
            # Of columns that no turn changes: `last_turn_at` in an index would cost every turn a write to it.
            models.Index(fields=["id"], condition=Q(summary_due=True), name="conversation_to_summarise"),
            # Whoever reads a conversation knows the session, and seldom whose it is.
            models.Index(fields=["owner", "agent", "session_id"], name="conversation_by_session"),
        ]

    def __str__(self) -> str:
        return f"{self.agent}/{self.session_id}"


class TurnState(models.TextChoices):
    """How far a turn is, or how it ended (docs/chat-request.md)."""

    RUNNING = "running", "running"
    DONE = "done", "done"
    CANCELLED = "cancelled", "cancelled: the client left"
    INTERRUPTED = "interrupted", "interrupted: broke midway"
    FAILED = "failed", "failed: no text"


class Turn(models.Model):
    """One message and its reply. Stored before the model is called, finished once, then never changed."""

    id = models.UUIDField(primary_key=True, editable=False, help_text="UUIDv7; the API's message_id.")
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="turns")
    seq = models.PositiveIntegerField()
    state = models.CharField(max_length=11, choices=TurnState.choices, default=TurnState.RUNNING)
    agent = models.CharField(max_length=63)
    version = models.PositiveIntegerField(help_text="The number of the agent's version that answered.")
    message = models.TextField()
    reply = models.TextField(default="", blank=True)
    provider = models.CharField(max_length=63, default="", blank=True)
    model = models.CharField(max_length=200, default="", blank=True)
    finish_reason = models.CharField(max_length=40, default="", blank=True)
    error_code = models.CharField(max_length=40, default="", blank=True)
    prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    completion_tokens = models.PositiveIntegerField(null=True, blank=True)
    usage_estimated = models.BooleanField(default=False, help_text="The upstream reported no usage; the counts are ours.")
    metadata = models.JSONField(default=dict, blank=True)
    request_id = models.CharField(max_length=64, default="", blank=True)
    created_at = models.DateTimeField()
    deadline_at = models.DateTimeField(help_text="A turn still running after this was left behind by a process that died.")
    first_token_ms = models.PositiveIntegerField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    sent = models.TextField(  # noqa: DJ001 - null is "not kept"; there is no empty request
        null=True,
        blank=True,
        editable=False,
        help_text="What the model was sent: the request's JSON body, byte for byte, without its headers.",
    )
    trace = models.JSONField(
        null=True,
        blank=True,
        editable=False,
        help_text="What was done for it and when: steps with the moment when each ended, calls with the moment when each began (ms since "
        "the question), and what was decided. Empty where it is not kept, or not any more.",
    )
    remember = models.BooleanField(
        default=False, db_default=False, help_text="The version that answered has long-term memory: a worker puts the turn there."
    )
    remembered_at = models.DateTimeField(null=True, blank=True, help_text="When that was done.")
    facts_due_at = models.DateTimeField(null=True, blank=True, help_text="When a model is to read facts in it; empty once it did.")

    class Meta:
        ordering = ["conversation", "seq"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "seq"], name="seq_once_per_conversation"),
            models.CheckConstraint(condition=Q(state__in=TurnState.values), name="turn_state_is_known"),
            models.CheckConstraint(
                condition=Q(state=TurnState.RUNNING, finished_at=None) | (~Q(state=TurnState.RUNNING) & Q(finished_at__isnull=False)),
                name="turn_finished_unless_running",
            ),
            models.CheckConstraint(condition=~Q(state=TurnState.FAILED) | Q(reply=""), name="failed_turn_has_no_text"),
            models.CheckConstraint(condition=Q(sent=None) | Q(trace__isnull=False), name="turn_sent_has_a_trace"),
            models.CheckConstraint(condition=Q(deadline_at__gt=F("created_at")), name="turn_deadline_after_start"),
        ]
        indexes = [
            models.Index(fields=["deadline_at"], condition=Q(state=TurnState.RUNNING), name="turn_running"),
            models.Index(fields=["agent", "created_at"], name="turn_by_agent_and_day"),
            # What went wrong is counted on the admin's start page, among however many turns.
            models.Index(
                fields=["agent", "created_at"],
                condition=Q(state__in=(TurnState.FAILED, TurnState.INTERRUPTED)),
                name="turn_broken",
            ),
            # The workers' queue: as small as what is left to do.
            models.Index(fields=["finished_at"], condition=Q(remember=True, remembered_at=None), name="turn_to_remember"),
            models.Index(fields=["agent", "created_at"], condition=Q(trace__isnull=False), name="turn_with_trace"),
            models.Index(fields=["facts_due_at"], condition=Q(facts_due_at__isnull=False), name="turn_to_read"),
        ]

    def __str__(self) -> str:
        return f"{self.agent} turn {self.seq}"


class Summary(models.Model):
    """A conversation's summary up to one turn. Each takes the place of the one before; none is changed."""

    id = models.BigAutoField(primary_key=True)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="summaries")
    number = models.PositiveIntegerField()
    upto_seq = models.PositiveIntegerField(help_text="The newest turn that it covers.")
    text = models.TextField()
    provider = models.CharField(max_length=63, default="", blank=True)
    model = models.CharField(max_length=200, default="", blank=True)
    prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    completion_tokens = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["conversation", "number"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "number"], name="summary_number_once"),
            models.UniqueConstraint(fields=["conversation", "upto_seq"], name="nothing_summarised_twice"),
        ]

    def __str__(self) -> str:
        return f"summary {self.number} of {self.conversation_id}"
