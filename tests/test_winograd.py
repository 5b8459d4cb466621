"""Winograd's convolution against PyTorch's, and when it is taken."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_demo.config import ModelConfig
from ddpm_demo.nn import winograd
from ddpm_demo.nn.prepared import LAYS_OUT
from ddpm_demo.nn.unet import UNet
from ddpm_demo.nn.winograd import FEW, MANY, PAYS, TRAINED, Conv3x3, Products, convolve

(WIDE, ENOUGH), (FEWER, MORE) = PAYS


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


@pytest.mark.parametrize("laid_out", [LAYS_OUT, False])
@pytest.mark.parametrize(
    "shape", [(1, 3, 4, 4), (2, 5, 8, 12), (3, 64, 7, 14), (2, 4, 28, 28), (1, 2, 40, 40)]
)
def test_it_is_the_convolution(
    shape: tuple[int, ...], laid_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "LAYS_OUT", laid_out)
    x, weight, bias = normal(*shape), normal(7, shape[1], 3, 3, seed=1), normal(7, seed=2)
    wanted = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    got = convolve(x, lambda tiles: Products(weight, tiles), bias)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_wide_layers_go_winograd_s_way(filled: Callable[..., Any], taken: list[int]) -> None:
    conv = filled(Conv3x3(WIDE, WIDE))
    x = normal(2, WIDE, 16, 16)
    wanted = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    assert conv.prepared_bytes == 0
    with torch.no_grad():
        assert (conv(x) - wanted).abs().max() < 1e-4
        assert taken == [2]
        assert conv.prepared_bytes == 4 * conv.weight.nbytes
        conv(normal(1, WIDE, 8, 64))  # as many tiles
        assert conv.prepared_bytes == 4 * conv.weight.nbytes
        conv(normal(4, WIDE, 16, 16))
        assert conv.prepared_bytes == 8 * conv.weight.nbytes


def test_narrower_ones_do_in_large_pictures(filled: Callable[..., Any], taken: list[int]) -> None:
    for c_in, c_out in ((FEWER, FEWER), (WIDE, FEWER)):
        conv, x = filled(Conv3x3(c_in, c_out)), normal(1, c_in, 32, 32)
        wanted = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
        with torch.no_grad():
            assert (conv(x) - wanted).abs().max() < 1e-4
    assert taken == [1, 1]


@pytest.mark.parametrize(
    ("b", "size", "parts"),
    [
        (1, 16, [FEW]),
        (9, 16, [MANY, MANY, FEW]),  # a picture has 16 tiles,
        (6, 8, [FEW, FEW]),  # 4, of which a part can be empty,
        (2, 32, [MANY, MANY]),  # or 64
        (1, 40, [MANY, FEW, FEW, FEW]),  # 100
    ],
)
def test_tiles_are_taken_by_two_numbers_only(b: int, size: int, parts: list[int]) -> None:
    """For another, oneDNN would lay out the kernels at every call."""
    sizes, weight = [], normal(8, 8, 3, 3) / 8

    def products(tiles: int) -> Products:
        sizes.append(tiles)
        return Products(weight, tiles)

    x = normal(b, 8, size, size)
    wanted = F.conv2d(x.double(), weight.double(), padding=1)
    assert (convolve(x, products, torch.zeros(8)) - wanted).abs().max() < 1e-4
    assert sizes == parts


def test_changed_weights_count_at_once(filled: Callable[..., Any]) -> None:
    """As the EMA's do while a preview is drawn from time to time."""
    conv, other = filled(Conv3x3(WIDE, WIDE)), filled(Conv3x3(WIDE, WIDE))
    x = normal(1, WIDE, 16, 16)
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
    [
        (FEWER - 1, WIDE, 32, 32),
        (WIDE, FEWER - 1, 32, 32),
        (FEWER, WIDE, 16, 16),  # fewer than MORE tiles
        (WIDE, WIDE, 16, 18),
        (WIDE, WIDE, 8, 8),  # fewer than ENOUGH
        (WIDE, WIDE, 20, 20),  # 25, so that too many of the next 32 would be empty
    ],
)
def test_others_do_not(
    c_in: int, c_out: int, h: int, w: int, filled: Callable[..., Any], taken: list[int]
) -> None:
    conv, x = filled(Conv3x3(c_in, c_out)), normal(1, c_in, h, w)
    with torch.no_grad():
        # Not equal: oneDNN has a Winograd of its own, which it may take.
        assert (conv(x) - F.conv2d(x, conv.weight, conv.bias, padding=1)).abs().max() < 1e-3
    assert taken == []


