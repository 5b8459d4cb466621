"""What holds for every list of t, class list, folder, configuration and link that can be written.

The space of samplers, spacings, schedules and steps is walked in `test_interventions`, runs as
links, metadata and commands in `test_spec`, lists of classes in `test_labels`, and which pictures
are held out in `test_data`.
"""

import dataclasses
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddpm_demo.config import (
    DiffusionConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
    from_dict,
    parse_timesteps,
    settings,
)
from ddpm_demo.config.timesteps import MOST
from ddpm_demo.data import load
from ddpm_demo.diffusion import Schedule
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.media.open import suffixes
from ddpm_demo.models.diffusers_config import published
from ddpm_demo.models.diffusers_format import read_configs
from ddpm_demo.models.facts import Facts, parse_classes
from ddpm_demo.ui.experiments import link as experiments
from ddpm_demo.ui.finetune import link as finetune
from ddpm_demo.ui.forward import link as forward
from ddpm_demo.ui.generate import link as generate
from ddpm_demo.ui.measure import link as measure

R = TypeVar("R")
WORDS = st.text(max_size=12) | st.text("0123456789,;. -", max_size=20)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(WORDS, part, max_size=2),
    max_leaves=4,
)
ODD = JSON | st.sampled_from([0, -1, 1e999, 10**400, [], {}, [[1]], "None", True, 0.5, "1"])


def attempt(read: Callable[..., R], *arguments: Any) -> tuple[R | None, str]:
    """What is read, or the sentence with which it is refused; any other error fails the test."""
    try:
        return read(*arguments), ""
    except ValueError as error:
        return None, str(error) or "nothing was said"


# Lists of t


@given(st.integers(10, 4000), st.data())
def test_a_list_of_t_means_the_same_however_it_is_written(T: int, data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(1, T), min_size=1, max_size=MOST))
    gaps = st.text(" ,;\n\t", min_size=1, max_size=3)
    written = "".join(f"{data.draw(gaps)}{t}" for t in times) + data.draw(gaps)
    assert parse_timesteps(written, T) == times


@given(WORDS, st.integers(10, 4000))
def test_any_text_is_a_list_of_t_or_refused(text: str, T: int) -> None:
    times, refused = attempt(parse_timesteps, text, T)
    if times is None:
        assert re.match("The list |.* is not a timestep", refused)
    else:
        assert 1 <= len(times) <= MOST
        assert all(type(t) is int and 1 <= t <= T for t in times)


@given(st.lists(st.integers(-2, 4002), max_size=5).map(tuple), st.integers(10, 4000))
def test_a_falling_list_goes_before_steps(times: tuple[int, ...], T: int) -> None:
    falls = list(times) == sorted(set(times), reverse=True) and bool(times)
    ok = falls and times[0] <= 4000 and times[-1] >= 1
    if not ok:
        with pytest.raises(ValueError, match="Timesteps must be a falling list"):
            SampleConfig(timesteps=times)
        return
    run, schedule = SampleConfig(timesteps=times, steps=3), Schedule.linear(T)
    assert run.steps == len(times)
    if times[0] <= T:
        assert schedule.chosen(run) == list(times)
    else:
        with pytest.raises(ValueError, match="First of the timesteps must be"):
            schedule.chosen(run)


# Lists of classes


@given(WORDS | st.text("ab,0123 ", max_size=8), st.integers(0, 4))
def test_any_text_is_a_list_of_classes_or_refused(text: str, n: int) -> None:
    classes = ["a", "b", "a b", "3"][:n]
    labels, refused = attempt(parse_classes, text, classes)
    assert (labels is None) == (text == "any" or refused.startswith("Class must be "))
    if labels is not None:
        assert len(set(labels)) == len(labels) > 0
        assert all(0 <= k < n for k in labels)


# Folders


NAME = st.text("abc.üß🌫 -_#%'", min_size=1, max_size=6).filter(lambda n: n.strip(".") != "")
SUFFIX = st.sampled_from([".png", ".PNG", ".jpg", ".webp", ".bmp", ".txt", ""])
FILES = st.lists(st.tuples(st.lists(NAME, max_size=2), NAME, SUFFIX), min_size=1, max_size=5)


