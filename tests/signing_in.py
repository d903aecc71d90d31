"""A browser whose user is signed in to the admin, without the form."""

from __future__ import annotations

from django.contrib.sessions.backends.db import SessionStore
from playwright.sync_api import Page

from tests.factories import make_user
from tests.live_server import LiveServer


def sign_in_as(role: str, page: Page, server: LiveServer) -> None:
    """Sign a new user with `role` in, for all pages of the browser's context."""
    user = make_user(role=role)
    session = SessionStore()
    session["_auth_user_id"] = str(user.pk)
    session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
    session["_auth_user_hash"] = user.get_session_auth_hash()
    session.create()
    page.context.add_cookies([{"name": "sessionid", "value": str(session.session_key), "url": server.url}])
