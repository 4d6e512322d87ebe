"""The server's own API over real HTTP: answers equal to `predict`, errors that say what was expected."""

import base64
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import CAT, PHOTOGRAPHS, serve

import centerdet
from centerdet import Detector

PAGE = Path(centerdet.__file__).parent / "serve" / "page"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("voc", device="cpu")


@pytest.fixture(scope="module")
def client(detector: Detector) -> Iterator[httpx.Client]:
    with serve(detector, model="voc", local=True) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def bomb() -> bytes:
    """A PNG of one pixel whose header says 60,000 x 60,000."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0\0\0")) + chunk(b"IEND", b"")
    )


def expected(detector: Detector, content: bytes = CAT, **options: object) -> list[object]:
    return detector.predict(content, **options).to_dict()["objects"]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["chelsea.png", "astronaut.png", "camera.png", "rocket.jpg"])
def test_detections_are_those_of_predict(client: httpx.Client, detector: Detector, name: str) -> None:
    content = (PHOTOGRAPHS / name).read_bytes()
    detections = detector.predict(content)
    answer = client.post("/detect", content=content)
    assert answer.status_code == 200
    objects = detections.to_dict()["objects"]
    assert answer.json() == {
        "model": "voc", "height": detections.size[0], "width": detections.size[1], "objects": objects
    }  # fmt: skip
    assert client.post("/detect", files={"image": (name, content)}).json() == answer.json()


def test_options_are_those_of_predict(client: httpx.Client, detector: Detector) -> None:
    def ask(**options: object) -> object:
        return client.post("/detect", content=CAT, params=options).json()["objects"]  # type: ignore[arg-type]

    low = expected(detector, score_threshold=0.05)
    assert ask(score=0.05) == low
    assert ask(score=0.05, tile=300) == expected(detector, score_threshold=0.05, tile=300)
    chosen = [one for one in low if one["name"] in ("cat", "dog")]  # type: ignore[index]
    assert chosen
    assert ask(score=0.05, classes="cat, dog") == ask(score=0.05, classes=["cat", "dog"]) == chosen
    assert ask(score=1) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("scores=0.5", "query: no option 'scores'; did you mean 'score'?"),
        ("threshold=1", "query: no option 'threshold'; known are 'score', 'tile', 'classes'"),
        ("classes=catt", "classes: no class 'catt'; did you mean 'cat'?"),
        ("classes=cat,", "classes: no class ''; known are 'aeroplane'"),
        ("classes=", "classes: no class ''; known are 'aeroplane'"),
        ("score=2", "score: expected a number from 0 to 1, got '2'"),
        ("score=nan", "score: expected a number from 0 to 1, got 'nan'"),
        ("score=", "score: expected a number from 0 to 1, got ''"),
        ("score=0.1&score=0.2", "score: expected one value, got 2"),
        ("tile=big", "tile: expected a side in px, got 'big'"),
        ("tile=-300", "tile: expected a side in px, got '-300'"),
        ("tile=%C2%B2", "tile: expected a side in px, got '²'"),
        ("tile=0", "tile: "),
        ("tile=16", "tile: "),
        ("tile=40", "tile: 40 px makes about 150 tiles of 300 x 451 px, expected at most 64: choose a larger side"),
    ],
)
def test_bad_options_are_named(client: httpx.Client, query: str, message: str) -> None:
    answer = client.post(f"/detect?{query}", content=CAT)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an image in the body"),
        (b"this is a text", "expected an image"),
        (b'{"image": 1}', "expected an image"),
        (CAT[: len(CAT) // 2], "truncated"),
        (bomb(), "at most 50000000 pixels"),
    ],
    ids=["empty", "text", "json", "truncated", "bomb"],
)
def test_bad_images_are_named(client: httpx.Client, content: bytes, message: str) -> None:
    bare = client.post("/detect", content=content)
    form = client.post("/detect", files={"image": ("a.png", content)})
    for answer in (bare, form):
        assert answer.status_code == 400
        assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"without a boundary"),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno name\r\n--x--"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="score"\r\n\r\n1\r\n--x--\r\n',
        ),
        ("multipart/mixed; boundary=x", CAT),
    ],
)
def test_bad_forms_are_named(client: httpx.Client, kind: str, body: bytes) -> None:
    answer = client.post("/detect", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_two_files_and_fields_beside_the_file_are_refused(client: httpx.Client) -> None:
    two = client.post("/detect", files=[("a", ("a", CAT)), ("b", ("b", CAT))])
    assert (two.status_code, "files" in two.json()["error"]) == (400, True)
    field = client.post("/detect", files={"image": CAT}, data={"score": "0.5"})
    assert field.json()["error"] == "form: expected one file, got 'score': options go in the query"


def test_unknown_paths_and_methods_are_answered_in_json(client: httpx.Client) -> None:
    for answer, status in ((client.get("/detects"), 404), (client.get("/detect"), 405), (client.put("/health"), 405)):
        assert answer.status_code == status
        assert "POST /detect" in answer.json()["error"]


def test_health_says_up(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "UP", "model_class": "voc", "version": centerdet.__version__}


def read_metrics(client: httpx.Client) -> dict[str, float]:
    """Every sample; each line is checked against the text format."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {}
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            found = re.fullmatch(r'([a-z_]+(?:\{(?:[a-z_]+="[^"]*",?)+\})?) (\S+)', line)
            assert found, line
            samples[found[1]] = float(found[2])
    return samples


