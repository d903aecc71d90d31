"""The models behind the agents: one OpenAI-compatible wire, and wrappers that are themselves models.

`Fallback(Retrying(Guarded(Metered(OpenAIWire))))`: each has `start()`, which returns once the first words are there. Retries and fallbacks
can only happen before that moment, so nothing wraps the stream afterwards.
"""
