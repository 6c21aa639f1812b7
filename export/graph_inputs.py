"""The inputs of an ONNX file, and the sizes of its open dimensions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.export.devices.agent.inputs import open_dimensions
from espalier.nas.errors import UserError


@dataclass(frozen=True)
class GraphInput:
    """An input of an ONNX file, as ONNX Runtime describes it.

    Attributes:
        name: of the input.
        type: `tensor(float)`, `seq(tensor(float))` and the like.
        shape: sizes, names of open dimensions, or None where they have no name.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]


def graph_inputs(model: Any) -> list[GraphInput]:
    """The inputs of an ONNX model, without those that have a value of their own."""
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name in weights:
            continue
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            found.append(GraphInput(value.name, str(kind or "unknown").removesuffix("_type"), ()))
            continue
        tensor = value.type.tensor_type
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim)
        name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        found.append(GraphInput(value.name, f"tensor({name})", shape))
    return found


def parse_dims(pairs: Sequence[str], *, where: str = "dim") -> dict[str, int]:
    """Sizes of open dimensions, from `name=size` each.

    Args:
        pairs: such as `sequence=128`.
        where: the parameter that holds them.

    Raises:
        UserError: another form, a name given twice, or a size that is not a whole number of at least 1.
    """
    dims: dict[str, int] = {}
    for pair in pairs:
        name, equals, size = pair.partition("=")
        if not equals or not name:
            raise UserError(where, f"{pair[:80]!r} is not of the form name=size, such as sequence=128")
        if name in dims:
            raise UserError(where, f"gives {name} twice", code="conflict")
        if not re.fullmatch(r"[1-9][0-9]{0,9}", size) or int(size) >= 2**31:
            problem = f"gives {name} the size {size[:80]!r}, must be a whole number from 1 to {2**31 - 1}"
            raise UserError(where, problem, code="out_of_range")
        dims[name] = int(size)
    return dims


def check_dims(paths: Sequence[Path], dims: Mapping[str, int]) -> None:
    """Check that every open dimension of some files besides the batch has a size, and every size a dimension.

    Files that are not ONNX are left to the device, which says why it cannot run them.

    Raises:
        UserError: one has none, or there is no such dimension.
    """
    import onnx
    from google.protobuf.message import DecodeError

    known: dict[str, None] = {}
    for path in paths:
        if not path.is_file():
            return
        try:
            inputs = graph_inputs(onnx.load(path, load_external_data=False))
        except (DecodeError, OSError):
            return
        found = open_dimensions(inputs)
        known |= dict.fromkeys(found)
        missing = [name for name in found if name not in dims]
        if missing:
            options = " ".join(f"--dim {name}=SIZE" for name in missing)
            problem = f"has open dimensions besides the batch ({', '.join(missing)}), which need sizes: {options}"
            raise UserError(str(path), problem, code="missing")
        named = {size for one in inputs for size in one.shape if isinstance(size, str)}
        known |= dict.fromkeys(sorted(named))
    for name in dims:
        if name not in known:
            raise UserError("dim", f"there is no open dimension {name!r}", allowed=known, given=name)
