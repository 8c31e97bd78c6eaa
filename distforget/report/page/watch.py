"""Updates a page while its study runs, and serves it on this machine only."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from distforget.engine.assemble import assemble
from distforget.errors import UsageError
from distforget.plan import Plan
from distforget.report.page import write_report
from distforget.store import Store

HOST = "127.0.0.1"
SECONDS = 2.0
"""Seconds between two looks at the store."""


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of one folder, only to requests that name this machine."""

    def send_head(self) -> Any:
        """Refuse another site's name, which would be its page reaching in through the browser."""
        asked = self.headers.get("Host", "").rsplit(":", 1)[0]
        if asked not in (HOST, "localhost"):
            self.send_error(403)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        """Forbid caching, since the next page has the same addresses."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Do not log requests."""


def watch(plan: Plan, store: Store, port: int, say: Callable[[str], None]) -> None:
    """Write the page, serve it, and renew it after each step of the study, until interrupted.

    When no step is left the page is written with figures and CSV files, as `report` does.

    Raises:
        UsageError: the port is taken.
        DiskError: the disk is full or cannot be written to.
    """
    seen = None
    server = None
    try:
        while True:
            now = _state(plan, store)
            if now != seen:
                assemble(plan, store)
                done = now[0] == sum(1 for _ in plan.steps())
                path = write_report(plan, store, brief=not done)
                if server is None:
                    server = serve(path.parents[1], port)
                    say(f"page: http://{HOST}:{server.server_address[1]}/report/index.html")
                    say("stop with Ctrl-C")
                seen = now
                say("the study is done") if done else say(f"{now[0]} steps done")
            time.sleep(SECONDS)
    except KeyboardInterrupt:
        pass
    finally:
        if server is not None:
            server.shutdown()


def serve(folder: Any, port: int) -> ThreadingHTTPServer:
    """Serve a folder in the background.

    Raises:
        UsageError: the port is taken.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), partial(Handler, directory=str(folder)))
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}; give another, or 0") from error
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def _state(plan: Plan, store: Store) -> tuple[int, int]:
    """Finished steps and attempts; changes when there is something new to show."""
    done = len(store.done(step.key for step in plan.steps()))
    tried = store.attempted()
    return done, sum(len(store.attempts(c.key)) for c in plan.cells if c.key in tried)
