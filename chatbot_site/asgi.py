"""The ASGI entry that gunicorn loads."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatbot_site.settings.prod")
django.setup(set_prefix=False)

from chatbot_site.server import serve as application  # noqa: E402 - Django must be set up before its models are imported

__all__ = ["application"]
