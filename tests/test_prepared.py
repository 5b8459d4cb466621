"""Layers with weights that are laid out once are the same layers."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_demo.nn import prepared
from ddpm_demo.nn.prepared import DTYPES, Conv, Linear

laying_out = pytest.mark.skipif(not prepared.LAYS_OUT, reason="needs oneDNN on x86")


def pictures(*shape: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def plain(conv: Conv, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)


KINDS: dict[str, Callable[[], Conv]] = {
    "3x3": lambda: Conv(24, 40, 3, padding=1),
    "halving": lambda: Conv(24, 24, 3, stride=2, padding=1),
    "halving, padded before": lambda: Conv(24, 24, 3, stride=2, padding=0),
    "1x1": lambda: Conv(24, 16, 1),
    "first": lambda: Conv(24, 3, 3, padding=1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_same_picture(filled: Callable[..., Any], kind: str, dtype: torch.dtype) -> None:
    conv = filled(KINDS[kind]()).to(memory_format=torch.channels_last)
    # The first call's shape decides the layout; others have to be right, too.
    for b, size in ((1, 8), (5, 16), (2, 7)):
        x = pictures(b, 24, size, size)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            got, wanted = conv(x), plain(conv, x)
        assert got.dtype == wanted.dtype == dtype
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert (got - wanted).abs().max() <= (1e-5 if dtype == torch.float32 else 0.02)
    laid_out = prepared.LAYS_OUT and dtype in DTYPES
    assert conv.prepared_bytes == laid_out * conv.weight.numel() * dtype.itemsize


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_same_rows(filled: Callable[..., Any], dtype: torch.dtype) -> None:
    layer = filled(Linear(24, 40))
    for shape in ((1, 24), (17, 24), (2, 3, 24)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            got, wanted = layer(x), F.linear(x, layer.weight, layer.bias)
        assert got.dtype == wanted.dtype == dtype
        assert got.shape == wanted.shape
        assert (got - wanted).abs().max() <= (1e-5 if dtype == torch.float32 else 0.03)
    laid_out = prepared.LAYS_OUT and dtype in DTYPES
    assert layer.prepared_bytes == laid_out * layer.weight.numel() * dtype.itemsize


@laying_out
def test_weights_are_laid_out_once(
    filled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    times, lay_out = [], torch._C._nn.mkldnn_reorder_conv2d_weight

    def noted(*args: Any) -> Tensor:
        times.append(args)
        made: Tensor = lay_out(*args)  # type: ignore[call-arg]
        return made

    monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", noted)
    conv, x = filled(KINDS["3x3"]()), pictures(2, 24, 8, 8)
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        conv(x)
        results = list(pool.map(torch.no_grad()(conv), [x] * 20))
    assert len(times) == 1
    assert all(torch.equal(r, results[0]) for r in results)
    with torch.no_grad():
        conv.weight.mul_(2)
        conv.bias.mul_(2)
        assert (conv(x) - 2 * results[0]).abs().max() < 1e-5
    assert len(times) == 2
    other = filled(KINDS["3x3"](), seed=1)
    conv.load_state_dict(other.state_dict())
    with torch.no_grad():
        assert torch.equal(conv(x), other(x))
    conv.weight.data = other.weight.data * 3  # which leaves the version as it was
    with torch.no_grad():
        assert (conv(x) - plain(conv, x)).abs().max() < 1e-5


def test_gradients_go_the_usual_way(filled: Callable[..., Any]) -> None:
    conv, x = filled(KINDS["3x3"]()), pictures(2, 24, 8, 8)
    with torch.no_grad():
        before = conv(x)
    after = conv(x)
    assert (before - after).abs().max() < 1e-5
    after.square().sum().backward()
    mine = conv.weight.grad.clone()
    conv.weight.grad = None
    plain(conv, x).square().sum().backward()
    assert torch.equal(mine, conv.weight.grad)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_start_plain(
    filled: Callable[..., Any], copied: Callable[[nn.Module], nn.Module]
) -> None:
    conv, x = filled(KINDS["3x3"]()), pictures(2, 24, 8, 8)
    with torch.no_grad():
        before = conv(x)
        again = copied(conv)
        conv.weight.zero_()
        assert torch.equal(again(x), before)


@torch.no_grad()
def test_other_precisions_stay_plain(filled: Callable[..., Any]) -> None:
    conv, x = filled(KINDS["3x3"]()).double(), pictures(1, 24, 8, 8).double()
    assert torch.equal(conv(x), plain(conv, x))
    assert conv.prepared_bytes == 0
