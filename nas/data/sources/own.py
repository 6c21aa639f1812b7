"""Images from a function of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from espalier.nas.data.balance import Limit
from espalier.nas.data.images import Images
from espalier.nas.data.sources.fit import resize
from espalier.nas.errors import UserError
from espalier.nas.user_code import called


@dataclass(frozen=True)
class OwnSource:
    """A function that returns `Images`, or a pair of training and test images.

    It gets `path`, `test_path`, `size` or `limit` only if it has a parameter of that name. Without `size` and `limit`
    its images are resized, and as many of them kept as asked for.

    Attributes:
        name: of the function, for messages.
        function: called with keywords alone.
        options: further keywords.
    """

    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(
        self, path: Path | None, test_path: Path | None, size: int | None, limit: Limit
    ) -> tuple[Images, Images | None]:
        """The training and test images; see `espalier.nas.data.load`.

        Raises:
            UserError: the function raises, returns something else, or takes no path where one is given.
        """
        takes = inspect.signature(self.function).parameters
        keys = {"path": path, "test_path": test_path, "size": size, "limit": limit}
        for key in ("path", "test_path"):
            if keys[key] is not None and key not in takes:
                raise UserError(f"data.{key}", f"the source {self.name} takes no {key}", code="conflict")
        given = {key: value for key, value in keys.items() if key in takes}
        found = called(self.function, self.name, **given, **self.options)
        pool, test = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        if not isinstance(pool, Images) or not isinstance(test, Images | None):
            problem = "returns neither Images nor a pair of them, for training and for test"
            raise UserError(self.name, problem, code="user_code")
        return self._fit(pool, size, limit, takes), None if test is None else self._fit(test, size, limit, takes)

    def _fit(self, images: Images, size: int | None, limit: Limit, takes: Mapping[str, Any]) -> Images:
        if "limit" not in takes:
            images = images.subset(limit.rows(images.labels, images.classes))
        return images if "size" in takes else replace(images, pixels=resize(images.pixels, size))