@given(FILES, st.integers(0, 3))
def test_every_picture_of_a_folder_is_found_and_the_rest_is_counted(
    files: list[tuple[list[str], str, str]], more: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root, others, pictures = Path(place), 0, set()
        for folders, name, suffix in files:
            folder = root.joinpath(*(f"d{part}" for part in folders))
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"f{name}{suffix}"
            if path.exists():
                continue
            if path.suffix.lower() in suffixes():
                Image.new("RGB", (8, 8), (len(pictures), 0, 0)).save(path, "PNG")
                pictures.add(path)
            else:
                path.write_bytes(b"x")
                others += 1
        for k in range(more):  # so that there is a picture in most folders
            Image.new("RGB", (8, 8)).save(root / f"more{k}.png")
        if not (count := len(pictures) + more):
            with pytest.raises(ValueError, match="should hold pictures"):
                load(f"folder:{root}", size=8)
            return
        found = load(f"folder:{root}", size=8)
        assert len(found) == count
        said = " ".join(found.skipped).rpartition("those of pictures: ")[2]
        numbers = [int(part.split()[0]) for part in said.split(", ") if part]
        assert sum(numbers) == others


# Configurations


CONFIGS: list[Any] = [
    ModelConfig(),
    ModelConfig.paper(),
    DiffusionConfig(),
    TrainConfig(images=5),
    SampleConfig(labels=(2, 0), timesteps=(9, 4)),
]


@given(st.sampled_from(CONFIGS), st.data(), ODD)
def test_a_configuration_with_an_odd_value_is_read_or_refused(
    config: Any, data: st.DataObject, value: Any
) -> None:
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert from_dict(type(config), values) == config
    name = data.draw(st.sampled_from([*values, "unknown"]))
    read, refused = attempt(from_dict, type(config), {**values, name: value})
    assert bool(refused) == (read is None)
    if read is not None:
        again = json.loads(json.dumps(dataclasses.asdict(read)))
        assert from_dict(type(config), again) == read or value != value  # NaN


PUBLISHED = published(
    ModelConfig(norm="group", num_classes=0), DiffusionConfig(schedule="cosine"), SampleConfig()
)


@given(st.sampled_from(sorted(PUBLISHED)), st.data(), ODD)
def test_a_published_configuration_with_an_odd_value_is_read_or_refused(
    file: str, data: st.DataObject, value: Any
) -> None:
    with tempfile.TemporaryDirectory() as place:
        for name, about in PUBLISHED.items():
            path = Path(place, name)
            path.parent.mkdir(exist_ok=True)
            if name == file:
                key = data.draw(st.sampled_from(sorted(about)))
                about = {**about, key: value}
            path.write_text(json.dumps(about), "utf-8")
        read, refused = attempt(read_configs, Path(place), "it")
    assert read is not None or refused.startswith("it can't be used: ")
    assert len(refused) <= 400


# Links


KNOWN = Facts(
    "m", ModelConfig(num_classes=2), DiffusionConfig(100), {"classes": ["a", "b"]}, parameters=1
)
KEYS = [about.option or name for name, (_, about) in settings(SampleConfig).items()]
PAIRS = st.tuples(st.sampled_from([*KEYS, "model", "with", "x"]), WORDS)


def find(name: str) -> Facts:
    if name != "m":
        raise ValueError("There is none.")
    return KNOWN


@given(st.lists(PAIRS, max_size=6).map(urlencode) | st.text(max_size=80))
def test_any_link_gives_a_run_that_can_be_made(query: str) -> None:
    run, problems = RunSpec.from_query(query, find, "m")
    assert run.model == "m"
    assert all(0 < len(problem) <= 300 for problem in problems)
    assert run.sample.steps <= 100
    assert RunSpec.from_query(run.to_query(KNOWN), find, "m") == (run, [])
    assert len(Schedule.cosine(100).chosen(run.sample)) == run.sample.steps


WORTH = st.sampled_from(
    ["mnist", "cifar10", "0", "7", "300", "ship", "each", "any", "fd,bpd", "9e9"]
)


@given(st.sampled_from([experiments, finetune, forward, generate, measure]), st.data())
def test_any_link_of_a_tab_is_read_and_written_again(tab: Any, data: st.DataObject) -> None:
    """What a tab makes of any link is a link that says the same, without complaints."""
    given = data.draw(st.dictionaries(st.sampled_from(tab.NAMES), WORTH | WORDS, max_size=5))
    read = tab.read(given)
    assert all(0 < len(problem) <= 600 for problem in read.problems)
    again = tab.read(dict(parse_qsl(read.query)))
    assert not again.problems
    assert again.query == read.query
