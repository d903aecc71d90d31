"""A scripted OpenAI-compatible upstream: a real HTTP server that a test commands.

    def test_something(upstream):
        upstream.script(Refusal(429, retry_after_s=1), Reply("Hello there"))   # in turn; the last one repeats
        upstream.script(Silence(), model="slow-model")                         # a model of its own
        ... point a provider at upstream.base_url, ask ...
        call = upstream.wait_for_calls(2)[-1]
        assert call.body["messages"][0]["role"] == "system"
        assert upstream.wait_for_disconnect()

Every `upstream` fixture has a base URL, a script and a log of its own on one shared server, so that tests which run at
once never meet. It speaks `POST {base_url}/chat/completions` (JSON, and SSE with `stream_options.include_usage`) and
`GET {base_url}/models`. What it can be told to do stands in `behaviours.py`; what it remembers of a call, in `log.py`.
"""

from .behaviours import Gate, RawBytes, Redirect, Refusal, Reply, Silence
from .log import Call, Upstream
from .server import UpstreamServer

__all__ = ["Call", "Gate", "RawBytes", "Redirect", "Refusal", "Reply", "Silence", "Upstream", "UpstreamServer"]
