"""The torch optimizer of a specification, what its groups say, and SGD in the form whose momentum buffer holds the rate."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from lbgap.spec import OptimizerSpec

NORMALISATION = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def optimizer(spec: OptimizerSpec, model: nn.Module) -> torch.optim.Optimizer:
    """The torch optimizer of a spec on a network's trainable parameters; those without weight decay are its second group."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    exempt = without_decay(spec, model)
    groups: list = parameters
    if exempt:
        groups = [
            {"params": [p for p in parameters if p not in exempt]},
            {"params": [p for p in parameters if p in exempt], "weight_decay": 0.0, "exempt": True},
        ]
    common = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    if spec.name == "sgd":
        momentum = {"momentum": spec.momentum, "nesterov": spec.nesterov}
        if spec.momentum_buffer == "gradients":
            return torch.optim.SGD(groups, **momentum, **common)
        return StepsSGD(groups, corrected=spec.momentum_buffer == "corrected steps", **momentum, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.name](groups, fused=True, **common)


def without_decay(spec: OptimizerSpec, model: nn.Module) -> set[Tensor]:
    """The parameters of a network that a spec leaves out of weight decay."""
    if spec.decay_exempt == "none":
        return set()
    exempt = {p for m in model.modules() if isinstance(m, NORMALISATION) for p in m.parameters(recurse=False)}
    if spec.decay_exempt == "norms and biases":
        exempt |= {p for name, p in model.named_parameters() if "bias" in name.split(".")[-1]}
    return exempt


class StepsSGD(torch.optim.Optimizer):
    """SGD whose momentum buffer holds steps, v = m v + eta g and w = w - v (Goyal et al. 2017, eq. 10).

    When the rate changes, v goes on with steps of the old one; ``corrected`` multiplies it by eta_new / eta_old first, which
    is then the usual form u = m u + g and w = w - eta u (eq. 9), torch's own; but for gradients seen at a rate of 0, which
    left no step to go on from. With ``nesterov`` a step is m v + eta g.
    """

    def __init__(self, params, lr: float, momentum: float, weight_decay: float, nesterov: bool, corrected: bool):
        own = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov, "corrected": corrected}
        super().__init__(params, own | {"last_lr": None})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update, with the rate and the decay that each group has now; after ``closure``, whose loss is returned."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            rate, last = group["lr"], group["last_lr"]
            kept = group["momentum"] * (rate / last if group["corrected"] and last else 1.0)
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = p.grad.add(p, alpha=group["weight_decay"])
                if "step" not in self.state[p]:
                    self.state[p]["step"] = torch.zeros_like(p)
                v = self.state[p]["step"].mul_(kept).add_(g, alpha=rate)
                p.sub_(v.mul(group["momentum"]).add_(g, alpha=rate) if group["nesterov"] else v)
            group["last_lr"] = rate
        return loss


def decays_of(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[float]:
    """The present weight decay of each parameter, as the optimizer's groups have it."""
    of = {p: group.get("weight_decay", 0.0) for group in optimizer.param_groups for p in group["params"]}
    return [of.get(p, 0.0) for p in parameters]
