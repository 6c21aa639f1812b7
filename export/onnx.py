"""ONNX export: one self-contained file with a named batch dimension, checked against torch before it is written."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from espalier.export.errors import ExportError, reason
from espalier.export.finite import check_weights
from espalier.export.parity import MORE_BATCHES, Parity, check_parity
from espalier.export.repeatable import Conversions, check_repeatable
from espalier.nas.copying import copied
from espalier.nas.errors import UserError
from espalier.nas.files import atomic_path
from espalier.nas.network_inputs import (
    OUTPUT,
    Input,
    as_inputs,
    batched_dims,
    call,
    named_outputs,
    random_inputs,
)

Exporter = Literal["dynamo", "torchscript"]
_CHATTY_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir")

LARGEST_BATCH = 2**16
"""A file that only holds for smaller batches has lost a branch of the network."""


@dataclass(frozen=True)
class Exported:
    """A checked ONNX file.

    Attributes:
        path: the file.
        exporter: the torch exporter that wrote it.
        fallback_reason: why the first exporter's file was not used; None if it was.
        opset: version of the standard operators.
        size_bytes: size of the file.
        parity: how close its outputs are to torch's.
    """

    path: Path
    exporter: Exporter
    fallback_reason: str | None
    opset: int
    size_bytes: int
    parity: Parity


def export_onnx(
    model: nn.Module,
    shape: tuple[int, ...] | Sequence[Input],
    path: Path,
    *,
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto",
    images: Tensor | None = None,
) -> Exported:
    """Write `model` in eval mode to `path`: `input` float32 `(batch, *shape)` -> `logits`, `batch` symbolic.

    A copy of the model is exported, in float32 and with contiguous weights: the memory format of training would
    otherwise become operators of the file. Torch's random state is restored. A network with several inputs has them by
    their names, one that returns a tuple or a mapping has each tensor of it as an output.

    Args:
        model: the network; left as it is.
        shape: of its only input without the batch, such as `(C, H, W)`; or all its inputs.
        path: the file.
        exporter: `auto` tries the dynamo exporter first, and the TorchScript one if that raises or its file fails the
            checks. `torchscript` takes a tenth of the time, for candidates inside a search.
        images: inputs `(n, *shape)` on which the file must agree with torch as well.

    Raises:
        ExportError: the weights are not finite, the network does not compute a fixed function of its inputs, or every
            exporter failed; the line gives the reason of each. `path` keeps its old content.
    """
    plain = portable(model, path)
    check_weights(plain, str(path))
    network = _Prepared(plain, as_inputs(shape), path)
    order: tuple[Exporter, ...] = ("dynamo", "torchscript") if exporter == "auto" else (exporter,)
    reasons: list[str] = []
    for name in order:
        try:
            with atomic_path(path) as temporary:
                unclear = _WRITERS[name](network, temporary)
                batches = MORE_BATCHES if unclear else ()
                parity = check_parity(network.plain, network.inputs, temporary, images=images, batches=batches)
                opset = _opset(temporary)
        except Exception as error:  # noqa: BLE001 - an exporter may raise anything; each reason is reported
            reasons.append(f"{name}: {reason(error)}")
            continue
        return Exported(path, name, reasons[0] if reasons else None, opset, path.stat().st_size, parity)
    raise ExportError(str(path), f"the network cannot be exported to ONNX ({'; '.join(reasons)})")


class _Prepared:
    """A copy of the network that is ready for the exporters, and what is known from running it.

    Attributes:
        plain: the copy: on the CPU, in evaluation mode, in float32, contiguous.
        inputs: of the network.
        is_plain: it takes one input and returns one tensor.
        outputs: their names.
        batched: the dimensions of each output whose size depends on the batch.
        conversions: where the network turns its numbers into values of Python.
        counts: whether the number of elements of some tensor depends on the input.

    Raises:
        ExportError: the network gives other outputs each time.
    """

    def __init__(self, plain: nn.Module, inputs: tuple[Input, ...], path: Path) -> None:
        self.plain, self.inputs, self.is_plain = plain, inputs, True
        generator = torch.Generator().manual_seed(0)
        few, more = (random_inputs(inputs, size, generator) for size in (2, 3))
        self.outputs: tuple[str, ...] = (OUTPUT,)
        self.batched: list[tuple[int, ...]] = [(0,)]
        self.conversions: tuple[str, ...] = ()
        self.counts = False
        watch = Conversions(few)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                with watch:
                    returned = call(self.plain, inputs, few)
                outputs = named_outputs(returned)
                others = named_outputs(call(self.plain, inputs, more))
        except UserError:
            raise
        except Exception:  # noqa: BLE001 - each exporter runs the network again, and reports what it raises
            return
        self.is_plain = isinstance(returned, Tensor) and len(inputs) == 1
        self.outputs = tuple(outputs)
        self.batched = batched_dims(list(outputs.values()), list(others.values()))
        self.conversions, self.counts = tuple(watch.found), watch.counts
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            check_repeatable(
                lambda: tuple(named_outputs(call(self.plain, inputs, few)).values()), self.plain, path=str(path)
            )

    @property
    def flat(self) -> nn.Module:
        """The network as exporters take it: tensors in order in, a tensor or a tuple of tensors out."""
        return self.plain if self.is_plain else _Flat(self.plain, self.inputs)

    def example(self) -> tuple[Tensor, ...]:
        """Two items: torch.export treats a batch of one as a constant."""
        return tuple(torch.zeros_like(value) for value in random_inputs(self.inputs, 2, torch.Generator()))


class _Flat(nn.Module):
    """A network whose inputs are passed in order and whose outputs are a tuple."""

    def __init__(self, network: nn.Module, inputs: tuple[Input, ...]) -> None:
        super().__init__()
        self.network, self._inputs = network, inputs

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The tensors that the network returns."""
        return tuple(named_outputs(call(self.network, self._inputs, values)).values())


