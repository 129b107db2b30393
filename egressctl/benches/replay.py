#!/usr/bin/env python3
"""How fast `egressctl replay` reads an access log, beside other programs on the same file: `make bench-replay`.

Each runs once, in turn, on a file of the manifests' JSON format that is in the page cache. Wall time depends on what else
the machine does; CPU (user and system) hardly. Memory is the largest resident set, never less than that of this program (some 10 MiB).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

SIZE = int(os.environ.get("BENCH_BYTES", 1 << 30))
HOSTS, WORKLOADS, SHAPES = 2_000, 50, 100_000


def line(random: random.Random) -> str:
    host = random.randrange(HOSTS)
    name = f"api-{host}.partner-{host % 97}.example"
    verdict, reason = random.choice([(None, None)] * 7 + [("would_deny", "not_listed")] * 2 + [("denied", "not_listed")])
    is_request = random.random() < 0.7
    fields = {
        "start_time": f"2026-11-{random.randrange(1, 26):02}T{random.randrange(24):02}:{random.randrange(60):02}:00.{random.randrange(1000):03}Z",
        "method": "GET" if is_request else None,
        "authority": name if is_request else None,
        "protocol": "HTTP/1.1" if is_request else None,
        "response_code": (403 if verdict == "denied" else 200) if is_request else 0,
        "response_flags": "-",
        "response_code_details": "via_upstream" if is_request else None,
        "request_id": f"{random.getrandbits(128):032x}",
        "requested_server_name": None if is_request else name,
        "downstream_remote_address": f"10.0.{random.randrange(256)}.{random.randrange(256)}:{random.randrange(20_000, 60_000)}",
        "downstream_local_address": f"203.0.113.{host % 250}:{80 if is_request else 443}",
        "upstream_cluster": "PassthroughCluster",
        "upstream_host": f"203.0.113.{host % 250}:{80 if is_request else 443}",
        "route_name": "allow_any" if is_request else None,
        "bytes_sent": random.randrange(100_000),
        "bytes_received": random.randrange(100_000),
        "duration": random.randrange(1_000),
        "egress_verdict": verdict,
        "egress_reason": reason,
        "egress_host": name if verdict else None,
        "namespace": f"team-{random.randrange(10)}",
        "workload": f"service-{random.randrange(WORKLOADS)}",
        "pod": f"service-{random.randrange(WORKLOADS)}-5d9c7b9f4-x{random.randrange(36)}p8k",
    }
    return json.dumps(fields, separators=(",", ":")) + "\n"


def make_log(path: Path) -> None:
    """The same bytes in every run. Lines recur, as they do in logs, in no order."""
    source = random.Random(20_261_125)
    shapes = [line(source).encode() for _ in range(SHAPES)]
    written = 0
    with open(path, "wb") as out:
        while written < SIZE:
            block = b"".join(source.choices(shapes, k=4_096))
            out.write(block)
            written += len(block)


def measure(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, MiB."""
    start = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}: status {child.returncode}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    egressctl, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "access.log"
    # By another process: what this one holds, Linux counts for its children, too.
    subprocess.run([sys.executable, __file__, "make", str(log)], check=True)
    listed = [f"*.partner-{number}.example" for number in range(97)]
    ports = [{"number": 80}, {"number": 443}]
    lists = {"all": listed, "half": listed[::2]}
    for name, hosts in lists.items():
        (folder / f"{name}.json").write_text(json.dumps({"registry": [{"hosts": hosts, "ports": ports}]}))
    commands = {
        "egressctl replay, nothing denied": [egressctl, "replay", "-f", str(folder / "all.json"), str(log)],
        "egressctl replay, half denied": [egressctl, "replay", "-f", str(folder / "half.json"), str(log)],
        "the same, the log four times": [egressctl, "replay", "-f", str(folder / "half.json"), *[str(log)] * 4],
        "egressctl suggest": [egressctl, "suggest", "-f", str(folder / "half.json"), str(log)],
        "jq select": ["jq", "-c", 'select(.egress_verdict=="denied")', str(log)],
        "rg -c denied": ["rg", "-c", "denied", str(log)],
        "wc -l": ["wc", "-l", str(log)],
    }
    print(f"{log.stat().st_size / 2**30:.2f} GiB, {SHAPES:,} distinct lines\n")
    print("| | wall | CPU | memory |\n|---|---|---|---|")
    for name, command in commands.items():
        if shutil.which(command[0]) is None:
            print(f"| {name} | not installed | | |")
            continue
        wall, cpu, memory = measure(command)
        print(f"| {name} | {wall:.1f} s | {cpu:.1f} s | {memory:.0f} MiB |", flush=True)
    log.unlink()


if sys.argv[1] == "make":
    make_log(Path(sys.argv[2]))
else:
    main()
