"""Layers that respond to hyperparameters, in any nn.Module, by forward hooks (eqs. 3-4).

At input a and displacement delta of the hyperparameters, one row an example, a layer's output is
`W a + b + (H_w delta) * (R a) + (H_b delta) * r`. In the linearised pass of Delta-STN the hook adds the response to the
output's tangent, under forward-mode differentiation. The module's own code runs between its layers, and what leaves the
module is f(x; W) + J (response to delta).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from cpmlho.core.augment import Dropout, per_row
from cpmlho.core.options import ResponseOptions

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (nn.Linear, *CONVOLUTIONS)
FORWARDS = [kind.forward for kind in LAYERS]
UNCALLED = nn.modules.linear.NonDynamicallyQuantizableLinear  # attention reads its weight and never calls it
NORMS = nn.modules.batchnorm._NormBase  # the layers with running statistics
MEAN_DECAY = 0.99  # of response weights that follow the module's own as an exponential mean


class General(NamedTuple):
    """A layer's own parameters: W (out, in, ...), the paper's w_e, and b (out,)."""

    W: Tensor
    b: Tensor


class Response(NamedTuple):
    """A layer's response parameters: R like W (w_h2), r like b, H (2 out, n) (w_h1)."""

    R: Tensor
    r: Tensor
    H: Tensor


