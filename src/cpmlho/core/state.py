"""The state of a tuning: saved, restored, and moved to another device."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from cpmlho.core.bilevel import Bilevel
from cpmlho.core.loading import move

KEPT = ("planes", "history")  # parts that keep the tensors they are given; the others copy or move them


def _parts(bilevel: Bilevel) -> dict[str, Any]:
    """Whatever has a state_dict of its own. Loaders come after the streams: restoring one draws random numbers."""
    parts = {
        "module": bilevel.module,
        "optimizer": bilevel.optimizer,
        "response_optimizer": bilevel.response_optimizer,
        "hyper_optimizer": bilevel.hyper_optimizer,
        "planes": bilevel.planes,
        "history": bilevel.history,
        "streams": bilevel.streams,
        "scaler": bilevel.descent.scaler,
        "valid": bilevel.valid,
        "train": bilevel.upper,
    }
    return {name: part for name, part in parts.items() if part is not None}


def state_dict(bilevel: Bilevel) -> dict[str, Any]:
    """Everything that later steps depend on, as copies; module and optimizers included."""
    rng = {"cpu": torch.get_rng_state()}
    if bilevel.device.type == "cuda":
        rng["cuda"] = torch.cuda.get_rng_state(bilevel.device)
    state = {
        "space": _ranges(bilevel),
        "method": dataclasses.asdict(bilevel.method),
        "steps": bilevel.steps,
        "response": dict(zip(_keys(bilevel), bilevel.layers.parameters, strict=True)),
        "hyper": [bilevel.lam.detach(), bilevel.rho.detach(), bilevel.delta_mean],
        **{name: part.state_dict() for name, part in _parts(bilevel).items()},
        "rng": rng,
    }
    return copy.deepcopy(state)


def load_state_dict(bilevel: Bilevel, state: dict[str, Any]) -> None:
    """Continue from `state_dict`.

    Raises:
        ValueError: it belongs to another space, module or method.
    """
    kept, own = state["method"], dataclasses.asdict(bilevel.method)
    changed = [name for name in kept if kept[name] != own.get(name)]
    for what, its, ours in (
        ("space", list(state["space"]), list(bilevel.space)),
        ("ranges", [*state["space"].values()], [*_ranges(bilevel).values()]),
        ("method", {name: kept[name] for name in changed}, {name: own.get(name) for name in changed}),
        ("responding weights", list(state["response"]), _keys(bilevel)),
        ("planes", state.get("planes") is not None, bilevel.planes is not None),
    ):
        if its != ours:
            raise ValueError(f"the state is of another tuner: its {what}: {its}, this one's: {ours}")
    state = copy.deepcopy(state)  # optimizers and planes keep what they are given, and change it
    with torch.no_grad():
        torch._foreach_copy_([bilevel.lam, bilevel.rho, bilevel.delta_mean], state["hyper"])
        torch._foreach_copy_(bilevel.layers.parameters, [*state["response"].values()])
    bilevel.steps = state["steps"]
    for name, part in _parts(bilevel).items():
        if state.get(name) is not None:
            part.load_state_dict(move(state[name], bilevel.device) if name in KEPT else state[name])
    torch.set_rng_state(state["rng"]["cpu"].cpu())
    if bilevel.device.type == "cuda":
        torch.cuda.set_rng_state(state["rng"]["cuda"].cpu(), bilevel.device)


def to(bilevel: Bilevel, target: torch.device) -> None:
    """Move module, optimizers and response to another device; random streams restart there."""
    bilevel.module.to(target)
    for tensor in (bilevel.lam, bilevel.rho, bilevel.delta_mean, *bilevel.layers.parameters):
        tensor.data = tensor.data.to(target)
    for optimizer in (bilevel.optimizer, bilevel.response_optimizer, bilevel.hyper_optimizer):
        optimizer.load_state_dict(optimizer.state_dict())  # puts its state where its parameters are
    for name, part in _parts(bilevel).items():
        if name in KEPT:
            part.load_state_dict(move(part.state_dict(), target))
    if target.type != bilevel.device.type:
        bilevel.set_streams(target)


def _ranges(bilevel: Bilevel) -> dict[str, list[Any]]:
    return {name: [type(each).__name__, each.low, each.high] for name, each in bilevel.space.items()}


def _keys(bilevel: Bilevel) -> list[str]:
    if bilevel.layers.temperature is not None:
        return ["temperature"]
    names = bilevel.layers.names
    terms = ("", *(f"{k}." for k in range(2, len(bilevel.layers.response) // len(names) + 1)))
    return [f"{name}.{term}{part}" for term in terms for name in names for part in ("R", "r", "H")]
