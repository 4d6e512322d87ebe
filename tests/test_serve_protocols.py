"""What other programs send: DeepStack's and CodeProject.AI's requests, Label Studio's, and CVAT's function.

The bodies are those of the programs' documentation; the soak tests use the clients themselves.
"""

import base64
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import local_server
import PIL.Image
import pytest
from serving import CAT, PHOTOGRAPHS, serve

from centerdet import Detector
from centerdet.errors import ConfigError
from centerdet.serve.protocols import LabelStudio

CONFIG = """
<View>
  <Image name="image" value="$photo"/>
  <RectangleLabels name="label" toName="image">
    <Label value="Cat" background="red"/>
    <Label value="Vehicle" predicted_values="car, bus,person"/>
    <Label value="Tree"/>
  </RectangleLabels>
</View>
"""
JWT = "aaa.bbb.ccc"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("voc", device="cpu")


@pytest.fixture(scope="module")
def client(detector: Detector) -> Iterator[httpx.Client]:
    with serve(detector, model="voc") as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def boxes(detector: Detector, score: float, content: bytes = CAT) -> list[dict[str, Any]]:
    """DeepStack's predictions."""
    return [
        {"label": one.name, "confidence": one.score}
        | dict(zip(("x_min", "y_min", "x_max", "y_max"), map(round, one.box), strict=True))
        for one in detector.predict(content, score_threshold=score)
    ]


def test_deepstack_detection(client: httpx.Client, detector: Detector) -> None:
    data = {"min_confidence": "0.05", "api_key": ""}
    answer = client.post("/v1/vision/detection", files={"image": CAT}, data=data)
    assert answer.status_code == 200
    found = answer.json()
    assert found["predictions"] == boxes(detector, 0.05)
    assert (found["success"], found["code"], found["count"]) == (True, 200, len(found["predictions"]))
    default = client.post("/v1/vision/detection", files={"image": ("frame.jpg", CAT)}, data={"anything": "else"})
    assert default.json()["predictions"] == boxes(detector, 0.45)
    assert client.get("/v1/status/ping").json()["success"] is True


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"files": {"image": b"text"}}, "expected an image"),
        ({"data": {"min_confidence": "0.4"}}, "image: expected a file"),
        ({"content": CAT}, "image: expected a file"),
        ({"files": {"image": CAT}, "data": {"min_confidence": "high"}}, "min_confidence: expected a number"),
    ],
)
def test_deepstack_errors(client: httpx.Client, body: dict[str, Any], message: str) -> None:
    answer = client.post("/v1/vision/detection", **body)
    assert answer.status_code == 400
    assert answer.json()["success"] is False and message in answer.json()["error"]


def test_deepstack_key_is_the_token(detector: Detector) -> None:
    with serve(detector, token="secret") as url:
        for key, status in (("secret", 200), ("wrong", 401), ("", 401)):
            answer = httpx.post(f"{url}/v1/vision/detection", files={"image": CAT}, data={"api_key": key}, timeout=60)
            assert (answer.status_code, answer.json()["success"]) == (status, status == 200)


class Studio(local_server.QuietHandler):
    """A Label Studio: images for those who have a token of either kind, a redirect to a storage, and large files."""

    def do_GET(self) -> None:
        key = self.headers.get("Authorization", "")
        if self.path.startswith("/storage/"):
            self.answer(403 if key else 200, CAT)  # a token that came along would be a leak
        elif key not in ("Token legacy", "Bearer short-lived"):
            self.answer(401, b"")
        elif self.path.startswith("/tasks/1/resolve"):
            self.send_response(303)
            self.send_header("Location", "/storage/cat.png")
            self.end_headers()
        elif self.path == "/large":
            self.answer(200, bytes(30_000_000))
        else:
            self.answer(200, (PHOTOGRAPHS / Path(self.path).name).read_bytes())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.path == "/api/token/refresh" and body == {"refresh": JWT}
        self.answer(200 if good else 401, b'{"access": "short-lived"}' if good else b"{}")

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has read enough
            self.wfile.write(content)


