"""The Fréchet distance between samples and data, in the features of any extractor.

Only the distance in Inception's features is FID (Heusel et al. 2017). In another network's
features, the formula is the same but the scale is another. So its name here has that network's
name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm_demo.config import require
from ddpm_demo.evaluation.features import Summary


def require_enough(n: int, dim: int) -> None:
    """Raise `ValueError` unless there are at least twice as many pictures as features."""
    require(
        n >= 2 * dim,
        "number of pictures",
        n,
        f"{2 * dim:,} or more",
        f"twice the {dim:,} features, whose covariance has to be known",
    )


def frechet(mean_1: Tensor, covariance_1: Tensor, mean_2: Tensor, covariance_2: Tensor) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson & Landau 1982), all in float64.

    It is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). C1 C2 has the same eigenvalues as the
    symmetric C1^(1/2) C2 C1^(1/2). So we need no root of an unsymmetric matrix, which could come
    out complex.
    """
    values, vectors = torch.linalg.eigh(covariance_1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_2 @ root).clamp(min=0).sqrt().sum()
    gap = (mean_1 - mean_2).square().sum()
    distance = gap + covariance_1.trace() + covariance_2.trace() - 2 * cross
    return max(0.0, float(distance))  # by rounding, equal Gaussians may come out below 0


def distance(samples: Summary, data: Summary) -> float:
    """The Fréchet distance of two summaries.

    Raises:
        ValueError: one of them has too few pictures.
    """
    for summary in (samples, data):
        require_enough(summary.n, len(summary.mean))
    return frechet(samples.mean, samples.covariance, data.mean, data.covariance)


def floor(data: Summary, n: int) -> float:
    """The distance that n samples of a perfect model would have.

    n draws from the data's own Gaussian stand for the perfect model. Their distance from this
    Gaussian is not 0, because n draws give only an estimate of its covariance.
    """
    values, vectors = torch.linalg.eigh(data.covariance)
    g = torch.Generator().manual_seed(0)
    z = torch.randn(n, len(values), generator=g, dtype=torch.float64)
    x = data.mean + z * values.clamp(min=0).sqrt() @ vectors.T
    return frechet(x.mean(0), x.T.cov(), data.mean, data.covariance)


def judge(samples: Summary, data: Summary, classes: Sequence[str]) -> dict[str, Any]:
    """A classifier's verdict on samples, beside its verdict on the data.

    Returns:
        `fd`, the Fréchet distance; `n` and `n_data`, the numbers of pictures; `sure` and
        `sure_data`, the shares with a probability above 0.9; `classes` and `classes_data`, the
        shares of the most likely classes.
    """
    result: dict[str, Any] = {"fd": distance(samples, data)}
    for suffix, summary in (("", samples), ("_data", data)):
        shares = (summary.counts.double() / summary.n).tolist()
        result[f"n{suffix}"] = summary.n
        result[f"sure{suffix}"] = summary.sure / summary.n
        result[f"classes{suffix}"] = dict(zip(classes, shares, strict=True))
    return result
