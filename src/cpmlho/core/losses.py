"""Losses with a strength for each example."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: Tensor | float = 0.0, ignore_index: int = -100
) -> Tensor:
    """The cross-entropy of each example in nats, (B,), with a label smoothing for each example.

    As `torch.nn.functional.cross_entropy`, which takes one smoothing for the whole batch: a smoothing s moves the share
    s of the target from the label to all classes evenly.

    Args:
        logits: (B, classes), or (B, classes, ...) for several labels an example, over which the loss is averaged.
        labels: (B,) or (B, ...), whole numbers.
        label_smoothing: (B,), such as `h.smoothing`, or one number.
        ignore_index: a label that does not count.
    """
    log_p = logits.log_softmax(1)
    right = F.nll_loss(log_p, labels, reduction="none", ignore_index=ignore_index)
    counted = labels != ignore_index
    even = -log_p.mean(1) * counted
    if isinstance(label_smoothing, Tensor):
        label_smoothing = label_smoothing.view(-1, *(1,) * (labels.dim() - 1)).to(log_p.dtype)
    losses = right + label_smoothing * (even - right)
    return losses.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1) if labels.dim() > 1 else losses
