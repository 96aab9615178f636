"""The module in one pass, as losses call it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from cpmlho.core.hooks import Layers
from cpmlho.core.response import Response
from cpmlho.core.spaces import Values


class Net:
    """The module in one pass, as losses call it.

    `net(...)` is the module's output, of whatever arguments it takes; `net.l2()` half the squared weights. In a pass
    with a displacement both are those of the displaced weights, example by example.

    Attributes:
        calls: how often it was called.
        fired: the layers that responded.
    """

    def __init__(self, layers: Layers, values: Values, d: Tensor | None = None, *, linear: bool = False) -> None:
        self._layers, self._values, self._d, self._linear = layers, values, d, linear
        self.calls, self.fired = 0, set[nn.Module]()

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The module's output; the linearised pass linearises each tensor of it."""
        self.calls += 1
        with contextlib.ExitStack() as stack:
            for place in self._layers.places:
                stack.callback(place.acts_at, place.acts_at(self._values))
            if self._d is None:
                return self._layers.module(*inputs, **named)
            stack.enter_context(self._layers.responding(self._d, self._linear, self.fired))
            stack.enter_context(plain_attention())
            if self._layers.compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if not self._linear:
                return self._layers.module(*inputs, **named)
            stack.enter_context(forward_ad.dual_level())
            try:
                return _mapped(_linearised, self._layers.module(*inputs, **named))
            except (RuntimeError, NotImplementedError) as error:
                if "forward AD" not in str(error) and "jvp" not in str(error):
                    raise
                raise RuntimeError(
                    f"the module has an operation without a forward-mode derivative, which the linearised pass of "
                    f"Delta-STN and CPMLHO needs ({str(error).splitlines()[0]}); cpmlho.STN() needs none"
                ) from error

    def l2(self, where: Callable[[str], bool] | None = None) -> Tensor:
        """Half the sum of the squared parameters: () at the present weights, (B,) at displaced ones.

        Args:
            where: which parameters count, by name; None: those of two and more dimensions, so neither biases nor the
                scales of norms.

        Raises:
            ValueError: `where` chooses none.
        """
        named = dict(self._layers.module.named_parameters())
        chosen = {name: p for name, p in named.items() if (p.dim() > 1 if where is None else where(name))}
        if not chosen:
            raise ValueError(f"net.l2(where) chose no parameter; the module has {', '.join(named)}")
        respond = self._layers.of({id(p): name for name, p in chosen.items()}) if self._d is not None else {}
        total = torch.stack([p.square().sum() for p in chosen.values()]).sum() / 2
        for name, (i, is_bias) in respond.items():
            total = total + self._moved(chosen[name], self._layers.response[i], is_bias)
        return total

    def _moved(self, p: Tensor, response: Response, is_bias: bool) -> Tensor:
        """What the displacement adds to half the squares of p, (B,)."""
        assert self._d is not None
        scale, shift = (self._d @ response.H.T).chunk(2, dim=1)
        if is_bias:
            moved: Tensor = shift * response.r
            return moved @ p + moved.square().sum(1) / 2
        inner, square = (p * response.R).flatten(1).sum(1), response.R.square().flatten(1).sum(1)
        added: Tensor = scale @ inner + scale.square() @ square / 2
        return added


def _linearised(out: Tensor) -> Tensor:
    value, tangent = forward_ad.unpack_dual(out)
    still: Tensor = value.detach()
    return still if tangent is None else still + tangent


def _mapped(act: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same structure of tuples, lists and dictionaries, with `act` done to its tensors."""
    if isinstance(tree, Tensor):
        return act(tree)
    if isinstance(tree, dict):
        return type(tree)({key: _mapped(act, value) for key, value in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_mapped(act, value) for value in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(_mapped(act, value) for value in tree)
    return tree


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by products that forward mode knows, and that call each layer."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
