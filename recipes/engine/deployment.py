"""Candidates as they will be deployed: pruned, exported, quantised; their accuracy, latency and size are of that file.

`search.deploy` wraps the recipe's space in `nas.spaces.deployed.Deployed`, and this module carries out its two choices.
Sparsity is uniform over layers, by magnitude. int8 is static, with min-max ranges over training images, in the scheme
that suits the device's instructions. The supernet is trained once, dense and in float32. To evaluate a candidate, its
inherited weights are pruned, batch-norm statistics are computed, and the network is exported and quantised. ONNX
Runtime then computes the accuracy from the file itself, without simulating int8.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.onnx import export_onnx
from espalier.export.quantize.forms import Quantizer
from espalier.export.quantize.instructions import Int8Scheme
from espalier.export.quantize.running import BATCH, outputs
from espalier.export.quantize.source import Source
from espalier.nas.architecture import Architecture
from espalier.nas.data import BatchFactory, Images, Splits
from espalier.nas.errors import UserError
from espalier.nas.files import write_bytes
from espalier.nas.measurement import Estimate, Measurement
from espalier.nas.network_inputs import IMAGE, OUTPUT, Input
from espalier.nas.scratch import ScratchFolder
from espalier.nas.spaces.deployed import PRECISION, SPARSITY, Deployed
from espalier.pruning.allocation.uniform import uniform
from espalier.pruning.magnitude import GradualMagnitude, OneShotMagnitude
from espalier.pruning.patterns import Layerwise
from espalier.pruning.pruner import Pruner
from espalier.pruning.weights import prunable_weights
from espalier.recipes.engine.int8_scheme import scheme_on

if TYPE_CHECKING:
    from espalier.predictors.inherited import InheritedAccuracy
    from espalier.recipes.config.schema import Recipe

CALIBRATION_IMAGES = 256
"""Training images that ranges of activations are taken from."""
GRADUAL_SHARE = 0.5
"""Share of a training in which weights gradually become zero; after it the masks are fixed."""


class Deployment:
    """Writes the candidates of one run as they will be deployed, and evaluates them.

    Args:
        space: the deployed space.
        splits: the images; those to choose by are classified, and ranges are taken of some to train on.
        batches: makes batches of them.
        generator: of the images that ranges are taken of.
        device: gives what files are timed on; called when it is first needed.
        provider: ONNX Runtime's execution provider there; None for the default.
        folder: where temporary files are put.
    """

    def __init__(
        self,
        space: Deployed,
        splits: Splits,
        batches: BatchFactory,
        *,
        generator: torch.Generator,
        device: Callable[[], Device],
        provider: str | None,
        folder: Path,
    ) -> None:
        self._space, self._splits, self._batches = space, splits, batches
        self._generator, self._device, self._provider, self._path = generator, device, provider, folder
        self._last: tuple[Architecture, bytes] | None = None

    def predictor(self, inherited: InheritedAccuracy) -> DeployedAccuracy:
        """The inherited accuracy of candidates as they will be deployed."""
        return DeployedAccuracy(lambda architecture: self.accuracy(architecture, inherited))

    def accuracy(self, architecture: Architecture, inherited: InheritedAccuracy) -> Estimate:
        """The accuracy of the candidate with inherited weights, on the selection images."""
        network = inherited.network(self._space.network(architecture), change=lambda net: self.prune(net, architecture))
        images = self._splits.selection
        with self._folder() as folder:
            path = self._write(network, architecture, Path(folder))
            correct = self.correct(path, images)
        provenance: dict[str, str | int | float] = {"images": len(images), "precision": str(architecture[PRECISION])}
        return Estimate(
            DeployedAccuracy.name, float(correct.mean()), DeployedAccuracy.unit, True, provenance=provenance
        )

    def latency(self, architecture: Architecture, spec: MeasureSpec) -> Measurement:
        """The measured latency of the candidate with fresh weights."""
        with self._folder() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(self._fresh(architecture))
            return self._device().measure(path, spec)

    def size_bytes(self, architecture: Architecture) -> Estimate:
        """The size of the candidate's file after gzip, in bytes; both zeros and fewer bits make it smaller.

        Of fresh weights: those of ResNet-20 take 0.89 to 1.10 of what trained ones take, over both precisions and
        sparsities of 0, 0.5 and 0.9.
        """
        content = gzip.compress(self._fresh(architecture), 6, mtime=0)
        return Estimate("size_bytes", float(len(content)), "bytes", False)

    def prune(self, network: nn.Module, architecture: Architecture) -> None:
        """Set the smallest weights of each layer to zero, up to the architecture's sparsity."""
        if architecture[SPARSITY]:
            self._pruner(network, architecture, OneShotMagnitude, iterations=0).finalize()

    def pruner(self, network: nn.Module, architecture: Architecture, *, steps: int) -> Pruner | None:
        """Makes the weights sparse during a training of `steps`; None for a dense architecture."""
        if not architecture[SPARSITY]:
            return None
        return self._pruner(network, architecture, GradualMagnitude, iterations=int(GRADUAL_SHARE * steps))

    def quantize(self, architecture: Architecture, path: Path) -> None:
        """Replace the float32 file at `path` by one in the architecture's precision."""
        if architecture[PRECISION] == "int8":
            with self._folder() as folder:
                form = Path(folder) / "int8.onnx"
                Quantizer(self._source(path), self._scheme, self._calibration, Path(folder)).write("int8-minmax", form)
                write_bytes(path, form.read_bytes())

    def facts(self, architecture: Architecture) -> dict[str, str]:
        """What the model card says about sparsity and precision."""
        zeros = {"zeros among the weights": f"{architecture[SPARSITY]:.0%}"} if architecture[SPARSITY] else {}
        int8 = (
            {"ONNX in": "int8; the PyTorch files and the accuracy are float32"}
            if architecture[PRECISION] == "int8"
            else {}
        )
        return zeros | int8

    def correct(self, path: Path, images: Images) -> np.ndarray:
        """Which images the file of a candidate classifies correctly, bool `(n,)`."""
        batches = (part.cpu() for x, _ in self._batches.evaluation(images) for part in x.split(BATCH))
        logits = outputs(path, self._source(path), (np.ascontiguousarray(x.numpy()) for x in batches))
        correct: np.ndarray = logits.argmax(axis=1) == images.labels.numpy()
        return correct

    def _source(self, path: Path) -> Source:
        """A file that `export_onnx` has written."""
        return Source(path, (Input(IMAGE, self._space.input_shape),), OUTPUT, None)

    def _pruner(self, network: nn.Module, architecture: Architecture, kind: type, *, iterations: int) -> Pruner:
        weights = prunable_weights(network)
        zeros = uniform(weights, float(cast(float, architecture[SPARSITY])))
        pruner: Pruner = kind(weights, Layerwise(zeros), iterations=iterations)
        return pruner

    def _fresh(self, architecture: Architecture) -> bytes:
        """The file of the candidate with fresh weights; that of the last candidate is kept."""
        if self._last is None or self._last[0] != architecture:
            self._last = (architecture, self._fresh_file(architecture))
        return self._last[1]

    def _fresh_file(self, architecture: Architecture) -> bytes:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = self._space.build(architecture)
        self.prune(network, architecture)
        with self._folder() as folder:
            return self._write(network, architecture, Path(folder)).read_bytes()

    def _write(self, network: nn.Module, architecture: Architecture, folder: Path) -> Path:
        path = folder / "model.onnx"
        export_onnx(network, self._space.input_shape, path, exporter="torchscript")
        self.quantize(architecture, path)
        return path

    def _folder(self) -> ScratchFolder:
        return ScratchFolder(prefix=".latency-", dir=self._path)

    @cached_property
    def _scheme(self) -> Int8Scheme:
        return scheme_on(self._device(), self._provider)

    @cached_property
    def _calibration(self) -> np.ndarray:
        batches = self._batches.evaluation(self._splits.train.sample(CALIBRATION_IMAGES, self._generator))
        return np.concatenate([x.cpu().contiguous().numpy() for x, _ in batches])


