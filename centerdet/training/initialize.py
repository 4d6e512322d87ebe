"""The weights that training starts from: a backbone's, a local file's, or a whole detector's."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import WeightsError
from ..models import Network
from ..runtimes.weights import read_tensors, weights_path
from ..text import plural
from .config import TrainConfig

__all__ = ["build_network"]


def build_network(config: TrainConfig, names: Sequence[str], notice: Callable[[str], object]) -> Network:
    """The network with the config's weights; prints how many keys of a local file were loaded."""
    weights = None if config.init_from or config.backbone_weights == "none" else config.backbone_weights
    network = Network(len(names), **config.model, weights=weights)
    if weights not in (None, "imagenet", "download") and (report := network.load_report):
        notice(
            f"{weights}: {plural(len(report.loaded), 'key')} loaded, {len(report.missing)} missing"
            f"{_examples(report.missing)}, {len(report.unexpected)} unexpected{_examples(report.unexpected)}"
        )
    if config.init_from:
        _load_detector(network, weights_path(config.init_from), names)
    return network


def _examples(keys: Sequence[str]) -> str:
    return f" ({', '.join(keys[:3])}{', …' * (len(keys) > 3)})" if keys else ""


def _load_detector(network: Network, path: Path, names: Sequence[str]) -> None:
    """Load a detector's weights; if the classes differ, all but the last layer of the heatmap head."""
    tensors, fields = read_tensors(path)
    expected = network.state_dict()
    if fields.get("names") != list(names):
        last = f"heatmap_head.{len(network.heatmap_head) - 1}."
        tensors = {key: value for key, value in tensors.items() if not key.startswith(last)}
        expected = {key: value for key, value in expected.items() if not key.startswith(last)}
    wrong = [
        key
        for key in expected.keys() | tensors.keys()
        if key not in expected or key not in tensors or expected[key].shape != tensors[key].shape
    ]
    if wrong:
        raise WeightsError(f"{path}: made for another network: {len(wrong)} tensors do not fit, such as {min(wrong)}")
    network.load_state_dict(tensors, strict=False)
