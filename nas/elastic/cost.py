"""The costs of an elastic space's networks; exact, and differentiable in the gates.

The cost of a layer depends on the few choices that decide its sizes, and on those that decide whether it is run. If
architectures are drawn choice by choice, the expected cost is therefore a multilinear form,

    E = fixed + sum_t sum_(o_1, ..., o_m) F_t[o_1, ..., o_m] prod_k p^(k)_(o_k)

with one term t for each set of choices that some layers depend on together (for widths, kernels and heads: products of
sums of coverages). Costs are multiply-accumulates for one image or numbers of parameters, see `nas.cost.count`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from espalier.nas.architecture import Architecture
from espalier.nas.choices import Choice, InputChoice, LayerChoice
from espalier.nas.cost.count import Cost, count
from espalier.nas.elastic.attention import Attend
from espalier.nas.elastic.layer import Elastic, ElasticLayer
from espalier.nas.errors import UserError
from espalier.nas.gates import Gate, Mixture
from espalier.nas.space import SearchSpace

Shape = tuple[int, ...]
Indices = Mapping[str, int]


@runtime_checkable
class Conditional(Protocol):
    """A module that runs some of its parts only for some options of a choice."""

    def conditions(self) -> Mapping[str, tuple[Choice, frozenset[int]]]:
        """For each part, by its path inside: the choice, and the options for which it is run."""


class ElasticCosts:
    """The costs of a space's networks in one unit; made by `elastic_costs` and `espalier.nas.cost.block_table`.

    Args:
        unit: of all numbers.
        space: the space.
        terms: the F_t by the names of their choices, float64 with an axis for each choice; the empty tuple for `fixed`.

    Attributes:
        unit: of all numbers.
    """

    def __init__(
        self, unit: Literal["ms", "macs", "params"], space: SearchSpace, terms: Mapping[tuple[str, ...], Tensor]
    ) -> None:
        self.unit = unit
        self._space = space
        self._terms = dict(terms)
        self._by_name: dict[str, list[tuple[str, ...]]] = {}
        for names in terms:
            for name in names:
                self._by_name.setdefault(name, []).append(names)
        self._moved: dict[tuple[torch.device, torch.dtype], list[tuple[tuple[str, ...], Tensor]]] = {}

    def cost(self, architecture: Architecture) -> float:
        """The cost of one architecture, which is that of its built network."""
        indices = self._space.gates(architecture)
        return sum(float(term[tuple(indices[name] for name in names)]) for names, term in self._terms.items())

    @property
    def choices(self) -> Collection[str]:
        """The choices that costs depend on."""
        return self._by_name.keys()

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """E, a differentiable scalar, of architectures drawn choice by choice.

        Args:
            probabilities: `(options,)` for each choice that costs depend on; further ones are ignored.
        """
        like = next(iter(probabilities.values()))
        total = like.new_zeros(())
        for names, term in self._on(like):
            value = term
            for name in names:
                value = torch.tensordot(probabilities[name], value, dims=1)
            total = total + value
        return total

    def marginal(self, name: str, indices: Indices) -> list[float]:
        """The part of the cost that depends on one choice, for each of its options.

        Args:
            name: of the choice.
            indices: the options of the other choices.
        """
        options = self._space.choices()[name].options
        total = torch.zeros(len(options), dtype=torch.float64)
        for names in self._by_name.get(name, ()):
            total += self._terms[names][tuple(slice(None) if n == name else indices[n] for n in names)]
        return total.tolist()

    def cheapest(self, open_options: Mapping[str, Sequence[int]]) -> float:
        """The lowest cost in a region, term by term: a lower bound, which no single architecture may reach."""
        return self._extreme(open_options, torch.amin)

    def most_expensive(self, open_options: Mapping[str, Sequence[int]]) -> float:
        """The highest cost in a region, term by term: an upper bound, which no single architecture may reach."""
        return self._extreme(open_options, torch.amax)

    def _extreme(self, open_options: Mapping[str, Sequence[int]], pick: Callable[[Tensor], Tensor]) -> float:
        total = 0.0
        for names, term in self._terms.items():
            part = term
            for axis, name in enumerate(names):
                part = part.index_select(axis, torch.tensor(open_options[name]))
            total += float(pick(part))
        return total

    def _on(self, like: Tensor) -> list[tuple[tuple[str, ...], Tensor]]:
        key = (like.device, like.dtype)
        if key not in self._moved:
            self._moved[key] = [(names, term.to(like)) for names, term in self._terms.items()]
        return self._moved[key]


def elastic_costs(space: SearchSpace, unit: Literal["macs", "params"]) -> ElasticCosts:
    """The costs of a space with elastic choices and layer choices. Runs on the meta device only.

    One forward pass with all options open finds every layer and the shape of its input. Each layer is then counted for
    each joint option of the choices that it depends on.

    Args:
        space: any space without choices between inputs.
        unit: what to count.

    Raises:
        UserError: the space has choices between inputs.
    """
    choices = space.choices()
    for choice in choices.values():
        if isinstance(choice, InputChoice):
            problem = (
                f"costs cannot be counted layer by layer with both elastic choices and the InputChoice {choice.name!r}"
            )
            raise UserError("space", problem, code="unsupported")
    meta = copy.deepcopy(space).to("meta").eval()
    conditions = list(_conditions(meta))
    terms: dict[tuple[str, ...], Tensor] = {}
    seen: set[nn.Module] = set()
    for path, module, shape in _visits(meta):
        if unit == "params" and module in seen:
            continue  # a layer that is run twice has only one set of parameters
        seen.add(module)
        own = _names(module)
        runs: dict[str, frozenset[int]] = {}
        for inside, choice, options in conditions:
            if path.startswith(f"{inside}."):
                runs[choice.name] = runs.get(choice.name, options) & options
        names = tuple(name for name in choices if name in own or name in runs)
        sizes = [len(choices[name].options) for name in names]
        term = terms.setdefault(names, torch.zeros(sizes, dtype=torch.float64))
        counted: dict[tuple[int, ...], float] = {}
        for joint in itertools.product(*map(range, sizes)):
            indices = dict(zip(names, joint, strict=True))
            if all(indices[name] in options for name, options in runs.items()):
                key = tuple(indices[name] for name in names if name in own)
                if key not in counted:
                    counted[key] = getattr(_cost(module, shape, indices), unit)
                term[joint] += counted[key]
    return ElasticCosts(unit, space, terms)


def _visits(meta: SearchSpace) -> list[tuple[str, nn.Module, Shape]]:
    """Path, module and input shape (without the batch) of every run of a layer that may have a cost."""
    visits: list[tuple[str, nn.Module, Shape]] = []

    def record(path: str) -> Any:
        return lambda module, args, output: visits.append((path, module, _shape(args)))

    hooks = []
    inside = [path for path, module in meta.named_modules() if isinstance(module, Elastic | Attend)]
    for path, module in meta.named_modules():
        is_part = any(path.startswith(f"{outer}.") for outer in inside)
        if isinstance(module, Elastic | Attend) or (not is_part and not list(module.children())):
            hooks.append(module.register_forward_hook(record(path)))
    gates: dict[str, Gate] = {
        name: Mixture(torch.ones(len(choice.options), device="meta"), tuple(range(len(choice.options))))
        for name, choice in meta.choices().items()
    }
    with torch.no_grad():
        meta(torch.empty((1, *meta.input_shape), device="meta"), gates)
    for hook in hooks:
        hook.remove()  # counting runs the layers again
    return visits


def _conditions(meta: SearchSpace) -> Iterator[tuple[str, Choice, frozenset[int]]]:
    """Path, choice, and the options for which the module at this path is run."""
    for path, module in meta.named_modules():
        if isinstance(module, LayerChoice):
            for index, option in enumerate(module.options):
                yield f"{path}.candidates.{option}", module, frozenset({index})
        elif isinstance(module, Conditional):
            for part, (choice, options) in module.conditions().items():
                yield f"{path}.{part}", choice, options


def _names(module: nn.Module) -> frozenset[str]:
    """The choices that decide a module's sizes."""
    return frozenset(part.name for part in module.modules() if isinstance(part, Choice))


def _cost(module: nn.Module, shape: Shape, indices: Indices) -> Cost:
    """The cost of a layer on a path; `shape` is that of its input at the largest sizes."""
    if isinstance(module, Attend):
        tokens, inner = shape[0], module.inner.size(indices)
        return Cost(params=0, macs=2 * tokens * tokens * inner)
    if isinstance(module, ElasticLayer):
        size = module.input_size(indices)
        cut = (size, *shape[1:]) if len(shape) == 3 else (*shape[:-1], size)
        return count(module.extract(indices), cut)
    if isinstance(module, Elastic):
        part = module.extract(indices)
        return Cost(params=part.numel() if isinstance(part, nn.Parameter) else 0, macs=0)
    return count(module, shape)


def _shape(args: tuple[Any, ...]) -> Shape:
    return tuple(args[0].shape[1:]) if isinstance(args[0], Tensor) else ()
