"""The one loop that trains every supernet; strategies differ only in the gates they produce."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas.progress import Track, silent
from nas.space import SearchSpace
from nas.task import Classification
from nas.training import BatchSource, Training, TrainSettings, train
from supernets.strategy import Strategy, check_supports


def train_supernet(
    space: SearchSpace,
    strategy: Strategy,
    settings: TrainSettings,
    batches: BatchSource,
    *,
    task: Classification,
    generator: torch.Generator,
    seed: int,
    checkpoint: Path | None = None,
    track: Track = silent,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train the shared weights of `space` in place, one draw of gates for each batch.

    Args:
        space: the supernet, already on its device.
        strategy: draws the gates. settings: of the weights' training. batches: training batches.
        task: gives the loss. generator: orders and augments the batches. seed: of the draws of paths.
        checkpoint: resumed from if it is there, written after each epoch.
        track: shows progress. on_epoch: called with each epoch's row.

    Returns:
        A row of numbers for each epoch.

    Raises:
        UserError: the strategy cannot open a choice of the space, or the checkpoint is damaged.
        Diverged: the loss is not finite.
    """
    check_supports(strategy, space)
    paths = torch.Generator().manual_seed(seed)
    training = Training(
        space,
        settings,
        batches,
        task=task,
        generator=generator,
        forward=lambda x: space(x, strategy.weight_gates(paths)),
    )
    rows = train(
        training,
        checkpoint=checkpoint,
        extra=_StrategyState(strategy, paths),
        track=track,
        description=f"supernet ({strategy.name})",
        on_epoch=on_epoch,
    )
    space.load_state_dict(training.result.state_dict())  # the moving average, where there is one
    return rows


@dataclass
class _StrategyState:
    strategy: Strategy
    paths: torch.Generator

    def state_dict(self) -> dict[str, Any]:
        return {"strategy": self.strategy.state_dict(), "paths": self.paths.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.strategy.load_state_dict(state["strategy"])
        self.paths.set_state(state["paths"])
