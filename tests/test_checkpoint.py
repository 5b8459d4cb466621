"""What was saved comes back; what is broken is refused in one sentence, and costs nothing."""

import dataclasses
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_demo.models import checkpoint as cp
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, save_checkpoint, save_tensors
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.models.zoo import available

Tiny = Callable[..., Checkpoint]
INDEX = "model.safetensors.index.json"


def refused(source: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def rewrite(
    file: Path,
    change: Callable[[dict[str, Tensor]], object] = lambda state: None,
    about: Callable[[dict[str, Any]], object] = lambda about: None,
) -> Path:
    """Change the tensors or the JSON of a saved checkpoint."""
    state, said = cp.load_tensors(file)
    change(state)
    about(said)
    save_tensors(file, state, said)
    return file


@pytest.fixture
def saved(tmp_path: Path, tiny: Tiny) -> Path:
    return save_checkpoint(tmp_path / "run", tiny())


# There and back


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_round_trip(
    dtype: torch.dtype, sharded: bool, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sharded:
        monkeypatch.setattr(cp, "MAX_SHARD", 20_000)
    given = tiny(num_classes=3, noise="laplace", predict="v", norm="group", groups=4)
    path = save_checkpoint(tmp_path / "run", given, dtype)
    files = sorted(p.name for p in (tmp_path / "run").iterdir())
    if sharded:
        assert path.name == INDEX
        assert len(files) > 3
        for file in (tmp_path / "run").glob("*.safetensors"):
            tensors, _ = cp.load_tensors(file)
            assert sum(v.nbytes for v in tensors.values()) <= 20_000
    else:
        assert files == ["model.safetensors"] == [path.name]
    sources = [path.parent] if sharded else [path.parent, path]
    for source in sources:
        got = load_checkpoint(source)
        assert got.model.config == given.model.config
        assert got.diffusion == given.diffusion
        assert (got.info, got.classes) == (given.info, ["kind 0", "kind 1", "kind 2"])
        assert got.name == ("run" if source == path.parent else "model")
        assert not got.model.training
        for key, value in given.model.state_dict().items():
            loaded = got.model.state_dict()[key]
            assert loaded.dtype == torch.float32
            assert torch.equal(loaded, value.to(dtype).float())
            assert loaded.stride() == value.stride()  # channels_last again
            if dtype == torch.float16:
                assert (loaded - value).abs().max() <= value.abs().max() * 2**-11
        x, t = torch.ones(1, 1, 8, 8), torch.tensor([3])
        with torch.no_grad():
            change = (got.model(x, t) - given.model(x, t)).abs().max()
        assert change == 0 if dtype == torch.float32 else 0 < change < 0.05


def test_float16_halves_the_file(tmp_path: Path, tiny: Tiny) -> None:
    full, half = (
        save_checkpoint(tmp_path / str(d), tiny(width=32), d)
        for d in (torch.float32, torch.float16)
    )
    assert half.stat().st_size < 0.6 * full.stat().st_size


def test_stale_files_go(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    (folder / "notes").mkdir(parents=True)
    (folder / "model card.txt").write_text("kept")
    for size, seed in ((3000, 1), (9_500_000, 2), (8000, 3), (3000, 4), (8000, 5)):
        monkeypatch.setattr(cp, "MAX_SHARD", size)
        save_checkpoint(folder, given := tiny(seed=seed))
        assert ((folder / "model.safetensors").exists()) == (size == 9_500_000)
        got = load_checkpoint(folder)
        assert torch.equal(got.model.conv_out.weight, given.model.conv_out.weight)
        if (folder / INDEX).exists():
            named = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
            assert named == {p.name for p in folder.glob("*.safetensors")}
    assert (folder / "notes").is_dir()
    assert (folder / "model card.txt").is_file()


def test_a_failed_write_leaves_the_old_file(
    saved: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        OSError, match=r"model\.safetensors was not written: No space left on device\."
    ):
        save_checkpoint(saved.parent, tiny(seed=1))
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["model.safetensors"]


def test_files_can_be_read_by_others(saved: Path) -> None:
    assert saved.stat().st_mode & 0o777 == 0o644


# Names


def test_a_shipped_model_has_a_name(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available() == ["classy", "tiny"]
    assert load_checkpoint("classy").name == "classy"
    monkeypatch.chdir(zoo.parent)
    (zoo.parent / "tiny").mkdir()  # a name is a shipped model's first
    assert load_checkpoint("tiny").model.config.num_classes == 0


@pytest.mark.parametrize("name", ["mnits", "", "..", "/no/such/folder", "a.safetensors", "a\0b"])
def test_an_unknown_name_lists_the_shipped_ones(
    name: str, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(zoo.parent)
    assert "classy, tiny" in refused(name)


@pytest.mark.parametrize("given", ["~/models", "{home}/models"])
def test_where_the_shipped_models_are_can_be_said(
    given: str, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DDPM_DEMO_MODELS", given.format(home=tmp_path))
    save_checkpoint(tmp_path / "models" / "mine", tiny())
    assert available() == ["mine"]
    assert load_checkpoint("mine").name == "mine"
    assert load_checkpoint("~/models/mine").name == "mine"
    assert load_checkpoint("~/models/mine/model.safetensors").name == "model"
    assert not list(Path().glob("~*"))


def test_a_home_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_DEMO_MODELS", "~nobody-here/models")
    with pytest.raises(
        ValueError, match=r"~nobody-here/models can't be found, as there is no home"
    ):
        available()


def test_without_shipped_models_one_hears_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPM_DEMO_MODELS", str(tmp_path / "none"))
    assert available() == []
    message = refused("mnist")
    assert f"no shipped models in {tmp_path / 'none'}" in message
    assert "DDPM_DEMO_MODELS" in message


def test_a_name_that_is_too_long_is_an_unknown_one(zoo: Path) -> None:
    assert "There is no model 'xxx" in refused("x" * 5000)


def test_the_number_of_parameters(tiny: Tiny) -> None:
    given = tiny()
    assert given.parameters == sum(v.numel() for v in given.model.state_dict().values())


# Broken ones


def test_every_wrong_parameter_is_listed(saved: Path) -> None:
    def change(state: dict[str, Tensor]) -> None:
        del state["conv_in.bias"]
        state["conv_extra.weight"] = torch.zeros(2)
        state["conv_out.bias"] = torch.zeros(3)
        state["time_embedding.linear_1.bias"] = torch.zeros(16, dtype=torch.int64)

    message = refused(rewrite(saved, change))
    for part in (
        "conv_in.bias is missing",
        "conv_extra.weight is unknown",
        "conv_out.bias is (3,), not (1,)",
        "time_embedding.linear_1.bias holds NaN, infinity or whole numbers",
    ):
        assert part in message


def test_many_wrong_parameters_are_counted(saved: Path) -> None:
    assert "; and" not in refused(rewrite(saved, lambda state: state.clear()))
    assert "more." in refused(saved)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_nan_weights_are_refused(saved: Path, poison: float) -> None:
    def change(state: dict[str, Tensor]) -> None:
        state["conv_out.weight"].view(-1)[-1] = poison

    assert "conv_out.weight holds NaN" in refused(rewrite(saved, change))


@pytest.mark.parametrize("keep", [0, 4, 100, 3000, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    assert "is not a whole safetensors file" in refused(saved)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "model.safetensors"
    for data in (pickle.dumps(Trap()), b"{}", os.urandom(999)):
        path.write_bytes(data)
        assert "is not a whole safetensors file" in refused(path)
    torch.save({"x": Trap()}, path)
    assert "is not a whole safetensors file" in refused(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_one_of_somebody_else_s_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, path := tmp_path / "model.safetensors")
    assert "was not made by ddpm_demo" in refused(path)
    save_file({"x": torch.zeros(2)}, path, {cp.KEY: "{"})
    assert "has garbled metadata" in refused(path)


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"version": 2}, "Its version must be 1, not 2"),
        ({"version": None}, "Its version must be"),
        (
            {"model": {"width": 10**9}},
            "Width must be a whole number from 8 to 1,0",
        ),
        ({"model": {"depth": 3}}, "ModelConfig has no depth"),
        ({"model": {"multipliers": [1.5]}}, "Multipliers must be"),
        ({"model": {"time_dim": 10**12}}, "time_dim must be"),
        ({"model": {"groups": 0, "norm": "group"}}, "Groups must be"),
        ({"model": [1, 2]}, "is garbled"),
        ({"model": None}, "is garbled"),
        ({"diffusion": {"T": 5}}, "T must be a whole number from 10 to 4,000"),
        ({"diffusion": {"noise": "uniform"}}, "Noise must be"),
        ({"info": 5}, "is garbled"),
    ],
)
def test_a_bad_configuration_is_refused(saved: Path, about: dict[str, Any], says: str) -> None:
    def change(said: dict[str, Any]) -> None:
        for key, value in about.items():
            said[key] = said[key] | value if isinstance(value, dict) else value

    message = refused(rewrite(saved, about=change))
    assert message.startswith(f"The configuration in {saved} ")
    assert says in message


def test_a_list_for_a_configuration_is_refused(saved: Path) -> None:
    state, _ = cp.load_tensors(saved)
    save_tensors(saved, state, [1])  # type: ignore[arg-type]
    assert "is garbled" in refused(saved)


def test_a_huge_network_is_refused_before_it_takes_memory(saved: Path) -> None:
    """150 GB of weights, had they been made."""

    def change(said: dict[str, Any]) -> None:
        said["model"] |= {"width": 1024, "multipliers": [16, 16], "norm": "layer"}

    message = refused(rewrite(saved, about=change))
    assert "conv_in.weight is (8, 1, 3, 3), not (16384, 1, 3, 3)" in message


# Shards


@pytest.fixture
def sharded(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cp, "MAX_SHARD", 6000)
    return save_checkpoint(tmp_path / "run", tiny()).parent


def test_a_missing_shard_is_named(sharded: Path) -> None:
    name = sorted(p.name for p in sharded.glob("*.safetensors"))[1]
    (sharded / name).unlink()
    assert name in refused(sharded)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {"x": "../outside.safetensors"}}, "names files outside its folder"),
        ({"weight_map": {"x": "/etc/passwd"}}, "names files outside its folder"),
        ({"weight_map": {"x": ".."}}, "is not a whole safetensors file"),
        ({"weight_map": {"x": 5}}, "is garbled"),
        ({"weight_map": {"x": ["a"]}}, "is garbled"),
        ({"weight_map": [1]}, "is garbled"),
        ({"weight_map": {}}, "names no files"),
        ({}, "is garbled"),
        ([1], "is garbled"),
        (None, "is garbled"),
    ],
)
def test_a_bad_index_is_refused(sharded: Path, index: object, says: str) -> None:
    whole = save_checkpoint(sharded.parent / "other", load_checkpoint(sharded))
    (sharded.parent / "outside.safetensors").write_bytes(whole.read_bytes())
    text = "{" if index is None else json.dumps(index)
    (sharded / INDEX).write_text(text)
    assert says in refused(sharded)


def test_shards_of_two_saves_are_refused(sharded: Path, tiny: Tiny) -> None:
    """A kill between two shards leaves new ones beside old ones."""
    later = tiny(seed=1)
    later.info["images"] += 1
    first = sorted(sharded.glob("*.safetensors"))[0]
    other = save_checkpoint(sharded.parent / "later", later).parent
    (other / first.name).replace(first)
    assert "come from different saves" in refused(sharded)


def test_the_metadata_is_the_whole_configuration(saved: Path, tiny: Tiny) -> None:
    _, about = cp.load_tensors(saved)
    given = tiny()
    assert about["version"] == 1
    assert set(about["model"]) == {f.name for f in dataclasses.fields(given.model.config)}
    assert about["diffusion"] == dataclasses.asdict(given.diffusion)
