"""Numbers that are not finite: in a network's weights, in the tensors of an ONNX file, and in outputs.

NaN is never meant. Infinity is meant in a mask, such as the triangle of minus infinity that hides later tokens; a
weight that holds it among other numbers is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espalier.export.errors import ExportError


def check_weights(network: nn.Module, path: str) -> None:
    """Check the parameters and buffers of a network.

    Args:
        network: the network.
        path: the file to be written, for the error.

    Raises:
        ExportError: one holds NaN or infinity; it is named.
    """
    for name, weight in network.named_parameters():
        _check(path, f"the weight {name!r}", weight, mask=False)
    for name, buffer in network.named_buffers():
        _check(path, f"the buffer {name!r}", buffer, mask=True)


def _check(path: str, what: str, tensor: Tensor, *, mask: bool) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        problem = not_finite(tensor.detach().float().cpu().numpy(), mask=mask)
        if problem is not None:
            raise ExportError(path, f"{what} {problem}", code="invalid")


def not_finite(numbers: np.ndarray, *, mask: bool) -> str | None:
    """What is wrong with some numbers, in words; None if nothing is.

    Args:
        numbers: of any shape.
        mask: infinity is allowed if all other numbers are equal.
    """
    nan, infinite = int(np.isnan(numbers).sum()), np.isinf(numbers)
    if nan:
        return f"contains NaN ({nan:,} of {numbers.size:,} numbers)"
    if not infinite.any() or (mask and len(np.unique(numbers[~infinite])) <= 1):
        return None
    return f"contains infinity ({int(infinite.sum()):,} of {numbers.size:,} numbers)"


def check_tensors(path: Path, model: Any) -> None:
    """Check the weights and constants of an ONNX model, also those of inner graphs and functions.

    Args:
        path: its file, for the error; weights beside it are read.
        model: loaded with or without its external data.

    Raises:
        ExportError: one holds NaN or infinity, or its data cannot be read; it is named.
    """
    from onnx import numpy_helper

    for name, tensor in tensors_of(model):
        try:
            numbers = np.asarray(numpy_helper.to_array(tensor, base_dir=str(path.parent)))
        except Exception as error:  # from NumPy, the system, or onnx
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise ExportError(str(path), f"its tensor {name!r} cannot be read ({first})", code="unreadable") from error
        if numbers.dtype.kind not in "fV":
            continue
        problem = not_finite(numbers.astype(np.float32), mask=True)
        if problem is not None:
            raise ExportError(str(path), f"its tensor {name!r} {problem}", code="invalid")


def tensors_of(model: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of floating-point numbers in an ONNX model, with their names; a constant has that of its node."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)

    def walk(nodes: Any, initializers: Any) -> Iterator[tuple[str, Any]]:
        yield from ((tensor.name, tensor) for tensor in initializers)
        for node in nodes:
            label = node.name or next(iter(node.output), node.op_type)
            for attribute in node.attribute:
                held = [attribute.t] if attribute.HasField("t") else []
                yield from ((tensor.name or label, tensor) for tensor in [*held, *attribute.tensors])
                for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                    yield from walk(inner.node, inner.initializer)

    sparse = [tensor.values for tensor in model.graph.sparse_initializer]
    found = [*walk(model.graph.node, [*model.graph.initializer, *sparse])]
    for function in model.functions:
        found += walk(function.node, [])
    yield from ((name, tensor) for name, tensor in found if tensor.data_type in floats)


def first_not_finite(network: nn.Module, run: Any) -> str | None:
    """The first module whose output is not finite although its inputs are; None if there is none.

    Args:
        network: in evaluation mode.
        run: runs the network once.
    """
    found: list[str] = []

    def hook(name: str) -> Any:
        def check(module: nn.Module, given: Any, returned: Any) -> None:
            if not found and _finite(given) and not _finite(returned):
                found.append(f"{name or 'the network'} ({type(module).__name__})")

        return check

    handles = [module.register_forward_hook(hook(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _finite(values: Any) -> bool:
    from torch.utils._pytree import tree_leaves

    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def first_node_not_finite(path: Path, feed: Mapping[str, np.ndarray]) -> str | None:
    """The first tensor of an ONNX file that is not finite when it runs; None if all are, or none can be looked at.

    Args:
        path: a self-contained file.
        feed: its inputs.
    """
    import onnx
    import onnxruntime

    model = onnx.load(path)
    known = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = dict(zip(names, session.run(names, dict(feed)), strict=True))
    except Exception:  # noqa: BLE001 - the cause is a hint: a file whose inner tensors cannot be returned has none
        return None
    operators = {name: node.op_type for node in model.graph.node for name in node.output}
    for name, value in values.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
            return f"{name} ({operators[name]})"
    return None
