"""3x3 convolutions with a quarter of the multiplications, for wide networks in float32 on CPUs.

Winograd's F(4x4, 3x3) (Lavin & Gray 2016, section 4.3): a tile of 6x6 pixels and the kernel are
carried over to where their convolution is a product of 36 numbers, which gives 4x4 pixels for 36
multiplications in place of 144. For many channels these are 36 products of matrices, and the
carrying over and back costs little beside them. Rounding errors grow about tenfold, to 3e-5 of a
pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDE = 256  # channels in and out from which it pays
TILES = 4  # in a batch, likewise
CACHED = 2**22  # bytes of input that are taken at once, so that its tiles stay in the cache

# The matrices of Lavin & Gray 2016, eq. 15 to 17: kernel, tile, and result.
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
    """The matrix that does to a flattened tile what `matrix` does to its rows and columns."""
    m = torch.tensor(matrix, dtype=torch.float32)
    return torch.kron(m, m)


_TILE, _RESULT = _both_ways(_B), _both_ways(_A)  # (36, 36) and (16, 36)


def carried_over(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) kernels as (36, I, O) matrices, computed in float64."""
    g = torch.tensor(_G, dtype=torch.float64) / 24
    return torch.einsum("ai,oIij,bj->abIo", g, weight.double(), g).flatten(0, 1).float()


def convolve(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """The 3x3 convolution of x with padding 1.

    Args:
        x: (B, I, H, W) float32 in channels_last; H and W multiples of 4.
        kernels: (36, I, O), from `carried_over`.
        bias: (O,).
    """
    b, c, h, w = x.shape
    rows, columns = h // 4, w // 4
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    n, y, x_, one = padded.stride()
    tiles = padded.as_strided((6, 6, b, rows, columns, c), (y, x_, n, 4 * y, 4 * x_, one))
    products = torch.bmm((_TILE @ tiles.reshape(36, -1)).view(36, -1, c), kernels)
    out = (_RESULT @ products.view(36, -1)).view(4, 4, b, rows, columns, -1)
    out = out.permute(2, 3, 0, 4, 1, 5).reshape(b, h, w, -1)
    return out.add_(bias).permute(0, 3, 1, 2)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1, which takes Winograd's way where it is faster.

    That is without gradients, in float32 on a CPU, for wide layers. The kernels that are carried
    over have four times the memory of the weights; they are made when first needed, and anew when
    the weights have changed.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)
        self._kernels: tuple[tuple[int, int], Tensor] | None = None

    @property
    def kernel_bytes(self) -> int:
        """Memory that the carried over kernels have now."""
        return self._kernels[1].nbytes if self._kernels else 0

    def forward(self, x: Tensor) -> Tensor:
        if not self._pays(x):
            return super().forward(x)
        state = self.weight.data_ptr(), self.weight._version
        if not self._kernels or self._kernels[0] != state:
            self._kernels = state, carried_over(self.weight)
        kernels, bias = self._kernels[1], self.bias
        assert bias is not None
        most = max(1, CACHED // (4 * x[0].numel()))
        if len(x) <= most:
            return convolve(x, kernels, bias)
        return torch.cat([convolve(part, kernels, bias) for part in x.split(most)])

    def _pays(self, x: Tensor) -> bool:
        b, _, h, w = x.shape
        return (
            min(self.in_channels, self.out_channels) >= WIDE
            and not (h % 4 or w % 4)
            and b * h * w >= 16 * TILES
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )
