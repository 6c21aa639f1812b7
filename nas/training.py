"""Training one network. Supernets use the same loop, which can be resumed after every epoch."""

from __future__ import annotations

import difflib
import functools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from espalier.nas.checkpoint import load_state, save_state
from espalier.nas.data import Augment
from espalier.nas.device import accelerator, autocast
from espalier.nas.errors import shortened
from espalier.nas.progress import Track, silent
from espalier.nas.settings import Settings
from espalier.nas.task import Batch, Task, batch_loss

_log = logging.getLogger(__name__)


class TrainSettings(Settings):
    """How a network is trained."""

    epochs: PositiveInt = 20
    """Passes over the training images."""
    batch_size: int = Field(64, ge=2)
    """Images per step; batch norms need at least two."""
    optimizer: str = "momentum"
    """Any optimiser of timm by name: momentum (SGD), sgd (SGD, Nesterov), adamw, lamb, ..."""
    lr: PositiveFloat = 0.1
    """Learning rate after the warm-up."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD and related optimisers; adaptive optimisers keep timm's betas."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay; biases and normalisation parameters are not decayed."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls to zero over all steps; `constant` keeps it."""
    warmup_epochs: float = Field(0, ge=0)
    """Epochs of linear increase from zero at the start; they count as part of `epochs`."""
    clip_grad_norm: PositiveFloat | None = 5.0
    """Largest norm of the whole gradient; null for no clipping."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target that is spread over all classes."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which replaces the weights at the end; null for none."""
    augment: Augment = Augment()
    """Random augmentation of the training images."""

    @field_validator("optimizer")
    @classmethod
    def _known(cls, name: str) -> str:
        from timm.optim import list_optimizers

        known = [str(optimizer) for optimizer in list_optimizers() if optimizer != "adahessian"]  # of second order
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5, cutoff=0.3)
            raise ValueError(f"timm has no optimiser of this name; similar names: {', '.join(near) or 'none'}")
        if (problem := unusable_optimizer(name)) is not None:
            raise ValueError(f"the optimiser {name} cannot be used on this machine: {problem}")
        return name

    @model_validator(mode="after")
    def _some_epochs_after_the_warm_up(self) -> TrainSettings:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be fewer than the {self.epochs} epochs, not {self.warmup_epochs:g}")
        return self


@functools.cache
def unusable_optimizer(name: str) -> str | None:
    """Why one of timm's optimisers makes no step on this machine, or None: some need CUDA, or a library of their own.

    Args:
        name: a name that timm knows.
    """
    from timm.optim import create_optimizer_v2

    with torch.random.fork_rng():
        layer = nn.Linear(2, 2).to(accelerator())
    try:
        optimizer = create_optimizer_v2(layer, opt=name, lr=0.01)
        layer.weight.square().sum().backward()
        optimizer.step()
    except Exception as error:  # noqa: BLE001 - whatever another library raises where it cannot work is the answer
        return shortened(str(error) or type(error).__name__, 200)
    return None


class Diverged(RuntimeError):
    """The training loss is no longer finite."""


