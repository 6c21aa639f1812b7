"""How much each option of a space's layer choices matters to training: the norms of the gradients of its weights.

Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from espalier.nas.choices import LayerChoice
from espalier.nas.data.importance import Average
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace

Scope = Literal["option", "choice"]
Places = Literal["sum", "mean"]
Scale = Literal["none", "size"]
ParameterFree = Literal["zero", "uniform"]


@dataclass(frozen=True)
class Statistic:
    """What a step observes of an option o of a path a, and how an epoch's steps become its importance G_o.

    s_o is made of the norms ||dL/dW|| of the weights W (kernels and matrices, not biases and norms) of o.

    Attributes:
        scope: of the table of G: one entry for all options of one name, or one for each option of each choice.
        scale: `size` divides each norm by sqrt(number of elements), else larger kernels matter more by their size.
        places: `mean` over all weights of o wherever the path has it, or the `sum` divided only by the number of
            choices at which the path has it, so that deeper blocks and repeated cells count for more.
        average: of the steps of an epoch with s_o != 0 by running_half from 0, G <- (G + s) / 2, or of all the mean.
        carry: whether an option that an epoch has not drawn keeps its G; otherwise every epoch begins with 0.
        parameter_free: the share of options without weights: none of the sum of G, or 1 / (number of options).
    """

    scope: Scope
    scale: Scale
    places: Places
    average: Average
    carry: bool
    parameter_free: ParameterFree


class OptionImportance:
    """The table of G of a space. Norms stay on the device until an epoch ends.

    Args:
        space: whose layer choices they are; all other choices have no entry.
        statistic: how steps become G.
    """

    def __init__(self, space: SearchSpace, statistic: Statistic) -> None:
        self._statistic = statistic
        self._weights: dict[str, list[list[Tensor]]] = {}
        self._entries: dict[tuple[str, int], int] = {}
        entries: dict[tuple[str, str], int] = {}
        for module in space.modules():
            if isinstance(module, LayerChoice):
                found = self._weights.setdefault(module.name, [[] for _ in module.options])
                for index, option in enumerate(module.options):
                    if not module.is_zero(index):
                        found[index] += [w for w in module.candidates[str(option)].parameters() if w.dim() > 1]
                    key = ("" if statistic.scope == "option" else module.name, str(option))
                    self._entries[module.name, index] = entries.setdefault(key, len(entries))
        self.values = torch.full((len(entries),), torch.nan, dtype=torch.float64)
        self._norms: list[Tensor] = []
        self._steps: list[_Step] = []

    def distinguishes(self, name: str, options: Sequence[int]) -> bool:
        """Whether G can differ between these options of a choice."""
        with_weights = [o for o in options if name in self._weights and self._weights[name][o]]
        return len(with_weights) > 1 or (
            self._statistic.parameter_free == "zero" and 0 < len(with_weights) < len(options)
        )

    def observe(self, path: Gates) -> None:
        """Take the norms of a step's gradients. A place that the rest of the path cuts off has a gradient of 0."""
        step, gradients = _Step(), []
        for name, options in self._weights.items():
            gate = path[name]
            if not isinstance(gate, int) or not options[gate]:
                continue
            entry, weights = self._entries[name, gate], options[gate]
            reached = [w.grad for w in weights if w.grad is not None]
            gradients += reached
            step.entries.extend([entry] * len(reached))
            step.sizes.extend(gradient.numel() for gradient in reached)
            step.counted.extend([entry] * (len(weights) if self._statistic.places == "mean" else 1))
        self._steps.append(step)
        if gradients:
            self._norms.append(torch.stack(torch._foreach_norm(gradients)))

    def end_epoch(self) -> None:
        """Make G of the steps of an epoch: its one transfer from the device."""
        if not self._steps:
            return
        s, drawn = self._observations()
        self._norms, self._steps = [], []
        new = running_half(s) if self._statistic.average == "half" else torch.where(drawn, s, 0).sum(0) / drawn.sum(0)
        if self._statistic.carry:
            new = torch.where(drawn.any(0), new, self.values)
        self.values = new

    def _observations(self) -> tuple[Tensor, Tensor]:
        """S and whether it was drawn, both (steps, entries)."""
        number = [i for i, step in enumerate(self._steps) for _ in step.entries]
        entries = [entry for step in self._steps for entry in step.entries]
        norms = torch.cat(self._norms).cpu().double() if self._norms else torch.empty(0, dtype=torch.float64)
        if self._statistic.scale == "size":
            norms /= torch.tensor([size for step in self._steps for size in step.sizes]).double().sqrt()
        s = torch.zeros((len(self._steps), len(self.values)), dtype=torch.float64)
        s.index_put_((torch.tensor(number).long(), torch.tensor(entries).long()), norms, accumulate=True)
        counts = torch.stack([torch.tensor(step.counted).long().bincount(minlength=s.shape[1]) for step in self._steps])
        return s / counts.clamp(min=1), counts > 0

    def distribution(self, name: str, options: Sequence[int], tau: float) -> list[float] | None:
        """p_o = tau G_o / sum G + (1 - tau) / K over K options of a choice; None where it is uniform."""
        if tau == 0 or not self.distinguishes(name, options):
            return None
        has_weights = torch.tensor([bool(self._weights[name][o]) for o in options])
        g = self.values[[self._entries[name, o] for o in options]]
        known = g[has_weights & ~g.isnan()]
        if not len(known) or known.sum() == 0:
            return None
        g = g.nan_to_num(float(known.mean()) if self._statistic.carry else 0.0)
        g = torch.where(has_weights, g, g[has_weights].mean() if self._statistic.parameter_free == "uniform" else 0.0)
        return (tau * g / g.sum() + (1 - tau) / len(options)).tolist()

    def state_dict(self) -> dict[str, Any]:
        """G as after the last epoch."""
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            UserError: it is of another space, or of another scope.
        """
        if state["values"].shape != self.values.shape:
            problem = f"{len(state['values'])} entries, but this space with this scope has {len(self.values)}"
            raise UserError("checkpoint.importance", problem, code="mismatch")
        self.values = state["values"]


@dataclass(frozen=True)
class _Step:
    """What a step has seen.

    Attributes:
        entries: the entry of each norm.
        sizes: number of weights of each norm.
        counted: the entries drawn, as often as s is divided for them.
    """

    entries: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)


def running_half(s: Tensor) -> Tensor:
    """G = 0, then G <- (G + s) / 2 for each row of s `(steps, entries)`, left alone where s is 0."""
    g = torch.zeros(s.shape[1], dtype=s.dtype)
    for row in s:
        g = torch.where(row != 0, (g + row) / 2, g)
    return g
