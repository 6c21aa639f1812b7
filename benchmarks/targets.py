"""ProxylessNAS under a limit: the cost asked for, the expected cost, that of the chosen network, and what is measured.

Runs a recipe once for each target. With a table of latencies (`nas lut build`) targets are in milliseconds, and the
chosen network is exported and timed alone; without one they are MACs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from espalier.nas.files import read_json
from espalier.nas.progress import silent
from espalier.recipes.config.loading import load_recipe
from espalier.recipes.engine.runner import run_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="digits-proxyless")
    parser.add_argument("--cost", default="macs", help="macs, or a table that nas lut build made for the recipe")
    parser.add_argument("--loss", default="target", choices=("target", "additive", "multiplicative"))
    parser.add_argument("--targets", type=float, nargs="+", default=[250e3, 400e3, 600e3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/targets"))
    parser.add_argument("--overrides", nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for target in options.targets:
        for seed in range(options.seeds):
            changes = {"target": target, "loss": options.loss, "cost": options.cost}
            overrides = [f"supernet.strategy.{key}={value}" for key, value in changes.items()]
            recipe = load_recipe(options.recipe, [*overrides, f"seed={seed}", "train.random=0", *options.overrides])
            folder = options.folder / f"{options.loss}-{target:g}-{seed}"
            run_recipe(recipe, folder, track=silent, announce=lambda line: None)
            print(line(folder, target, seed), flush=True)


def line(folder: Path, target: float, seed: int) -> str:
    """One row of the result."""
    outputs: dict[str, Any] = {
        name: read_json(folder / "stages" / f"{name}.json")["outputs"] for name in ("supernet", "train", "profile")
    }
    row = outputs["supernet"]["parts"][0]["rows"][-1]
    expected = next(value for key, value in row.items() if key.startswith("expected_"))
    chosen = next(value for key, value in row.items() if key.startswith("chosen_"))
    (network,) = outputs["train"]["networks"]
    measured = outputs["profile"][network["id"]]["latency"]["p50"]
    return (
        f"target {target:g}, seed {seed}: expected {expected:.4g} ({expected / target - 1:+.1%}), "
        f"chosen {chosen:.4g} ({chosen / target - 1:+.1%}), {network['macs']:,} MACs, {measured:.4f} ms, "
        f"accuracy {network['accuracy']:.1%}"
    )


if __name__ == "__main__":
    main()
