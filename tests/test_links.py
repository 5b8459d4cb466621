"""Links of anybody: what they hold is read, what can't be used is named in one line."""

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from ddpm_demo.config import SampleConfig
from ddpm_demo.inference.spec import RunSpec
from ddpm_demo.models.zoo import facts
from ddpm_demo.ui.components.links import Links, Part, Read, whole
from ddpm_demo.ui.finetune import link as finetune
from ddpm_demo.ui.finetune.asked import Asked as TuneAsked
from ddpm_demo.ui.forward import link as forward
from ddpm_demo.ui.generate import handlers, swaps
from ddpm_demo.ui.generate import link as generate
from ddpm_demo.ui.measure import link as measure
from ddpm_demo.ui.measure.asked import Asked as MeasureAsked

USUAL = vars(forward.Shown()) | {"timesteps": forward.strip_of(forward.Shown())}


@pytest.fixture
def links() -> Links:
    """Two tabs and a part of the whole page."""

    def read(given: dict[str, str]) -> Read:
        problems = [] if given["t"] == "4" else [f"t is {given['t']}."]
        return Read([given["t"]], {"t": given["t"]}, urlencode(given), problems)

    made = Links()
    made.tabs = {"one": SimpleNamespace(), "two": SimpleNamespace()}  # type: ignore[dict-item]
    made.add(Part("one", ["t"], read, ["control"], go="go"))
    made.add(Part("two", ["t"], read, ["control"]))
    made.add(Part("lesson", ["lesson"], lambda given: Read(page=given)))
    return made


def opened(links: Links, link: str, **kept: str) -> dict[str, Any]:
    tab, message, *controls = links.opened(json.dumps({"link": link, "kept": kept}))
    said: dict[str, Any] = json.loads(message)
    assert getattr(tab, "selected", links.first) == said["tab"]
    return {**said, "controls": controls}


def test_a_link_is_read_by_the_parts_that_it_names(links: Links) -> None:
    said = opened(links, "?tab=two&t=4&lesson=3&__theme=dark", one="t=4", two="t=7")
    assert said["tab"] == "two"
    assert said["controls"] == ["4", "4"]  # one: as it was before the page was reloaded
    assert said["page"] == {"one": {"t": "4"}, "two": {"t": "4"}, "lesson": {"lesson": "3"}}
    assert said["problems"] == ""
    assert opened(links, "?t=4&run=1")["run"] == "go"
    assert opened(links, "")["run"] == ""


@pytest.mark.parametrize(
    ("link", "named"),
    [
        ("?t=5", "t is 5."),
        ("?tab=<script>", "There is no tab '<script>'."),
        ("?tab=two&run=1", "run is '1', which can't be done here."),
        ("?run=yes", "run is 'yes'"),
        ("?x=1&y=2&z=3&t=5&w=4", "Nothing is called 'z'. And 2 more."),
        ("?t=" + 100_000 * "4", "The link has more than 4,096 characters"),
    ],
)
def test_what_cant_be_used_is_named_in_one_line(links: Links, link: str, named: str) -> None:
    said = opened(links, link)
    assert named in said["problems"]
    assert len(said["problems"]) < 300
    assert "\n" not in said["problems"]


@pytest.mark.parametrize("asked", [None, "", "{", "[]", '{"link": 3, "kept": {}}', "[" * 100_000])
def test_what_no_page_sends_opens_a_usual_page(links: Links, asked: Any) -> None:
    assert json.loads(links.opened(asked)[1])["problems"] == ""


