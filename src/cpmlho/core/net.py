"""The module during one pass, as losses call it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from cpmlho.core.augment import per_row
from cpmlho.core.response import Layers, Response, added
from cpmlho.core.spaces import Values


class Net:
    """The module during one pass, as losses call it.

    `net(...)` is the module's output, for the module's own arguments; `net.encode(...)` is that of any other method or
    submodule. `net.l2()` is half the sum of squared weights, and `net.parameters()` gives the weights of each example.
    In a pass with a displacement all use the displaced weights of each example.

    Attributes:
        calls: how often it was called.
        fired: the layers that responded.
        running: whether a call of it is running.
        decays: whether `l2` was called.
    """

    def __init__(self, layers: Layers, values: Values, delta: Tensor | None = None, *, linear: bool = False) -> None:
        self._layers, self._values, self._delta, self._linear = layers, values, delta, linear
        self.calls, self.fired = 0, set[nn.Module]()
        self.running = self.decays = False

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The module's output; the linearised pass linearises each tensor in it.

        Raises:
            RuntimeError: the linearised pass meets an operation without a forward-mode derivative.
            TypeError: the output holds an object whose tensors cannot be found.
        """
        return self._run(self._layers.module, *inputs, **named)

    def __getattr__(self, name: str) -> Any:
        """A method or submodule to call like `net` itself, a parameter (B, ...), or another attribute of the module."""
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._layers.module, name)
        if isinstance(found, nn.Parameter):
            own = {id(p): each for each, p in self._layers.module.named_parameters()}
            return dict(self.named_parameters())[own[id(found)]]
        return functools.partial(self._run, found) if callable(found) else found

    def _run(self, module: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        """The output of the module, or of a part or method of it."""
        self.calls += 1
        layers = self._layers
        with contextlib.ExitStack() as stack:
            self.running = True
            stack.callback(setattr, self, "running", False)
            for dropout in layers.dropouts:
                stack.callback(dropout.use, dropout.use(self._values))
            if self._delta is None:
                return module(*inputs, **named)
            if layers.temperature is not None:
                return self._tempered(module(*inputs, **named))
            stack.enter_context(layers.responding(self._delta, self._linear, self.fired))
            stack.enter_context(plain_attention())
            if layers.compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if not self._linear:
                return module(*inputs, **named)
            stack.enter_context(forward_ad.dual_level())
            try:
                return _mapped(_linearised, module(*inputs, **named))
            except (RuntimeError, NotImplementedError) as error:
                if "forward AD" not in str(error) and "jvp" not in str(error):
                    raise
                raise RuntimeError(
                    f"the module has an operation without a forward-mode derivative, which the linearised pass of "
                    f"Delta-STN and CPMLHO needs ({str(error).splitlines()[0]}); cpmlho.STN() needs none"
                ) from error

    def _tempered(self, outputs: Any) -> Any:
        """The outputs times `1 + h delta`, one factor for each example; the module itself is not differentiated."""
        assert self._delta is not None
        assert self._layers.temperature is not None
        self.fired.add(self._layers.module)
        factor = 1 + self._delta @ self._layers.temperature

        def scale(out: Tensor) -> Tensor:
            if not out.is_floating_point():
                return out
            rows = per_row(factor.to(out.dtype), len(out), "the temperature response")
            return out.detach() * rows.view(-1, *(1,) * (out.dim() - 1))

        return _mapped(scale, outputs)

    def parameters(self) -> Iterator[Tensor]:
        """Each parameter of the module as `named_parameters` gives it."""
        return (p for _, p in self.named_parameters())

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Each parameter by name, (B, ...): at each example's hyperparameters. A copy for each example takes memory."""
        respond = self._layers.by_name if self._delta is not None else {}
        for name, p in self._layers.module.named_parameters():
            rows = p.expand(self._values.rows, *p.shape)
            if name in respond:
                i, is_bias = respond[name]
                rows = rows + added(self._layers.terms(i), self._delta)[is_bias]  # type: ignore[arg-type]
            yield name, rows

    def l2(self, where: Callable[[str], bool] | None = None) -> Tensor:
        """Half the sum of the squared parameters: () at the current weights, (B,) at displaced ones.

        Args:
            where: which parameters count, by name; None: those with two and more dimensions, so neither biases nor the
                scales of norms.

        Raises:
            ValueError: `where` chooses none.
        """
        self.decays = True
        named = dict(self._layers.module.named_parameters())
        chosen = {name: p for name, p in named.items() if (p.dim() > 1 if where is None else where(name))}
        if not chosen:
            raise ValueError(f"net.l2(where) chose no parameter; the module has {', '.join(named)}")
        respond = self._layers.by_name if self._delta is not None else {}
        total = torch.stack([p.square().sum() for p in chosen.values()]).sum() / 2
        for name, (i, is_bias) in respond.items():
            if name in chosen:
                total = total + self._added_l2(chosen[name], self._layers.terms(i), is_bias)
        return total

    def _added_l2(self, p: Tensor, terms: Sequence[Response], is_bias: bool) -> Tensor:
        """The displacement's contribution to half the squares of p, (B,)."""
        assert self._delta is not None
        if is_bias:
            change = added(terms, self._delta).b
            return change @ p + change.square().sum(1) / 2
        scales = [(self._delta @ term.H.T).chunk(2, dim=1)[0] for term in terms]
        inner = [scale @ (p * term.R).flatten(1).sum(1) for scale, term in zip(scales, terms, strict=True)]
        squares = [
            (s * t) @ (one.R * two.R).flatten(1).sum(1) / 2
            for s, one in zip(scales, terms, strict=True)
            for t, two in zip(scales, terms, strict=True)
        ]
        return functools.reduce(torch.add, inner + squares)


def _linearised(out: Tensor) -> Tensor:
    value, tangent = forward_ad.unpack_dual(out)
    primal: Tensor = value.detach()
    return primal if tangent is None else primal + tangent


def _mapped(act: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same structure with `act` applied to its tensors; dataclasses and torch's pytree containers are known.

    Raises:
        TypeError: an object that is neither a tensor, a number, a string nor such a container.
    """

    def leaf(each: Any) -> Any:
        if isinstance(each, Tensor):
            return act(each)
        if dataclasses.is_dataclass(each) and not isinstance(each, type):
            fields = {f.name: _mapped(act, getattr(each, f.name)) for f in dataclasses.fields(each) if f.init}
            return dataclasses.replace(each, **fields)
        if isinstance(each, dict):
            return type(each)({key: _mapped(act, value) for key, value in each.items()})
        if each is None or isinstance(each, (bool, int, float, str, torch.dtype, torch.device)):
            return each
        raise TypeError(
            f"the module's output holds a {type(each).__name__}, in which the tuner cannot find tensors: return "
            "tensors, tuples, lists, dictionaries or dataclasses of them"
        )

    return pytree.tree_map(leaf, tree)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by products that forward mode can differentiate and that call each layer."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
