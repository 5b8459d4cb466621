"""Convolutions that lay out their weights once.

On a CPU, oneDNN wants weights in blocks, and PyTorch brings them there at every call, after casting
them under autocast. For few pictures that is a good part of a step.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

# The two operators are not public, but what torch.compile builds on; ARM was not measured.
LAYS_OUT = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
)


def _dtypes() -> tuple[torch.dtype, ...]:
    supported = LAYS_OUT and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if supported else (torch.float32,)


DTYPES = _dtypes()


class Conv(nn.Conv2d):
    """`nn.Conv2d` for pictures in channels_last, in float32 or, under autocast, bfloat16.

    Without gradients on an x86 CPU the weights are laid out when first needed, and anew when they
    have changed: as much memory again.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._laid_out: dict[torch.dtype, tuple[tuple[int, int], Tensor, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_laid_out": {}}  # for copies, which oneDNN's tensors refuse

    @property
    def prepared_bytes(self) -> int:
        """Memory that weights take which were prepared for faster calls."""
        return sum(self.weight.numel() * dtype.itemsize for dtype in self._laid_out)

    def state(self) -> tuple[int, int]:
        """Changes whenever the weights do."""
        return self.weight.data_ptr(), self.weight._version

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu" or not LAYS_OUT:
            return super().forward(x)
        auto = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if auto else x.dtype
        if dtype not in DTYPES or self.weight.dtype != torch.float32 or not x.numel():
            return super().forward(x)
        x, shape = x.to(dtype), [list(v) for v in (self.padding, self.stride, self.dilation)]
        if dtype not in self._laid_out or self._laid_out[dtype][0] != self.state():
            assert self.bias is not None
            plain = self.weight.detach().to(dtype).to_mkldnn()
            lay_out: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            blocks = lay_out(plain, *shape, 1, list(x.shape))
            self._laid_out[dtype] = self.state(), blocks, self.bias.detach().to(dtype)
        _, weight, bias = self._laid_out[dtype]
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, *shape, 1, "none", [], ""
        )
        return out
