"""Layers that prepare their weights once.

On a CPU, oneDNN wants weights in blocks. PyTorch lays them out at every call, and under autocast it
casts them first. With few pictures, this takes a good part of a step.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

# These operators are not public, but torch.compile uses them. They were not measured on ARM.
LAYS_OUT = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def _dtypes() -> tuple[torch.dtype, ...]:
    supported = LAYS_OUT and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if supported else (torch.float32,)


DTYPES = _dtypes()


class HasBytes(Protocol):
    @property
    def nbytes(self) -> int: ...


M = TypeVar("M", bound=HasBytes)


class Prepared(nn.Module):
    """A module that keeps what it computed from its parameters, until they change."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._made: dict[Hashable, tuple[list[tuple[int, int]], Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": {}}  # oneDNN's tensors can't be copied

    @property
    def prepared_bytes(self) -> int:
        """The bytes that the prepared weights take."""
        return sum(made.nbytes for _, made in self._made.values())

    def prepared(self, key: Hashable, make: Callable[[], M], *parameters: Tensor) -> M:
        """The result of `make`. It is called the first time, and again if a parameter changed."""
        state = [(p.data_ptr(), p._version) for p in parameters]
        if key not in self._made or self._made[key][0] != state:
            self._made[key] = state, make()
        made: M = self._made[key][1]
        return made


def precision(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The dtype that a layer with this weight computes in, or None if weights can't be laid out.

    They can be laid out on an x86 CPU, without gradients. The dtype is float32, or bfloat16 under
    autocast.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or not LAYS_OUT or not x.numel():
        return None
    auto = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if auto else x.dtype
    return dtype if dtype in DTYPES and weight.dtype == torch.float32 else None


class LaidOutConv:
    """A convolution with its weight laid out for one shape of inputs. Other shapes may be slower.

    Args:
        weight: (O, I / groups, H, W), in the dtype to compute in.
        bias: (O,) or None.
        like: the shape of the inputs.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        like: Sequence[int],
        padding: Sequence[int] = (0, 0),
        stride: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> None:
        self.nbytes = weight.numel() * weight.element_size()
        self._options: tuple[Any, ...] = list(padding), list(stride), [1, 1], groups
        lay_out: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        self._weight = lay_out(weight.to_mkldnn(), *self._options, list(like))
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """x: (B, I, H, W) in channels_last. Returns (B, O, H', W') in channels_last."""
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._bias, *self._options, "none", [], ""
        )
        return out


class LaidOutLinear:
    """A linear layer with its weight laid out.

    Args:
        weight: (O, I), in the dtype to compute in.
        bias: (O,).
        rows: about how many rows the inputs have.
    """

    def __init__(self, weight: Tensor, bias: Tensor, rows: int) -> None:
        self.nbytes = weight.numel() * weight.element_size()
        rows = max(rows, 16)  # a layout for one row is slow for more rows
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """x: (..., I). Returns (..., O)."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, "none", [], ""
        )
        return out


class Conv(Prepared, nn.Conv2d):
    """`nn.Conv2d` with a bias, for pictures in channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = precision(x, self.weight)
        if dtype is None:
            return super().forward(x)
        assert self.bias is not None
        assert not isinstance(self.padding, str)
        weight, bias, padding, stride = self.weight, self.bias, self.padding, self.stride
        laid_out = self.prepared(
            dtype,
            lambda: LaidOutConv(_to(dtype, weight), _to(dtype, bias), x.shape, padding, stride),
            weight,
            bias,
        )
        return laid_out(x.to(dtype))


class Linear(Prepared, nn.Linear):
    """`nn.Linear` with a bias."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = precision(x, self.weight)
        if dtype is None:
            return super().forward(x)
        weight, bias, rows = self.weight, self.bias, x.shape[:-1].numel()
        laid_out = self.prepared(
            dtype,
            lambda: LaidOutLinear(_to(dtype, weight), _to(dtype, bias), rows),
            weight,
            bias,
        )
        return laid_out(x.to(dtype))


def _to(dtype: torch.dtype, parameter: Tensor) -> Tensor:
    return parameter.detach().to(dtype)
