"""Records the first flight of real TLS clients, for tests/client_hello.rs.

Each client that is on this machine connects to a port on loopback that accepts, keeps what the client sends first and
hangs up. The bytes go to recorded/NAME.bin. Run it from anywhere; existing files are replaced.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).parent / "recorded"
NAME = "api.example.com"

GO = """package main
import ("crypto/tls"; "os")
func main() { tls.Dial("tcp", os.Args[1], &tls.Config{ServerName: "api.example.com", InsecureSkipVerify: true}) }
"""
JAVA = """import javax.net.ssl.*;
public class Hello {
  public static void main(String[] a) throws Exception {
    SSLSocket s = (SSLSocket) SSLSocketFactory.getDefault().createSocket("127.0.0.1", Integer.parseInt(a[0]));
    SSLParameters p = s.getSSLParameters();
    p.setServerNames(java.util.List.of(new SNIHostName("api.example.com")));
    s.setSSLParameters(p);
    try { s.startHandshake(); } catch (Exception e) { }
  }
}
"""
NODE = "require('tls').connect({port: +process.argv[1], servername: 'api.example.com'}).on('error', () => {})"
PYTHON = """import socket, ssl, sys
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
try: c.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))), server_hostname="api.example.com")
except OSError: pass
"""


def clients(port: int, folder: Path) -> dict[str, list[str]]:
    """Name and command of each client; the command's program may be missing."""
    (folder / "main.go").write_text(GO)
    (folder / "Hello.java").write_text(JAVA)
    openssl = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}"]
    curl = ["curl", "-sk", "-m", "5", "--connect-to", f"::127.0.0.1:{port}", f"https://{NAME}/"]
    return {
        "openssl": [*openssl, "-servername", NAME],
        "openssl_tls12": [*openssl, "-servername", NAME, "-tls1_2"],
        "openssl_no_sni": [*openssl, "-noservername"],
        "curl": curl,
        "gnutls": ["gnutls-cli", "--insecure", "--sni-hostname", NAME, "-p", str(port), "127.0.0.1"],
        "python": [sys.executable, "-c", PYTHON, str(port)],
        "node": ["node", "-e", NODE, str(port)],
        "go": ["go", "run", str(folder / "main.go"), f"127.0.0.1:{port}"],
        "java": ["java", str(folder / "Hello.java"), str(port)],
        "chromium": [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'chromium'}", f"--host-resolver-rules=MAP {NAME} 127.0.0.1:{port}",
            "--timeout=5000", "--dump-dom", f"https://{NAME}/",
        ],
    }


def first_flight(listener: socket.socket, into: list[bytes]) -> None:
    """All bytes until the client has been quiet for a moment: a hello of several segments is one flight."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(60)
        data = connection.recv(65536)
        connection.settimeout(0.5)
        try:
            while more := connection.recv(65536):
                data += more
        except TimeoutError:
            pass
        into.append(data)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for client in clients(0, Path(name)):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                command = clients(listener.getsockname()[1], Path(name))[client]
                if shutil.which(command[0]) is None:
                    print(f"{client}: {command[0]} is not here")
                    continue
                flight: list[bytes] = []
                thread = threading.Thread(target=first_flight, args=(listener, flight), daemon=True)
                thread.start()
                subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
                thread.join(10)
                if flight:
                    (HERE / f"{client}.bin").write_bytes(flight[0])
                print(f"{client}: {len(flight[0]) if flight else 'nothing'} bytes")


if __name__ == "__main__":
    main()