def test_a_link_of_generate_comes_back() -> None:
    model = facts("cifar10")
    config = model.best.but(labels=(8,), seed=7, steps=9, eta=0.5, sampler="ddim")
    changes = ("z=0:400", "draw=flip:300::_-8")
    query = generate.query_of(RunSpec("cifar10", config, changes), model)
    given = {k: v for k, (v,) in parse_qs(query).items()}
    read = generate.read(given | {"t": "400", "picture": "3", "panes": "z,x_t"})
    assert read.query == query
    assert read.page == {"t": 400, "picture": 3, "panes": "z,x_t"}
    assert not read.problems
    _, _, sampler, steps, *_, labels, _, n, seed, eta, texts, held = read.controls
    assert (sampler, steps["value"], n["value"], seed, eta) == ("ddim", 9, 16, 7, 0.5)
    assert (labels["value"], held) == (["ship"], "cifar10")
    assert generate.changes_of(f" {texts} ; ") == changes
    assert generate.query_of(RunSpec("cifar10", model.best), model) == ""


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"model": "../../etc/passwd"}, "There is no model '../../etc/passwd' here."),
        ({"seed": "1" + 30 * "0"}, "Seed must be"),
        ({"t": "-1"}, "t must be a whole number from 0 to 1,000, not '-1'."),
        ({"n": "65"}, "n must be a number from 1 to 64, not 65."),
        ({"picture": "17"}, "Picture must be a whole number from 1 to 16, not '17'."),
        ({"guidance": "9"}, "Guidance must be a number from 0 to 8, not 9.0."),
        ({"panes": "<script>"}, "Panes must be some of x_t"),
        ({"with": "z=0:9;<script>"}, "Intervention must be"),
        ({"timesteps": "9,5"}, "A list of timesteps can't be set"),
    ],
)
def test_bad_parts_of_generate(given: dict[str, str], named: str) -> None:
    read = generate.read({**given, "class": "ship"})
    assert len(read.problems) == 1
    assert read.problems[0].startswith(named)
    assert read.query == "model=cifar10&class=ship"


def test_a_link_of_forward_comes_back() -> None:
    values = ("cat", 64, "laplace", 5, "cosine", "1,20", 500, 1e-3, 0.03)
    query = forward.query(*values)
    read = forward.read({k: v for k, (v,) in parse_qs(query).items()} | {"t": "400"})
    assert read.query == query
    assert read.page == {"t": 400}
    assert not read.problems
    _, *rest, kept = read.controls
    assert (kept, *rest) == values
    assert forward.query(*USUAL.values()) == ""
    assert forward.query("", *list(USUAL.values())[1:]) == ""
    own = forward.query("own", *list(USUAL.values())[1:])
    assert own == "picture=own"
    assert "upload" in forward.read({"picture": "own"}).problems[0]


@pytest.mark.parametrize(
    "bad",
    [
        *({"t": "-1"}, {"t": "1001"}, {"T": "9"}, {"T": "1e3"}, {"seed": "x"}, {"size": "48"}),
        *({"noise": "pink"}, {"schedule": "<b>"}, {"beta_start": "nan"}, {"beta_end": "1"}),
        *({"timesteps": "1001"}, {"picture": "../x"}, {"beta_start": "0.5"}),
    ],
)
def test_bad_parts_of_forward(bad: dict[str, str]) -> None:
    read = forward.read({"noise": "laplace", **bad})
    assert len(read.problems) == 1
    assert len(read.problems[0]) < 150
    assert list(read.controls[1:])[1] == ("laplace" if "noise" not in bad else "gaussian")


@pytest.mark.parametrize("text", ["-1", "11", "1e1", "", "٣", "9" * 4000])
def test_a_whole_number_is_read(text: str) -> None:
    assert whole("t", "10", 0, 10) == 10
    with pytest.raises(ValueError, match=r"^t must be a whole number from 0 to"):
        whole("t", text, 0, 10)


def test_links_hold_all_settings_of_a_run() -> None:
    assert len(generate.NAMES) == len(SampleConfig.__dataclass_fields__) + 5


@pytest.mark.parametrize("tab", [measure, finetune])
def test_nothing_said_changes_nothing(tab: Any) -> None:
    read = tab.read({})
    assert not read.query
    assert not read.problems
    held = read.controls[1]
    assert held == {"model": "cifar10", "values": {}}


def test_a_link_of_measure() -> None:
    given = {
        "model": "mnist",
        "metrics": "fd,bpd",
        "n": "300",
        "sampler": "heun",
        "steps": "12",
        "class": "3",
        "guidance": "2.0",
        "against": "7",
        "images": "9",
        "terms": "20",
    }
    model = facts("mnist")
    given["class"], given["against"] = model.classes[3], model.classes[7]
    read = measure.read(given)
    assert not read.problems
    name, held, wanted, n, sampler, steps, labels, guidance, against, images, terms = read.controls
    assert (name["value"], held["model"]) == ("mnist", "mnist")
    assert (wanted["value"], n["value"], sampler["value"]) == (["fd", "bpd"], 300, "heun")
    assert (steps["value"], guidance["value"], images["value"]) == (12, 2, 9)
    assert (labels["value"], terms["value"]) == ([model.classes[3]], 20)
    assert against["value"] == model.classes[7]
    asked = MeasureAsked(**{field: held["values"][field] for field in measure.FIELDS})
    assert measure.query_of("mnist", asked, dict.fromkeys(measure.FIELDS)) == read.query
    assert measure.query_of("cifar10", asked, vars(asked)) == ""
    assert {k: v for k, (v,) in parse_qs(read.query).items()} == given


