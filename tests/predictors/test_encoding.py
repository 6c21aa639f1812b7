"""Encodings: exact columns, what passes nothing, what is rare or new."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.cell_graph import live_edges
from espalier.predictors.encoding import ENCODINGS, OneHot, Paths, Subgraphs, encoding
from toy_space import ToySpace
from user_errors import user_error

SKIPS = "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|avg_pool_3x3~2|"
"""One path: 0 -> 1 -> 2 -> 3."""
SHORT = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
DANGLING = "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
"""Node 1 leads nowhere and node 2 gets nothing: the same function as `SHORT`."""


def test_one_hot_of_three_kinds_of_choice() -> None:
    # layer: conv pool none; inputs: (0, 1) (0, 2) (1, 2); depth: 1 2
    architecture = Architecture({"depth": 2, "inputs": (0, 2), "layer": "none"})
    one_hot = OneHot(ToySpace())
    assert one_hot.transform([architecture, architecture.replace("depth", 1)]).tolist() == [
        [0, 0, 1, 0, 1, 0, 0, 1],
        [0, 0, 1, 0, 1, 0, 1, 0],
    ]
    assert one_hot.transform([]).shape == (0, 8)


def test_paths_by_hand(small_space: NasBench201) -> None:
    paths = Paths(small_space)
    dense = "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"
    fitted = [small_space.parse(text) for text in (SKIPS, SHORT)]
    paths.fit(fitted)
    # columns in alphabetical order: input>nor_conv_1x1>output, input>skip_connect>nor_conv_3x3>avg_pool_3x3>output
    assert paths.transform([*fitted, small_space.parse(dense)]).tolist() == [[0, 1], [1, 0], [1, 1]]


def test_paths_not_seen_have_no_column(small_space: NasBench201) -> None:
    paths = Paths(small_space)
    paths.fit([small_space.parse(SHORT)])
    assert paths.transform([small_space.parse(SKIPS)]).tolist() == [[0]]


def test_two_ways_with_the_same_operations_are_one_path(small_space: NasBench201) -> None:
    paths = Paths(small_space)
    twice = small_space.parse("|skip_connect~0|+|skip_connect~0|none~1|+|none~0|nor_conv_3x3~1|nor_conv_3x3~2|")
    paths.fit([twice])
    assert paths.transform([twice]).tolist() == [[1]]


@pytest.mark.parametrize("kind", [Paths, Subgraphs])
def test_what_carries_nothing_is_not_seen(small_space: NasBench201, kind: type[Paths | Subgraphs]) -> None:
    short, dangling, other = (small_space.parse(text) for text in (SHORT, DANGLING, SKIPS))
    assert live_edges(small_space, dangling) == [("input", "output", "nor_conv_1x1")]
    one = kind(small_space)
    one.fit([short, dangling, other])
    a, b, c = one.transform([short, dangling, other])
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_names_of_inner_nodes_do_not_matter_to_graphs(small_space: NasBench201) -> None:
    """Nodes 1 and 2, not connected, change places."""
    subgraphs = Subgraphs(small_space)
    forth = small_space.parse("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|")
    back = small_space.parse("|skip_connect~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|")
    crossed = small_space.parse("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|")
    subgraphs.fit([forth, back, crossed])
    a, b, c = subgraphs.transform([forth, back, crossed])
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_graph_counts_by_hand(small_space: NasBench201) -> None:
    """One edge: the nodes input, edge and output, each with its own label before and after: six, each once."""
    subgraphs = Subgraphs(small_space)
    short = small_space.parse(SHORT)
    subgraphs.fit([short])
    assert subgraphs.transform([short]).tolist() == [[1] * 6]


def test_features_of_fewer_than_one_in_fifty_have_no_column(small_space: NasBench201) -> None:
    short, skips = small_space.parse(SHORT), small_space.parse(SKIPS)
    paths = Paths(small_space)
    paths.fit([short] * 49 + [skips])
    assert paths.transform([skips]).tolist() == [[0, 1]]
    paths.fit([short] * 50 + [skips])
    assert paths.transform([skips]).tolist() == [[0]]


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("space", [ToySpace(), NasBench201((1, 8, 8), channels=4, cells=1)], ids=["toy", "cells"])
def test_any_space(name: str, space: SearchSpace) -> None:
    generator = torch.Generator().manual_seed(1)
    architectures = [space.sample(generator) for _ in range(20)]
    one = encoding(name, space)
    assert one.name == name
    one.fit(architectures)
    rows = one.transform(architectures)
    assert rows.dtype == np.float64
    assert len(rows) == 20 and rows.shape[1] > 0
    assert np.array_equal(one.transform(architectures[3:4]), rows[3:4])
    again = encoding(name, space)
    again.fit(architectures[::-1])
    assert np.array_equal(again.transform(architectures), rows)  # columns depend on what is seen, not on its order
    with pytest.raises(UserError, match="elsewhere"):
        one.transform([Architecture({"elsewhere": 1})])


def test_unknown_name() -> None:
    with user_error("encoding", "unknown", nearest="one_hot"):
        encoding("onehot", ToySpace())
