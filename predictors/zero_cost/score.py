"""What every zero-cost score is, and the predictor that scores the architectures of a space with one."""

from __future__ import annotations

import copy
import hashlib
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nas.architecture import Architecture
from nas.errors import UserError
from nas.measurement import Estimate
from nas.space import SearchSpace

Need = Literal["images", "labels"]
BatchNormMode = Literal["each image", "batch", "removed"]


class ScoreError(UserError):
    """The score is not defined for this network; the error begins with the layer's path, or the score's name."""


class Score(ABC):
    """One number for a network with its initial weights. A subclass is the formula, in `compute`.

    Calling a score leaves the network (weights, buffers, gradients, flags), the batch and the random generators of
    torch, numpy and Python exactly as they were: the formula works on a copy. It runs in float32 with autocast off,
    whatever the caller has set. A result that is not finite is returned as it is.

    Attributes:
        name: as in recipes and reports. higher_is_better: the direction expected to go with accuracy.
        needs: what of the batch the value depends on. With neither, only the shape and device of `x` are read.
        batch_norm: `each image` normalises every image by its own statistics (training mode, batches of one image),
            `batch` by those of the whole batch (training mode), `removed` not at all.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]]
    batch_norm: ClassVar[BatchNormMode]

    @abstractmethod
    def compute(self, model: nn.Module, x: Tensor, y: Tensor) -> float:
        """The formula. `model` is a copy to use up, in float32 and training mode, all parameters requiring grad."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> float:
        """The score of a classifier.

        Args:
            model: takes images `x` and returns logits `(n, classes)`.
            x: images `(n, channels, height, width)`. y: their labels `(n,)`, integers.

        Raises:
            ScoreError: the score is not defined for this network.
        """
        device = next((tensor.device for tensor in model.parameters()), x.device)
        with kept_generators(device), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            scratch = copy.deepcopy(model).float().train().requires_grad_(True)
            scratch.zero_grad(set_to_none=True)
            return self.compute(scratch, x.detach().to(device, torch.float32, copy=True), y.to(device))


class ZeroCostPredictor:
    """A score of each architecture's stand-alone network with fresh weights, on one batch frozen here.

    The weights are drawn from a generator seeded with `(seed, repeat)`, the same for all architectures, so an estimate
    depends neither on the calls before it nor on the state of the global generators, which it leaves as they were.

    Args:
        score: the score. space: where the architectures are from.
        x: images `(n, *space.input_shape)`, on the device to compute on. y: labels `(n,)`.
        seed: of the weights, at least 0. repeats: initialisations to average over.

    Raises:
        UserError: the batch does not fit the space, or `seed` or `repeats` is out of range.
    """

    unit = ""

    def __init__(self, score: Score, space: SearchSpace, x: Tensor, y: Tensor, *, seed: int, repeats: int = 1) -> None:
        _check_batch(space, x, y)
        if repeats < 1:
            raise UserError("repeats", f"at least 1 is needed, not {repeats}")
        if seed < 0:
            raise UserError("seed", f"at least 0 is needed, not {seed}")
        self.name = score.name
        self.higher_is_better = score.higher_is_better
        self._score, self._space = score, space
        self._x, self._y = x.detach().clone(), y.detach().clone()
        self._seed, self._repeats = seed, repeats
        self._batch_hash = batch_hash(x, y)

    def __call__(self, architecture: Architecture) -> Estimate:
        """The score, averaged over `repeats`.

        The provenance holds `seed`, `repeats`, `images` (their number), `batch_hash` and, with more than one repeat,
        `std`, the sample standard deviation over the repeats (absent where a value is not finite).

        Where the score is not defined for the network, the status is `failed`, with the reason.

        Raises:
            UserError: not an architecture of the space.
        """
        provenance: dict[str, str | int | float] = {
            "seed": self._seed,
            "repeats": self._repeats,
            "images": len(self._x),
            "batch_hash": self._batch_hash,
        }
        about: dict[str, Any] = {"unit": self.unit, "higher_is_better": self.higher_is_better, "provenance": provenance}
        try:
            values = np.array([self._once(architecture, repeat) for repeat in range(self._repeats)])
        except ScoreError as error:
            return Estimate(self.name, math.nan, status="failed", reason=str(error), **about)
        if self._repeats > 1 and np.isfinite(values).all():
            provenance["std"] = float(values.std(ddof=1))
        with np.errstate(invalid="ignore"):  # infinities of both signs: nan, as it is
            value = float(values.mean())
        return Estimate(self.name, value, **about)

    def _once(self, architecture: Architecture, repeat: int) -> float:
        with kept_generators(self._x.device):
            seed = int(np.random.SeedSequence((self._seed, repeat)).generate_state(1)[0])
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            network = self._space.build(architecture).to(self._x.device)
            return self._score(network, self._x, self._y)


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Puts the global generators of torch (CPU and `device`), numpy and Python back when the block ends."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [] if device.type in ("cpu", "meta") else [device]
    try:
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def layer_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights W of the formulas: those of all Conv2d and Linear layers, by name; a shared one counts once.

    Not in W: biases, normalisation, embeddings, transposed and 1-d or 3-d convolutions.

    Raises:
        ScoreError: there are none, or one is not a plain parameter (a parametrised layer).
    """
    weights: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if weight is None:
            raise ScoreError(path or "network", "its weight is computed from other parameters, so has no score")
        if all(weight is not known for known in weights.values()):
            weights[f"{path}.weight" if path else "weight"] = weight
    if not weights:
        raise ScoreError("network", "it has no Conv2d or Linear layer")
    return weights


def batch_hash(x: Tensor, y: Tensor) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of both tensors: types, shapes and numbers."""
    digest = hashlib.sha256()
    for tensor in (x.detach().cpu().contiguous(), y.detach().cpu().contiguous()):
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _check_batch(space: SearchSpace, x: Tensor, y: Tensor) -> None:
    if x.ndim != 4 or len(x) == 0 or tuple(x.shape[1:]) != tuple(space.input_shape):
        raise UserError("images", f"the space takes (n, *{space.input_shape}), not {tuple(x.shape)}")
    if y.shape != x.shape[:1] or y.is_floating_point():
        raise UserError("labels", f"one integer for each of {len(x)} images is needed, not {y.dtype} {tuple(y.shape)}")
    if int(y.min()) < 0 or int(y.max()) >= space.num_classes:
        raise UserError(
            "labels", f"they run from {int(y.min())} to {int(y.max())}, the classes to {space.num_classes - 1}"
        )
