"""What is served inside the mesh and outside: bytes that go back, and databases that speak first."""

from __future__ import annotations

import socketserver


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


class Echo(socketserver.BaseRequestHandler):
    greeting = b""

    def handle(self) -> None:
        self.request.sendall(self.greeting)
        while data := self.request.recv(4096):
            self.request.sendall(data)


class Database(Echo):
    greeting = b"greetings from the database\n"
