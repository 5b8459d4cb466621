"""Distilling a tiny teacher into a student of few steps."""

import json
import math

import numpy as np
import pytest
import torch

from ddpm_demo.cli import main
from ddpm_demo.config import SampleConfig
from ddpm_demo.diffusion import Denoiser, Noise, Schedule
from ddpm_demo.diffusion.samplers.ddim import ddim
from ddpm_demo.diffusion.samplers.dpmpp import dpmpp_2m
from ddpm_demo.inference.generate import generate, timesteps_of
from ddpm_demo.media.convert import cut, to_uint8
from ddpm_demo.media.open import open_image
from ddpm_demo.models.checkpoint import load_tensors, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.publishing import cards
from ddpm_demo.publishing.ship import ship
from ddpm_demo.training import trajectories as tr
from ddpm_demo.training.distill import Distiller, distill, plan, settings, stops


@pytest.fixture
def teacher(tiny):
    """It predicts v; two classes; guided by 1.5."""
    made = tiny(T=100, predict="v", num_classes=2)
    made.info["sample"] = {"sampler": "dpmpp_2m", "steps": 20, "guidance": 1.5}
    return made


@pytest.fixture
def learn(teacher, tmp_path):
    """Distills in a folder, with so many iterations of batch 8 on 40 trajectories."""

    def run(out, iterations, lr=3e-3, **options):
        plans = plan(teacher, (2, 1))
        values = {"batch_size": 8, "lr": lr, "warmup": 2, "preview_every": 80}
        config = settings(teacher, 40, images=8 * iterations, **values)
        folder = tmp_path / "trajectories"
        list(tr.make(teacher, stops(plans), 40, folder))
        x = tr.load(teacher, stops(plans), 40, folder)
        return list(distill(teacher, plans, config, x, tmp_path / out, **options))

    return run


def test_the_timesteps_are_those_of_the_recipe(tiny):
    plans = plan(tiny(T=1000, predict="v"), (4, 2, 1))
    assert plans == {4: [975, 906, 577, 85], 2: [953, 422], 1: [992]}
    assert stops(plans) == [906, 577, 422, 85, 0]
    assert tr.teacher_timesteps(Schedule.cosine(1000)) == list(tr.STOPS)


def test_other_schedules_stop_at_the_same_signal_to_noise_ratios():
    cosine, linear = Schedule.cosine(1000), Schedule.linear(1000)
    pairs = zip(tr.STOPS, tr.teacher_timesteps(linear), strict=False)
    ratios = [float(linear.snr[b] / cosine.snr[a]) for a, b in list(pairs)[3:16]]
    assert all(0.9 < ratio < 1.1 for ratio in ratios)


def test_trajectories_are_the_teachers_from_seed_ten_million_on(teacher, tmp_path):
    """The picture of seed s is the one that any sampling with the teacher's t gives."""
    times = stops(plan(teacher, (2, 1)))
    assert list(tr.make(teacher, times, 50, tmp_path)) == [20, 40, 50]
    x = tr.load(teacher, times, 50, tmp_path)
    assert x.shape == (50, len(times), 1, 8, 8)
    y = torch.tensor([seed % 2 for seed in range(10_000_000, 10_000_020)])
    denoiser = Denoiser(teacher.model, teacher.diffusion, y=y, guidance=1.5)
    x_T = Noise("gaussian", range(10_000_000, 10_000_020)).draw((20, 1, 8, 8))
    t = tr.teacher_timesteps(denoiser.schedule)
    for step in dpmpp_2m(denoiser, x_T, t, noise=Noise("gaussian", [])):
        if step.t in times:
            assert torch.allclose(x[:20, times.index(step.t)].float(), step.x_t, atol=0.01)


def test_a_tenth_of_the_labels_is_null_and_classes_take_turns(teacher):
    y = tr.labels(teacher, torch.arange(4000))
    assert [int((y == k).sum()) for k in range(3)] == [1800, 1800, 400]
    assert y[:4].tolist() == [0, 1, 0, 1]


def test_trajectories_are_made_once(teacher, tiny, tmp_path):
    times = stops(plan(teacher, (2,)))
    list(tr.make(teacher, times, 30, tmp_path))
    first, second = (p.stat().st_mtime_ns for p in sorted(tmp_path.iterdir()))
    list(tr.make(teacher, times, 45, tmp_path))
    again = [p.stat().st_mtime_ns for p in sorted(tmp_path.iterdir())]
    assert again[0] == first
    assert again[1] > second  # it had ten, and has twenty now
    assert len(again) == 3
    other = tiny(T=100, predict="v", num_classes=2, seed=1)
    with pytest.raises(ValueError, match="trajectories of another teacher or at other t"):
        list(tr.make(other, times, 30, tmp_path))


