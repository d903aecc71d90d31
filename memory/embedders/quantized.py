"""The built-in embedder's weights, multiplied as the 8-bit numbers that they are stored as.

The model's file keeps each matrix as 8-bit integers with a scale for each column, and turns them back into floats before it multiplies:
42 MB that no processor's cache holds, read from memory for every question. Multiplied as integers (`MatMulNBits`, which rounds what they
are multiplied with in blocks of 32), the same weights take a quarter of that and half the time; a vector's cosine with what it was is
above 0.999, and nothing measurable is recalled better or worse.

A file of ONNX is a protobuf message: numbered fields in any order. The few that matter here are read and written by hand, because the
package `onnx` would be as large as the model, and need as much memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK: Final = 32
# Numbers of fields, from onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_OUTPUT = 1, 5, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TYPE = 1, 3, 20
_TENSOR_SIZES, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_DATA = 1, 2, 8, 9
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_VALUE_NAME: Final = 1
_AN_INT, _FLOAT32, _UINT8 = 2, 1, 2
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_DOMAIN: Final = b"com.microsoft"

_Bytes = bytes | memoryview
_Field = tuple[int, int | _Bytes]


@dataclass(frozen=True, slots=True)
class _Node:
    message: _Bytes
    type: bytes
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]


def multiply_integers(model: bytes) -> bytes:
    """Return `model`, a file of ONNX, with each product of a matrix that is kept as scaled 8-bit integers made from those."""
    fields = list(_fields(memoryview(model)))
    [graph_message] = _all(fields, _MODEL_GRAPH)
    graph = list(_fields(graph_message))
    tensors = {_name(tensor): tensor for tensor in _all(graph, _GRAPH_TENSOR)}
    nodes = [_node(message) for message in _all(graph, _GRAPH_NODE)]
    made_by = {output: node for node in nodes for output in node.outputs}
    kept: list[_Node] = []
    used = {_name(output, _VALUE_NAME) for output in _all(graph, _GRAPH_OUTPUT)}
    for node in reversed(nodes):  # they are in the order in which they are computed
        if used.isdisjoint(node.outputs):
            continue
        if node.type == b"MatMul" and (product := _product(node, made_by, tensors)):
            node, added = product
            tensors |= added
        kept.append(node)
        used.update(node.inputs)
    new_graph = _message(
        [
            *((_GRAPH_NODE, node.message) for node in reversed(kept)),
            *((_GRAPH_TENSOR, tensor) for name, tensor in tensors.items() if name in used),
            *(field for field in graph if field[0] not in (_GRAPH_NODE, _GRAPH_TENSOR)),
        ]
    )
    opset = _message([(_OPSET_DOMAIN, _DOMAIN), (_OPSET_VERSION, 1)])
    rest = [field for field in fields if field[0] != _MODEL_GRAPH]
    return _message([*rest, (_MODEL_OPSET, opset), (_MODEL_GRAPH, new_graph)])


def _product(node: _Node, made_by: Mapping[bytes, _Node], tensors: Mapping[bytes, _Bytes]) -> tuple[_Node, dict[bytes, _Bytes]] | None:
    """Return what takes the place of a product with Cast(integers) * scales, and its tensors; None where it is of something else."""
    import numpy as np

    scaled = made_by.get(node.inputs[1])
    cast = made_by.get(scaled.inputs[0]) if scaled and scaled.type == b"Mul" else None
    if scaled is None or cast is None or cast.type != b"Cast" or not {cast.inputs[0], scaled.inputs[1]} <= tensors.keys():
        return None
    scales = np.frombuffer(_data(tensors[scaled.inputs[1]]), "<f4")
    integers = np.frombuffer(_data(tensors[cast.inputs[0]]), np.int8).reshape(-1, len(scales))
    rows, columns = integers.shape
    blocks = rows // _BLOCK
    # From -128 to 127, and kept as 0 to 255.
    weights = (np.ascontiguousarray(integers.T).view(np.uint8) ^ 128).reshape(columns, blocks, _BLOCK)
    added: dict[bytes, _Bytes] = {}
    for name, values, type in ((b"_integers", weights, _UINT8), (b"_scales", np.repeat(scales, blocks), _FLOAT32)):
        added[node.outputs[0] + name] = _tensor(node.outputs[0] + name, values, type)
    inputs = (node.inputs[0], *added)
    # Accuracy level 4 are 8-bit integers on both sides.
    numbers = {b"K": rows, b"N": columns, b"bits": 8, b"block_size": _BLOCK, b"accuracy_level": 4}
    message = _message(
        [
            *((_NODE_INPUT, name) for name in inputs),
            (_NODE_OUTPUT, node.outputs[0]),
            (_NODE_TYPE, b"MatMulNBits"),
            (_NODE_DOMAIN, _DOMAIN),
            *((_NODE_ATTRIBUTE, _attribute(name, value)) for name, value in numbers.items()),
        ]
    )
    return _Node(message, b"MatMulNBits", inputs, node.outputs), added


def _node(message: _Bytes) -> _Node:
    fields = list(_fields(message))
    inputs, outputs, types = ([bytes(value) for value in _all(fields, wanted)] for wanted in (_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE))
    return _Node(message, types[0], tuple(inputs), tuple(outputs))


def _name(message: _Bytes, field: int = _TENSOR_NAME) -> bytes:
    return bytes(next(_all(_fields(message), field)))


def _data(tensor: _Bytes) -> _Bytes:
    return next(_all(_fields(tensor), _TENSOR_DATA))


def _all(fields: Iterable[_Field], wanted: int) -> Iterator[_Bytes]:
    return (value for number, value in fields if number == wanted and not isinstance(value, int))


def _tensor(name: bytes, values: NDArray[np.generic], type: int) -> bytes:
    sizes = [(_TENSOR_SIZES, size) for size in values.shape]
    return _message([*sizes, (_TENSOR_TYPE, type), (_TENSOR_NAME, name), (_TENSOR_DATA, values.tobytes())])


def _attribute(name: bytes, value: int) -> bytes:
    return _message([(_ATTRIBUTE_NAME, name), (_ATTRIBUTE_INT, value), (_ATTRIBUTE_TYPE, _AN_INT)])


# --- protobuf -------------------------------------------------------------------------------------------------------------


def _fields(message: _Bytes) -> Iterator[_Field]:
    """Return the fields of a message: their numbers, and what they hold as an integer or as bytes."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        length = {_FIXED_64: 8, _FIXED_32: 4}.get(kind)
        if length is None:
            length, at = _read_varint(message, at)
        yield number, message[at : at + length]
        at += length


def _read_varint(message: _Bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while message[at] & 0x80:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1


def _message(fields: Iterable[_Field]) -> bytes:
    """Return a message of integers and bytes. (Fields of a fixed size are in none that is written here.)"""
    parts: list[_Bytes] = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(_varint(number << 3 | _VARINT) + _varint(value))
        else:
            parts += (_varint(number << 3 | _BYTES) + _varint(len(value)), value)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
