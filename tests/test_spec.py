"""A run written down and read again, as link, metadata and command line; and links of strangers."""

import dataclasses
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_demo.cli import parser
from ddpm_demo.cli.sampling import asked
from ddpm_demo.config import (
    SAMPLERS,
    SPACINGS,
    VARIANCES,
    DiffusionConfig,
    ModelConfig,
    SampleConfig,
)
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.models.facts import Facts

CLASSES = ["frog", "ship", "T-shirt/top", "a & b=c", "ü"]


def facts(name: str, T: int = 1000, classes: int = 0, **sample: Any) -> Facts:
    info = {"classes": CLASSES[:classes], "sample": sample}
    return Facts(name, ModelConfig(num_classes=classes), DiffusionConfig(T), info, 1)


MODELS = {
    "plain": facts("plain"),
    "few": facts("few", timesteps=[999, 500]),
    "classy": facts("classy", classes=5, sampler="unipc", steps=9, guidance=1.5, seed=4, n=8),
    "you/odd name&x=1": facts("odd", T=50, classes=1, start=40, steps=10, eta=0.5, clip=False),
}


@st.composite
def runs(draw: st.DrawFn) -> RunSpec:
    name = draw(st.sampled_from(sorted(MODELS)))
    T, classes = MODELS[name].diffusion.T, len(MODELS[name].classes)
    labels = st.lists(st.sampled_from(range(classes or 1)), min_size=1, unique=True).map(tuple)
    ways = st.sets(st.integers(1, T), min_size=1, max_size=5)
    ways = ways.map(lambda t: tuple(sorted(t, reverse=True)))
    start = draw(st.none() | st.integers(1, T))
    config = SampleConfig(
        draw(st.sampled_from(list(SAMPLERS))),
        draw(st.integers(1, start or T)),
        draw(st.integers(1, 100_000)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from(SPACINGS)),
        draw(st.sampled_from(VARIANCES)),
        draw(st.floats(0, 1)),
        draw(st.booleans()),
        draw(st.none() | labels) if classes else None,
        draw(st.floats(0, 20)) if classes else 1.0,
        start,
        draw(st.none() | ways),
    )
    return RunSpec(name, config, draw(st.sampled_from([(), ("edit",), ("bug=sigma", "edit=1:2")])))


@given(runs())
def test_a_run_comes_back(run: RunSpec) -> None:
    query = run.to_query(MODELS[run.model])
    assert RunSpec.from_query(query, MODELS.__getitem__, "plain") == (run, [])
    assert RunSpec.from_query(f"?{query}&t=400", MODELS.__getitem__, "plain", page=["t"])[0] == run
    assert RunSpec.from_metadata(run.to_metadata()) == run


@given(runs())
def test_a_command_makes_the_run(run: RunSpec) -> None:
    run, known = dataclasses.replace(run, interventions=()), MODELS[run.model]
    o = parser().parse_args(shlex.split(run.to_command(known))[3:])
    found = asked(o, known)
    if run.sample.start is None and found.start == known.diffusion.T:
        found = dataclasses.replace(found, start=None)  # the same
    assert found == run.sample


def test_a_link_holds_no_guidance_where_there_are_no_classes() -> None:
    """The page's slider is hidden then, and may stand where another model left it."""
    run = RunSpec("plain", SampleConfig(guidance=3.0, seed=7))
    assert run.to_query(MODELS["plain"]) == "model=plain&seed=7"
    assert "guidance" not in run.to_command(MODELS["plain"])


def test_a_link_holds_what_differs() -> None:
    own = MODELS["classy"].best
    assert RunSpec("classy", own).to_query(MODELS["classy"]) == "model=classy"
    run = RunSpec("classy", dataclasses.replace(own, labels=(1,), seed=7))
    assert run.to_query(MODELS["classy"]) == "model=classy&seed=7&class=ship"


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (
            "seed=1" + 30 * "0",
            f"Seed must be a whole number from 0 to 4,294,967,295, not 1{30 * '0'}.",
        ),
        ("seed=1" + 3000 * "0", "seed can't be '1" + 38 * "0" + "…'."),
        ("seed=%F0%9F", "Seed must be a number, not '\N{REPLACEMENT CHARACTER}'."),
        ("steps=0", "Steps must be a whole number from 1 to"),
        ("steps=1001", "Steps must be a whole number from 1 to 1,000, not 1001."),
        ("start=-1", "Start must be"),
        ("start=2000", "Start must be a whole number from 1 to 1,000, not 2000."),
        ("start=7", "Steps must be a whole number from 1 to 7, not 9."),
        ("timesteps=1001,5", "Timesteps must be a whole number from 1 to 1,000, not 1001."),
        ("timesteps=5,500", "Timesteps must be a falling list from 4,000"),
        ("timesteps=", "Timesteps must be a number."),
        ("eta=nan", "Eta must be"),
        ("clip=maybe", "Clip must be True or False, not 'maybe'."),
        ("sampler=<script>alert(1)</script>", "Sampler must be"),
        ("class=frgo", "Class must be each, any"),
        ("model=../../etc/passwd", "There is no model '../../etc/passwd' here."),
        ("t=-1", "Nothing is called 't'."),
        ("with=a%20b", "Intervention must be"),
        ("x=" + 100_000 * "y", "The link has more than 4,096 characters"),
        ("&".join(["n=1"] * 101), "The link has more than 100 parts"),
    ],
)
def test_a_bad_part_is_named_and_the_rest_counts(part: str, says: str) -> None:
    def find(name: str) -> Facts:
        if name not in MODELS:
            raise ValueError("There is no such model, and here is a path.")
        return MODELS[name]

    run, problems = RunSpec.from_query(f"class=ship&{part}&guidance=3", find, "classy")
    assert len(problems) == 1
    assert problems[0].startswith(says)
    assert len(problems[0]) < 200
    if "nothing of it" not in problems[0]:
        assert run.sample.guidance == 3
        assert run.model == "classy"


def test_metadata_of_another_program_is_refused() -> None:
    with pytest.raises(ValueError, match="Program must be"):
        RunSpec.from_metadata({})
    assert RunSpec.from_metadata({"program": "ddpm_demo", "model": "m", "label": "2"}) == RunSpec(
        "m", SampleConfig(labels=(2,))
    )
