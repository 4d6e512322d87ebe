"""What a client may cost: slow, huge, aborted and too many uploads, failures of the runtime, and how a server stops."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from serving import CAT, GatedRuntime, serve, start_command, wait_until
from typer.testing import CliRunner

from centerdet import Detector
from centerdet.cli import app
from centerdet.errors import WeightsError
from centerdet.serve.limits import Limits

HEAD = b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def gated(**limits: float) -> Iterator[tuple[str, GatedRuntime]]:
    """A server whose predictions wait for the runtime's gate."""
    runtime = GatedRuntime()
    try:
        with serve(Detector(runtime), limits=Limits(**limits)) as url:  # type: ignore[arg-type]
            try:
                yield url, runtime
            finally:
                runtime.gate.set()
    finally:
        runtime.gate.set()


def connect(url: str) -> socket.socket:
    found = urlsplit(url)
    connection = socket.create_connection((found.hostname, found.port))
    connection.settimeout(20)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What arrives until the server closes."""
    content = b""
    try:
        while part := connection.recv(65536):
            content += part
    except ConnectionResetError:
        pass
    return content


def samples(url: str) -> str:
    return httpx.get(f"{url}/metrics").text


def test_a_body_that_trickles_is_given_up() -> None:
    with gated(body_seconds=0.5) as (url, _), connect(url) as slow:
        slow.sendall(HEAD % len(CAT))
        answers = []
        reader = threading.Thread(target=lambda: answers.append(read_all(slow)))
        reader.start()
        start = time.monotonic()
        try:
            for byte in CAT:
                slow.sendall(bytes([byte]))
                time.sleep(0.1)
                if not reader.is_alive():
                    break
        except OSError:
            pass
        reader.join()
        assert time.monotonic() - start < 5
        assert b" 408 " in answers[0] and b"expected the whole body within 0.5 seconds" in answers[0]


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "], ids=len)
def test_a_head_that_trickles_is_given_up(sent: bytes) -> None:
    with gated(idle_seconds=0.5) as (url, _), connect(url) as slow:
        start = time.monotonic()
        slow.sendall(sent)
        try:
            while time.monotonic() - start < 5:
                slow.sendall(b"a" if sent else b"")
                slow.settimeout(0.1)
                try:
                    if slow.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
        except ConnectionError:
            pass
        assert time.monotonic() - start < 4


def test_a_second_head_that_trickles_is_given_up() -> None:
    with gated(idle_seconds=0.5) as (url, _), connect(url) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        slow.sendall(b"GET /he")
        start = time.monotonic()
        answers = read_all(slow)
        assert answers.startswith(b"HTTP/1.1 200 ") and answers.count(b"HTTP/1.1") == 1
        assert time.monotonic() - start < 4


def test_a_head_without_end_is_refused() -> None:
    with gated() as (url, _), connect(url) as endless:
        endless.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 30_000)
        assert b" 400 " in read_all(endless)
        assert httpx.get(f"{url}/health").status_code == 200


def test_an_answer_does_not_wait_for_a_receipt() -> None:
    with gated() as (url, _), httpx.Client(base_url=url) as client:
        times = [client.get("/health").elapsed.total_seconds() for _ in range(20)]
        assert min(times[1:]) < 0.03  # TCP's delayed receipt takes 0.04


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("path", ["/detect", "/v1/vision/detection", "/predict"])
def test_a_body_that_is_too_large_is_refused(path: str, chunked: bool) -> None:
    part = b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n" + bytes(100_000)
    content = iter([part] * 100) if chunked else part * 100
    headers = {} if path == "/predict" else {"Content-Type": "multipart/form-data; boundary=x"}
    with gated(upload_bytes=1_000_000) as (url, _):
        answer = httpx.post(url + path, content=content, headers=headers, timeout=30)
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("expected a body of at most 1000000 bytes, got ")


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    with gated(upload_bytes=1_000_000) as (url, _), connect(url) as huge:
        huge.sendall((HEAD % 10**15).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert b" 413 " in huge.recv(65536).partition(b"\r\n")[0]


def test_all_bodies_together_are_bounded() -> None:
    with gated(total_bytes=1_000_000) as (url, runtime), connect(url) as holder:
        holder.sendall(HEAD % 10_000_000 + bytes(900_000))
        wait_until(lambda: httpx.post(f"{url}/detect", content=bytes(200_000)).status_code == 503)
        answer = httpx.post(f"{url}/detect", content=bytes(200_000))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        holder.close()
        runtime.gate.set()
        wait_until(lambda: httpx.post(f"{url}/detect", content=bytes(200_000)).status_code == 400)  # not an image


def test_aborted_uploads_leave_nothing() -> None:
    with gated() as (url, runtime):
        runtime.gate.set()
        for size in (0, 1000, len(CAT) - 1):
            with connect(url) as aborted:
                aborted.sendall(HEAD % len(CAT) + CAT[:size])
        wait_until(lambda: 'path="/detect",status="499"} 3' in samples(url))
        assert httpx.post(f"{url}/detect", content=CAT).status_code == 200
        assert runtime.batches == [1]


def test_a_full_queue_says_when_to_come_again() -> None:
    with gated(queue=2) as (url, runtime), ThreadPoolExecutor(8) as pool:

        def ask(_: int) -> httpx.Response:
            return httpx.post(f"{url}/detect", content=CAT, timeout=60)

        first = pool.submit(ask, 0)
        wait_until(lambda: runtime.batches)
        waiting = [pool.submit(ask, number) for number in range(2)]
        wait_until(lambda: "centerdet_queue_length 2" in samples(url))
        refused = ask(0)
        assert refused.status_code == 503
        assert refused.json() == {"error": "the queue is full: try again later"}
        assert int(refused.headers["retry-after"]) >= 1
        runtime.gate.set()
        assert [job.result().status_code for job in (first, *waiting)] == [200] * 3


def test_an_image_whose_client_has_gone_is_not_predicted() -> None:
    with gated() as (url, runtime), ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{url}/detect", content=CAT, timeout=60)
        wait_until(lambda: runtime.batches)
        with connect(url) as gone:
            gone.sendall(HEAD % len(CAT) + CAT)
            wait_until(lambda: "centerdet_queue_length 1" in samples(url))
        runtime.gate.set()
        assert first.result().status_code == 200
        wait_until(lambda: 'path="/detect",status="499"} 1' in samples(url))
        assert runtime.batches == [1]


def test_waiting_images_are_predicted_together_with_their_own_results() -> None:
    with gated() as (url, runtime), ThreadPoolExecutor(10) as pool:

        def ask(body: bytes, query: str = "") -> httpx.Response:
            return httpx.post(f"{url}/detect{query}", content=body, timeout=60)

        first = pool.submit(ask, CAT)
        wait_until(lambda: runtime.batches)
        alike = [pool.submit(ask, CAT) for _ in range(5)]
        broken, other = pool.submit(ask, b"text"), pool.submit(ask, CAT, "?score=0.95")
        wait_until(lambda: "centerdet_queue_length 7" in samples(url))
        runtime.gate.set()
        assert [len(job.result().json()["objects"]) for job in (first, *alike)] == [1] * 6
        assert broken.result().status_code == 400
        assert other.result().json()["objects"] == []
        assert sum(runtime.batches) == 7 and max(runtime.batches) > 1 and max(runtime.batches) <= runtime.batch_size


def test_a_failure_of_the_runtime_is_one_answer(capsys: pytest.CaptureFixture[str]) -> None:
    black = b"P6 32 32 255\n" + bytes(32 * 32 * 3)
    with gated() as (url, runtime):
        runtime.gate.set()
        for path, body in (("/detect", {"content": black}), ("/v1/vision/detection", {"files": {"image": black}})):
            answer = httpx.post(url + path, **body)  # type: ignore[arg-type]
            assert answer.status_code == 500
            assert answer.json()["error"] == "the server failed; its log has the reason"
            assert httpx.post(f"{url}/detect", content=CAT).status_code == 200
    assert "RuntimeError: a failure of the library" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_after_the_accepted_requests(sign: signal.Signals, code: int) -> None:
    with start_command("--threads", "1") as (url, process), ThreadPoolExecutor(4) as pool, connect(url):
        answers = [pool.submit(httpx.post, f"{url}/detect", content=CAT, timeout=60) for _ in range(4)]
        wait_until(lambda: "centerdet_queue_length 0" not in samples(url) or all(one.done() for one in answers))
        process.send_signal(sign)
        assert [one.result().status_code for one in answers] == [200] * 4
        assert process.wait(30) == code
        assert process.stdout and process.stdout.read() == ""
        with pytest.raises(OSError, match=r"refused|reset"):
            connect(url)


def test_a_busy_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        line = [sys.executable, "-m", "centerdet", "serve", "voc", "--port", port]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: cannot listen on 127.0.0.1 port {port}: ")
        assert "--port 0" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--host", "0.0.0.0"), "--token"),
        (("--host", "::"), "--no-token"),
        (("--host", "127.0.0.5"), "--token"),
        (("--token", "a b"), "printable ASCII"),
        (("--token", "a", "--no-token"), "expected one of them"),
        (("--label-studio", "localhost:8080"), "http"),
    ],
)
def test_wrong_options_are_named(words: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["serve", "voc", "--port", "0", *words], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert message in done.stderr


def test_weights_that_are_missing_are_named() -> None:
    done = CliRunner().invoke(app, ["serve", "nothing.safetensors", "--port", "0"])
    assert isinstance(done.exception, WeightsError)
    assert "nothing.safetensors" in str(done.exception)