@pytest.mark.parametrize(
    ("tab", "given", "named"),
    [
        (measure, {"n": "2001"}, "n must be a whole number from 1 to 2,000, not '2001'."),
        (measure, {"metrics": "fd,fid2"}, "Metrics must be"),
        (measure, {"against": "<b>"}, "Against must be"),
        (measure, {"model": "../x"}, "There is no model '../x' here"),
        (measure, {"terms": "-1"}, "Terms must be"),
        (finetune, {"class": "dragon"}, "Class must be all of the data, "),
        (finetune, {"length": "nan"}, "Length must be a number above 0"),
        (finetune, {"lr": "0"}, "lr must be"),
        (finetune, {"unit": "hours"}, "Unit must be steps or epochs, not 'hours'"),
        (finetune, {"model": "/etc"}, "There is no model '/etc' here."),
    ],
)
def test_what_other_tabs_refuse(tab: Any, given: dict[str, str], named: str) -> None:
    read = tab.read(given)
    assert named in " ".join(read.problems)
    assert read.controls[1]["values"] == {}


def test_a_link_of_finetune() -> None:
    given = {"model": "fashion-mnist", "class": "Bag", "length": "2", "unit": "epochs"}
    given |= {"batch": "32", "lr": "0.0001", "grids": "4"}
    read = finetune.read(given)
    assert not read.problems
    name, held, only, length, unit, batch, lr, grids = read.controls
    assert (name["value"], held["model"], only["value"]) == ("fashion-mnist",) * 2 + ("Bag",)
    assert "Bag" in only["choices"]
    values = [each["value"] for each in (length, unit, batch, lr, grids)]
    assert values == [2, "epochs", 32, 0.0001, 4]
    assert {k: v for k, (v,) in parse_qs(read.query).items()} == given
    asked = TuneAsked(dataset="folder:secret", device="cpu", **held["values"])
    again = finetune.query_of("fashion-mnist", asked, finetune.USUAL | {"only": "T-shirt/top"})
    assert parse_qs(again) == parse_qs(read.query)
    assert "secret" not in again


def test_a_change_that_is_told_twice_keeps_what_a_link_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gradio may tell of the model of a link twice; its settings are the link's all the same."""

    def find(name: str, own: Any) -> Any:
        return SimpleNamespace(facts=facts(name), best=facts(name).best)

    monkeypatch.setattr(handlers, "find", find)
    told = list(handlers.chosen({}, "mnist", 16, "mnist")) * 2
    for *values, held in told:
        assert held == "mnist"
        assert all(value == handlers.SKIP for value in values)
    *values, held = next(handlers.chosen({}, "cifar10", 16, held))
    assert held == "cifar10"
    assert any(value != handlers.SKIP for value in values)


@pytest.mark.parametrize("words", swaps.SWAPS)
def test_a_swap_changes_one_setting(words: str) -> None:
    name = "cifar10"
    assert words in swaps.offered(name)
    model = facts(name)
    config = model.best.but(seed=7, steps=9, labels=(3,))
    after = swaps.SWAPS[words](RunSpec(name, config))
    changed = [k for k, v in vars(after.sample).items() if v != getattr(config, k)]
    other = {swaps.LAPLACE: "cifar10-laplace", swaps.FEW: "cifar10-fast"}.get(words)
    assert after.model == (other or name)
    assert other or len(changed) == 1
    assert after.sample.seed == 7
    assert after.sample.labels == ((3,) if facts(after.model).classes else None)
    values = swaps.swapped(RunSpec(name, config), model, words)
    assert values[3]["value"] == after.sample.steps
    assert values[-4] == 7


def test_a_model_has_the_swaps_that_it_can_have() -> None:
    assert swaps.FEW not in swaps.offered("fashion-mnist")
    assert swaps.LAPLACE not in swaps.offered("fashion-mnist")
    assert swaps.offered("mine") == []
    with pytest.raises(ValueError, match="Model of this swap must be"):
        swaps.SWAPS[swaps.FEW](RunSpec("fashion-mnist", facts("fashion-mnist").best))
