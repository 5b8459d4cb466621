"""Lists of classes: what words mean, and what is said of words that mean nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_demo.config import SampleConfig, from_dict
from ddpm_demo.models.facts import class_words, parse_classes

CLASSES = ("frog", "ship", "T-shirt/top", "Ankle boot", "each", "1, 2")
NAMES = st.lists(st.text(st.characters(exclude_categories=["C"]), max_size=8), unique=True)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("any", None),
        ("each", (0, 1, 2, 3, 4, 5)),
        ("ship", (1,)),
        ("ship,frog", (1, 0)),
        (" Ankle boot , 2", (3, 2)),
        ("1, 2", (5,)),  # a name is a name
        ("4", (4,)),
    ],
)
def test_words(text: str, labels: tuple[int, ...] | None) -> None:
    assert parse_classes(text, CLASSES) == labels


def test_words_of_a_model_without_classes() -> None:
    assert parse_classes("any", ()) is None
    for text in ("each", "0", ""):
        with pytest.raises(ValueError, match=r"must be any(, not .*)?: the model has no classes"):
            parse_classes(text, ())


@pytest.mark.parametrize("text", ["ship,frgo", "", ",", "6", "-1", "ship,any", "²", "9" * 5000])
def test_words_that_mean_nothing(text: str) -> None:
    wrong = repr(next(w for w in text.split(",") if w not in CLASSES))
    wrong = wrong if len(wrong) <= 200 else f"{wrong[:199]}…"
    said = "" if wrong == "''" else f", not {wrong}"
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_classes(text, CLASSES)
    assert str(caught.value) == (
        "Class must be each, any, or with commas some of 0 to 5, frog, ship, T-shirt/top, "
        f"Ankle boot, each, 1, 2{said}."
    )


def test_no_class_twice_and_no_endless_list() -> None:
    with pytest.raises(ValueError, match="must be a list with each class once"):
        parse_classes("ship,1", CLASSES)
    with pytest.raises(ValueError, match="c18, c19 and 980 more, not"):
        parse_classes("c", [f"c{k}" for k in range(1000)])
    for labels in ((), (1, 1), (-1,), (10_000,), (True,), (0.0,)):
        with pytest.raises(ValueError, match="Labels must be"):
            SampleConfig(labels=labels)
    assert from_dict(SampleConfig, {"labels": [2, 0]}).labels == (2, 0)


@given(NAMES, st.data())
def test_words_and_labels_mean_the_same(classes: list[str], data: st.DataObject) -> None:
    """But for digits that are the name of another class."""
    classes = [name for name in classes if not name.isdecimal()]
    every = st.lists(st.sampled_from(range(len(classes))), min_size=1, unique=True)
    labels = data.draw(st.none() | every.map(tuple) if classes else st.none())
    assert parse_classes(class_words(labels, classes), classes) == labels


@given(st.integers(0, 2**32 - 2000), st.integers(1, 1000), st.permutations(range(7)))
def test_the_seed_decides(seed: int, n: int, order: list[int]) -> None:
    labels = tuple(order)
    config = SampleConfig(n=n, seed=seed, labels=labels)
    alone = [SampleConfig(n=1, seed=seed + k, labels=labels).label_of_each() for k in range(n)]
    assert config.label_of_each() == [y for (y,) in alone if y is not None]
    counts = [(config.label_of_each() or []).count(k) for k in labels]
    assert max(counts) - min(counts) <= 1
