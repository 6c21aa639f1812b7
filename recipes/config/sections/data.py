"""`data`: the images, and what each part of them is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from espalier.nas.data import Images, Limit, SplitFractions, load
from espalier.nas.data.class_order import in_order
from espalier.nas.data.sources import SOURCES
from espalier.nas.data.sources.own import OwnSource
from espalier.nas.settings import Settings
from espalier.recipes.config.options import Named, OwnSettings, given_options
from espalier.recipes.config.registry import DATA_SOURCES
from espalier.recipes.config.roles import load as own_method

NOT_THE_USERS = ("path", "test_path", "size", "limit")
"""Arguments of sources that are keys of the section."""


def _as_text(name: Any) -> Any:
    """Classes may be called by numbers, which YAML reads as such."""
    return str(name) if type(name) is int else name


class DataSettings(Settings):
    """The images, and what each part of them is for."""

    source: Annotated[Literal[*SOURCES], Named(DATA_SOURCES, NOT_THE_USERS, as_text=True)]  # type: ignore[valid-type]
    """The kind of source; an own one may have options, `{name: shapes.py:shapes, count: 600}`."""
    path: Path | None = None
    """File or folder of the training images, relative to the current folder; `digits` has none."""
    test_path: Path | None = None
    """File or folder of the test images, where `path` does not lead to them."""
    size: PositiveInt | None = None
    """Height and width to resize all images to; null keeps them."""
    limit: PositiveInt | None = None
    """Use only this many training and test images, with the same balance of classes."""
    classes: Annotated[tuple[Annotated[str, BeforeValidator(_as_text)], ...], Field(min_length=2)] | None = None
    """Names of all classes in the order of a network's outputs; null takes the order of the source."""
    split: SplitFractions
    """Shares of the images; that of `test` goes to the others where the source has its own test images."""

    def load(self, seed: int) -> tuple[Images, Images | None]:
        """The images of the source: the pool to train and select on, and its own test images where it has some.

        Args:
            seed: of what is drawn where there is a limit.

        Raises:
            UserError: the source cannot be used.
        """
        limit = Limit(self.limit, seed)
        pool, test = load_source(self.source, path=self.path, test_path=self.test_path, size=self.size, limit=limit)
        if self.classes is None:
            return pool, test
        return in_order(pool, self.classes), None if test is None else in_order(test, self.classes)


def load_source(source: Any, **keys: Any) -> tuple[Images, Images | None]:
    """The images of one of the platform's sources, by its name, or of an own one, by its section.

    Args:
        source: the value of `data.source`.
        **keys: see `espalier.nas.data.load`.

    Raises:
        UserError: the source cannot be used.
    """
    if not isinstance(source, OwnSettings):
        return load(source, **keys)
    function = own_method(DATA_SOURCES, source.name, where="data.source")
    return load(OwnSource(source.name, function, given_options(source)), **keys)
