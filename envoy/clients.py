"""Real clients: HTTP, gRPC, TLS and plain TCP. Each tells what it saw."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

TIMEOUT = 10
CLOSED = "closed"


@dataclass(frozen=True)
class Answer:
    """What a client saw."""

    status: str
    text: str
    headers: dict[str, str] = field(default_factory=dict)
    # The client's address, by which the access log of connections tells it.
    client: str = ""

    @property
    def denied(self) -> str | None:
        return self.headers.get("x-egress-denied")

    @property
    def short(self) -> str:
        return f"{self.status} " + (f"x-egress-denied: {self.denied}" if self.denied else self.text)


@contextlib.contextmanager
def connection(address: str, port: int) -> Iterator[socket.socket]:
    """A connection to a port of this machine, whatever proxy the environment names."""
    with socket.create_connection((address, port), TIMEOUT) as stream:
        yield stream


def exchange(stream: socket.socket, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    """One HTTP/1.1 request over a connection."""
    client = http.client.HTTPConnection("unused")
    client.sock = stream
    client.request(method, path, body, headers)
    response = client.getresponse()
    text = response.read().decode(errors="replace").strip()
    return Answer(str(response.status), text, dict(response.getheaders()))


def http_request(address: str, port: int, method: str, host: str, request_id: str, path: str = "/") -> Answer:
    body = b"what must not leave" if method == "POST" else None
    with connection(address, port) as stream:
        client = name_of(stream)
        try:
            answer = exchange(stream, method, path, body, {"Host": host, "X-Request-Id": request_id})
        except (OSError, http.client.HTTPException) as error:
            return closed(error, client)
        return Answer(answer.status, answer.text, answer.headers, client)


def tls_request(address: str, port: int, host: str, request_id: str, authority: Any, sni: bool) -> Answer:
    """The same over TLS, with a check of the server's certificate; without SNI there is no name to check."""
    context = ssl.create_default_context()
    context.check_hostname = sni
    authority.configure_trust(context)
    with connection(address, port) as stream:
        client = name_of(stream)
        try:
            with context.wrap_socket(stream, server_hostname=host if sni else None) as encrypted:
                answer = exchange(encrypted, "GET", "/", None, {"Host": host, "X-Request-Id": request_id})
        except (OSError, http.client.HTTPException) as error:
            return closed(error, client)
        return Answer(answer.status, answer.text, answer.headers, client)


def tcp_session(address: str, port: int, request_id: str, server_first: bool) -> Answer:
    """Hears the server's greeting, or begins by itself with bytes of no known protocol."""
    with connection(address, port) as stream:
        client = name_of(stream)
        try:
            if not server_first:
                stream.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
            greeting = stream.recv(100)
            if greeting:
                stream.sendall(f"{request_id}\n".encode())
                return Answer("heard", greeting.decode(errors="replace").strip(), client=client)
            return Answer(CLOSED, "by the server's side", client=client)
        except OSError as error:
            return closed(error, client)


def grpc_request(address: str, port: int, host: str, request_id: str) -> Answer:
    options = [("grpc.default_authority", host), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"{address}:{port}", options=options) as channel:
        call: Any = channel.unary_unary("/demo.Telemetry/Export")
        try:
            call(b"", timeout=TIMEOUT, metadata=(("x-request-id", request_id),))
        except grpc.RpcError as error:
            return Answer(error.code().name, error.details() or "", dict(error.trailing_metadata() or ()))
        return Answer("OK", "")


def name_of(stream: socket.socket) -> str:
    return "{}:{}".format(*stream.getsockname())


def closed(error: Exception, client: str) -> Answer:
    # How it ends is a matter of moments: with or without a reset, before or after the last of what was sent.
    ends = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, BrokenPipeError)
    status = CLOSED if isinstance(error, ends) else "no answer"
    return Answer(status, f"({type(error).__name__})", client=client)
