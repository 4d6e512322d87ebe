"""The PyTorch runtime: folded once, exportable, and equal to network and decode one after the other."""

import threading

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import NAMES, tiny_network
from torch import nn

from centerdet.codec import decode
from centerdet.errors import ConfigError
from centerdet.runtimes import TOP_K, open_runtime
from centerdet.runtimes.pytorch import Graph, PyTorchRuntime, find_device, halve


def _images(count: int, size: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def runtime() -> PyTorchRuntime:
    return PyTorchRuntime(tiny_network(), NAMES, 64, device="cpu")


@pytest.mark.parametrize("freeze", [0, 3])
def test_run_is_the_network_and_decode(freeze: int) -> None:
    network = tiny_network(freeze=freeze).eval()
    images = _images(3)
    with torch.no_grad():
        outputs = network(torch.from_numpy(images).permute(0, 3, 1, 2))
        expected = decode(*outputs, stride=8, top_k=TOP_K)
    boxes, scores, labels = PyTorchRuntime(network, NAMES, 64, device="cpu").run(images)
    assert (boxes.shape, scores.shape, labels.shape) == ((3, 192, 4), (3, 192), (3, 192))  # 3 classes, 8 x 8 cells
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
    np.testing.assert_allclose(scores, expected[1].numpy(), atol=1e-4)
    sure = np.isfinite(scores) & (scores > 0)  # cells beside a peak score 0, in any order
    np.testing.assert_allclose(boxes[sure], expected[0].numpy()[sure], atol=0.05)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_no_batchnorm_is_left_and_the_network_is_untouched(runtime: PyTorchRuntime) -> None:
    def norms(module: nn.Module) -> int:
        return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())

    assert norms(runtime.graph) == 0 < norms(runtime.network)
    network = tiny_network().train()
    PyTorchRuntime(network, NAMES, 64, device="cpu").run(_images(1))
    assert network.training and any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.soak
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
def test_the_graph_is_exported_with_any_batch(backbone: str) -> None:
    graph = Graph(tiny_network(backbone=backbone, freeze=2))
    program = torch.export.export(
        graph, (torch.from_numpy(_images(2)),), dynamic_shapes=({0: torch.export.Dim("N", min=1, max=64)},)
    )
    exported = program.module()
    for count in (1, 3):
        images = torch.from_numpy(_images(count))
        with torch.no_grad():
            for mine, other in zip(exported(images), graph(images), strict=True):
                torch.testing.assert_close(mine, other)
    operations = {str(node.target) for node in program.graph.nodes}
    assert not any("batch_norm" in name or "set_grad_enabled" in name for name in operations)


def test_several_threads_may_run_at_once(runtime: PyTorchRuntime) -> None:
    images, results = _images(1), []
    expected = runtime.run(images)
    threads = [threading.Thread(target=lambda: results.append(runtime.run(images))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        for mine, other in zip(result, expected, strict=True):
            assert np.array_equal(mine, other)


def test_images_may_be_read_only(runtime: PyTorchRuntime) -> None:
    images = _images(1)
    images.setflags(write=False)
    assert np.array_equal(runtime.run(images)[1], runtime.run(images.copy())[1])


def test_devices_that_this_machine_lacks_are_errors() -> None:
    assert find_device("cpu").type == "cpu"
    for device in ("tpu9", "cuda:99", "meta me"):
        with pytest.raises(ConfigError, match=rf"device: {device} cannot be used on this machine"):
            open_runtime("voc", device=device)


def test_halving_changes_no_network_but_its_copy() -> None:
    network = tiny_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    halved = halve(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in halved.state_dict().items())
    for value in halved.state_dict().values():
        assert not value.is_floating_point() or torch.equal(value, value.half().float())
