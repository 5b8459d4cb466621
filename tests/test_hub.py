"""Models of the Hub, and the app's entry for them, with stand-ins for the Hub."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import gradio as gr
import pytest
import torch
from diffusers import UNet2DModel
from folders import Malice, change, prediction_error
from huggingface_hub import errors

from ddpm_demo.config import DiffusionConfig, ModelConfig
from ddpm_demo.models import hub
from ddpm_demo.models.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.nn.unet import UNet
from ddpm_demo.ui import serve
from ddpm_demo.ui.components import hub_entry
from ddpm_demo.ui.components import hub_handlers as ui_hub
from ddpm_demo.ui.components.controls import ModelChoice
from ddpm_demo.ui.server import runtime, settings

try:  # by the version of huggingface-hub
    import httpx2 as http
except ImportError:
    import httpx as http

NAME = "somebody/tiny"
Fail = Callable[[], Exception]


def answer(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    request = http.Request("GET", "https://huggingface.co")
    return kind(f"{status} Client Error.\n\nMore.", response=http.Response(status, request=request))


class FakeHub:
    """Serves one folder as a repo into a cache, and keeps a record of what was asked for."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source, self.cache = source, cache
        self.fetched: list[str] = []
        self.asked = 0
        self.info_error: Exception | None = None
        self.fetch_error: Exception | None = None
        self.tags = ["diffusers", "license:apache-2.0"]
        self.library: str | None = "diffusers"
        self.bars: list[Any] = []
        self.cut: dict[str, int] = {}

    def model_info(self, repo_id: str, *, files_metadata: bool, timeout: float) -> Any:
        self.asked += 1
        assert files_metadata
        if self.info_error:
            raise self.info_error
        files = [p for p in self.source.rglob("*") if p.is_file()]
        siblings = [
            SimpleNamespace(rfilename=str(p.relative_to(self.source)), size=p.stat().st_size)
            for p in files
        ]
        return SimpleNamespace(
            siblings=siblings, tags=self.tags, downloads=12_345, library_name=self.library
        )

    def snapshot_download(
        self,
        repo_id: str,
        *,
        allow_patterns: list[str],
        local_files_only: bool = False,
        tqdm_class: Any = None,
    ) -> str:
        if local_files_only:
            if not self.cache.exists():
                raise errors.LocalEntryNotFoundError("Cannot find\na snapshot.")
            return str(self.cache)
        if self.fetch_error:
            raise self.fetch_error
        self.bars.append(tqdm_class)
        for name in allow_patterns:
            (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
            data = (self.source / name).read_bytes()[: self.cut.get(name)]
            (self.cache / name).write_bytes(data)
            self.fetched.append(name)
        return str(self.cache)


@pytest.fixture
def fake(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    (folder / "README.md").write_text("# a model")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"0" * 10**6)
    made = FakeHub(folder, tmp_path / "cache")
    monkeypatch.setattr(hub, "HfApi", lambda: made)
    monkeypatch.setattr(hub, "snapshot_download", made.snapshot_download)
    ui_hub.describe.cache_clear()
    monkeypatch.chdir(tmp_path)
    return made


CONFIGS = ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_download(fake: FakeHub, unet: Callable[..., UNet2DModel]) -> None:
    ours = load_checkpoint(NAME)
    assert ours.name == NAME
    assert prediction_error(ours, unet()) <= 1e-5
    assert set(fake.fetched) == {*CONFIGS, WEIGHTS}  # no README, no second format
    assert fake.fetched.index(WEIGHTS) >= len(CONFIGS)  # after the configurations were read

    fake.info_error = fake.fetch_error = http.ConnectError("no network")
    before = fake.asked
    assert load_checkpoint(NAME).name == NAME  # what is cached works offline
    assert fake.asked == before
    assert hub.cached(NAME) == fake.cache


PARTS: list[tuple[list[str], str]] = [
    (["unet/config.json", WEIGHTS], "scheduler/scheduler_config.json"),
    (["model_index.json", "unet/config.json", WEIGHTS], "scheduler/scheduler_config.json"),
    (CONFIGS, "the weights"),
    (["scheduler/scheduler_config.json", WEIGHTS], "unet/config.json"),
    ([WEIGHTS], "unet/config.json, scheduler/scheduler_config.json"),
]


@pytest.mark.parametrize(("there", "lacks"), PARTS, ids=[lacks for _, lacks in PARTS])
def test_what_is_missing_of_a_repo_is_fetched(
    there: list[str], lacks: str, fake: FakeHub, unet: Callable[..., UNet2DModel]
) -> None:
    """Other programs leave parts of a repo in the cache; offline, what is missing is named."""
    for name in there:
        (fake.cache / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(fake.source / name, fake.cache / name)
    assert hub.cached(NAME) is None
    fake.info_error = network("offline")
    with pytest.raises(CheckpointError, match=f"only in part on this disk, without {lacks}.*OFFLI"):
        load_checkpoint(NAME)
    fake.info_error = None
    assert prediction_error(load_checkpoint(NAME), unet()) <= 1e-5
    assert hub.cached(NAME) == fake.cache


def test_a_link_to_nothing_is_no_file(fake: FakeHub) -> None:
    """The cache holds links to blobs, and a blob can be deleted."""
    load_checkpoint(NAME)
    (fake.cache / WEIGHTS).unlink()
    (fake.cache / WEIGHTS).symlink_to(fake.cache / "gone")
    assert hub.cached(NAME) is None


def test_data_of_a_listed_model(fake: FakeHub) -> None:
    assert load_checkpoint("google/ddpm-cifar10-32").info["dataset"] == "cifar10"
    assert "dataset" not in load_checkpoint(NAME).info
    assert set(hub.DATASETS) <= set(hub.LISTED)


def test_download_of_the_flat_layout(fake: FakeHub) -> None:
    for path in ("unet/config.json", "scheduler/scheduler_config.json"):
        (fake.source / path).rename(fake.source / Path(path).name)
    weights = "diffusion_pytorch_model.safetensors"
    (fake.source / "unet" / weights).rename(fake.source / weights)
    assert load_checkpoint(NAME)
    flat = {"model_index.json", "config.json", "scheduler_config.json", weights}
    assert set(fake.fetched) == flat


@pytest.mark.parametrize("shards", [False, True])
def test_a_model_of_this_program(
    shards: bool, fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    saved = Checkpoint(UNet(ModelConfig(size=8, channels=1, width=8)).eval(), DiffusionConfig())
    if shards:
        monkeypatch.setattr("ddpm_demo.models.checkpoint.MAX_SHARD", 100_000)
    save_checkpoint(tmp_path / "saved", saved)
    (tmp_path / "saved" / "README.md").write_text("# a model")
    fake.source = tmp_path / "saved"
    with pytest.raises(CheckpointError, match="and it is not of ddpm_demo"):
        hub.describe(NAME)  # nor is any other model.safetensors

    fake.library = "ddpm_demo"
    loaded = load_checkpoint(NAME)
    assert loaded.name == NAME
    state = loaded.model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in saved.model.state_dict().items())
    files = {path.name for path in fake.source.iterdir()} - {"README.md"}
    assert set(fake.fetched) == files
    assert len(files) > 3 if shards else files == {"model.safetensors"}

    fake.info_error = fake.fetch_error = http.ConnectError("no network")
    assert load_checkpoint(NAME).name == NAME  # what is cached works offline
    next(fake.cache.glob("model*.safetensors")).unlink()
    assert hub.cached(NAME) is None


def serve_as_hub(folder: Path) -> ThreadingHTTPServer:
    """A server that answers as the Hub does for one repo, and refuses others as it does."""

    class Answer(BaseHTTPRequestHandler):
        def say(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path, sha = self.path.partition("?")[0], "a" * 40
            files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
            name = path.partition(f"/{NAME}/resolve/{sha}/")[2]
            if name in files:
                self.say(200, files[name].read_bytes(), ETag=f'"{name}"', X_Repo_Commit=sha)
            elif path.startswith(f"/api/models/{NAME}/tree/"):
                sizes = {name: file.stat().st_size for name, file in files.items()}
                tree = [{"type": "file", "path": k, "size": n, "oid": k} for k, n in sizes.items()]
                self.say(200, json.dumps(tree).encode())
            elif path.startswith(f"/api/models/{NAME}"):
                siblings = [{"rfilename": k, "size": f.stat().st_size} for k, f in files.items()]
                about = {"id": NAME, "sha": sha, "siblings": siblings, "tags": ["license:mit"]}
                self.say(200, json.dumps(about | {"downloads": 7}).encode())
            elif "gated" in path:
                self.say(403, b"{}", X_Error_Code="GatedRepo")
            else:  # missing or private: the Hub doesn't say which
                self.say(401, b"{}", X_Error_Code="RepoNotFound")

        do_HEAD = do_GET

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


THROUGH_THE_LIBRARY = f"""
from types import SimpleNamespace
from huggingface_hub.utils import _http
_http.time = SimpleNamespace(sleep=lambda s: None)  # between its tries

from ddpm_demo.models import hub
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.ui.components.hub_handlers import _bars
come = [0]
for online in (True, False):
    for name in ("nobody/none", "somebody/gated", {NAME!r}):
        try:
            about = hub.describe(name) if online else "offline"
            hub.download(name, tqdm_class=_bars(come.append))
            print(load_checkpoint(name).name, max(come), about, sep=" | ", flush=True)
        except ValueError as error:
            print(error, flush=True)
    input()
"""


def test_with_huggingface_hub_itself(folder: Path, tmp_path: Path) -> None:
    """Against a server of its protocol, among proxies that don't answer; then it is gone."""
    (folder / "README.md").write_text("# a model")
    server = serve_as_hub(folder)
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "example.org",
        "no_proxy": "example.org",
    }
    kinds = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    environment |= dict.fromkeys(kinds, "http://127.0.0.1:9")
    environment.pop("HF_HUB_OFFLINE", None)
    sizes = {name: (folder / name).stat().st_size for name in (*CONFIGS, WEIGHTS)}
    command = [sys.executable, "-c", THROUGH_THE_LIBRARY]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as child:
        missing, gated, loaded = (child.stdout.readline() for _ in range(3))
        server.shutdown()
        server.server_close()
        assert missing.startswith(
            "There is no nobody/none on this disk or on the Hub, or it is pri"
        )
        assert gated.startswith("somebody/gated is gated")
        about = f"{NAME}: {sum(sizes.values()) / 1e6:,.0f} MB, licence mit, 7 downloads"
        assert loaded == f"{NAME} | {sizes[WEIGHTS]} | {about}\n"
        got = {p.name for p in (tmp_path / "home").rglob("snapshots/*/**/*") if p.is_file()}
        assert got == {Path(name).name for name in sizes}

        missing, gated, loaded = child.communicate("\n\n", timeout=100)[0].splitlines()
        assert missing.startswith("nobody/none is not on this disk, and the Hub can't be reached")
        assert gated.startswith("somebody/gated is not on this disk, and the Hub can't be reached")
        assert loaded == f"{NAME} | {sizes[WEIGHTS]} | offline"


def test_describe(fake: FakeHub) -> None:
    about = hub.describe(NAME)
    sizes = {name: (fake.source / name).stat().st_size for name in (*CONFIGS, WEIGHTS)}
    assert about.files == sizes
    assert about.size == sum(sizes.values())
    assert (about.licence, about.downloads) == ("apache-2.0", 12_345)
    assert str(hub.RepoInfo(NAME, {"a": 142_985_228}, "mit", 12_345)) == (
        "somebody/tiny: 143 MB, licence mit, 12,345 downloads"
    )
    fake.tags = []
    assert "no licence stated" in str(hub.describe(NAME))
    assert fake.fetched == []


def test_limit(fake: FakeHub) -> None:
    size = hub.describe(NAME).size
    with pytest.raises(CheckpointError, match=r"tiny has 0 MB; the limit is 0 MB"):
        hub.download(NAME, most=size - 1)
    assert not fake.fetched
    assert hub.cached(NAME) is None
    assert hub.download(NAME, most=size) == fake.cache


def test_limit_is_2_gb(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    big = hub.RepoInfo(NAME, dict.fromkeys(CONFIGS, 1) | {WEIGHTS: 2 * 10**9}, None, 0)
    monkeypatch.setattr(hub, "describe", lambda _name: big)
    with pytest.raises(CheckpointError, match="has 2,000 MB; the limit is 2,000 MB"):
        hub.download(NAME)
    assert not fake.fetched
    monkeypatch.setenv("DDPM_DEMO_HUB_MB", "2000.1")
    assert hub.limit() == 2000.1e6
    with pytest.raises(CheckpointError, match="came without the whole"):  # the limit let it pass
        hub.download(NAME)
    for words in ("many", "-1", "nan"):
        monkeypatch.setenv("DDPM_DEMO_HUB_MB", words)
        with pytest.raises(
            CheckpointError, match=f"DDPM_DEMO_HUB_MB must be a number of megabytes, not '{words}'"
        ):
            hub.limit()


def test_bars(fake: FakeHub) -> None:
    class Bar:
        pass

    hub.download(NAME, tqdm_class=Bar)  # type: ignore[arg-type]
    assert fake.bars == [hub.Silent, Bar]


def test_a_config_that_cannot_be_used_costs_no_weights(fake: FakeHub) -> None:
    change(fake.source / "unet" / "config.json", block_out_channels=[10**9, 10**9])
    with pytest.raises(
        CheckpointError, match="somebody/tiny can't be used: block_out_channels must"
    ):
        load_checkpoint(NAME)
    change(fake.source / "model_index.json", _class_name="LDMPipeline")
    with pytest.raises(CheckpointError, match="_class_name must be"):
        load_checkpoint(NAME)
    assert WEIGHTS not in fake.fetched


def test_repos_without_a_model(fake: FakeHub) -> None:
    for path in (fake.source / "unet").glob("diffusion*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="somebody/tiny is no unconditional diffusion model"):
        load_checkpoint(NAME)


def network(kind: str) -> Exception:
    return {
        "missing": lambda: answer(errors.RepositoryNotFoundError, 404),
        "gated": lambda: answer(errors.GatedRepoError, 403),
        "disabled": lambda: answer(errors.DisabledRepoError, 403),
        "down": lambda: answer(errors.HfHubHTTPError, 503),
        "offline": lambda: errors.OfflineModeIsEnabled("Offline mode\nis on."),
        "unreachable": lambda: http.ConnectError("Name or service not known\nreally"),
        "slow": lambda: http.ReadTimeout("The read operation timed out"),
        "full": lambda: OSError(28, "No space left on device"),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no somebody/tiny on this disk or on the Hub, or it is private"),
        ("gated", "somebody/tiny is gated: ask for access"),
        ("disabled", "not on this disk and can't be downloaded .DisabledRepoError: 403"),
        ("down", "not on this disk and can't be downloaded .HfHubHTTPError: 503"),
        ("offline", "somebody/tiny is not on this disk, and HF_HUB_OFFLINE forbids"),
        ("unreachable", "not on this disk, and the Hub can't be reached: there is no connection"),
        ("slow", "not on this disk, and the Hub can't be reached: there is no connection"),
        ("full", "can't be downloaded .OSError: .Errno 28. No space left on device"),
    ],
)
@pytest.mark.parametrize("when", ["asked", "downloaded"])
def test_answers_in_one_sentence(when: str, kind: str, message: str, fake: FakeHub) -> None:
    setattr(fake, "info_error" if when == "asked" else "fetch_error", network(kind))
    with pytest.raises(CheckpointError, match=message) as raised:
        load_checkpoint(NAME)
    assert "\n" not in str(raised.value)
    assert fake.fetched == []


@pytest.mark.parametrize("name", ["a--b/c", "a/b--c", "a/b."])
def test_names_that_no_repo_has(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        CheckpointError, match=r"is not the name of a repo; one is like google/ddpm"
    ):
        load_checkpoint(name)


@pytest.mark.parametrize("name", [CONFIGS[1], WEIGHTS])
def test_a_download_that_comes_cut(name: str, fake: FakeHub) -> None:
    fake.cut[name] = 100
    with pytest.raises(CheckpointError, match=f"came without the whole of {name}: delete the fold"):
        load_checkpoint(NAME)


def test_what_goes_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "theirs").mkdir()
    (tmp_path / "runs" / "theirs" / "config.json").write_text("{}")
    assert all(hub.is_repo(name) for name in (*hub.LISTED, "some-one/m.v1"))
    ours = ("mnist", "runs/model.safetensors", "./runs/x", "a/b/c", "/etc/x", "~/x")
    assert not any(hub.is_repo(name) for name in ours)
    for here, said in (("mine", "There is no model 'runs/mine'"), ("theirs", "is missing")):
        with pytest.raises(CheckpointError, match=said):  # folders of this disk come first
            load_checkpoint(f"runs/{here}")
    with pytest.raises(CheckpointError, match="There is no model 'nowhere'"):
        load_checkpoint("nowhere")


def test_shipped_models_come_first(
    zoo: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tiny` here is a shipped model and a folder of the working directory."""
    monkeypatch.chdir(tmp_path)
    assert load_checkpoint("tiny").info["dataset"] == "none"
    assert "sample" in load_checkpoint("./tiny").info


# ---- the app's entry ----------------------------------------------------------------------------

Get = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def get(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Get:
    """Presses the button; what it says, and the visitor's list and choice at the end."""
    monkeypatch.setattr(runtime, "model", runtime.Models(load_checkpoint, 10**9))
    monkeypatch.setattr(ui_hub, "EVERY", 0.02)
    with gr.Blocks():
        choice = ModelChoice(gr.Dropdown(), gr.State({}))
    names = {choice.own: "own", choice.name: "name"}

    def press(repo: Any, any_repo: bool = True, own: Any = None) -> Any:
        for line, got in ui_hub.get(any_repo, repo):
            chosen = hub_entry.choose(choice, {} if own is None else own, got) if got else {}
            yield {"line": line} | {names[part]: value for part, value in chosen.items()}

    return press


def test_the_app_says_what_comes_then_fetches_and_chooses(fake: FakeHub, get: Get) -> None:
    own: dict[str, str] = {}
    pressed = iter(get(NAME, own=own))
    size = hub.describe(NAME).size
    assert next(pressed) == {
        "line": f"{NAME}: {size / 1e6:,.0f} MB, licence apache-2.0, 12,345 downloads."
    }
    assert fake.fetched == []
    own["mine"] = "runs/mine"  # a model that comes meanwhile stays
    *_, last = pressed
    assert WEIGHTS in fake.fetched
    assert last["own"] == {"mine": "runs/mine", NAME: NAME}
    assert last["name"]["value"] == NAME
    assert NAME in last["name"]["choices"]
    assert last["line"] == f"{NAME} is chosen."

    fake.info_error = fake.fetch_error = network("offline")  # it is on the disk now
    first, last = get(NAME)
    assert first["line"] == f"{NAME} is on this disk already."
    assert last["own"] == {NAME: NAME}


def test_the_app_shows_how_far_a_download_is(
    fake: FakeHub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fake.snapshot_download
    monkeypatch.setattr(
        ui_hub, "describe", lambda _repo: hub.RepoInfo(NAME, {"a": int(40e6)}, "mit", 1)
    )
    go, ended = threading.Event(), threading.Event()

    def slow(repo_id: str, *, tqdm_class: Any = None, **options: Any) -> str:
        if WEIGHTS in options["allow_patterns"]:
            bar, files = tqdm_class(total=0, unit="B", unit_scale=True), tqdm_class(total=4)
            try:
                while bar.n < 40e6:
                    bar.update(10e6)
                    bar.set_postfix_str("1 MB/s")
                    files.update(1)
                    assert go.wait(30)
                    go.clear()
            finally:
                ended.set()
        return whole(repo_id, tqdm_class=tqdm_class, **options)

    monkeypatch.setattr(hub, "snapshot_download", slow)

    def follow(pressed: Iterator[dict[str, Any]], megabytes: int) -> str:
        while f"{megabytes} of 40 MB" not in (line := next(pressed)["line"]):
            assert "tiny" in line
        return line

    pressed = iter(get(NAME))
    line = follow(pressed, 10)
    assert f'<progress max="{int(40e6)}" value="{int(10e6)}"' in line
    assert " s left" in line
    go.set()
    follow(pressed, 20)
    pressed.close()  # the visitor presses Stop, or leaves
    go.set()
    assert ended.wait(30)
    assert WEIGHTS not in fake.fetched


def test_strangers_get_the_listed_repos_only(fake: FakeHub, get: Get, folder: Path) -> None:
    for repo in (NAME, str(folder), "mnist", "", None, 7, ["google/ddpm-cifar10-32"], {}):
        with pytest.raises(gr.Error, match=r"Repo must be google/ddpm-cifar10-32, google/"):
            list(get(repo, any_repo=False))
    assert (fake.asked, fake.fetched) == (0, [])
    *_, last = get("google/ddpm-cifar10-32", any_repo=False)
    assert last["name"]["value"] == "google/ddpm-cifar10-32"


def test_a_folder_of_this_disk(fake: FakeHub, get: Get, folder: Path) -> None:
    first, last = get(f" {folder.name} ")
    assert first["line"] == f"{folder} is on this disk."
    assert last["own"] == {"tiny (this disk)": str(folder)}
    assert (fake.asked, fake.fetched) == (0, [])


BAD_IN_THE_APP: dict[str, str] = {
    "missing": r"There is no somebody/tiny .* or it is private",
    "private": r"There is no somebody/tiny .* or it is private",
    "gated": "somebody/tiny is gated",
    "offline": "somebody/tiny is not on this disk, and HF_HUB_OFFLINE forbids",
    "down": "somebody/tiny is not on this disk and can't be downloaded .HfHubHTTPError: 503",
    "no name": "Repo must be the name of a repo",
    "another pipeline": "_class_name must be 'DDPMPipeline' or",
    "1e9 channels": "block_out_channels must be .*, not .1000000000, 1000000000.",
    "too big": "somebody/tiny has 0 MB; the limit is 0 MB",
    "half": "is not a whole file of weights",
    "half on this disk": "is not a whole file of weights",
    "malice": "is broken or holds more than weights; it is refused, and nothing of it was run",
}


@pytest.mark.parametrize("case", BAD_IN_THE_APP)
def test_bad_models_are_one_line_in_the_app_which_goes_on(
    case: str, fake: FakeHub, get: Get, folder: Path, tmp_path: Path, unet: Any, monkeypatch: Any
) -> None:
    repo, weights = NAME, fake.source / WEIGHTS
    good = tmp_path / "good"
    shutil.copytree(folder, good)
    if case in ("missing", "gated", "offline", "down"):
        fake.info_error = network(case)
    elif case == "private":
        fake.info_error = answer(errors.RepositoryNotFoundError, 401)
    elif case == "no name":
        repo = "cats"
    elif case == "another pipeline":
        change(fake.source / "model_index.json", _class_name="LDMPipeline")
    elif case == "1e9 channels":
        change(fake.source / "unet" / "config.json", block_out_channels=[10**9, 10**9])
    elif case == "too big":
        monkeypatch.setenv("DDPM_DEMO_HUB_MB", "0.001")
    elif case == "half":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif case == "half on this disk":
        weights.write_bytes(weights.read_bytes()[:-100])
        repo = str(folder)
    else:
        weights.unlink()
        torch.save({"a": Malice(tmp_path / "harm")}, weights.with_suffix(".bin"))
    with pytest.raises(gr.Error) as raised:
        list(get(repo))
    said = html.unescape(raised.value.message)
    assert re.search(BAD_IN_THE_APP[case], said), said
    assert "\n" not in said
    assert not (tmp_path / "harm").exists()
    *_, last = get(str(good))
    assert last["own"] == {"good (this disk)": str(good)}


def test_the_line_before_a_download(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ui_hub.about("google/ddpm-church-256", False)
    assert listed.startswith("google/ddpm-church-256: 0 MB, licence apache-2.0, 12,345 downloads. ")
    assert listed.endswith(" LSUN, churches, 256 × 256.")
    monkeypatch.setenv("DDPM_DEMO_HUB_MB", "0.001")
    said = "12,345 downloads: over the limit of 0 MB, which DDPM_DEMO_HUB_MB in the app's"
    assert said in html.unescape(ui_hub.about(NAME, True))
    assert fake.fetched == []
    assert ui_hub.about("<b>", True).endswith("not &#x27;&lt;b&gt;&#x27;.")
    assert "Repo must be google/" in ui_hub.about(NAME, False)


def test_the_first_repo_is_offered_where_it_can_be_had(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "open" not in ui_hub.offer()[0]  # no GPU
    monkeypatch.setattr(runtime, "device", lambda: torch.device("cuda"))
    entry, line = ui_hub.offer()
    assert entry["open"]
    assert line.startswith("google/ddpm-cifar10-32: ")
    ui_hub.describe.cache_clear()
    fake.info_error = network("unreachable")
    assert "open" not in ui_hub.offer()[0]
    fake.cache.mkdir()
    shutil.copytree(fake.source, fake.cache, dirs_exist_ok=True)
    assert ui_hub.offer()[0]["open"]


@pytest.mark.parametrize("any_repo", [True, False])
def test_what_is_laid_out(any_repo: bool) -> None:
    """Strangers have a list and no text field."""
    with gr.Blocks() as demo:
        hub_entry.build_hub_entry(ModelChoice(gr.Dropdown(), gr.State({})), any_repo)
    repo = next(b for b in demo.blocks.values() if getattr(b, "elem_id", "") == "hub-repo")
    assert repo.allow_custom_value == any_repo
    assert [value for _, value in repo.choices] == list(hub.LISTED)
    offered = [f for f in demo.fns.values() if f.name == "offer"]
    assert len(offered) == 1
    assert all([event for _, event in f.targets] == ["load"] for f in offered)


@pytest.mark.parametrize(
    ("arguments", "space", "any_repo"),
    [
        ([], False, True),
        (["--host", "localhost"], False, True),
        (["--host", "0.0.0.0"], False, False),
        (["--share"], False, False),
        ([], True, False),
        (["--host", "127.0.0.1"], True, False),
    ],
)
def test_any_repo_is_for_who_is_alone_with_the_app(
    arguments: list[str], space: bool, any_repo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "strangers", None)
    for name in ("_serve", "end", "end_by_signals", "require_free"):
        monkeypatch.setattr(serve, name, Mock())
    monkeypatch.delenv("SPACE_ID", raising=False)
    if space:
        monkeypatch.setenv("SPACE_ID", "somebody/ddpm")
    serve.main(arguments)
    assert settings.strangers == (not any_repo)
