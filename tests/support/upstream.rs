//! A stand-in for the outside world: an HTTP/1 server on loopback that says which host it was asked for, and counts what
//! reached it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;

use super::server::{Counts, Server};

pub struct Upstream(Server);

impl Upstream {
    /// Serves until the process ends.
    pub fn start() -> Upstream {
        Upstream(Server::start(serve))
    }
}

impl Deref for Upstream {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

/// Answers each request once its head is there; what follows is read and counted.
fn serve(mut stream: TcpStream, counts: &Counts) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes.drain(..end + 4);
            let lower = head.to_ascii_lowercase();
            let host = lower.lines().find_map(|line| line.strip_prefix("host:")).unwrap_or_default().trim();
            let answer = if lower.contains("\r\nupgrade: websocket") {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned()
            } else {
                let body = format!("outside: {host}\n");
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
            // A body has no empty line, as far as these tests go: what is left of it is dropped with the next head.
            if lower.contains("content-length") || lower.contains("transfer-encoding") {
                bytes.clear();
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                counts.arrived(count);
                bytes.extend_from_slice(&buffer[..count]);
            }
        }
    }
}
