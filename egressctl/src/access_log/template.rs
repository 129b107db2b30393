//! Format strings of text access logs, and lines read by them.
//!
//! A format is literals with operators between them. Envoy escapes nothing, so a client can write a quote and a space into
//! its User-Agent and with them forge what follows. Therefore what stands behind the last such value is read from the
//! line's end backwards, and what is between the first and the last is not read at all.

use std::borrow::Cow;
use std::fmt;

use super::fields::{Field, Fields};

/// A format string, taken apart.
#[derive(Clone, Debug)]
pub struct Template {
    /// What the line begins with.
    start: String,
    /// Each operator, and the literal behind it.
    pieces: Vec<Piece>,
    /// The first and the last piece that a client or server may write anything into.
    untrusted: Option<(usize, usize)>,
}

#[derive(Clone, Debug)]
struct Piece {
    field: Option<Field>,
    literal: String,
}

/// Why a text is no format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidTemplate {
    /// A `%` without its partner.
    OpenOperator,
    /// `%A%%B%`: nobody can tell where the one ends.
    Adjacent(String, String),
    /// No operator in it that tells of a destination.
    NoDestination,
}

impl fmt::Display for InvalidTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidTemplate::OpenOperator => f.write_str("a % has no partner; a percent sign itself is written %%"),
            InvalidTemplate::Adjacent(first, second) => {
                write!(f, "nothing stands between %{first}% and %{second}%, so lines cannot be taken apart")
            }
            InvalidTemplate::NoDestination => f.write_str(
                "has none of %REQ(:AUTHORITY)%, %REQUESTED_SERVER_NAME%, %DOWNSTREAM_LOCAL_ADDRESS% and \
                 %FILTER_STATE(wasm.egress_host:PLAIN)%, so nothing tells whom a line called",
            ),
        }
    }
}

impl Template {
    /// Istio's default text format.
    pub const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
         %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
         \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
         %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
         \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
         %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
         %REQUESTED_SERVER_NAME% %ROUTE_NAME%";

    /// Envoy's default text format.
    pub const ENVOY: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
         %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
         %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
         \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"";

    /// Reads a format string as Envoy has it; a line break at its end, also as `\n`, does not count.
    ///
    /// # Errors
    ///
    /// [`InvalidTemplate`].
    pub fn parse(format: &str) -> Result<Self, InvalidTemplate> {
        let format = format.trim_end_matches('\n').trim_end_matches("\\n");
        let (start, mut rest) = literal(format);
        let mut pieces: Vec<Piece> = Vec::new();
        let mut operators: Vec<&str> = Vec::new();
        while let Some(after) = rest.strip_prefix('%') {
            let (operator, after) = split_operator(after).ok_or(InvalidTemplate::OpenOperator)?;
            let (text, after) = literal(after);
            if let (Some(piece), Some(last)) = (pieces.last(), operators.last())
                && piece.literal.is_empty()
            {
                return Err(InvalidTemplate::Adjacent((*last).to_owned(), operator.to_owned()));
            }
            pieces.push(Piece { field: Field::of_operator(operator), literal: text });
            operators.push(operator);
            rest = after;
        }
        let telling = [Field::Authority, Field::ServerName, Field::Destination, Field::Host];
        if !pieces.iter().any(|piece| piece.field.is_some_and(|field| telling.contains(&field))) {
            return Err(InvalidTemplate::NoDestination);
        }
        let untrusted = |operator: &&str| is_untrusted(operator);
        let first = operators.iter().position(untrusted);
        let last = operators.iter().rposition(untrusted);
        Ok(Template { start, pieces, untrusted: first.zip(last) })
    }

    /// Reads a line; `None` if it is not of this format.
    #[must_use]
    pub fn read<'a>(&self, line: &'a str) -> Option<Fields<'a>> {
        let mut rest = line.strip_prefix(self.start.as_str())?;
        let mut fields = Fields::default();
        let (first, last) = self.untrusted.unwrap_or((self.pieces.len(), self.pieces.len()));
        for piece in self.pieces.iter().take(first) {
            let (value, after) = match piece.literal.as_str() {
                "" => (rest, ""),
                literal => rest.split_once(literal)?,
            };
            take(&mut fields, piece, value);
            rest = after;
        }
        let Some(middle) = self.pieces.get(last) else {
            return rest.is_empty().then_some(fields);
        };
        // The literal of each piece ends it, so it is the one before that begins the next.
        let mut end = self.pieces.last().map_or("", |piece| piece.literal.as_str());
        for (position, piece) in self.pieces.iter().enumerate().skip(last + 1).rev() {
            rest = rest.strip_suffix(end)?;
            let before = self.pieces.get(position.checked_sub(1)?)?.literal.as_str();
            let (head, value) = rest.rsplit_once(before)?;
            take(&mut fields, piece, value);
            // What was before the literal that was found ends with it, as far as the next round is concerned.
            rest = rest.get(..head.len() + before.len())?;
            end = before;
        }
        rest.strip_suffix(middle.literal.as_str())?;
        Some(fields)
    }
}

