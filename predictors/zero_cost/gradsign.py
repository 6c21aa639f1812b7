"""GradSign: do the images agree in which direction each weight should move?"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, vmap
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from espalier.predictors.zero_cost.network import ScoreError, layer_weights, logits
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score

Loss = Callable[[Tensor, Tensor], Tensor]
CHUNK = 16  # images differentiated at once: as fast as any larger chunk on a CPU, in memory 16 gradients

_log = logging.getLogger(__name__)


class GradSign(Score):
    """Σ_k |Σ_i sign(g_ik)|, g_ik the gradient of image i's cross-entropy by weight k of Conv2d and Linear layers.

    Zhang & Jia, "GradSign: Model Performance Inference with Theoretical Insights", ICLR 2022, algorithm 1. Lies in
    [0, n d] for n images and d weights, and grows with d.

    Batch norm is in training mode on one image at a time, so no gradient depends on another image. A batch norm that
    sees a single value per channel then has no statistics: `ScoreError`. A gradient that is nan makes the score nan
    (the authors' code leaves such weights out).
    """

    name = "gradsign"
    needs = frozenset({"images", "labels", "loss"})
    batch_norm = "each image"

    def compute(self, probe: Probe) -> float:
        return agreement(sign_sums(probe.network(), probe.x, probe.y))


def agreement(sums: dict[str, Tensor] | None) -> float:
    """Σ_k |S_k|; nan without sums."""
    return float("nan") if sums is None else float(sum(int(s.abs().sum()) for s in sums.values()))


def sign_sums(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = F.cross_entropy, chunk: int = CHUNK
) -> dict[str, Tensor] | None:
    """S_k = Σ_i sign(g_ik) for every weight, as integers; None where a gradient is nan. Uses up the model.

    All images of a chunk are differentiated together by `torch.func`. A model that it cannot run (a branch on the
    value of a tensor, an old-style autograd function) is differentiated image by image, with a logged warning.

    Args:
        model: in training mode.
        x: images `(n, ...)`.
        y: targets `(n, ...)`.
        loss: of outputs and targets of a batch of one image.
        chunk: images at once.

    Raises:
        ScoreError: a batch norm has one value per channel in one image.
    """
    replace_all_batch_norm_modules_(model)  # no running statistics, which torch.func must not write
    _refuse_single_values(model)
    try:
        return _together(model, x, y, loss, chunk)
    except RuntimeError as error:  # an error of the model's own comes again from the loop
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        _log.warning("gradsign: differentiated image by image, as torch.func cannot run the network (%s)", cause)
    return one_by_one(model, x, y, loss)


def one_by_one(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = F.cross_entropy) -> dict[str, Tensor] | None:
    """What `sign_sums` returns, by one backward pass for each image."""
    weights = {name: weight.requires_grad_() for name, weight in layer_weights(model).items()}
    sums = _zeros(weights)
    for i in range(len(x)):
        value = loss(logits(model(x[i : i + 1]), 1), y[i : i + 1])
        gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        if not _add(sums, {k: g[None] for k, g in zip(weights, gradients, strict=True) if g is not None}):
            return None
    return sums


def _together(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, chunk: int) -> dict[str, Tensor] | None:
    model.requires_grad_(False)  # torch.func differentiates by its argument; no second graph beside it
    weights = {name: weight.detach() for name, weight in layer_weights(model).items()}

    def loss_of_one(weights: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        return loss(logits(functional_call(model, weights, (image[None],)), 1), target[None])

    gradients_of = vmap(grad(loss_of_one), in_dims=(None, 0, 0), randomness="different")
    sums = _zeros(weights)
    for images, targets in zip(x.split(chunk), y.split(chunk), strict=True):
        if not _add(sums, gradients_of(weights, images, targets)):
            return None
    return sums


def _zeros(weights: dict[str, Tensor] | dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: torch.zeros(w.shape, dtype=torch.int32, device=w.device) for name, w in weights.items()}


def _add(sums: dict[str, Tensor], gradients: dict[str, Tensor]) -> bool:
    """Add the signs of per-image gradients `(images, *shape)`; False where one is nan, which has no sign."""
    for name, gradient in gradients.items():
        if bool(gradient.isnan().any()):
            return False
        sums[name] += gradient.sign().sum(0).to(torch.int32)
    return True


def _refuse_single_values(model: nn.Module) -> None:
    def check(path: str, x: Tensor) -> None:
        if x.numel() == x.shape[1]:
            raise ScoreError(
                path,
                f"batch norm of {tuple(x.shape)}: one value per channel has no statistics; "
                "gradsign takes one image at a time and needs larger images here",
            )

    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(lambda _, inputs, path=path: check(path, inputs[0]))
