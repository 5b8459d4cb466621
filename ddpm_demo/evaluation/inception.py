"""FID's Inception network, Inception score, precision and recall, all by torch-fidelity."""

from __future__ import annotations

import http.client
import importlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_demo.config import either, require
from ddpm_demo.evaluation.features import MetricError, Summary
from ddpm_demo.machine.files import expand

SPLITS = 10  # the number of splits for the Inception score
NEIGHBOURS = 3  # the number of neighbours for precision and recall


class Inception:
    """An extractor of torch-fidelity. By default it is Inception with the weights for FID.

    Args:
        weights: the file with the weights. By default it is torch.hub's, downloaded on first use.
        extractor: the name in torch-fidelity's registry.

    Raises:
        MetricError: torch-fidelity isn't installed, or the weights can't be loaded.
    """

    def __init__(
        self,
        weights: Path | None = None,
        device: torch.device | str = "cpu",
        extractor: str = "inception-v3-compat",
    ) -> None:
        known = _fidelity("registry").FEATURE_EXTRACTORS_REGISTRY
        require(extractor in known, "extractor", extractor, either(known))
        layer = known[extractor].get_default_feature_layer_for_metric
        self.layers = layer("fid"), layer("isc")
        if extractor == "inception-v3-compat":
            weights = weights or inception_weights()
            _require_tensors(weights)
        self.device, self.name = torch.device(device), extractor
        try:
            self.net = (
                _fidelity("utils")
                .create_feature_extractor(
                    extractor,
                    list(dict.fromkeys(self.layers)),
                    cuda=False,
                    feature_extractor_weights_path=weights and str(weights),
                    verbose=False,
                )
                .to(self.device)
            )
        except RuntimeError as error:  # other tensors than Inception's
            raise MetricError(f"{weights} holds other weights: {str(error)[:200]}.") from error
        self.dim = self.extract(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))[0].shape[1]

    @torch.no_grad()
    def extract(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of (B, C, H, W) uint8 pictures. Grey pictures become RGB."""
        rgb = pixels.expand(-1, 3, -1, -1).contiguous().to(self.device)
        found = self.net.convert_features_tuple_to_dict(self.net(rgb))
        features, logits = (found[layer] for layer in self.layers)
        return features, logits


def inception_weights() -> Path:
    """The file with the weights of FID's Inception, in torch.hub's folder. Downloads it if needed.

    Raises:
        MetricError: the file isn't there and can't be downloaded.
    """
    url = _fidelity("feature_extractor_inceptionv3").URL_INCEPTION_V3
    path = Path(expand(torch.hub.get_dir()), "checkpoints", url.rpartition("/")[2])
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2])
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise MetricError(
            f"The Inception weights can't be downloaded ({reason}); connect once, or put {url} "
            f"at {path}."
        ) from error
    return path


def _require_tensors(path: Path) -> None:
    """Refuse a file that holds more than tensors, because torch-fidelity would run any pickle."""
    try:
        torch.load(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MetricError(f"{path} is not a whole file of Inception weights ({reason}).") from None


def _fidelity(part: str) -> Any:
    """Import a module of torch-fidelity, an optional package."""
    try:
        return importlib.import_module(f"torch_fidelity.{part}")
    except ImportError as error:
        raise MetricError(
            "FID, Inception score, precision and recall need torch-fidelity; "
            "install it with: pip install 'torch-fidelity>=0.4'."
        ) from error


def inception_score(samples: Summary) -> tuple[float, float]:
    """The Inception score: mean and standard deviation over ten splits (Salimans et al. 2016).

    Raises:
        ValueError: there are fewer than 100 pictures.
    """
    n = len(samples.logits)
    require(n >= 10 * SPLITS, "number of pictures", n, f"{10 * SPLITS} or more for {SPLITS} splits")
    score = _fidelity("metric_isc").isc_features_to_metric(samples.logits, splits=SPLITS)
    return score["inception_score_mean"], score["inception_score_std"]


def precision_recall(samples: Summary, data: Summary) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019) of the kept features, k = 3.

    They use Inception's features, while the paper uses VGG's. Both depend on the numbers of
    pictures, so compare only results with the same numbers.

    Raises:
        ValueError: there are fewer than four pictures.
    """
    for summary in (samples, data):
        n = len(summary.features)
        require(n > NEIGHBOURS, "number of pictures", n, f"{NEIGHBOURS + 1} or more")
    found = _fidelity("metric_prc").prc_features_to_metric(
        samples.features,
        data.features,
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=1000,
        save_cpu_ram=True,
        verbose=False,
    )
    return found["precision"], found["recall"]
