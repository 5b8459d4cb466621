"""Finds the nearest pictures of a data set, exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 4096
SPARE = 16  # how many more than k are compared exactly


class Nearest(NamedTuple):
    """The indices and the distances of the k nearest pictures for each query, both (B, k).

    A distance is the root mean square difference of pixels, which go from -1 to 1.
    """

    places: Tensor
    distance: Tensor


def nearest(pictures: Tensor, pool: Tensor, k: int = 5) -> Nearest:
    """Find the k nearest pictures of the pool, (N, C, H, W), for each of (B, C, H, W); all uint8.

    |a - b|^2 = |a|^2 + |b|^2 - 2 ab needs one product of matrices, in float32. The nearest by this
    formula, and some more, are then compared in whole numbers, which is exact.
    """
    queries = pictures.flatten(1).float()
    found, places = [], []
    for start in range(0, len(pool), CHUNK):
        part = pool[start : start + CHUNK].flatten(1).float()
        gaps = torch.addmm(part.square().sum(1), queries, part.T, alpha=-2)
        best = gaps.topk(min(k + SPARE, len(part)), largest=False)
        found.append(best.values)
        places.append(best.indices + start)
    values, index = torch.cat(found, 1), torch.cat(places, 1)
    index = index.gather(1, values.topk(min(k + SPARE, values.shape[1]), largest=False).indices)
    near = pool[index].flatten(2).int()
    gaps = (near - pictures.flatten(1).int()[:, None]).square().sum(2)
    order = gaps.sort(dim=1, stable=True)
    distance = (order.values[:, :k].double() / near.shape[2]).sqrt() / 127.5
    return Nearest(index.gather(1, order.indices[:, :k]), distance)
