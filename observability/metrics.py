"""Everything that is counted and measured, for Prometheus: each metric's name, meaning and labels (`docs/metrics.md`).

Labels only ever hold values of a set that is bounded by this code or by what operators set up (agents, models, providers), never
what a caller sent. `observability.counting` counts; nobody else touches the metrics.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram, values
from prometheus_client.metrics import MetricWrapperBase

from observability.slot_files import SlotFile
from observability.slots import folder, slot

if folder() is not None:
    values.MmapedDict = SlotFile  # type: ignore[attr-defined] # what the values of the next line are kept in
    values.ValueClass = values.MultiProcessValue(slot)  # type: ignore[no-untyped-call] # read whenever a metric is made
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

Metric = TypeVar("Metric", bound=MetricWrapperBase)

OTHER: Final = "other"
_MOST_SERIES: Final = 2000


class Series(Generic[Metric]):
    """The series of one metric, by the values of its labels: at most 2,000 in a process, and one for all that come later.

    Kept at hand, because finding one in prometheus_client takes longer than counting.
    """

    __slots__ = ("_found", "_labels", "_metric")

    def __init__(self, metric: Metric, labels: tuple[str, ...], known: Iterable[tuple[str, ...]]) -> None:
        self._metric = metric
        self._labels = labels
        self._found: dict[tuple[str, ...], Metric] = {}
        for label_values in known:
            self.of(*label_values)  # from the beginning, so that the first event is an increase

    def of(self, *label_values: str) -> Metric:
        """Return the series with these values, in the order of the metric's labels."""
        try:
            return self._found[label_values]
        except KeyError:
            return self._find(label_values)

    def _find(self, label_values: tuple[str, ...]) -> Metric:
        if len(self._found) >= _MOST_SERIES:
            return self._metric.labels(*(OTHER for _ in self._labels))
        found = self._found[label_values] = self._metric.labels(*label_values)
        return found


def _counter(name: str, meaning: str, *labels: str, known: Iterable[tuple[str, ...]] = ()) -> Series[Counter]:
    return Series(Counter(name, meaning, labels), labels, known)


def _gauge(name: str, meaning: str, *labels: str, mode: str, known: Iterable[tuple[str, ...]] = ()) -> Series[Gauge]:
    return Series(Gauge(name, meaning, labels, multiprocess_mode=mode), labels, known)  # type: ignore[arg-type] # one of its modes


def _histogram(name: str, meaning: str, *labels: str, buckets: Iterable[float]) -> Series[Histogram]:
    return Series(Histogram(name, meaning, labels, buckets=tuple(buckets)), labels, ())


_ANSWER_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 80, 160)
_FIRST_TOKEN_S: Final = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20)
_SPEED: Final = (5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 400)
_RECALL_S: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1, 10)

REFUSALS: Final = (
    *("rate_limit_address", "rate_limit_session", "rate_limit_key", "rate_limit_agent", "rate_limit_api", "rate_limit_sign_in"),
    *("budget_spent", "budget_busy", "price_unknown", "overload"),
)
CACHES: Final = ("reply", "embedding", "semantic")
RECALLS: Final = ("hit", "empty", "slow", "failed")

http_responses: Final = _counter("chatbot_http_responses_total", "Requests that were answered.", "route", "method", "status")
messages: Final = _counter("chatbot_messages_total", "Messages whose turn has ended, and how.", "agent", "outcome")
tokens: Final = _counter("chatbot_tokens_total", "Tokens that models were paid for.", "agent", "model", "kind")
cost_usd: Final = _counter("chatbot_cost_usd_total", "US dollars that calls of models cost.", "agent", "model")
saved_usd: Final = _counter("chatbot_saved_usd_total", "US dollars that were not spent, and thanks to what.", "agent", "by")
request_duration: Final = _histogram(
    "chatbot_request_duration_seconds", "From a message until its answer is stored.", "agent", "mode", buckets=_ANSWER_S
)
time_to_first_token: Final = _histogram(
    "chatbot_time_to_first_token_seconds", "From a message until its model's first words.", "agent", buckets=_FIRST_TOKEN_S
)
tokens_per_second: Final = _histogram(
    "chatbot_tokens_per_second", "How fast streamed answers were written after their first words.", "agent", buckets=_SPEED
)
upstream_attempts: Final = _counter(
    "chatbot_upstream_attempts_total", "Calls of models, and how they ended.", "provider", "model", "outcome"
)
upstream_retries: Final = _counter("chatbot_upstream_retries_total", "Calls that were made again after a failure.", "provider")
fallbacks: Final = _counter("chatbot_fallbacks_total", "Turns that went on with the next model, by the provider that failed.", "provider")
breaker_state: Final = _gauge(
    "chatbot_breaker_state", "Whether a model is left alone: 0 no, 1 to be tried, 2 yes.", "provider", "model", mode="livemax"
)
cache_requests: Final = _counter(
    "chatbot_cache_requests_total",
    "Look-ups in caches.",
    *("cache", "result"),
    known=[(cache, result) for cache in CACHES for result in ("hit", "miss")],
)
recall_duration: Final = Histogram("chatbot_recall_duration_seconds", "How long recall took.", buckets=_RECALL_S)
recalls: Final = _counter(
    "chatbot_recalls_total", "Questions for which memories were looked for.", "result", known=[(result,) for result in RECALLS]
)
refusals: Final = _counter(
    "chatbot_refusals_total", "Requests that a limit or budget refused.", "reason", known=[(reason,) for reason in REFUSALS]
)
open_streams: Final = Gauge("chatbot_open_streams", "Answers that are being streamed.", multiprocess_mode="livesum")
job_failures: Final = _counter("chatbot_job_failures_total", "Rounds of work in the background that failed.", "queue")
pool_connections: Final = _gauge("chatbot_database_pool_connections", "Database connections in the pools.", "state", mode="livesum")
pool_limit: Final = Gauge("chatbot_database_pool_limit", "How many database connections the pools may open.", multiprocess_mode="livesum")
pool_waiting: Final = Gauge("chatbot_database_pool_waiting", "Visits that wait for a database connection.", multiprocess_mode="livesum")
alerts_sent: Final = _counter("chatbot_alerts_sent_total", "Notices of alerts, by what they were sent to.", "target_kind", "result")
