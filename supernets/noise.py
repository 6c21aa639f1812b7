"""Common random numbers: each layer of a network draws from a random stream of its own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

_DRAWING = (_DropoutNd, nn.RReLU, nn.MultiheadAttention)
"""Layers of torch that draw random numbers."""


@contextmanager
def paired_noise(network: nn.Module, seed: int) -> Iterator[None]:
    """Within it, one forward pass whose noise in each layer depends on `seed` and the layer's name alone.

    So two passes that run different layers, or the same layers with other weights, differ only by that, and not by the
    noise of all later layers (common random numbers). A layer that runs again draws new numbers. Torch's global
    generators are restored. This also works with `torch.func.functional_call`.
    """
    devices = {parameter.device for parameter in network.parameters() if parameter.is_cuda}
    generators = [torch.default_generator, *(torch.cuda.default_generators[device.index] for device in devices)]
    before = [generator.get_state() for generator in generators]
    runs: Counter[str] = Counter()

    def begin(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        runs[name] += 1
        digest = hashlib.sha256(f"{seed}/{name}/{runs[name]}".encode()).digest()
        for generator in generators:  # far cheaper than torch.manual_seed, which checks every kind of device
            generator.manual_seed(int.from_bytes(digest[:4]))

    drawing = [(name, module) for name, module in network.named_modules() if _may_draw(module)]
    hooks = [module.register_forward_pre_hook(partial(begin, name)) for name, module in drawing]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def _may_draw(module: nn.Module) -> bool:
    """Torch's own layers that draw, and any layer that is not torch's."""
    return isinstance(module, _DRAWING) or not type(module).__module__.startswith("torch.nn.")
