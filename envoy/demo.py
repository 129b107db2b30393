"""Shows the egress filter in a real Envoy, and checks all that it shows.

Starts a stand-in for the outside world and Envoy with the envoy.yaml beside this file, makes the requests of `ROWS`
with real clients, and prints what each client saw, what the access log says and what Prometheus would scrape. Exits
with 1 if anything differs from what is expected. Uses loopback only, and envoy.yaml's own ports only with --keep.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

try:
    import clients
    from clients import Answer
    from outside import GREETING, Database, Web
except ImportError as missing:
    sys.exit(f"demo.py: {missing}: run scripts/setup python, then .venv/bin/python envoy/demo.py ...")

T = TypeVar("T")

CONFIG = Path(__file__).with_name("envoy.yaml")
# What follows is what envoy.yaml says.
ENFORCE_PORT, REPORT_PORT, TCP_PORT, DATABASE_PORT, OTHER_DATABASE_PORT = 10080, 10081, 10082, 10083, 10084
OUTSIDE_PORT, OUTSIDE_DATABASE_PORT, ADMIN_PORT = 10090, 10091, 10000
ENFORCE, REPORT, TCP, DATABASE = "outbound", "outbound-report", "outbound-tcp", "outbound-database"
REGISTERED, UNREGISTERED = "127.0.0.2", "127.0.0.3"
WASM = "dist/egress-filter.wasm"
DENY_MESSAGE = "Ask for access: https://wiki.corp.example/egress"
REGISTERED_HOSTS = 4
PASSTHROUGH, MESH = "PassthroughCluster", "outbound|9080||reviews.default.svc.cluster.local"
PARTNER_DB = "outbound|5432||db.partner.example"

# How long, in seconds, Envoy may take to start, and anything else to happen. A busy machine is slow; more is a hang.
PATIENCE = 60


@dataclass(frozen=True)
class Row:
    """A request or connection, and what is expected of it."""

    client: str
    # Host or SNI; for a database, the address that its client connects to.
    host: str
    verdict: str
    reason: str
    # With {port} for the port that the client connects to.
    counted_under: str
    listener: str = ENFORCE

    @property
    def is_grpc(self) -> bool:
        return self.client == "gRPC"

    @property
    def is_http(self) -> bool:
        """Whether Envoy parses it, so that it is a request and not a connection."""
        return self.listener in (ENFORCE, REPORT)

    @property
    def is_denied(self) -> bool:
        return self.verdict == "denied"

    @property
    def address(self) -> str:
        return self.host if self.listener == DATABASE else "127.0.0.1"

    @property
    def protocol(self) -> str:
        first = self.client.split()[0]
        return {"TLS": "tls", "database": "tcp", "bytes": "tcp", "gRPC": "grpc"}.get(first, "http")


ROWS = [
    Row("GET", "api.partner.example", "allowed", "listed", "api.partner.example"),
    Row("GET", "API.Partner.Example.", "allowed", "listed", "api.partner.example"),
    Row("GET", "eu.tenant-1.saas.example", "allowed", "listed", "*.saas.example"),
    Row("GET", "reviews:9080", "allowed", "mesh_internal", "mesh"),
    Row("GET", "news.example", "denied", "not_listed", "news.example"),
    Row("POST with a body", "paste.example", "denied", "not_listed", "paste.example"),
    Row("gRPC", "telemetry.example", "denied", "not_listed", "telemetry.example"),
    Row("GET", "files.partner.example", "denied", "port_not_listed", "files.partner.example"),
    Row("GET", "legacy.partner.example", "denied", "expired", "legacy.partner.example"),
    Row("GET", "admin.saas.example", "denied", "deny_listed", "admin.saas.example"),
    Row("GET", "169.254.169.254", "denied", "deny_listed", "169.254.169.254"),
    Row("GET", "0x7f.1", "denied", "invalid_name", "invalid"),
    Row("GET under REPORT", "news.example", "would_deny", "not_listed", "news.example", REPORT),
    Row("TLS", "api.partner.example", "allowed", "listed", "api.partner.example", TCP),
    Row("TLS", "eu.tenant-1.saas.example", "allowed", "listed", "*.saas.example", TCP),
    Row("TLS", "news.example", "denied", "not_listed", "news.example", TCP),
    Row("TLS", "admin.saas.example", "denied", "deny_listed", "admin.saas.example", TCP),
    Row("TLS without SNI", "api.partner.example", "denied", "no_sni", "127.0.0.1:{port}", TCP),
    Row("GET over TCP", "api.partner.example", "allowed", "listed", "api.partner.example", TCP),
    Row("GET over TCP", "news.example", "denied", "not_listed", "news.example", TCP),
    Row("bytes", "127.0.0.1", "denied", "not_listed", "127.0.0.1:{port}", TCP),
    Row("database", REGISTERED, "allowed", "listed", REGISTERED, DATABASE),
    Row("database", UNREGISTERED, "denied", "server_first", f"{UNREGISTERED}:{{port}}", DATABASE),
]

# What the stand-in for the outside world has certificates for.
NAMES = ["api.partner.example", "*.tenant-1.saas.example", "*.saas.example", "news.example"]


class DemoFailed(Exception):
    """The demo cannot go on; says what happened and how to repair it."""


def request(row: Row, port: int, request_id: str, web: Web) -> Answer:
    """Makes a row's request or connection."""
    kind = row.client.split()[0]
    if kind == "gRPC":
        return clients.grpc_request(row.address, port, row.host, request_id)
    if kind == "TLS":
        sni = row.client != "TLS without SNI"
        return clients.tls_request(row.address, port, row.host, request_id, web.authority, sni)
    if kind in ("database", "bytes"):
        return clients.tcp_session(row.address, port, request_id, server_first=kind == "database")
    return clients.http_request(row.address, port, kind, row.host, request_id)


