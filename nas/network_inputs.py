"""What a network takes and returns: named inputs of any shape and type, and outputs of any structure.

Most networks take images `(batch, channels, height, width)` and return one tensor. Others take audio
`(batch, channels, samples)`, token ids `(batch, sequence)` or several tensors, and return tuples or mappings of them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from espalier.nas.copying import copied
from espalier.nas.errors import UserError

IMAGE = "input"
"""The name of an input that has none of its own."""
OUTPUT = "logits"
"""The name of the output of a network that returns one tensor."""
DTYPES = {"float32": torch.float32, "int64": torch.int64, "int32": torch.int32, "bool": torch.bool}
"""Types of inputs. Networks in half or double precision are converted to float32."""
LARGEST_INPUT = 2**28
"""Numbers in one input at most: 1 GiB of float32."""
_SHAPE = re.compile(r"[1-9]\d{0,8}(x[1-9]\d{0,8})*")


@dataclass(frozen=True)
class Input:
    """One input of a network.

    Attributes:
        name: of the argument of `forward`, and of the input in an ONNX file.
        shape: without the batch; empty for one number for each item of the batch.
        dtype: one of `DTYPES`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def is_float(self) -> bool:
        """Whether its values are real numbers, not indices or masks."""
        return DTYPES[self.dtype].is_floating_point

    def __str__(self) -> str:
        return f"{self.name}:{'x'.join(map(str, self.shape))}:{self.dtype}"


def parse_input(text: str, *, where: str = "inputs") -> Input:
    """An input from `name:shape:dtype` or `name:shape`, such as `ids:128:int64`; the shape is without the batch.

    Args:
        text: the description.
        where: the parameter that holds it.

    Raises:
        UserError: another form, an unknown type, or a shape that cannot be.
    """
    name, _, rest = text.partition(":")
    shape, _, dtype = rest.partition(":")
    if not name.isidentifier() or not rest:
        raise UserError(where, f"{text[:80]!r} is not of the form name:shape:dtype, such as ids:128:int64")
    dtype = dtype or "float32"
    if dtype not in DTYPES:
        raise UserError(where, f"{dtype[:80]!r} is not a type of inputs", allowed=DTYPES, given=dtype)
    return Input(name, parse_shape(shape, where=where), dtype)


def parse_shape(text: str, *, where: str = "input_shape") -> tuple[int, ...]:
    """The shape `3x32x32` of an input without the batch.

    Args:
        text: whole numbers separated by x.
        where: the parameter that holds it.

    Raises:
        UserError: another form, or more than `LARGEST_INPUT` numbers.
    """
    if not _SHAPE.fullmatch(text):
        problem = f"{text[:80]!r} is not a shape without the batch, such as 3x32x32 or 1x16000"
        raise UserError(where, problem)
    shape = tuple(int(size) for size in text.split("x"))
    numbers = 1
    for size in shape:
        numbers *= size
    if numbers > LARGEST_INPUT:
        problem = f"{text[:80]} has too many numbers, must have at most {LARGEST_INPUT:,}"
        raise UserError(where, problem, code="out_of_range")
    return shape


def as_inputs(shape: tuple[int, ...] | Sequence[Input | str]) -> tuple[Input, ...]:
    """Inputs, from themselves, their descriptions, or the shape of the only one without the batch.

    Raises:
        UserError: a description has another form.
    """
    sizes = tuple(size for size in shape if isinstance(size, int))
    inputs = (parse_input(one) if isinstance(one, str) else one for one in shape if not isinstance(one, int))
    return tuple(inputs) or (Input(IMAGE, sizes),)


