"""The U-Net that looks at x_t and t and predicts the noise (Ho et al. 2020, appendix B).

One class builds every network from its config. The paper's network has exactly the parameters of
the published CIFAR-10 DDPM. The lean network for CPUs normalises over channels, uses the time
embedding as scale and shift, and has one block a level. Parameters have the names of the published
checkpoints (diffusers' `UNet2DModel`), so those load without conversion.

Inside, pictures are channels_last. Convolutions are fastest this way, and the pixels are already
laid out as the tokens that attention and the layer norm need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_demo.config import ModelConfig
from ddpm_demo.nn.prepared import Conv, LaidOutLinear, Linear, Prepared, precision
from ddpm_demo.nn.winograd import Conv3x3


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel of (B, C, H, W); channels_last needs no copy."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def norm(config: ModelConfig, channels: int) -> nn.Module:
    if config.norm == "layer":
        return ChannelNorm(channels, config.norm_eps)
    return nn.GroupNorm(config.groups, channels, config.norm_eps)


def zero(module: nn.Conv2d) -> nn.Conv2d:
    """Set the weights to zero, so that a new residual block passes its input through."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def silu(h: Tensor) -> Tensor:
    """SiLU. Without gradients it overwrites h, so h must not be needed elsewhere."""
    return F.silu(h, inplace=not torch.is_grad_enabled())


class ResBlock(nn.Module):
    """norm, SiLU, 3x3; time embedding; norm, SiLU, dropout, 3x3; plus the input.

    With `resample`, "down" halves and "up" doubles the resolution before the first convolution.
    """

    def __init__(self, config: ModelConfig, c_in: int, c_out: int, resample: str = "") -> None:
        super().__init__()
        self.scale_shift, self.resample = config.scale_shift, resample
        time_dim = config.time_dim or 4 * config.widths[0]
        self.norm1 = norm(config, c_in)
        self.conv1 = Conv3x3(c_in, c_out)
        self.time_emb_proj = Linear(time_dim, 2 * c_out if config.scale_shift else c_out)
        self.norm2 = norm(config, c_out)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = zero(Conv3x3(c_out, c_out))
        self.conv_shortcut = Conv(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x: (B, c_in, H, W); emb: (B, time_dim) after its SiLU. Returns (B, c_out, H', W')."""
        h = silu(self.norm1(x))
        if self.resample == "down":
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        elif self.resample == "up":
            x, h = F.interpolate(x, scale_factor=2.0), F.interpolate(h, scale_factor=2.0)
        h = self.conv1(h)
        e = self.time_emb_proj(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h + e)
        return self.conv_shortcut(x) + self.conv2(self.dropout(silu(h)))


class Folded:
    """Attention with one head, its four linear layers folded into two.

    The matrices of queries and keys multiply to one matrix. The keys' bias adds the same to all
    keys, and the softmax ignores that. The matrices of values and output multiply to one matrix,
    too, because the attention weights between them add up to 1.

    Args:
        layers: the linear layers for queries, keys, values, and the output.
        y: (B, N, C), an example of the input: its shape and dtype decide how weights are laid out.
    """

    def __init__(self, layers: Sequence[Linear], y: Tensor) -> None:
        (wq, bq), (wk, _), (wv, bv), (wo, bo) = (
            (layer.weight.detach().double(), layer.bias.detach().double()) for layer in layers
        )
        scale, rows = math.sqrt(len(wk)), y.shape[:-1].numel()

        def laid_out(weight: Tensor, bias: Tensor) -> LaidOutLinear:
            return LaidOutLinear(weight.to(y.dtype), bias.to(y.dtype), rows)

        self.query = laid_out(wk.t() @ wq / scale, wk.t() @ bq / scale)
        self.out = laid_out(wo @ wv, wo @ bv + bo)
        self.nbytes = self.query.nbytes + self.out.nbytes

    def __call__(self, y: Tensor) -> Tensor:
        """y: (B, N, C). Returns (B, N, C)."""
        one = y[:, None]
        return self.out(attend(self.query(y)[:, None], one, one, scale=1.0)[:, 0])


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v, where q, k and v are (B, heads, N, d)."""
    if q.is_cuda or q.shape[2] > 256:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    # On CPUs, two plain products are faster than the flash kernel while N is small.
    return (q @ k.transpose(2, 3) * scale).softmax(dim=3) @ v


class Attention(Prepared):
    """Self-attention over the pixels. Its result is added to the input."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.heads = channels // (config.head_dim or channels)
        self.group_norm = norm(config, channels)
        self.to_q = Linear(channels, channels)
        self.to_k = Linear(channels, channels)
        self.to_v = Linear(channels, channels)
        self.to_out = nn.ModuleList([Linear(channels, channels)])  # a list in published weights

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = self.group_norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        dtype = precision(y, self.to_q.weight)
        if self.heads == 1 and dtype:
            y = y.to(dtype)
            layers = [self.to_q, self.to_k, self.to_v, *self.to_out]
            parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
            y = self.prepared(dtype, lambda: Folded(layers, y), *parameters)(y)
        else:
            q, k, v = (
                f(y).view(b, h * w, self.heads, c // self.heads).transpose(1, 2)
                for f in (self.to_q, self.to_k, self.to_v)
            )
            y = attend(q, k, v, 1 / math.sqrt(q.shape[3]))
            y = self.to_out[0](y.transpose(1, 2).reshape(b, h * w, c))
        return x + y.view(b, h, w, c).permute(0, 3, 1, 2)


class Resample(nn.Module):
    """Halve the resolution (stride 2) or double it (nearest neighbour, then 3x3)."""

    def __init__(self, channels: int, up: bool, padding: int = 1) -> None:
        super().__init__()
        self.up, self.padding = up, padding
        self.conv = (
            Conv3x3(channels, channels)
            if up
            else Conv(channels, channels, 3, stride=2, padding=padding)
        )

    def forward(self, x: Tensor, _emb: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2.0)
        elif not self.padding:
            x = F.pad(x, (0, 1, 0, 1))
        return self.conv(x)


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention if the level has it.

    Args:
        widths_in: the input channels of each block, skips included.
        c: the output channels of each block.
        down: True on the way down, which adds skips; False on the way up, which takes them.
        resample: True if the level ends by changing the resolution.
    """

    def __init__(
        self,
        config: ModelConfig,
        widths_in: list[int],
        c: int,
        attention: bool,
        *,
        down: bool,
        resample: bool,
    ) -> None:
        super().__init__()
        self.down = down
        self.resnets = nn.ModuleList(ResBlock(config, c_in, c) for c_in in widths_in)
        self.attentions = nn.ModuleList(Attention(config, c) for _ in widths_in if attention)
        # In the published networks, residual blocks resample only at levels with attention.
        ends = nn.ModuleList()
        if resample and attention and (config.downsample if down else config.upsample) == "resnet":
            ends.append(ResBlock(config, c, c, "down" if down else "up"))
        elif resample:
            ends.append(Resample(c, up=not down, padding=config.down_padding if down else 1))
        self.downsamplers = ends if down else nn.ModuleList()
        self.upsamplers = nn.ModuleList() if down else ends

    def forward(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x if self.down else torch.cat([x, skips.pop()], dim=1), emb)
            if len(self.attentions):
                x = self.attentions[i](x)
            if self.down:
                skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x, emb)
            skips.append(x)
        for upsample in self.upsamplers:
            x = upsample(x, emb)
        return x


