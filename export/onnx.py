"""ONNX export: one self-contained file with a named batch dimension, checked against torch before it is written."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from espalier.export.errors import ExportError, reason
from espalier.export.parity import Parity, check_parity
from espalier.nas.files import atomic_path

Exporter = Literal["dynamo", "torchscript"]
_CHATTY_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir")


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
    input_shape: tuple[int, int, int],
    path: Path,
    *,
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto",
) -> Exported:
    """Write `model` in eval mode to `path`: `input` float32 `(batch, C, H, W)` -> `logits`, `batch` symbolic.

    A copy of the model is exported, and torch's random state is restored.

    Args:
        model: the network; left as it is.
        input_shape: `(C, H, W)` of one image.
        path: the file.
        exporter: `auto` tries the dynamo exporter first, and the TorchScript one if that raises or its file fails the
            checks. `torchscript` takes a tenth of the time, for candidates inside a search.

    Raises:
        ExportError: every exporter failed; the line gives the reason of each. `path` keeps its old content.
    """
    plain = copy.deepcopy(model).cpu().eval()
    order: tuple[Exporter, ...] = ("dynamo", "torchscript") if exporter == "auto" else (exporter,)
    reasons: list[str] = []
    for name in order:
        try:
            with atomic_path(path) as temporary:
                _write(plain, input_shape, temporary, name)
                parity = check_parity(plain, input_shape, temporary)
                opset = _opset(temporary)
        except Exception as error:  # noqa: BLE001 - an exporter may raise anything; each reason is reported
            reasons.append(f"{name}: {reason(error)}")
            continue
        return Exported(path, name, reasons[0] if reasons else None, opset, path.stat().st_size, parity)
    raise ExportError(str(path), f"the network cannot be exported to ONNX ({'; '.join(reasons)})")


def _write(model: nn.Module, input_shape: tuple[int, int, int], path: Path, exporter: Exporter) -> None:
    # Two images: torch.export treats a batch of one as a constant.
    example = (torch.zeros(2, *input_shape),)
    with _quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        if exporter == "dynamo":
            torch.onnx.export(
                model,
                example,
                path,
                dynamo=True,
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=({0: "batch"},),
                external_data=False,
                verbose=False,
            )
        else:
            torch.onnx.export(
                model,
                example,
                path,
                dynamo=False,
                input_names=["input"],
                output_names=["logits"],
                dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' warnings, log lines and printed graphs; their errors are still raised."""
    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        printed = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _opset(path: Path) -> int:
    import onnx

    imports = onnx.load(path, load_external_data=False).opset_import
    return next(entry.version for entry in imports if entry.domain in ("", "ai.onnx"))
