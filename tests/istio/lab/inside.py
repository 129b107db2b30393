"""What is inside the mesh, without a sidecar: a web service, a database that speaks first, an echo."""

from __future__ import annotations

import http.server
import pathlib
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from lab.servers import Database, Echo, Server  # noqa: E402


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"reviews\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


for port, handler in ((9080, Web), (3306, Database), (9090, Echo)):
    threading.Thread(target=Server(("0.0.0.0", port), handler).serve_forever, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
