"""The test settings with routes that break: for a server that shows what callers are told of our own faults."""

from chatbot_site.settings.test import *  # noqa: F403 - Django settings are a flat module

ROOT_URLCONF = "tests.agents.rest.faulty_urls"
