"""Arguments checked by their annotations."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field, PositiveFloat, PositiveInt

from espalier.nas.arguments import checked_arguments
from espalier.nas.errors import Code
from user_errors import user_error


@checked_arguments
def call(
    anything: object,
    count: PositiveInt = 1,
    *,
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    limit: PositiveFloat | None = None,
    name: Literal["one", "two"] = "one",
    plain: int = 3,
) -> tuple[Any, ...]:
    return anything, count, share, limit, name, plain


class Made:
    @checked_arguments
    def __init__(self, *, count: PositiveInt) -> None:
        self.count = count


@checked_arguments
@dataclass(frozen=True)
class Fields:
    count: PositiveInt = 1
    share: Annotated[float, Field(gt=0, le=1)] | None = None


def test_what_is_allowed_is_passed_on() -> None:
    marker = object()
    assert call(marker) == (marker, 1, 0.5, None, "one", 3)
    assert call(marker, 2, share=0, limit=1, name="two") == (marker, 2, 0.0, 1.0, "two", 3)
    assert call(marker, count=np.int64(2), share=np.float32(0.25)) == (marker, 2, 0.25, None, "one", 3)
    assert call(marker, plain="not restricted")[-1] == "not restricted"


@pytest.mark.parametrize(
    ("options", "where", "code", "says"),
    [
        ({"count": 0}, "count", "out_of_range", "0"),
        ({"count": 1.5}, "count", "invalid", "1.5"),
        ({"count": "many"}, "count", "invalid", "many"),
        ({"share": 1.0}, "share", "out_of_range", "1"),
        ({"share": -0.1}, "share", "out_of_range", "-0.1"),
        ({"share": float("nan")}, "share", "out_of_range", "nan"),
        ({"limit": 0.0}, "limit", "out_of_range", "0"),
        ({"limit": float("inf")}, "limit", "out_of_range", "inf"),
        ({"name": "three"}, "name", "unknown", "one, two"),
    ],
)
def test_what_is_not_is_named(options: dict[str, Any], where: str, code: Code, says: str) -> None:
    with user_error(where, code, says=says):
        call(None, **options)


def test_the_nearest_name_is_suggested() -> None:
    with user_error("name", "unknown", nearest="two"):
        call(None, name="tow")  # type: ignore[arg-type]


def test_constructors_and_dataclasses() -> None:
    assert Made(count=2).count == 2
    with user_error("count", "out_of_range"):
        Made(count=0)
    assert replace(Fields(count=2), share=1.0) == Fields(2, 1.0)
    with user_error("share", "out_of_range"):
        replace(Fields(), share=1.5)
    with user_error("count", "out_of_range"):
        Fields(0)


def test_signatures_stay_for_those_that_read_them() -> None:
    assert list(inspect.signature(call).parameters) == ["anything", "count", "share", "limit", "name", "plain"]
    assert inspect.signature(Made, eval_str=True).parameters["count"].annotation == PositiveInt
    with pytest.raises(TypeError):
        Made(number=2)  # type: ignore[call-arg]
