"""Inception Score."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.core.shapes import check_real
from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import InputError

__all__ = ["Score", "inception_score"]

_SUM = 1e-3  # how far the probabilities of a row may be from a sum of 1


class Score(NamedTuple):
    """The Inception Score over splits.

    Attributes:
        mean: Between 1 and K.
        std: Standard deviation with divisor n, as published scores have it; None for one split.
    """

    mean: float
    std: float | None


def inception_score(log_probs: Tensor, splits: int = 10) -> Score:
    """exp E_x KL(p(y|x) ‖ p(y)), the mean over `splits` equal parts of the images in their order.  [Salimans
    et al. 2016 §4]

    p(y) is the mean of p(y|x) over a part. Computed in float64. At least 1 (all images alike to the
    classifier), at most K (each certainly of one class, all classes equally often). Images in the order of
    their classes must be shuffled first: a part would hold few classes. It knows nothing of the data.

    Args:
        log_probs: ln p(y|x), (N, K).
        splits: Number of parts.

    Raises:
        InputError: For fewer images than splits, and for rows that are no log probabilities.
    """
    _check(log_probs, splits)
    log_p = log_probs.detach().to("cpu", torch.float64)
    ends = [i * len(log_p) // splits for i in range(splits + 1)]
    scores = torch.stack([_score(log_p[start:end]) for start, end in pairwise(ends)])
    return Score(float(scores.mean()), float(scores.std(correction=0)) if splits > 1 else None)


def _score(log_p: Tensor) -> Tensor:
    p = log_p.exp()
    log_marginal = p.mean(dim=0).log()
    # A class of probability 0 adds nothing: the limit of p ln p.
    terms = torch.where(p > 0, p * (log_p - log_marginal), 0.0)
    return terms.sum(dim=1).mean().exp()


def _check(log_probs: Tensor, splits: int) -> None:
    check_real("log_probs", log_probs, "a tensor (N, K) of real numbers")
    if log_probs.ndim != 2:
        raise InputError(f"log_probs must have shape (N, K), got {tuple(log_probs.shape)}")
    positive_int("splits", splits, at_least=0, at_most=10**9)
    if not len(log_probs):
        raise InputError("the Inception Score is of images, and there are none")
    if not 1 <= splits <= len(log_probs):
        raise InputError(
            f"{len(log_probs)} images cannot be cut into {splits} splits: use 1 to {len(log_probs)}"
        )
    sums = log_probs.detach().double().logsumexp(dim=1)
    wrong = int((~(sums.abs() < _SUM)).sum())
    if wrong:
        raise InputError(
            f"{wrong} of {len(log_probs)} rows are not log probabilities (NaN, or probabilities that do not sum to 1): "
            f"give log_softmax of the classifier's logits"
        )
