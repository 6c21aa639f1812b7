"""`score`: zero-cost scores of any networks, or of given architectures of a space."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espalier.nas.architecture import Architecture
from espalier.nas.copying import copied, require_sizes
from espalier.nas.cost.count import count
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.models import in_float32, network_factory
from espalier.nas.space import SearchSpace
from espalier.predictors.zero_cost.network import logits
from espalier.predictors.zero_cost.score_evaluator import ScoreEvaluator
from espalier.recipes.commands import defaults
from espalier.recipes.commands.progress import track
from espalier.recipes.config.own_scores import make_score
from espalier.recipes.config.registry import COSTS
from espalier.recipes.inputs.named_space import make_space, parse_space
from espalier.recipes.inputs.score_batch import ScoreBatch, load_batch

Network = str | nn.Module | Architecture
Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class NetworkScores:
    """What is known of a network before it is trained.

    Attributes:
        network: as it was given; the class of an object, the id of an architecture.
        params: parameters.
        macs: multiply-accumulates for one image.
        scores: by name.
    """

    network: str
    params: int
    macs: int
    scores: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """As `nas score --json` prints it."""
        scores = {name: _estimate_to_dict(estimate) for name, estimate in self.scores.items()}
        return {"network": self.network, "params": self.params, "macs": self.macs, "scores": scores}


def score(
    networks: Network | Sequence[Network],
    *,
    space: str | SearchSpace | None = None,
    scores: Sequence[str] = defaults.SCORES,
    data: str | Path = defaults.DATA,
    batch_size: int = defaults.BATCH_SIZE,
    size: int | None = None,
    seed: int = defaults.SEED,
    repeats: int = defaults.REPEATS,
    limit_s: float | None = None,
) -> list[NetworkScores]:
    """Zero-cost scores of networks, with their parameters and multiply-accumulates.

    Args:
        networks: one or several of `timm:NAME`, `FILE.py:FUNCTION` or a module; or architectures of the space, each an
            `Architecture`, in the notation of the space, or a JSON file. A module is scored with the weights it has,
            all others with fresh ones.
        space: of the architectures: `NAME` or `NAME:key=value,...` (see `nas ls`), or an object.
        scores: names (see `nas ls`), or own scores such as `FILE.py:NAME`.
        data: images: `digits`, a `.parquet` or `.npz` file, or a folder of parquet files or with a folder for each
            class.
        batch_size: images that scores are computed on.
        size: resize the images to size x size.
        seed: of the images, the fresh weights and what scores draw.
        repeats: initialisations to average over.
        limit_s: time limit per score and network, in seconds.

    Returns:
        A record for each network, in order.

    Raises:
        UserError: an argument cannot be used, or a network does not take the images.
    """
    chosen = [make_score(name, where="scores") for name in dict.fromkeys(scores) if name not in COSTS]
    batch = load_batch(data, batch_size, seed=seed, size=size)
    made = make_space(*parse_space(space), batch.image_shape, batch.classes) if isinstance(space, str) else space
    given = [networks] if isinstance(networks, str | nn.Module | Architecture) else networks
    makers = _makers(given, made, batch)
    evaluator = ScoreEvaluator(chosen, batch.x, batch.y, seed=seed, repeats=repeats, limit_s=limit_s)
    for name, make in makers.items():
        _try(name, make, batch)
    return [_scored(name, make, evaluator, batch) for name, make in track(makers.items(), "score", len(makers))]


def _scored(name: str, make: Make, evaluator: ScoreEvaluator, batch: ScoreBatch) -> NetworkScores:
    probes = evaluator.probes(make)
    cost = count(make(), batch.image_shape)
    return NetworkScores(name, cost.params, cost.macs, {s: evaluator.estimate(s, probes) for s in evaluator.scores})


def _makers(networks: Iterable[Network], space: SearchSpace | None, batch: ScoreBatch) -> dict[str, Make]:
    """What makes each network, by its name; of equal texts one is kept, objects of one class are numbered."""
    makers: dict[str, Make] = {}
    for network in networks:
        if isinstance(network, str):
            makers[network] = _maker(network, space, batch)
        elif isinstance(network, Architecture):
            if space is None:
                raise UserError("space", "is required for architectures", code="missing")
            makers[network.id] = _built(space.check(network, where=network.id), space)
        else:
            makers[_unused(type(network).__name__, makers)] = _copied(network)
    return makers


def _maker(text: str, space: SearchSpace | None, batch: ScoreBatch) -> Make:
    """What makes a model by name, or an architecture in the space's notation or in a file."""
    if text.startswith("timm:") or ".py:" in text:
        make = network_factory(text, image_shape=batch.image_shape, classes=batch.classes)
        return lambda: in_float32(make())
    if space is None:
        raise UserError(text, "is neither timm:NAME nor FILE.py:FUNCTION, and an architecture needs its space")
    try:
        notation = Path(text).read_text() if text.endswith(".json") and Path(text).is_file() else text
    except (OSError, ValueError) as error:
        raise UserError(text, f"cannot be read ({error})", code="unreadable") from error
    parse = SearchSpace.parse if notation.lstrip().startswith("{") else type(space).parse
    return _built(parse(space, notation, where=text), space)


