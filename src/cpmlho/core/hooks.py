"""Any nn.Module as a network whose layers respond to hyperparameters, by forward hooks.

The hook on a Linear or convolution adds the response to the layer's output. In the linearised pass it adds it to the
output's tangent, under forward-mode differentiation, so that what leaves the module is
f(x; W) + J (response to d), with the module's own code for everything between its layers.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from cpmlho.core.augment import Dropout, per_row
from cpmlho.core.response import General, Response, moved

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (nn.Linear, *CONVOLUTIONS)
PRODUCTS = [kind.forward for kind in LAYERS]
UNCALLED = nn.modules.linear.NonDynamicallyQuantizableLinear  # of attention, which reads its weight instead
NORMS = nn.modules.batchnorm._NormBase  # what keeps running statistics


@functools.cache
def load_forward_mode() -> None:
    """Let torch load its forward derivatives, which it does with a warning that says nothing to the user."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


class Layers:
    """The layers of a module that respond, and their response parameters.

    A weight that several layers share has one response. A layer does not respond if its weight is frozen or shared
    with something that is no such layer.

    Attributes:
        module: the module.
        names: of the responding weights.
        general: W and b of each, the module's own numbers.
        response: R, r and H of each, in the order of `general`.
    """

    def __init__(self, module: nn.Module, n: int, generator: torch.Generator) -> None:
        self.module = module
        self._index: dict[nn.Module, int] = {}
        self._shifted: set[nn.Module] = set()  # the layers whose bias responds
        self.names: list[str] = []
        self.response: list[Response] = []
        self._hosts: list[nn.Module] = []
        owners: dict[int, list[nn.Module]] = {}
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append(part)
        seen: dict[int, int] = {}
        for name, part in module.named_modules():
            if not _responds(part, owners):
                continue
            if id(part.weight) not in seen:
                seen[id(part.weight)] = len(self.names)
                self.names.append(f"{name}.weight".removeprefix("."))
                self._hosts.append(part)
                self.response.append(_start(part, n, generator))
            self._index[part] = seen[id(part.weight)]
            if part.bias is not None and part.bias.requires_grad:
                self._shifted.add(part)
        self._dropouts = [part for part in module.modules() if isinstance(part, Dropout)]

    @property
    def general(self) -> list[General]:
        """W and b of each responding weight, without a graph; b is r, of no meaning, where there is no bias."""
        return [
            General(host.weight.detach(), host.bias.detach() if host.bias is not None else response.r)  # type: ignore[operator]
            for host, response in zip(self._hosts, self.response, strict=True)
        ]

    @property
    def parameters(self) -> list[Tensor]:
        """All response parameters, weight by weight: R, r, H."""
        return [tensor for response in self.response for tensor in response]

    @property
    def places(self) -> list[Dropout]:
        """The module's places of tuned dropout."""
        return self._dropouts

    @property
    def compiled(self) -> bool:
        """Whether `torch.compile` has a part in it; a pass with a displacement runs that part uncompiled."""
        return any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in self.module.modules())

    def of(self, parameters: dict[int, str]) -> dict[str, tuple[int, bool]]:
        """Of each named parameter that responds: its index, and whether it is a bias."""
        found = {}
        for i, host in enumerate(self._hosts):
            for parameter, is_bias in ((host.weight, False), (host.bias, True)):
                if (name := parameters.get(id(parameter))) and (host in self._shifted or not is_bias):
                    found[name] = (i, is_bias)
        return found

    @contextlib.contextmanager
    def responding(self, d: Tensor, linear: bool, fired: set[nn.Module]) -> Iterator[None]:
        """Let each layer respond to the displacement d (B, n), in its output or, if `linear`, in its tangent."""

        def enter(layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
            value, tangents[layer] = forward_ad.unpack_dual(inputs[0])
            still: Tensor = value.detach()
            return still

        def leave(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            fired.add(layer)
            answer = self._respond(layer, inputs[0], d)
            if not linear:
                return out + answer
            if (entered := tangents.pop(layer)) is not None:
                answer = answer + _product(layer, entered, layer.weight)
            dual: Tensor = forward_ad.make_dual(out.detach(), answer)
            return dual

        # Forward mode would multiply by the weight's tangent too, which is zero: the layer sees the value alone.
        tangents: dict[nn.Module, Tensor | None] = {}
        handles = [layer.register_forward_hook(leave, prepend=True) for layer in self._index]
        if linear:
            handles += [layer.register_forward_pre_hook(enter) for layer in self._index]
        if linear and torch.is_autocast_enabled(d.device.type):
            leaves = (part for part in self.module.modules() if not [*part.children()] and part not in self._index)
            handles += [leaf.register_forward_hook(_one_dtype) for leaf in leaves]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _respond(self, layer: nn.Module, a: Tensor, d: Tensor) -> Tensor:
        """`(H_w d) * (R a) + (H_b d) * r` for d (B, n), in the layout of the layer's output (eqs. 3-4)."""
        response, name = self.response[self._index[layer]], self.names[self._index[layer]]
        ra = _product(layer, a, response.R)
        inner = (1,) * (ra.dim() - 2)
        axes = (*inner, -1) if isinstance(layer, nn.Linear) else (-1, *inner)
        scale, shift = (d @ response.H.T).chunk(2, dim=1)  # (B, out) each
        scale = per_row(scale.to(ra.dtype), len(ra), name).reshape(len(ra), *axes)
        if layer not in self._shifted:
            return ra * scale
        shift = per_row((shift * response.r).to(ra.dtype), len(ra), name).reshape(len(ra), *axes)
        return torch.addcmul(shift, ra, scale)

    def with_response(self, response: Sequence[Response]) -> Layers:
        """The same layers with another response."""
        other = copy.copy(self)
        other.response = list(response)
        return other

    def fold(self, state: dict[str, Tensor], at: Tensor) -> None:
        """Put the response to the displacement `at` (n,) into the weights of a state_dict, in place."""
        parameters = {id(p): name for name, p in self.module.named_parameters()}
        for name, (i, is_bias) in self.of(parameters).items():
            state[name] = state[name] + moved(self.response[i], at)[is_bias].to(state[name].dtype)

    def to(self, device: torch.device) -> None:
        """Move the response, in place."""
        for tensor in self.parameters:
            tensor.data = tensor.data.to(device)

    def silent(self, fired: set[nn.Module]) -> list[str]:
        """Names of the weights none of whose layers was called."""
        called = {self._index[layer] for layer in fired}
        return [name for i, name in enumerate(self.names) if i not in called]


def _product(layer: nn.Module, a: Tensor, weight: Any) -> Tensor:
    """What the layer makes of `a` with this weight and no bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(a, weight)
    product: Tensor = layer._conv_forward(a, weight, None)  # type: ignore[operator]
    return product


def _one_dtype(layer: nn.Module, inputs: Any, out: Any) -> Any:
    """The output with its tangent in the dtype of its value: under autocast, LayerNorm's comes in float32."""
    if not isinstance(out, Tensor):
        return out
    value, tangent = forward_ad.unpack_dual(out)
    if tangent is None or tangent.dtype == value.dtype:
        return out
    dual: Tensor = forward_ad.make_dual(value, tangent.to(value.dtype))
    return dual


def _responds(layer: nn.Module, owners: dict[int, list[nn.Module]]) -> bool:
    """Whether a layer's weight trains, and all that use it are products by it and nothing else."""
    weight = layer._parameters.get("weight")
    return weight is not None and weight.requires_grad and all(map(_is_product, owners[id(weight)]))


def _is_product(layer: nn.Module) -> bool:
    own = getattr(layer.forward, "__func__", None)  # neither a subclass's forward nor one put in its place
    return isinstance(layer, LAYERS) and own in PRODUCTS and not isinstance(layer, UNCALLED)


def _start(layer: nn.Module, n: int, generator: torch.Generator) -> Response:
    """R and r as PyTorch's layers start, in float32 on the weight's device; H is zero."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    bound = weight[0].numel() ** -0.5
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32

    def uniform(*shape: int) -> Tensor:
        return torch.empty(*shape).uniform_(-bound, bound, generator=generator).to(weight.device, dtype)

    R = uniform(*weight.shape)
    r = uniform(len(weight)) if bias is not None else torch.zeros(len(weight), device=R.device, dtype=dtype)
    return Response(R, r, torch.zeros(2 * len(weight), n, device=R.device, dtype=dtype))


@contextlib.contextmanager
def still_statistics(module: nn.Module) -> Iterator[None]:
    """Norms that train use the batch's statistics without moving the running ones."""
    norms = [part for part in module.modules() if isinstance(part, NORMS) and part.training]
    kept = [(norm.running_mean, norm.running_var, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, statistics in zip(norms, kept, strict=True):
            norm.running_mean, norm.running_var, norm.num_batches_tracked = statistics


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, and each part in its own mode again afterwards."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, flag in flags:
            part.training = flag
