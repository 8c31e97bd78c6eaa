"""An S3 server on 127.0.0.1 (moto), with faults between it and its clients."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

SECRET = "a-secret-that-no-file-may-hold"
KEY_ID = "AKIDNOFILEMAYHOLD"

FAULTS = ("500", "503", "slow", "cut before", "cut after")


class Bucket:
    """A server with one bucket, and what goes wrong with its requests."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.fault: Callable[[int, str, str], str] = lambda number, method, path: ""
        """From a request's number, method and path, what goes wrong; '' for nothing."""
        self.requests = 0
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            number, self.requests = self.requests, self.requests + 1
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        fault = self.fault(number, method, path)
        if fault in ("500", "503"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            said = "SlowDown" if fault == "503" else "InternalError"
            start(f"{fault} {said}", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{said}</Code></Error>".encode()]
        if fault == "slow":
            time.sleep(0.3)
        if fault == "cut before":
            return self._cut(environ)
        if fault == "changed":
            content = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = _Bytes(content[:-1] + bytes([content[-1] ^ 1]))
        answer = list(self.app(environ, (lambda *_: None) if fault == "cut after" else start))
        return self._cut(environ) if fault == "cut after" else answer

    def _cut(self, environ: dict[str, Any]) -> Iterable[bytes]:
        with suppress(OSError):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionError("cut")


class _Bytes:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, size: int = -1) -> bytes:
        size = len(self.content) if size < 0 else size
        found, self.content = self.content[:size], self.content[size:]
        return found

    readline = read


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        pass

    def log_error(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[tuple[Bucket, dict[str, str]]]:
    """The server, and the environment in which clients find it."""
    bucket = Bucket()
    server = make_server("127.0.0.1", 0, bucket, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.port}"
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
    yield (
        bucket,
        {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        },
    )
    server.shutdown()
    thread.join(10)
