"""Measures on trained weights, each usable on any ``nn.Module``."""

from lbgap.measure.adaptive import adaptive_sharpness
from lbgap.measure.curvature import largest_eigenvalues
from lbgap.measure.directions import directions
from lbgap.measure.noise import noise_scale
from lbgap.measure.objective import mean_cross_entropy, mean_loss
from lbgap.measure.parts import m_sharpness
from lbgap.measure.path import path
from lbgap.measure.sharpness import Sharpness, sharpness
from lbgap.measure.subspace import RandomSubspace
from lbgap.measure.unigram import unigram_perplexity

__all__ = [
    "RandomSubspace",
    "Sharpness",
    "adaptive_sharpness",
    "directions",
    "largest_eigenvalues",
    "m_sharpness",
    "mean_cross_entropy",
    "mean_loss",
    "noise_scale",
    "path",
    "sharpness",
    "unigram_perplexity",
]
