"""The networks of Goyal et al. 2017 (section 5.1), and CIFAR's residual networks begun in the same way.

Convolutions are He normal by fan-out; the final layer is drawn from N(0, 0.01²), its shift 0 (chosen here, as in
fb.resnet.torch). Scales of batch norm begin at 1, and the last one of each residual block at ``last_gamma``: 0 in the
paper, so that a block is the identity of its shortcut at first. Inputs arrive in [0, 1]; each network normalises its own.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbgap.data import torchvision
from lbgap.models import hoffer

CROP = 224


def residual(shape, n_classes, depth: int = 8, stem_stride: int = 1, last_gamma: float = 0.0) -> nn.Module:
    """A CIFAR ResNet of 6n + 2 layers; with a ``stem_stride`` of 2 its first convolution halves the picture.

    Raises:
        ValueError: a depth that is not 6n + 2.
    """
    return begun(hoffer.residual(shape, n_classes, depth, stem_stride=stem_stride), last_gamma)


def imagenet(shape, n_classes, depth: int = 50, last_gamma: float = 0.0) -> nn.Module:
    """torchvision's ResNet of bottleneck blocks, whose stride is on the 3x3 convolution, as in fb.resnet.torch.

    Of inputs larger than 224 x 224 the middle is taken: what evaluation sees.

    Raises:
        ValueError: a depth that torchvision does not have in bottleneck blocks.
    """
    built = {50: "resnet50", 101: "resnet101", 152: "resnet152"}
    if depth not in built:
        raise ValueError(f"depth is {depth}; accepted are {', '.join(map(str, built))}")
    network = getattr(torchvision().models, built[depth])(num_classes=n_classes)
    return nn.Sequential(hoffer.Standardize(shape[0]), hoffer.CenterCrop(CROP), begun(network, last_gamma))


def begun(model: nn.Module, last_gamma: float) -> nn.Module:
    """A residual network with the paper's initial scales and final layer; its convolutions stay as they are."""
    for block in last_norms(model):
        nn.init.constant_(block.weight, last_gamma)
    (*_, final) = (module for module in model.modules() if isinstance(module, nn.Linear))
    nn.init.normal_(final.weight, std=0.01)
    nn.init.zeros_(final.bias)
    return model


def last_norms(model: nn.Module) -> list[_BatchNorm]:
    """The last batch norm of each residual block, which is not that of its shortcut."""
    found = [module.body[-1] for module in model.modules() if isinstance(module, hoffer.BasicBlock)]
    return found + [module.bn3 for module in model.modules() if hasattr(module, "bn3")]
