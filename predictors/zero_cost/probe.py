"""One untrained network and one batch, asked for any number of scores."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from espalier.nas.copying import copied
from espalier.predictors.zero_cost.network import layer_weights

T = TypeVar("T")
Reading = Literal["codes", "gradients", "maps", "curvature", "jacobian"]
"""What a score may read of the shared `BatchPass`."""


class Probe:
    """Answers scores about one network on one batch; what several of them need is computed once.

    It works on copies, and keeps what it has computed until it is dropped.

    Args:
        model: the network.
        x: images `(n, channels, height, width)`.
        y: labels `(n,)`.
        reads: what all scores to be asked read of the shared pass.
        seed: of what the scores draw at random.
        own: the network is nobody else's, so needs no copy to be kept from changes.

    Attributes:
        y: the labels, on the network's device.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        reads: frozenset[Reading] = frozenset(),
        seed: int = 0,
        own: bool = False,
    ) -> None:
        self.device = next((tensor.device for tensor in model.parameters()), x.device)
        self._x = x.detach().to(self.device, torch.float32)
        self.y = y.to(self.device)
        self.reads = reads
        self._seed = seed
        self._initial = (model if own else copied(model)).float().train().requires_grad_(True)
        self._initial.zero_grad(set_to_none=True)
        self._kept: dict[Callable[[Probe], Any], Any] = {}

    @property
    def x(self) -> Tensor:
        """A copy of the images, on the network's device, in float32: a network may write into its input."""
        return self._x.clone()

    def network(self) -> nn.Module:
        """A copy of the network to use up, in float32 and training mode, all parameters requiring grad."""
        return copy.deepcopy(self._initial)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The initial weights w by name; see `layer_weights`."""
        return {name: weight.detach() for name, weight in layer_weights(self._initial).items()}

    @property
    def parameters(self) -> int:
        """The number of all the network's parameters."""
        return sum(parameter.numel() for parameter in self._initial.parameters())

    def once(self, make: Callable[[Probe], T]) -> T:
        """What the function makes of this probe, made when it is first asked for.

        Its random draws are its own, so they do not depend on who asks, nor do those of the caller on it.
        """
        if make not in self._kept:
            with self.seeded(f"{make.__module__}.{make.__qualname__}"):
                self._kept[make] = make(self)
        return self._kept[make]

    @contextmanager
    def seeded(self, purpose: str) -> Iterator[None]:
        """Seeds the global generators by the probe's seed and the purpose; see `seeded_generators`."""
        digest = hashlib.sha256(f"{self._seed}/{purpose}".encode()).digest()
        with seeded_generators(int.from_bytes(digest[:4]), self.device):
            yield


@contextmanager
def seeded_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the global generators of torch (CPU and `device`), numpy and Python, and puts them back at the end."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [] if device.type in ("cpu", "meta") else [device]
    try:
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
