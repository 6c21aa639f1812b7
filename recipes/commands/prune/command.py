"""`prune`: from a given network to a smaller one, its files, and a comparison with the dense one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espalier.nas.copying import copied
from espalier.nas.errors import UserError
from espalier.nas.network_inputs import Input, as_inputs
from espalier.nas.run import RunFolder
from espalier.nas.training import Diverged
from espalier.pruning.masks import zeros_in
from espalier.pruning.pruned_model import Plan, read_plan, save_pruned
from espalier.recipes.commands import defaults
from espalier.recipes.commands.progress import announce, track
from espalier.recipes.commands.prune import sparse
from espalier.recipes.commands.prune.claim import Claim, abandon, claimed, finish
from espalier.recipes.commands.prune.outcome import check_exportable, measure_outcome
from espalier.recipes.commands.prune.preview import Preview, preview_of
from espalier.recipes.commands.prune.result import PruneResult, read_result
from espalier.recipes.commands.prune.structured import smaller, structure_from
from espalier.recipes.commands.prune.training import Phases, on_accelerator
from espalier.recipes.config.data_source import data_section
from espalier.recipes.config.loading import set_key
from espalier.recipes.config.prune_settings import PruneSettings, prune_settings
from espalier.recipes.config.registry import STRUCTURED
from espalier.recipes.inputs.model_source import ModelSource, described_inputs, model_source
from espalier.recipes.inputs.task_data import images_for
from espalier.recipes.inputs.task_images import TaskImages
from espalier.recipes.inputs.without_data import CLASSES


@dataclass(frozen=True)
class Request:
    """What to prune, and how.

    Attributes:
        source: of the network.
        settings: the arguments of the command.
    """

    source: ModelSource
    settings: PruneSettings


def prune(
    model: str | Path,
    output: str | Path,
    *,
    method: str = defaults.PRUNING_METHOD,
    target: str | None = None,
    pattern: str | None = None,
    allocation: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    data: str | Path = defaults.DATA,
    test_data: str | Path | None = None,
    size: int | None = None,
    scale: int | None = None,
    inputs: Sequence[Input | str] | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    seed: int = defaults.SEED,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> PruneResult:
    """Prune a given network to a target, fine-tune it, write it, and compare it with the dense one.

    Args:
        model: `timm:NAME`, `FILE.py:FUNCTION`, `architectures/ID` of a run, or a folder that a pruning wrote.
        output: the folder to write; new or empty.
        method: what is removed, and when (see `nas ls`).
        target: `sparsity=0.9`; or an upper limit, as a share or in milliseconds: `macs=0.5`, `params=0.5`,
            `latency_ms=3`.
        pattern: `ZEROS:GROUP`, such as `2:4`, instead of a target.
        allocation: how zeros are distributed over layers: `uniform`, `erk`, `global`, `lamp`, `obs` or `lgreco`.
        include: patterns of names of layers to prune; none stands for all.
        exclude: patterns of names of layers to keep.
        data: images to train on: `digits`, a `.parquet` or `.npz` file, or a folder.
        test_data: test images, if `data` does not contain them.
        size: resize the images to size x size.
        scale: the task is super-resolution by this factor, and `data` are images of any size.
        inputs: of a network that takes no images, such as `ids:128:int64`; it is pruned without data and not trained.
        weights: the network's weights: `.safetensors`, `.npz`, `.pt` or `.pth`.
        pretrained: use timm's pretrained weights.
        seed: of everything random.
        resume: continue the pruning in the folder.
        overrides: further settings, such as `{"train.epochs": 5, "method.alpha": 0.9}`.

    Raises:
        UserError: bad input of any kind, before anything is written; or training diverges, or the target cannot be met.
    """
    request = prune_request(
        model,
        method=method,
        target=target,
        pattern=pattern,
        allocation=allocation,
        include=include,
        exclude=exclude,
        data=data,
        test_data=test_data,
        size=size,
        scale=scale,
        inputs=inputs,
        weights=weights,
        pretrained=pretrained,
        seed=seed,
        overrides=overrides,
    )
    return prune_network(request, Path(output), resume=resume)


def prune_request(
    model: str | Path,
    *,
    method: str,
    target: str | None,
    pattern: str | None,
    allocation: str | None,
    include: Sequence[str],
    exclude: Sequence[str],
    data: str | Path,
    test_data: str | Path | None,
    size: int | None,
    scale: int | None,
    inputs: Sequence[Input | str] | None,
    weights: str | Path | None,
    pretrained: bool,
    seed: int,
    overrides: Mapping[str, Any] | None,
) -> Request:
    """The checked arguments of `prune`.

    Raises:
        UserError: an argument cannot be used.
    """
    document: dict[str, Any] = {
        "method": {"name": method},
        "target": target,
        "pattern": pattern,
        "allocation": allocation,
        "seed": seed,
        "data": data_section(data, test_data, size),
    }
    if include:
        document["include"] = tuple(include)
    if exclude:
        document["exclude"] = tuple(exclude)
    if scale is not None:
        document["super_resolution"] = {"scale": scale}
    inputs = described_inputs(Path(model)) if inputs is None else inputs
    if inputs is not None:
        document["inputs"] = tuple(map(str, as_inputs(inputs)))
        if method == STRUCTURED:  # the usual one needs gradients
            document["method"]["importance"] = "magnitude"
    for key, value in (overrides or {}).items():
        set_key(document, key, value)
    source = model_source(model, weights=weights, pretrained=pretrained, scale=scale)
    return Request(source, prune_settings(document))


def preview(request: Request) -> Preview:
    """What a pruning would do; nothing is trained or written.

    Raises:
        UserError: bad input of any kind.
    """
    images = images_for(request.settings, request.source)
    return preview_of(request.settings, _network(request, images), images)


def prune_network(request: Request, output: Path, *, resume: bool) -> PruneResult:
    """Prune, train, write and measure; a killed pruning can be resumed.

    Raises:
        UserError: see `prune`.
    """
    settings = request.settings
    images = images_for(settings, request.source)
    dense = _network(request, images)
    if request.source.is_fresh:
        announce("the model has fresh weights (neither weights nor pretrained is set), so it is trained from scratch")
    with RunFolder(output).lock() as folder:
        claim = Claim.of(request.source, settings, images)
        with claimed(folder, claim, resume=resume) as finished:
            if finished:
                announce(f"{output} is already finished")
                result = read_result(output)
            else:
                announce(f"folder: {output}")
                result = _prune(request, dense, images, folder)
                finish(folder, claim)
            if (folder / "checkpoints").exists():
                shutil.rmtree(folder / "checkpoints")
            return result


def _prune(request: Request, dense: nn.Module, images: TaskImages, folder: RunFolder) -> PruneResult:
    """Prune and train the network, write it, and compare it with the dense one."""
    settings = request.settings
    teacher = on_accelerator(copied(dense)).eval().requires_grad_(requires_grad=False)
    phases = Phases(settings, images, folder, track, teacher if settings.distill else None)
    try:
        pruned, plan = (_structured if settings.is_structured else _sparse)(request, dense, phases)
    except Diverged as error:
        abandon(folder)
        raise UserError("train.lr", str(error), code="failed") from error
    pruned, scores = phases.recalibrated(pruned)
    if scores is not None:
        better = "kept" if scores["recalibrated"] > scores["trained"] else "not kept"
        announce(f"batch norms recalibrated: {better} ({scores['trained']:.4f} -> {scores['recalibrated']:.4f})")
    plain = copied(pruned).cpu().eval()
    save_pruned(folder.path, plain, plan)
    return measure_outcome(folder.path, plan, dense=dense, pruned=plain, settings=settings, images=images)


def _network(request: Request, images: TaskImages) -> nn.Module:
    """The dense network, after checking that all that follows can be done with it.

    Raises:
        UserError: it does not fit the images, cannot be trained or exported, or its weights are not finite.
    """
    with torch.random.fork_rng():
        torch.manual_seed(request.settings.seed)
        network = request.source.make(images.image_shape, len(images.classes) or CLASSES)
    images.check(network)
    check_exportable(network, images)
    if (doubt := images.doubt(network, is_fresh=request.source.is_fresh)) is not None:
        announce(f"warning: {doubt}")
    return network


def _plan(request: Request, images: TaskImages, **found: Any) -> Plan:
    settings = request.settings.model_dump(mode="json", exclude={"profile", "data"})
    return Plan(
        factory=request.source.factory,
        image_shape=images.image_shape,
        classes=images.classes,
        mean=images.normalisation.mean,
        std=images.normalisation.std,
        settings=settings,
        **found,
    )


def _sparse(request: Request, dense: nn.Module, phases: Phases) -> tuple[nn.Module, Plan]:
    """Zeros, then training with the zeros fixed."""
    settings, images = request.settings, phases.images
    generator = phases.generator("saliencies")
    network = on_accelerator(copied(dense))
    pattern = sparse.pattern(settings, network, images, generator)
    epochs = sparse.prune_epochs(settings)
    iterations = epochs * len(images.training(phases.generator("length"))) if epochs else 0
    pruner = sparse.pruner(settings, network, images, pattern, iterations=iterations, generator=generator)
    phases.run("pruning", network, pruner, epochs=epochs, schedule="constant", warmup_epochs=0, ema_decay=None)
    if not phases.checkpoint("fine-tuning").exists():
        masks = pruner.finalize()
        validation = "" if images.training_count == 0 else f", validation {images.validate(network):.4f}"
        announce(f"pruned: {zeros_in(masks):,} zeros{validation} before fine-tuning")
    network = phases.run("fine-tuning", network, pruner, epochs=settings.train.epochs)
    zeros = {name: int((~kept).sum()) for name, kept in pruner.finalize().items()}
    structure = {} if request.source.pruned is None else read_plan(request.source.pruned).structure
    return network, _plan(request, images, zeros=zeros, structure=structure)


def _structured(request: Request, dense: nn.Module, phases: Phases) -> tuple[nn.Module, Plan]:
    """Channels, heads and blocks removed, then training of what is left."""
    small = smaller(request.settings, dense, phases)
    network = phases.run("fine-tuning", on_accelerator(small.network), None, epochs=request.settings.train.epochs)
    plan = _plan(request, phases.images, groups=small.groups)
    return network, replace(plan, structure=structure_from(plan, small.network))
