"""What can go wrong, in words that people and programs read.

    ChatbotError                 any error that a caller is told about
    ├── BadRequest         400   the caller sent something unusable
    ├── Unauthorized       401   a key or token is needed
    ├── NotFound           404   no such thing, or not the caller's
    ├── Unavailable        503   a store is down or the server sheds load; comes with Retry-After
    └── … the domain errors of `agents` and `memory`, beside the code that raises them

`chatbot_site.problems` renders them as problem documents (RFC 9457); `docs/errors.md` lists every code.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ChatbotError(Exception):
    """An error with a stable code, an HTTP status, a short title, and a remedy for whoever meets it."""

    code: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal server error"
    remedy: ClassVar[str] = "Try again; if it goes on, tell the operator the request id."

    def __init__(self, detail: str = "", *, fields: dict[str, list[str]] | None = None, retry_after_s: int | None = None) -> None:
        self.detail = detail or self.remedy
        self.short = self.title if not fields else f"Invalid {', '.join(fields)}"
        self.fields = fields or {}
        self.retry_after_s = retry_after_s
        self.headers: dict[str, str] = {}
        """Of the response, beside Retry-After."""
        super().__init__(self.detail)

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the problem document: RFC 9457's members plus `request_id`, `error` (the title again) and field `errors`."""
        document: dict[str, Any] = {
            "type": f"/errors/{self.code}",
            "title": self.short,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            "error": self.short,
        }
        if self.fields:
            document["errors"] = self.fields
        return document


class BadRequest(ChatbotError):
    code = "bad-request"
    status = 400
    title = "Bad request"
    remedy = "Correct the request and send it again."


class Unauthorized(ChatbotError):
    code = "unauthorized"
    status = 401
    title = "Authentication needed"
    remedy = "Send a valid API key as 'Authorization: Bearer …', or leave the header out to chat anonymously."


class NotFound(ChatbotError):
    code = "not-found"
    status = 404
    title = "Not found"
    remedy = "Check the address; GET /api/schema lists every route."


class Unavailable(ChatbotError):
    code = "unavailable"
    status = 503
    title = "Temporarily unavailable"
    remedy = "Wait for the seconds that Retry-After names, then send the request again."

    def __init__(self, detail: str = "", *, retry_after_s: int = 2) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
