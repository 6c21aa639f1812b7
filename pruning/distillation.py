"""Knowledge distillation from the dense network to the pruned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.network_inputs import prediction


@dataclass(frozen=True, eq=False)
class Distillation:
    """L = (1 - w) L_task + w L_teacher: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015.

    L_teacher is T^2 KL(softmax(z_teacher / T) || softmax(z / T)) of logits `(batch, classes)`, whose gradient does not
    shrink with T; for images `(batch, channels, height, width)` it is the mean absolute difference.

    Attributes:
        teacher: the dense network, in evaluation mode and never trained.
        weight: w, from 0 (only the labels) to 1 (only the teacher).
        temperature: T.
        output: name or place of the prediction, where the networks return several tensors.
    """

    teacher: nn.Module
    weight: float = 0.5
    temperature: float = 4.0
    output: str | None = None

    def loss(self, task_loss: Tensor, outputs: Any, x: Tensor) -> Tensor:
        """L for the student's `outputs` on the batch `x`."""
        outputs = prediction(outputs, self.output)
        with torch.no_grad():
            wanted = prediction(self.teacher(x), self.output).float()
        if outputs.ndim == 2:
            t = self.temperature
            p, q = wanted.div(t).log_softmax(dim=1), outputs.float().div(t).log_softmax(dim=1)
            imitation = t**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)
        else:
            imitation = F.l1_loss(outputs.float(), wanted)
        return (1 - self.weight) * task_loss + self.weight * imitation
