"""Gives the ONNX speech tokenizer an input that says where in its table of positions to begin.

The network counts positions from the start of what it is given. A window in the middle of a stream
is therefore told it lies at the start; with this input it can be told where it lies. Works on any
graph that holds the table under its published name, by its own consumers' slicing from 0; whoever
uses it compares the result at 0 with the graph as it was. Not for choosing the place.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT_NAME = "first_position"

_TABLE = "positional_embedding"
_SHIFTED = "parley_positions_from_first"
_FAR = np.iinfo(np.int64).max


def with_first_position(graph: Any) -> Any:
    """A copy of the model with the input `first_position`, int64 `[1]`.

    Raises:
        ValueError: the model holds no table of positions, or more than one.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    nodes = model.graph.node
    tables = [each.name for each in model.graph.initializer if _TABLE in each.name]
    if len(tables) != 1:
        raise ValueError(f"{len(tables)} tables of positions, one expected")
    table, place = tables[0], 0
    for index, node in enumerate(nodes):
        # Stored in half precision, the table is widened first.
        if node.op_type == "Cast" and list(node.input) == [table]:
            table, place = node.output[0], index + 1
    for node in nodes[place:]:
        node.input[:] = [_SHIFTED if name == table else name for name in node.input]
    bounds = {"far": _FAR, "axis": 0}
    names = [f"{_SHIFTED}_{name}" for name in bounds]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), name)
        for name, value in zip(names, bounds.values(), strict=True)
    )
    cut = helper.make_node("Slice", [table, INPUT_NAME, *names], [_SHIFTED])
    nodes.insert(place, cut)
    model.graph.input.append(helper.make_tensor_value_info(INPUT_NAME, TensorProto.INT64, [1]))
    return model
