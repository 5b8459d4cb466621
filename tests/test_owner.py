"""`--models hub:OWNER`: what an owner has pushed stands where the shipped models stand."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

import ddpm_demo as dd
from ddpm_demo.cli import main
from ddpm_demo.models import hub, owner
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from ddpm_demo.models.zoo import VARIABLE, available, facts
from ddpm_demo.ui import serve

Stand = Callable[..., list[str]]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Checkpoint]) -> Any:
    """Puts a stand-in for the Hub in place, and says what was downloaded."""
    save_checkpoint(tmp_path / "pushed", tiny())
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    fetched: list[str] = []

    def there(*names: str, fail: Exception | None = None) -> list[str]:
        def list_models(author: str, filter: str, limit: int) -> list[Any]:
            assert (author, filter) == ("somebody", "ddpm_demo")
            if fail:
                raise fail
            return [SimpleNamespace(id=f"somebody/{name}") for name in names][:limit]

        def download(repo: str) -> Path:
            fetched.append(repo)
            return tmp_path / "pushed"

        monkeypatch.setattr(owner, "HfApi", lambda: SimpleNamespace(list_models=list_models))
        monkeypatch.setattr(hub, "download", download)
        monkeypatch.setenv(VARIABLE, "hub:somebody")
        owner.folder_of.cache_clear()
        return fetched

    yield there
    owner.folder_of.cache_clear()


@pytest.mark.parametrize("links", [True, False])
def test_an_owners_models_are_the_models(
    stand: Stand, links: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(OSError()))
    fetched = stand("digits", "ships")
    assert available() == ["digits", "ships"]
    assert facts("ships").config.size == dd.load("digits").checkpoint.model.config.size
    assert main(["models"]) == 0
    assert "ships" in capsys.readouterr().out
    assert fetched == ["somebody/digits", "somebody/ships"]  # once


def test_without_the_hub_there_is_what_came_before(stand: Stand, tmp_path: Path) -> None:
    broken = OSError("no network")
    stand("digits", fail=broken)
    with pytest.raises(CheckpointError, match="somebody's models"):
        available()
    stand("digits")
    assert available() == ["digits"]
    stand(fail=broken)
    assert available() == ["digits"]
    shutil.rmtree(tmp_path / "home")


@pytest.mark.parametrize("bad", ["", "..", "a/b", "../../etc", "x" * 99, "a b"])
def test_what_is_no_owner(bad: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv(VARIABLE, "")  # the program sets it
    assert main(["--models", f"hub:{bad}", "models"]) == 2
    assert "is not the name of an owner" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        serve.options_of(["--models", f"hub:{bad}"])
    assert "is not the name of an owner" in capsys.readouterr().err


def test_an_owner_without_models(stand: Stand) -> None:
    stand()
    with pytest.raises(CheckpointError, match="no model on the Hub that this program has pushed"):
        available()
