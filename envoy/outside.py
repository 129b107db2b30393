"""Stand-ins for the outside world: a web server that speaks HTTP and HTTPS on one port, and a database."""

from __future__ import annotations

import http.server
import socket
import socketserver
import ssl
import threading
from typing import Any

import trustme

GREETING = b"hello from the database\n"


class Server(socketserver.ThreadingTCPServer):
    """Serves in the background until its context ends."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.port: int = self.server_address[1]
        # The id of each request that came through.
        self.reached: list[str] = []
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Web(Server):
    """Says which host it was asked for, under certificates of an authority of its own."""

    def __init__(self, port: int, names: list[str]) -> None:
        self.authority = trustme.CA()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names).configure_cert(self._tls)
        super().__init__(port, WebRequest)

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            # The first byte of a TLS handshake.
            if request.recv(1, socket.MSG_PEEK) == b"\x16":
                request = self._tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        except OSError:
            # A client that goes away; what it saw is checked, and this is not.
            pass


class WebRequest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        self.server.reached.append(self.headers.get("x-request-id", ""))
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = f"reached {self.headers.get('host')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Envoy's access log says it all."""


class Database(Server):
    """Speaks first, then takes a line."""

    def __init__(self, port: int) -> None:
        super().__init__(port, DatabaseSession)


class DatabaseSession(socketserver.StreamRequestHandler):
    server: Database

    def handle(self) -> None:
        try:
            self.wfile.write(GREETING)
            self.server.reached.append(self.rfile.readline().decode(errors="replace").strip())
        except OSError:
            # Envoy has closed it: it was denied.
            pass
