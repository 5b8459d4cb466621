"""Runs with changes: going on, branching, drawing, and what is kept of a run."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from ddpm_demo.config import SAMPLERS, SampleConfig
from ddpm_demo.diffusion import Denoiser
from ddpm_demo.inference.batching import BatchedDenoiser, Batcher
from ddpm_demo.inference.changes import Now, read, read_mask, write_mask
from ddpm_demo.inference.generate import generate, go_on, play
from ddpm_demo.inference.record import Record
from ddpm_demo.inference.updates import updates

ETA = {"ddim": 0.5}


def config_of(sampler: str = "ddpm", **changes: Any) -> SampleConfig:
    return SampleConfig(sampler, 6, n=3, seed=4, eta=ETA.get(sampler, 0.0)).but(**changes)


def recorded(steps: Any) -> Record:
    record = Record()
    list(record.watch(steps))
    return record


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_pixels_of_a_line_sum_to_the_next_picture(tiny, sampler):
    """With the numbers that the page shows, and for each sampler, also where it has changed."""
    checkpoint, config = tiny(), config_of(sampler, n=2)
    T = checkpoint.diffusion.T
    for changes in ([], [f"z=-1:{T // 2}", f"sampler=ddpm:{T // 3}"]):
        record = recorded(play(checkpoint, config, changes))
        lines = updates(checkpoint, config, changes)["lines"]
        for k, said in enumerate(lines):
            line = record.line(k, 1)
            assert [(term.name, pytest.approx(term.coefficient)) for term in line.terms] == said
            total = sum(c * term.tensor for (_, c), term in zip(said, line.terms, strict=True))
            assert worst(total, line.after) < 1e-5
        assert record.line(len(lines), 1) is None
        assert record.line(0, 2) is None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_unedited_branch_is_the_run_bit_for_bit(tiny, sampler):
    checkpoint, config = tiny(num_classes=3), config_of(sampler, labels=(0, 2), guidance=2.0)
    t = [step.t for step in generate(checkpoint, config)]
    for made in ([], [f"eps=1.02:{t[1]}", f"class=1:{t[2]}", f"noise=50:{t[4]}"]):
        whole = recorded(play(checkpoint, config, made)).steps
        for k, seen in whole.items():
            again = recorded(go_on(checkpoint, config, made, [], seen.state)).steps
            assert list(again) == list(whole)[k:]
            assert all(torch.equal(again[i].state.x, whole[i].state.x) for i in again)


def test_the_first_continuation_is_the_run_and_the_others_are_not(tiny):
    checkpoint, config = tiny(num_classes=3), config_of(labels=(0, 1, 2))
    whole = recorded(generate(checkpoint, config))
    state = whole.steps[2].state
    *_, last = go_on(checkpoint, config, [], [f"fork=5:{state.t}:1"], state)
    assert len(last.x_t) == 5
    assert worst(last.x_t[0], whole.steps[6].state.x[1]) < 1e-4
    apart = [worst(last.x_t[i], last.x_t[j]) for i in range(5) for j in range(i)]
    assert min(apart) > 0.01
    *_, same = play(checkpoint, config, [f"fork=5:{state.t}:1"])
    assert torch.equal(same.x_t, last.x_t)  # made again from seed and settings alone


def test_branches_ask_for_one_picture_before_their_first_frame(tiny):
    checkpoint, config, asked = tiny(), config_of("heun"), []

    class Counts(Denoiser):
        def _network(self, x, t, y):
            asked.append(len(x))
            return super()._network(x, t, y)

    state = recorded(generate(checkpoint, config)).steps[3].state
    more = [f"sampler=ddpm:{state.t}", f"noise=9:{state.t}", f"fork=5:{state.t}:1"]
    first = next(go_on(checkpoint, config, [], more, state, denoiser=Counts))
    assert (len(first.x_t), asked) == (5, [1])  # which is the same for all five


def test_a_deterministic_sampler_has_one_future(tiny):
    checkpoint, config = tiny(), config_of("heun")
    t = generate(checkpoint, config)
    state = [step.state for step in t][3]
    *_, one = go_on(checkpoint, config, [], [f"fork=4:{state.t}:0"], state)
    assert all(torch.equal(one.x_t[0], x) for x in one.x_t)
    *_, many = go_on(
        checkpoint, config, [], [f"sampler=ddpm:{state.t}", f"fork=4:{state.t}:0"], state
    )
    assert worst(many.x_t[0], many.x_t[1]) > 0.01


def test_changes_begin_where_they_say(tiny):
    checkpoint, config = tiny(num_classes=3), config_of(labels=(0,), guidance=2.0)
    plain = recorded(generate(checkpoint, config)).steps
    t = [seen.state.t for seen in plain.values()]
    texts = ["z=0:{}", "eps=1.1:{}", "guidance=5:{}", "class=2:{}", "class=-1:{}", "noise=90:{}"]
    for text in (*texts, "sampler=ddim:{}", "z=-1:{0}:{0}"):
        changed = recorded(play(checkpoint, config, [text.format(t[2])])).steps
        same = [torch.equal(plain[k].state.x, changed[k].state.x) for k in plain]
        assert same == [True, True, True, False, False, False, False], text
    *_, whole = play(checkpoint, config, [f"class=2:{t[0]}"])
    *_, other = generate(checkpoint, config.but(labels=(2,)))
    assert torch.equal(whole.x_t, other.x_t)


def test_z_left_out_is_the_mean_of_the_step(tiny):
    checkpoint, config = tiny(), config_of()
    t = [step.t for step in generate(checkpoint, config)]
    plain = recorded(generate(checkpoint, config)).line(2, 0)
    bare = recorded(play(checkpoint, config, [f"z=0:{t[2]}"])).line(2, 0)
    (z,) = (term for term in plain.terms if term.name == "z")
    assert worst(bare.after, plain.after - z.coefficient * z.tensor) < 1e-6


def test_drawing_changes_the_mask_of_one_picture(tiny):
    checkpoint, config = tiny(), config_of()
    steps = list(generate(checkpoint, config))
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:4, 1:7] = True
    for operation in ("erase", "bright", "dark", "flip", "shift"):
        text = f"draw={operation}:{steps[3].t}:1:{write_mask(mask)}"
        drawn = list(play(checkpoint, config, [text]))[3].x_t
        changed = (drawn != steps[3].x_t).any(1)
        assert not changed[[0, 2]].any()
        assert torch.equal(changed[1], mask)
    whole = list(play(checkpoint, config, [f"draw=flip:{steps[3].t}"]))[3].x_t
    assert torch.equal(whole, steps[3].x_t.flip(-1))


def test_masks_are_written_and_read():
    for side in (4, 5, 7, 8, 28, 32):
        mask = torch.rand(side, side, generator=torch.Generator().manual_seed(side)) > 0.5
        assert torch.equal(read_mask(write_mask(mask)), mask)
    for bad in ("", "A", "AAAA", "%", "A" * 400):
        with pytest.raises(ValueError, match="Mask"):
            read_mask(bad)


@pytest.mark.parametrize(
    "text",
    [
        *("z", "z=0", "z=0:0", "z=no:5", "z=0:5:9", "z=99:5", "eps=nan:5", "other=1:5"),
        *("draw=paint:5", "draw=flip:5:0:A", "fork=17:5:0", "fork=2:5:3", "fork=2:5"),
        *("sampler=euler:5", "class=x:5", "clip=2:5", "noise=-1:5", "eta=2:5"),
    ],
)
def test_bad_changes_are_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match="must be"):
        read([text], Now.first(config_of()))


def test_a_long_run_is_kept_thinly_and_can_be_gone_on_with(tiny):
    checkpoint, config = tiny(), config_of(steps=20)
    whole, thin = recorded(generate(checkpoint, config)), Record(20 * 2**10)
    list(thin.watch(generate(checkpoint, config)))
    assert thin.nbytes <= 20 * 2**10 < whole.nbytes
    seen = thin.before(13)
    assert 0 < seen.state.index < 13
    again = recorded(go_on(checkpoint, config, [], [], seen.state))
    assert torch.equal(again.steps[13].state.x, whole.steps[13].state.x)


def test_visitors_who_branch_at_once_have_their_own_pictures(tiny):
    checkpoint, batcher = tiny(num_classes=3), Batcher()
    configs = [config_of(name) for name in ("ddpm", "ddim", "heun", "dpmpp_2m_sde")]
    begin = threading.Barrier(len(configs))

    def shared(*args: Any, **options: Any) -> BatchedDenoiser:
        return BatchedDenoiser(batcher, *args, **options)

    def branch(config: SampleConfig, **options: Any) -> torch.Tensor:
        state = recorded(generate(checkpoint, config)).steps[2].state
        more = [f"eps=1.01:{state.t}", f"fork=6:{state.t}:1"]
        if options:
            begin.wait(20)
        *_, last = go_on(checkpoint, config, [], more, state, **options)
        return last.x_t

    with ThreadPoolExecutor(len(configs)) as pool:
        together = list(pool.map(lambda config: branch(config, denoiser=shared), configs))
    for config, pictures in zip(configs, together, strict=True):
        assert worst(pictures, branch(config)) < 1e-4
