"""The largest eigenvalues of the Hessian of a loss, by Lanczos' method on products with it."""

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from lbgap.evaluate import CHUNK, batch_norm_reading
from lbgap.measure.objective import Loss, Objective, whole_number


def largest_eigenvalues(
    model: nn.Module,
    loss: Loss,
    k: int = 1,
    batch_norm: str = "batch",
    tolerance: float = 1e-4,
    iterations: int = 100,
    seed: int = 0,
    data: Tensor | None = None,
) -> dict[str, float]:
    """The k (algebraically) largest eigenvalues of the Hessian of the loss over all trainable weights.

    SciPy's implicitly restarted Lanczos (``eigsh``) sees the Hessian H through products alone: H v is the gradient of g'v,
    where g is the gradient of the loss, term by term. At a solution of full-batch descent with rate r the largest eigenvalue is
    compared with 2 / r (Cohen et al. 2021); it is the curvature that Keskar et al. 2017, section 2.2.2, call expensive and
    replace by sharpness. ReLU networks are differentiated where they are smooth. Weights, buffers and modes are restored
    exactly; dropout is off.

    Args:
        loss: as in :func:`~lbgap.measure.sharpness`.
        k: how many, from 1 to the number of weights less one.
        batch_norm, data: as in :func:`~lbgap.measure.sharpness`.
        tolerance: relative accuracy of the eigenvalues. Products in float32 are good for about 1e-5.
        iterations: restarts of Lanczos' method before it gives up.
        seed: of the vector it starts from.
    Returns:
        ``eigenvalue_1`` to ``eigenvalue_k``, the largest first; ``residual``, the greatest |H v - lambda v| over the pairs
        found; ``products``, how many products with H it took.
    Raises:
        ValueError: a bad argument; weights of half precision; a loss, gradient or curvature that is not finite; no convergence.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; accepted is a number between 0 and 1")
    objective = Objective(model, loss)
    n, device, dtype = len(objective.origin), objective.origin.device, objective.origin.dtype
    whole_number("k", k, 1, n - 1)
    whole_number("iterations", iterations, 1)
    whole_number("seed", seed, 0)
    zero, products = torch.zeros_like(objective.origin), 0

    def product(v: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        found = objective.hessian_product(zero, torch.from_numpy(v.reshape(-1)).to(device, dtype)).double().cpu().numpy()
        if not np.isfinite(found).all():
            raise ValueError("curvature is not finite at the solution; accepted is a finite curvature")
        return found

    with objective.restoring(), batch_norm_reading(model, batch_norm, data, CHUNK):
        objective.at_solution()
        start = np.random.default_rng(seed).normal(size=n)
        hessian = LinearOperator((n, n), matvec=product, dtype=np.float64)
        if not product(start).any():  # a loss without curvature, of which Lanczos' method makes nothing
            return {f"eigenvalue_{i + 1}": 0.0 for i in range(k)} | {"residual": 0.0, "products": float(products)}
        try:
            values, vectors = eigsh(hessian, k, which="LA", v0=start, tol=tolerance, maxiter=iterations)
        except ArpackNoConvergence as error:
            found = len(error.eigenvalues)
            raise ValueError(
                f"iterations is {iterations}; {found} of {k} eigenvalues have come to the tolerance {tolerance}, "
                "accepted are more iterations or a larger tolerance"
            ) from error
        order = np.argsort(values)[::-1]
        needed = products
        residual = max(float(np.linalg.norm(product(vectors[:, i]) - values[i] * vectors[:, i])) for i in order)
        named = {f"eigenvalue_{place}": float(values[i]) for place, i in enumerate(order, 1)}
        return named | {"residual": residual, "products": float(needed)}
