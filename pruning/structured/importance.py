"""Importance scores: one number for each unit of a group; units with the lowest scores are removed first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from espalier.nas.copying import copied
from espalier.nas.errors import UserError
from espalier.pruning.structured.groups import Member, Units
from espalier.pruning.weights import PRUNABLE


class Importance(Protocol):
    """Scores the units of a group.

    Attributes:
        additive: whether scores are increases of the loss, which add up and are divided by the cost of a unit. Other
            scores are compared directly.
    """

    additive: bool

    def __call__(self, model: nn.Module, units: Units) -> Tensor | None:
        """Scores `(units.width,)` on the CPU; None if no score is defined for the group, which then stays dense."""
        ...


class Magnitude:
    """The L2 norm of a unit's weights, incoming and outgoing, relative to the mean of its group.

    The mean over layers l of ||W_l[unit]|| / mean over units of ||W_l[unit]||: Li et al., "Pruning Filters for
    Efficient ConvNets", ICLR 2017, over groups as in Fang et al., CVPR 2023. A block has the mean over its layers of
    ||W|| / sqrt(outputs), the gain on a random signal, relative to the mean over all layers of the network.
    """

    additive = False

    def __call__(self, model: nn.Module, units: Units) -> Tensor:
        if units.kind == "block":
            gains = torch.stack([_gain(layer) for layer in _weighted_in(model.get_submodule(units.name))])
            every = torch.stack([_gain(layer) for layer in _weighted_in(model)])
            return (gains.mean() / every.mean()).reshape(1)
        norms = [
            _sums(layer.weight.detach() ** 2, layer, member, units.width).sqrt()
            for layer, member in _sides(model, units)
        ]
        return torch.stack([norm / norm.mean().clamp_min(torch.finfo(norm.dtype).tiny) for norm in norms]).mean(dim=0)


class Taylor:
    """|sum of w g|: how much the loss changes, to first order, when the unit's weights become zero.

    Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019. The sum is over the weights
    that read the unit, or, if no layer reads it, over those that produce it: to first order both are equal if what
    lies between is homogeneous. A block has the mean over its layers.

    Args:
        gradients: of the loss, by the weights' names, as returned by `mean_gradients`.
    """

    additive = True

    def __init__(self, gradients: Mapping[str, Tensor]) -> None:
        self._gradients = gradients

    def __call__(self, model: nn.Module, units: Units) -> Tensor:
        if units.kind == "block":
            prefix = f"{units.name}."
            parts = [
                (layer.weight.detach() * self._of(f"{prefix}{name}".rstrip("."), layer)).sum().double().cpu()
                for name, layer in model.get_submodule(units.name).named_modules()
                if isinstance(layer, PRUNABLE)
            ]
            return torch.stack(parts).abs().mean().reshape(1)
        sums: dict[str, Tensor] = {}
        for layer, member in _sides(model, units):
            effect = layer.weight.detach() * self._of(member.side[0], layer)
            side = member.side[1]
            sums[side] = sums.get(side, torch.zeros(units.width, dtype=torch.float64)) + _sums(
                effect, layer, member, units.width
            )
        return sums.get("in", sums.get("out", torch.zeros(units.width, dtype=torch.float64))).abs()

    def _of(self, name: str, layer: Any) -> Tensor:
        return _given(self._gradients, f"{name}.weight", layer.weight, "gradient")


class Saliency:
    """The sum of given saliencies of single weights, such as M-FAC's w^2 / (2 [F^-1]_ww), over a unit's weights.

    Each saliency is the increase of the loss if only that weight is removed, so their sum is only an approximation.

    Args:
        saliencies: in the shapes of the weights, by the weights' names.
    """

    additive = True

    def __init__(self, saliencies: Mapping[str, Tensor]) -> None:
        self._saliencies = saliencies

    def __call__(self, model: nn.Module, units: Units) -> Tensor:
        if units.kind == "block":
            parts = [
                self._of(f"{units.name}.{name}".rstrip("."), layer).sum().double().cpu()
                for name, layer in model.get_submodule(units.name).named_modules()
                if isinstance(layer, PRUNABLE)
            ]
            return torch.stack(parts).mean().reshape(1)
        total = torch.zeros(units.width, dtype=torch.float64)
        for layer, member in _sides(model, units):
            total += _sums(self._of(member.side[0], layer), layer, member, units.width)
        return total

    def _of(self, name: str, layer: Any) -> Tensor:
        return _given(self._saliencies, f"{name}.weight", layer.weight, "saliency")


class BatchNormScale:
    """|gamma| of the batch norm of a unit; the mean if there are several.

    Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017.

    Groups without a batch norm stay dense. A block has the mean over its last batch norm.
    """

    additive = False

    def __call__(self, model: nn.Module, units: Units) -> Tensor | None:
        if units.kind == "block":
            inside: list[Any] = [layer for layer in model.get_submodule(units.name).modules() if _has_scale(layer)]
            return inside[-1].weight.detach().abs().mean().double().cpu().reshape(1) if inside else None
        scales = []
        for member in units.members:
            layer = _layer(model, member.side[0])
            if layer is not None and _has_scale(layer):
                sizes = _scatter(torch.ones(len(member.unit_of), dtype=torch.float64), member.unit_of, units.width)
                gamma: Tensor = layer.weight.detach().abs().double().cpu()
                scales.append(_scatter(gamma, member.unit_of, units.width) / sizes)
        return torch.stack(scales).mean(dim=0) if scales else None


class Random:
    """Uniform random numbers, as the baseline for all other importances.

    Args:
        generator: on the CPU.
    """

    additive = False

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def __call__(self, model: nn.Module, units: Units) -> Tensor:
        return torch.rand(units.width, generator=self._generator, dtype=torch.float64)


def mean_gradients(
    model: nn.Module,
    loss: Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    """The gradient of the mean loss over batches, in evaluation mode, by the names of convolutional and linear weights.

    Frozen weights have one too, and weights that a norm computes have that of the computed weight.

    Args:
        model: left as it is; the gradients are those of a copy.
        loss: the mean loss of the model on a batch.
        batches: at least one, all of the same size, on the model's device.

    Raises:
        UserError: there is no batch.
    """
    trained = copied(model).eval().requires_grad_(requires_grad=True)
    layers = {
        f"{name}.weight".lstrip("."): layer for name, layer in trained.named_modules() if isinstance(layer, PRUNABLE)
    }
    totals = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    number = 0
    for batch in batches:
        with torch.enable_grad(), parametrize.cached():  # else each look at a computed weight computes another one
            value = loss(trained, batch)
            used = {name: layer.weight for name, layer in layers.items() if layer.weight.requires_grad}
            gradients = torch.autograd.grad(value, list(used.values()), allow_unused=True)
        for name, gradient in zip(used, gradients, strict=True):
            if gradient is not None:
                totals[name] += gradient
        number += 1
    if not number:
        raise UserError("data", "has no batch to compute gradients on", code="too_few")
    return {name: total / number for name, total in totals.items()}


def _sides(model: nn.Module, units: Units) -> Iterator[tuple[Any, Member]]:
    """Convolutions and linear layers of the group by side; only the outputs of grouped convolutions."""
    for member in units.members:
        layer = _layer(model, member.side[0])
        if isinstance(layer, PRUNABLE) and not (member.side[1] == "in" and getattr(layer, "groups", 1) > 1):
            yield layer, member


def _layer(model: nn.Module, name: str) -> Any:
    try:
        return model.get_submodule(name)
    except AttributeError:  # a bare parameter
        return None


def _sums(values: Tensor, layer: Any, member: Member, width: int) -> Tensor:
    """The sum of values of a weight's shape for each unit, `(width,)`."""
    if getattr(layer, "transposed", False):
        if layer.groups > 1:  # shape (inputs, outputs / groups, ...): the rows of a group are its inputs
            values = values.reshape(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, dim=0)
            values = values * (layer.groups / layer.out_channels)
            return _scatter(values.flatten(1).double().sum(dim=1).cpu(), member.unit_of, width)
        values = values.transpose(0, 1)
    sums = values.movedim(0 if member.side[1] == "out" else 1, 0).flatten(1).double().sum(dim=1).cpu()
    return _scatter(sums, member.unit_of, width)


def _scatter(values: Tensor, unit_of: Tensor, width: int) -> Tensor:
    inside = unit_of >= 0
    return torch.zeros(width, dtype=torch.float64).index_add(0, unit_of[inside], values[inside])


def _weighted_in(module: nn.Module) -> list[Any]:
    return [layer for layer in module.modules() if isinstance(layer, PRUNABLE)]


def _gain(layer: Any) -> Tensor:
    return layer.weight.detach().double().norm().cpu() / len(layer.weight) ** 0.5


def _has_scale(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.affine


def _given(values: Mapping[str, Tensor], name: str, weight: Tensor, what: str) -> Tensor:
    if name not in values:
        raise UserError(name, f"no {what} is given for this weight", code="missing")
    if values[name].shape != weight.shape:
        problem = f"its {what} has shape {tuple(values[name].shape)}, the weight has {tuple(weight.shape)}"
        raise UserError(name, problem, code="mismatch")
    return values[name].detach().to(weight.device)
