"""The schema of a recipe: its sections, their keys, what each means and may be."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    create_model,
    field_validator,
    model_validator,
)

from espalier.export.devices.address import open_device
from espalier.export.devices.base import MeasureSpec
from espalier.nas.data import SOURCES, SplitFractions
from espalier.nas.errors import UserError
from espalier.nas.objective import Constraint
from espalier.nas.search.settings import SURROGATE, SearchSettings, SurrogateSettings
from espalier.nas.settings import Settings
from espalier.nas.spaces.deployed import Precision
from espalier.nas.training import TrainSettings
from espalier.predictors.encoding import ENCODINGS
from espalier.predictors.learned_predictor import MIN_HISTORY
from espalier.predictors.regressors import MODELS
from espalier.recipes.config.registry import COSTS, INHERITED, PREDICTORS, SPACES, STRATEGIES, load, members
from espalier.supernets.early_stop import StopSettings
from espalier.supernets.fewshot.plan import FewShotSettings
from espalier.supernets.selection.criterion import Criterion
from espalier.supernets.selection.perturbation import Topology


def _known(name: str) -> str:
    from pydantic_core import PydanticCustomError

    try:
        members(name, where="")
    except UserError as error:
        context = {"problem": error.problem, "allowed": list(error.allowed or ()), "given": name}
        raise PydanticCustomError("predictor_name", "{problem}", context) from error
    return name


def _address(text: str) -> str:
    from pydantic_core import PydanticCustomError

    try:
        open_device(text, where="")
    except UserError as error:
        context = {"problem": error.problem, "allowed": list(error.allowed or ()), "given": text}
        raise PydanticCustomError("device_address", "{problem}", context) from error
    return text


NamedPredictor = Annotated[
    str,
    AfterValidator(_known),
    Field(json_schema_extra={"anyOf": [{"enum": list(PREDICTORS)}, {"pattern": r"^\w+(\+\w+)+$"}]}),
]
"""A predictor, or several joined by `+`: their rank ensemble."""


class DataSettings(Settings):
    """The images, and what each part of them is for."""

    source: Literal[*SOURCES]  # type: ignore[valid-type]
    """The kind of source."""
    path: Path | None = None
    """File or folder of the training images; `digits` has none."""
    test_path: Path | None = None
    """File or folder of the test images, where `path` does not lead to them."""
    size: PositiveInt | None = None
    """Height and width to resize all images to; null keeps them."""
    limit: PositiveInt | None = None
    """Use only this many training and test images, with the same balance of classes."""
    split: SplitFractions
    """Shares of the images; `test` is 0 where the source brings its own test images."""


def options_of(table: Mapping[str, str], name: str, kind: str, *, without: Sequence[str] = ()) -> Any:
    """The settings of a space, strategy or pruner are its name and the keyword-only arguments of its constructor.

    Args:
        table: from names to classes.
        name: in the table.
        kind: what the table holds, such as `strategy`.
        without: arguments that are not the user's to set.
    """
    member = load(table, name, where=kind)
    types = get_type_hints(member if is_dataclass(member) else member.__init__, include_extras=True)
    options: dict[str, Any] = {
        p.name: (types[p.name] | None, None) if p.default is None else (types[p.name], _default(p))
        for p in inspect.signature(member).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in without
    }
    return create_model(f"{name}_{kind}", __base__=Settings, **{"name": Literal[name], **options})


def _default(parameter: inspect.Parameter) -> Any:
    return ... if parameter.default is inspect.Parameter.empty else parameter.default


def any_of(table: Mapping[str, str], kind: str, *, more: tuple[Any, ...] = (), without: Sequence[str] = ()) -> Any:
    """The settings of one member of the table, told apart by `name`; a bare name stands for all its defaults.

    Args:
        table: from names to classes.
        kind: what the table holds, such as `strategy`.
        more: settings of members that are in no table.
        without: see `options_of`.
    """
    members = (*(options_of(table, name, kind, without=without) for name in table), *more)
    union: Any = Union[members]  # noqa: UP007 - made at run time
    return Annotated[union, Field(discriminator="name"), BeforeValidator(_named)]


def _named(value: Any) -> Any:
    """A bare name, or `nni:MODEL`, as a section."""
    if not isinstance(value, str):
        return value
    name, colon, model = value.partition(":")
    return {"name": name, "model": model} if colon else {"name": name}


class SupernetSettings(TrainSettings):
    """Training of the weights that all architectures share."""

    strategy: any_of(STRATEGIES, "strategy") = Field("spos", validate_default=True)  # type: ignore[valid-type]
    """How the weights are shared while they are trained: a name, or `{name: darts, order: 2}` with its options."""
    few_shot: FewShotSettings | None = None
    """Split the space, and train a supernet for each part; then `epochs` is not used."""
    decay: Literal["stored", "effective"] = "stored"
    """What weight_decay shrinks: the stored weights, or in elastic spaces those that count in a step."""
    stop: StopSettings | None = None
    """End the training early where preferences collapse; null trains to the end."""

    @model_validator(mode="after")
    def _some_epochs_after_each_warm_up(self) -> SupernetSettings:
        if self.few_shot is not None and self.warmup_epochs >= self.few_shot.shortest:
            least = f"the {self.few_shot.shortest} epochs of the shortest supernet of few_shot"
            raise ValueError(f"warmup_epochs must be fewer than {least}, not {self.warmup_epochs:g}")
        return self

    @model_validator(mode="after")
    def _one_supernet_to_stop(self) -> SupernetSettings:
        if self.stop is not None and self.few_shot is not None:
            raise ValueError("stop does not go with few_shot, whose supernets are split after fixed numbers of epochs")
        return self


class SelectSettings(Settings):
    """Choosing architectures from the supernet itself, each to be trained alone."""

    methods: tuple[Literal["argmax", "perturbation"], ...] = Field(("perturbation",), min_length=1)
    """argmax takes the largest architecture parameters, perturbation what the supernet can least do without."""
    criterion: Criterion = "auto"
    """What perturbation goes by; auto takes the accuracy where the difference is significant, else the loss."""
    topology: Topology = "conditional"
    """How perturbation drops edges: one after the other, or by the rank of each alone."""
    epochs: PositiveInt = 5
    """Epochs of further training between two visits of perturbation."""
    lr: PositiveFloat | None = None
    """Learning rate of that training, which stays as it is; null takes a tenth of the supernet's."""

    @field_validator("methods")
    @classmethod
    def _each_once(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(methods)) < len(methods):
            raise ValueError(f"{', '.join(methods)} names one of them twice")
        return methods


