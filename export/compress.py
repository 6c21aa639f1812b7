"""The smallest ONNX file for a network with many zeros. It is smaller on disk, but not faster.

ONNX Runtime (1.32, and according to its source every version since 1.6) has no operators for sparse weights: they are
expanded when the file is loaded, so run time and memory of the session are those of the plain file. See
`espalier.export.sparse_weights` for the encodings.

Measured with ONNX Runtime 1.32 on a CPU, ResNet-18 with 11.2 million weights, in MB (in brackets after gzip):

    zeros    plain         packed        sparse
    50 %     44.7 (24.0)   23.8 (21.7)   not smaller
    75 %     44.7 (13.3)   12.6 (11.3)   33.5 (14.4)
    90 %     44.7 (5.9)     5.6 (4.8)    13.4 (5.8)
    98 %     44.7 (1.4)     1.2 (1.0)     2.7 (1.2)

The packed file loads as fast as the plain one if gaps are stored (90 % and more), and takes three times as long with
masks (0.7 s instead of 0.2), with a peak of 380 MB instead of 160. Run time, packed over plain,
interleaved: 1.00 [0.98, 1.04] at 90 %.
"""

from __future__ import annotations

import gzip
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.inputs import make_inputs
from espalier.export.errors import ExportError, reason
from espalier.export.sparse_weights import MIN_OPSET, coo, count_zeros, packed
from espalier.nas.errors import UserError
from espalier.nas.files import write_bytes
from espalier.nas.scratch import ScratchFolder


@dataclass(frozen=True)
class Form:
    """One way to write the network.

    Attributes:
        size_bytes: of the file; None if it cannot be written in this form.
        gzip_bytes: of the file after gzip (level 6), for transfer: ONNX Runtime does not read compressed files.
        refused: why the form cannot be used, whatever its size; None if it can.
    """

    size_bytes: int | None
    gzip_bytes: int | None
    refused: str | None


@dataclass(frozen=True)
class Compressed:
    """What was written, and the alternatives.

    Attributes:
        path: the file.
        form: its form, the smallest of those that can be used.
        forms: all of them: `plain` (the source as it is), `packed`, and `sparse` (ONNX's `sparse_initializer`).
        dense: the file of the network before pruning, if given.
        zeros: number of weights that are zero.
        numbers: number of weights.
    """

    path: str
    form: str
    forms: dict[str, Form]
    dense: Form | None
    zeros: int
    numbers: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the attributes."""
        return asdict(self)


def smallest_onnx(source: Path, path: Path, *, dense: Path | None = None) -> Compressed:
    """Write the network in `source` to `path` in the smallest form that is the same network, atomically.

    A form is used only if its file is as valid as the source, ONNX Runtime loads it to the same operators (so that it
    is as fast), and its outputs on the CPU are equal to the source's in every bit except the sign of zero.

    Args:
        source: any self-contained ONNX file.
        path: may be `source`.
        dense: a file whose size is reported for comparison.

    Raises:
        UserError: the source cannot be loaded, keeps weights in other files, or its inputs cannot be made.
    """
    import onnx

    wanted = _behaviour(source)
    model = onnx.load(source, load_external_data=False)
    if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer):
        problem = "keeps weights in another file, must be one self-contained file"
        raise UserError(str(source), problem, code="unsupported")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ScratchFolder(prefix=".compress-", dir=path.parent) as name:
        files = {"plain": source, "packed": Path(name) / "packed.onnx", "sparse": Path(name) / "sparse.onnx"}
        forms = {"plain": _sizes(source)}
        if opset < MIN_OPSET:
            forms["packed"] = Form(None, None, f"the file has opset {opset}, packing needs {MIN_OPSET}")
        else:
            forms["packed"] = _form(source, model, packed, files["packed"], wanted)
        forms["sparse"] = _form(source, model, coo, files["sparse"], wanted)
        sizes = {key: form.size_bytes for key, form in forms.items() if form.size_bytes and form.refused is None}
        form = min(sizes, key=lambda key: sizes[key])
        write_bytes(path, files[form].read_bytes())
    zeros, numbers = count_zeros(model)
    return Compressed(str(path), form, forms, None if dense is None else _sizes(dense), zeros, numbers)


def _form(source: Path, model: Any, rewrite: Callable[[Any], Any | None], path: Path, wanted: _Behaviour) -> Form:
    """Write `model` in another form to `path`, and check it."""
    smaller = rewrite(model)
    if smaller is None:
        return Form(None, None, "no weight becomes smaller")
    path.write_bytes(smaller.SerializeToString())
    sizes = _sizes(path)
    return Form(sizes.size_bytes, sizes.gzip_bytes, _refusal(source, path, wanted))


def _refusal(source: Path, path: Path, wanted: _Behaviour) -> str | None:
    try:
        got = _behaviour(path)
    except ExportError as error:
        return error.problem
    if got.operators != wanted.operators:
        more = ", ".join(sorted(got.operators - wanted.operators)) or "nothing"
        return f"is loaded to other operators ({more} more than the plain file)"
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got.outputs, wanted.outputs, strict=True)):
        return "its outputs differ from the plain file's"
    problem = _invalid(path)
    if problem is not None and _invalid(source) is None:
        return f"is not valid ONNX ({problem}), though ONNX Runtime loads it"
    return None


@dataclass(frozen=True)
class _Behaviour:
    """A file once it is loaded: how many operators of each type, and its outputs."""

    operators: Counter[str]
    outputs: list[np.ndarray]


def _behaviour(path: Path) -> _Behaviour:
    """Load and run the file on the CPU with one thread: with more, the order of additions may differ.

    Raises:
        ExportError: it cannot be loaded or run.
    """
    import onnx
    import onnxruntime

    if not path.is_file():
        raise UserError(str(path), "no such file", code="not_found")
    with tempfile.TemporaryDirectory() as folder:
        loaded = Path(folder) / "loaded.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.optimized_model_filepath = str(loaded)
        # One level below the highest, whose layouts are specific to this machine.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ExportError(str(path), f"cannot be loaded ({reason(error)})", code="unreadable") from error
        operators = Counter(node.op_type for node in onnx.load(loaded, load_external_data=False).graph.node)
    return _Behaviour(operators, _outputs(path, session))


def _outputs(path: Path, session: Any) -> list[np.ndarray]:
    """All outputs at batch 1 and 3, or at the file's own batch if it is fixed."""
    arguments = session.get_inputs()
    shape = arguments[0].shape if arguments else [1]
    batches = [shape[0]] if not shape or isinstance(shape[0], int) else [1, 3]
    try:
        return [
            np.asarray(output)
            for batch in batches
            for output in session.run(None, make_inputs(str(path), arguments, batch, seed=0))
        ]
    except Refused as refused:
        raise UserError(**refused.fields) from refused
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise ExportError(str(path), f"cannot be run ({reason(error)})") from error


def _invalid(path: Path) -> str | None:
    """What ONNX's checker reports about the file, in one line; None if nothing."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).splitlines()[0]
    return None


def _sizes(path: Path) -> Form:
    content = path.read_bytes()
    return Form(len(content), len(gzip.compress(content, compresslevel=6, mtime=0)), None)
