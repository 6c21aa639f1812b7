"""Whether a supernet is healthy: its preferences, their entropy and curvature, and its generalisation gap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from espalier.nas.choices import LayerChoice
from espalier.nas.space import SearchSpace
from espalier.nas.task import Batch
from espalier.supernets.curvature import GROWTH, WINDOW, largest_growth, sharpness
from espalier.supernets.entropy import mean_entropy
from espalier.supernets.evaluation import Evaluation, SupernetEvaluator
from espalier.supernets.strategy import Strategy

UNDECIDED = 0.99
"""Normalised entropy at which the likeliest of five options has 27 % where uniform gates give it 20 %."""
CHANCE = 0.05
"""It is a collapse if uniform gates prefer so many operations without parameters with at most this probability."""
LEANING = 1.0
"""Choices above the expectation of uniform gates that are worth a word, though they may be chance."""


class Diagnosis(BaseModel):
    """The numbers that a verdict rests on."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    learns: bool
    """Whether preferences are learnt at all."""
    choices: int
    """Choices with open operations of both kinds, with parameters and without."""
    parameter_free: float
    """How many of them prefer one without; where nothing is learnt, how many uniform gates are expected to."""
    by_chance: float
    """How many of them uniform gates are expected to."""
    entropy: float | None
    """Mean normalised entropy of the preferences, from 0, decided, to 1, uniform; null without preferences."""
    eigenvalue: float | None
    """Dominant eigenvalue of d2 L_val / d alpha2 at the mean gates; null without architecture parameters."""
    growth: float | None
    """Its largest growth in five epochs, where it was followed."""
    growth_epoch: int | None
    """The last of those epochs."""
    training_loss: float
    """Mean cross-entropy of training images under gates as in training (nats)."""
    validation_loss: float
    """The same of validation images."""
    training_accuracy: float
    validation_accuracy: float

    @property
    def gap(self) -> float:
        """The generalisation gap: validation loss minus training loss (nats)."""
        return self.validation_loss - self.training_loss

    def to_record(self) -> dict[str, Any]:
        """The numbers, the gap and the verdict, for JSON."""
        return {**self.model_dump(mode="json"), "gap": self.gap, "verdict": verdict(self)}


def diagnose(
    supernet: SearchSpace,
    strategy: Strategy,
    *,
    train: Iterable[Batch],
    validation: Iterable[Batch],
    rows: Sequence[Mapping[str, float]],
    seed: int,
) -> Diagnosis:
    """Diagnose a supernet, without changing it.

    Each batch is evaluated under gates drawn as for a step of the weights, the same for both kinds of images.

    Args:
        supernet: on its device.
        strategy: of its training.
        train: training images, not augmented, in batches as large as in training.
        validation: validation images, the same way. The eigenvalue is computed on the first batch, with which the
            whole mixture must fit in memory.
        rows: one for each epoch of the training.
        seed: of the draws of gates.

    Raises:
        Diverged: the curvature is not finite.
        ValueError: there are no images of a kind.
    """
    counts = parameter_free(supernet, strategy)
    growth, growth_epoch = largest_growth(rows) or (None, None)
    training = _as_trained(supernet, strategy, train, seed)
    validated = _as_trained(supernet, strategy, validation, seed)
    return Diagnosis(
        learns=strategy.learns,
        choices=counts.choices,
        parameter_free=counts.preferred,
        by_chance=counts.by_chance,
        entropy=mean_entropy(strategy.preferences(), strategy.region) if strategy.learns else None,
        eigenvalue=sharpness(supernet, strategy, next(iter(validation)), seed=seed),
        growth=growth,
        growth_epoch=growth_epoch,
        training_loss=training.loss,
        validation_loss=validated.loss,
        training_accuracy=training.accuracy,
        validation_accuracy=validated.accuracy,
    )


def _as_trained(supernet: SearchSpace, strategy: Strategy, batches: Iterable[Batch], seed: int) -> Evaluation:
    generator = torch.Generator().manual_seed(seed)
    judged = [
        SupernetEvaluator(supernet, [batch], seed=seed)([strategy.weight_gates(generator)])[0] for batch in batches
    ]
    if not judged:
        raise ValueError("there are no images to evaluate the supernet on")
    return Evaluation(torch.cat([e.correct for e in judged]), torch.cat([e.losses for e in judged]))


