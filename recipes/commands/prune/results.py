"""What became of the network: sizes, score and latency before and after, in `result.json` and `README.md`."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from espalier.export.comparison import MIN_ROUNDS, compare
from espalier.export.compress import Form, smallest_onnx
from espalier.export.devices.address import open_device
from espalier.export.onnx import export_onnx
from espalier.nas.checkpoint import save_weights
from espalier.nas.cost.count import count
from espalier.nas.files import write_json, write_text
from espalier.pruning.allocation.macs import layer_macs
from espalier.pruning.masks import count_zeros
from espalier.pruning.pruned_model import WEIGHTS, Plan
from espalier.pruning.semi_structured import measure_2_4
from espalier.pruning.weights import prunable_weights
from espalier.recipes.commands.prune.table import model_card
from espalier.recipes.commands.prune.training import on_accelerator
from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.inputs.task_data import Images

ONNX = "model.onnx"
RESULT = "result.json"


def measure_outcome(
    folder: Path,
    plan: Plan,
    *,
    dense: nn.Module,
    pruned: nn.Module,
    settings: PruneSettings,
    images: Images,
    announce: Callable[[str], None],
) -> dict[str, Any]:
    """Export both networks, judge them on the test images, time them in turns, and write it all down.

    Args:
        folder: holds the plan and the weights of `pruned`.
        dense, pruned: on the CPU, in evaluation mode.

    Returns:
        The content of `result.json`.

    Raises:
        ExportError: a network cannot be exported.
        UserError: it cannot be timed.
    """
    announce("exporting, testing and timing both networks")
    with tempfile.TemporaryDirectory(prefix=".latency-", dir=folder) as temporary:
        dense_onnx, dense_weights = Path(temporary) / ONNX, Path(temporary) / WEIGHTS
        save_weights(dense_weights, dense)
        exported = export_onnx(pruned, images.image_shape, folder / ONNX)
        export_onnx(dense, images.image_shape, dense_onnx, exporter=exported.exporter)  # else the graphs would differ
        compressed = smallest_onnx(folder / ONNX, folder / ONNX, dense=dense_onnx)
        profile = settings.profile
        spec = profile.spec(sessions=max(MIN_ROUNDS, profile.sessions))
        device = open_device(profile.device, where="profile.device")
        comparison = compare(device, [dense_onnx, folder / ONNX], spec)
        timed = comparison.others[0]
        result = {
            "target": str(settings.goal),
            "method": settings.method.name,
            "before": _facts(dense, images, dense_weights, compressed.dense),
            "after": _facts(pruned, images, folder / WEIGHTS, compressed.forms[compressed.form]),
            "latency": {
                "before": comparison.measurement.to_dict(),
                "after": timed.measurement.to_dict(),
                "ratio": timed.ratio,
                "ratio_ci95": timed.ci95,
                "ratios": timed.ratios,
                "faster": timed.faster,
            },
            "sparse_tensor_cores": _sparse_tensor_cores(pruned, settings, images),
            "onnx": {
                "exporter": exported.exporter,
                "opset": exported.opset,
                "parity": asdict(exported.parity),
                "compressed": compressed.to_dict() | {"path": ONNX},
            },
        }
    write_json(folder / RESULT, result)
    write_text(folder / "README.md", model_card(result, plan))
    return result


def _sparse_tensor_cores(pruned: nn.Module, settings: PruneSettings, images: Images) -> dict[str, Any] | None:
    """2:4 through torch, where a GPU multiplies it, else why not; None of another pattern."""
    if settings.pattern != "2:4":
        return None
    return asdict(measure_2_4(pruned, images.image_shape, settings.profile.batch))


def _facts(network: nn.Module, images: Images, weights_file: Path, onnx: Form | None) -> dict[str, Any]:
    assert onnx is not None
    weights = prunable_weights(network)
    sparsity, macs = count_zeros(network, weights), count(network, images.image_shape).macs
    uses = layer_macs(network, images.image_shape)
    by_zero = sum(uses[name] * int((weight == 0).sum()) for name, weight in weights.items())
    return {
        "params": sparsity.params,
        "prunable": sparsity.prunable,
        "zeros": sparsity.zeros,
        "macs": macs,
        "macs_without_zeros": round(macs - by_zero),
        "weights_bytes": weights_file.stat().st_size,
        "weights_bytes_gzip": len(gzip.compress(weights_file.read_bytes(), 6)),
        "onnx_bytes": onnx.size_bytes,
        "onnx_bytes_gzip": onnx.gzip_bytes,
        "score": asdict(images.score(on_accelerator(network))),
    }
