"""Which nodes of an ONNX file, and which modules of its source, correspond to a node of the optimised network.

Optimisers keep names: a fused node outputs a tensor of one of its nodes, usually the last, or is named by it.
Everything between that tensor and the outputs of other nodes has been fused into it. Activations and additions between
two convolutions belong to the first one: a convolution is fused with what follows it, never with what comes before.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SUFFIX = re.compile(r"(_nchwc|_token_\d+)+$")
"""Suffixes that ONNX Runtime adds to names when it changes layouts."""
_LAYOUT = {"ReorderInput", "ReorderOutput", "Transpose"}
_CONVOLUTIONS = {"Conv", "ConvInteger", "QLinearConv", "ConvTranspose"}
_FOLLOWING = {"Add", "Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh"}
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata of torch's dynamo exporter: the modules of a node as a list, the last entry being its function."""
_NO_MODULE = "_empty_nn_module"
"""Its entry for operations outside of all modules."""
_PARAMETER = re.compile(r"^(.+)\.(weight|bias)$")


@dataclass(frozen=True)
class Origin:
    """The origin of a node of the optimised network.

    Attributes:
        module: its path in the source; "" if no name contains it.
        absorbed: the nodes of the file, as `operator name`, in order; empty if the runtime inserted it.
    """

    module: str
    absorbed: tuple[str, ...]


def origins(onnx_file: Path, optimized: bytes) -> dict[str, Origin]:
    """The origin of each node of the optimised network, by name; nodes that share a name are left out."""
    import onnx

    source = _Graph(onnx.load(onnx_file, load_external_data=False).graph)
    nodes = list(onnx.load_from_string(optimized).graph.node)
    ends = {i: end for i, node in enumerate(nodes) if (end := source.last_of(node)) is not None}
    visible = {output for end in ends.values() for output in source.nodes[end].output}
    absorbed = {end: source.between(visible, end) for end in ends.values()}
    source.hand_back(absorbed)
    times_named = Counter(node.name for node in nodes)
    return {
        node.name: source.origin(absorbed[ends[i]] if i in ends else [])
        for i, node in enumerate(nodes)
        if times_named[node.name] == 1
    }


class _Graph:
    """The file's own graph, with its nodes in topological order as ONNX requires."""

    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self._maker = {output: i for i, node in enumerate(self.nodes) for output in node.output if output}
        self._by_name = {node.name: i for i, node in enumerate(self.nodes) if node.name}
        self._weights = {tensor.name for tensor in graph.initializer}
        matches = filter(None, map(_PARAMETER.match, self._weights))
        self._roots = {match[1].partition(".")[0] for match in matches}
        self._moving = self._fed({value.name for value in graph.input} - self._weights)

    def last_of(self, node: Any) -> int | None:
        """The last of the file's nodes that are fused into an optimised one; None if the runtime inserted it."""
        plain = _SUFFIX.sub("", node.name)
        for i in (*map(self._maker.get, node.output), self._maker.get(plain), self._by_name.get(plain)):
            if i is not None and (node.op_type not in _LAYOUT or self.nodes[i].op_type == node.op_type):
                return i
        return None

    def between(self, visible: Iterable[str], end: int) -> list[int]:
        """The nodes between the visible tensors and `end`, without constant ones."""
        stop = set(visible)
        found, waiting = {end}, [end]
        while waiting:
            for tensor in self.nodes[waiting.pop()].input:
                i = self._maker.get(tensor)
                if i is not None and i in self._moving and tensor not in stop and i not in found:
                    found.add(i)
                    waiting.append(i)
        return sorted(found)

    def hand_back(self, absorbed: dict[int, list[int]]) -> None:
        """Move nodes that a convolution cannot absorb to the kernel that makes their input (`absorbed`, by end)."""
        for end, chosen in absorbed.items():
            convolution = next((i for i in chosen if self.nodes[i].op_type in _CONVOLUTIONS), None)
            for i in [i for i in chosen if convolution is not None and i < convolution]:
                makers = [self._maker[tensor] for tensor in self.nodes[i].input if tensor in self._maker]
                owner = next((other for other in sorted(makers, reverse=True) if other in absorbed), None)
                if self.nodes[i].op_type in _FOLLOWING and owner is not None:
                    absorbed[end] = [j for j in absorbed[end] if j != i]
                    absorbed[owner] = sorted([*absorbed[owner], i])

    def origin(self, nodes: Sequence[int]) -> Origin:
        """The origin of a kernel into which these nodes are fused."""
        names = (f"{self.nodes[i].op_type} {self.nodes[i].name}".rstrip() for i in nodes)
        return Origin(self._module(nodes), tuple(names))

    def _module(self, nodes: Iterable[int]) -> str:
        """The module of the first node with weights; without one, of the first node with a module's name."""
        chosen = [self.nodes[i] for i in nodes]
        by_scopes = map(self._module_by_scopes, chosen)
        for name in (*map(self._module_by_weights, chosen), *by_scopes, *map(_by_path, chosen)):
            if name:
                return name
        return ""

    def _module_by_weights(self, node: Any) -> str:
        """By parameters, whose names exporters keep if they do not change them: `layer1.0.conv1.weight`."""
        names = (_PARAMETER.match(tensor) for tensor in node.input if tensor in self._weights)
        return next((match[1] for match in names if match), "")

    def _module_by_scopes(self, node: Any) -> str:
        """By metadata of the dynamo exporter: ['', 'bn1', 'bn1.act', 'hardswish'] belongs to `bn1.act`.

        Networks that torch.fx has traced inside another module have its name as a prefix; their parameters do not.
        """
        noted: Mapping[str, str] = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(noted.get(_SCOPES, "[]"))
        if len(scopes) < 2 or scopes[-2].startswith(_NO_MODULE):
            return ""
        outer, _, inner = str(scopes[-2]).partition(".")
        within = inner.partition(".")[0] in self._roots and outer not in self._roots
        return inner if within else str(scopes[-2])

    def _fed(self, inputs: set[str]) -> set[int]:
        """The nodes whose results depend on the inputs."""
        tensors, found = set(inputs), set()
        for i, node in enumerate(self.nodes):
            if not tensors.isdisjoint([*node.input, *_captured(node)]):
                tensors.update(node.output)
                found.add(i)
        return found


def _captured(node: Any) -> Iterator[str]:
    """Tensors that the graphs inside a node (loops, branches) may use from outside."""
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from inner.input
            yield from _captured(inner)


def _by_path(node: Any) -> str:
    """By a node's name with slashes, as from the TorchScript exporter and TensorFlow: `/blocks/blocks.0/act/Relu`."""
    parts = [part for part in node.name.split("/") if part][:-1]
    path: list[str] = []
    for part in parts:
        if path and part.startswith(f"{path[-1]}."):  # a module of a list repeats the list's name
            path.pop()
        path.append(part)
    return ".".join(path)
