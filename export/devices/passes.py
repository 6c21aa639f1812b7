"""What an agent can be asked besides rounds of timing: as often as there are sessions, each a pass of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from espalier.export.devices.base import Device, MeasureSpec
from espalier.nas.errors import UserError


@runtime_checkable
class Asked(Protocol):
    """A device that has an agent on it."""

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """The agent's answer; the `files` of the request are there when it reads them."""


def passes(device: Device, op: str, files: Sequence[Path], spec: MeasureSpec, **request: Any) -> list[dict[str, Any]]:
    """The answers to `spec.sessions` equal requests, the first of which decides how many runs the others have.

    Raises:
        UserError: the device has no agent, or it refuses.
    """
    if not isinstance(device, Asked):
        raise UserError(device.name, f"has no agent, which this needs ({op})")
    answers: list[dict[str, Any]] = []
    for _ in range(spec.sessions):
        answer = device.ask(
            op,
            files=list(files),
            **spec.request(),
            runs=answers[0].get("runs") if answers else None,
            **request,
        )
        answers.append(answer)
    return answers
