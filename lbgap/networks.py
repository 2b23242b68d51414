"""Networks by name, without torch: where each is built. A name is ``<paper>.<network>``, since papers use one name for
different layers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lbgap.values import same_code


@dataclass(frozen=True)
class Network:
    """A network's builder, called as ``builder(shape, n_classes, **options)``: itself, or "module:function"."""

    builder: str | Callable
    options: Mapping[str, Any] = field(default_factory=dict)


NETWORKS = {
    "keskar.F1": Network("lbgap.models.keskar:fully_connected"),
    "keskar.F2": Network("lbgap.models.keskar:fully_connected", {"depth": 7}),
    "keskar.C1": Network("lbgap.models.keskar:shallow"),
    "keskar.C2": Network("lbgap.models.keskar:deep"),
    "keskar.C3": Network("lbgap.models.keskar:shallow"),
    "keskar.C4": Network("lbgap.models.keskar:deep"),
    "hoffer.F1": Network("lbgap.models.hoffer:mnist_f1"),
    "hoffer.C1": Network("lbgap.models.hoffer:shallow"),
    "hoffer.C3": Network("lbgap.models.hoffer:shallow"),
    "hoffer.ResNet": Network("lbgap.models.hoffer:residual"),
    "hoffer.WResNet": Network("lbgap.models.hoffer:wide"),
    "hoffer.VGG": Network("lbgap.models.hoffer:vgg"),
    "hoffer.AlexNet": Network("lbgap.models.hoffer:alexnet"),
    "goyal.ResNet": Network("lbgap.models.goyal:residual"),
    "goyal.ResNet-50": Network("lbgap.models.goyal:imagenet", {"depth": 50}),
    "goyal.ResNet-101": Network("lbgap.models.goyal:imagenet", {"depth": 101}),
    "smith.WRN": Network("lbgap.models.smith:wide"),
    "smith.autoencoder": Network("lbgap.models.smith:autoencoder"),
    "smith.LSTM": Network("lbgap.models.smith:language_model"),
    "foret.WRN": Network("lbgap.models.smith:wide", {"depth": 28, "widen": 10}),
    "vienna.CNN": Network("lbgap.models.vienna:convolutional"),
}


def register(name: str, builder: Callable) -> None:
    """Make a network known under a name; a paper in ``LBGAP_PAPERS`` brings its own this way.

    Raises:
        ValueError: a name that another network has.
    """
    taken = NETWORKS.get(name)
    if taken is not None and not same_code(taken.builder, builder):
        raise ValueError(f"model is '{name}', which is taken; accepted is a name beside {', '.join(NETWORKS)}")
    NETWORKS[name] = Network(builder)