def test_a_teacher_that_knows_the_picture(tiny, tmp_path):
    """If x0_hat is always c, the ODE's solution from z at t is x_s = sqrt(ab_s) c + sqrt(1-ab_s) e
    with e = (z - sqrt(ab_t) c) / sqrt(1 - ab_t), in any number of steps. Then all that a student
    has to learn is that its first t is another than its teacher's."""
    c = 0.3
    sure = tiny(T=100, predict="x0")
    with torch.no_grad():
        sure.model.conv_out.weight.zero_()
        sure.model.conv_out.bias.fill_(c)
    plans = plan(sure, (4, 2, 1))
    at = stops(plans)
    list(tr.make(sure, at, 20, tmp_path))
    x = tr.load(sure, at, 20, tmp_path)
    z = Noise("gaussian", range(10_000_000, 10_000_020)).draw((20, 1, 8, 8))
    signal = Schedule.cosine(100).alpha_bar.sqrt().tolist()
    sigma = [math.sqrt(1 - a * a) for a in signal]

    def e(t):
        return (z - signal[t] * c) / sigma[t]

    first = tr.teacher_timesteps(Schedule.cosine(100))[0]
    for i, s in enumerate(at):
        wanted = signal[s] * c + sigma[s] * e(first)
        assert torch.allclose(x[:, i].float(), wanted, atol=0.003)

    config = settings(sure, 20, images=60, batch_size=20)
    run = Distiller(sure, plans, config, x, torch.device("cpu"), False)
    for times in plans.values():
        order = run.shuffle.take(run.images, 20)
        t, each = run.advance(1e-9)
        assert t.tolist() == [k for k in times for _ in range(20)]
        off = (e(times[0]) - e(first)).abs().mean(dim=(1, 2, 3))[order]
        wanted = [off * sigma[s] / signal[s] for s in [*times[1:], 0]]
        assert torch.allclose(each, torch.cat(wanted), atol=0.005)


def test_the_loss_falls_and_the_teacher_stays(learn, teacher, tmp_path):
    weights = teacher.model.conv_in.weight.clone()
    progress = learn("out", 60)
    reports = [p.report for p in progress if p.report]
    assert reports[-1].train_loss < 0.8 * reports[0].train_loss
    assert torch.equal(teacher.model.conv_in.weight, weights)
    assert [p.lr for p in progress][:3] == pytest.approx([1.5e-3, 3e-3, 3e-3])
    assert progress[-1].lr == pytest.approx(3e-3 * (0.1 + 0.9 * 2 / 60))
    assert reports[-1].preview.shape == (36, 1, 8, 8)


