"""A device simulated from a file: recorded measurements, times by rule, and a clock that only its own runs advance.

For tests, and to reproduce a board's measurements without the board. Its environment names the file under `replay`, so
that reports do not mistake it for a real device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.session import CPU, SUFFIX, open_session, runner
from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.files import ModelFiles
from espalier.export.devices.location import parse_options
from espalier.nas.errors import UserError
from espalier.nas.hashing import file_hash

WARMUP_RUNS = 10
COLD_START = 2.0
"""How many times longer than the others the first run of a session takes."""
MAX_RUNS = 2000

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordedLatency(BaseModel):
    """The latency of a measurement as printed by `nas profile --json`: milliseconds of all runs, session by session."""

    values: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)]


class RecordedEnvironment(BaseModel):
    """The number of runs in each session."""

    runs_per_session: Annotated[int, Field(gt=0)]


class Recorded(BaseModel):
    """A measurement as printed by `nas profile --json`; all other fields are ignored."""

    latency: RecordedLatency
    environment: RecordedEnvironment

    def session(self, number: int) -> tuple[float, ...]:
        """The runs of one session; after the last session it starts over."""
        runs = self.environment.runs_per_session
        start = number * runs % (len(self.latency.values) // runs * runs or 1)
        return self.latency.values[start : start + runs]


class Script(_Checked):
    """The content of such a file, as JSON.

    Attributes:
        fingerprint: fingerprint of the replayed device, including its `id` if it has one.
        providers: full names of its execution providers; networks are not run on them.
        measured: measurements by the SHA-256 of the ONNX file. They take precedence over the rules.
        call_ms: time of one run without its operators.
        operators_ms: milliseconds of a node for one image, by its operator; `*` for all others. Without this and
            `call_ms`, files that were not recorded are refused.
        drift_per_s: how much slower everything gets in a second of the device's own time, as a share: 0.01 is 1 %.
        noise: standard deviation of the logarithm of a run's time; the same file has the same noise in every process.
    """

    fingerprint: dict[str, Any] = {}
    providers: Annotated[tuple[str, ...], Field(min_length=1)] = (CPU,)
    measured: dict[str, Recorded] = {}
    call_ms: Milliseconds = 0.0
    operators_ms: dict[str, Milliseconds] | None = None
    drift_per_s: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    noise: Milliseconds = 0.0


class ReplayDevice(AgentDevice):
    """Answers from a file (see `Script`).

    A network is opened here with ONNX Runtime, so that a bad file is refused as on a real device; the time it takes is
    not used. Nothing is written.

    Args:
        rest: path of the file.
        where: the key or option that contains it.

    Raises:
        UserError: there is no such file, or its content is invalid.
    """

    def __init__(self, rest: str, *, where: str) -> None:
        path, _, query = rest.partition("?")
        parse_options(query, where, ())
        script = read_script(Path(path).expanduser(), where)
        player = Player(script, Path(path).name)
        super().__init__(f"replay:{rest}", lambda: player, reads_here=True)


def read_script(path: Path, where: str) -> Script:
    """The script in a file.

    Args:
        path: the file.
        where: the key or option that contains the path.

    Raises:
        UserError: there is no such file, or its content is invalid.
    """
    try:
        return Script.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(where, f"{path}: {error.strerror}", code="not_found") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        problem = f"{path} is not a recording: {f'{key}: ' if key else ''}{first['msg']}"
        raise UserError(where, problem, code="unreadable") from error


class Player:
    """Takes the place of a device's connection.

    Args:
        script: its answers.
        name: name of the file.
    """

    def __init__(self, script: Script, name: str) -> None:
        self._script = script
        self._name = name
        self._clock_ms = 0.0
        self._sessions: dict[str, int] = {}
        self._costs: dict[str, float] = {}

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """See `Link`."""
        if op == "fingerprint":
            return self._fingerprint(self._provider(request["provider"]))
        if op == "providers":
            return {"providers": list(self._script.providers)}
        if op == "round":
            return self._round(request)
        raise Refused("device", f"a recording cannot do {op!r}", code="unsupported")

    def send(self, files: ModelFiles) -> str:
        """Files are read in place."""
        return str(files.parts[0].path)

    def close(self) -> None:
        """The clock stops until the device is used again."""

    def _fingerprint(self, provider: str) -> dict[str, Any]:
        lasting = {"cpu_model": None, **self._script.fingerprint, "provider": provider, "replay": self._name}
        digest = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
        return {"id": digest[:12], **lasting}

    def _provider(self, asked: str | None) -> str:
        names = self._script.providers
        if asked is None:
            return names[0]
        for name in names:
            if asked.lower() in (name.lower(), name.removesuffix(SUFFIX).lower()):
                return name
        short = [name.removesuffix(SUFFIX).lower() for name in names]
        problem = f"ONNX Runtime has no {asked!r} on this device"
        raise Refused("provider", problem, allowed=short, given=asked.lower(), code="unavailable")

    def _round(self, request: dict[str, Any]) -> dict[str, Any]:
        provider = self._provider(request["provider"])
        files: Sequence[str] = request["files"]
        hashes = [_sha256(path) for path in files]
        sessions = [self._session(path, sha256, request) for path, sha256 in zip(files, hashes, strict=True)]
        typical = sum(float(np.median(times)) for times in sessions)
        fitting = int(request["milliseconds"] * len(files) / typical) if typical else MAX_RUNS
        runs = request["runs"] or min(max(request["min_runs"], fitting), MAX_RUNS)
        noise = [self._noise(sha256, runs) for sha256 in hashes]
        answers: list[dict[str, Any]] = []
        for times in sessions:
            cold = self._pass(COLD_START * times[0])
            warm = [self._pass(times[run % len(times)]) for run in range(WARMUP_RUNS)]
            known = {"load_ms": 0.0, "cold_start_ms": cold, "warmup_runs": len(warm), "provider": provider}
            answers.append({**known, "times_ms": []})
        for run in range(runs):
            for index in range(len(files))[:: 1 if run % 2 == 0 else -1]:
                times = sessions[index]
                answers[index]["times_ms"].append(self._pass(times[run % len(times)] * noise[index][run]))
        for sha256 in hashes:
            self._sessions[sha256] = self._sessions.get(sha256, 0) + 1
        counters = dict.fromkeys(("wall_s", "machine_s", "busy_s", "steal_s", "own_s", "involuntary_switches"))
        unknown = {"energy_j": None, "energy_source": None, "counters": counters}
        return {"runs": runs, "threads": request["threads"] or 1, "files": answers, **unknown}

    def _session(self, path: str, sha256: str, request: dict[str, Any]) -> tuple[float, ...]:
        """The times of its runs without drift and noise; repeated as needed."""
        recorded = self._script.measured.get(sha256)
        if recorded is not None:
            return recorded.session(self._sessions.get(sha256, 0))
        if path not in self._costs or request["batch"] != 1:
            # Raises the same errors as a real device for a file that cannot be run.
            runner(open_session(path, 1, CPU), path, request)
        if self._script.operators_ms is None and not self._script.call_ms:
            raise Refused(path, f"{self._name} has no measurement of it", code="not_found")
        if path not in self._costs:
            self._costs[path] = _nodes_ms(path, self._script.operators_ms or {})
        return (self._script.call_ms + request["batch"] * self._costs[path],)

    def _noise(self, sha256: str, runs: int) -> np.ndarray:
        """Random factors for the runs of this session, `(runs,)`."""
        seed = [int(sha256[:16], 16), self._sessions.get(sha256, 0)]
        factors: np.ndarray = np.exp(self._script.noise * np.random.default_rng(seed).standard_normal(runs))
        return factors

    def _pass(self, ms: float) -> float:
        """Advance the clock by a run that takes `ms` without drift; returns its time."""
        taken = ms * (1 + self._script.drift_per_s * self._clock_ms / 1000)
        self._clock_ms += taken
        return taken


def _nodes_ms(path: str, operators_ms: dict[str, float]) -> float:
    import onnx

    other = operators_ms.get("*", 0.0)
    nodes = onnx.load(path, load_external_data=False).graph.node
    return sum(operators_ms.get(node.op_type, other) for node in nodes)


def _sha256(path: str) -> str:
    try:
        return file_hash(Path(path))
    except OSError as error:
        raise Refused(path, str(error.strerror), code="not_found") from error
