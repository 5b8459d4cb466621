"""Lists of timesteps, and the numbers that the forward tab sends to the browser."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio.utils import get_upload_folder
from PIL import Image

from ddpm_demo.config import default_timesteps, parse_timesteps
from ddpm_demo.config.timesteps import MOST
from ddpm_demo.media.open import ImageError
from ddpm_demo.ui.forward.asked import EXAMPLES
from ddpm_demo.ui.forward.handlers import fit, picture_message, schedules_message, uploaded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100,200,999", [100, 200, 999]),
        (" 5; 3 1000\n", [5, 3, 1000]),
        ("1", [1]),
        ("7,", [7]),
        ("0007", [7]),
        ("4, 4", [4, 4]),
    ],
)
def test_lists_of_timesteps_are_read_as_people_type_them(text, expected):
    assert parse_timesteps(text, 1000) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        (" , ;", "empty"),
        ("1,two,3", "'two'"),
        ("1,,2,0", "'0'"),
        ("5,51", "'51'"),
        ("-3", "'-3'"),
        ("1.5", "'1.5'"),
        ("1e2", "'1e2'"),
        ("٣", "'٣'"),
        ("9" * 5000, "'" + "9" * 40 + "'"),
        ("1 " * (MOST + 1), str(MOST)),
    ],
)
def test_a_bad_list_is_refused_in_one_sentence_that_names_the_culprit(text, named):
    with pytest.raises(ValueError, match=r"each is|at most|give") as refusal:
        parse_timesteps(text, 50)
    sentence = str(refusal.value)
    assert named in sentence
    assert sentence.count(". ") == 0
    assert len(sentence) < 140


@pytest.mark.parametrize("T", [10, 11, 37, 1000, 4000])
def test_default_timesteps_are_valid_distinct_and_ascending(T):
    steps = default_timesteps(T)
    assert parse_timesteps(",".join(map(str, steps)), T) == sorted(set(steps))
    assert 9 <= len(steps) <= 10


def test_the_default_ends_in_pure_noise():
    assert default_timesteps(1000) == [*range(100, 1001, 100)]


def test_a_new_T_moves_the_default_list_and_keeps_an_own_one_that_still_fits():
    default = ",".join(map(str, default_timesteps(1000)))
    assert fit(default, 200).split(",") == [str(t) for t in default_timesteps(200)]
    assert fit("7, 90", 200) == "7, 90"
    assert fit("7, 900", 200) == fit(default, 200)
    assert fit("7, 90", None) == "7, 90"


def test_the_picture_is_a_square_cut_and_the_noise_that_of_its_seed():
    message = picture_message(EXAMPLES[0], 64, "gaussian", 3)
    x_0 = np.frombuffer(base64.b64decode(message["x0"]), np.uint8).reshape(64, 64, 3)
    with Image.open(EXAMPLES[0]) as image:
        seen = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS), int)
    assert image.width == image.height  # so that the cut is the whole picture
    assert np.abs(seen - x_0).mean() < 2

    eps = np.frombuffer(base64.b64decode(message["eps"]), "<i2").reshape(64, 64, 3)
    expected = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(3))
    assert np.abs(eps * message["scale"] - expected.permute(1, 2, 0).numpy()).max() < 1e-3


def test_both_noises_have_unit_variance_after_their_way_through_int16():
    for noise in ("gaussian", "laplace"):
        message = picture_message(EXAMPLES[0], 256, noise, 0)
        eps = np.frombuffer(base64.b64decode(message["eps"]), "<i2") * message["scale"]
        assert abs(eps.mean()) < 0.01
        assert abs(eps.var() - 1) < 0.02


def test_the_tables_are_those_of_the_papers():
    message = schedules_message("both", 1000, 1e-4, 0.02, "1")
    tables = {
        view: {k: np.frombuffer(base64.b64decode(v)) for k, v in table.items()}
        for view, table in message["tables"].items()
    }
    beta = np.linspace(1e-4, 0.02, 1000)
    linear = np.concatenate([[1], np.cumprod(1 - beta)])
    assert np.abs(tables["linear"]["alpha_bar"] - linear).max() < 1e-12
    assert np.abs(tables["linear"]["beta"][1:] - beta).max() < 1e-12
    angle = (np.arange(1000) / 1000 + 0.008) / 1.008 * np.pi / 2
    cosine = np.cos(angle) ** 2 / np.cos(angle[0]) ** 2
    assert np.abs(tables["cosine"]["alpha_bar"][:1000] - cosine).max() < 1e-12


@pytest.mark.parametrize(
    "bad",
    [
        {"T": 9},
        {"T": None},
        {"T": 300.5},
        {"beta_start": None},
        {"beta_start": 0},
        {"beta_end": 1},
        {"beta_start": 0.5},
        {"view": "quadratic"},
        {"timesteps": "1001"},
    ],
)
def test_bad_settings_are_refused(bad):
    good = {"view": "both", "T": 1000, "beta_start": 1e-4, "beta_end": 0.02, "timesteps": "1"}
    schedules_message(**good)
    with pytest.raises(ValueError, match=r"must be|each is"):
        schedules_message(**good | bad)


@pytest.mark.parametrize("bad", [{"size": 48}, {"noise": "pink"}, {"seed": -1}, {"seed": 0.5}])
def test_bad_pictures_settings_are_refused(bad):
    good = {"source": EXAMPLES[0], "size": 32, "noise": "laplace", "seed": 0}
    with pytest.raises(ValueError, match=r"must be|each is"):
        picture_message(**good | bad)


def test_only_uploads_are_opened_whatever_a_request_claims():
    inside = Path(get_upload_folder()) / "a" / "photo.png"
    assert uploaded({"path": str(inside)}) == str(inside)
    assert uploaded({"path": None}) is None
    assert uploaded(None) is None
    for path in (EXAMPLES[0], f"{get_upload_folder()}/../hosts", f"{get_upload_folder()}-2/a.png"):
        with pytest.raises(ImageError, match="not among the uploads"):
            uploaded({"path": path})
