"""3x3 convolutions with a quarter of the multiplications, in float32 on CPUs.

This is Winograd's F(4x4, 3x3) (Lavin & Gray 2016, section 4.3). A tile of 6x6 pixels and the kernel
are each transformed to 36 numbers. Multiplied one by one and transformed back, they give 4x4
pixels, with 36 multiplications instead of 144. With many channels, these are 36 products of
matrices, and the transforms cost little beside them. Rounding errors grow more than tenfold, to
1e-4 of a pixel.

Without gradients, this is faster for wide layers only. In training it is faster for narrower ones,
too: the gradient of the kernels, the slowest part of a direct convolution, is a product of the same
tiles. So the tiles are kept until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddpm_demo.nn.prepared import LAYS_OUT, Conv, LaidOutConv

PAYS = ((192, 16), (128, 64))  # least channels in and out, and least tiles, that make it faster
MANY, FEW = 64, 16  # how many tiles are computed at once
TRAINED, TILES = 64, 4  # least channels and least tiles that make it faster in training
CACHED = 2**22  # bytes of input that are computed at once in training

# The matrices of Lavin & Gray 2016, eq. 15 to 17, for the kernel, the tile, and the result.
_G = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # times 24
_B = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def _both_ways(matrix: list[list[int]]) -> Tensor:
    """The matrix that applies `matrix` to both rows and columns of a flattened tile."""
    m = torch.tensor(matrix, dtype=torch.float32)
    return torch.kron(m, m)


_KERNEL = _both_ways(_G).double() / 24**2  # (36, 9)
_TILE, _RESULT = _both_ways(_B), _both_ways(_A)  # (36, 36) and (16, 36)


def carried_over(weight: Tensor) -> Tensor:
    """Transform (O, I, 3, 3) kernels to (36, I, O) matrices, computed in float64."""
    o, i = weight.shape[:2]
    taps = weight.double().permute(2, 3, 1, 0).reshape(9, -1)
    return (_KERNEL @ taps).float().view(36, i, o)


class Products:
    """The 36 products of some tiles with one layer's kernels.

    oneDNN computes them as a convolution with 36 groups and laid-out kernels. This is up to twice
    as fast as plain products of matrices.

    Args:
        weight: (O, I, 3, 3).
        tiles: the number of tiles in each call. oneDNN lays out the kernels for this number. For
            any other, it would lay them out at every call, which can take a hundred times as long
            as the products.
    """

    def __init__(self, weight: Tensor, tiles: int) -> None:
        kernels = carried_over(weight)
        self.tiles, self.nbytes = tiles, kernels.nbytes
        self._kernels: Tensor | LaidOutConv = kernels
        if LAYS_OUT:
            _, i, o = kernels.shape
            taps = kernels.transpose(1, 2).reshape(36 * o, i, 1, 1)
            self._kernels = LaidOutConv(taps, None, (1, 36 * i, tiles, 1), groups=36)

    def __call__(self, tiles: Tensor) -> Tensor:
        """Multiply (n, 36, I) tiles to (n, 36, O)."""
        assert len(tiles) == self.tiles
        if isinstance(self._kernels, Tensor):
            return _matmul(tiles, self._kernels)
        grouped = tiles.view(1, self.tiles, 1, -1).permute(0, 3, 1, 2)
        return self._kernels(grouped).permute(0, 2, 3, 1).view(self.tiles, 36, -1)


def convolve(x: Tensor, products: Callable[[int], Products], bias: Tensor) -> Tensor:
    """The 3x3 convolution of x with padding 1.

    Args:
        x: (B, I, H, W) float32 in channels_last.
        products: a function from a number of tiles to the `Products` for that number.
        bias: (O,).
    """
    out = _like(x, len(bias))
    part = max(1, MANY // (-(-x.shape[2] // 4) * -(-x.shape[3] // 4)))
    for some, pixels in zip(x.split(part), out.split(part), strict=True):
        tiles = _tiles(some)
        n = len(tiles)
        if n % FEW:
            tiles = F.pad(tiles, (0, 0, 0, 0, 0, -n % FEW))
        sizes = [MANY] * (len(tiles) // MANY) + [FEW] * (len(tiles) % MANY // FEW)
        done = [products(len(t))(t) for t in tiles.split(sizes)]
        _bring_back((done[0] if len(done) == 1 else torch.cat(done))[:n], bias, pixels)
    return out


def _like(x: Tensor, channels: int) -> Tensor:
    b, _, h, w = x.shape
    return x.new_empty(b, h, w, channels).permute(0, 3, 1, 2)


def _tiles(x: Tensor) -> Tensor:
    """The transformed 6x6 tiles of x, one around each block of 4x4 pixels: (n, 36, C)."""
    b, c, h, w = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1 + -w % 4, 1, 1 + -h % 4))
    n, y, x_, one = padded.stride()
    size, strides = (b, -(-h // 4), -(-w // 4), 6, 6, c), (n, 4 * y, 4 * x_, y, x_, one)
    tiles = padded.as_strided(size, strides).reshape(-1, 36, c)
    return _times(_TILE, tiles)


def _matmul(tiles: Tensor, kernels: Tensor) -> Tensor:
    """Multiply (n, 36, I) tiles by (36, I, O) kernels, to (n, 36, O)."""
    return torch.bmm(tiles.transpose(0, 1), kernels).transpose(0, 1)


def _times(matrix: Tensor, tiles: Tensor) -> Tensor:
    return torch.bmm(matrix.expand(len(tiles), *matrix.shape), tiles)


def _bring_back(products: Tensor, bias: Tensor | float, out: Tensor) -> None:
    """Transform (n, 36, C) products back, add the bias, and write them to out, (B, C, H, W)."""
    b, c, h, w = out.shape
    rows, columns = -(-h // 4), -(-w // 4)
    pixels = _times(_RESULT, products).view(b, rows, columns, 4, 4, c).transpose(2, 3)
    grid = out.permute(0, 2, 3, 1)
    if h % 4 or w % 4:
        pixels = pixels.reshape(b, 4 * rows, 4 * columns, c)[:, :h, :w]
    else:
        grid = grid.view(pixels.shape)
    torch.add(pixels, bias, out=grid)


class _Trained(torch.autograd.Function):
    """The convolution with its gradients, which are also products of 36 matrices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        kernels, out, kept = carried_over(weight), _like(x, len(weight)), []
        ctx.part = max(1, CACHED // (4 * max(x[0].numel(), out[0].numel())))
        for some, pixels in zip(x.split(ctx.part), out.split(ctx.part), strict=True):
            kept.append(_tiles(some))
            _bring_back(_matmul(kept[-1], kernels), bias, pixels)
        ctx.save_for_backward(weight, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, *kept = ctx.saved_tensors
        o, i = weight.shape[:2]
        slope = slope.contiguous(memory_format=torch.channels_last)
        turned = carried_over(weight.flip(2, 3).transpose(0, 1))  # kernels turned by 180 degrees
        of_x, of_kernels = _like(slope, i), slope.new_zeros(36, i, o)
        parts = slope.split(ctx.part), of_x.split(ctx.part), kept
        for some, pixels, tiles in zip(*parts, strict=True):
            _bring_back(_matmul(_tiles(some), turned), 0.0, pixels)
            of_kernels.baddbmm_(tiles.permute(1, 2, 0), _slopes(some).transpose(0, 1))
        taps = _KERNEL.float().t() @ of_kernels.view(36, -1)
        of_weight = taps.view(3, 3, i, o).permute(3, 2, 0, 1)
        return of_x, of_weight, slope.sum((0, 2, 3))


def _slopes(out: Tensor) -> Tensor:
    """The gradient of `_bring_back`: from the pixels' gradient to the products', (n, 36, C)."""
    _, c, h, w = out.shape
    whole = F.pad(out.permute(0, 2, 3, 1), (0, 0, 0, -w % 4, 0, -h % 4))
    pixels = whole.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).transpose(2, 3)
    return _times(_RESULT.t(), pixels.reshape(-1, 16, c))


class Conv3x3(Conv):
    """A 3x3 convolution with padding 1 that uses Winograd's method where it is faster.

    It is faster for wide layers, in float32 on a CPU. Without gradients, the layer transforms its
    kernels when it first needs them, once for few tiles and once for many, and again after the
    weights change. Transformed kernels take four times the memory of the weights. With gradients,
    the layer keeps tiles instead of pixels, which takes about twice the memory.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not self._pays(x):
            return super().forward(x)
        if torch.is_grad_enabled():
            out: Tensor = _Trained.apply(x, self.weight, self.bias)
            return out

        def products(tiles: int) -> Products:
            return self.prepared(tiles, lambda: Products(self.weight, tiles), self.weight)

        assert self.bias is not None
        return convolve(x, products, self.bias)

    def _pays(self, x: Tensor) -> bool:
        if x.device.type != "cpu":
            return False
        b, _, h, w = x.shape
        trained = torch.is_grad_enabled()
        c, tiles = min(self.in_channels, self.out_channels), b * h * w / 16
        return (
            any(c >= few and tiles >= n for few, n in ([(TRAINED, TILES)] if trained else PAYS))
            and (trained or not (h % 4 or w % 4 or -tiles % FEW > tiles / 8))
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
        )
