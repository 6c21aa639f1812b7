"""A small fixed network, whose time shows the current speed of the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CHANNELS = 32
SIDE = 48
LAYERS = 4
"""Four convolutions of 32 channels at 48x48: 85 million multiply-accumulates, 1 to 5 ms on one core."""


def write_reference(path: Path) -> Path:
    """Write the reference network to `path`: float32 `(batch, 32, 48, 48)` -> `(batch, 32)`, `batch` symbolic.

    The bytes are the same each time for the same version of the package onnx.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    # The random numbers of RandomState never change between versions of NumPy, those of newer generators may.
    random = np.random.RandomState(0)
    nodes, weights, last = [], [], "input"
    for layer in range(LAYERS):
        scale = (2 / (9 * CHANNELS)) ** 0.5  # keeps the variance of the activations
        weight = scale * random.standard_normal((CHANNELS, CHANNELS, 3, 3))
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"weight_{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"weight_{layer}"], [f"conv_{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv_{layer}"], [f"relu_{layer}"]))
        last = f"relu_{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["output"]))
    images = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", CHANNELS, SIDE, SIDE])
    means = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CHANNELS])
    graph = helper.make_graph(nodes, "reference", [images], [means], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
