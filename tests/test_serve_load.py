"""Eight clients at once, a thousand requests good and bad: no error but those asked for, and flat memory."""

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from serving import CAT, PHOTOGRAPHS, start_command
from test_serve import bomb

CLIENTS, REQUESTS = 8, 1000
COFFEE = (PHOTOGRAPHS / "coffee.png").read_bytes()

KINDS: list[tuple[int, str, dict[str, object]]] = [
    (200, "/detect", {"content": CAT}),
    (200, "/detect?score=0.05&classes=cat", {"content": COFFEE}),
    (200, "/v1/vision/detection", {"files": {"image": CAT}}),
    (400, "/detect", {"content": b"text"}),
    (400, "/detect", {"content": CAT[:1000]}),
    (400, "/detect", {"content": bomb()}),
    (400, "/detect?sorce=1", {"content": CAT}),
    (413, "/detect", {"content": bytes(1_500_000)}),
    (404, "/elsewhere", {}),
    (400, "/predict", {"json": {"tasks": []}}),
]


@pytest.mark.soak
def test_a_thousand_requests_of_eight_clients() -> None:
    with start_command("--threads", "1", "--max-megabytes", "1") as (url, process):
        memory = psutil.Process(process.pid)
        where = urlsplit(url)

        def ask(number: int) -> None:
            status, path, body = KINDS[number % len(KINDS)]
            answer = clients[number % CLIENTS].post(path, **body)  # type: ignore[arg-type]
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
            with socket.create_connection((where.hostname, where.port)) as rude:  # half an upload, and gone
                rude.sendall(b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n" + CAT[:5000])

        with contextlib.ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as pool:
            clients = [stack.enter_context(httpx.Client(base_url=url, timeout=300)) for _ in range(CLIENTS)]
            sizes, files = [], []
            for part in range(4):
                list(pool.map(ask, range(part * REQUESTS // 4, (part + 1) * REQUESTS // 4)))
                time.sleep(1)
                sizes.append(memory.memory_info().rss / 1e6)
                files.append(memory.num_fds())
            assert httpx.get(f"{url}/health").status_code == 200
            print(f"resident MB after each quarter: {sizes}, open files: {files}")
        assert sizes[-1] < 1.03 * sizes[0], sizes
        assert max(files) - min(files) < 5, files
        process.terminate()
        assert process.wait(30) == 0
        assert process.stdout and process.stdout.read() == ""


@pytest.mark.soak
def test_clients_that_trickle_do_not_keep_others_waiting() -> None:
    """Two hundred of them, half in the head, half in the body, while others ask."""
    with start_command("--threads", "1") as (url, process), contextlib.ExitStack() as stack:
        where = urlsplit(url)
        slow = []
        for number in range(200):
            connection = stack.enter_context(socket.create_connection((where.hostname, where.port)))
            head = b"POST /detect HTTP/1.1\r\nHost: localhost\r\n" + (
                b"Content-Length: 9999\r\n\r\n" if number % 2 else b""
            )
            connection.sendall(head)
            slow.append(connection)
        with httpx.Client(base_url=url, timeout=60) as client:
            end = time.monotonic() + 40
            while time.monotonic() < end:
                assert client.post("/detect", content=CAT).status_code == 200
                for connection in slow:
                    with contextlib.suppress(OSError):
                        connection.sendall(b"x")
                time.sleep(1)
        assert len(psutil.Process(process.pid).net_connections()) < 10  # all given up
