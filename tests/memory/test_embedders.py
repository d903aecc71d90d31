"""The built-in embedder, as a process, and the client that asks it and any other server of the OpenAI wire."""

import asyncio
import base64
import json
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from memory.embedders import builtin
from memory.embedders.client import EmbeddingFailed, EmbeddingModel, embed, embedding_model
from observability.outbound import close_transports


def run(coroutine):
    async def run():
        try:
            return await coroutine
        finally:
            await close_transports()

    return asyncio.run(run())


def cosine(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def post(port, **body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/embeddings", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - an address of ours
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_vectors_have_length_one_and_tell_meaning(embedder):
    texts = ["I adopted a little kitten.", "We took in a young cat.", "The tax office closes at noon."]
    kitten, cat, taxes = run(embed(texts, model=embedder))
    assert {len(kitten), len(cat), len(taxes)} == {builtin.DIMENSIONS}
    assert cosine(kitten, kitten) == pytest.approx(1, abs=1e-6)
    assert cosine(kitten, cat) > 0.5 > cosine(kitten, taxes) + 0.2


def test_a_text_has_the_same_vector_alone_and_among_others(embedder):
    texts = [f"Number {number}: {'and so on ' * (number % 7)}" for number in range(300)]
    together = run(embed(texts, model=embedder))
    for position in (0, 3, 150, 299):
        [alone] = run(embed([texts[position]], model=embedder))
        assert cosine(alone, together[position]) == pytest.approx(1, abs=1e-3)


def test_a_long_text_is_cut_not_refused(embedder):
    [vector] = run(embed(["word " * 5000], model=embedder))
    assert len(vector) == builtin.DIMENSIONS


def test_a_question_does_not_wait_for_a_long_list(embedder):
    async def ask():
        await embed(["Warm up."], model=embedder)
        many = asyncio.create_task(embed([f"{number} {'long ' * 60}" for number in range(256)], model=embedder))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await embed(["What did I say about cats?"], model=embedder)
        waited_s = time.monotonic() - started
        assert not many.done(), "the list was too short to tell"
        await many
        return waited_s, time.monotonic() - started

    runs = (run(ask()) for _ in range(3))  # a busy machine is late now and then
    assert any(waited_s < list_s / 3 for waited_s, list_s in runs)


def test_it_speaks_the_wire_of_openai(embedder_port):
    status, answer = post(embedder_port, input="One text", model=builtin.MODEL)
    assert (status, answer["object"], answer["model"], len(answer["data"])) == (200, "list", builtin.MODEL, 1)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 4
    _, packed = post(embedder_port, input=["One text", "Two"], model=builtin.MODEL, encoding_format="base64")
    assert [item["index"] for item in packed["data"]] == [0, 1]
    assert len(base64.b64decode(packed["data"][0]["embedding"])) == 4 * builtin.DIMENSIONS


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": ""},
        {"input": []},
        {"input": [1]},
        {"input": "a", "model": "other"},
        {"input": "a", "dimensions": 7},
        {"input": ["a"] * 3000},
    ],
)
def test_what_it_cannot_do_is_refused_in_words(embedder_port, body):
    status, answer = post(embedder_port, **body)
    assert status == 400
    assert answer["error"]["message"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_it_stays_below_300_mb(free_port, wait_for_embedder):
    process = subprocess.Popen([sys.executable, "-m", "memory.embedders.builtin", str(free_port)])
    try:
        wait_for_embedder(process, free_port)
        for length in (1, 20, 400):
            assert post(free_port, input=["word " * length] * 64)[0] == 200
        [peak] = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    finally:
        process.terminate()
        process.wait(10)
    assert int(peak.split()[1]) < 300 * 1024


def test_it_runs_as_a_command_and_stops_when_asked(free_port, wait_for_embedder):
    process = subprocess.Popen([sys.executable, "manage.py", "embedder", "--port", str(free_port)])
    try:
        wait_for_embedder(process, free_port)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_the_port_is_taken(embedder_port):
    done = subprocess.run(
        [sys.executable, "-m", "memory.embedders.builtin", str(embedder_port)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the built-in embedder cannot listen")


def choose(settings, **values):
    names = ("EMBEDDING_BASE_URL", "EMBEDDING_API_KEY", "EMBEDDING_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "EMBEDDER_URL")
    for name in names:
        setattr(settings, name, values.get(name, ""))
    settings.EMBEDDING_DIMENSIONS = values.get("EMBEDDING_DIMENSIONS", 0)
    return embedding_model()


BUILTIN = "http://127.0.0.1:8100/v1"
OWN = "https://embed.example.com/v1"


def test_which_model_is_used(settings):
    assert choose(settings) is None
    own = choose(settings, EMBEDDING_BASE_URL=OWN, EMBEDDING_MODEL="bge-m3", OPENAI_API_KEY="secret", EMBEDDER_URL=BUILTIN)
    assert own == EmbeddingModel(OWN, "", "bge-m3", None)  # OpenAI's key goes to OpenAI only
    assert choose(settings, EMBEDDING_BASE_URL=OWN, EMBEDDING_DIMENSIONS=256).dimensions == 256
    openai = choose(settings, OPENAI_API_KEY="key", EMBEDDER_URL=BUILTIN)
    assert openai == EmbeddingModel("https://api.openai.com/v1", "key", "text-embedding-3-small", 512)
    other = choose(settings, OPENAI_API_KEY="key", OPENAI_BASE_URL="http://localhost:11434/v1", EMBEDDER_URL=BUILTIN)
    assert other == EmbeddingModel(BUILTIN, "", builtin.MODEL, 384, is_builtin=True)


@pytest.fixture
def scripted(live_db, settings):
    """A server that answers what the test says, and keeps what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            status, answer = server.answers.pop(0) if server.answers else (200, None)
            if answer is None:
                vector = [3.0, 4.0]
                answer = {"object": "list", "data": [{"index": at, "embedding": vector} for at in range(len(body["input"]))]}
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.answers = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    settings.OUTBOUND_ALLOWED_HOSTS = [address]
    server.model = EmbeddingModel(f"http://{address}/v1", "", "some-model", None)
    yield server
    server.shutdown()
    server.server_close()


def test_vectors_of_any_length_are_made_one_long(scripted):
    assert run(embed(["a"], model=scripted.model)) == [[0.6, 0.8]]
    assert "dimensions" not in scripted.asked[0]


def test_vectors_come_as_floats_in_base64_or_as_lists(scripted):
    packed = base64.b64encode(struct.pack("<4f", 1, 1, 1, 1)).decode()
    scripted.answers.append((200, {"object": "list", "data": [{"index": 1, "embedding": packed}, {"index": 0, "embedding": [2, 0, 0, 0]}]}))
    assert run(embed(["a", "b"], model=scripted.model)) == [[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]
    assert scripted.asked[0]["encoding_format"] == "base64"


def test_a_server_that_knows_lists_only_is_asked_for_lists(scripted):
    scripted.answers.append((422, {"error": {"message": "encoding_format: not supported"}}))
    assert run(embed(["a"], model=scripted.model)) == [[0.6, 0.8]]
    assert ["encoding_format" in body for body in scripted.asked] == [True, False]


def test_a_key_that_the_server_repeats_is_in_no_reason(scripted):
    scripted.answers.append((401, {"error": {"message": "wrong key: sk-secret-one"}}))
    with pytest.raises(EmbeddingFailed, match=r"HTTP 401: .*wrong key: \(the key\)"):
        run(embed(["a"], model=replace(scripted.model, api_key="sk-secret-one")))


def test_dimensions_are_asked_for_where_they_are_set(scripted):
    model = EmbeddingModel(scripted.model.base_url, "", "some-model", 2)
    run(embed(["a"], model=model))
    assert scripted.asked[0]["dimensions"] == 2


def test_many_texts_go_in_several_requests(scripted):
    assert len(run(embed([f"text {number}" for number in range(600)], model=scripted.model))) == 600
    assert [len(body["input"]) for body in scripted.asked] == [256, 256, 88]


@pytest.mark.parametrize(
    ("status", "answer", "is_final"),
    [
        (400, {"error": {"message": "too long"}}, True),
        (401, {"error": {"message": "bad key"}}, False),
        (429, {"error": {"message": "slow down"}}, False),
        (500, {}, False),
        (200, {"object": "list", "data": []}, False),
        (200, {"object": "list", "data": [{"index": 1, "embedding": [1.0]}]}, False),
        (200, {"object": "list", "data": [{"index": 0, "embedding": [0.0, 0.0]}]}, False),
        (200, {"object": "list", "data": [{"index": 0, "embedding": [1.0] * 4001}]}, False),
        (200, {"object": "list"}, False),
        (200, [], False),
        (200, {"object": "list", "data": [{"index": 0, "embedding": "nonsense"}]}, False),
        (200, {"object": "list", "data": [{"index": 0, "embedding": "AAAA"}]}, False),
        (200, {"object": "list", "data": [{"index": 0, "embedding": None}]}, False),
    ],
)
def test_what_goes_wrong_is_one_error(scripted, status, answer, is_final):
    scripted.answers.append((status, answer))
    with pytest.raises(EmbeddingFailed) as failure:
        run(embed(["a"], model=scripted.model))
    assert failure.value.is_final is is_final


def test_nobody_there(live_db, settings):
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with pytest.raises(EmbeddingFailed, match="no connection"):
        run(embed(["a"], model=EmbeddingModel("http://127.0.0.1:9/v1", "", "some-model", None)))