def choose_ports(is_kept: bool) -> dict[int, int]:
    """What takes the place of each port of envoy.yaml: itself if all are wanted and free, else 0.

    For 0 the system chooses a port when it is bound, so that no other process can take it before.
    """
    fixed = (
        ENFORCE_PORT, REPORT_PORT, TCP_PORT, DATABASE_PORT, OTHER_DATABASE_PORT,
        OUTSIDE_PORT, OUTSIDE_DATABASE_PORT, ADMIN_PORT,
    )
    taken = [port for port in fixed if is_taken(port)] if is_kept else []
    if taken:
        print(f"demo.py: using free ports: something listens on {', '.join(map(str, taken))}\n")
    return {port: port if is_kept and not taken else 0 for port in fixed}


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def bootstrap(ports: dict[int, int], wasm: Path) -> str:
    """envoy.yaml with other ports and another module, which it has as `port_value: N` and `filename: F`, each once."""
    replacements = {f"port_value: {fixed}": f"port_value: {port}" for fixed, port in ports.items()}
    replacements[f"filename: {WASM}"] = f"filename: {json.dumps(str(wasm.resolve()))}"
    text = CONFIG.read_text(encoding="utf-8")
    for old, new in replacements.items():
        if text.count(old) != 1:
            raise DemoFailed(f"{CONFIG}: has {old!r} {text.count(old)} times; demo.py replaces it, so it must be once")
        text = text.replace(old, new)
    return text


# What Envoy's log says when it does not start, and the repair.
REPAIRS = {
    "Address already in use": "another process has the port: stop it, or run the demo again, which then takes others",
    "Invalid path": "the wasm module cannot be read: make wasm",
    "compiled without support": "this Envoy has no V8: take another version, such as scripts/setup envoy 1.40.0",
    "is refused": "repair the plugin configuration in envoy/envoy.yaml as the log says",
}


