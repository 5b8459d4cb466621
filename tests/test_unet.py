"""The network against diffusers' UNet2DModel with the same weights, and against itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from ddpm_demo.config import ModelConfig
from ddpm_demo.nn.prepared import LAYS_OUT
from ddpm_demo.nn.unet import Attention, UNet

Fill = Callable[..., Any]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def theirs(c: ModelConfig) -> UNet2DModel:
    """The same network by their names."""
    down = [
        "AttnDownBlock2D" if c.has_attention(i) else "DownBlock2D" for i in range(len(c.widths))
    ]
    return UNet2DModel(
        sample_size=c.size,
        in_channels=c.channels,
        out_channels=c.channels,
        time_embedding_dim=c.time_dim,
        freq_shift=c.freq_shift,
        flip_sin_to_cos=c.flip_sin_to_cos,
        down_block_types=tuple(down),
        up_block_types=tuple(b.replace("Down", "Up") for b in reversed(down)),
        block_out_channels=c.widths,
        layers_per_block=c.blocks,
        downsample_padding=c.down_padding,
        downsample_type=c.downsample,
        upsample_type=c.upsample,
        dropout=c.dropout,
        attention_head_dim=c.head_dim,
        norm_num_groups=c.groups,
        attn_norm_num_groups=c.groups,
        norm_eps=c.norm_eps,
        resnet_time_scale_shift="scale_shift" if c.scale_shift else "default",
        add_attention=c.mid_attention,
        num_class_embeds=c.num_classes + 1 if c.num_classes else None,
    )


def small(**changes: Any) -> ModelConfig:
    """The paper's network with 8 channels; `changes` on top."""
    few: dict[str, Any] = {
        "size": 16,
        "width": 8,
        "groups": 4,
        "multipliers": (1, 2, 2),
        "blocks": 1,
    }
    return ModelConfig.paper(**(few | {"attention": (8,)} | changes))


VARIANTS: dict[str, dict[str, Any]] = {
    "as in the paper": {"blocks": 2},
    "one channel": {"channels": 1},
    "attention at the top": {"attention": (16,)},
    "attention at the bottom": {"attention": (4,)},
    "attention everywhere": {"attention": (16, 8, 4)},
    "attention nowhere": {"attention": (), "mid_attention": False},
    "attention not in the middle": {"mid_attention": False},
    "heads of 8 channels": {"attention": (8, 4), "head_dim": 8, "width": 16},
    "heads of 4 channels": {"attention": (8, 4), "head_dim": 4},
    "frequencies not shifted": {"freq_shift": 0},
    "cosines first": {"flip_sin_to_cos": True},
    "padded on all sides": {"down_padding": 1},
    "blocks that resample": {"downsample": "resnet", "upsample": "resnet", "attention": (16, 8)},
    "blocks that resample down": {"downsample": "resnet"},
    "blocks that resample up": {"upsample": "resnet"},
    "scale and shift": {"scale_shift": True},
    "another time embedding": {"time_dim": 24},
    "another epsilon": {"norm_eps": 0.1},
    "four levels": {"multipliers": (1, 1, 2, 2)},
    "five levels, growing": {"size": 32, "multipliers": (1, 1, 2, 2, 4), "attention": (2,)},
    "six levels": {"size": 64, "multipliers": (1, 1, 1, 2, 2, 3), "attention": (4,)},
    "classes": {"num_classes": 4},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_diffusers(variant: str, filled: Fill) -> None:
    config = small(**VARIANTS[variant])
    reference = filled(theirs(config))
    ours = UNet(config).eval()
    ours.load_state_dict(reference.state_dict())  # strict: the same names and shapes
    x, t = normal(2, config.channels, config.size, config.size), torch.tensor([0, 613])
    y = torch.tensor([2, 4]) if config.num_classes else None
    with torch.no_grad():
        wanted = reference(x, t, class_labels=y).sample
        got = ours(x, t, y)
    assert got.shape == x.shape
    assert got.is_contiguous()
    assert wanted.std() > 0.1  # the weights matter
    assert (got - wanted).abs().max() < 1e-5 * max(1, float(wanted.abs().max()))


def test_the_paper_s_network_has_its_parameters() -> None:
    with torch.device("meta"):
        ours, reference = UNet(ModelConfig.paper()), theirs(ModelConfig.paper())
    assert sum(p.numel() for p in ours.parameters()) == 35_746_307
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in reference.state_dict().items()
    }


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dim", [4, 8])
@pytest.mark.parametrize("pixels", [256, 289])
def test_all_kinds_of_attention_agree(pixels: int, dim: int, grad: bool, filled: Fill) -> None:
    """Small maps take two plain products, larger ones the fused kernel; of one head, layers are
    folded into each other where there are no gradients."""
    attention = filled(Attention(small(head_dim=dim), 8))
    side = int(pixels**0.5)
    x = normal(2, 8, side, side)
    y = F.group_norm(x, 4, *attention.group_norm.parameters(), eps=1e-6).flatten(2).mT
    heads = []
    for start in range(0, 8, dim):
        own = slice(start, start + dim)
        q, k, v = (f(y)[..., own] for f in (attention.to_q, attention.to_k, attention.to_v))
        heads.append(torch.einsum("bij,bjd->bid", (q @ k.mT / dim**0.5).softmax(2), v))
    wanted = x + attention.to_out[0](torch.cat(heads, 2)).mT.reshape(x.shape)
    with torch.set_grad_enabled(grad):
        assert (attention(x) - wanted).abs().max() < 1e-5
    assert bool(attention.prepared_bytes) == (LAYS_OUT and dim == 8 and not grad)