def random_inputs(inputs: Sequence[Input], batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """A tensor `(batch, *shape)` for each input: normal floats; integers and bools are 0 or 1.

    Integers are mostly indices or masks, and 0 and 1 are valid in every table.
    """
    return tuple(
        torch.randn(batch, *one.shape, generator=generator)
        if one.is_float
        else torch.randint(0, 2, (batch, *one.shape), generator=generator).to(DTYPES[one.dtype])
        for one in inputs
    )


def call(network: nn.Module, inputs: Sequence[Input], values: Sequence[Tensor]) -> Any:
    """The network's outputs: inputs are passed by name where `forward` has arguments of their names, else in order."""
    named = {one.name: value for one, value in zip(inputs, values, strict=True)}
    return network(**named) if _are_arguments(network, named) else network(*values)


def _are_arguments(network: nn.Module, names: Mapping[str, Any]) -> bool:
    try:
        known = inspect.signature(network.forward).parameters
    except (TypeError, ValueError):  # a method in C++, which has no signature
        return False
    return all(
        name in known and known[name].kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        for name in names
    )


def named_outputs(outputs: Any) -> dict[str, Tensor]:
    """The tensors in what a network returned, by name, in order.

    A lone tensor is `logits`. Those of a mapping have its keys, those of a tuple or list the names `output_0`,
    `output_1`, ...; inner levels are joined by dots. None is left out.

    Raises:
        UserError: something else than tensors, or no tensor at all.
    """
    if isinstance(outputs, Tensor):
        return {OUTPUT: outputs}
    found = dict(_named(outputs, ""))
    if not found:
        raise UserError("model", f"returns a {type(outputs).__name__} without tensors", code="unsupported")
    return found


def _named(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        yield from _named(value._asdict(), path)
    elif isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            yield from _named(inner, f"{path}.{index}" if path else f"output_{index}")
    elif value is not None:
        problem = f"returns a {type(value).__name__} ({path or 'its outputs'}), must return tensors"
        raise UserError("model", problem, code="unsupported")


PREDICTIONS = (OUTPUT, "out", "output", "prediction", "predictions")
"""Names under which a mapping usually holds the prediction."""


def prediction(outputs: Any, name: str | None = None, *, where: str = "outputs") -> Tensor:
    """The tensor that is the prediction, of whatever a network returned.

    Args:
        outputs: of the network.
        name: its key in a mapping, or its place in a tuple, counted from 0; None takes one of `PREDICTIONS`, else the
            first tensor.
        where: the setting that holds `name`.

    Raises:
        UserError: there is no tensor, or none of this name.
    """
    if isinstance(outputs, Tensor) and name is None:
        return outputs
    found = named_outputs(outputs)
    return found[prediction_name(list(found), name, where=where)]


def prediction_name(names: Sequence[str], name: str | None = None, *, where: str = "outputs") -> str:
    """Which of the outputs of these names is the prediction; see `prediction`.

    Args:
        names: of all outputs, at least one.
        name: what is asked for.
        where: the setting that holds `name`.

    Raises:
        UserError: there is none of this name.
    """
    if name is None:
        return next((usual for usual in PREDICTIONS if usual in names), names[0])
    places = [names[int(name)]] if name.isdecimal() and int(name) < len(names) else []
    for key in (name, f"output_{name}", *places):
        if key in names:
            return key
    raise UserError(where, f"the network returns no output {name[:200]!r}", allowed=names, given=name)


def with_one_input(network: nn.Module, inputs: Sequence[Input]) -> nn.Module:
    """A copy that takes one float tensor `(batch, 1)` in place of its inputs, which have fixed values.

    For what looks at a network's layers and not at its numbers: counting, tracing, removing channels. Names of layers
    and parameters stay; `without_view` undoes it.

    Args:
        network: left as it is.
        inputs: that it takes.
    """
    values = random_inputs(inputs, 1, torch.Generator().manual_seed(0))
    own = type(network)

    class OneInput(own):  # type: ignore[misc, valid-type]
        is_view = True

        def forward(self, x: Tensor) -> Any:
            moved = [
                value.to(x.device, x.dtype if value.is_floating_point() else None).expand(len(x), *value.shape[1:])
                for value in values
            ]
            named = {one.name: value for one, value in zip(inputs, moved, strict=True)}
            return own.forward(self, **named) if _are_arguments(network, named) else own.forward(self, *moved)

    return _viewed(network, OneInput)


def with_training_outputs(network: nn.Module) -> nn.Module:
    """A copy that returns in evaluation mode what it returns in training: auxiliary heads as well.

    Only the network itself is told that it trains, not its layers: batch norms and dropout stay as in evaluation.
    Removing channels must see every layer that reads them; `without_view` undoes it.

    Args:
        network: left as it is.
    """
    own = type(network)

    class TrainingOutputs(own):  # type: ignore[misc, valid-type]
        is_view = True

        def train(self, mode: bool = True) -> nn.Module:
            own.train(self, mode)
            self.training = True
            return self

    return _viewed(network, TrainingOutputs)


def _viewed(network: nn.Module, view: type[nn.Module]) -> nn.Module:
    view.__qualname__ = type(network).__qualname__  # by which structures are compared
    changed = copied(network)
    changed.__class__ = view
    return changed.train(network.training)


def without_view(network: nn.Module) -> nn.Module:
    """The network that `with_one_input` or `with_training_outputs` was given; others as they are."""
    if not getattr(type(network), "is_view", False):
        return network
    changed = copied(network)
    changed.__class__ = type(network).__mro__[1]
    return changed


def batched_dims(one: Sequence[Tensor], other: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """The dimensions of each output whose size depends on the batch, from the outputs of two different batches."""
    return [
        tuple(dim for dim, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b)
        for x, y in zip(one, other, strict=True)
    ]
