"""What tuning did: the values after each hyperparameter update, and their replay as a schedule in plain training."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cpmlho.core.augment import global_generator
from cpmlho.core.loading import rows
from cpmlho.core.net import Net
from cpmlho.core.options import ResponseOptions
from cpmlho.core.response import Layers
from cpmlho.core.spaces import Space, Values

MERGED = 256  # rows; a GPU keeps 512 bytes or more for each tensor


class Update(NamedTuple):
    """The state after a hyperparameter update; the first one is the start, at step 0, without losses."""

    step: int
    values: dict[str, float]
    train_loss: float
    valid_loss: float


class History:
    """Lambda and the losses of each update, kept on their device: recording waits for nothing."""

    def __init__(self, space: Space, lam: Tensor) -> None:
        self._space, self._steps, self._rows = space, list[int](), list[Tensor]()
        self.add(0, lam, lam.new_full((), torch.nan), lam.new_full((), torch.nan))

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, lam: Tensor, train_loss: Tensor, valid_loss: Tensor) -> None:
        """Record lambda (n,) after the update at a step, and the losses, ()."""
        self._steps.append(step)
        losses = torch.stack([train_loss.detach(), valid_loss.detach()]).to(lam)
        self._rows.append(torch.cat([lam.detach(), losses])[None])
        if len(self._rows) == MERGED:
            self._rows = [torch.cat(self._rows)]

    def updates(self) -> list[Update]:
        """All updates, with one transfer from the device."""
        table = torch.cat(self._rows)
        values = map(self._space.named, self._space.value(table[:, :-2]).cpu())
        train, valid = table[:, -2:].T.tolist()
        return [Update(*each) for each in zip(self._steps, values, train, valid, strict=True)]

    def at_bounds(self, count: int, share: float) -> list[str]:
        """Names of the values that stayed within this share of a bound of their range in the last updates."""
        unit = torch.sigmoid(torch.cat(self._rows)[-count:, :-2])
        bound = ((unit < share) | (unit > 1 - share)).all(0).tolist()
        return [name for name, at in zip(self._space, bound, strict=True) if at]

    def state_dict(self) -> dict[str, Any]:
        """All that it remembers."""
        return {"steps": self._steps, "table": torch.cat(self._rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._steps, self._rows = list(state["steps"]), [state["table"]]


class Replay:
    """The values of a recorded tuning at each training step, for plain training."""

    def __init__(self, updates: Iterable[Update]) -> None:
        self._updates = sorted(updates, key=lambda update: update.step)
        if not self._updates or self._updates[0].step:
            raise ValueError("the history must begin with the start values at step 0, as tuner.history does")
        self._steps = [update.step for update in self._updates]
        self._names = [*self._updates[0].values]
        self._layers: dict[nn.Module, Layers] = {}

    def __call__(self, step: int) -> dict[str, float]:
        """The values at which training step `step` trains; the first is step 0."""
        return self._updates[bisect.bisect_right(self._steps, step) - 1].values

    def loss(
        self,
        module: nn.Module,
        train_loss: Callable[..., Tensor],
        batch: Any,
        step: int,
        *,
        rows: Callable[[Any], int] = rows,
    ) -> Tensor:
        """The training loss of each example, (B,), of a Tuner's `train_loss` at the values of a step.

        Args:
            module: to train; it may have places of `Dropout`.
            train_loss: (net, batch, h) -> (B,).
            batch: on the module's device.
            step: of training, from 0.
            rows: the number of examples in a batch.
        """
        if module not in self._layers:
            # no layer responds in plain training
            self._layers[module] = Layers(module, 1, ResponseOptions(response="temperature"), torch.Generator())
        now, device = self(step), next(module.parameters()).device
        table = torch.tensor([[now[name] for name in self._names]], device=device).expand(rows(batch), -1)
        h = Values(self._names, table, global_generator(device))
        return train_loss(Net(self._layers[module], h), batch, h)


def replay(history: Iterable[Update]) -> Replay:
    """A recorded tuning, `tuner.history`, as a schedule: `schedule(step)` are the values at a training step."""
    return Replay(history)