class Envoy:
    """Envoy as a child process; a context manager, so that it never outlives the demo."""

    def __init__(self, binary: Path, config: str, folder: Path) -> None:
        self.access_log_path = folder / "access.log"
        self.log_path = folder / "envoy.log"
        self.admin_path = folder / "admin"
        config_path = folder / "envoy.yaml"
        config_path.write_text(config, encoding="utf-8")
        arguments = ["--config-path", config_path, "--admin-address-path", self.admin_path, "--concurrency", "2"]
        # Hot restart needs shared memory, which another Envoy on this machine may have.
        arguments += ["--disable-hot-restart", "--file-flush-interval-msec", "20"]
        arguments += ["--log-level", "warning", "--component-log-level", "wasm:info"]
        with open(self.access_log_path, "wb") as stdout, open(self.log_path, "wb") as stderr:
            command = [str(argument) for argument in (binary, *arguments)]
            try:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            except OSError as error:
                raise DemoFailed(f"{binary}: {error.strerror}: install it with scripts/setup envoy 1.40.0") from error

    def __enter__(self) -> Envoy:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait(self, what: str, ready: Callable[[], T | None]) -> T:
        """Waits until `ready` has an answer; gives up when Envoy is dead or patience is at its end."""
        deadline = time.monotonic() + PATIENCE
        while (answer := ready()) is None:
            if (status := self.process.poll()) is not None:
                raise DemoFailed(f"Envoy ended with status {status} before {what}{self.why()}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"not within {PATIENCE} s: {what}{self.why()}")
            time.sleep(0.02)
        return answer

    def why(self) -> str:
        log = self.log()
        repairs = [f"\nrepair: {repair}" for sign, repair in REPAIRS.items() if sign in log]
        return f"; its log:\n{log}{''.join(repairs)}"

    def admin_port(self) -> int | None:
        """The port of the admin interface; None while there is none."""
        address = self.admin_path.read_text() if self.admin_path.exists() else ""
        return int(address.rpartition(":")[2]) if ":" in address else None

    def admin(self, path: str) -> str | None:
        """A page of the admin interface; None if it does not answer with 200."""
        port = self.admin_port()
        try:
            answer = clients.http_request("127.0.0.1", port, "GET", "admin", "", path) if port else None
        except OSError:
            return None
        return answer.text if answer and answer.status == "200" else None

    def ports(self) -> dict[tuple[str, str], int]:
        """The ports of the listeners, by name and address."""
        page = json.loads(self.wait("it named its listeners", lambda: self.admin("/listeners?format=json")))
        ports = {}
        for listener in page["listener_statuses"]:
            for one in (listener["local_address"], *listener.get("additional_local_addresses", ())):
                ports[listener["name"], one["socket_address"]["address"]] = one["socket_address"]["port_value"]
        return ports

    def metrics(self) -> list[str]:
        """The filter's part of what Prometheus scrapes."""
        page = self.wait("it gave its metrics", lambda: self.admin("/stats/prometheus"))
        return [line for line in page.splitlines() if re.match(r"(# TYPE )?egress_", line)]

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def access_log(self, ids: list[str]) -> list[str]:
        """The lines of the access log of these requests and connections, in their order: by request id or client."""

        def complete() -> list[str] | None:
            lines = self.access_log_path.read_text(encoding="utf-8").splitlines(keepends=True)
            by_id = {id_in_log(json.loads(line)): line.rstrip() for line in lines if line.endswith("\n")}
            return [by_id[one] for one in ids] if by_id.keys() >= set(ids) else None

        return self.wait("every request and connection was in its access log", complete)

    def filter_log(self, part: str) -> str:
        """The first line of the filter with this part."""

        def found() -> str | None:
            return next((line for line in self.log().splitlines() if part in line), None)

        return self.wait(f"its log said {part!r}", found)


def id_in_log(line: dict[str, Any]) -> str:
    return line["request_id"] if "request_id" in line else line["client"]


@dataclass(frozen=True)
class Exchange:
    """A row's request or connection, and all that is known of what came of it."""

    row: Row
    answer: Answer
    access_log: str
    reached_outside: bool
    port: int

    @property
    def logged(self) -> Any:
        return json.loads(self.access_log)


@dataclass
class Checks:
    """How many comparisons held, and what the others found."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)

    def compare(self, what: str, expected: object, seen: object) -> None:
        if expected == seen:
            self.passed += 1
        else:
            self.failures.append(f"FAILED {what}:\n    expected {expected}\n    saw      {seen}")


def check_exchange(checks: Checks, exchange: Exchange) -> None:
    """Compares what client, access log and outside world saw of a request or connection."""
    row, logged = exchange.row, exchange.logged
    # The filter leaves nothing for the access log where it finds what is expected.
    in_log = row.reason not in ("listed", "mesh_internal")
    clusters = {"mesh_internal": MESH}.get(row.reason, PARTNER_DB if row.listener == DATABASE else PASSTHROUGH)
    comparisons = [
        *(compare_response(exchange) if row.is_http else compare_connection(exchange)),
        ("reached the outside world", not row.is_denied, exchange.reached_outside),
        ("logged cluster", clusters, logged["cluster"]),
        ("logged that bytes left", not row.is_denied, logged["bytes_sent_upstream"] > 0),
        ("logged verdict", row.verdict if in_log else None, logged["egress_verdict"]),
        ("logged reason", row.reason if in_log else None, logged["egress_reason"]),
        ("logged host", counted_under(exchange) if in_log else None, logged["egress_host"]),
    ]
    differing = [comparison for comparison in comparisons if comparison[1] != comparison[2]]
    expected, seen = ({entry[0]: entry[side] for entry in differing} for side in (1, 2))
    checks.compare(f"{row.client} {row.host}", expected, seen)


def compare_response(exchange: Exchange) -> list[tuple[str, object, object]]:
    row, answer, logged = exchange.row, exchange.answer, exchange.logged
    denied, code = row.is_denied, 403 if row.is_denied and not row.is_grpc else 200
    # The words between say what was denied and why, for people to read.
    text = re.sub(r"^egress denied: .*(?= \(\w+\)\. )", "egress denied: ...", answer.text)
    return [
        ("status", "PERMISSION_DENIED" if row.is_grpc else str(code), answer.status),
        ("x-egress-denied", row.reason if denied else None, answer.denied),
        ("text", f"egress denied: ... ({row.reason}). {DENY_MESSAGE}" if denied else f"reached {row.host}", text),
        ("logged code", code, logged["code"]),
        ("logged details", f"egress_denied_{row.reason}" if denied else "via_upstream", logged["details"]),
    ]


def compare_connection(exchange: Exchange) -> list[tuple[str, object, object]]:
    row, answer = exchange.row, exchange.answer
    if row.is_denied:
        return [("status", clients.CLOSED, answer.status)]
    if row.listener == DATABASE:
        return [("status", "heard", answer.status), ("text", GREETING.decode().strip(), answer.text)]
    return [("status", "200", answer.status), ("text", f"reached {row.host}", answer.text)]


def counted_under(exchange: Exchange) -> str:
    return exchange.row.counted_under.format(port=exchange.port)


def check_metrics(checks: Checks, exchanges: list[Exchange], lines: list[str]) -> None:
    """Each series of decisions must have the count of its rows, and each plugin's configuration must be there."""
    seen = {series: int(value) for series, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}
    decisions = ("egress_requests_total{", "egress_connections_total{")
    decided = {series: value for series, value in seen.items() if series.startswith(decisions)}
    expected = Counter(map(series_of, exchanges))
    for series in sorted(expected.keys() | decided.keys()):
        checks.compare(f"metric {series}", expected.get(series), decided.get(series))
    # One for each configuration and plugin.
    for gauge, expected_value in (("egress_config_info", 1), ("egress_registry_hosts", REGISTERED_HOSTS)):
        values = [value for series, value in seen.items() if series.startswith(f"{gauge}{{")]
        checks.compare(f"metric {gauge}", [expected_value] * 3, values)


def no_longer_active(metrics: list[str]) -> list[str] | None:
    active = [line for line in metrics if line.startswith("egress_connections_active{")]
    return metrics if active and all(line.endswith(" 0") for line in active) else None


def series_of(exchange: Exchange) -> str:
    """As Envoy writes it: with the labels in the order of stats_tags."""
    row = exchange.row
    metric = "egress_requests_total" if row.is_http else "egress_connections_total"
    labels = f'egress_host="{counted_under(exchange)}",egress_protocol="{row.protocol}"'
    return f'{metric}{{{labels},egress_verdict="{row.verdict}",egress_reason="{row.reason}"}}'


def show(envoy: Envoy, web: Web, database: Database) -> Checks:
    """Makes all requests and connections, prints and checks what came of them."""
    exchanges = list(make_requests(envoy, web, database))
    metrics = envoy.wait("every connection had ended", lambda: no_longer_active(envoy.metrics()))
    show_table(exchanges)
    show_denied(envoy, exchanges)
    print_title("What Prometheus scrapes")
    print("\n".join(metrics))

    checks = Checks()
    for exchange in exchanges:
        check_exchange(checks, exchange)
    check_metrics(checks, exchanges, metrics)
    print("", *checks.failures, f"demo: {checks.passed} passed, {len(checks.failures)} failed", sep="\n")
    return checks


def make_requests(envoy: Envoy, web: Web, database: Database) -> Iterator[Exchange]:
    ports = envoy.ports()
    made = []
    for number, row in enumerate(ROWS, 1):
        request_id, port = f"demo-{number}", ports[row.listener, row.address]
        made.append((row, request_id, port, request(row, port, request_id, web)))
    lines = envoy.access_log([request_id if row.is_http else answer.client for row, request_id, _, answer in made])
    for (row, request_id, port, answer), line in zip(made, lines):
        reached = request_id in web.reached or request_id in database.reached
        yield Exchange(row, answer, line, reached, port)


def show_table(exchanges: list[Exchange]) -> None:
    table = [("client", "asked for", "saw", "access log: verdict, reason")]
    for exchange in exchanges:
        verdict, reason = exchange.logged["egress_verdict"], exchange.logged["egress_reason"]
        logged = f"{verdict} {reason}" if verdict else "-"
        table.append((exchange.row.client, exchange.row.host, exchange.answer.short, logged))
    widths = [max(map(len, column)) for column in zip(*table)]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip())
    print("\n-: listed or mesh_internal; these are counted, but are spared the cost of fields in the access log.")


