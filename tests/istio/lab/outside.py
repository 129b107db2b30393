"""The outside world, run within the hub: web servers with and without TLS, databases that speak first, an echo.

    outside.py CERTIFICATE KEY LOG

Writes a JSON line for each connection and each request to LOG: what reached the outside world, and what did not.
"""

from __future__ import annotations

import http.server
import json
import pathlib
import ssl
import sys
import threading
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from lab import network, servers  # noqa: E402

HTTP_PORTS, TLS_PORTS, GREETING_PORTS, ECHO_PORTS = (80, 8080), (443, 8443), (5432, 3306), (9000,)

CERTIFICATE, KEY, LOG = sys.argv[1:4]
_lock = threading.Lock()


def log(**fields: Any) -> None:
    with _lock, open(LOG, "a", encoding="utf-8") as file:
        file.write(json.dumps(fields) + "\n")


class Server(servers.Server):
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        address, port = self.server_address[:2]
        log(connection=f"{address}:{port}")
        try:
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        except OSError:
            # A client that goes away, or one that the filter closed.
            pass


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address, port = self.server.server_address[:2]
        host = self.headers.get("host")
        log(request=f"{address}:{port}", host=host)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = f"{address}:{port} {host}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE, KEY)
    kinds = ((HTTP_PORTS, Web, None), (TLS_PORTS, Web, tls), (GREETING_PORTS, servers.Database, None), (ECHO_PORTS, servers.Echo, None))
    started = []
    for address in network.OUTSIDE:
        for ports, handler, context in kinds:
            for port in ports:
                server = Server((address, port), handler)
                server.tls = context
                started.append(server)
    for server in started:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