def test_metrics_count(client: httpx.Client, detector: Detector) -> None:
    before = read_metrics(client)
    for content in (CAT, CAT, b"text"):
        client.post("/detect", content=content)
    client.get("/some/path")
    client.get("/another")
    after = read_metrics(client)
    gained = {name: value - before.get(name, 0) for name, value in after.items()}
    assert gained['centerdet_requests_total{path="/detect",status="200"}'] == 2
    assert gained['centerdet_requests_total{path="/detect",status="400"}'] == 1
    assert gained['centerdet_requests_total{path="other",status="404"}'] == 2
    assert gained["centerdet_images_total"] == 2
    assert gained["centerdet_objects_total"] == 2 * len(detector.predict(CAT))
    assert gained["centerdet_request_seconds_count"] == gained['centerdet_request_seconds_bucket{le="+Inf"}'] == 2
    buckets = [value for name, value in after.items() if name.startswith("centerdet_predict_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert after["centerdet_queue_length"] == 0 and after["centerdet_queue_capacity"] == 64


def test_a_token_opens_everything_but_page_and_health(detector: Detector) -> None:
    token = "open-sesame:1"
    basic = base64.b64encode(f"anyone:{token}".encode()).decode()
    with serve(detector, token=token) as url, httpx.Client(base_url=url, timeout=60) as client:

        def ask(path: str, header: bytes | None) -> httpx.Response:
            headers = [] if header is None else [(b"Authorization", header)]
            return (
                client.get(path, headers=headers)
                if path == "/metrics"
                else client.post(path, headers=headers, content=CAT)
            )

        for wrong in (
            None,
            b"",
            b"Bearer",
            b"Bearer no",
            b"Basic !",
            b"Basic " + base64.b64encode(b"\xff"),
            b"Bearer \xff",
        ):
            for path in ("/detect", "/metrics", "/predict", "/setup"):
                answer = ask(path, wrong)
                assert answer.status_code == 401 and "Bearer TOKEN" in answer.json()["error"]
                assert answer.headers["www-authenticate"] == "Bearer"
        for right in (
            f"Bearer {token}".encode(),
            f"bearer {token}".encode(),
            f"Basic {basic}".encode(),
        ):
            assert [ask(path, right).status_code for path in ("/detect", "/metrics")] == [200, 200]
        assert [client.get(path).status_code for path in ("/", "/page.js", "/page.css", "/health")] == [200] * 4


@pytest.mark.parametrize("path", ["/", "/detect", "/metrics", "/health"])
def test_another_name_for_this_machine_is_refused(client: httpx.Client, path: str) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:8000", ""):
        answer = client.request("POST" if path == "/detect" else "GET", path, headers={"Host": host})
        assert answer.status_code == 403, host
    for host in ("localhost", "localhost:1234", "[::1]:8000", "[::1]", "127.0.0.1"):
        assert client.get("/health", headers={"Host": host}).status_code == 200


def test_the_page_asks_nobody_else(client: httpx.Client) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        answer = client.get(path)
        assert answer.headers["content-type"].startswith(kind)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy
        assert not re.search(r"(src|href|url\(|import)\W{1,3}(https?:)?//", answer.text)
    page = client.get("/").text
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|javascript:", page)
    assert sorted(path.name for path in PAGE.iterdir()) == ["index.html", "page.css", "page.js"]
    assert client.post("/detect", content=b"").headers["x-content-type-options"] == "nosniff"