def _built(architecture: Architecture, space: SearchSpace) -> Make:
    return lambda: space.build(architecture)


def _copied(network: nn.Module) -> Make:
    return lambda: copied(network)


def _unused(name: str, taken: Mapping[str, Make]) -> str:
    numbered = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(one for one in numbered if one not in taken)


def _try(name: str, make: Make, batch: ScoreBatch) -> None:
    """Make the network and run two images through it.

    Raises:
        UserError: it cannot be made, run or counted, or does not return logits for all classes.
    """
    try:
        network = make()
        require_sizes(network, where=name)
        network = network.to(batch.x.device)
        with torch.no_grad():
            output = logits(network.eval()(batch.x[:2].clone()), len(batch.x[:2]))
        count(network, batch.image_shape)
    except UserError:
        raise
    except Exception as error:  # the user's network may raise anything
        cause = next(iter(str(error).splitlines()), "")
        problem = f"{type(error).__name__} on images of {batch.image_shape}: {cause}"
        raise UserError(name, problem, code="user_code") from error
    if output.shape[1] < batch.classes:
        problem = f"returns {output.shape[1]} logits, and the images have {batch.classes} classes"
        raise UserError(name, problem, code="mismatch")


def _estimate_to_dict(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value if math.isfinite(estimate.value) else None,
        "status": estimate.status,
        "reason": estimate.reason or ("" if estimate.status == "ok" else str(estimate.value)),
        "higher_is_better": estimate.higher_is_better,
        "provenance": dict(estimate.provenance),
    }


def scores_text(results: Sequence[NetworkScores]) -> str:
    """A line for each score of each network."""
    lines = []
    for result in results:
        lines.append(result.network)
        lines.append(f"  {'params':18}{result.params:>16,}")
        lines.append(f"  {'macs':18}{result.macs:>16,}")
        lines += [_score_line(name, estimate) for name, estimate in result.scores.items()]
    first = next((estimate for result in results for estimate in result.scores.values()), None)
    if first is not None:
        about = first.provenance
        lines.append(
            f"{about['images']} images ({about['batch_hash']}), seed {about['seed']}, {about['repeats']} draw(s)"
        )
    return "\n".join(lines)


def _score_line(name: str, estimate: Estimate) -> str:
    if estimate.status != "ok":
        return f"  {name:18}{estimate.status:>16}  {estimate.reason or estimate.value}".rstrip()
    std = estimate.provenance.get("std")
    spread = "" if std is None else f" ± {std:.3g}"
    direction = "higher is better" if estimate.higher_is_better else "lower is better"
    return f"  {name:18}{estimate.value:>16.6g}{spread}  {direction}"
