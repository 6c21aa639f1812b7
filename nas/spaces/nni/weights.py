"""One set of weights for all networks of a model space; each network uses parts of the shared layers."""

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
    """The layers of some networks, by key, and the largest extents of each of their tensors."""

    def __init__(self) -> None:
        self.layers: dict[str, nn.Module] = {}
        self.sizes: dict[str, Sizes] = {}

    def add(self, network: nn.Module) -> str | None:
        """Add the layers of a skeleton.

        Returns:
            The path of a layer that is new, or larger than known; None if there is none.
        """
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
    """Weights for all layers of some networks, each as large as the largest network needs.

    Two layers share weights if they have the same path, inside modules of the same classes and the same candidates of
    layer choices. Depthwise and full convolutions share none. A smaller layer uses the leading channels and the centre
    of the kernels, like the elastic layers of Once-for-All (Cai et al., ICLR 2020, section 3.2) and AutoFormer (Chen et
    al., ICCV 2021, section 3.2). Running statistics are shared in the same way.

    Args:
        inventory: the layers of the networks.
    """

    def __init__(self, inventory: Inventory) -> None:
        super().__init__()
        sizes = inventory.sizes
        self.layers = nn.ModuleDict({key: _shared(layer, sizes[key]) for key, layer in inventory.layers.items()})

    def path(self, network: nn.Module) -> Path:
        """A skeleton that runs with these weights; its batch norms are replaced by the shared ones.

        Args:
            network: the skeleton; changed in place.

        Raises:
            LookupError: there are no weights for a layer, or they are too small; the error has its path.
        """
        parts = []
        for path, key, layer in list(weighted(network)):  # a list, since norms are replaced in the loop
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
        """The parts of the shared tensors, by their names in the network; gradients flow through them."""
        return {part.name: part.of(getattr(self.layers[part.key], part.tensor)) for part in path.parts}


@dataclass(frozen=True)
class Part:
    """A part of a shared tensor, which is a tensor of a network.

    Attributes:
        name: in the network.
        key: of the shared layer.
        tensor: name of the tensor in the shared layer.
        shape: that the tensor is cut to.
        is_kernel: whether it is the weight of a convolution.
    """

    name: str
    key: str
    tensor: str
    shape: torch.Size
    is_kernel: bool

    def of(self, shared: Tensor) -> Tensor:
        """The leading entries of each dimension, but the middle ones of the spatial dimensions of a kernel."""
        for dim, size in enumerate(self.shape):
            if size != shared.shape[dim]:
                start = (shared.shape[dim] - size) // 2 if self.is_kernel and dim >= 2 else 0
                shared = shared.narrow(dim, start, size)
        return shared


@dataclass(frozen=True, eq=False)
class Path:
    """A network without weights.

    Attributes:
        network: the skeleton.
        parts: its weights, as parts of shared tensors.
    """

    network: nn.Module
    parts: list[Part]


def weighted(network: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Path, key of the shared weights, and module, for each module with its own parameters or statistics."""
    keys = {"": ""}
    for path, module in network.named_modules(remove_duplicate=False):
        parent, _, name = path.rpartition(".")
        if path:
            kind = f"{type(module).__name__}{'+' if getattr(module, 'groups', 1) > 1 else ''}"
            keys[path] = f"{keys[parent]}/{name}:{kind}:{getattr(module, CHOSEN, '')}".replace(".", "_")
        if any(True for _ in tensors(module)):
            yield path, keys[path] or "/", module


def tensors(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a layer that are learned: its own parameters, and the statistics of batch norms."""
    yield from layer.named_parameters(recurse=False)
    if is_norm(layer):
        yield from layer.named_buffers(recurse=False)


def _shared(layer: nn.Module, sizes: Sizes) -> nn.Module:
    """Fresh tensors on the CPU, initialised by the layer's class or else from N(0, 0.02^2), truncated at 2 sigma."""
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
