//! A server on loopback that counts what reaches it, with a thread for each connection.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub struct Server {
    pub address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
pub struct Counts {
    connections: AtomicU64,
    open: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// So many bytes have arrived.
    pub fn arrived(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }
}

impl Server {
    /// Serves until the process ends.
    pub fn start(serve: impl Fn(TcpStream, &Counts) + Clone + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (shared, serve) = (Arc::clone(&shared), serve.clone());
                // A thousand at once are made in some tests.
                let thread = thread::Builder::new().stack_size(256 * 1024).spawn(move || {
                    serve(stream, &shared);
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
                thread.unwrap();
            }
        });
        Server { address, counts }
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
