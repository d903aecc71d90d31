"""Alerts: what is watched, who is told, what is wrong now, and what the watching reads: breakers and jobs that failed."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q


class AlertKind(models.TextChoices):
    ERROR_RATE = "error_rate", "error rate"
    UPSTREAM_DOWN = "upstream_down", "provider down"
    BREAKER_OPEN = "breaker_open", "circuit breaker open"
    LATENCY = "latency", "slow answers"
    BUDGET = "budget", "budgets"
    QUEUE_AGE = "queue_age", "late background work"
    HIGH_TRAFFIC = "high_traffic", "high traffic"
    FAILED_JOBS = "failed_jobs", "failed background work"
    EVALUATION_FAILURES = "evaluation_failures", "failed evaluations"


class TargetKind(models.TextChoices):
    SLACK = "slack", "Slack"
    DISCORD = "discord", "Discord"
    EMAIL = "email", "e-mail"
    WEBHOOK = "webhook", "webhook"
    APPRISE = "apprise", "anything else (an Apprise URL)"


class Telling(models.TextChoices):
    """What a notice says of its incident."""

    OPENED = "opened", "began"
    WORSE = "worse", "got worse"
    AGAIN = "again", "goes on"
    RESOLVED = "resolved", "is over"


class NoticeState(models.TextChoices):
    WAITING = "waiting", "waiting"
    SENT = "sent", "sent"
    GIVEN_UP = "given_up", "given up"


class AlertTarget(models.Model):
    """Where alerts go. Its address is a secret: whoever knows a webhook's may post to it. It is stored encrypted and never shown."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100, unique=True, help_text="What you call it, such as “Operations in Slack”.")
    kind = models.CharField("what it is", max_length=7, choices=TargetKind.choices, default=TargetKind.SLACK)
    sealed_address = models.TextField(editable=False)
    shown_as = models.CharField(max_length=200, default="", editable=False, help_text="Of the address, what is no secret.")
    is_active = models.BooleanField("active", default=True)
    quiet_from = models.TimeField(null=True, blank=True)
    quiet_until = models.TimeField(null=True, blank=True)
    time_zone = models.CharField(max_length=63, default="UTC", help_text="Of the quiet hours, such as Europe/Berlin.")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=TargetKind.values), name="alert_target_kind_is_known"),
            models.CheckConstraint(
                condition=Q(quiet_from=None, quiet_until=None) | (Q(quiet_from__isnull=False) & Q(quiet_until__isnull=False)),
                name="quiet_hours_have_both_ends",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class AlertRule(models.Model):
    """When to tell, of one kind of trouble. There is one rule of each kind; what each means is in `observability.alerts.kinds`."""

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=20, choices=AlertKind.choices, unique=True)
    is_active = models.BooleanField("active", default=True)
    is_critical = models.BooleanField("critical", default=False, help_text="Told in quiet hours, too.")
    threshold = models.FloatField()
    window_s = models.PositiveIntegerField(help_text="How far back to look.")
    holds_s = models.PositiveIntegerField(default=0, help_text="How long it must hold before it is told.")
    clears_s = models.PositiveIntegerField(default=0, help_text="How long it must be gone before it is told to be over.")
    again_every_s = models.PositiveIntegerField(default=0, help_text="How often to tell again while it goes on; 0: never.")
    targets = models.ManyToManyField(AlertTarget, blank=True, related_name="rules", help_text="None chosen: all of them.")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=AlertKind.values), name="alert_kind_is_known"),
            models.CheckConstraint(condition=Q(threshold__gte=0), name="alert_threshold_is_not_negative"),
        ]

    def __str__(self) -> str:
        return self.get_kind_display()


class Incident(models.Model):
    """Something that is wrong, or was. It is seen before it is opened: a rule may want it to hold for a while."""

    id = models.BigAutoField(primary_key=True)
    rule = models.ForeignKey(AlertRule, on_delete=models.CASCADE, related_name="incidents", db_index=False)
    subject = models.CharField(max_length=200, help_text="What it is about: with the rule, one incident at a time.")
    name = models.CharField(max_length=300, help_text="The same for people.")
    text = models.CharField(max_length=400, help_text="How it is, in a sentence.")
    value = models.FloatField()
    level = models.PositiveSmallIntegerField(default=0, help_text="Of trouble that comes in steps: the one it is at.")
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    opened_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True)
    clear_since = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["rule", "subject"], condition=Q(resolved_at=None), name="one_incident_at_a_time"),
            models.CheckConstraint(
                condition=Q(resolved_at=None) | Q(resolved_at__gte=F("opened_at")), name="incident_opened_before_its_end"
            ),
        ]
        indexes = [models.Index(fields=["resolved_at"], name="incident_by_end")]

    def __str__(self) -> str:
        return self.name


class Notice(models.Model):
    """What one target is to be told of an incident, once. Without a target: ALERT_WEBHOOK_URL."""

    id = models.BigAutoField(primary_key=True)
    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="notices")
    target = models.ForeignKey(AlertTarget, on_delete=models.CASCADE, null=True, related_name="notices")
    telling = models.CharField(max_length=8, choices=Telling.choices)
    text = models.CharField(max_length=400)
    created_at = models.DateTimeField()
    state = models.CharField(max_length=8, choices=NoticeState.choices, default=NoticeState.WAITING)
    tries = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField()
    leased_until = models.DateTimeField(null=True, help_text="A worker is sending it until then.")
    sent_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=300, default="", blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(telling__in=Telling.values), name="notice_telling_is_known"),
            models.CheckConstraint(condition=Q(state__in=NoticeState.values), name="notice_state_is_known"),
            models.CheckConstraint(condition=~Q(state=NoticeState.SENT) | Q(sent_at__isnull=False), name="sent_notice_has_a_time"),
        ]
        indexes = [models.Index(fields=["id"], condition=Q(state=NoticeState.WAITING), name="notice_waiting")]

    def __str__(self) -> str:
        return self.text


class Breaker(models.Model):
    """A circuit breaker that is, or was, open: calls of this model are not tried. One row each time."""

    id = models.BigAutoField(primary_key=True)
    provider = models.CharField(max_length=63)
    model = models.CharField(max_length=200)
    opened_at = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="When a process last found it open.")
    closed_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=200, default="")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["provider", "model"], condition=Q(closed_at=None), name="one_open_breaker_each")]

    def __str__(self) -> str:
        return f"{self.model} at {self.provider}"


class JobFailure(models.Model):
    """A failed try of background work: which, and the error's kind. Nothing of what it worked on."""

    id = models.BigAutoField(primary_key=True)
    queue = models.CharField(max_length=40)
    error = models.CharField(max_length=100, help_text="The exception's class.")
    at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["at"], name="job_failure_by_time")]

    def __str__(self) -> str:
        return f"{self.queue}: {self.error}"
