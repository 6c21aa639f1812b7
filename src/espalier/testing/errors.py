"""How tests expect errors: by their place and code, not by their wording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import pytest

from espalier.nas.errors import Code, UserError


@contextmanager
def user_error(where: str, code: Code | None, *, nearest: str | None = None, says: str = "") -> Iterator[None]:
    """The block must raise a `UserError`.

    Args:
        where: its whole `where`; for a path its last parts are enough.
        code: its kind; None where the tests of the room that raises it look at that.
        nearest: the spelling that it must suggest.
        says: a fact that its line must contain, such as a number or a name; never a wording.
    """
    assert code is None or code in get_args(Code)
    with pytest.raises(UserError) as caught:
        yield
    error = caught.value
    assert error.where == where or error.where.endswith(f"/{where}"), str(error)
    assert code in (None, error.code), f"{error.code}: {error}"
    assert nearest is None or error.nearest == nearest, str(error)
    assert re.search(re.escape(says), str(error)), str(error)
