"""The one loop that trains every supernet; strategies differ only in the gates they produce."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from espalier.nas.data.batches import Order
from espalier.nas.device import autocast
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.progress import Track, silent
from espalier.nas.space import SearchSpace
from espalier.nas.task import Batch, Classification
from espalier.nas.training import BatchSource, Training, TrainSettings, train
from espalier.supernets.early_stop import EarlyStop
from espalier.supernets.effective_decay import EffectiveDecay
from espalier.supernets.strategy import Step, Strategy, check_supports


@runtime_checkable
class Reorderable(Protocol):
    """Batches whose images and order something else may choose."""

    def follow(self, order: Order) -> None:
        """From now on `order` chooses the images of each epoch."""
        ...


class SupernetTraining(Training):
    """The training of a space's shared weights, and of its strategy's architecture parameters.

    Args:
        space: the supernet, already on its device; trained in place.
        strategy: draws the gates of each step.
        settings: of the weights' training.
        batches: training batches; a strategy that chooses the images makes them follow its order.
        validation: the batches that architecture parameters learn from; each epoch begins with new ones.
        task: gives the loss.
        generator: orders and augments the batches, those of `validation` too.
        seed: of the draws of gates.
        stop: what to measure after each epoch, and when to end early.
        follows: epochs of the training that this one continues; the strategy's own schedules, such as a warm-up or a
            temperature, then stay at their final values.
        penalty: a function of the gates that is added to every loss; it replaces the optimiser's decay of the weights
            that it shrinks.

    Attributes:
        learns: whether the strategy acts before and after the steps of the weights; to be set before an epoch.

    Raises:
        UserError: the strategy does not support a choice of the space, or learns without images to learn from.
        TypeError: it chooses the images, which the batches do not support.
    """

    task: Classification

    def __init__(
        self,
        space: SearchSpace,
        strategy: Strategy,
        settings: TrainSettings,
        batches: BatchSource,
        *,
        validation: BatchSource | None = None,
        task: Classification,
        generator: torch.Generator,
        seed: int,
        stop: EarlyStop | None = None,
        follows: int | None = None,
        penalty: EffectiveDecay | None = None,
    ) -> None:
        check_supports(type(strategy), space)
        if strategy.learns and validation is None:
            problem = f"{strategy.name} learns architecture parameters, which need a share of the images"
            raise UserError("data.split.architecture", problem, code="missing")
        if strategy.image_order is not None:
            if not isinstance(batches, Reorderable):
                raise TypeError(f"{strategy.name} chooses the images, which {type(batches).__name__} does not support")
            batches.follow(strategy.image_order)
        self.penalty = penalty
        undecayed = () if penalty is None else penalty.names
        super().__init__(space, settings, batches, task=task, generator=generator, undecayed=undecayed)
        strategy.check_optimizer(self.optimizer)
        if follows is None:
            strategy.check_schedule(settings.epochs, len(batches))
        self.space = space
        self.strategy = strategy
        self.stop = stop
        self.learns = True
        self._follows = follows
        self.draws = torch.Generator().manual_seed(seed)
        self._validation = _Endless(validation) if validation is not None else None
        self._index = 0
        self._paths: Sequence[Gates] = ()

    @property
    def _clock(self) -> tuple[int, int]:
        """The epoch from 0 and the number of epochs, for the strategy's own schedules."""
        return (self.epoch, self.settings.epochs) if self._follows is None else (self._follows - 1, self._follows)

    def run_epoch(self) -> dict[str, float]:
        """One pass over the batches; the strategy's own numbers are added to the row."""
        if self._validation is not None:
            self._validation.restart()
        self._index = 0
        epoch, epochs = self._clock
        self.strategy.begin_epoch(epoch, epochs)
        row = super().run_epoch()
        return {**row, **self.strategy.end_epoch(epoch, epochs), **self._measured()}

    def _measured(self) -> dict[str, float]:
        return self.stop.measure() if self.stop else {}

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One step of the weights, and whatever the strategy does before and after it."""
        if not self.learns:
            return super().step(x, y)
        epoch, epochs = self._clock
        step = Step(
            supernet=self.space,
            task=self.task,
            optimizer=self.optimizer,
            train=(x, y),
            validation=self._next_validation,
            generator=self.draws,
            epoch=epoch,
            epochs=epochs,
            index=self._index,
            steps=len(self.batches),
            penalty=self.penalty,
        )
        self.strategy.before_step(step)
        loss = super().step(x, y)
        self.strategy.after_step(step)
        self._index += 1
        return loss

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Sums the gradients of the step's paths; returns the mean of their losses."""
        self._paths = self.strategy.sample_paths(self.draws)
        losses = [self._backward(x, y, gates) for gates in self._paths]
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _backward(self, x: Tensor, y: Tensor, gates: Gates) -> Tensor:
        with autocast(x.device):
            loss = self.strategy.path_loss(self.task, self.space(x, gates), y)
        (loss if self.penalty is None else loss + self.penalty(gates)).backward()
        return loss.detach()

    def before_update(self) -> None:
        """Show the gradients to the strategy."""
        self.strategy.before_update(self._paths)

    def _next_validation(self) -> Batch:
        assert self._validation is not None
        return next(self._validation)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {**super().state_dict(), "strategy": self.strategy.state_dict(), "draws": self.draws.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            UserError: it is of another space.
        """
        self.strategy.load_state_dict(state["strategy"])
        super().load_state_dict(state)
        self.draws.set_state(state["draws"])


def train_supernet(
    training: SupernetTraining,
    *,
    checkpoint: Path | None = None,
    track: Track = silent,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train to the end; the space then has the final weights, or their moving average where there is one.

    Args:
        training: new, or about to be resumed from `checkpoint`.
        checkpoint: resumed from if it is there, written after each epoch.
        track: shows progress.
        on_epoch: called with each epoch's row.

    Returns:
        A row of numbers for each epoch.

    Raises:
        UserError: the checkpoint is damaged or of another space, or an architecture parameter is not finite.
        Diverged: the loss is not finite.
    """
    rows = train(
        training,
        checkpoint=checkpoint,
        track=track,
        description=f"supernet ({training.strategy.name})",
        on_epoch=on_epoch,
        stop=training.stop.reason if training.stop else None,
    )
    training.space.load_state_dict(training.result.state_dict())
    return rows


class _Endless:
    """Batch after batch; when the source ends, it starts a new epoch."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self._batches: Iterator[Batch] = iter(())

    def restart(self) -> None:
        """Start an epoch now, so that later batches depend only on the generator's state."""
        self._batches = iter(self._source)

    def __next__(self) -> Batch:
        batch = next(self._batches, None)
        if batch is None:
            self.restart()
            batch = next(self._batches)
        return batch
