//! Random configurations and destinations, of few names, addresses and ports, so that they meet often.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::random::Random;

const HOSTS: [&str; 10] = [
    "a.example",
    "b.a.example",
    "X.b.A.example.",
    "api-1.g.example",
    "c.test",
    "reviews.default.svc.cluster.local",
    "192.0.2.1",
    "0x7f.1",
    "a..example",
    "unlisted.invalid",
];
const PATTERNS: [&str; 9] = [
    "a.example",
    "*.a.example",
    "*.b.a.example",
    "api-*.g.example",
    "*.g.example",
    "c.test",
    "C.TEST.",
    "b.a.example",
    "never.asked.example",
];
const ADDRESSES: [&str; 4] = ["192.0.2.1", "198.51.100.7", "10.1.2.3", "2001:db8::1"];
const CIDRS: [&str; 6] = ["192.0.2.0/24", "192.0.2.1", "198.51.100.0/25", "10.0.0.0/8", "2001:db8::/32", "203.0.113.9"];
const PORTS: [u16; 3] = [80, 443, 3306];
const PROTOCOLS: [&str; 6] = ["HTTP", "TLS", "TCP", "GRPC", "HTTPS", "MYSQL"];

#[derive(Clone, Copy, Debug)]
pub enum Form {
    Http,
    Grpc,
    Tls,
    NoSni,
    Bytes,
}

pub struct Asked {
    pub form: Form,
    pub host: &'static str,
    pub to: SocketAddr,
}

impl Asked {
    pub fn any(random: &mut Random) -> Asked {
        let form = pick(random, &[Form::Http, Form::Http, Form::Grpc, Form::Tls, Form::Tls, Form::NoSni, Form::Bytes]);
        let mut host = pick(random, &HOSTS);
        if matches!(form, Form::Tls) && host == "192.0.2.1" {
            host = "a.example";
        }
        let to = SocketAddr::new(pick(random, &ADDRESSES).parse().unwrap(), pick(random, &PORTS));
        Asked { form, host, to }
    }

    pub fn url(&self) -> String {
        let Asked { form, host, to } = self;
        match form {
            Form::Http => format!("http://{host}@{to}"),
            Form::Grpc => format!("grpc://{host}@{to}"),
            Form::Tls => format!("tls://{host}:443@{to}"),
            Form::NoSni => format!("tls://:443@{to}"),
            Form::Bytes => format!("tcp://{to}"),
        }
    }
}

pub fn configuration(random: &mut Random) -> Value {
    let mut config = json!({
        "registry": (0..random.below(7)).map(|_| entry(random, true)).collect::<Vec<_>>(),
        "deny": (0..random.below(5).saturating_sub(2)).map(|_| entry(random, false)).collect::<Vec<_>>(),
    });
    if random.below(4) == 0 {
        config["outboundTrafficPolicy"] = json!({"mode": "ALLOW_ANY"});
    }
    if random.below(3) == 0 {
        config["enforcement"] = json!("REPORT");
    }
    if random.below(4) == 0 {
        config["spoofProtection"] = json!(true);
    }
    if random.below(3) == 0 {
        config["mesh"] = json!({"addresses": ["10.0.0.0/8"]});
    }
    if random.below(2) == 0 {
        let namespace = pick(random, &["shop", "bank"]);
        config["overrides"] = json!([{"match": {"namespaces": [namespace]}, "registry": [entry(random, true)]}]);
    }
    config
}

pub fn entry(random: &mut Random, may_expire: bool) -> Value {
    let mut entry = json!({});
    let kind = random.below(4);
    if kind < 3 {
        entry["hosts"] = (0..=random.below(2)).map(|_| pick(random, &PATTERNS)).collect();
    }
    if kind > 1 {
        entry["addresses"] = (0..=random.below(2)).map(|_| pick(random, &CIDRS)).collect();
    }
    if random.below(2) == 0 {
        entry["ports"] = (0..=random.below(2))
            .map(|_| match random.below(4) {
                0 => json!({"number": pick(random, &PORTS)}),
                _ => json!({"number": pick(random, &PORTS), "protocol": pick(random, &PROTOCOLS)}),
            })
            .collect();
    }
    if may_expire && random.below(6) == 0 {
        entry["expires"] = json!("2026-01-31T00:00:00Z");
    }
    entry
}

pub fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len())]
}
