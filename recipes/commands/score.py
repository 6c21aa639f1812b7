"""`nas score`: zero-cost scores of any networks, or of given architectures of a space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espalier.nas.cost.count import count
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.models import network_factory
from espalier.nas.progress import Track
from espalier.nas.space import SearchSpace
from espalier.predictors.zero_cost.probe import logits
from espalier.predictors.zero_cost.score_evaluator import ScoreEvaluator
from espalier.recipes.config.registry import COSTS, SCORES, load
from espalier.recipes.inputs.score_batch import ScoreBatch, load_batch, space_from


def score_networks(
    networks: Sequence[str],
    *,
    space: str | None,
    scores: Sequence[str],
    data: str,
    batch_size: int,
    size: int | None,
    seed: int,
    repeats: int,
    limit_s: float | None,
    track: Track,
) -> list[dict[str, Any]]:
    """One record for each network; the arguments are the options of the command.

    Params and MACs are always among the values.

    Raises:
        UserError: whatever of them cannot be used.
    """
    for name in scores:
        if name not in COSTS and name not in SCORES:
            raise UserError("--scores", f"no score is called {name!r}", allowed=[*COSTS, *SCORES], given=name)
    chosen = [load(SCORES, name, where="--scores")() for name in dict.fromkeys(scores) if name in SCORES]
    batch = load_batch(data, batch_size, seed=seed, size=size)
    made = None if space is None else space_from(space, batch)
    makers = {text: _maker(text, made, batch) for text in networks}
    evaluator = ScoreEvaluator(chosen, batch.x, batch.y, seed=seed, repeats=repeats, limit_s=limit_s)
    records = []
    for text, make in makers.items():
        _try(text, make, batch)
    for text, make in track(makers.items(), "score", len(makers)):
        probes = evaluator.probes(make)
        cost = count(make(), batch.image_shape)
        estimates = {name: _record(evaluator.estimate(name, probes)) for name in evaluator.scores}
        records.append({"network": text, "params": cost.params, "macs": cost.macs, "scores": estimates})
    return records


def scores_text(records: Sequence[Mapping[str, Any]]) -> str:
    """A line for each score of each network."""
    lines = []
    for record in records:
        lines.append(record["network"])
        lines.append(f"  {'params':18}{record['params']:>16,}")
        lines.append(f"  {'macs':18}{record['macs']:>16,}")
        for name, score in record["scores"].items():
            arrow = "higher is better" if score["higher_is_better"] else "lower is better"
            if score["status"] != "ok":
                lines.append(f"  {name:18}{score['status']:>16}  {score['reason']}".rstrip())
                continue
            std = score["provenance"].get("std")
            spread = "" if std is None else f" ± {std:.3g}"
            lines.append(f"  {name:18}{score['value']:>16.6g}{spread}  {arrow}")
    first = next((score for record in records for score in record["scores"].values()), None)
    if first is not None:
        about = first["provenance"]
        lines.append(
            f"{about['images']} images ({about['batch_hash']}), seed {about['seed']}, {about['repeats']} draw(s)"
        )
    return "\n".join(lines)


def _try(text: str, make: Callable[[], nn.Module], batch: ScoreBatch) -> None:
    """Make the network and run two images through it.

    Raises:
        UserError: it cannot be made, run or counted, or does not return logits for all classes.
    """
    try:
        network = make().to(batch.x.device)
        with torch.no_grad():
            output = logits(network.eval()(batch.x[:2].clone()), len(batch.x[:2]))
        count(network, batch.image_shape)
    except UserError:
        raise
    except Exception as error:  # the user's network may raise anything
        cause = next(iter(str(error).splitlines()), "")
        raise UserError(text, f"{type(error).__name__} on images of {batch.image_shape}: {cause}") from error
    if output.shape[1] < batch.classes:
        raise UserError(text, f"it returns {output.shape[1]} logits, and the images have {batch.classes} classes")


def _maker(text: str, space: SearchSpace | None, batch: ScoreBatch) -> Callable[[], nn.Module]:
    """What makes the network: a model by name, or an architecture in the space's notation or in a file."""
    if text.startswith("timm:") or ".py:" in text:
        return network_factory(text, image_shape=batch.image_shape, classes=batch.classes)
    if space is None:
        raise UserError(text, "is neither timm:NAME nor FILE.py:FUNCTION; an architecture needs its --space")
    try:
        notation = Path(text).read_text() if text.endswith(".json") and Path(text).is_file() else text
    except (OSError, ValueError) as error:
        raise UserError(text, f"cannot be read ({error})") from error
    if notation.lstrip().startswith("{"):
        architecture = SearchSpace.parse(space, notation, where=text)
    else:
        architecture = space.parse(notation, where=text)
    return lambda: space.build(architecture)


def _record(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value if math.isfinite(estimate.value) else None,
        "status": estimate.status,
        "reason": estimate.reason or ("" if estimate.status == "ok" else str(estimate.value)),
        "higher_is_better": estimate.higher_is_better,
        "provenance": dict(estimate.provenance),
    }
