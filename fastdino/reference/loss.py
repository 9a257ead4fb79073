"""The DINO loss as the paper's Algorithm 1 states it: one term per pair of different views."""

from __future__ import annotations

import torch
from torch import Tensor


def dino_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    ncrops: int,
    student_temp: float,
    teacher_temp: float,
) -> Tensor:
    """Mean over view pairs (q, v != q) and images of the cross-entropy H(teacher_q, student_v) (paper, equation 3).

    Args:
        student_logits: (ncrops * B, K), crop-major.
        teacher_logits: (2 * B, K), the global crops; no gradient flows into them.
        center: (1, K) or (K,), subtracted from the teacher's logits.

    Returns:
        A scalar in the dtype that the logits compute in.
    """
    log_p = (student_logits / student_temp).log_softmax(dim=-1).chunk(ncrops)
    q = ((teacher_logits.detach() - center) / teacher_temp).softmax(dim=-1).chunk(2)
    terms = [-(q[i] * log_p[v]).sum(dim=-1).mean() for i in range(len(q)) for v in range(len(log_p)) if v != i]
    return torch.stack(terms).mean()


def teacher_entropy(teacher_logits: Tensor, center: Tensor, teacher_temp: float) -> Tensor:
    """Mean entropy in nats of the teacher's targets: ln K when they are uniform, 0 when one-hot.

    The loss minus this is KL(teacher || student), because each teacher view enters equally many pairs.
    """
    log_q = ((teacher_logits.detach() - center) / teacher_temp).log_softmax(dim=-1)
    return -(log_q.exp() * log_q).sum(dim=-1).mean()
