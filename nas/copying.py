"""Copies of networks as people have them: wrapped for several devices, compiled, with old weight norm, or lazy."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from espalier.nas.errors import UserError


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, out of `DataParallel`, `DistributedDataParallel` and `torch.compile`."""
    while True:
        inner = getattr(network, "_orig_mod", None)
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = network.module
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def copied(network: nn.Module, *, where: str = "model") -> nn.Module:
    """A deep copy of the network, unwrapped.

    Weights that are computed before each run, as by the old `torch.nn.utils.weight_norm`, are copied by value: they are
    computed again in the copy.

    Args:
        network: left as it is.
        where: the key or file that holds it, for the error.

    Raises:
        UserError: it cannot be copied, or has layers that take their sizes from the first input and have not run.
    """
    network = unwrapped(network)
    require_sizes(network, where=where)
    computed = [
        value
        for module in network.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    try:
        return copy.deepcopy(network, {id(value): value.detach().clone() for value in computed})
    except Exception as error:  # whatever a module of the user's holds
        first = next(iter(str(error).splitlines()), type(error).__name__)
        problem = f"cannot be copied ({type(error).__name__}: {first[:300]})"
        raise UserError(where, problem, code="unsupported") from error


def require_sizes(network: nn.Module, *, where: str = "model") -> None:
    """Raises UserError for a layer that takes its sizes from the first input and has not run."""
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if is_lazy(tensor):
            problem = f"{name!r} has no size before the first input: run the network once, or give the layer its size"
            raise UserError(where, problem, code="unsupported")
