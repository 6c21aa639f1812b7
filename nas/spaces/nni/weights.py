"""One set of weights for all the networks of a model space: each takes the part of a shared layer that fits it."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from espalier.nas.spaces.nni.blueprint import CHOSEN, is_norm

Sizes = dict[str, tuple[int, ...]]
"""Shapes of a layer's tensors, by name."""


class Inventory:
    """The layers that some networks need, by key, and the largest extents of each of their tensors."""

    def __init__(self) -> None:
        self.layers: dict[str, nn.Module] = {}
        self.sizes: dict[str, Sizes] = {}

    def add(self, network: nn.Module) -> str | None:
        """Take up a skeleton; the path of a layer in it that is new or larger than known, None where none is."""
        new = None
        for path, key, layer in weighted(network):
            self.layers.setdefault(key, layer)
            sizes = self.sizes.setdefault(key, {})
            for name, tensor in tensors(layer):
                size = tuple(map(max, sizes.get(name, tensor.shape), tensor.shape))
                new = path if sizes.get(name) != size else new
                sizes[name] = size
        return new


class SharedWeights(nn.Module):
    """The largest weights that any of some networks needs, for each place where a network has some.

    Two layers share their weights when they stand at the same path, inside modules of the same classes and the same
    candidates of layer choices; a depthwise convolution shares none with a full one. A smaller layer uses the leading
    channels and the centre of the kernels, as the elastic layers of Once-for-All (Cai et al., ICLR 2020, section
    3.2) and AutoFormer (Chen et al., ICCV 2021, section 3.2) do. Running statistics are shared alike.

    Args:
        inventory: what the networks need.
    """

    def __init__(self, inventory: Inventory) -> None:
        super().__init__()
        sizes = inventory.sizes
        self.layers = nn.ModuleDict({key: _shared(layer, sizes[key]) for key, layer in inventory.layers.items()})

    def path(self, network: nn.Module) -> Path:
        """A skeleton that runs with these weights; the shared batch norms stand in it, where others can find them.

        Raises:
            LookupError: a layer finds no weights here, or too small ones; its path is named.
        """
        parts = []
        for path, key, layer in list(weighted(network)):  # norms are replaced on the way
            shared = dict(tensors(self.layers[key])) if key in self.layers else {}
            for name, tensor in tensors(layer):
                if name not in shared or any(map(operator.gt, tensor.shape, shared[name].shape)):
                    raise LookupError(path)
                parts.append(Part(f"{path}.{name}".lstrip("."), key, name, tensor.shape, isinstance(layer, _ConvNd)))
            if is_norm(layer):
                network.set_submodule(path, self.layers[key])
        _constants_to(network, next(self.parameters()).device)
        return Path(network, parts)

    def views(self, path: Path) -> dict[str, Tensor]:
        """The parts of the shared tensors by the names they have in the network; gradients flow through them."""
        return {part.name: part.of(getattr(self.layers[part.key], part.tensor)) for part in path.parts}


@dataclass(frozen=True)
class Part:
    """Where a tensor of a network is found: `tensor` of the shared layer `key`, cut to `shape`."""

    name: str
    key: str
    tensor: str
    shape: torch.Size
    is_kernel: bool

    def of(self, shared: Tensor) -> Tensor:
        """The leading entries of each dimension; of the extents of a kernel the middle ones."""
        for dim, size in enumerate(self.shape):
            if size != shared.shape[dim]:
                start = (shared.shape[dim] - size) // 2 if self.is_kernel and dim >= 2 else 0
                shared = shared.narrow(dim, start, size)
        return shared


@dataclass(frozen=True, eq=False)
class Path:
    """A network without weights of its own, and where its weights are found."""

    network: nn.Module
    parts: list[Part]


def weighted(network: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Path, key of its shared weights, and module, for each module with parameters or statistics of its own."""
    keys = {"": ""}
    for path, module in network.named_modules(remove_duplicate=False):
        parent, _, name = path.rpartition(".")
        if path:
            kind = f"{type(module).__name__}{'+' if getattr(module, 'groups', 1) > 1 else ''}"
            keys[path] = f"{keys[parent]}/{name}:{kind}:{getattr(module, CHOSEN, '')}".replace(".", "_")
        if any(True for _ in tensors(module)):
            yield path, keys[path] or "/", module


def tensors(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a layer learns: its own parameters, and the statistics of a batch norm."""
    yield from layer.named_parameters(recurse=False)
    if is_norm(layer):
        yield from layer.named_buffers(recurse=False)


def _shared(layer: nn.Module, sizes: Sizes) -> nn.Module:
    """Fresh tensors of these sizes on the CPU: as the layer's class draws them, else from N(0, 0.02^2), cut at 2."""
    fresh: Any = copy.copy(layer)
    fresh._modules = {}
    fresh._parameters = {
        name: None if parameter is None else nn.Parameter(torch.empty(sizes[name]))
        for name, parameter in layer._parameters.items()
    }
    if is_norm(layer):
        fresh._buffers = {
            name: None if buffer is None else torch.empty(sizes[name], dtype=buffer.dtype)
            for name, buffer in layer._buffers.items()
        }
        fresh.num_features = max(size[0] for size in sizes.values() if size)
    if callable(reset := getattr(fresh, "reset_parameters", None)):
        reset()
    else:
        for parameter in fresh.parameters():
            nn.init.trunc_normal_(parameter, std=0.02)
    if is_norm(layer):
        return fresh
    holder = nn.Module()
    for name, parameter in fresh.named_parameters():
        holder.register_parameter(name, parameter)
    return holder


def _constants_to(network: nn.Module, device: torch.device) -> None:
    for module in network.modules():
        if not is_norm(module):
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(device)
