"""Train the weights that all architectures share."""

from __future__ import annotations

from typing import Any

from recipes.context import Context
from recipes.trained import keep, new_training
from supernets.fewshot.tree import train_tree
from supernets.trainer import train_supernet


def run(context: Context) -> dict[str, Any]:
    """Trains on the `train` split, and architecture parameters on `architecture`; a checkpoint each epoch."""
    settings = context.recipe.supernet
    assert settings is not None
    checkpoint = context.run / "checkpoints" / f"supernet-{context.keys['supernet']}.pt"
    if settings.few_shot is None:
        training = new_training(context)
        rows = train_supernet(
            training,
            checkpoint=checkpoint,
            track=context.track,
            on_epoch=lambda row: context.run.log("supernet", part="root", **row),
        )
        keep(context, "root", training)
        return {"strategy": settings.strategy.name, "parts": [_part("root", training.strategy.region, rows)]}
    tree = train_tree(
        lambda *, seed, epochs: new_training(context, seed=seed, epochs=epochs),
        settings.few_shot,
        checkpoint.with_suffix(""),
        seed=0,
        track=context.track,
        on_epoch=lambda name, row: context.run.log("supernet", part=name, **row),
    )
    for leaf in tree.leaves:
        keep(context, leaf.name, leaf.restore(lambda *, seed, epochs: new_training(context, seed=seed, epochs=epochs)))
    return {
        "strategy": settings.strategy.name,
        "parts": [_part(leaf.name, leaf.region, leaf.rows) for leaf in tree.leaves],
        "splits": {name: split.model_dump(mode="json") for name, split in tree.splits.items()},
    }


def _part(name: str, region: Any, rows: list[dict[str, float]]) -> dict[str, Any]:
    return {"name": name, "region": region.to_json(), "rows": rows}