class RankSettings(Settings):
    """How well predictors rank the architectures of a benchmark table."""

    table: Path
    """A CSV file, gzipped or not, with a column `arch` in the notation of the space."""
    target: str
    """The column with the true accuracy."""
    samples: PositiveInt = 200
    """Different architectures to draw from the table."""
    unique: bool = False
    """Draw no two architectures that are known to compute the same function."""
    predictors: tuple[NamedPredictor, ...] = ("params", "macs", "gradsign", "naswot", "synflow")
    """Predictors to compare; params and macs are always among them."""


class RecipeSurrogateSettings(SurrogateSettings):
    """The predictor that learns from the search, and how it chooses among proposals."""

    model: Literal[*MODELS] = "gp"  # type: ignore[valid-type]
    """The kind of regression: a Gaussian process, a forest, boosted trees, or a Bayesian ridge regression."""
    encodings: tuple[Literal[*ENCODINGS], ...] = ("one_hot",)  # type: ignore[valid-type]
    """How architectures become numbers: their options, their paths from input to output, or their graph."""
    scores: tuple[NamedPredictor, ...] = ()
    """Predictors whose values it learns from as well; each is asked about every proposal."""
    least_history: int = Field(10, ge=MIN_HISTORY)
    """Complete candidates before anything is learnt; until then proposals are taken as they come."""

    @model_validator(mode="after")
    def _something_to_learn_from(self) -> RecipeSurrogateSettings:
        if not self.encodings and not self.scores:
            raise ValueError("a surrogate needs an encoding or a score to learn from")
        return self


class ReplaySettings(Settings):
    """A benchmark table that stands in for training: `accuracy` is looked up, and time passes as the table says."""

    table: Path
    """A CSV file, gzipped or not, with a column `arch` in the notation of the space."""
    accuracy: str
    """The column that is `accuracy` to the search."""
    seconds: str | None = None
    """The column with the seconds that finding it out took; null lets no time pass."""


class DeploySettings(Settings):
    """How found networks are to run, searched together with their architecture."""

    precision: tuple[Precision, ...] = Field(("fp32", "int8"), min_length=1)
    """Forms of the exported file to choose among."""
    sparsity: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field((0.0,), min_length=1)
    """Shares of zeros among the weights to choose among."""

    @field_validator("precision", "sparsity")
    @classmethod
    def _each_once(cls, options: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(options)) < len(options):
            raise ValueError(f"{', '.join(map(str, options))} names one of them twice")
        return options


class RecipeSearchSettings(SearchSettings):
    """The search."""

    accuracy: NamedPredictor = INHERITED
    """The predictor that stands for `accuracy` during the search."""
    surrogate: RecipeSurrogateSettings = RecipeSurrogateSettings()
    """The predictor that learns from the search, where the sampler or the guide is `surrogate`."""
    replay: ReplaySettings | None = None
    """A table to take `accuracy` from instead."""
    deploy: DeploySettings | None = None
    """Search precision and sparsity with the architecture; candidates are pruned, quantised, and judged as such."""

    @property
    def named(self) -> tuple[str, ...]:
        """Everything that objectives and constraints name, each once."""
        constraints = (Constraint.parse(text, where="search.constraints").name for text in self.constraints)
        return tuple(dict.fromkeys([*self.objectives, *constraints]))

    @property
    def asked(self) -> dict[str, str]:
        """The predictors that guide, warm start and filters name, by the key that names them."""
        keys = {f"filters.{i}": one.by for i, one in enumerate(self.filters)}
        if self.warm_start is not None:
            keys["warm_start"] = self.warm_start.by
        if self.guide is not None and self.guide.by != SURROGATE:
            keys["guide"] = self.guide.by
        return {f"search.{key}.by": name for key, name in keys.items()}

    @property
    def measures_latency(self) -> bool:
        """Whether candidates are timed, or written for the device."""
        return "latency_ms" in self.named or self.deploy is not None


