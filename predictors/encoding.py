"""Encodings: architectures of any space as feature vectors, for predictors that learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace
from espalier.predictors.arrays import Floats
from espalier.predictors.cell_graph import edges_as_nodes, live_edges, paths_to_output


class Encoding(Protocol):
    """How architectures become vectors.

    Attributes:
        name: as in recipes.
    """

    name: str

    def fit(self, architectures: Sequence[Architecture]) -> None:
        """Fix the columns."""
        ...

    def transform(self, architectures: Sequence[Architecture]) -> Floats:
        """`(n, columns)`: a row for each architecture.

        Raises:
            UserError: not an architecture of the space.
        """
        ...


class OneHot:
    """One column for each choice and option, in the space's order: 1 where the architecture takes the option."""

    name = "one_hot"

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def fit(self, architectures: Sequence[Architecture]) -> None:
        """Nothing to do: the space alone determines the columns."""

    def transform(self, architectures: Sequence[Architecture]) -> Floats:
        taken = [self._space.gates(self._space.check(a)) for a in architectures]
        sizes = {name: len(choice.options) for name, choice in self._space.choices().items()}
        return np.hstack([np.eye(n)[np.array([gates[name] for gates in taken], int)] for name, n in sizes.items()])


class _Counts:
    """One column for each feature that a share of at least `MIN_SHARE` of the architectures in `fit` has.

    A feature of a single architecture only tells that it is like no other.
    """

    def __init__(self, space: SearchSpace) -> None:
        from sklearn.feature_extraction import DictVectorizer

        self._space = space
        self._columns = DictVectorizer(sparse=False)

    def fit(self, architectures: Sequence[Architecture]) -> None:
        """Fix the columns."""
        counts = self._columns.fit_transform([self._count(a) for a in architectures])
        self._columns.restrict((counts > 0).mean(0) >= MIN_SHARE)

    def transform(self, architectures: Sequence[Architecture]) -> Floats:
        return self._columns.transform([self._count(a) for a in architectures])

    def _count(self, architecture: Architecture) -> Mapping[str, int]:
        raise NotImplementedError


class Operations(_Counts):
    """How often each operation occurs among the live edges of the diagram.

    The fewest numbers that determine most of a network's cost, so that a few measurements suffice to learn it.
    """

    name = "operations"

    def _count(self, architecture: Architecture) -> Mapping[str, int]:
        return Counter(label for _, _, label in live_edges(self._space, architecture))


class Paths(_Counts):
    """Which paths lead from an input to an output, 0 or 1; a path is identified by its operations.

    White, Neiswanger & Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture
    Search", AAAI 2021, section 3. Meant for cells: a chain has a single path, and two chains that differ anywhere have
    no column in common.
    """

    name = "path"

    def _count(self, architecture: Architecture) -> Mapping[str, int]:
        edges = live_edges(self._space, architecture)
        targets = {target for _, target, _ in edges}
        inputs = sorted({source for source, _, _ in edges} - targets)
        return {f"{node}>{path}": 1 for node in inputs for path in paths_to_output(edges, node)}


class Subgraphs(_Counts):
    """How often each rooted neighbourhood occurs in the diagram: Weisfeiler-Lehman labels.

    Ru, Wan, Dong & Osborne, "Interpretable Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman
    Kernels", ICLR 2021; labels after Shervashidze et al., JMLR 2011. Operations and nodes both become nodes of one
    graph: a label describes an operation and the nodes it connects, or a node and the operations that meet in it.
    """

    name = "graph"

    def _count(self, architecture: Architecture) -> Mapping[str, int]:
        import networkx as nx

        labels = nx.weisfeiler_lehman_subgraph_hashes(
            edges_as_nodes(live_edges(self._space, architecture)),
            node_attr="label",
            iterations=ROUNDS,
            include_initial_labels=True,
        )
        return Counter(label for vertex in labels.values() for label in vertex)


MIN_SHARE = 0.02
ROUNDS = 1
"""More rounds find neighbourhoods that are too rare to learn from."""

ENCODINGS: Mapping[str, Callable[[SearchSpace], Encoding]] = {
    kind.name: kind for kind in (OneHot, Operations, Paths, Subgraphs)
}


def encoding(name: str, space: SearchSpace, *, where: str = "encoding") -> Encoding:
    """The encoding `name` of the space.

    Raises:
        UserError: no encoding has that name.
    """
    if name not in ENCODINGS:
        raise UserError(where, f"unknown encoding {name!r}", allowed=ENCODINGS, given=name)
    return ENCODINGS[name](space)
