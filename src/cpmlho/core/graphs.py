"""Steps that a GPU replays as one program, where to launch each kernel takes longer than what it does."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from threading import Lock

import torch
from torch import Tensor

Step = Callable[..., None]
WARM_UP = 3  # calls in which libraries set up what they keep, which no capture may do
_capturing = Lock()  # one at a time in a process, and trials train side by side


class Replayed:
    """A step that is taken as it is a few times, then captured as a CUDA graph, and from then on replayed.

    A replay does to the same memory what the captured call did. So inputs are copied to a fixed place; all else that
    the step reads has its place for good and is changed there, or its change is another `case`, which begins anew.

    Args:
        wanted: whether to capture; otherwise each call is the step itself.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._begin(None)

    def _begin(self, case: Hashable) -> None:
        self._case, self._taken = case, 0
        self._places: list[Tensor] = []
        self._replay: Callable[[], None] | None = None

    def __call__(self, step: Step, *inputs: Tensor, case: Hashable = None) -> None:
        """Take the step, always the same one.

        Args:
            step: of the inputs.
            inputs: whose shapes stay.
            case: what the step depends on beside the content of memory.
        """
        if case != self._case:
            self._begin(case)
        if not self._wanted or self._taken < WARM_UP:
            self._taken += 1
            step(*inputs)
            return
        if self._replay is None:
            self._places = [each.clone() for each in inputs]
            self._replay = capture(step, self._places)
        for place, each in zip(self._places, inputs, strict=True):
            place.copy_(each)
        self._replay()


def capture(step: Step, places: Sequence[Tensor]) -> Callable[[], None]:
    """A CUDA graph of the step on the inputs at these places, ready to be replayed; nothing is computed yet.

    Streams of randomness that the step draws from go on, at each replay, from where they stand.

    Raises:
        RuntimeError: the step waits for the device.
    """
    with _capturing:
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(places[0].device)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            step(*places)
    return graph.replay


def in_place(old: Tensor, new: Tensor) -> Tensor:
    """The new content, where the old lies if it is as large."""
    return old.copy_(new) if old.shape == new.shape else new
