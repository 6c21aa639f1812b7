"""What every own data source must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from espalier.nas.data import Images, Limit, load
from espalier.nas.data.sources.own import OwnSource


class DataSourceContract:
    """The contract of a data source. A subclass overrides the fixture `source`."""

    @pytest.fixture
    def source(self) -> Callable[..., Any]:
        """The function; if it has keyword-only arguments without defaults, a `functools.partial` that gives them."""
        raise NotImplementedError

    @pytest.fixture
    def images(self, source: Callable[..., Any]) -> Images:
        """The training images."""
        return load(OwnSource("source", source))[0]

    def test_it_gives_the_same_images_each_time(self, source: Callable[..., Any], images: Images) -> None:
        again, test = load(OwnSource("source", source))
        assert again.fingerprint == images.fingerprint
        assert test is None or test.classes == images.classes

    def test_every_class_has_images(self, images: Images) -> None:
        assert len(images.classes) >= 2
        assert set(images.labels.tolist()) == set(range(len(images.classes)))

    def test_size_and_limit_are_kept(self, source: Callable[..., Any], images: Images) -> None:
        fewer = load(OwnSource("source", source), size=6, limit=Limit(len(images) // 2, seed=1))[0]
        assert fewer.image_shape == (images.image_shape[0], 6, 6)
        assert len(fewer) == len(images) // 2
