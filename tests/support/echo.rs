//! A stand-in for the outside world on TCP: sends a banner, if it has one, then back what it gets, and counts what reached
//! it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub struct Echo {
    pub address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    open: AtomicU64,
    bytes: AtomicU64,
}

impl Echo {
    /// Serves until the process ends.
    pub fn start(banner: &'static [u8]) -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn(move || {
                        serve(stream, banner, &shared);
                        shared.open.fetch_sub(1, Ordering::SeqCst);
                    })
                    .unwrap();
            }
        });
        Echo { address, counts }
    }

    /// Connections that were ever made.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Connections that have not ended.
    pub fn open(&self) -> u64 {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Bytes that ever arrived.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::SeqCst)
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
                counts.bytes.fetch_add(count as u64, Ordering::SeqCst);
                to_send = &buffer[..count];
            }
        }
    }
}
