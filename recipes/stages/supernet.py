"""Train the weights that all architectures share."""

from __future__ import annotations

from typing import Any

from nas.checkpoint import save_weights
from nas.device import place
from recipes.components import STRATEGIES, load
from recipes.context import Context
from supernets.trainer import train_supernet


def run(context: Context) -> dict[str, Any]:
    """Trains on the `train` split; the weights go to `checkpoints/`, an epoch at a time."""
    settings = context.recipe.supernet
    assert settings is not None
    space = context.new_space()
    place(space, context.device)
    strategy = load(STRATEGIES, settings.strategy, where="supernet.strategy")(space)
    generator = context.generator("supernet data")
    rows = train_supernet(
        space,
        strategy,
        settings,
        context.training_batches(context.splits.train, settings.batch_size, settings.augment, generator),
        task=context.task_with(settings.label_smoothing),
        generator=generator,
        seed=context.seed("paths"),
        checkpoint=context.supernet_path.with_suffix(".pt"),
        track=context.track,
        on_epoch=lambda row: context.run.log("supernet", **row),
    )
    save_weights(context.supernet_path, space)
    return {"strategy": settings.strategy, "rows": rows}