class Middle(nn.Module):
    def __init__(self, config: ModelConfig, c: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResBlock(config, c, c), ResBlock(config, c, c)])
        self.attentions = nn.ModuleList([Attention(config, c)] * config.mid_attention)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.resnets[0](x, emb)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, emb)


class TimeEmbedding(nn.Module):
    """Sinusoids of t through two linear layers (Ho et al. 2020, appendix B)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim, self.flip = config.widths[0], config.flip_sin_to_cos
        self.shift = config.freq_shift
        time_dim = config.time_dim or 4 * self.dim
        self.linear_1 = Linear(self.dim, time_dim)
        self.linear_2 = Linear(time_dim, time_dim)

    def forward(self, t: Tensor) -> Tensor:
        """t: (B,) steps counted from 0. Returns (B, time_dim)."""
        half = self.dim // 2
        exponent = torch.arange(half, dtype=torch.float32, device=t.device) / (half - self.shift)
        angle = t[:, None].float() * torch.exp(-math.log(10000) * exponent)
        halves = [angle.sin(), angle.cos()]
        sinusoids = torch.cat(halves[::-1] if self.flip else halves, dim=1)
        sinusoids = F.pad(sinusoids, (0, self.dim % 2)).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(sinusoids)))


class UNet(nn.Module):
    """The network: from (B, C, H, W) pictures at steps t to a prediction of the same shape."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths, last = config.widths, len(config.widths) - 1
        self.conv_in = Conv(config.channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(config)
        if config.num_classes:
            time_dim = config.time_dim or 4 * widths[0]
            self.class_embedding = nn.Embedding(config.num_classes + 1, time_dim)

        skips = [widths[0]]  # the channels of each skip from the way down to the way up
        self.down_blocks = nn.ModuleList()
        for i, c in enumerate(widths):
            c_in = [widths[max(i - 1, 0)]] + [c] * (config.blocks - 1)
            attention = config.has_attention(i)
            self.down_blocks.append(Level(config, c_in, c, attention, down=True, resample=i < last))
            skips += [c] * (config.blocks + (i < last))
        self.mid_block = Middle(config, widths[last])
        self.up_blocks = nn.ModuleList()
        for i in reversed(range(last + 1)):
            c = widths[i]
            c_in = [widths[min(i + 1, last)]] + [c] * config.blocks
            c_in = [a + skips.pop() for a in c_in]
            attention = config.has_attention(i)
            self.up_blocks.append(Level(config, c_in, c, attention, down=False, resample=i > 0))
        self.conv_norm_out = norm(config, widths[0])
        self.conv_out = zero(Conv(widths[0], config.channels, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The raw prediction for noisy pictures.

        Args:
            x: (B, C, H, W). H and W can be anything: the network pads them and crops the result.
            t: (B,) steps counted from 0, as in training; one for each picture.
            y: (B,) class labels 0..num_classes. num_classes is the null class, the default.
        """
        emb = self.time_embedding(t)
        if self.config.num_classes:
            if y is None:
                y = torch.full_like(t, self.config.num_classes)
            emb = emb + self.class_embedding(y)
        emb = F.silu(emb)

        h, w = x.shape[-2:]
        step = 2 ** (len(self.config.multipliers) - 1)
        x = F.pad(x, (0, -w % step, 0, -h % step)).contiguous(memory_format=torch.channels_last)

        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            x = level(x, emb, skips)
        x = self.mid_block(x, emb)
        for level in self.up_blocks:
            x = level(x, emb, skips)
        x = self.conv_out(silu(self.conv_norm_out(x)))
        return x[..., :h, :w].contiguous()
