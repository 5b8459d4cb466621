"""What the shipped lessons say is true of the shipped models: each card's sentence is tried with
the very run that the card opens."""

import functools
from collections.abc import Callable
from urllib.parse import parse_qsl

import pytest
import torch
from torch import Tensor

from ddpm_demo.config import DiffusionConfig
from ddpm_demo.data import fitted
from ddpm_demo.data.packed import mnist
from ddpm_demo.diffusion import Intervention, ScaleEps, Schedule, Step, Terms
from ddpm_demo.evaluation.classifier import judge_of, load_classifier
from ddpm_demo.experiments.asked import Decide
from ddpm_demo.experiments.bugs import BUGS
from ddpm_demo.experiments.deciding import Course
from ddpm_demo.experiments.nearest import nearest
from ddpm_demo.experiments.tools import Tools
from ddpm_demo.inference.generate import generate
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.inference.updates import updates
from ddpm_demo.media import convert
from ddpm_demo.models.checkpoint import Checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.models.zoo import facts
from ddpm_demo.ui.generate.link import SHOWN
from ddpm_demo.ui.lessons.format import SHIPPED, Card, read_lessons

LESSONS = read_lessons([SHIPPED])
N = 16
PAGE = ("tab", "run", *SHOWN)
REAL = 2 * 0.3081  # contrast of MNIST's digits in [-1, 1], as torchvision's examples have it
Claim = Callable[[Card], None]
CLAIMS: dict[tuple[str, int], Claim] = {}


def claim(lesson: str, card: int) -> Callable[[Claim], Claim]:
    def keep(check: Claim) -> Claim:
        CLAIMS[lesson, card] = check
        return check

    return keep


# --- runs and judgements --------------------------------------------------------------------------


@functools.cache
def model(name: str) -> Checkpoint:
    return load_checkpoint(name)


@functools.cache
def spec(query: str) -> RunSpec:
    made, problems = RunSpec.from_query(query, facts, "mnist", page=PAGE)
    assert not problems
    return made


@functools.cache
def _run(spec: RunSpec) -> tuple[Step, ...]:
    changes: list[Intervention] = []
    for text in spec.interventions:
        name, _, value = text.partition("=")
        factor, _, t = value.partition(":")
        assert (name, t) in (("z", "1000"), ("eps", "1000"))
        changes.append(Terms("z", float(factor)) if name == "z" else ScaleEps(float(factor)))
    return tuple(generate(model(spec.model), spec.sample, interventions=changes))


def shown(card: Card) -> str:
    """What a visitor sees after the answer."""
    return card.show or card.open


def run(query: str) -> tuple[Step, ...]:
    return _run(spec(query))


def end(query: str) -> Tensor:
    return run(query)[-1].x_t


def guess(query: str, t: int) -> Tensor:
    return next(step.x0_hat for step in run(query) if step.t == t)


