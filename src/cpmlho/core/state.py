"""The state of a tuning: saved, restored, and moved to another device."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from cpmlho.core.bilevel import Bilevel
from cpmlho.core.loading import move


def state_dict(bilevel: Bilevel) -> dict[str, Any]:
    """Everything that later steps depend on, as copies; module and optimizers included."""
    rng = {"cpu": torch.get_rng_state()}
    if bilevel.device.type == "cuda":
        rng["cuda"] = torch.cuda.get_rng_state(bilevel.device)
    state = {
        "space": _ranges(bilevel),
        "method": dataclasses.asdict(bilevel.method),
        "steps": bilevel.steps,
        "module": bilevel.module.state_dict(),
        "optimizer": bilevel.optimizer.state_dict(),
        "response": dict(zip(_keys(bilevel), bilevel.layers.parameters, strict=True)),
        "response_optimizer": bilevel.response_optimizer.state_dict(),
        "hyper": [bilevel.lam.detach(), bilevel.rho.detach(), bilevel.delta_mean],
        "hyper_optimizer": bilevel.hyper_optimizer.state_dict(),
        "planes": bilevel.planes.state() if bilevel.planes is not None else None,
        "streams": bilevel.streams.state(),
        "valid": bilevel.valid.state(),
        "train": bilevel.upper.state() if bilevel.upper is not None else None,
        "scaler": bilevel.descent.scaler.state_dict(),
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
        ("planes", state["planes"] is not None, bilevel.planes is not None),
    ):
        if its != ours:
            raise ValueError(f"the state is of another tuner: its {what}: {its}, this one's: {ours}")
    state = copy.deepcopy(state)  # optimizers and planes keep what they are given, and change it
    bilevel.module.load_state_dict(state["module"])
    bilevel.optimizer.load_state_dict(state["optimizer"])
    bilevel.response_optimizer.load_state_dict(state["response_optimizer"])
    bilevel.hyper_optimizer.load_state_dict(state["hyper_optimizer"])
    with torch.no_grad():
        torch._foreach_copy_([bilevel.lam, bilevel.rho, bilevel.delta_mean], state["hyper"])
        torch._foreach_copy_(bilevel.layers.parameters, [*state["response"].values()])
    if bilevel.planes is not None:
        bilevel.planes.restore(state["planes"])
    bilevel.streams.restore(state["streams"])
    bilevel.steps = state["steps"]
    bilevel.descent.scaler.load_state_dict(state["scaler"])
    for loader, kept in ((bilevel.valid, state["valid"]), (bilevel.upper, state["train"])):
        if loader is not None and kept is not None:
            loader.restore(kept)
    torch.set_rng_state(state["rng"]["cpu"].cpu())
    if bilevel.device.type == "cuda":
        torch.cuda.set_rng_state(state["rng"]["cuda"].cpu(), bilevel.device)


def _ranges(bilevel: Bilevel) -> dict[str, list[Any]]:
    return {name: [type(each).__name__, each.low, each.high] for name, each in bilevel.space.items()}


def _keys(bilevel: Bilevel) -> list[str]:
    if bilevel.layers.temperature is not None:
        return ["temperature"]
    names = bilevel.layers.names
    terms = ("", *(f"{k}." for k in range(2, len(bilevel.layers.response) // len(names) + 1)))
    return [f"{name}.{term}{part}" for term in terms for name in names for part in ("R", "r", "H")]


def to(bilevel: Bilevel, target: torch.device) -> None:
    """Move module, optimizers and response to another device; random streams restart there."""
    bilevel.module.to(target)
    for tensor in (bilevel.lam, bilevel.rho, bilevel.delta_mean, *bilevel.layers.parameters):
        tensor.data = tensor.data.to(target)
    for optimizer in (bilevel.optimizer, bilevel.response_optimizer, bilevel.hyper_optimizer):
        optimizer.load_state_dict(optimizer.state_dict())  # puts its state where its parameters are
    if bilevel.planes is not None:
        bilevel.planes.restore(move(bilevel.planes.state(), target))
    if target.type != bilevel.device.type:
        bilevel.set_streams(target)
