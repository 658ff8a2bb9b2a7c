"""Which noise belongs to which example: the coupling of x_0 and ε within a batch."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from scorefield.runtime.errors import InputError

__all__ = ["COUPLINGS", "coupled"]

COUPLINGS = (None, "optimal")


def coupled(x0: Tensor, eps: Tensor, y: Tensor | None) -> Tensor:
    """The same draws of noise in the order π that makes Σ_i ‖x_0^i − ε^{π(i)}‖² least: exact optimal transport between the
    examples of a batch and their noise.  [Tong et al. 2024]

    With labels each class is assigned by itself: in one assignment of all classes the noise of an example would tell its
    class, and sampling, which draws the same noise for every class, would not start where training did.

    Args:
        x0: Data (B, *).
        eps: Noise (B, *), in any order.
        y: Labels (B,), or None.

    Returns:
        The rows of eps in another order, (B, *).
    """
    rows = (
        [torch.arange(len(x0))] if y is None else [(y.cpu() == k).nonzero()[:, 0] for k in y.cpu().unique()]
    )
    order = torch.arange(len(x0))
    # The squares do not depend on the order, so that the sum of x_0·ε is what is to be largest.
    products = (x0.detach().flatten(1).double() @ eps.flatten(1).double().T).cpu()
    for k in rows:
        order[k] = k[_largest_assignment(products[k][:, k])]
    return eps[order.to(eps.device)]


def _largest_assignment(gains: Tensor) -> Tensor:
    """The column of each row in the one-to-one assignment of largest sum, (n,) int64."""
    try:
        solve = import_module("scipy.optimize").linear_sum_assignment
    except ImportError:
        raise InputError(
            "optimal coupling is computed by SciPy, which scikit-learn needs and which is not installed: pip install scipy"
        ) from None
    return torch.as_tensor(solve(gains.numpy(), maximize=True)[1])
