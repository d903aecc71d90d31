"""What the pages about people and their memories share: who may open them, and how they are rendered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeVar

from asgiref.sync import async_to_sync
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse

from memory.models import MemoryOwner, OwnerKind, Subject

P = ParamSpec("P")
T = TypeVar("T")
Act = Literal["view", "change", "delete"]

PEOPLE: Final = "subject"
KNOWLEDGE: Final = "memoryowner"
_ABOUT: Final = "memories_of"


def may(request: HttpRequest, act: Act, model: str) -> bool:
    """Whether the person who asks has Django's permission for `act` on `model`.

    Rights on `subject` are those on people and what is remembered of them: to see it; to change it, which is to add, correct, pin and
    forget; to delete it, which is to erase the person. Rights on `memoryowner` are those on shared knowledge and on agents' own.
    """
    user = request.user
    return user.is_active and user.is_staff and user.has_perm(f"memory.{act}_{model}")


def rights_on(owner: MemoryOwner) -> str:
    """Return the model whose permissions decide about `owner`'s memories."""
    return PEOPLE if owner.kind == OwnerKind.PERSON else KNOWLEDGE


def for_owner(
    act: Act,
) -> Callable[[Callable[Concatenate[HttpRequest, MemoryOwner, P], HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """Open a view to those who may do `act` with the memories of the owner in its address."""

    def decorate(view: Callable[Concatenate[HttpRequest, MemoryOwner, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def guarded(request: HttpRequest, owner_id: int, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            # Whoever may see neither is not told which owners there are.
            if not any(may(request, act, model) for model in (PEOPLE, KNOWLEDGE)):
                raise PermissionDenied
            owner = MemoryOwner.objects.select_related("subject").filter(pk=owner_id).first()
            if owner is None:
                raise Http404
            if not may(request, act, rights_on(owner)):
                raise PermissionDenied
            setattr(request, _ABOUT, rights_on(owner))
            return view(request, owner, *args, **kwargs)

        return guarded

    return decorate


def for_person(act: Act) -> Callable[[Callable[Concatenate[HttpRequest, Subject, P], HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """Open a view to those who may do `act` with the person in its address."""

    def decorate(view: Callable[Concatenate[HttpRequest, Subject, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def guarded(request: HttpRequest, subject_id: int, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not may(request, act, PEOPLE):
                raise PermissionDenied
            subject = Subject.objects.filter(pk=subject_id).first()
            if subject is None:
                raise Http404
            return view(request, subject, *args, **kwargs)

        return guarded

    return decorate


def is_about_people(request: HttpRequest) -> bool:
    """Whether the sidebar marks *People*: also on the pages of a person's memories, which stand elsewhere."""
    return f"/memory/{PEOPLE}/" in request.path or getattr(request, _ABOUT, "") == PEOPLE


def is_about_knowledge(request: HttpRequest) -> bool:
    """Whether the sidebar marks *Shared knowledge*."""
    return f"/memory/{KNOWLEDGE}/" in request.path and not is_about_people(request)


def render_page(request: HttpRequest, template: str, *, title: str, status: int = 200, **context: Any) -> HttpResponse:
    """Render `template` inside the admin's frame."""
    context = {**admin.site.each_context(request), "title": title, **context}
    return TemplateResponse(request, template, context, status=status)


def wait_for(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run an async function for a synchronous view, which holds no database connection meanwhile.

    Under ASGI it runs in the server's own event loop, as it would for a chat.
    """
    if not connection.in_atomic_block:
        connection.close()
    return async_to_sync(function)(*args, **kwargs)


def author_of(request: HttpRequest) -> str:
    """Return who does something here, as it is stored with what they did."""
    return request.user.get_username()