@dataclass(frozen=True)
class ParameterFree:
    """How often operations without weights are preferred.

    Attributes:
        choices: number of choices with open operations of both kinds.
        preferred: as in `Diagnosis`.
        by_chance: as in `Diagnosis`.
    """

    choices: int
    preferred: float
    by_chance: float

    @property
    def share(self) -> float:
        """Of the choices that prefer an operation without parameters; 0 where there is no such choice."""
        return self.preferred / self.choices if self.choices else 0.0


def parameter_free(supernet: SearchSpace, strategy: Strategy) -> ParameterFree:
    """How many choices prefer an operation without parameters: none, skip, pooling.

    What a choice prefers is what selection by magnitude takes; where nothing is learnt, the expectation of uniform
    gates stands for it.
    """
    free = {
        name: {index for index in strategy.region[name] if _has_no_parameters(choice, index)}
        for name, choice in supernet.choices().items()
        if isinstance(choice, LayerChoice)
    }
    shares = {name: len(indices) / len(strategy.region[name]) for name, indices in free.items()}
    mixed = [name for name, share in shares.items() if 0 < share < 1]
    by_chance = sum(shares[name] for name in mixed)
    if not strategy.learns:
        return ParameterFree(len(mixed), by_chance, by_chance)
    preferred = supernet.gates(strategy.preferred())
    return ParameterFree(len(mixed), sum(preferred[name] in free[name] for name in mixed), by_chance)


def _has_no_parameters(choice: LayerChoice, index: int) -> bool:
    if choice.is_zero(index):
        return True
    return not any(True for _ in choice.candidates[str(choice.options[index])].parameters())


def verdict(diagnosis: Diagnosis) -> str:
    """What the numbers mean, in one sentence."""
    d = diagnosis
    if not d.learns:
        return (
            "Nothing to collapse: no preferences are learnt, only weights, whose loss is "
            f"{d.validation_loss:.2f} nats on validation images and {d.training_loss:.2f} on training images."
        )
    if d.entropy is not None and d.entropy >= UNDECIDED:
        return (
            f"Undecided: the gates are nearly uniform (entropy {d.entropy:.3f} of 1), so argmax is close to a coin "
            "flip; select by perturbation, or let the architecture parameters learn longer or faster."
        )
    sharp = d.growth is not None and d.growth > GROWTH
    if _more_than_chance(d):
        return (
            f"Collapsing: {_preferences(d)}, where indifferent gates would in {d.by_chance:.1f}"
            f"{f', and the loss grows sharp in alpha ({_eigenvalue(d)})' if sharp else ''}; "
            "select by perturbation rather than argmax, or stop earlier."
        )
    if sharp:
        return (
            f"Sharpening: the loss grows sharp in alpha ({_eigenvalue(d)}), so that the architecture taken from the "
            "mixture will lose accuracy; stop earlier, or decay the weights more."
        )
    if d.parameter_free >= d.by_chance + LEANING:
        return (
            f"Leaning: {_preferences(d)}, where indifferent gates would in {d.by_chance:.1f}, which may be chance or "
            "the start of a collapse; select by perturbation too, and compare."
        )
    expected = f", indifferent gates would in {d.by_chance:.1f}" if d.choices else ""
    decided = "" if d.entropy is None else f", and the gates have begun to decide (entropy {d.entropy:.2f} of 1)"
    return f"Healthy: {_preferences(d)}{expected}{decided}."


def _more_than_chance(d: Diagnosis) -> bool:
    """Whether P(X >= parameter_free) is small for X ~ Binomial(choices, by_chance / choices)."""
    from scipy.stats import binom

    return d.choices > 0 and float(binom.sf(d.parameter_free - 1, d.choices, d.by_chance / d.choices)) <= CHANCE


def _preferences(d: Diagnosis) -> str:
    if not d.choices:
        return "no choice has operations of both kinds, with parameters and without"
    return f"{d.parameter_free:.0f} of {d.choices} choices prefer an operation without parameters"


def _eigenvalue(d: Diagnosis) -> str:
    return f"eigenvalue {d.eigenvalue:.2g}, ×{d.growth:.1f} in the {WINDOW} epochs to epoch {d.growth_epoch}"