class BatchSource(Protocol):
    """Batches `(images, targets)`; every iteration gives the same number of them."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...


class Training:
    """A training in progress: `run_epoch` runs one epoch, `state_dict` holds the whole state.

    Args:
        model: already on its device; trained in place.
        settings: see `TrainSettings`.
        batches: the training batches.
        task: defines the loss.
        generator: the generator that orders and augments the batches; its state is part of `state_dict`.
        undecayed: names of parameters without weight decay, in addition to biases and parameters of norms.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        batches: BatchSource,
        *,
        task: Task,
        generator: torch.Generator,
        undecayed: Collection[str] = (),
    ) -> None:
        from timm.optim import create_optimizer_v2, param_groups_weight_decay
        from timm.utils import ModelEmaV3

        self.model = model
        self.settings = settings
        self.batches = batches
        self.task = task
        self.generator = generator
        self.epoch = 0
        self._parameters = list(
            model.parameters()
        )  # walking the modules at every step would cost as much as a small layer
        self.optimizer = create_optimizer_v2(
            param_groups_weight_decay(model, settings.weight_decay, no_weight_decay_list=undecayed),
            opt=settings.optimizer,
            lr=settings.lr,
            momentum=settings.momentum,
        )
        self.schedule = learning_rate_schedule(self.optimizer, settings, steps_per_epoch=len(batches))
        self.ema = ModelEmaV3(model, decay=settings.ema_decay) if settings.ema_decay else None

    @property
    def result(self) -> nn.Module:
        """The network to evaluate: the moving average of the weights if there is one, else the model."""
        return self.ema.module if self.ema else self.model

    def run_epoch(self) -> dict[str, float]:
        """One pass over the batches.

        Returns:
            `epoch` (counted from 1), mean training `loss`, the last `lr`, and `seconds`.

        Raises:
            Diverged: the mean loss is not finite.
        """
        started = time.perf_counter()
        self.model.train()
        loss_sum: Tensor | float = 0.0
        for index, (x, y) in enumerate(self.batches):
            loss_sum = loss_sum + self.step(x, y)
            self.schedule.step_update(self.epoch * len(self.batches) + index + 1)
        self.epoch += 1
        loss = float(loss_sum) / len(self.batches)
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} in epoch {self.epoch}; try a smaller learning rate")
        return {
            "epoch": self.epoch,
            "loss": loss,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": time.perf_counter() - started,
        }

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One step of the optimiser.

        Args:
            x: inputs.
            y: targets.

        Returns:
            The loss, still on the device: reading it here would wait for the device.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward(x, y)
        if self.settings.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_grad_norm)
        self.before_update()
        self.optimizer.step()
        self.after_update()
        if self.ema:
            self.ema.update(self.model)
        return loss

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the loss and its gradients.

        Args:
            x: inputs.
            y: targets.

        Returns:
            The loss, detached and on the device.
        """
        with autocast(x.device):
            loss, _ = batch_loss(self.task, self.model, (x, y))
        loss.backward()
        return loss.detach()

    def before_update(self) -> None:
        """Hook between the clipping of gradients and the optimiser's step; does nothing by default."""

    def after_update(self) -> None:
        """Hook between the optimiser's step and the update of the moving average; does nothing by default."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "generator": self.generator.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["rng"])
        torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.schedule.step_update(self.epoch * len(self.batches))


def learning_rate_schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings, *, steps_per_epoch: int) -> Any:
    """A timm scheduler over all steps of a training: linear, cosine or constant, after a warm-up.

    Args:
        optimizer: the optimiser to schedule.
        settings: the schedule, the learning rate, the number of epochs, the warm-up.
        steps_per_epoch: batches in an epoch.
    """
    from timm.scheduler import CosineLRScheduler, PolyLRScheduler

    total = settings.epochs * steps_per_epoch
    warm_up = max(0, min(round(settings.warmup_epochs * steps_per_epoch), total - 1))  # a fall needs a step
    common: dict[str, Any] = {
        "t_initial": total - warm_up,
        "lr_min": settings.lr if settings.schedule == "constant" else 0.0,
        "warmup_t": warm_up,
        "warmup_lr_init": 0.0,
        "warmup_prefix": True,  # the decay starts at the full rate, when the warm-up ends
        "t_in_epochs": False,
    }
    if settings.schedule == "cosine":
        return CosineLRScheduler(optimizer, **common)
    return PolyLRScheduler(optimizer, power=1.0 if settings.schedule == "linear" else 0.0, **common)


def train(
    training: Training,
    *,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
    track: Track = silent,
    description: str = "training",
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    stop: Callable[[list[dict[str, float]]], str | None] | None = None,
) -> list[dict[str, float]]:
    """Run all remaining epochs.

    Args:
        training: a new training; resumed if `checkpoint` exists.
        evaluate: computes the `accuracy` of the result after each epoch.
        checkpoint: a file to resume from if it exists; written after every epoch.
        track: shows progress.
        description: the label of the progress.
        on_epoch: called with each new row.
        stop: called before each epoch with the rows so far; a reason to stop ends the training.

    Returns:
        One row of numbers for each epoch, including those of earlier processes.

    Raises:
        Diverged: the loss is not finite.
        UserError: the checkpoint is damaged.
    """
    rows: list[dict[str, float]] = []
    if checkpoint and checkpoint.exists():
        state = load_state(checkpoint)
        training.load_state_dict(state["training"])
        rows = state["rows"]
        _log.info("%s: resumed after epoch %d of %d", description, training.epoch, training.settings.epochs)
    total = training.settings.epochs
    for _ in track(range(training.epoch, total), description, total, done=training.epoch):
        if stop and (reason := stop(rows)):  # checked first, so that a stopped training stays stopped when resumed
            _log.info("%s: stopped after epoch %d: %s", description, training.epoch, reason)
            break
        row = training.run_epoch()
        if evaluate:
            row["accuracy"] = evaluate(training.result)
        rows.append(row)
        if on_epoch:
            on_epoch(row)
        if checkpoint:
            save_state(checkpoint, {"training": training.state_dict(), "rows": rows})
    return rows