class FinalTrainSettings(TrainSettings):
    """Training of chosen architectures alone, from fresh weights."""

    front: PositiveInt = 4
    """Architectures to take from the Pareto front, spread along it."""
    random: int = Field(0, ge=0)
    """Further architectures drawn at random from the space within the limits on params and MACs, as a control."""
    predictors: tuple[NamedPredictor, ...] = ("params", "macs", "gradsign", "naswot", "synflow", INHERITED)
    """Predictors to compare with the accuracies reached."""


class ProfileSettings(Settings):
    """How latency is measured."""

    device: Annotated[str, AfterValidator(_address)] = "local"
    """Where to run: local, ssh://USER@HOST[:PORT], adb://SERIAL or replay:FILE."""
    provider: str | None = None
    """ONNX Runtime's execution provider, such as cuda; null takes CUDA's where there is one, else the CPU's."""
    threads: PositiveInt | None = None
    """Threads of the runtime; null takes one for each physical core."""
    batch: PositiveInt = 1
    """Images in one run."""
    sessions: int = Field(5, ge=2)
    """Fresh sessions of the runtime; what differs between them is the uncertainty."""
    seconds: PositiveFloat = 2.0
    """Time budget for the timed runs of one network."""
    search_seconds: PositiveFloat = 0.3
    """The same during the search, where `latency_ms` is asked for."""

    def spec(self, **changes: Any) -> MeasureSpec:
        """How to time one network, but for the changes."""
        given = {name: getattr(self, name) for name in ("threads", "batch", "sessions", "seconds", "provider")}
        return MeasureSpec(**given | changes)


class BudgetSettings(Settings):
    """Limits that whatever a run returns keeps, however it was found."""

    latency_ms: PositiveFloat | None = None
    """Milliseconds: the upper end of the interval of the median latency, measured as `profile` says."""
    macs: PositiveFloat | None = None
    """Multiply-accumulates of one image."""
    params: PositiveFloat | None = None
    """Parameters."""
    table: Path | None = None
    """Latencies of this device (`nas lut build`), which spare measurements; null learns from those of the run alone."""
    sources: tuple[Path, ...] = ()
    """Tables of other devices, which help where there are few measurements of this one."""

    @model_validator(mode="after")
    def _something_limited(self) -> BudgetSettings:
        if self.latency_ms is None and self.macs is None and self.params is None:
            raise ValueError("a budget needs a limit: latency_ms, macs or params")
        if self.latency_ms is None and (self.table or self.sources):
            raise ValueError("tables of latencies help only under a limit latency_ms")
        return self

    @property
    def costs(self) -> dict[str, float]:
        """The limits that are known without a measurement, by name."""
        limits = {"macs": self.macs, "params": self.params}
        return {name: limit for name, limit in limits.items() if limit is not None}


class Recipe(Settings):
    """A run from data to checked, timed networks. A section that is left out is a stage that is not run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Short name; part of the run folder's."""
    description: str = ""
    """What the recipe is for, in a sentence."""
    seed: int = Field(0, ge=0)
    """Of everything that is drawn at random."""
    scale: PositiveFloat = 1.0
    """Size of the run: a value written `{full: F, least: L}` becomes max(L, round(F * scale))."""
    data: DataSettings
    space: any_of(SPACES, "space")  # type: ignore[valid-type]
    """The networks to choose among: a name, `{name: darts, cells: 6}` with its options, or `nni:MODEL`."""
    supernet: SupernetSettings | None = None
    rank: RankSettings | None = None
    select: SelectSettings | None = None
    search: RecipeSearchSettings | None = None
    train: FinalTrainSettings | None = None
    profile: ProfileSettings = ProfileSettings()
    budget: BudgetSettings | None = None

    @property
    def limits(self) -> list[Constraint]:
        """Everything on params and MACs that the search and the budget ask for."""
        texts = self.search.constraints if self.search is not None else ()
        asked = [Constraint.parse(text, where="search.constraints") for text in texts]
        budget = self.budget.costs if self.budget is not None else {}
        return [
            *(limit for limit in asked if limit.name in COSTS),
            *(Constraint(name, "<=", bound) for name, bound in budget.items()),
        ]

    @property
    def measures_in_search(self) -> bool:
        """Whether candidates of the search are timed."""
        limited = self.budget is not None and self.budget.latency_ms is not None
        return self.search is not None and (limited or self.search.measures_latency)

    @model_validator(mode="after")
    def _something_to_find(self) -> Recipe:
        if self.search is None and self.select is None:
            raise ValueError("a recipe needs a section search or select")
        return self
