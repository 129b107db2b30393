"""A plain TCP client, run within a pod: connects, says something or nothing, and prints what it heard as JSON.

    tcp_client.py LOCAL_PORT ADDRESS PORT HEX
"""

import json
import socket
import sys

local_port, address, port, first = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), bytes.fromhex(sys.argv[4])
heard, error, client = b"", None, ""
with socket.socket() as stream:
    # Longer than the filter waits for a client.
    stream.settimeout(10)
    stream.bind(("", local_port))
    try:
        stream.connect((address, port))
        client = "{}:{}".format(*stream.getsockname())
        if first:
            stream.sendall(first)
        heard = stream.recv(4096)
    except OSError as failure:
        error = type(failure).__name__
print(json.dumps({"heard": heard.decode(errors="replace"), "error": error, "client": client}))
