"""A second implementation of Delta-STN, STN and CPMLHO for tests: slow, in float64, and independent of the engine.

It computes the displaced weights of each example in full and differentiates with torch.func. The engine never forms
such weights: it adds responses to outputs. The symbols are those of the engine; equation numbers are the paper's.
"""

import math

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, jvp, vmap


class Reference:
    """One run.

    `draw(pass, batch)` returns epsilon / sigma (B, n). `act(inputs, values, pass)` applies all hyperparameters to the
    inputs, as dropout; the network itself has none.
    """

    def __init__(self, module, R, space, options, lr, draw, act):
        self.module, self.space, self.options, self.lr, self.draw, self.act = module, space, options, lr, draw, act
        self.W = {name: p.detach().clone() for name, p in module.named_parameters()}  # weights and biases, w_e
        self.R = {name: r.clone() for name, r in R.items()}  # R and r
        self.H = {name: p.new_zeros(len(p), len(space)) for name, p in self.W.items()}  # H_w and H_b
        self.lam = torch.tensor(space.start())
        self.rho = torch.full_like(self.lam, math.log(math.expm1(options.perturbation_scale)))
        self.square = [torch.zeros_like(self.lam), torch.zeros_like(self.lam)]  # of RMSprop
        self.delta = torch.zeros_like(self.lam)
        self.planes, self.steps = [], 0

    @property
    def centred(self):
        return self.options.response == "delta_stn"

    def change(self, R, H, delta):
        """Return the change of each weight for the displacement delta (n,), eq. 4."""
        return {name: (H[name] @ delta).view(-1, *(1,) * (R[name].dim() - 1)) * R[name] for name in R}

    def output(self, W, R, H, x, delta, linear):
        """Return the output for one example: f(x; W + change), linearised in the change if `linear`."""

        def f(weights):
            return functional_call(self.module, weights, (x[None],))[0]

        change = self.change(R, H, delta)
        if linear:
            value, tangent = jvp(f, (W,), (change,))
            return value + tangent
        return f({name: W[name] + change[name] for name in W})

    def loss(self, W, R, H, batch, delta, linear=False):
        """Return the mean cross-entropy with a displacement for each example, delta (B, n)."""
        inputs, labels = batch
        outputs = vmap(lambda x, d: self.output(W, R, H, x, d, linear))(inputs, delta)
        return F.cross_entropy(outputs, labels)

    def step(self, batch, valid, upper):
        """Make one training iteration: eqs. 13 and 14, and when they are due eqs. 15 and 16 and a new plane."""
        o, size = self.options, len(batch[1])
        perturbed = self.lam + self.draw("response", size) * F.softplus(self.rho)
        delta = perturbed - self.lam if self.centred else perturbed
        if o.response == "stn_joint":
            regularised = self.act(batch[0], self.space.value(perturbed), "response"), batch[1]
            by_w, by_r, by_h = grad(self.loss, (0, 1, 2))(self.W, self.R, self.H, regularised, delta)
            self.descend(self.W, by_w, self.lr)
        else:
            here = self.lam.expand(size, -1)
            plain = self.act(batch[0], self.space.value(here), "general"), batch[1]
            still = torch.zeros_like(here) if self.centred else here
            self.descend(self.W, grad(self.loss)(self.W, self.R, self.H, plain, still), self.lr)  # eq. 13
            regularised = self.act(batch[0], self.space.value(perturbed), "response"), batch[1]
            by_r, by_h = grad(self.loss, (1, 2))(self.W, self.R, self.H, regularised, delta, self.centred)
        self.delta = delta.mean(0)
        if self.planes:  # eq. 12
            for_r, for_h = grad(self.constraint, (0, 1))(self.R, self.H)
            by_r = {name: g + for_r[name] for name, g in by_r.items()}
            by_h = {name: g + for_h[name] for name, g in by_h.items()}
        rate = o.response_learning_rate or self.lr
        self.descend(self.R, by_r, rate)  # eq. 14
        self.descend(self.H, by_h, rate)
        self.steps += 1
        if self.steps % o.train_steps == 0:
            for _ in range(o.valid_steps):
                self.tune(next(valid), next(upper) if getattr(o, "mixed_level", False) else None)
            for plane in self.planes:
                if o.multiplier == "dual_ascent":
                    plane["mu"] = max(0.0, plane["mu"] + o.dual_step * float(self.phi(plane, self.R, self.H)))
        if getattr(o, "cutting_planes", False) and self.steps % o.cut_steps == 0:
            self.cut()

    def tune(self, valid, upper):
        """Make a hyperparameter step by RMSprop, eqs. 15 and 16."""
        at, o = self.lam.clone(), self.options
        draws = [self.draw(name, len(part[1])) for name, part in (("valid", valid), ("upper", upper)) if part]

        def objective(lam, rho):
            total = -o.entropy_weight * F.softplus(rho).log().sum()
            weights = (o.theta, 1.0) if upper else (1.0,)
            for part, draw, weight in zip((valid, upper), draws, weights, strict=False):
                moved = lam + draw * F.softplus(rho)
                total = total + weight * self.loss(self.W, self.R, self.H, part, moved - at if self.centred else moved)
            return total

        gradients = grad(objective, (0, 1))(self.lam, self.rho)
        for p, g, square in zip((self.lam, self.rho), gradients, self.square, strict=True):
            square.mul_(0.99).add_(0.01 * g * g)
            p.sub_(o.hyper_learning_rate * g / (square.sqrt() + 1e-8))

    def gap(self, R, H):
        """Return v = w_e - w_h of the weights without biases; w_h is (H_w c) R at coordinates c, or R itself (R3)."""
        c = {"raw": self.lam, "value": self.space.value(self.lam), "displaced": self.delta}.get(self.options.constraint)
        scale = {n: torch.ones(len(W)) if c is None else H[n] @ c for n, W in self.W.items()}
        return torch.cat(
            [(W - scale[n].view(-1, *(1,) * (W.dim() - 1)) * R[n]).flatten() for n, W in self.W.items() if W.dim() > 1]
        )

    def cut(self):
        """Add the plane of eqs. 10 and 11 at the current iterate, and drop the oldest beyond `max_planes`."""
        v = self.gap(self.R, self.H)
        measures = {"l2": torch.norm, "squared": lambda x: (x * x).sum(), "l1": lambda x: x.abs().sum()}
        g = measures[self.options.g]
        plane = {"v": v, "g": g(v), "normal": grad(g)(v), "mu": self.options.mu_init}
        self.planes = [*self.planes, plane][-self.options.max_planes :]

    def phi(self, plane, R, H):
        return plane["g"] + plane["normal"] @ (self.gap(R, H) - plane["v"]) - self.options.eps_sq

    def constraint(self, R, H):
        """Return the sum of mu_k phi_k over the active planes."""
        phis = [(plane["mu"], self.phi(plane, R, H)) for plane in self.planes]
        always = self.options.force == "always"
        return sum(mu * phi * (1.0 if always else (phi.detach() > 0).to(phi.dtype)) for mu, phi in phis)

    @staticmethod
    def descend(parameters, gradients, rate):
        for name, p in parameters.items():
            p.sub_(rate * gradients[name])
