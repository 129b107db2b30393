//! A stand-in for the outside world on TCP: sends a banner, if it has one, then back what it gets, and counts what reached
//! it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;

use super::server::{Counts, Server};

pub struct Echo(Server);

impl Echo {
    /// Serves until the process ends.
    pub fn start(banner: &'static [u8]) -> Echo {
        Echo(Server::start(move |stream, counts| serve(stream, banner, counts)))
    }
}

impl Deref for Echo {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

fn serve(mut stream: TcpStream, banner: &[u8], counts: &Counts) {
    let mut buffer = vec![0; 64 * 1024];
    let mut to_send = banner;
    loop {
        if stream.write_all(to_send).is_err() {
            return;
        }
        match stream.read(&mut buffer) {
            // The other direction may go on.
            Ok(0) => {
                let _ = stream.shutdown(Shutdown::Write);
                return;
            }
            Err(_) => return,
            Ok(count) => {
                counts.arrived(count);
                to_send = &buffer[..count];
            }
        }
    }
}
