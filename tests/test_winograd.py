"""Winograd's convolution against PyTorch's, and when it is taken."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_demo import winograd
from ddpm_demo.winograd import WIDE, Conv3x3, carried_over, convolve


def normal(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(memory_format=torch.channels_last) if len(shape) == 4 else x


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the convolutions that went Winograd's way."""
    sizes: list[int] = []

    def noted(x: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(x))
        return convolve(x, *rest)

    monkeypatch.setattr(winograd, "convolve", noted)
    return sizes


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 5, 8, 12), (3, 64, 16, 4)])
def test_it_is_the_convolution(shape: tuple[int, ...]) -> None:
    x, weight, bias = normal(*shape), normal(7, shape[1], 3, 3, seed=1), normal(7, seed=2)
    wanted = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    got = convolve(x, carried_over(weight), bias)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_wide_layers_go_winograd_s_way(filled: Callable[..., Any], taken: list[int]) -> None:
    conv = filled(Conv3x3(WIDE, WIDE))
    x = normal(2, WIDE, 8, 8)
    wanted = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    assert conv.kernel_bytes == 0
    with torch.no_grad():
        assert (conv(x) - wanted).abs().max() < 1e-4
    assert taken == [2]
    assert conv.kernel_bytes == 4 * conv.weight.nbytes


def test_large_batches_are_taken_in_parts(
    filled: Callable[..., Any], taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "CACHED", 2 * 4 * WIDE * 64)  # two pictures
    conv = filled(Conv3x3(WIDE, WIDE))
    x = normal(5, WIDE, 8, 8)
    wanted = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    with torch.no_grad():
        assert (conv(x) - wanted).abs().max() < 1e-4
    assert taken == [2, 2, 1]


def test_changed_weights_count_at_once(filled: Callable[..., Any]) -> None:
    """As the EMA's do while a preview is drawn from time to time."""
    conv, other = filled(Conv3x3(WIDE, WIDE)), filled(Conv3x3(WIDE, WIDE))
    x = normal(1, WIDE, 8, 8)
    with torch.no_grad():
        before = conv(x)
        conv.weight.mul_(2)
        assert (
            conv(x) - conv.bias[:, None, None] - 2 * (before - conv.bias[:, None, None])
        ).abs().max() < 1e-3
        conv.load_state_dict(other.state_dict())
        assert torch.equal(conv(x), other(x))


@pytest.mark.parametrize(
    ("c_in", "c_out", "h", "w"),
    [(WIDE - 1, WIDE, 8, 8), (WIDE, WIDE - 1, 8, 8), (WIDE, WIDE, 8, 6), (WIDE, WIDE, 4, 4)],
)
def test_others_do_not(
    c_in: int, c_out: int, h: int, w: int, filled: Callable[..., Any], taken: list[int]
) -> None:
    conv, x = filled(Conv3x3(c_in, c_out)), normal(1, c_in, h, w)
    with torch.no_grad():
        assert torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1))
    assert taken == []


def test_nor_do_gradients_nor_other_precisions(
    filled: Callable[..., Any], taken: list[int]
) -> None:
    conv, x = filled(Conv3x3(WIDE, WIDE)), normal(1, WIDE, 8, 8)
    assert conv(x).requires_grad
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert conv(x).dtype == torch.bfloat16
        assert conv.double()(x.double()).dtype == torch.float64
    assert taken == []
