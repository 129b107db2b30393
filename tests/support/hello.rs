//! ClientHellos, as small as they can be.

/// A whole ClientHello in one record; without a name it has no extensions.
pub fn client_hello(server_name: Option<&str>) -> Vec<u8> {
    let extensions = server_name.map(|name| {
        let names = [&[0][..], &with_length(name.as_bytes())].concat();
        with_length(&[&[0, 0][..], &with_length(&with_length(&names))].concat())
    });
    let body =
        [&[3, 3][..], &[9; 32], &[0], &with_length(&[0x13, 1]), &[1, 0], extensions.as_deref().unwrap_or_default()]
            .concat();
    record(&[&[1, 0][..], &with_length(&body)].concat())
}

/// A record with handshake messages.
pub fn record(fragment: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &with_length(fragment)].concat()
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}