@functools.cache
def load_forward_mode() -> None:
    """Let torch load its forward derivatives, which issues a warning that does not concern the user."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        forward_ad.make_dual(torch.zeros(1, device="cpu"), torch.zeros(1, device="cpu"))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Start W and b of each linear and convolution layer as PyTorch does, from a generator of the caller's."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, LAYERS):
                bound = layer.weight[0].numel() ** -0.5  # Kaiming uniform with a = sqrt(5)
                for parameter in layer.parameters(recurse=False):
                    drawn = torch.empty(parameter.shape, device=generator.device)
                    parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


class Layers:
    """The layers of a module that respond, and their response parameters.

    A weight that several layers share has one response. A layer does not respond if its weight is frozen or shared
    with a module of another kind.

    Attributes:
        module: the module.
        names: of the responding weights.
        response: R, r and H of each; at a higher rank then those of each weight's second term, and so on.
        dropouts: the places of tuned dropout.
        temperature: (n,), the response of the outputs' scale in place of the layers' responses; None without it.
    """

    def __init__(
        self, module: nn.Module, n: int, options: ResponseOptions, generator: torch.Generator, rank: int = 1
    ) -> None:
        self.module, self._options = module, options
        self.dropouts = [part for part in module.modules() if isinstance(part, Dropout)]
        self.temperature: Tensor | None = None
        self._index: dict[nn.Module, int] = {}
        self._biased: set[nn.Module] = set()  # the layers whose bias responds
        self.names: list[str] = []
        self.response: list[Response] = []
        self._hosts: list[nn.Module] = []
        self._frozen: dict[str, Tensor] = {}
        if options.response == "temperature":
            self.temperature = next(module.parameters()).new_zeros(n, dtype=torch.float32)
            return
        owners: dict[int, list[nn.Module]] = {}
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append(part)
        seen: dict[int, int] = {}
        for name, part in module.named_modules():
            if not _multiplies(part, owners):
                continue
            if not part.weight.requires_grad:
                self._frozen[f"{name}.weight".removeprefix(".")] = part.weight
                continue
            if id(part.weight) not in seen:
                seen[id(part.weight)] = len(self.names)
                self.names.append(f"{name}.weight".removeprefix("."))
                self._hosts.append(part)
                self.response.append(_start(part, n, generator, options.response_start))
            self._index[part] = seen[id(part.weight)]
            if part.bias is not None and part.bias.requires_grad:
                self._biased.add(part)
        for _ in range(rank - 1):  # the first term has all of the bias's response
            further = [_start(host, n, generator, "random") for host in self._hosts]
            self.response += [each._replace(r=torch.zeros_like(each.r)) for each in further]

    def terms(self, i: int) -> list[Response]:
        """The terms of the response of weight i, as many as the rank."""
        return self.response[i :: len(self.names)]

    @property
    def general(self) -> list[General]:
        """W and b of each responding weight, without a graph; without a bias, r stands in its place."""
        return [
            General(host.weight.detach(), host.bias.detach() if host.bias is not None else response.r)  # type: ignore[operator]
            for host, response in zip(self._hosts, self.response, strict=False)
        ]

    @property
    def parameters(self) -> list[Tensor]:
        """All response parameters, weight by weight: R, r, H."""
        if self.temperature is not None:
            return [self.temperature]
        return [tensor for response in self.response for tensor in response]

    @property
    def trained(self) -> list[list[Tensor]]:
        """The response parameters that response steps train, weight by weight."""
        if self.temperature is not None:
            return [[self.temperature]]
        free = self._options.response_weights == "free"
        return [
            [tensor for term in self.terms(i) for tensor in (term if free else (term.H,))]
            for i in range(len(self.names))
        ]

    @property
    def weights(self) -> list[nn.Parameter]:
        """The module's parameters to which the responses belong, weight by weight."""
        return [host.weight for host in self._hosts]  # type: ignore[misc]

    @property
    def compiled(self) -> bool:
        """Whether `torch.compile` compiled a part; passes with a displacement run that part uncompiled."""
        return any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in self.module.modules())

    @torch.no_grad()
    def follow(self) -> None:
        """Let R and r follow W and b where the options say so (`response_weights`: `tied`, `mean`)."""
        kept = {"tied": 0.0, "mean": MEAN_DECAY}.get(self._options.response_weights)
        if kept is not None:
            for own, response in zip(self.general, self.response, strict=True):
                response.R.lerp_(own.W.to(response.R.dtype), 1 - kept)
                response.r.lerp_(own.b.to(response.r.dtype), 1 - kept)

    @property
    def by_name(self) -> dict[str, tuple[int, bool]]:
        """The index of each parameter that responds, by name, and whether it is a bias."""
        names, found = {id(p): name for name, p in self.module.named_parameters()}, {}
        for i, host in enumerate(self._hosts):
            for p, is_bias in ((host.weight, False), (host.bias, True)):
                if (name := names.get(id(p))) and (host in self._biased or not is_bias):
                    found[name] = (i, is_bias)
        return found

    @contextlib.contextmanager
    def responding(self, delta: Tensor, linear: bool, fired: set[nn.Module]) -> Iterator[None]:
        """Let each layer respond to the displacement delta (B, n), in its output or, if `linear`, in its tangent."""

        def enter(layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
            value, tangents[layer] = forward_ad.unpack_dual(inputs[0])
            primal: Tensor = value.detach()
            return primal

        def leave(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            fired.add(layer)
            response = self._respond(layer, inputs[0], delta)
            if not linear:
                return out + response
            if (tangent := tangents.pop(layer)) is not None:
                response = response + _product(layer, tangent, layer.weight)
            dual: Tensor = forward_ad.make_dual(out.detach(), response)
            return dual

        # Forward mode would also multiply by the weight's tangent, which is zero. So the layer sees the value alone.
        tangents: dict[nn.Module, Tensor | None] = {}
        handles = [layer.register_forward_hook(leave, prepend=True) for layer in self._index]
        if linear:
            handles += [layer.register_forward_pre_hook(enter) for layer in self._index]
        if linear and torch.is_autocast_enabled(delta.device.type):
            leaves = (part for part in self.module.modules() if not [*part.children()] and part not in self._index)
            handles += [leaf.register_forward_hook(_one_dtype) for leaf in leaves]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _respond(self, layer: nn.Module, a: Tensor, delta: Tensor) -> Tensor:
        """`(H_w delta) * (R a) + (H_b delta) * r`, in the layout of the layer's output (eqs. 3-4)."""
        terms, name = self.terms(self._index[layer]), self.names[self._index[layer]]
        return functools.reduce(torch.add, [self._term(layer, a, delta, response, name) for response in terms])

    def _term(self, layer: nn.Module, a: Tensor, delta: Tensor, response: Response, name: str) -> Tensor:
        ra = _product(layer, a, response.R)
        inner = (1,) * (ra.dim() - 2)
        axes = (*inner, -1) if isinstance(layer, nn.Linear) else (-1, *inner)
        with torch.autocast(delta.device.type, enabled=False):  # H is small and accumulates: it keeps its precision
            scale, shift = (delta @ response.H.T).to(ra.dtype).chunk(2, dim=1)  # (B, out) each
        scale = per_row(scale, len(ra), name).reshape(len(ra), *axes)
        if layer not in self._biased:
            return ra * scale
        shift = per_row(shift * response.r.to(ra.dtype), len(ra), name).reshape(len(ra), *axes)
        return torch.addcmul(shift, ra, scale)

    def responding_by(self, scale: float) -> Layers:
        """The same layers with a random H of this scale, so that every layer that is called responds."""
        other, generator = copy.copy(self), torch.Generator(self.parameters[0].device).manual_seed(0)

        def drawn(like: Tensor) -> Tensor:
            return torch.empty_like(like).normal_(0, scale, generator=generator)

        other.response = [r._replace(H=drawn(r.H)) for r in self.response]
        if self.temperature is not None:
            other.temperature = drawn(self.temperature)
        return other

    def fold(self, state: dict[str, Tensor], at: Tensor) -> None:
        """Add the response to the displacement `at` (n,) to the weights of a state_dict, in place."""
        for name, (i, is_bias) in self.by_name.items():
            state[name] = state[name] + added(self.terms(i), at)[is_bias].to(state[name].dtype)

    def unfrozen(self) -> list[str]:
        """Names of the weights that were frozen when the responses were made, and train now; each is named once."""
        names = [name for name, weight in self._frozen.items() if weight.requires_grad]
        for name in names:
            del self._frozen[name]
        return names

    def silent(self, fired: set[nn.Module]) -> list[str]:
        """Names of the weights none of whose layers was called."""
        called = {self._index[layer] for layer in fired}
        return [name for i, name in enumerate(self.names) if i not in called]


def added(terms: Sequence[Response], delta: Tensor) -> General:
    """The change of a layer's W and b under the displacement delta (..., n): `(H_w delta) R` and `(H_b delta) * r`."""
    changes = []
    for term in terms:
        scale, shift = (delta @ term.H.T).chunk(2, dim=-1)
        changes.append(General(scale[(..., *(None,) * (term.R.dim() - 1))] * term.R, shift * term.r))
    return General(*(functools.reduce(torch.add, each) for each in zip(*changes, strict=True)))


def _product(layer: nn.Module, a: Tensor, weight: Any) -> Tensor:
    """The layer's output at `a` with this weight and no bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(a, weight)
    product: Tensor = layer._conv_forward(a, weight, None)  # type: ignore[operator]
    return product


def _one_dtype(layer: nn.Module, inputs: Any, out: Any) -> Any:
    """The output with its tangent in the dtype of its value: under autocast, LayerNorm's tangent is float32."""
    if not isinstance(out, Tensor):
        return out
    value, tangent = forward_ad.unpack_dual(out)
    if tangent is None or tangent.dtype == value.dtype:
        return out
    dual: Tensor = forward_ad.make_dual(value, tangent.to(value.dtype))
    return dual


def _multiplies(layer: nn.Module, owners: dict[int, list[nn.Module]]) -> bool:
    """Whether a layer has a weight, and all modules that use it do nothing but multiply by it."""
    weight = layer._parameters.get("weight")
    return weight is not None and all(map(_is_product, owners[id(weight)]))


def _is_product(layer: nn.Module) -> bool:
    own = getattr(layer.forward, "__func__", None)  # neither a subclass's forward nor one put in its place
    return isinstance(layer, LAYERS) and own in FORWARDS and not isinstance(layer, UNCALLED)


def _start(layer: nn.Module, n: int, generator: torch.Generator, start: str) -> Response:
    """H is zero; R and r start like a PyTorch layer, or at W and b where these are not all zero; float32 at least."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    bound = weight[0].numel() ** -0.5
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32

    def uniform(*shape: int) -> Tensor:
        drawn = torch.empty(*shape, device=generator.device)  # whatever torch's default device is
        return drawn.uniform_(-bound, bound, generator=generator).to(weight.device, dtype)

    H = torch.zeros(2 * len(weight), n, device=weight.device, dtype=dtype)

    def first(p: Tensor) -> Tensor:  # with R = H = 0 no gradient would ever move either
        drawn = uniform(*p.shape)
        return torch.where(p.any(), p.detach().to(dtype), drawn) if start == "weights" else drawn

    return Response(first(weight), first(bias) if isinstance(bias, Tensor) else H.new_zeros(len(weight)), H)


@contextlib.contextmanager
def still_statistics(module: nn.Module) -> Iterator[None]:
    """A pass that leaves all buffers as they are.

    Norms in training mode use the batch's statistics without updating the running ones. The pass works on copies of all
    other buffers: those of an exponential mean, a codebook, spectral norm.
    """
    kept = [(part, dict(part._buffers)) for part in module.modules() if part._buffers]
    for part, buffers in kept:
        still = isinstance(part, NORMS) and part.training
        part._buffers.update({name: None if still or b is None else b.clone() for name, b in buffers.items()})
    try:
        yield
    finally:
        for part, buffers in kept:
            part._buffers.update(buffers)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; afterwards each part in its own mode again."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, flag in flags:
            part.training = flag
