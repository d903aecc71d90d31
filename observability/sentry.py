"""Errors, reported to Sentry: each exception that a line of the log tells of, and what ends a command.

With it go the request's id, the agent and its version; nothing that people wrote, no key and no local variable. What is sent is
made of a list of what may be, not by taking away what may not. Without SENTRY_DSN the SDK is not even imported: it is as large
as Django itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings

from observability.logs import report_exceptions_to
from observability.tracebacks import message_of

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

TAGS: Final = ("request_id", "message_id", "agent", "version", "session", "key", "error_code", "logger")
"""The fields of a line in the log that go with its exception."""
_SENT: Final = (
    *("event_id", "timestamp", "platform", "level", "release", "environment", "server_name", "sdk", "tags", "message", "exception"),
)
_SENT_OF_FRAMES: Final = (
    *("filename", "abs_path", "function", "module", "lineno", "pre_context", "context_line", "post_context", "in_app"),
)


def start_reporting() -> None:
    """Report this process's errors from now on, where SENTRY_DSN says where to."""
    if not settings.SENTRY_DSN:
        return
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.dedupe import DedupeIntegration
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration

    sentry_sdk.init(
        dsn=settings.SENTRY_DSN,
        environment=settings.ENVIRONMENT_NAME or None,
        release=settings.RELEASE or None,
        # What the SDK would find by itself is found by the log already, and with less about people.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[ExcepthookIntegration(), DedupeIntegration(), AtexitIntegration(callback=lambda pending, timeout: None)],
        before_send=only_what_may_be_sent,
        before_breadcrumb=lambda crumb, hint: None,
        max_breadcrumbs=0,
        include_local_variables=False,
        max_request_body_size="never",
        send_default_pii=False,
        auto_session_tracking=False,
        propagate_traces=False,
    )
    sentry_sdk.set_tag("process", _process())
    report_exceptions_to(_report)


def _report(error: BaseException, line: Mapping[str, Any]) -> None:
    import sentry_sdk

    with sentry_sdk.new_scope() as scope:
        scope.set_tags({name: str(line[name]) for name in TAGS if line.get(name)})
        if "logger" not in line:  # our own words, never a library's
            scope.set_tag("line", str(line.get("event", "")))
        scope.set_level("error" if line.get("level") in ("error", "critical") else "warning")
        sentry_sdk.capture_exception(error)


def only_what_may_be_sent(event: Event, hint: Hint) -> Event | None:
    """Return the parts of `event` that may leave this server; exceptions without messages that may repeat what people wrote."""
    sent: dict[str, Any] = {name: value for name, value in event.items() if name in _SENT}
    error = hint.get("exc_info", (None, None, None))[1]
    tellable = {message for each in _related(error) if (message := message_of(each))} if error is not None else set()
    for told in sent.get("exception", {}).get("values", []):
        lines = str(told.get("value") or "").splitlines()
        told["value"] = next((message for message in tellable if lines and lines[0].startswith(message)), "")
        for frame in (told.get("stacktrace") or {}).get("frames", []):
            for name in [name for name in frame if name not in _SENT_OF_FRAMES]:
                del frame[name]
    return sent  # type: ignore[return-value] # an Event with fewer keys


def _related(error: BaseException) -> list[BaseException]:
    """Return `error`, what led to it, and what it groups."""
    found = [error]
    for each in found:
        parts = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        found += [other for other in (each.__cause__, each.__context__, *parts) if other is not None and other not in found]
    return found


def _process() -> str:
    """Return what this process is: a command of manage.py, or the web."""
    return sys.argv[1] if sys.argv[0].endswith("manage.py") and len(sys.argv) > 1 else "web"