def judge(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """How sure the classifier of digits is, and of which."""
    pixels = torch.from_numpy(convert.to_uint8(pictures)).permute(0, 3, 1, 2)
    return load_classifier("mnist").extract(pixels)[1].softmax(1).max(1)


@functools.cache
def agreeing(query: str, t: int) -> int:
    """Guesses at t that are read as the digit that comes out."""
    return int((judge(guess(query, t))[1] == judge(end(query))[1]).sum())


def variety(pictures: Tensor) -> float:
    return float(pictures.std(0).mean())


def contrast(pictures: Tensor) -> float:
    return float(pictures.std())


def alpha_bar(schedule: str = "linear", T: int = 1000) -> Tensor:
    return Schedule.from_config(DiffusionConfig(T=T, schedule=schedule)).alpha_bar


# --- noise is easy --------------------------------------------------------------------------------


@claim("noise-is-easy", 1)
def one_jump(card: Card) -> None:
    kept, variance = 1.0, 0.0
    for beta in torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[:500]:  # step by step
        kept, variance = kept * float(1 - beta) ** 0.5, variance * float(1 - beta) + float(beta)
    bar = float(alpha_bar()[500])
    assert (kept, variance) == pytest.approx((bar**0.5, 1 - bar))


@claim("noise-is-easy", 2)
def half_of_the_way(card: Card) -> None:
    left = [f"{float(alpha_bar(name)[500]) ** 0.5:.2f}" for name in ("linear", "cosine")]
    assert left == ["0.28", "0.70"]
    assert all(f"has {left[0]}" in card.explained and left[1] in card.explained for _ in left)


@claim("noise-is-easy", 3)
def steps_that_change_nothing(card: Card) -> None:
    for name in ("linear", "cosine"):
        first = int((alpha_bar(name).sqrt() < 0.1).nonzero()[0])
        assert f"t = {first} on in the {name}" in card.explained.replace("\n", " ")


@claim("noise-is-easy", 4)
def too_short_a_way(card: Card) -> None:
    left = float(alpha_bar(T=200)[200]) ** 0.5
    assert f"is {left:.2f}," in card.explained


# --- what the network sees ------------------------------------------------------------------------


@claim("what-the-network-sees", 1)
def the_first_guess(card: Card) -> None:
    first = guess(shown(card), 1000)
    assert 10 * variety(first) < variety(end(shown(card)))
    assert judge(first)[0].max() < 0.9


@claim("what-the-network-sees", 2)
def a_guess_later(card: Card) -> None:
    assert 12 <= agreeing(shown(card), 700) < N


@claim("what-the-network-sees", 3)
def why_not_jump(card: Card) -> None:
    out = end(shown(card))
    assert len(run(shown(card))) == 2
    assert torch.equal(out, guess(card.open, 1000))
    assert judge(out)[0].max() < 0.9


@claim("what-the-network-sees", 4)
def told_what_to_draw(card: Card) -> None:
    asked = torch.arange(N) % 10
    assert torch.equal(judge(guess(shown(card), 1000))[1], asked)


# --- one step -------------------------------------------------------------------------------------


def line(query: str, k: int) -> dict[str, float]:
    made = spec(query)
    return dict(updates(model(made.model), made.sample)["lines"][k])


@claim("one-step", 1)
def three_pictures(card: Card) -> None:
    first, second = line(shown(card), 0), line(shown(card), 1)
    assert f"{first['z']:.3f}" in card.explained
    assert first["z"] > 0.9 > 10 * max(first["x_t"], first["x0_hat"])
    assert second["x_t"] > first["x_t"]
    assert line(shown(card), 2)["x_t"] > line(shown(card), 2)["x0_hat"]


@claim("one-step", 2)
def the_last_step(card: Card) -> None:
    last = {k: v for k, v in line(shown(card), 19).items() if v}
    assert last == pytest.approx({"x0_hat": 1.0})
    assert torch.allclose(end(shown(card)), guess(shown(card), 50), atol=1e-6)


@claim("one-step", 3)
def ddim_has_no_z(card: Card) -> None:
    assert all("z" not in line(shown(card), k) for k in range(20))
    assert "eps_hat" in line(shown(card), 0)
    assert variety(end(shown(card))) > 0.2


@claim("one-step", 4)
def as_little_as_you_like(card: Card) -> None:
    bars = alpha_bar("cosine")
    for k, (t, s) in enumerate(zip(range(1000, 50, -50), range(950, 0, -50), strict=True)):
        ddim, ddpm = line(shown(card), k), line(shown(card).replace("=ddim&eta=1", "=ddpm"), k)
        eps = ddim["eps_hat"] / float(1 - bars[t]) ** 0.5  # eps_hat is x_t less x0_hat
        kept = ddim["x0_hat"] - eps * float(bars[t]) ** 0.5
        assert (eps, kept, ddim["z"]) == pytest.approx(
            (ddpm["x_t"], ddpm["x0_hat"], ddpm["z"]), abs=1e-6
        ), s


# --- when is it decided? --------------------------------------------------------------------------


@claim("when-is-it-decided", 1)
def a_third_of_the_way(card: Card) -> None:
    assert agreeing(shown(card), 900) <= 6
    assert agreeing(shown(card), 700) >= 12


@claim("when-is-it-decided", 2)
def the_second_half(card: Card) -> None:
    assert agreeing(shown(card), 500) == N


@claim("when-is-it-decided", 3)
def the_same_noise(card: Card) -> None:
    ddim, ddpm = judge(end(card.open))[1], judge(end(shown(card)))[1]
    assert int((ddim == ddpm).sum()) <= 6
    assert torch.equal(run(card.open)[0].x_t, run(shown(card))[0].x_t)


CLAIMS["when-is-it-decided", 4] = told_what_to_draw


@claim("when-is-it-decided", 5)
def sixteen_ways(card: Card) -> None:
    checkpoint, tools = model("mnist"), Tools(load=lambda _: model("mnist"))
    course = Course(Decide(), checkpoint, judge_of(checkpoint), tools)
    list(course.run())
    for index in course.starts[0], course.starts[2]:
        list(course.go_on(index))
    (first, few), (middle, most) = course.same()
    assert (first, middle) == (900, 600)
    assert few <= 5
    assert most >= 14


# --- fewer steps ----------------------------------------------------------------------------------


def distance(query: str) -> float:
    """As it was measured when the model was shipped."""
    of, rows = spec(query).sample, model("mnist").info["samplers"]
    (row,) = (r for r in rows if (r["sampler"], r["steps"]) == (of.sampler, of.steps))
    return float(row["distance"])


@claim("fewer-steps", 1)
def two_steps(card: Card) -> None:
    assert [step.t for step in run(shown(card))] == [1000, 500, 0]
    assert contrast(end(shown(card))) < 0.8 * contrast(end(card.open))


@claim("fewer-steps", 2)
def five_or_ten(card: Card) -> None:
    five, ten = distance(card.open), distance(shown(card))
    assert f"{ten}" in card.words
    assert f"{five}" in card.explained
    assert five / ten == pytest.approx(4 / 3, abs=0.1)


@claim("fewer-steps", 3)
def more_and_more(card: Card) -> None:
    assert f"{distance(card.open)}" in card.words
    assert f"{distance(shown(card))}" in card.explained


@claim("fewer-steps", 4)
def not_every_sampler(card: Card) -> None:
    ddim, ddpm = end(card.open), end(shown(card))
    other = end(card.open.replace("steps=5", "steps=10"))
    far = (ddim - ddpm).pow(2).mean().sqrt()
    assert far > 2 * (ddim - other).pow(2).mean().sqrt()


# --- pushing it -----------------------------------------------------------------------------------


@claim("pushing-it", 1)
def twice_the_work(card: Card) -> None:
    plain, pushed = end(card.open), end(shown(card))
    assert contrast(pushed) > 1.1 * contrast(plain)
    assert variety(pushed) < variety(plain)


@claim("pushing-it", 2)
def without_a_class(card: Card) -> None:
    assert torch.equal(end(card.open), end(shown(card)))


@claim("pushing-it", 3)
def zero(card: Card) -> None:
    any_ = shown(card).replace("class=3", "class=any").replace("guidance=0", "guidance=1")
    assert torch.allclose(end(shown(card)), end(any_), atol=1e-5)
    assert len(set(judge(end(shown(card)))[1].tolist())) > 5


@claim("pushing-it", 4)
def too_far(card: Card) -> None:
    assert contrast(end(shown(card))) > contrast(end(card.open)) > 1.1 * REAL


# --- does it copy? --------------------------------------------------------------------------------


@functools.cache
def digits(train: bool) -> Tensor:
    return mnist(train).pixels


def far(pictures: Tensor) -> Tensor:
    """How far each is from the nearest training picture."""
    return nearest(pixels_of(pictures), digits(True), 1).distance[:, 0]


def pixels_of(pictures: Tensor) -> Tensor:
    return torch.from_numpy(convert.to_uint8(pictures)).permute(0, 3, 1, 2)


@claim("does-it-copy", 1)
def room_for_them_all(card: Card) -> None:
    numbers, pixels = facts("mnist").parameters, digits(True).numel()
    assert (f"{numbers / 1e6:.1f}", f"{pixels / 1e6:.0f}") == ("3.8", "47")
    assert f"{numbers / pixels:.2f}" == "0.08"


@claim("does-it-copy", 2)
def the_perfect_student(card: Card) -> None:
    exact = load_checkpoint("exact:mnist:100")
    *_, last = generate(exact, exact.best.but(n=4, steps=20))
    assert far(last.x_t).max() < 0.02


@claim("does-it-copy", 3)
def how_to_tell(card: Card) -> None:
    distance = nearest(digits(False)[:200], digits(True), 1).distance.mean()
    assert f"are {float(distance):.2f} away" in card.explained


@claim("does-it-copy", 4)
def the_verdict(card: Card) -> None:
    gaps = far(end("model=mnist&class=each&seed=0"))
    assert f"are {float(gaps.mean()):.2f} away" in card.explained
    test = nearest(digits(False)[:200], digits(True), 1).distance.mean()
    assert f"new digits {float(test):.2f};" in card.explained
    assert [k % 10 for k in range(N) if gaps[k] < 0.2] == [1, 1]


@claim("does-it-copy", 5)
def ten_digits(card: Card) -> None:
    known = mnist(True)
    size = model("mnist-small-10").model.config.size
    own = fitted(known.pixels[known.part("10")], size, 1)
    test = fitted(digits(False)[:200], size, 1)
    gaps = nearest(pixels_of(end(shown(card))), own, 1).distance
    assert f"are {float(gaps.mean()):.2f} away from the nearest of its ten" in card.explained
    far_off = float(nearest(test, own, 1).distance.mean())
    assert f"test pictures are {far_off:.2f} away" in card.explained
    assert gaps.max() < 0.05


@claim("does-it-copy", 6)
def two_halves(card: Card) -> None:
    a, b = (pixels_of(end(query)).double() / 127.5 for query in (card.open, card.show))
    same, other = (
        float((a - x).square().flatten(1).mean(1).sqrt().mean()) for x in (b, b.roll(1, 0))
    )
    assert f"by {same:.2f} from the same noise, and by {other:.2f} from different" in card.explained


# --- find the bug ---------------------------------------------------------------------------------


def with_bug(card: Card) -> tuple[Tensor, Tensor]:
    """The right pictures and the sick ones, of the experiment that the card runs."""
    asked = dict(parse_qsl(card.show))
    assert (asked["experiment"], asked["run"]) == ("break", "1")
    bug = BUGS[asked["bug"]]
    right = bug.config(model(bug.model), 0, N)
    sick = bug.put(model(bug.model), right, model)
    *_, good = generate(model(bug.model), right)
    *_, bad = generate(sick.checkpoint, sick.config, interventions=sick.interventions)
    return good.x_t, bad.x_t


def grain(pictures: Tensor) -> float:
    return float((pictures[..., 1:] - pictures[..., :-1]).abs().mean())


@claim("find-the-bug", 1)
def grainy(card: Card) -> None:
    good, bad = with_bug(card)
    assert grain(bad) > 1.4 * grain(good)
    blurred = torch.nn.functional.avg_pool2d
    gap, rough = (blurred(good, 4) - blurred(bad, 4)).std(), (good - bad).std()
    assert gap < 0.4 * rough


@claim("find-the-bug", 2)
def twins(card: Card) -> None:
    good, bad = with_bug(card)
    assert (good[:6] - good[10:]).abs().mean() > 10 * (bad[:6] - bad[10:]).abs().mean()


@claim("find-the-bug", 3)
def no_black(card: Card) -> None:
    good, bad = with_bug(card)
    assert good.min() < -0.9
    assert bad.min() > -0.01


@claim("find-the-bug", 4)
def half_way_in(card: Card) -> None:
    asked = torch.arange(N) % 10
    assert int((judge(end(card.open))[1] == asked).sum()) >= 14
    assert int((judge(end(shown(card)))[1] == asked).sum()) <= 8


@pytest.mark.parametrize(
    ("name", "number"),
    [(lesson.name, k + 1) for lesson in LESSONS.values() for k in range(len(lesson.cards))],
)
def test_a_card_says_what_is_so(name: str, number: int) -> None:
    CLAIMS[name, number](LESSONS[name].cards[number - 1])