def ask(url: str, *images: object, config: object = CONFIG) -> httpx.Response:
    """Label Studio's request for predictions."""
    body = {
        "tasks": [{"id": number, "data": {"photo": image}} for number, image in enumerate(images)],
        "model_version": "voc", "project": "1.1699999999", "label_config": config,
        "params": {"login": None, "password": None, "context": None},
    }  # fmt: skip
    return httpx.post(f"{url}/predict", json=body, timeout=60)


@pytest.mark.parametrize("key", ["legacy", JWT])
def test_label_studio_labels_its_images(detector: Detector, key: str) -> None:
    with local_server.serve(Studio) as home, serve(detector, model="voc", label_studio=LabelStudio(home, key)) as url:
        inline = "data:image/png;base64," + base64.b64encode(CAT).decode()
        images = ("/data/upload/1/chelsea.png", f"{home}/data/local-files/astronaut.png", "/tasks/1/resolve/?x", inline)
        answer = ask(url, *images).json()
        assert answer["model_version"] == "voc"
        assert "error" not in str(answer)
        upload, local, resolved, inlined = answer["results"]
        assert upload == resolved == inlined
        for result, content in ((upload, CAT), (local, (PHOTOGRAPHS / "astronaut.png").read_bytes())):
            names = {"cat": "Cat", "person": "Vehicle", "car": "Vehicle", "bus": "Vehicle"}
            expected = [one for one in detector.predict(content) if one.name in names]
            assert expected
            assert result["model_version"] == "voc"
            assert result["score"] == pytest.approx(sum(one.score for one in expected) / len(expected))
            for rectangle, one in zip(result["result"], expected, strict=True):
                width, height, value = rectangle["original_width"], rectangle["original_height"], rectangle["value"]
                assert (height, width) == detector.predict(content).size
                fields = {key: rectangle[key] for key in ("type", "from_name", "to_name", "image_rotation", "score")}
                assert fields == {
                    "type": "rectanglelabels", "from_name": "label", "to_name": "image", "image_rotation": 0,
                    "score": one.score,
                }  # fmt: skip
                assert value["rectanglelabels"] == [names[one.name]] and value["rotation"] == 0
                x, y = value["x"] * width / 100, value["y"] * height / 100
                corners = (x, y, x + value["width"] * width / 100, y + value["height"] * height / 100)
                assert corners == pytest.approx(one.box)


def test_label_studio_gets_a_result_for_each_task_and_its_error(detector: Detector) -> None:
    with local_server.serve(Studio) as home, serve(detector, label_studio=LabelStudio(home, "legacy")) as url:
        bad = [
            "http://169.254.169.254/latest", "file:///etc/passwd", f"{home}.evil.example/a.png", "//evil.example/a.png",
            "s3://bucket/a.png", "/large", "/data/missing.png", "/data/README.txt", "data:image/png;base64,a", "data:,",
            5, None,
        ]  # fmt: skip
        results = ask(url, *bad, "/data/chelsea.png").json()["results"]
        assert len(results) == len(bad) + 1
        assert [(one["result"], bool(one["error"])) for one in results[:-1]] == [([], True)] * len(bad)
        assert results[-1]["result"]


def test_label_studio_without_an_address_fetches_nothing(client: httpx.Client) -> None:
    answer = ask(str(client.base_url).rstrip("/"), "http://127.0.0.1:1/a.png").json()
    assert answer["results"][0]["error"].endswith("fetched only from the server that --label-studio names")


def test_label_studio_with_a_wrong_key_learns_why(detector: Detector) -> None:
    for key, message in (("no", "401"), ("a.b.c", "401"), ("", "401")):
        with local_server.serve(Studio) as home, serve(detector, label_studio=LabelStudio(home, key)) as url:
            assert message in ask(url, "/data/chelsea.png").json()["results"][0]["error"]