def test_folded_attention_notices_changed_weights(filled: Fill) -> None:
    attention, x = filled(Attention(small(), 8)), normal(1, 8, 4, 4)
    with torch.no_grad():
        before = attention(x)
    for layer in (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]):
        for parameter in layer.parameters():
            with torch.no_grad():
                parameter.mul_(1.5)
                changed = attention(x)
            if parameter is not attention.to_k.bias:  # which the softmax doesn't see
                assert (changed - before).abs().max() > 1e-5
            assert (changed - attention(x)).abs().max() < 1e-5
            before = changed


class PlainNorm(nn.Module):
    """Layer norm over dimension 1, by its formula, with the weights of a group norm."""

    def __init__(self, group: nn.GroupNorm) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=1, keepdim=True)
        variance = ((x - mean) ** 2).mean(dim=1, keepdim=True)
        shape = (-1, *[1] * (x.ndim - 2))
        x = (x - mean) / (variance + self.group.eps).sqrt()
        return x * self.group.weight.view(shape) + self.group.bias.view(shape)


def test_layer_norm_takes_the_place_of_every_group_norm(filled: Fill) -> None:
    config = small(norm="layer", attention=(8, 4), norm_eps=1e-3)
    ours, reference = UNet(config).eval(), filled(theirs(config))
    ours.load_state_dict(reference.state_dict())
    for path, module in list(reference.named_modules()):
        if isinstance(module, nn.GroupNorm):
            parent, _, name = path.rpartition(".")
            setattr(reference.get_submodule(parent), name, PlainNorm(module))
    x, t = normal(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        got, wanted = ours(x, t), reference(x, t).sample
    assert (got - wanted).abs().max() < 1e-5 * max(1, float(wanted.abs().max()))


# Sizes, batches, classes


@pytest.mark.parametrize(("h", "w"), [(28, 28), (16, 16), (15, 17), (1, 1), (20, 33)])
def test_any_size_is_padded_and_cropped(h: int, w: int, filled: Fill) -> None:
    net = filled(UNet(small(size=28, channels=1, multipliers=(1, 1, 2, 2), attention=(7,))))
    x, t = normal(2, 1, h, w), torch.tensor([4, 90])
    with torch.no_grad():
        got = net(x, t)
        padded = F.pad(x, (0, -w % 8, 0, -h % 8))
        assert got.shape == x.shape
        assert torch.equal(got, net(padded, t)[..., :h, :w])


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_each_picture_has_its_own_step(norm: str, filled: Fill) -> None:
    net = filled(UNet(small(norm=norm, num_classes=2)))
    x, t, y = normal(4, 3, 16, 16), torch.tensor([0, 999, 5, 500]), torch.tensor([0, 2, 1, 0])
    with torch.no_grad():
        together = net(x, t, y)
        alone = torch.cat([net(x[k : k + 1], t[k : k + 1], y[k : k + 1]) for k in range(4)])
        assert (together - alone).abs().max() < 1e-5
        assert (together - net(x, t.flip(0), y)).abs().max() > 0.01
        assert (together - net(x, t, y.flip(0))).abs().max() > 0.01


def test_the_null_class_is_the_default(filled: Fill) -> None:
    net = filled(UNet(small(num_classes=2)))
    x, t = normal(2, 3, 16, 16), torch.tensor([1, 7])
    with torch.no_grad():
        assert torch.equal(net(x, t), net(x, t, torch.tensor([2, 2])))
        assert (net(x, t) - net(x, t, torch.tensor([1, 1]))).abs().max() > 0.01


def test_dropout_is_off_in_eval_and_on_in_training(filled: Fill) -> None:
    net, plain = filled(UNet(small(dropout=0.5))), filled(UNet(small(dropout=0)))
    x, t = normal(2, 3, 16, 16), torch.tensor([1, 7])
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        assert torch.equal(net(x, t), plain(x, t))
        net.train()
        assert not torch.equal(net(x, t), net(x, t))


def test_a_fresh_network_says_nothing_yet() -> None:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        assert torch.equal(
            UNet(small())(normal(1, 3, 16, 16), torch.tensor([5])), torch.zeros(1, 3, 16, 16)
        )


def test_channels_last_inside(filled: Fill) -> None:
    """The layout that convolutions are fastest in reaches the last of them."""
    net, seen = filled(UNet(small(norm="layer"))), []
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, given, _out: seen.append(given[0]))
    with torch.no_grad():
        net(normal(2, 3, 16, 16), torch.tensor([1, 7]))
    assert len(seen) > 15
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