def show_denied(envoy: Envoy, exchanges: list[Exchange]) -> None:
    """A denied request whole: what its client is told, and the lines that it leaves; a gRPC one; and a connection."""
    denied = next(exchange for exchange in exchanges if exchange.row.is_denied)
    print_title(f"What a denied client is told: {denied.row.client} {denied.row.host}")
    print(f"HTTP {denied.answer.status}")
    for name, value in denied.answer.headers.items():
        print(f"{name}: {value}")
    print(f"\n{denied.answer.text}")
    print_title("The line of that request in the access log, and the filter's own in Envoy's log")
    print(denied.access_log)
    print(envoy.filter_log(f"egress-http: denied {denied.row.host}:"))
    by_grpc = next(exchange for exchange in exchanges if exchange.row.is_grpc)
    print_title(f"What a denied gRPC client is told: {by_grpc.row.host}")
    print(f"StatusCode.{by_grpc.answer.status}: {by_grpc.answer.text}")
    by_tls = next(exchange for exchange in exchanges if exchange.row.protocol == "tls" and exchange.row.is_denied)
    print_title(f"A denied TLS client is told nothing; its lines in the access log and in Envoy's log: {by_tls.row.host}")
    print(by_tls.access_log)
    # A worker logs a host and reason once, whichever plugin met it first there: where the request came to the same worker as
    # the connections, it is egress-http's line.
    print(envoy.filter_log(f": denied {by_tls.row.host}:"))


