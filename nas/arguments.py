"""Arguments checked by their annotations: the range of an option is written once, for recipes and for Python."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from espalier.nas.errors import Code, UserError

F = TypeVar("F", bound=Callable[..., Any])

_LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
"""By pydantic's kind of error: where the limit stands, and how it is said."""


def checked_arguments(function: F) -> F:
    """Decorate a function, a constructor or a dataclass whose annotations say what its arguments may be.

        @checked_arguments
        def __init__(self, weights: Weights, *, alpha: Annotated[float, Field(ge=0, le=1)] = 0.95) -> None: ...

    A call then checks the arguments whose annotation restricts them (`PositiveInt`, `Annotated[...]`, `Literal[...]`,
    each of them or None), and passes on what pydantic makes of them: 3 of "3". All others are passed on as they are,
    and so are defaults. Recipes check the keys that they take from a signature by the same annotations.

    Raises:
        UserError: in a call, with the argument's name: it is out of range, unknown, or of another type.
    """
    if inspect.isclass(function):
        vars_of: Any = function
        vars_of.__init__ = checked_arguments(vars_of.__init__)
        return function
    signature = inspect.signature(function)

    @functools.cache
    def validators() -> dict[str, Any]:
        from pydantic import ConfigDict, TypeAdapter

        hints = get_type_hints(function, include_extras=True)
        config = ConfigDict(allow_inf_nan=False)
        return {
            name: TypeAdapter(hints[name], config=config)
            for name in signature.parameters
            if name in hints and _restricts(hints[name])
        }

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name, validator in validators().items():
            if name in given.arguments:
                given.arguments[name] = _validated(name, given.arguments[name], validator)
        return function(*given.args, **given.kwargs)

    return cast(F, wrapper)


def _restricts(annotation: Any) -> bool:
    if get_origin(annotation) in (Annotated, Literal):
        return True
    return any(_restricts(member) for member in get_args(annotation) if member is not type(None))


def _validated(name: str, value: Any, validator: Any) -> Any:
    from pydantic import ValidationError

    try:
        return validator.validate_python(value)
    except ValidationError as error:
        raise _user_error(name, value, error.errors(include_url=False)[0]) from error


def _user_error(name: str, value: Any, details: Any) -> UserError:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "literal_error":
        allowed = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(",")]
        return UserError(name, f"{value!r} is not possible", allowed=allowed, given=value)
    code: Code = "out_of_range" if kind in _LIMITS or kind == "finite_number" else "invalid"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return UserError(name, f"must be {words} {context[key]:g}, not {value!r}", code=code)
    message = details["msg"].removeprefix("Input should be ")
    return UserError(name, f"must be {message}, not {value!r}", code=code)
