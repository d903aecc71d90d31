"""The built-in embedder is started exactly where memory would have nothing else to embed with."""

import itertools

import pytest

from chatbot_site.local.background import BUILTIN_MODEL, needs_embedder
from chatbot_site.settings.base import settings_from
from chatbot_site.settings.environment import Environment
from memory.embedders import builtin
from memory.embedders.configured import embedding_model, next_embedding_model

VALUES = {
    "openai_api_key": "key",
    "openai_base_url": "http://localhost:11434/v1",
    "embedding_base_url": "https://embed.example.com/v1",
    "embedder_url": "http://127.0.0.1:8100/v1",
    "embedding_model": BUILTIN_MODEL,
    "embedding_next_model": BUILTIN_MODEL,
}
COMBINATIONS = [dict(chosen) for size in range(len(VALUES) + 1) for chosen in itertools.combinations(VALUES.items(), size)]


@pytest.mark.parametrize("values", COMBINATIONS, ids=lambda values: "+".join(values) or "nothing")
def test_it_is_started_where_nothing_else_embeds(values, settings):
    environment = Environment.model_construct(**values)
    for name, value in settings_from(environment).items():
        if name.startswith(("OPENAI_", "EMBED")):
            setattr(settings, name, value)
    is_missing = embedding_model() is None or (environment.embedding_next_model and next_embedding_model() is None)
    assert needs_embedder(environment) is bool(is_missing)
    assert BUILTIN_MODEL == builtin.MODEL
