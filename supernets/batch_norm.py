"""Batch normalisation while a supernet is evaluated, not trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Within it, batch norms in training mode normalise by the batch and leave their running statistics alone.

    The running statistics of a supernet belong to no single path, and an evaluation must not change them. This also
    works with `torch.func.functional_call`.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False  # the buffers stay, torch neither reads nor writes them
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
