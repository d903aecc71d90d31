"""What the API's description says of errors and of who may call."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiResponse

from agents.rest.shapes import Problem

_PROBLEMS: Final = {
    400: "The request is unusable; `errors` names the fields.",
    401: "An API key or token is needed, or the one given is not valid.",
    402: "A budget is spent, or the model's price is unknown.",
    403: "The key lacks a scope, or the token is another user's.",
    404: "No such thing, or not one you may use.",
    406: "Accept `application/json` or `text/event-stream`.",
    409: "It does not fit the state that things are in now.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    429: "Too many requests, or a budget is in use; try again after `Retry-After` seconds.",
    502: "No model could answer.",
    503: "Overload, or the database is away; try again after `Retry-After` seconds.",
    504: "The model took too long.",
}
# What `extend_schema(auth=…)` takes; the schemes themselves are in SPECTACULAR_SETTINGS.
KEY_NEEDED: Final[Any] = [{"bearer": []}]
KEY_OPTIONAL: Final[Any] = [{"bearer": []}, {}]


def problems(*statuses: int) -> dict[tuple[int, str], OpenApiResponse]:
    """Return the responses of a route that may answer with these errors."""
    return {(status, "application/problem+json"): OpenApiResponse(Problem, description=_PROBLEMS[status]) for status in statuses}
