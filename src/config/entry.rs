//! `registry` and `deny`: lists of entries in the shape of an Istio `ServiceEntry`.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::reader::{Context, Names, Number, Read, Step, Text, Value, unknown};
use crate::address::{Cidr, InvalidCidr};
use crate::name::MAX_NAME;
use crate::pattern::HostPattern;
use crate::registry::{InvalidProtocol, Protocol, RegistryBuilder, RegistryFull};

pub(super) struct EntryList<'a> {
    builder: &'a mut RegistryBuilder,
    may_expire: bool,
}

impl<'a> EntryList<'a> {
    pub(super) fn registry(builder: &'a mut RegistryBuilder) -> Self {
        EntryList { builder, may_expire: true }
    }

    pub(super) fn deny(builder: &'a mut RegistryBuilder) -> Self {
        EntryList { builder, may_expire: false }
    }
}

impl<'de> Read<'de> for EntryList<'_> {
    const EXPECTED: &'static str = "a list of entries such as {\"hosts\": [\"api.example.com\"]}";

    fn list<A: SeqAccess<'de>>(self, cx: &mut Context, mut seq: A) -> Result<(), A::Error> {
        let mut ports = Vec::new();
        cx.enter(Step::Index(0));
        loop {
            let entry = Entry { builder: self.builder, may_expire: self.may_expire, ports: &mut ports };
            if seq.next_element_seed(Value { cx, read: entry })?.is_none() {
                break;
            }
            cx.next_element();
        }
        cx.leave();
        Ok(())
    }
}

type Ports = Vec<(u16, Option<Protocol>)>;

struct Entry<'a> {
    builder: &'a mut RegistryBuilder,
    may_expire: bool,
    /// Used again from entry to entry.
    ports: &'a mut Ports,
}

impl<'de> Read<'de> for Entry<'_> {
    const EXPECTED: &'static str = "an entry such as {\"hosts\": [\"api.example.com\"]}";

    fn null(self, cx: &mut Context) {
        cx.complain(&format_args!("nothing; expected {}", Self::EXPECTED));
    }

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let Entry { builder, may_expire, ports } = self;
        ports.clear();
        builder.begin_entry();
        let problems_before = cx.problems();
        let mut places = 0_usize;
        let mut seen = 0;
        while let Some(field) = cx.field(&mut map, &["name", "hosts", "addresses", "ports", "expires"], &mut seen)? {
            match field {
                "name" => cx.value(
                    &mut map,
                    field,
                    Text(&mut |cx: &mut Context, text: &str| {
                        if text.is_empty() || text.len() > MAX_NAME {
                            cx.problem(
                                text,
                                &format_args!("a name has 1 to {MAX_NAME} bytes; shorten it or leave it out"),
                            );
                        } else {
                            builder.name(text);
                        }
                    }),
                )?,
                "hosts" => cx.value(
                    &mut map,
                    field,
                    Names("hosts", &mut |cx: &mut Context, text: &str| {
                        places += 1;
                        match HostPattern::from_config(text) {
                            Err(invalid) => cx.problem(text, &invalid),
                            Ok(pattern) => {
                                if builder.host(&pattern) == Err(RegistryFull) {
                                    cx.problem(text, &format_args!("more than {} distinct names", RegistryFull::LIMIT));
                                }
                            }
                        }
                    }),
                )?,
                "addresses" => cx.value(
                    &mut map,
                    field,
                    Names("addresses", &mut |cx: &mut Context, text: &str| {
                        places += 1;
                        match text.parse::<Cidr>() {
                            Ok(cidr) => builder.address(cidr),
                            Err(invalid @ InvalidCidr::Address) => {
                                cx.problem(text, &format_args!("{invalid}; names belong under hosts"));
                            }
                            Err(invalid) => cx.problem(text, &invalid),
                        }
                    }),
                )?,
                "ports" => cx.value(&mut map, field, PortList(ports))?,
                _ if !may_expire => {
                    cx.enter(Step::Field(field));
                    cx.complain(&"a deny entry does not expire; remove the field");
                    cx.leave();
                    map.next_value::<IgnoredAny>()?;
                }
                _ => cx.value(
                    &mut map,
                    field,
                    Text(&mut |cx: &mut Context, text: &str| match OffsetDateTime::parse(text, &Rfc3339) {
                        Ok(time) => builder.expires(time.unix_timestamp()),
                        Err(_) => {
                            cx.problem(text, &"not a time (RFC 3339); use a form such as \"2027-01-31T00:00:00Z\"");
                        }
                    }),
                )?,
            }
        }
        if places == 0 && cx.problems() == problems_before {
            cx.complain(&"the entry matches nothing; give it hosts or addresses");
        }
        builder.ports(ports);
        builder.end_entry();
        Ok(())
    }
}

struct PortList<'a>(&'a mut Ports);

impl<'de> Read<'de> for PortList<'_> {
    const EXPECTED: &'static str = "a list of ports such as {\"number\": 443, \"protocol\": \"TLS\"}";

    fn list<A: SeqAccess<'de>>(self, cx: &mut Context, mut seq: A) -> Result<(), A::Error> {
        cx.enter(Step::Index(0));
        let mut is_empty = true;
        while seq.next_element_seed(Value { cx, read: Port(&mut *self.0) })?.is_some() {
            cx.next_element();
            is_empty = false;
        }
        cx.leave();
        if is_empty {
            cx.complain(&"an empty list; name a port, or leave the field out for every port");
        }
        Ok(())
    }
}

struct Port<'a>(&'a mut Ports);

impl<'de> Read<'de> for Port<'_> {
    const EXPECTED: &'static str = "a port such as {\"number\": 443, \"protocol\": \"TLS\"}";

    fn null(self, cx: &mut Context) {
        cx.complain(&format_args!("nothing; expected {}", Self::EXPECTED));
    }

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let mut number = 0;
        let mut protocol = None;
        let mut seen = 0;
        let problems_before = cx.problems();
        // `name` is required in a ServiceEntry. It is allowed here, so that a list can be copied, and means nothing.
        while let Some(field) = cx.field(&mut map, &["number", "protocol", "name"], &mut seen)? {
            match field {
                "number" => cx.value(&mut map, field, Number(1..=65535, &mut number))?,
                "protocol" => cx.value(
                    &mut map,
                    field,
                    Text(&mut |cx: &mut Context, text: &str| match text.parse() {
                        Ok(known) => protocol = Some(known),
                        Err(InvalidProtocol::Unknown) => cx.problem(text, &unknown("protocol", text, &Protocol::NAMES)),
                        Err(invalid @ InvalidProtocol::Udp) => cx.problem(text, &invalid),
                    }),
                )?,
                _ => cx.value(&mut map, field, Text(&mut |_: &mut Context, _: &str| {}))?,
            }
        }
        match u16::try_from(number) {
            Ok(number @ 1..) => self.0.push((number, protocol)),
            _ if cx.problems() == problems_before => {
                cx.complain(&"the number is missing; add one, such as {\"number\": 443}");
            }
            _ => {}
        }
        Ok(())
    }
}
