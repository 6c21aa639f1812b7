"""`nas prune`: from a given network to a smaller one, its files, and an honest table of before and after."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espalier.nas.errors import UserError
from espalier.nas.files import read_json, write_json
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.nas.training import Diverged
from espalier.pruning.masks import zeros_in
from espalier.pruning.pruned_model import Plan, read_plan, save_pruned
from espalier.recipes.commands.prune import sparse
from espalier.recipes.commands.prune.results import RESULT, measure_outcome
from espalier.recipes.commands.prune.structured import groups, smaller, structure_from
from espalier.recipes.commands.prune.training import Phases, on_accelerator
from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.inputs.model_source import Given
from espalier.recipes.inputs.task_data import Images, images_for

REQUEST = "prune.json"
"""The file of the output folder that keeps what was asked for."""


@dataclass(frozen=True)
class Request:
    """What to prune, and how."""

    given: Given
    settings: PruneSettings

    @property
    def document(self) -> dict[str, Any]:
        """As JSON; a folder goes on only with the same."""
        network = {"factory": self.given.factory, "pretrained": self.given.pretrained}
        files = {
            key: path and str(path.resolve()) for key, path in vars(self.given).items() if key in ("weights", "pruned")
        }
        return {"network": network | files, **self.settings.model_dump(mode="json")}


def prune_network(
    request: Request, output: Path, *, resume: bool, track: Track, announce: Callable[[str], None]
) -> dict[str, Any]:
    """Prune, train, write and measure; a killed run goes on.

    Returns:
        What `result.json` of the folder holds.

    Raises:
        UserError: bad input of any kind, before anything is written; or training diverges, or nothing meets the target.
    """
    settings = request.settings
    images = images_for(request.settings, request.given)
    dense = _network(request, images)
    if request.given.is_fresh:
        announce("MODEL has fresh weights (no --weights, no --pretrained): it is trained from the beginning")
    with RunFolder(output).lock() as folder:
        _claim(folder, request, resume=resume)
        if (folder / RESULT).exists():
            announce(f"{output} is finished already")
            done: dict[str, Any] = read_json(folder / RESULT)
            return done
        announce(f"folder: {output}")
        teacher = on_accelerator(copy.deepcopy(dense)).eval().requires_grad_(requires_grad=False)
        phases = Phases(settings, images, folder, track, teacher if settings.distill else None)
        try:
            pruned, plan = (_structured if settings.is_structured else _sparse)(request, dense, phases, announce)
        except Diverged as error:
            raise UserError("train.lr", str(error)) from error
        except UserError:
            if not (folder / "checkpoints").exists():  # nothing has begun: the folder is free for a better request
                (folder / REQUEST).unlink()
            raise
        pruned, scores = phases.recalibrated(pruned)
        if scores is not None:
            better = "kept" if scores["recalibrated"] > scores["trained"] else "not kept"
            announce(f"batch norms recalibrated: {better} ({scores['trained']:.4f} -> {scores['recalibrated']:.4f})")
        plain = copy.deepcopy(pruned).cpu().eval()
        save_pruned(output, plain, plan)
        result = measure_outcome(
            output, plan, dense=dense, pruned=plain, settings=settings, images=images, announce=announce
        )
        if (folder / "checkpoints").exists():
            shutil.rmtree(folder / "checkpoints")
        return result


def preview(request: Request) -> dict[str, Any]:
    """What would be pruned: layers with their zeros, or groups of channels; nothing is trained or written."""
    settings = request.settings
    images = images_for(request.settings, request.given)
    dense = _network(request, images)
    if settings.is_structured:
        return {"target": str(settings.goal), "groups": groups(settings, dense, images)}
    generator = torch.Generator().manual_seed(settings.seed)
    network = on_accelerator(dense)
    pattern = sparse.pattern(settings, network, images, generator)
    weights = sparse.chosen_weights(settings, network)
    masks = pattern.select({name: weight.detach().abs() for name, weight in weights.items()})
    rows = [
        {"weight": name, "shape": list(kept.shape), "weights": kept.numel(), "zeros": int((~kept).sum())}
        for name, kept in masks.items()
    ]
    return {
        "target": str(settings.goal),
        "weights": sum(row["weights"] for row in rows),
        "zeros": zeros_in(masks),
        "layers": rows,
    }


def _network(request: Request, images: Images) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(request.settings.seed)
        network = request.given.make(images.image_shape, len(images.classes))
    images.check(network)
    return network


def _claim(folder: RunFolder, request: Request, *, resume: bool) -> None:
    """Write the request into an empty folder, or see that it is the one that is there."""
    path = folder / REQUEST
    if not resume:
        if any(file.name != ".lock" for file in folder.path.iterdir()):
            raise UserError(str(folder.path), "is not empty; --resume goes on with the pruning in it")
        write_json(path, request.document)
        return
    if not path.is_file():
        raise UserError(str(folder.path), "holds no pruning to resume")
    before, now = _flat(read_json(path)), _flat(request.document)
    for key in [*before, *now]:
        if before.get(key) != now.get(key):
            raise UserError(key, f"is {now.get(key)}, and was {before.get(key)} when {folder.path} was begun")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}".lstrip(".")).items()}


def _plan(request: Request, images: Images, **found: Any) -> Plan:
    settings = request.settings.model_dump(mode="json", exclude={"profile", "data"})
    return Plan(
        factory=request.given.factory,
        image_shape=images.image_shape,
        classes=images.classes,
        mean=images.normalisation.mean,
        std=images.normalisation.std,
        settings=settings,
        **found,
    )


def _sparse(
    request: Request, dense: nn.Module, phases: Phases, announce: Callable[[str], None]
) -> tuple[nn.Module, Plan]:
    """Zeros, then training that holds them."""
    settings, images = request.settings, phases.images
    generator = phases.generator("saliencies")
    network = on_accelerator(copy.deepcopy(dense))
    pattern = sparse.pattern(settings, network, images, generator)
    epochs = sparse.prune_epochs(settings)
    iterations = epochs * len(images.training(phases.generator("length")))
    pruner = sparse.pruner(settings, network, images, pattern, iterations=iterations, generator=generator)
    phases.run("pruning", network, pruner, epochs=epochs, schedule="constant", warmup_epochs=0, ema_decay=None)
    if not phases.checkpoint("fine-tuning").exists():
        masks = pruner.finalize()
        announce(f"pruned: {zeros_in(masks):,} zeros, validation {images.validate(network):.4f} before fine-tuning")
    network = phases.run("fine-tuning", network, pruner, epochs=settings.train.epochs)
    zeros = {name: int((~kept).sum()) for name, kept in pruner.finalize().items()}
    structure = {} if request.given.pruned is None else read_plan(request.given.pruned).structure
    return network, _plan(request, images, zeros=zeros, structure=structure)


def _structured(
    request: Request, dense: nn.Module, phases: Phases, announce: Callable[[str], None]
) -> tuple[nn.Module, Plan]:
    """Channels, heads and blocks gone, then training of what is left."""
    small = smaller(request.settings, dense, phases, announce)
    network = phases.run("fine-tuning", on_accelerator(small.network), None, epochs=request.settings.train.epochs)
    plan = _plan(request, phases.images, groups=small.groups)
    return network, replace(plan, structure=structure_from(plan, small.network))
