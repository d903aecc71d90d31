"""The test settings of processes in which something breaks that carries what somebody wrote."""

from chatbot_site.settings.test import *  # noqa: F403 - Django settings are a flat module

INSTALLED_APPS = [*INSTALLED_APPS, "tests.observability.broken.Broken"]  # noqa: F405 - from the line above
