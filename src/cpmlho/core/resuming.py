"""A tuner's state: taken, restored to the same bits, and moved to another device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cpmlho.core.levels import Levels
from cpmlho.core.loading import move


def state_of(levels: Levels) -> dict[str, Any]:
    """All that the steps to come depend on, module and optimizer included."""
    rng = {"cpu": torch.get_rng_state()}
    if levels.device.type == "cuda":
        rng["cuda"] = torch.cuda.get_rng_state(levels.device)
    return {
        "names": list(levels.space),
        "steps": levels.steps,
        "module": levels.module.state_dict(),
        "optimizer": levels.optimizer.state_dict(),
        "response": dict(zip(levels.layers.names, map(list, levels.layers.response), strict=True)),
        "response_optimizer": levels.response_optimizer.state_dict(),
        "upper": _upper_tensors(levels),
        "planes": levels.planes.state() if levels.planes is not None else None,
        "streams": levels.streams.state(),
        "valid": levels.valid.state(),
        "train": levels.upper.state() if levels.upper is not None else None,
        "rng": rng,
    }


def restore(levels: Levels, state: Mapping[str, Any]) -> None:
    """Restore from `state_of`.

    Raises:
        ValueError: it was taken of another space, module or method.
    """
    for what, its, ours in (
        ("space", state["names"], list(levels.space)),
        ("responding weights", list(state["response"]), levels.layers.names),
        ("planes", state["planes"] is not None, levels.planes is not None),
    ):
        if its != ours:
            raise ValueError(f"the state is of another tuner: its {what}: {its}, this one's: {ours}")
    levels.module.load_state_dict(state["module"])
    levels.optimizer.load_state_dict(state["optimizer"])
    levels.response_optimizer.load_state_dict(state["response_optimizer"])
    torch._foreach_copy_(_upper_tensors(levels), state["upper"])
    torch._foreach_copy_(levels.layers.parameters, [t for each in state["response"].values() for t in each])
    if levels.planes is not None:
        levels.planes.restore(state["planes"])
    levels.streams.restore(state["streams"])
    levels.steps = state["steps"]
    for loader, kept in ((levels.valid, state["valid"]), (levels.upper, state["train"])):
        if loader is not None and kept is not None:
            loader.restore(kept)
    torch.set_rng_state(state["rng"]["cpu"].cpu())
    if levels.device.type == "cuda":
        torch.cuda.set_rng_state(state["rng"]["cuda"].cpu(), levels.device)


def move_to(levels: Levels, target: torch.device) -> None:
    """Go on, module, optimizer and all, on another device; streams of randomness begin anew there."""
    levels.module.to(target)
    averages = levels.upper_optimizer.square_averages
    averages[:] = [average.to(target) for average in averages]
    for tensor in (levels.raw, levels.spread, levels.used, *levels.layers.parameters):
        tensor.data = tensor.data.to(target)
    for optimizer in (levels.optimizer, levels.response_optimizer):
        optimizer.load_state_dict(optimizer.state_dict())  # which goes where its parameters are
    if levels.planes is not None:
        levels.planes.restore(move(levels.planes.state(), target))
    if target.type != levels.device.type:
        levels.set_streams(target)


def _upper_tensors(levels: Levels) -> list[Tensor]:
    averages = levels.upper_optimizer.square_averages
    return [levels.raw.detach(), levels.spread.detach(), levels.used, *averages]