def test_label_studio_setup(client: httpx.Client) -> None:
    body = {"project": "1.1", "schema": CONFIG, "hostname": "http://localhost:8080", "access_token": "x"}
    assert client.post("/setup", json=body).json() == {"model_version": "voc"}
    assert client.get("/health").json()["status"] == "UP"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("<View", "label_config: expected XML"),
        (None, "label_config: expected XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', "label_config: expected XML"),
        ('<View><Image name="i" value="$i"/><Choices name="c" toName="i"/></View>', "expected <RectangleLabels>"),
        (
            CONFIG.replace("Cat", "Dragon").replace("Vehicle", "A").replace("predicted_values", "b"),
            "got Dragon, A, Tree",
        ),
    ],
)
def test_label_studio_configurations_that_do_not_fit(client: httpx.Client, config: object, message: str) -> None:
    answer = ask(str(client.base_url).rstrip("/"), config=config)
    assert answer.status_code == 400 and message in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"text", b"[]", b"[" * 100_000, b'{"tasks": 5}'], ids=len)
def test_label_studio_bodies_that_are_none(client: httpx.Client, body: bytes) -> None:
    for path in ("/predict", "/setup"):
        answer = client.post(path, content=body)
        assert answer.status_code == 400 or (path, body) == ("/setup", b'{"tasks": 5}')
    answer = client.post("/predict", json={"label_config": CONFIG, "tasks": [5]})
    assert answer.json()["error"] == "tasks: expected a list of objects"


@pytest.mark.soak
@pytest.mark.parametrize("package", ["deepstack", "codeprojectai"])
def test_the_clients_of_users_work(client: httpx.Client, detector: Detector, package: str) -> None:
    core = pytest.importorskip(f"{package}.core", reason=f"{package}'s client is not installed: make soak installs it")
    vision = core.DeepstackObject if package == "deepstack" else core.CodeProjectAIObject
    caller = vision(ip="127.0.0.1", port=client.base_url.port, min_confidence=0.05, timeout=60)
    assert caller.detect(CAT) == boxes(detector, 0.05)
    assert core.get_objects(caller.detect(CAT)) == sorted({one["label"] for one in boxes(detector, 0.05)})


@pytest.mark.soak
def test_the_function_for_cvat_is_one(detector: Detector) -> None:
    annotation = pytest.importorskip(
        "cvat_sdk.auto_annotation", reason="cvat-sdk is not installed: make soak installs it"
    )
    loader = pytest.importorskip("cvat_cli._internal.common", reason="cvat-cli is not installed: make soak installs it")
    parameters = {"weights": "voc", "score": 0.2}
    function = loader.FunctionLoader("centerdet.serve.cvat", None, parameters).load()
    assert isinstance(function.spec, annotation.DetectionFunctionSpec)
    assert [(one.name, one.id, one.type) for one in function.spec.labels] == [
        (name, number, "rectangle") for number, name in enumerate(detector.names)
    ]

    class Context(annotation.DetectionFunctionContext):  # type: ignore[misc,name-defined]
        frame_name, conv_mask_to_poly, conf_threshold = "a.png", False, None

    image = PIL.Image.open(PHOTOGRAPHS / "astronaut.png")
    for threshold in (None, 0.5):
        Context.conf_threshold = threshold
        expected = detector.predict(image, score_threshold=threshold or 0.2)
        shapes = function.detect(Context(), image)
        assert [(shape.label_id, shape.type.value, shape.points, shape.frame) for shape in shapes] == [
            (one.label, "rectangle", list(one.box), 0) for one in expected
        ]
        assert len(expected)


def test_the_function_for_cvat_names_its_package(monkeypatch: pytest.MonkeyPatch, detector: Detector) -> None:
    from centerdet.serve.cvat import DetectionFunction

    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    with pytest.raises(ConfigError, match="pip install cvat-cli"):
        DetectionFunction(detector)
