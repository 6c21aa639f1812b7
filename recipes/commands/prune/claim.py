"""Which request a folder belongs to, by content: a pruning is resumed only with what it was begun with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.files import write_json
from espalier.nas.hashing import file_hash
from espalier.nas.run import RunFolder
from espalier.nas.sealed import read_sealed, seal
from espalier.nas.user_code import FILE, MODULE
from espalier.nas.user_imports import source_hashes
from espalier.pruning.pruned_model import PLAN, SOURCE, WEIGHTS
from espalier.recipes.commands.prune.result import RESULT
from espalier.recipes.config.devices import device_files
from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.inputs.model_source import ModelSource
from espalier.recipes.inputs.task_images import TaskImages

REQUEST = "prune.json"
"""The file of the output folder that keeps what was asked for, and the hashes of what was read and written."""
RESULTS = (PLAN, WEIGHTS, SOURCE, RESULT, "model.onnx")
"""What a finished pruning leaves to others."""
CURE = "prune into a new folder"
PATHS: Any = {"data": {"path", "test_path"}, "super_resolution": {"low"}}
"""Settings that say where something is; what it holds decides."""
Hashes = dict[str, str]
"""The hash of each file by its path relative to the one that is named, which is the empty one itself."""


@dataclass(frozen=True)
class Claim:
    """What a pruning was asked for.

    Attributes:
        request: every setting by its dotted key, without paths.
        places: the files that were named, by the key that names them.
        content: the hashes of these files, and of what they import, by the same keys.
    """

    request: Mapping[str, Any]
    places: Mapping[str, Path]
    content: Mapping[str, Hashes]

    @classmethod
    def of(cls, source: ModelSource, settings: PruneSettings, images: TaskImages) -> Claim:
        """The claim of a request.

        Args:
            source: of the network.
            settings: of the command.
            images: as they were loaded; their pixels, labels and classes count, not their files.

        Raises:
            UserError: a file cannot be read.
        """
        request, places = _flat(settings.model_dump(mode="json", exclude=PATHS)), {}
        kind, _, name = source.factory.rpartition(":")
        request |= {"network.name": name if kind.endswith(".py") else source.factory}
        request |= {"network.pretrained": source.pretrained}
        for key, value in request.items():
            if isinstance(value, str) and (own := FILE.match(value)):
                places[key] = Path(own["place"])
                request[key] = value.removeprefix(f"{own['place']}:")
            elif isinstance(value, str) and (own := MODULE.match(value)):
                module = Path(*own["place"].split(".")).with_suffix(".py")
                places |= {key: module} if module.is_file() else {}
        for path in device_files(settings.profile.device):
            places["profile.device"], request["profile.device"] = path, "replay"
        if kind.endswith(".py"):
            places["model"] = Path(kind)
        if source.weights is not None:
            places["weights"] = source.weights
        if source.pruned is not None:
            places |= {f"model {file}": source.pruned / file for file in (PLAN, WEIGHTS)}
        content = {key: _hashes(path) for key, path in places.items()}
        data = settings.data.path
        return cls(
            request,
            {**places, "data": Path("data") if data is None else data},
            {**content, "data": {"": images.fingerprint}},
        )

    def check(self, before: Mapping[str, Any], folder: Path) -> None:
        """Compare with what a folder was begun with.

        Raises:
            UserError: the first file whose content has changed, or the first setting that is another.
        """
        request = before["request"]
        for key in [*request, *self.request]:
            if request.get(key) != self.request.get(key):
                problem = f"is {self.request.get(key)}, but was {request.get(key)} when {folder} was started"
                raise UserError(key, problem, code="conflict")
        content = before["content"]
        for key in [*self.content, *(key for key in content if key not in self.content)]:
            then, now = content.get(key), self.content.get(key)
            if then is None or now is None:
                given = "a file now, and was none" if then is None else "no file now, and was one"
                raise UserError(key, f"is {given} when {folder} was started", code="conflict")
            for name in [*now, *then]:
                if then.get(name) != now.get(name):
                    place = self.places[key]
                    problem = f"its content has changed since {folder} was started; {CURE}"
                    raise UserError(str(place.parent / name if name else place), problem, code="mismatch")


@contextmanager
def claimed(folder: RunFolder, claim: Claim, *, resume: bool) -> Iterator[bool]:
    """Own a folder for one request; where the block fails before anything has been computed, it is free again.

    Args:
        folder: the output folder, locked.
        claim: the request.
        resume: whether an earlier pruning is to be continued.

    Yields:
        Whether the pruning in it is finished.

    Raises:
        UserError: the folder belongs to another request, or a file of it is damaged.
    """
    path = folder / REQUEST
    if resume and not path.is_file():
        raise UserError(str(folder.path), "contains no pruning to resume", code="not_found")
    if _is_untouched(folder):
        path.unlink(missing_ok=True)
    elif not resume:
        raise UserError(str(folder.path), "is not empty; resume continues the pruning in it", code="conflict")
    results = _checked(folder, claim) if path.exists() else {}
    if not path.exists():
        write_json(path, _document(claim, {}))
    try:
        yield bool(results)
    except BaseException:
        if _is_untouched(folder):
            path.unlink(missing_ok=True)
        raise


def finish(folder: RunFolder, claim: Claim) -> None:
    """Note down what the finished pruning has written, so that a change to it is seen."""
    written = {name: file_hash(folder / name) for name in RESULTS if (folder / name).is_file()}
    write_json(folder / REQUEST, _document(claim, written))


def abandon(folder: RunFolder) -> None:
    """Free a folder whose training cannot go on, so that a better request can have it."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for name in ("log.jsonl", REQUEST):
        (folder / name).unlink(missing_ok=True)


def _document(claim: Claim, results: Mapping[str, str]) -> dict[str, Any]:
    return seal({"request": dict(claim.request), "content": dict(claim.content), "results": dict(results)})


def _checked(folder: RunFolder, claim: Claim) -> dict[str, str]:
    """The hashes of the results of a pruning with the same request; none while it is unfinished."""
    before = read_sealed(folder / REQUEST, CURE)
    claim.check(before, folder.path)
    results: dict[str, str] = before["results"]
    for name, expected in results.items():
        if not (folder / name).is_file() or file_hash(folder / name) != expected:
            problem = f"was edited, damaged or removed since the pruning finished; {CURE}"
            raise UserError(str(folder / name), problem, code="unreadable")
    return results


def _is_untouched(folder: RunFolder) -> bool:
    """Whether nothing has been computed in a folder."""
    return {path.name for path in folder.path.iterdir()} <= {".lock", REQUEST}


def _hashes(path: Path) -> Hashes:
    try:
        if path.suffix != ".py":
            return {"": file_hash(path)}
        return {"" if name == path.name else name: value for name, value in source_hashes(path).items()}
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", code="unreadable") from error


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}".lstrip(".")).items()}
