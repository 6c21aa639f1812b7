"""Compares the pruned network with the dense one: sizes, score and latency, in `result.json` and `README.md`."""

from __future__ import annotations

import gzip
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from espalier.export.comparison import MIN_ROUNDS, compare
from espalier.export.compress import Form, smallest_onnx
from espalier.export.onnx import export_onnx
from espalier.export.parity import OWN_IMAGES
from espalier.nas.checkpoint import save_weights
from espalier.nas.cost.count import count
from espalier.nas.files import write_json, write_text
from espalier.pruning.allocation.macs import layer_macs
from espalier.pruning.masks import count_zeros
from espalier.pruning.pruned_model import WEIGHTS, Plan
from espalier.pruning.semi_structured import SemiStructured, measure_2_4
from espalier.pruning.weights import prunable_weights
from espalier.recipes.commands.progress import announce
from espalier.recipes.commands.prune.result import RESULT, LatencyChange, NetworkFacts, OnnxFile, PruneResult
from espalier.recipes.commands.prune.table import model_card
from espalier.recipes.commands.prune.training import on_accelerator
from espalier.recipes.config.devices import open_device
from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.inputs.task_images import TaskImages

ONNX = "model.onnx"


def measure_outcome(
    folder: Path, plan: Plan, *, dense: nn.Module, pruned: nn.Module, settings: PruneSettings, images: TaskImages
) -> PruneResult:
    """Export both networks, test them, time them in turns, and write the result down.

    Args:
        folder: holds the plan and the weights of `pruned`.
        plan: what was done.
        dense: on the CPU, in evaluation mode.
        pruned: likewise.
        settings: of the command.
        images: to test on.

    Raises:
        ExportError: a network cannot be exported.
        UserError: it cannot be timed.
    """
    announce("exporting, testing and timing both networks")
    with tempfile.TemporaryDirectory(prefix=".latency-", dir=folder) as temporary:
        dense_onnx, dense_weights = Path(temporary) / ONNX, Path(temporary) / WEIGHTS
        save_weights(dense_weights, dense)
        some = _some_inputs(images)
        exported = export_onnx(pruned, images.image_shape, folder / ONNX, images=some)
        # By the same exporter, else the graphs would differ.
        export_onnx(dense, images.image_shape, dense_onnx, exporter=exported.exporter, images=some)
        compressed = smallest_onnx(folder / ONNX, folder / ONNX, dense=dense_onnx)
        result = PruneResult(
            target=str(settings.goal),
            method=settings.method.name,
            before=_facts(dense, images, dense_weights, compressed.dense),
            after=_facts(pruned, images, folder / WEIGHTS, compressed.forms[compressed.form]),
            latency=_latency(dense_onnx, folder / ONNX, settings),
            sparse_tensor_cores=_sparse_tensor_cores(pruned, settings, images),
            onnx=OnnxFile(exported.exporter, exported.opset, exported.parity, replace(compressed, path=ONNX).to_dict()),
            folder=folder,
        )
    write_json(folder / RESULT, result.to_dict())
    write_text(folder / "README.md", model_card(result, plan))
    return result


def _some_inputs(images: TaskImages) -> Tensor:
    """A few training images as the network takes them, on which the file must agree with torch."""
    generator = torch.Generator().manual_seed(0)
    batches = images.plain(OWN_IMAGES, count=OWN_IMAGES, generator=generator)
    return next(iter(batches))[0].cpu().contiguous()


def _latency(dense: Path, pruned: Path, settings: PruneSettings) -> LatencyChange:
    profile = settings.profile
    spec = profile.spec(sessions=max(MIN_ROUNDS, profile.sessions))
    comparison = compare(open_device(profile.device, where="profile.device"), [dense, pruned], spec)
    timed = comparison.others[0]
    return LatencyChange(
        before=comparison.measurement,
        after=timed.measurement,
        ratio=timed.ratio,
        ratio_ci95=timed.ci95,
        ratios=timed.ratios,
        faster=timed.faster,
    )


def _sparse_tensor_cores(pruned: nn.Module, settings: PruneSettings, images: TaskImages) -> SemiStructured | None:
    """The time of a 2:4 pattern through torch; None for other patterns."""
    if settings.pattern != "2:4":
        return None
    return measure_2_4(pruned, images.image_shape, settings.profile.batch)


def _facts(network: nn.Module, images: TaskImages, weights_file: Path, onnx: Form | None) -> NetworkFacts:
    assert onnx is not None
    weights = prunable_weights(network)
    sparsity, macs = count_zeros(network, weights), count(network, images.image_shape).macs
    uses = layer_macs(network, images.image_shape)
    by_zero = sum(uses[name] * int((weight == 0).sum()) for name, weight in weights.items())
    return NetworkFacts(
        params=sparsity.params,
        prunable=sparsity.prunable,
        zeros=sparsity.zeros,
        macs=macs,
        macs_without_zeros=round(macs - by_zero),
        weights_bytes=weights_file.stat().st_size,
        weights_bytes_gzip=len(gzip.compress(weights_file.read_bytes(), 6)),
        onnx_bytes=onnx.size_bytes,
        onnx_bytes_gzip=onnx.gzip_bytes,
        score=images.score(on_accelerator(network)),
    )