class DeployedAccuracy:
    """The predictor of inherited accuracy, of pruned and quantised files."""

    name = "inherited"
    unit = "accuracy"
    higher_is_better = True

    def __init__(self, evaluate: Callable[[Architecture], Estimate]) -> None:
        self._evaluate = evaluate

    def __call__(self, architecture: Architecture) -> Estimate:
        """The share of the held-out images that the file classifies correctly, in [0, 1]."""
        return self._evaluate(architecture)


def check_deploy(recipe: Recipe) -> None:
    """Raises UserError where other sections of a recipe cannot be combined with `search.deploy`."""
    if recipe.search is None or recipe.search.deploy is None:
        return
    where = "search.deploy"
    if recipe.supernet is None or recipe.search.accuracy != "inherited":
        problem = "needs a section supernet and search.accuracy: inherited, whose weights are pruned and quantised"
        raise UserError(where, problem, code="missing")
    for name in ("rank", "select"):
        if getattr(recipe, name) is not None:
            problem = f"cannot be combined with the section {name}, which evaluates networks that are not deployed"
            raise UserError(where, problem, code="conflict")
    if recipe.search.replay is not None:
        problem = "cannot be combined with search.replay, whose table holds dense networks in fp32"
        raise UserError(where, problem, code="conflict")
    if recipe.budget is not None and (recipe.budget.table or recipe.budget.sources):
        problem = "cannot be combined with tables in the section budget, which hold dense networks in fp32"
        raise UserError(where, problem, code="conflict")
