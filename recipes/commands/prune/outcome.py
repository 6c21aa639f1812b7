"""Compares the pruned network with the dense one: sizes, score and latency, in `result.json` and `README.md`."""

from __future__ import annotations

import gzip
import tempfile
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from espalier.export.comparison import MIN_ROUNDS, compare
from espalier.export.compress import Form, smallest_onnx
from espalier.export.errors import ExportError
from espalier.export.metadata import write_metadata
from espalier.export.onnx import export_onnx
from espalier.export.parity import OWN_IMAGES
from espalier.nas.checkpoint import save_weights
from espalier.nas.cost.count import count
from espalier.nas.files import write_json, write_text
from espalier.nas.scratch import ScratchFolder
from espalier.pruning.allocation.macs import layer_macs
from espalier.pruning.masks import count_zeros
from espalier.pruning.pruned_model import WEIGHTS, Plan
from espalier.pruning.semi_structured import SemiStructured, measure_2_4
from espalier.pruning.weights import left_out, prunable_weights
from espalier.recipes.commands.progress import announce
from espalier.recipes.commands.prune.result import RESULT, LatencyChange, NetworkFacts, OnnxFile, PruneResult
from espalier.recipes.commands.prune.table import model_card
from espalier.recipes.commands.prune.training import on_accelerator
from espalier.recipes.config.devices import open_device
from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.inputs.task_images import TaskImages
from espalier.recipes.inputs.without_data import inputs_of, some_batch, traced

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
    with ScratchFolder(prefix=".latency-", dir=folder) as temporary:
        dense_onnx, dense_weights = Path(temporary) / ONNX, Path(temporary) / WEIGHTS
        save_weights(dense_weights, dense, metadata=plan.images.to_metadata())
        some, inputs = _some_inputs(images), inputs_of(images)
        exported = export_onnx(pruned, inputs, folder / ONNX, images=some)
        export_onnx(dense, inputs, dense_onnx, exporter=exported.exporter, images=some)  # else the graphs would differ
        for file in (folder / ONNX, dense_onnx):
            write_metadata(file, plan.images)
        compressed = smallest_onnx(folder / ONNX, folder / ONNX, dense=dense_onnx)
        result = PruneResult(
            target=str(settings.goal),
            method=settings.method.name,
            before=_facts(dense, settings, images, dense_weights, compressed.dense),
            after=_facts(pruned, settings, images, folder / WEIGHTS, compressed.forms[compressed.form]),
            latency=_latency(dense_onnx, folder / ONNX, settings),
            sparse_tensor_cores=_sparse_tensor_cores(pruned, settings, images),
            onnx=OnnxFile(exported.exporter, exported.opset, exported.parity, replace(compressed, path=ONNX).to_dict()),
            folder=folder,
        )
    write_json(folder / RESULT, result.to_dict())
    write_text(folder / "README.md", model_card(result, plan))
    return result


def check_exportable(network: nn.Module, images: TaskImages) -> None:
    """Check that a network can be exported, before it is trained for long.

    Raises:
        ExportError: it cannot.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, some = Path(folder) / ONNX, _some_inputs(images)
        try:
            export_onnx(network, inputs_of(images), path, exporter="torchscript", images=some)  # the faster one
        except ExportError:
            try:
                export_onnx(network, inputs_of(images), path, images=some)
            except ExportError as error:
                raise error.at("model") from error


def _some_inputs(images: TaskImages) -> Tensor | None:
    """A few training images, on which a file must agree with torch; None where there are none."""
    batch = some_batch(images, OWN_IMAGES)
    return None if batch is None else batch[0]


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
    return measure_2_4(*traced(pruned, images), settings.profile.batch)


def _facts(
    network: nn.Module, settings: PruneSettings, images: TaskImages, weights_file: Path, onnx: Form | None
) -> NetworkFacts:
    assert onnx is not None
    weights = prunable_weights(network, include=("*", *settings.include))
    sparsity, (one_input, shape) = count_zeros(network, weights), traced(network, images)
    macs, uses = count(one_input, shape).macs, layer_macs(one_input, shape)
    by_zero = sum(uses.get(name, 0.0) * int((weight == 0).sum()) for name, weight in weights.items())
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
        left_out=left_out(network, weights),
    )
