"""Which module each part of a network belongs to, and which choices decide what is computed there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx, nn

from espalier.nas.choices import Choice, LayerChoice
from espalier.nas.elastic.cost import Conditional
from espalier.nas.elastic.layer import Elastic
from espalier.nas.space import SearchSpace


class BlockOwners:
    """The modules of a space that own blocks, and the choices that layers depend on.

    Owners are, from the outside in: parts that are run only under some options (`Conditional`), layer choices with the
    modules that hold nothing but this choice, and the parents of elastic layers.

    Args:
        space: the space whose networks are cut.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._modules = dict(space.named_modules())
        self._conditional = {
            f"{path}.{part}": choice.name if len(options) < len(choice.options) else None
            for path, module in self._modules.items()
            if isinstance(module, Conditional)
            for part, (choice, options) in module.conditions().items()
        }
        self._paths = set(self._conditional)
        self._add_layer_choices()
        self._add_elastic_layers()

    def _add_layer_choices(self) -> None:
        """Own a layer choice by the outermost module that holds no other one, with what it does around the choice."""
        choices = [path for path, module in self._modules.items() if isinstance(module, LayerChoice)]
        for path in choices:
            if not self._outer(path):
                owner = path
                while (above := owner.rpartition(".")[0]) and sum(p.startswith(f"{above}.") for p in choices) == 1:
                    owner = above
                self._paths.add(owner)

    def _add_elastic_layers(self) -> None:
        """Own elastic layers by the outermost module that depends on the same choices."""
        for path, module in self._modules.items():
            above = path.rpartition(".")[0]
            if isinstance(module, Elastic) and above and not self._outer(path):
                while (higher := above.rpartition(".")[0]) and self._same_choices(higher, above):
                    above = higher
                self._paths.add(above)

    def _same_choices(self, one: str, other: str) -> bool:
        return _names(self._modules[one]) == _names(self._modules[other])

    def of(self, node: fx.Node) -> str | None:
        """The path of the module that owns a node; None if none does."""
        inside = list(node.meta.get("nn_module_stack") or ())
        path = str(inside[-1]).removeprefix("space").removeprefix(".") if inside else ""
        return self._outer(path)

    def is_cut(self, owner: str) -> bool:
        """Whether an owner is made of several blocks in a row."""
        return owner in self._conditional

    def conditions_of(self, slot: str) -> list[str]:
        """The choice that decides whether a slot's blocks are run, if they are not always run."""
        condition = self._conditional.get(slot.partition(" ")[0])
        return [] if condition is None else [condition]

    def family(self, slot: str, label: str) -> str:
        """The family of a slot's blocks: the option's label if they hold a layer choice, else the module's class."""
        owner, _, part = slot.partition(" ")
        if owner == "rest":
            return slot
        module = self._space.get_submodule(owner)
        if any(isinstance(inner, LayerChoice) for inner in module.modules()):
            return label
        return f"{type(module).__name__} {part}".strip()

    def choices_of(self, node: fx.Node) -> Iterator[str]:
        """The choices that decide which layer a node calls, and the layer's sizes."""
        targets = [n.target for n in (node, *node.all_input_nodes) if n.op == "get_attr" or n is node]
        for target in targets:
            if node.op != "call_module" and target is node.target:
                continue
            part: Any = self._space
            for name in str(target).split("."):
                part = getattr(part, name)
                if isinstance(part, LayerChoice):
                    yield part.name
            if isinstance(part, nn.Module):
                yield from (inner.name for inner in part.modules() if isinstance(inner, Choice))

    def _outer(self, path: str) -> str | None:
        while path and path not in self._paths:
            path = path.rpartition(".")[0]
        return path or None


def _names(module: nn.Module) -> set[str]:
    return {inner.name for inner in module.modules() if isinstance(inner, Choice)}
