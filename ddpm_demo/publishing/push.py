"""Uploads fine-tuned models to the Hub, each with a card."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

from ddpm_demo.config import require
from ddpm_demo.models.checkpoint import Checkpoint, save_file
from ddpm_demo.models.load import load_checkpoint
from ddpm_demo.publishing.private import public

WEIGHTS = "model.safetensors"
NAME = "a name such as YOU/cifar10-ship"


def login() -> str:
    """The token of this machine's login or of the environment. Only the Hub may see it.

    Raises:
        ValueError: there is no token.
    """
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise ValueError("No Hugging Face login here: run `hf auth login`, or set HF_TOKEN.")
    return token


def repo_name(words: str) -> str:
    """Check the name of a repo that somebody typed, and return it without spaces around it.

    Raises:
        ValueError: it is not a valid name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    repo = words.strip()
    try:
        validate_repo_id(repo)
    except HFValidationError:
        repo = ""
    require(bool(repo), "repository", words.strip(), NAME)
    return repo


def push(file: Path, repo: str) -> str:
    """Upload a model's file with a card, in one commit. Make the repo if there is none.

    Returns:
        The address of the repo.

    Raises:
        ValueError: the upload failed. The message is one sentence without the token.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    token, repo = login(), repo_name(repo)
    checkpoint = public(load_checkpoint(file))
    try:
        api = HfApi(token=token)
        url = api.create_repo(repo, exist_ok=True)
        text = card(checkpoint, url.repo_id)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder, WEIGHTS)
            save_file(weights, checkpoint)  # without the paths that the file's metadata may have
            files = [
                CommitOperationAdd(WEIGHTS, weights),
                CommitOperationAdd("README.md", text.encode()),
            ]
            api.create_commit(repo, files, commit_message="Model and card by ddpm_demo")
    except Exception as error:  # errors of httpx or httpx2, a full disk, and others
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = reason.replace(token, "…")  # even if the Hub's message has the token
        raise ValueError(f"{repo} was not pushed: {reason}") from None
    return str(url)


def card(checkpoint: Checkpoint, repo: str) -> str:
    """The model card of a fine-tuned model, in Markdown with the Hub's front matter."""
    info, model = checkpoint.info, checkpoint.model.config
    run = info.get("train") or {}
    parameters = checkpoint.parameters / 1e6
    seen = f", class {run['only']}" if run.get("only") else ""
    about = {
        "model": dataclasses.asdict(model),
        "diffusion": dataclasses.asdict(checkpoint.diffusion),
        "train": run,
    }
    return f"""---
library_name: ddpm_demo
pipeline_tag: unconditional-image-generation
tags: [ddpm, diffusion, unconditional-image-generation]
---
# {repo.rpartition("/")[2]}

A DDPM (Ho, Jain & Abbeel 2020) of {parameters:.1f} M parameters for pictures of
{model.size} × {model.size}, fine-tuned from `{info.get("base")}` with ddpm_demo on
{info.get("dataset")}{seen}: {info.get("images", 0):,} pictures seen, batches of
{run.get("batch_size")}, learning rate {run.get("lr")}. The weights are the exponential moving
average, in half precision.

    python -m ddpm_demo sample --model {repo} -n 16 --out samples.png

draws from it. The app takes it under *More models from the Hub*, and `model.safetensors` in its tab
Fine-tune.

## Configuration

```json
{json.dumps(about, indent=1)}
```
"""
