//! What ends a command: bad usage, a file that cannot be read, a cluster that does not answer. Findings are no failures.

use std::fmt;
use std::io;

/// Why a command could not do its work, in one or more lines that say what, where and how to repair it.
#[derive(Debug)]
pub struct Failure {
    message: String,
    /// Whoever read the output has gone away; there is nobody to tell.
    is_broken_pipe: bool,
}

/// What a command comes to; [`Failure`] in its error.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), is_broken_pipe: false }
    }

    /// Whether the reader of the output has gone away, as `head` does.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        self.is_broken_pipe
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Writing the output failed. Reading says what it read: use [`Failure::new`] there.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let is_broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Failure { message: format!("the output cannot be written: {error}"), is_broken_pipe }
    }
}