fn take<'a>(fields: &mut Fields<'a>, piece: &Piece, value: &'a str) {
    if let Some(field) = piece.field {
        fields.set(field, Cow::Borrowed(value));
    }
}

/// The text up to the next operator, and the rest, which begins with it.
fn literal(format: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = format;
    loop {
        let Some(position) = rest.find('%') else {
            text.push_str(rest);
            return (text, "");
        };
        let (before, after) = rest.split_at(position);
        text.push_str(before);
        let Some(behind) = after.strip_prefix("%%") else {
            return (text, after);
        };
        text.push('%');
        rest = behind;
    }
}

/// An operator's arguments may have a `%` in them: `START_TIME(%Y/%m/%d)`.
fn split_operator(text: &str) -> Option<(&str, &str)> {
    let mut is_open = false;
    for (position, c) in text.char_indices() {
        match c {
            '(' => is_open = true,
            ')' => is_open = false,
            '%' if !is_open => return Some((text.get(..position)?, text.get(position + 1..)?)),
            _ => {}
        }
    }
    None
}

/// Whether a client may write anything into the value: request headers, save those that Envoy checks.
fn is_untrusted(operator: &str) -> bool {
    let checked = ["REQ(:AUTHORITY)", "REQ(:METHOD)", "REQ(:PATH)", "REQ(:SCHEME)", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)"];
    let is_header = ["REQ(", "RESP(", "TRAILER("].iter().any(|prefix| operator.starts_with(prefix));
    let is_service_time = operator.eq_ignore_ascii_case("RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)");
    is_header && !is_service_time && !checked.iter().any(|known| operator.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(template: &str, line: &str, fields: &[Field]) -> Option<Vec<String>> {
        let read = Template::parse(template).unwrap();
        let read = read.read(line)?;
        Some(fields.iter().map(|field| read.value(*field).to_owned()).collect())
    }

    #[test]
    fn reads_a_line_that_a_user_agent_tries_to_forge() {
        let line = "[2026-11-25T18:32:31.546Z] \"GET /x?y=1 HTTP/1.1\" 200 - via_upstream - \"-\" 0 3 4 3 \"-\" \"evil\" \"id\" \
             \"a.example\" \"1.2.3.4:5\" \"b8cab923\" \"a.saas.example:8443\" \"127.0.0.1:48975\" PassthroughCluster \
             127.0.0.1:42602 127.0.0.1:35793 127.0.0.1:50706 - allow_any";
        let fields = [Field::Authority, Field::UpstreamHost, Field::Cluster, Field::Destination, Field::RouteName];
        let expected = ["a.saas.example:8443", "127.0.0.1:48975", "PassthroughCluster", "127.0.0.1:35793", "allow_any"];
        assert_eq!(values(Template::ISTIO, line, &fields).unwrap(), expected);
        assert_eq!(
            values(Template::ISTIO, line, &[Field::Time, Field::Method]).unwrap(),
            ["2026-11-25T18:32:31.546Z", "GET"]
        );
    }

    #[test]
    fn reads_formats_without_untrusted_values_to_the_end() {
        let format = "%REQ(:AUTHORITY)% 100%% %REQUESTED_SERVER_NAME%|";
        let fields = [Field::Authority, Field::ServerName];
        assert_eq!(values(format, "a.example 100% -|", &fields).unwrap(), ["a.example", ""]);
        assert_eq!(values(format, "a.example 100% b.example|x", &fields), None);
        assert_eq!(values(format, "a.example 99% b.example|", &fields), None);
    }

    #[test]
    fn says_what_is_wrong_with_a_format() {
        for (format, expected) in [
            ("%REQ(:AUTHORITY)", InvalidTemplate::OpenOperator),
            ("%PROTOCOL%%REQ(:AUTHORITY)%", InvalidTemplate::Adjacent("PROTOCOL".into(), "REQ(:AUTHORITY)".into())),
            ("%START_TIME(%Y)% %PROTOCOL%", InvalidTemplate::NoDestination),
        ] {
            assert_eq!(Template::parse(format).unwrap_err(), expected, "{format}");
        }
    }
}
