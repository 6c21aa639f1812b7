"""A device with an agent on it: requests rounds one by one and combines their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.base import MeasureSpec
from espalier.export.devices.connection import ConnectionLost, ConnectionSilent, Link
from espalier.export.devices.files import ModelFiles, model_files
from espalier.export.timing import contention, summarize, verdict
from espalier.nas.errors import UserError
from espalier.nas.measurement import Measurement

ATTEMPTS = 4
"""Lost connections after which a request is given up."""
KEPT = 16
"""Most networks that stay on the device for later requests; its disk may be its memory."""


class AgentDevice:
    """Times ONNX files through an agent. After a lost connection it reconnects, and only repeats the current round.

    Args:
        name: the device's address.
        connect: starts an agent.
        reads_here: whether the agent reads files in place, instead of being sent them.
        pause_s: pause before the second attempt; doubled for each further one.
    """

    def __init__(
        self, name: str, connect: Callable[[], Link], *, reads_here: bool = False, pause_s: float = 1.0
    ) -> None:
        self.name = name
        self._connect = connect
        self._reads_here = reads_here
        self._pause_s = pause_s
        self._connection: Link | None = None
        self._was_reached = False
        self._known: dict[Path, ModelFiles] = {}
        self._sent: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def fingerprint(self, provider: str | None = None) -> dict[str, Any]:
        """What determines timings on the device with a provider, by default with its default provider."""
        return self.ask("fingerprint", provider=provider)

    def providers(self) -> list[str]:
        """The execution providers of the device's ONNX Runtime."""
        return list(self.ask("providers")["providers"])

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        """Time the network in `onnx_file` in `spec.sessions` fresh sessions, each warmed up until stable.

        A run is one `session.run` with inputs in memory, computing all outputs.

        Raises:
            UserError: the file is missing, is not ONNX or cannot be run, its inputs cannot be generated from `spec`,
                or the device cannot be reached.
        """
        return self.measure_together([onnx_file], spec)[0]

    def measure_together(self, onnx_files: Sequence[Path], spec: MeasureSpec) -> list[Measurement]:
        """Time all files in the same `spec.sessions` rounds, so that whatever slows a round affects all files.

        A round has a fresh session of each file, all open at once. Their runs alternate forwards and backwards (A B,
        B A, A B, ...), so that no file always follows another; so does the order in which they are opened, from round
        to round. Every file has the same number of runs, in `spec.seconds` for each.

        Sessions push each other's weights out of the caches: the times differ from those of a file alone. With several
        threads, a session's worker threads sleep between its runs, since they would otherwise occupy another session's
        cores.

        Returns:
            A measurement of each file, in order, with its `values` round after round.

        Raises:
            UserError: as `measure`, of any of the files.
        """
        environment = self.fingerprint(spec.provider)
        rounds: list[dict[str, Any]] = []
        seen: list[list[dict[str, Any]]] = [[] for _ in onnx_files]
        for position in range(spec.sessions):
            order = list(range(len(onnx_files)))[:: 1 if position % 2 == 0 else -1]
            found = self.ask(
                "round",
                files=[onnx_files[index] for index in order],
                **spec.request(),
                runs=rounds[0]["runs"]
                if rounds
                else None,  # the same for all: a fast session must not have more weight
            )
            rounds.append(found)
            for index, file in zip(order, found["files"], strict=True):
                seen[index].append(file)
        others = contention([found["counters"] for found in rounds])
        environment |= vars(others) | {
            "threads": rounds[0]["threads"],
            "batch": spec.batch,
            "seed": spec.seed,
            "sessions": spec.sessions,
            "fresh_processes": spec.fresh_processes,
            "runs_per_session": rounds[0]["runs"],
            "files_together": len(onnx_files),
            **_energy(rounds, len(onnx_files)),
        }
        measurements = []
        for sessions in seen:
            times = [session["times_ms"] for session in sessions]
            latency = summarize(times)
            own = {key: [session[key] for session in sessions] for key in ("warmup_runs", "cold_start_ms", "load_ms")}
            own["provider"] = sessions[0]["provider"]
            measurements.append(Measurement(latency, verdict(latency, times, others), environment | own))
        return measurements

    def close(self) -> None:
        """Disconnect; the agent leaves nothing behind. The next request connects again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._sent.clear()

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """The agent's answer to a request; the files of the request are sent first.

        Args:
            op: name of the operation.
            **request: its arguments.

        Raises:
            UserError: the agent refused, or it could not be reached, or the connection was lost too often.
        """
        files: Sequence[Path] = request.get("files", ())
        for attempt in range(1, ATTEMPTS + 1):
            try:
                connection = self._connected()
                paths = self._on_device(connection, files)
                answer = connection.ask(op, **request | ({"files": paths} if files else {}))
            except ConnectionLost as lost:
                self.close()
                if not self._was_reached:
                    raise UserError(self.name, str(lost), code="unavailable") from lost
                if isinstance(lost, ConnectionSilent) or attempt == ATTEMPTS:
                    times = "" if attempt == 1 else f", {attempt} times in a row"
                    where = ", ".join(map(str, files)) or self.name
                    problem = f"the connection to {self.name} was lost while working on it{times}: {lost}"
                    raise UserError(where, problem, code="unavailable") from lost
                time.sleep(self._pause_s * 2 ** (attempt - 1))
            except Refused as refused:
                raise self._as_named_here(refused) from refused
            else:
                self._was_reached = True
                return answer
        raise AssertionError("the last attempt returns or raises")

    def _connected(self) -> Link:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _on_device(self, connection: Link, paths: Sequence[Path]) -> list[str]:
        """The paths of files on the device; files not sent over this connection yet are sent.

        Raises:
            UserError: there is no such file here.
            Refused: the device cannot store it.
        """
        if self._reads_here:
            missing = next((path for path in paths if not path.is_file()), None)
            if missing is not None:
                raise UserError(str(missing), "no such file", code="not_found")
            there = [str(path.resolve()) for path in paths]
        else:
            networks = [self._files_of(path) for path in paths]
            for files in networks:
                if files.key not in self._sent:
                    self._make_room(connection, {files.key for files in networks})
                    self._sent[files.key] = connection.send(files)
            there = [self._sent[files.key] for files in networks]
        self._names.update(zip(there, map(str, paths), strict=True))
        return there

    def _files_of(self, path: Path) -> ModelFiles:
        known = self._known.get(path)
        if known is None or not known.is_current():
            self._known[path] = known = model_files(path)
        return known

    def _make_room(self, connection: Link, needed: set[str]) -> None:
        """Remove the networks that were sent first, except those that are needed now."""
        for key in [key for key in self._sent if key not in needed][: max(0, len(self._sent) + 1 - KEPT)]:
            connection.ask("drop", key=key)
            del self._sent[key]

    def _as_named_here(self, refused: Refused) -> UserError:
        """The agent's error, with the paths of files on the device replaced by those here."""
        fields = dict(refused.fields)
        for there, here in self._names.items():
            fields["where"] = fields["where"].replace(there, here)
            fields["problem"] = fields["problem"].replace(there, here)
        if fields["where"] == "device":
            fields["where"] = self.name
        return UserError(**fields)


def _energy(rounds: Sequence[dict[str, Any]], files: int) -> dict[str, Any]:
    """Joules of one run, including everything else that ran meanwhile, and which counter measured them.

    None if nothing counts them, or if several files ran: it is not known which of them used the energy.
    """
    joules = [found.get("energy_j") for found in rounds]
    known = [one for one in joules if one is not None]
    if files > 1 or len(known) < len(joules):
        return {"energy_j_per_run": None, "energy_source": None}
    runs = sum(found["runs"] for found in rounds)
    return {"energy_j_per_run": sum(known) / runs, "energy_source": rounds[0]["energy_source"]}