def print_title(title: str) -> None:
    print(f"\n{title}\n{'-' * len(title)}")


def keep(envoy: Envoy) -> None:
    """Prints what to try, then the logs as they grow, until Ctrl-C."""
    ports = envoy.ports()
    outbound, tcp = (f"127.0.0.1:{ports[listener, '127.0.0.1']}" for listener in (ENFORCE, TCP))
    print_title("Try it; Ctrl-C ends it")
    print(f"curl -i -H 'Host: api.partner.example' http://{outbound}/")
    print(f"curl -i -H 'Host: news.example' http://{outbound}/")
    print(f"curl -i -H 'Host: news.example' -d 'what must not leave' http://{outbound}/")
    print(f"curl -i -H 'Host: news.example' http://127.0.0.1:{ports[REPORT, '127.0.0.1']}/    # REPORT")
    print(f"curl -k --connect-to ::{tcp} https://api.partner.example/")
    print(f"curl -k --connect-to ::{tcp} https://news.example/    # closed")
    print(f"curl -s http://127.0.0.1:{envoy.admin_port()}/stats/prometheus | grep ^egress_")
    print(flush=True)
    with open(envoy.access_log_path, encoding="utf-8") as access_log, open(envoy.log_path, encoding="utf-8") as log:
        access_log.seek(0, 2)
        log.seek(0, 2)
        while envoy.process.poll() is None:
            sys.stdout.write(access_log.read() + log.read())
            sys.stdout.flush()
            time.sleep(0.1)
    raise DemoFailed(f"Envoy ended with status {envoy.process.returncode}{envoy.why()}")


def run(binary: Path, wasm: Path, is_kept: bool) -> Checks:
    if not wasm.is_file():
        raise DemoFailed(f"{wasm}: no such file: make wasm")
    ports = choose_ports(is_kept)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="egress-demo-"))
        web = stack.enter_context(Web(ports[OUTSIDE_PORT], NAMES))
        database = stack.enter_context(Database(ports[OUTSIDE_DATABASE_PORT]))
        ports[OUTSIDE_PORT], ports[OUTSIDE_DATABASE_PORT] = web.port, database.port
        with Envoy(binary, bootstrap(ports, wasm), Path(folder)) as envoy:
            envoy.wait("it was ready", lambda: envoy.admin("/ready"))
            checks = show(envoy, web, database)
            if is_kept:
                with contextlib.suppress(KeyboardInterrupt):
                    keep(envoy)
            return checks


def main() -> int:
    parser = argparse.ArgumentParser(description="Shows the egress filter in a real Envoy, and checks what it shows.")
    parser.add_argument("--envoy", type=Path, required=True, metavar="BINARY", help="Envoy 1.36 or later, with V8")
    parser.add_argument("--wasm", type=Path, required=True, metavar="FILE", help="the module, as make wasm leaves it")
    parser.add_argument("--keep", action="store_true", help="leave all running until Ctrl-C, and print what to try")
    arguments = parser.parse_args()
    # So that Envoy is stopped then too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        checks = run(arguments.envoy, arguments.wasm, arguments.keep)
    except DemoFailed as failure:
        print(f"demo.py: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1 if checks.failures else 0


if __name__ == "__main__":
    sys.exit(main())