def portable(model: nn.Module, path: Path) -> nn.Module:
    """A copy on the CPU, in evaluation mode, in float32 and with contiguous weights.

    Args:
        model: left as it is.
        path: the file to be written, for the error.

    Raises:
        UserError: it cannot be copied.
    """
    plain = copied(model, where=str(path)).cpu().eval().float()
    for tensor in [*plain.parameters(), *plain.buffers()]:
        if tensor.layout == torch.strided and not tensor.is_quantized:
            tensor.data = tensor.detach().clone(memory_format=torch.contiguous_format)
    return plain


def _dynamo(network: _Prepared, path: Path) -> bool:
    """Write the file; raises if the exporter fails or the file would only hold for some batches."""
    example = network.example()
    dims: Any = tuple({0: "batch"} for _ in example)
    with _quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        program: Any = torch.onnx.export(
            network.flat,
            example,
            path,
            dynamo=True,
            input_names=[one.name for one in network.inputs],
            output_names=list(network.outputs),
            dynamic_shapes=dims if network.is_plain else (dims,),
            external_data=False,
            verbose=False,
        )
    for symbol, limits in program.exported_program.range_constraints.items():
        if str(symbol).startswith("s") and (limits.lower > 2 or limits.upper < LARGEST_BATCH):
            raise ExportError(str(path), f"the network branches on the batch (here {limits.lower} to {limits.upper})")
    return False


def _torchscript(network: _Prepared, path: Path) -> bool:
    """Write the file; returns whether the tracer could not tell how sizes are used, so that more batches are checked.

    Raises:
        ExportError: the trace would keep a value that depends on the input.
    """
    if network.conversions:
        more = f" and {len(network.conversions) - 1} more places" if len(network.conversions) > 1 else ""
        problem = f"{network.conversions[0]}{more} turns numbers into a value of Python, which a trace keeps as it is"
        raise ExportError(str(path), problem, code="unsupported")
    axes = {one.name: {0: "batch"} for one in network.inputs}
    for name, dims in zip(network.outputs, network.batched, strict=True):
        axes[name] = {dim: "batch" if dim == 0 else f"{name}_{dim}" for dim in dims}
    with (
        _quiet(),
        warnings.catch_warnings(record=True) as said,
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("always", torch.jit.TracerWarning)
        torch.onnx.export(
            network.flat,
            network.example(),
            path,
            dynamo=False,
            input_names=[one.name for one in network.inputs],
            output_names=list(network.outputs),
            dynamic_axes=axes,
        )
    unclear = [str(one.message).partition(". ")[0] for one in said if issubclass(one.category, torch.jit.TracerWarning)]
    if unclear and network.counts:
        problem = f"{unclear[0]}, in a network whose sizes depend on its input"
        raise ExportError(str(path), problem, code="unsupported")
    return bool(unclear)


_WRITERS = {"dynamo": _dynamo, "torchscript": _torchscript}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' warnings, log lines and printed graphs; their errors are still raised."""
    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        printed = io.StringIO()
        with (
            warnings.catch_warnings(),
            _silent_descriptors(),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _silent_descriptors() -> Iterator[None]:
    """Suppress what C++ code prints: torch's tracer prints its graph when it fails."""
    c = ctypes.CDLL(None)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with tempfile.TemporaryFile() as nowhere, contextlib.ExitStack() as stack:
        stack.callback(c.fflush, None)
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, descriptor)
            os.dup2(nowhere.fileno(), descriptor)
        stack.callback(c.fflush, None)
        yield


def _opset(path: Path) -> int:
    import onnx

    imports = onnx.load(path, load_external_data=False).opset_import
    return next(entry.version for entry in imports if entry.domain in ("", "ai.onnx"))
