"""Measures on trained weights, each usable on any ``nn.Module``."""

from lbgap.measure.directions import directions
from lbgap.measure.objective import mean_cross_entropy, mean_loss
from lbgap.measure.path import path
from lbgap.measure.sharpness import Sharpness, sharpness
from lbgap.measure.subspace import RandomSubspace

__all__ = ["RandomSubspace", "Sharpness", "directions", "mean_cross_entropy", "mean_loss", "path", "sharpness"]
