"""Parameters and multiply-accumulates of a network, counted by tracing one image through it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from espalier.nas.architecture import Architecture
from espalier.nas.copying import copied
from espalier.nas.space import SearchSpace

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """The size of a network.

    Attributes:
        params: numbers in all parameters.
        macs: multiply-accumulates for one image (batch size 1).
    """

    params: int
    macs: int


def count(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Parameters and multiply-accumulates of a network, or of a single layer.

    Convolutions, matrix products and attention are counted, and a bias as one accumulate for each output.
    Normalisation, activations, pooling and additions are not. This is the convention of NAS-Bench-201. The forward
    pass runs on the meta device (see `run_without_numbers`), and the model is not changed.

    Args:
        model: the network or layer.
        input_shape: of its input without the batch, `(channels, height, width)` for images.
    """

    def macs(copied: nn.Module, x: Tensor) -> int:
        counter = FlopCounterMode(display=False, custom_mapping=_WITH_BIAS)
        with counter:
            copied(x)
        return int(counter.get_total_flops() // 2)

    return Cost(params=sum(p.numel() for p in model.parameters()), macs=run_without_numbers(model, input_shape, macs))


def run_without_numbers(model: nn.Module, input_shape: tuple[int, ...], run: Callable[[nn.Module, Tensor], T]) -> T:
    """Run a copy of a network in evaluation mode on the meta device, where nothing is computed.

    A network that looks at its numbers, such as one that branches on them, cannot run there. It is run on the CPU, on
    an input that is always the same.

    Args:
        model: left as it is. If it is on the meta device, the numbers of a real copy are drawn.
        input_shape: of its input without the batch.
        run: gets the copy and an input `(1, *input_shape)`.

    Returns:
        What `run` returned.
    """
    on_meta = all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    meta = model if on_meta else copied(model).to("meta")
    was_training = meta.training
    try:
        with torch.no_grad():
            return run(meta.eval(), torch.empty((1, *input_shape), device="meta"))
    except Exception:  # noqa: BLE001 - a real run follows, which raises again if the network itself is at fault
        generator = torch.Generator().manual_seed(0)
        real = copied(model).to_empty(device="cpu") if on_meta else copied(model).cpu()
        if on_meta:
            _draw(real, generator)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return run(real.eval().float(), torch.randn((1, *input_shape), generator=generator))
    finally:
        meta.train(was_training)


def _draw(model: nn.Module, generator: torch.Generator) -> None:
    """Fill a network whose memory holds nothing yet."""
    for tensor in [*model.parameters(), *model.buffers()]:
        values = torch.rand(tensor.shape, generator=generator)
        tensor.data.copy_(values if tensor.is_floating_point() else torch.zeros_like(values))


class CostCounter:
    """Counts the costs of a space's architectures, each only once and without real weights.

    Args:
        space: the space; it is copied to the meta device.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = copy.deepcopy(space).to("meta")
        self._known: dict[str, Cost] = {}

    def __call__(self, architecture: Architecture) -> Cost:
        """The cost of the stand-alone network of `architecture`."""
        if architecture.id not in self._known:
            network = self._space.build(architecture)
            self._known[architecture.id] = count(network, self._space.input_shape)
        return self._known[architecture.id]


def _convolution(x: Any, w: Any, bias: Any, *args: Any, out_shape: Any, **_: Any) -> int:
    transposed = bool(args[3])
    return conv_flop_count(x, w, out_shape, transposed=transposed) + 2 * (math.prod(out_shape) if bias else 0)


def _addmm(bias: Any, a: Any, b: Any, *, out_shape: Any, **_: Any) -> int:
    return 2 * a[0] * a[1] * b[1] + 2 * math.prod(out_shape)


_WITH_BIAS = {torch.ops.aten.convolution: _convolution, torch.ops.aten.addmm: _addmm}
