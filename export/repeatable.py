"""Whether a network computes a fixed function of its input, which is all that a file can hold.

A file cannot draw random numbers as the network does, count its calls, or choose Python code by a number it computed.
Exporters freeze the value that they saw, and a check on a few images may never see another one.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from espalier.export.errors import ExportError

CONVERSIONS = frozenset(
    (
        *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__array__", "__contains__", "__dlpack__"),
        *("item", "tolist", "numpy", "equal", "allclose", "is_nonzero"),
    )
)
"""Functions of torch that turn a tensor's numbers into a value of Python."""
COUNTING = frozenset(("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "unique_dim", "bincount"))
"""Functions whose output has as many numbers as the input's values say."""


class Conversions(TorchFunctionMode):
    """Notes where a network turns numbers that depend on its input into values of Python.

    A tensor depends on the input if it was computed from one that does. Sizes do not: they are the same for all images.

    Args:
        inputs: of the network.

    Attributes:
        found: `FILE, line N` of each conversion, without repetition, in order.
        counts: whether the number of elements of some tensor depends on the input.
    """

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self._tainted: dict[int, StorageWeakRef] = {}
        self.found: list[str] = []
        self.counts = False
        for tensor in inputs:
            self._mark(tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the function and marks what it returns."""
        if torch.compiler.is_compiling():  # inside torch.cond and the like, whose branches become operators
            return func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        depends = any(map(self._depends, tensors))
        if depends and name in CONVERSIONS:
            place = _place()
            if place not in self.found:
                self.found.append(place)
        outputs = func(*args, **(kwargs or {}))
        if depends:
            self.counts = self.counts or name in COUNTING or _is_masked(name, args)
            changed = tensors if name.endswith("_") or (kwargs or {}).get("out") is not None else []
            for leaf in [*tree_leaves(outputs), *changed[:1]]:
                if isinstance(leaf, Tensor):
                    self._mark(leaf)
        return outputs

    def _mark(self, tensor: Tensor) -> None:
        reference = _storage(tensor)
        if reference is not None:
            self._tainted[reference.cdata] = reference  # a weak reference keeps its address from being used again

    def _depends(self, tensor: Tensor) -> bool:
        reference = _storage(tensor)
        return reference is None or reference.cdata in self._tainted


def _storage(tensor: Tensor) -> StorageWeakRef | None:
    """The memory of a tensor; None for kinds that have none, such as sparse ones."""
    with torch._C.DisableTorchFunction():
        try:
            return StorageWeakRef(tensor.untyped_storage())
        except (NotImplementedError, RuntimeError):
            return None


def _is_masked(name: str, args: tuple[Any, ...]) -> bool:
    """Whether this is `x[mask]`."""
    with torch._C.DisableTorchFunction():
        return name == "__getitem__" and any(
            isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8) for leaf in tree_leaves(args[1:])
        )


def _place() -> str:
    """The innermost line that is neither torch's nor this file's."""
    ignored = (__file__, torch.__file__.rpartition("/")[0])
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(ignored)]
    return f"{frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno}" if frames else "unknown"


def check_repeatable(run: Callable[[], tuple[Tensor, ...]], network: nn.Module, *, path: str) -> None:
    """Check that a network in evaluation mode gives the same outputs each time.

    Args:
        run: runs the network on fixed inputs; it has run before, so that what it caches is there.
        network: the network.
        path: the file to be written, for the error.

    Raises:
        ExportError: it draws random numbers, changes its own state, or its outputs differ from one run to the next.
    """
    before, state = _generators(), dict(_state(network))
    first = run()
    drawn = [name for name, value in _generators().items() if value != before[name]]
    if drawn:
        problem = f"the network draws random numbers in evaluation mode (with {drawn[0]}), which no file can repeat"
        raise ExportError(path, problem, code="unsupported")
    changed = next((name for name, value in _state(network) if name not in state or state[name] != value), None)
    if changed is not None:
        problem = f"the network changes its own {changed} in evaluation mode, which no file can do"
        raise ExportError(path, problem, code="unsupported")
    again = run()
    if not all(_alike(a, b) for a, b in zip(first, again, strict=True)):
        problem = "the network's outputs differ from one run to the next on the same input, which no file can do"
        raise ExportError(path, problem, code="unsupported")


def _generators() -> dict[str, Any]:
    legacy = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "Python's random": random.getstate(),
        "numpy.random": (legacy[1].tobytes(), *legacy[2:]) if isinstance(legacy, tuple) else legacy,
    }


def _state(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Numbers and words kept by modules, and the version of their tensors, which each change in place increases."""
    for name, module in network.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, bool | int | float | str) and key != "training":
                yield f"{name}.{key}".lstrip("."), value
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        yield name, (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6, equal_nan=True)
