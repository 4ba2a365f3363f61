"""Runs a command on a Prefect server that fails while a stage runs: ``failing_prefect.py HOW``."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from codedance.pipelines.cli import main
from codedance.pipelines.config.home import find_home, prepare_environment
from codedance.pipelines.runs.context import StageResult
from codedance.pipelines.runs.processes import free_port, wait_for
from codedance.pipelines.serving import own_server
from codedance.pipelines.stages import curate


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to the server, until it is to answer 500."""

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content = 500, b'{"detail": "no space left"}'
        if not self.server.is_failing:
            kept = {k: v for k, v in self.headers.items() if k.lower() == "content-type"}
            url = f"{self.server.behind}{self.path}"
            answer = httpx.request(self.command, url, content=body, headers=kept, timeout=60)
            status, content = answer.status_code, answer.content
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = pass_on  # noqa: N815 - theirs

    def log_message(self, *_):
        """Do not log."""


def fail(how: str) -> None:
    home = find_home()
    prepare_environment(home)
    port = free_port()
    service = own_server._service(home, port)
    service.start()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.is_failing, proxy.behind = False, f"http://127.0.0.1:{port}"
    threading.Thread(target=proxy.serve_forever, daemon=True).start()

    def run_and_fail(_context):
        if how == "answers 500":
            proxy.is_failing = True
        else:
            proxy.shutdown()
            proxy.server_close()
        return StageResult({"tasks": 0})

    curate.run_curate = replace(curate.run_curate, run=run_and_fail)
    os.environ["PREFECT_API_URL"] = f"http://me:secret@127.0.0.1:{proxy.server_port}/api"
    os.environ["PREFECT_CLIENT_MAX_RETRIES"] = "0"
    sys.argv = ["codedance", "curate", "--preset", "smoke"]
    try:
        wait_for(f"{proxy.behind}/api/health", service, 180, lambda: None)
        main()
    finally:
        service.end()


if __name__ == "__main__":
    fail(sys.argv[1])
