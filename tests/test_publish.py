"""Pushing to the Hub, with a stand-in for it: what is sent, what is said, and that no token is."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from huggingface_hub import CommitOperationAdd, RepoUrl

from ddpm_demo.models.checkpoint import Checkpoint, save_file
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.publishing import push as publish

TOKEN = "hf_aVerySecretToken"


class Unreachable(Exception):
    """As httpx's and httpx2's: no OSError."""


class Hub:
    """What `HfApi` is asked for, and the files that it gets."""

    asked: ClassVar[list[tuple[Any, ...]]]
    fails: ClassVar[Exception | None]

    def __init__(self, token: str) -> None:
        assert token == TOKEN

    def create_repo(self, repo: str, exist_ok: bool) -> RepoUrl:
        if self.fails:
            raise self.fails
        self.asked.append(("create", repo, exist_ok))
        return RepoUrl(f"https://huggingface.co/{repo}")

    def create_commit(
        self, repo: str, operations: list[CommitOperationAdd], commit_message: str
    ) -> None:
        files = {}
        for operation in operations:
            with operation.as_file() as file:
                files[operation.path_in_repo] = file.read()
        self.asked.append(("commit", repo, files))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    monkeypatch.setattr(Hub, "asked", [], raising=False)
    monkeypatch.setattr(Hub, "fails", None, raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    return Hub


@pytest.fixture
def file(tiny: Callable[..., Checkpoint], tmp_path: Path) -> Path:
    tuned = tiny(num_classes=3)
    train = {"only": "kind 1", "batch_size": 16, "lr": 2e-4}
    tuned.info |= {"base": "net", "dataset": "cifar10", "images": 1234, "train": train}
    path = tmp_path / "net-kind-1-40.safetensors"
    save_file(path, tuned)
    return path


def test_weights_and_card_go_in_one_commit(hub: type[Hub], file: Path, tmp_path: Path) -> None:
    assert publish.push(file, " me/net-kind ") == "https://huggingface.co/me/net-kind"
    create, (kind, repo, files) = hub.asked
    assert create == ("create", "me/net-kind", True)
    assert (kind, repo, sorted(files)) == (
        "commit",
        "me/net-kind",
        ["README.md", "model.safetensors"],
    )
    (tmp_path / "again.safetensors").write_bytes(files["model.safetensors"])
    again = load_checkpoint(tmp_path / "again.safetensors")
    for name, weight in load_checkpoint(file).model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])
    _, front, text = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "ddpm_demo"
    assert text.startswith("# net-kind\n")
    for said in ("fine-tuned from `net`", "cifar10, class kind 1", "1,234 pictures seen", "0.0002"):
        assert said in text
    assert "sample --model me/net-kind -n" in text


def test_only_names_leave_this_machine(
    hub: type[Hub], tiny: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    tuned = tiny(num_classes=3)
    place = str(tmp_path)
    train = {"dataset": f"folder:{place}/secret/cats", "batch_size": 16, "lr": 2e-4}
    tuned.info |= {"base": f"{place}/models/net", "dataset": train["dataset"], "train": train}
    save_file(tmp_path / "a.safetensors", tuned)
    publish.push(tmp_path / "a.safetensors", "me/net")
    files = hub.asked[-1][2]
    for content in files.values():
        assert place.encode() not in content
        assert b"secret" not in content
    assert b"folder:cats" in files["README.md"]
    assert b"fine-tuned from `net`" in files["README.md"]


def test_the_token_is_in_nothing(
    hub: type[Hub],
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = [publish.push(file, "me/net"), *map(str, hub.asked)]
    monkeypatch.setattr(hub, "fails", OSError(f"401 Unauthorized for Bearer {TOKEN}\nlong\ntrace"))
    with pytest.raises(ValueError, match="401") as caught:
        publish.push(file, "me/net")
    assert str(caught.value) == "me/net was not pushed: 401 Unauthorized for Bearer …"
    assert caught.value.__suppress_context__
    shown += [str(caught.value), caplog.text, *capfd.readouterr()]
    assert not any(TOKEN in words for words in shown)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unreachable("[Errno 111] Connection refused"), "[Errno 111] Connection refused"),
        (Unreachable(), "Unreachable"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_whatever_goes_wrong_is_one_line(
    hub: type[Hub], file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr(hub, "fails", error)
    with pytest.raises(ValueError, match="was not pushed") as caught:
        publish.push(file, "me/net")
    assert str(caught.value) == f"me/net was not pushed: {said}"


def test_without_a_login_or_a_name(
    hub: type[Hub], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="Repository must be a name such as YOU/cifar10-ship"):
        publish.push(file, " ")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match=r"No Hugging Face login here: run `hf auth login`, or"):
        publish.push(file, "me/net")
    assert hub.asked == []