def test_nor_do_other_precisions(filled: Callable[..., Any], taken: list[int]) -> None:
    conv, x = filled(Conv3x3(WIDE, WIDE)), normal(1, WIDE, 16, 16)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert conv(x).dtype == torch.bfloat16
        assert conv.double()(x.double()).dtype == torch.float64
    assert taken == []


# With gradients


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of the pictures that went Winograd's way with gradients."""
    shapes: list[torch.Size] = []
    right = winograd._Trained.apply

    def noted(x: Tensor, *rest: Any) -> Tensor:
        shapes.append(x.shape)
        return right(x, *rest)

    monkeypatch.setattr(winograd._Trained, "apply", noted)
    return shapes


@pytest.mark.parametrize(("h", "w"), [(8, 12), (14, 14), (7, 9)])
@pytest.mark.parametrize("cached", [winograd.CACHED, 1])  # all at once, and one by one
def test_gradients_are_those_of_the_convolution(
    h: int,
    w: int,
    cached: int,
    filled: Callable[..., Any],
    trained: list[torch.Size],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "CACHED", cached)
    conv = filled(Conv3x3(TRAINED, TRAINED + 1))
    x, slope = normal(2, TRAINED, h, w), normal(2, TRAINED + 1, h, w, seed=1)
    given = [v.detach().requires_grad_() for v in (x, conv.weight, conv.bias)]
    exact = [v.detach().double().requires_grad_() for v in given]
    wanted = F.conv2d(*exact, padding=1)
    conv.weight, conv.bias = (torch.nn.Parameter(v) for v in given[1:])
    got = conv(given[0])
    assert trained == [x.shape]
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()
    gradients = torch.autograd.grad(got, [given[0], conv.weight, conv.bias], slope)
    for one, other in zip(
        gradients, torch.autograd.grad(wanted, exact, slope.double()), strict=True
    ):
        assert one.shape == other.shape
        assert (one - other).abs().max() < 2e-5 * other.abs().max()


def test_a_step_of_training_is_that_of_direct_convolutions(
    filled: Callable[..., Any], trained: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: dict[str, Any] = {"attention": (), "mid_attention": False}
    config = ModelConfig(size=16, channels=1, width=TRAINED, multipliers=(1, 1), **plain)
    net = filled(UNet(config)).train()
    x, t = normal(2, 1, 16, 16), torch.tensor([3, 500])
    gradients = []
    for channels in (TRAINED, 10**6):
        monkeypatch.setattr(winograd, "TRAINED", channels)
        loss = net(x, t).square().mean()
        gradients.append(torch.autograd.grad(loss, list(net.parameters())))
        assert len(trained) == 17  # of the first pass
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max()


def test_narrow_layers_train_directly(
    filled: Callable[..., Any], trained: list[torch.Size]
) -> None:
    filled(Conv3x3(TRAINED, TRAINED - 1))(normal(1, TRAINED, 16, 16))
    filled(Conv3x3(TRAINED, TRAINED))(normal(1, TRAINED, 4, 4))  # a tile
    with torch.autocast("cpu", torch.bfloat16):
        filled(Conv3x3(TRAINED, TRAINED))(normal(1, TRAINED, 16, 16))
    assert trained == []
