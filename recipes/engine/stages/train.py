"""Train chosen architectures alone, from fresh weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from espalier.nas.cost.count import CostCounter
from espalier.nas.files import write_json
from espalier.nas.predictor import Predictor
from espalier.nas.run import RunFolder
from espalier.nas.space import SearchSpace
from espalier.recipes.engine.final_choice import Chosen
from espalier.recipes.engine.network_trainer import NetworkTrainer
from espalier.recipes.records.networks import NetworkEstimate, TrainedNetwork, TrainResult
from espalier.recipes.records.supernet import Epoch


def run(
    chosen: Sequence[Chosen],
    *,
    trainer: NetworkTrainer,
    space: SearchSpace,
    predictors: Mapping[str, Predictor],
    counter: CostCounter,
    selection_images: int,
    run: RunFolder,
) -> TrainResult:
    """Trains each architecture, and asks the predictors about it, to compare with the accuracy reached.

    Args:
        chosen: what to train.
        trainer: trains, as the recipe's section `train` says.
        space: of the architectures.
        predictors: to compare.
        counter: params and MACs of architectures.
        selection_images: how many images the accuracy is of.
        run: the run folder.
    """
    networks = []
    for index, (architecture, origin) in enumerate(chosen, start=1):
        rows = trainer.train(architecture, f"network {index} of {len(chosen)}")
        cost = counter(architecture)
        network = TrainedNetwork(
            architecture=architecture,
            notation=space.format(architecture),
            origin=origin,
            diagram=tuple(space.diagram(architecture)),
            params=cost.params,
            macs=cost.macs,
            accuracy=rows[-1]["accuracy"],
            images=selection_images,
            rows=tuple(map(Epoch.model_validate, rows)),
            estimates={name: NetworkEstimate.of(predictor(architecture)) for name, predictor in predictors.items()},
        )
        write_json(run.architecture(architecture) / "metrics.json", network.model_dump(mode="json"))
        networks.append(network)
    return TrainResult(networks=tuple(networks))
