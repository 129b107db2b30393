//! One line a case; each table names what it shows.

use super::*;

fn name(text: &str) -> Result<String, InvalidName> {
    HostName::from_wire(text.as_bytes()).map(|name| name.as_str().to_owned())
}

fn authority(text: &str) -> Result<(String, Option<u16>), InvalidName> {
    Authority::from_wire(text.as_bytes()).map(|authority| {
        let host = match authority.host {
            Host::Name(name) => name.as_str().to_owned(),
            Host::Ip(ip) => format!("ip {ip}"),
        };
        (host, authority.port)
    })
}

#[test]
fn normalises_what_is_a_name() {
    let long = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    assert_eq!(long.len(), MAX_NAME);
    for (text, expected) in [
        ("api.stripe.com", "api.stripe.com"),
        ("API.Stripe.com", "api.stripe.com"),
        ("api.stripe.com.", "api.stripe.com"),
        ("API.Stripe.COM.", "api.stripe.com"),
        ("localhost", "localhost"),
        ("a", "a"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("-a-.b_.example", "-a-.b_.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("0x7f.example", "0x7f.example"),
        ("a.0xyz", "a.0xyz"),
        (long.as_str(), long.as_str()),
        (format!("{long}.").as_str(), long.as_str()),
    ] {
        assert_eq!(name(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn borrows_a_name_that_is_in_normal_form() {
    assert!(matches!(HostName::from_wire(b"a.example"), Ok(HostName(Cow::Borrowed(_)))));
    assert!(matches!(HostName::from_wire(b"a.example."), Ok(HostName(Cow::Borrowed(_)))));
}

#[test]
fn refuses_what_is_no_name() {
    let long = "a".repeat(64);
    for (text, expected) in [
        ("", InvalidName::Empty),
        (".", InvalidName::Empty),
        ("..", InvalidName::EmptyLabel),
        ("a..b", InvalidName::EmptyLabel),
        (".a", InvalidName::EmptyLabel),
        ("a..", InvalidName::EmptyLabel),
        (long.as_str(), InvalidName::LabelTooLong),
        (format!("{long}.com").as_str(), InvalidName::LabelTooLong),
        ("a.".repeat(127).as_str().trim_end_matches('.').repeat(2).as_str(), InvalidName::TooLong),
        ("a,b.com", InvalidName::Character(',')),
        ("a b.com", InvalidName::Character(' ')),
        ("a.com/", InvalidName::Character('/')),
        ("*.a.com", InvalidName::Character('*')),
        ("a\0.com", InvalidName::Character('\0')),
        ("u@a.com", InvalidName::UserInformation),
        ("bücher.example", InvalidName::NotAscii),
        ("127.0.0.1", InvalidName::IpLiteral),
        ("127.0.0.1.", InvalidName::Ipv4Form),
    ] {
        assert_eq!(name(text), Err(expected), "{text}");
    }
    assert_eq!(HostName::from_wire(b"a\xff.com"), Err(InvalidName::NotAscii));
}

#[test]
fn never_takes_an_odd_ipv4_for_a_name_or_an_address() {
    for text in [
        "0x7f.1",
        "0x7f000001",
        "0X7F.0.0.1",
        "2130706433",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.256",
        "1.2.3.4.5",
        "a.1",
        "a.0x",
        "127.0.0.1.",
        "127.0.0.0x1",
    ] {
        assert_eq!(authority(text), Err(InvalidName::Ipv4Form), "{text}");
    }
}

#[test]
fn reads_authorities() {
    for (text, host, port) in [
        ("a.com", "a.com", None),
        ("A.com.:8080", "a.com", Some(8080)),
        ("a.com:", "a.com", None),
        ("a.com:00080", "a.com", Some(80)),
        ("a.com:65535", "a.com", Some(65535)),
        ("127.0.0.1", "ip 127.0.0.1", None),
        ("127.0.0.1:80", "ip 127.0.0.1", Some(80)),
        ("[::1]", "ip ::1", None),
        ("[::1]:", "ip ::1", None),
        ("[2001:DB8::1]:443", "ip 2001:db8::1", Some(443)),
        ("[::ffff:10.0.0.1]:443", "ip 10.0.0.1", Some(443)),
        ("[::ffff:a00:1]", "ip 10.0.0.1", None),
    ] {
        assert_eq!(authority(text), Ok((host.to_owned(), port)), "{text}");
    }
}

#[test]
fn refuses_what_is_no_authority() {
    for (text, expected) in [
        ("", InvalidName::Empty),
        (":80", InvalidName::Empty),
        ("a.com:0", InvalidName::Port),
        ("a.com:65536", InvalidName::Port),
        ("a.com:99999999999999999999", InvalidName::Port),
        ("a.com:+80", InvalidName::Port),
        ("a.com:http", InvalidName::Port),
        ("a.com,b.com", InvalidName::Character(',')),
        ("user@a.com", InvalidName::UserInformation),
        ("user:pass@a.com", InvalidName::UserInformation),
        ("user:pass@a.com:80", InvalidName::UserInformation),
        ("::1", InvalidName::Ipv6Form),
        ("2001:db8::1:443", InvalidName::Ipv6Form),
        ("[::1", InvalidName::Ipv6Form),
        ("[::1]a", InvalidName::Ipv6Form),
        ("[::1]:x", InvalidName::Port),
        ("[fe80::1%25eth0]", InvalidName::Ipv6Form),
        ("[fe80::1%eth0]:80", InvalidName::Ipv6Form),
        ("[127.0.0.1]", InvalidName::Ipv6Form),
        ("[]", InvalidName::Ipv6Form),
        ("[v1.fe80::a]", InvalidName::Ipv6Form),
    ] {
        assert_eq!(authority(text), Err(expected), "{text}");
    }
}

#[test]
fn maps_unicode_in_configuration() {
    for (text, expected) in [
        ("bücher.example", Ok("xn--bcher-kva.example")),
        ("BÜCHER.example.", Ok("xn--bcher-kva.example")),
        ("faß.de", Ok("xn--fa-hia.de")),
        ("例え。テスト", Ok("xn--r8jz45g.xn--zckzah")),
        ("my_ü.example", Ok("xn--my_-joa.example")),
        ("１２７.0.0.1", Err(InvalidName::IpLiteral)),
        ("a\u{200d}b.example", Err(InvalidName::Idna)),
        ("ü/.example", Err(InvalidName::Character('/'))),
    ] {
        let name = HostName::from_config(text).map(|name| name.as_str().to_owned());
        assert_eq!(name.as_deref(), expected.as_deref(), "{text}");
    }
}

#[test]
fn knows_what_lies_within_a_domain() {
    let within = |name: &'static str, domain: &'static str| {
        HostName::from_config(name).unwrap().is_within(&HostName::from_config(domain).unwrap())
    };
    assert!(within("a.cluster.local", "cluster.local"));
    assert!(within("cluster.local", "cluster.local"));
    assert!(!within("acluster.local", "cluster.local"));
    assert!(!within("local", "cluster.local"));
}

proptest::proptest! {
    #[test]
    fn the_fast_check_agrees_with_the_slow_one(text in "[a-cA-C.*@ü0-9]{0,70}") {
        for wildcards in [false, true] {
            let text = text.as_bytes();
            proptest::prop_assert_eq!(check(text, wildcards), check_slowly(text, wildcards));
        }
    }
}
