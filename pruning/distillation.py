"""Knowledge distillation from the dense network to the pruned one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Distillation:
    """L = (1 - w) L_task + w L_teacher: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015.

    L_teacher is T^2 KL(softmax(z_teacher / T) || softmax(z / T)) of logits `(batch, classes)`, whose gradient does not
    shrink with T; for images `(batch, channels, height, width)` it is the mean absolute difference.

    Attributes:
        teacher: the dense network, in evaluation mode and never trained.
        weight: w, from 0 (only the labels) to 1 (only the teacher).
        temperature: T.
    """

    teacher: nn.Module
    weight: float = 0.5
    temperature: float = 4.0

    def loss(self, task_loss: Tensor, outputs: Tensor, x: Tensor) -> Tensor:
        """L for the student's `outputs` on the batch `x`."""
        with torch.no_grad():
            wanted = self.teacher(x).float()
        if outputs.ndim == 2:
            t = self.temperature
            p, q = wanted.div(t).log_softmax(dim=1), outputs.float().div(t).log_softmax(dim=1)
            imitation = t**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)
        else:
            imitation = F.l1_loss(outputs.float(), wanted)
        return (1 - self.weight) * task_loss + self.weight * imitation
