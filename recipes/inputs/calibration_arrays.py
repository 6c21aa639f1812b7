"""Values of a network's inputs that are no images, to calibrate and to judge its quantised forms with.

They come from a NumPy archive with an array `(n, ...)` for each input, by its name, and `labels` `(n,)` where the
classes are known. Without an archive they are generated: enough to compare forms with float32, not to calibrate.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from espalier.export.quantize.source import Values, chosen, length
from espalier.nas.checkpoint import BROKEN
from espalier.nas.errors import UserError
from espalier.nas.network_images import NetworkImages
from espalier.nas.network_inputs import Input, random_inputs
from espalier.nas.seeds import seed_for
from espalier.recipes.config.quantize_settings import QuantizeSettings

LABELS = "labels"
"""The array of classes in an archive."""
GENERATED = 256
"""Items that are generated where there is no data."""
HELD_BACK, TESTED = 0.1, 0.1
"""Shares of the data, as for images without test images."""
MOST_BYTES = 8 * 2**30
"""That an archive may unpack to."""


@dataclass(frozen=True)
class Items:
    """Some of the values.

    Attributes:
        values: of the inputs.
        labels: class of each, int64 `(n,)`; None where they are not known.
    """

    values: Values
    labels: np.ndarray | None

    def batches(self, size: int) -> Iterator[Values]:
        """The values in order; the last batch may be smaller."""
        for start in range(0, length(self.values), size):
            yield chosen(self.values, slice(start, start + size))


@dataclass(frozen=True)
class QuantizationArrays:
    """Arrays, divided at random into those to calibrate with, those held back and those to test with.

    Attributes:
        inputs: of the network.
        arrays: by the names of the inputs, and `labels`; None generates values.
        settings: of the command.
    """

    inputs: tuple[Input, ...]
    arrays: Mapping[str, np.ndarray] | None
    settings: QuantizeSettings
    classes = None
    """How many there are follows from the network's outputs."""
    described = NetworkImages()
    """Nothing: these are no images."""

    @property
    def description(self) -> str:
        """What the network takes, for the model card."""
        return f"the inputs are {', '.join(map(str, self.inputs))} (name:shape:type, without the batch)"

    def calibration(self) -> Values:
        """Values to take the ranges of activations from; none where they would have to be generated."""
        values = self._values
        if self.arrays is None:
            return chosen(values, slice(0))
        return chosen(values, self._parts[0][: self.settings.calibration_images])

    def held_back(self) -> Items:
        """Items by which one of several equally fast forms is chosen."""
        return self._items(1)

    def test(self) -> Items:
        """Items that the forms are tested on."""
        return self._items(2)

    def _items(self, part: int) -> Items:
        which = self._parts[part]
        labels = None if self.arrays is None else self.arrays.get(LABELS)
        return Items(chosen(self._values, which), None if labels is None else labels[which].astype(np.int64))

    @cached_property
    def _values(self) -> Values:
        if self.arrays is None:
            generator = torch.Generator().manual_seed(seed_for(self.settings.seed, "generated"))
            tensors = random_inputs(self.inputs, GENERATED, generator)
            return {one.name: tensor.numpy() for one, tensor in zip(self.inputs, tensors, strict=True)}
        return {one.name: self._fitting(one, self.arrays) for one in self.inputs}

    def _fitting(self, one: Input, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        array, where = arrays[one.name], str(self.settings.data.path)
        if array.shape[1:] != one.shape:
            problem = f"the array {one.name!r} has shape {array.shape[1:]} without the batch, must have {one.shape}"
            raise UserError(where, problem, code="mismatch")
        if (array.dtype.kind == "f") != one.is_float or array.dtype.kind not in "fiub":
            problem = f"the array {one.name!r} is {array.dtype}, the network takes {one.dtype}"
            raise UserError(where, problem, code="mismatch")
        if one.is_float and not np.isfinite(array).all():
            raise UserError(where, f"the array {one.name!r} contains NaN or infinity", code="invalid")
        return array

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = length(self._values)
        order = np.random.default_rng(seed_for(self.settings.seed, "split")).permutation(count)
        held_back, tested = max(1, round(HELD_BACK * count)), max(1, round(TESTED * count))
        if self.arrays is None:  # nothing is calibrated or learned: all items can test
            return order[:0], order, order
        if count < 3:
            raise UserError(str(self.settings.data.path), f"has {count} items, at least 3 are needed", code="too_few")
        return order[held_back + tested :], order[:held_back], order[held_back : held_back + tested]


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these names and `labels`, where there are some, of a NumPy archive.

    Raises:
        UserError: it cannot be read, an array is missing, or they are not equally long.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(file.file_size for file in archive.infolist())
        if unpacked > MOST_BYTES:
            problem = f"unpacks to {unpacked / 2**30:.1f} GiB, at most {MOST_BYTES // 2**30} GiB are read"
            raise UserError(str(path), problem, code="out_of_range")
        with np.load(path, allow_pickle=False) as archive:
            missing = next((name for name in names if name not in archive.files), None)
            if missing is not None:
                problem = f"has no array {missing!r}; it needs one for each input of the network"
                raise UserError(str(path), problem, allowed=archive.files, given=missing, code="missing")
            found = {name: np.asarray(archive[name]) for name in (*names, LABELS) if name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, *BROKEN) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(str(path), f"cannot be read as a NumPy archive ({first})", code="unreadable") from error
    lengths = {name: len(array) if array.ndim else 0 for name, array in found.items()}
    if len(set(lengths.values())) > 1:
        problem = f"its arrays have unequal lengths ({', '.join(f'{key} {value}' for key, value in lengths.items())})"
        raise UserError(str(path), problem, code="mismatch")
    labels = found.get(LABELS)
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0)):
        raise UserError(str(path), f"its {LABELS} must be whole numbers (n,), counted from 0", code="invalid")
    return found
