//! Clients: raw HTTP/1 over a connection whose original destination a PROXY header gives, as iptables gives it to a
//! sidecar.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::envoy::PATIENCE;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection to a listener, redirected there from `destination`.
pub fn connect(port: u16, destination: SocketAddr) -> TcpStream {
    connect_as(40_000, port, destination)
}

/// The same with a source port, by which the access log can tell it.
pub fn connect_as(source_port: u16, port: u16, destination: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(proxy_header(source_port, destination).as_bytes()).unwrap();
    stream
}

/// The PROXY protocol's first line (version 1).
fn proxy_header(source_port: u16, destination: SocketAddr) -> String {
    let (family, source) = if destination.is_ipv4() { ("TCP4", "192.0.2.1") } else { ("TCP6", "2001:db8::1") };
    format!("PROXY {family} {source} {} {source_port} {}\r\n", destination.ip(), destination.port())
}

/// Reads so many bytes; fewer where the connection ends before.
pub fn read_up_to(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset comes to the same as an end.
    let _ = stream.take(count as u64).read_to_end(&mut bytes);
    bytes
}

/// Sends bytes and reads one response.
pub fn exchange(port: u16, destination: SocketAddr, request: &[u8]) -> Response {
    let mut stream = connect(port, destination);
    stream.write_all(request).unwrap();
    read_response(&mut stream).expect("the connection closed without a response")
}

/// Reads a response with a length, in chunks, or to the end; `None` when the connection closed before it was whole.
pub fn read_response(stream: &mut TcpStream) -> Option<Response> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            if !bytes.starts_with(b"HTTP/1.1 100 ") {
                break end + 4;
            }
            bytes.drain(..end + 4);
            continue;
        }
        read_more(stream, &mut bytes)?;
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut response = Response { status, headers, body: bytes.split_off(head) };
    if status == 101 {
        return Some(response);
    }
    if let Some(length) = response.header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        while response.body.len() < length {
            read_more(stream, &mut response.body)?;
        }
    } else if response.header("transfer-encoding") == Some("chunked") {
        while !response.body.ends_with(b"0\r\n\r\n") {
            read_more(stream, &mut response.body)?;
        }
    }
    Some(response)
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
    bytes.extend_from_slice(&buffer[..count]);
    Some(())
}

/// A plain GET to a port of this machine; `None` while nothing answers.
pub fn try_get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Some((chunk, rest)) = usize::from_str_radix(size, 16).ok().and_then(|size| rest.split_at_checked(size))
        else {
            break;
        };
        text.push_str(chunk);
        body = rest.trim_start_matches("\r\n");
    }
    text
}
