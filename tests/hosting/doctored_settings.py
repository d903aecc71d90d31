"""Production's settings of a server in a test: its static files are elsewhere, and it can be told to be in debug mode."""

import os

from chatbot_site.settings.prod import *  # noqa: F403 - Django settings are a flat module

STATIC_ROOT = os.environ["STATIC_ROOT"]
DEBUG = os.environ.get("IN_DEBUG_MODE") == "true"
