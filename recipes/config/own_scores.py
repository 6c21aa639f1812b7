"""Own scores and predictors, made from the names that recipes and commands give them."""

from __future__ import annotations

from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.predictor import Predictor
from espalier.nas.space import SearchSpace
from espalier.nas.user_code import called
from espalier.predictors.zero_cost.score import Score
from espalier.recipes.config.options import options_from_text
from espalier.recipes.config.registry import COSTS, SCORES, own_score
from espalier.recipes.config.roles import OWN_FORMS, load

PREDICTS = ("name", "unit", "higher_is_better")
"""The attributes of a predictor; it is also called with an architecture."""


def make_own_score(text: str, space: SearchSpace | None, *, where: str) -> Score | Predictor:
    """The score, or the predictor of a space's architectures, that a text names; it is called by that text.

    A subclass of `Score` is made from its options alone; any other class or function also gets the space, and must
    give a `Predictor`.

    Args:
        text: `NAME` or `NAME:key=value,key=value`.
        space: whose architectures are predicted; None where there are only networks.
        where: the key or option that holds the text.

    Raises:
        UserError: there is no such score or option; it raises, or is neither a score nor a predictor.
    """
    name, options = options_from_text(SCORES, text, where=where)
    found = load(SCORES, name, where=where)
    scores = isinstance(found, type) and issubclass(found, Score)
    if not scores and space is None:
        problem = f"{name} is not a subclass of Score, and networks are scored by nothing else"
        raise UserError(where, problem, code="unsupported")
    made: Any = called(found, name, *(() if scores else (space,)), **options)
    if not scores and not (callable(made) and all(hasattr(made, attribute) for attribute in PREDICTS)):
        problem = f"gives a {type(made).__name__}, which is neither a Score nor a Predictor"
        raise UserError(name, problem, code="user_code")
    made.name = text
    return made


def make_score(name: str, *, where: str) -> Score:
    """The score of networks of that name: the platform's, or an own one with its options.

    Raises:
        UserError: there is none, or it is a predictor of architectures and not a score of networks.
    """
    if own_score(name) is not None:
        own = make_own_score(name, None, where=where)
        assert isinstance(own, Score)  # without a space nothing else is made
        return own
    if name not in SCORES:
        allowed = [*COSTS, *SCORES.names(), *OWN_FORMS]
        raise UserError(where, f"unknown score {name!r}", allowed=allowed, given=name)
    score: Score = load(SCORES, name, where=where)()
    return score
