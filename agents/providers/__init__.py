"""Calling models: keys, the OpenAI wire, retries and fallbacks."""