def test_stopped_and_continued_is_as_unbroken(learn, tmp_path):
    learn("whole", 9)
    done = []
    learn("parts", 9, should_stop=lambda: done.append(0) or len(done) == 4)
    assert load_checkpoint(tmp_path / "parts").info["images"] == 4 * 8
    learn("parts", 9, resume=True)
    one, two = (load_tensors(tmp_path / k / "state.safetensors")[0] for k in ("whole", "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    with pytest.raises(ValueError, match=r"another run: train\.lr was 0\.003 and is 0\.1"):
        learn("parts", 9, lr=0.1, resume=True)


def test_a_student_can_go_on_learning(learn, teacher, tmp_path):
    learn("first", 60, bf16=False)
    student = load_checkpoint(tmp_path / "first")
    *_, last = learn("second", 3, lr=1e-9, init=student, bf16=False)  # it hardly moves
    info = load_checkpoint(tmp_path / "second").info
    assert info["init"] == "first"
    assert (info["teacher"]["name"], info["images"]) == ("tiny", 24)
    own = [load_checkpoint(tmp_path / name) for name in ("first", "second")]
    drawn = [list(generate(one, one.best.but(n=3)))[-1].x_t for one in own]
    assert torch.allclose(*drawn, atol=2e-3)  # weights are saved in half precision
    assert last.report.train_loss < learn("none", 3, lr=1e-9)[-1].report.train_loss
    with pytest.raises(ValueError, match="another run"):
        learn("second", 5, lr=1e-9, resume=True)  # without its --init


def test_a_student_says_how_it_is_sampled(learn, teacher, tmp_path):
    *_, last = learn("out", 4, bf16=False)
    student = load_checkpoint(tmp_path / "out")
    info = student.info
    assert info["few"] == {str(n): times for n, times in plan(teacher, (2, 1)).items()}
    assert info["teacher"]["name"] == "tiny"
    assert info["trajectories"] == 40
    own = student.best
    assert (own.sampler, own.steps, own.guidance, own.clip) == ("ddim", 2, 1.0, False)
    assert timesteps_of(student, SampleConfig(steps=5)) == [100, 80, 60, 40, 20]

    # The preview's second and third row are what `generate` draws, of the classes in turn.
    shown = last.report.preview.unflatten(0, (2, 3, 6)).transpose(0, 1).flatten(1, 2)
    x_T = Noise("gaussian", range(12)).draw((12, 1, 8, 8))
    y = torch.arange(12) % 2
    denoiser = Denoiser(student.model, student.diffusion, clip=False, y=y)
    for row, n in ((1, 2), (2, 1)):
        *_, drawn = ddim(denoiser, x_T, info["few"][str(n)], noise=Noise("gaussian", []))
        assert torch.allclose(shown[row], drawn.x_t, atol=1e-4)
        null = SampleConfig(steps=n, n=12, clip=False)
        *_, two = generate(student, null)
        unlabelled = Denoiser(student.model, student.diffusion, clip=False)
        *_, one = ddim(unlabelled, x_T, info["few"][str(n)], noise=Noise("gaussian", []))
        assert torch.equal(one.x_t, two.x_t)


# The command line

LINE = "distill --model teacher --steps 2,1 --trajectories 30 --batch-size 8 --iterations 6"


@pytest.fixture
def shell(teacher, tiny, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "teacher", teacher)
    monkeypatch.chdir(tmp_path)

    def run(line):
        try:
            return main(line.split())
        except SystemExit as left:
            return int(left.code or 0)

    return run


def test_the_command_distills_and_its_result_samples(shell, tmp_path):
    assert shell(f"{LINE} --preview-every 3 --out out") == 0
    log = [json.loads(row) for row in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [3, 6]
    assert len(list((tmp_path / "out").glob("preview-*.png"))) == 2
    assert len(list((tmp_path / "out/trajectories").iterdir())) == 2
    assert shell("sample --model out --steps 1 -n 2 --out strip.png") == 0
    assert shell(f"{LINE} --out out") == 2  # not over a run
    assert shell(f"{LINE} --steps 1 --init out --out again") == 0
    assert shell(f"{LINE} --steps 3 --init out --out other") == 2  # it has not learned three
    assert shell("distill --model out --steps 1 --iterations 1 --out two") == 2  # a student


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model laplace", "Noise of the teacher must be gaussian, not 'laplace'."),
        ("--model eps", "What the teacher predicts must be v or x0, not 'eps'."),
        ("--model nobody", "There is no model 'nobody'"),
        ("--steps 0", "Steps must be different numbers from 1 to"),
        ("--steps 4,4", "Steps must be"),
        ("--steps 99", "Steps must be"),
        ("--steps 4,9", "that share no timestep"),
        ("--steps none", "Steps must be"),
        ("--steps two", "is not a list like"),
        ("--trajectories 0", "Trajectories must be"),
        ("--trajectories 7", "batch_size must be a whole number from 1 to 7 (the number"),
        ("--batch-size 0", "batch_size must be"),
        ("--iterations 0", "Iterations must be"),
        ("--minutes 1", "not allowed with argument --iterations"),
        ("--preview-every 0", "preview_every must be"),
        ("--lr 0", "lr must be"),
        ("--device tpu", "Device must be"),
        ("--init eps", "--init must be distilled from teacher for 2,1 steps, not 'eps'."),
        ("--init nobody", "There is no model 'nobody'"),
    ],
)
def test_a_bad_argument_is_one_line_and_code_2(shell, tiny, words, message, tmp_path, capsys):
    save_checkpoint(tmp_path / "laplace", tiny(T=100, predict="v", noise="laplace"))
    save_checkpoint(tmp_path / "eps", tiny(T=100))
    assert shell(f"{LINE} --out out {words}") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_student_is_shipped_as_its_run_says(learn, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "SHOWN", 4)
    learn("out", 4)
    story = cards.Story("abc123", "It is tiny.")
    ship(tmp_path / "out", tmp_path / "alone", story)
    assert cards.BESIDE not in (tmp_path / "alone" / "README.md").read_text()
    save_checkpoint(tmp_path / "tiny", teacher)  # shipped beside its student
    shipped = ship(tmp_path / "out", tmp_path / "student", story)
    assert shipped.best.steps == 2
    text = (tmp_path / "student" / "README.md").read_text()
    assert "distill --model tiny --steps 2,1 --trajectories 40 --batch-size 8" in text
    assert "--iterations 4 --out runs/student" in text
    assert "starting from" not in text
    assert "distilled by this project from [`tiny`](../tiny/README.md)" in text
    assert "The first seeds: tiny, and under it this model in 2 and in 1 steps." in text
    sheet = np.asarray(open_image(tmp_path / "student" / cards.BESIDE))[:, :, :1]
    *_, own = generate(teacher, teacher.best.but(n=10, seed=0))
    assert (cut(sheet, 30, 10, scale=2)[:10] == to_uint8(own.x_t)).all()


def test_the_card_of_one_that_went_on_says_so(learn, tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "SHOWN", 4)
    learn("first", 2)
    learn("second", 2, init=load_checkpoint(tmp_path / "first"))
    ship(tmp_path / "second", tmp_path / "mine", cards.Story("abc123", "It is tiny."))
    text = (tmp_path / "mine" / "README.md").read_text()
    assert "distill --model tiny --init first --steps 2,1" in text
    assert "README.md), starting from [`first`](../first/README.md)." in text
