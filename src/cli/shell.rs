//! What every command is given: the connection to the daemon and where to write.
//!
//! All output of the command line passes through [`Out`], so that tests can read it and a closed pipe
//! ends the program quietly. Data goes to standard output, chatter and progress to standard error
//! where Docker does the same.

use std::fmt::{self, Debug};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use super::client::Client;

/// What a command runs with.
#[derive(Debug)]
pub(crate) struct Shell {
    /// The daemon's API.
    pub(crate) client: Client,
    /// Where to write.
    pub(crate) out: Out,
    /// Where the daemon keeps its state, for `init` and `join`.
    pub(crate) state_dir: PathBuf,
    /// Socket and state directory are those of the installed unit.
    pub(crate) defaults: bool,
}

/// Whether lines may be overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    /// A terminal with so many columns.
    Terminal(usize),
    /// A file or pipe: lines are only appended.
    Plain,
}

/// Standard output and standard error.
pub(crate) struct Out {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    screen: Screen,
}

impl Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("screen", &self.screen).finish_non_exhaustive()
    }
}

impl Out {
    /// The streams of the process.
    pub(crate) fn system() -> Self {
        let terminal =
            io::stdout().is_terminal() && std::env::var("TERM").map_or(true, |term| term != "dumb");
        let screen =
            if terminal { Screen::Terminal(usize::from(console_width())) } else { Screen::Plain };
        Self { stdout: Box::new(io::stdout()), stderr: Box::new(io::stderr()), screen }
    }

    /// Streams of a test.
    #[cfg(test)]
    pub(crate) fn to(stdout: Box<dyn Write + Send>, stderr: Box<dyn Write + Send>) -> Self {
        Self { stdout, stderr, screen: Screen::Plain }
    }

    /// What kind of screen standard output is.
    pub(crate) const fn screen(&self) -> Screen {
        self.screen
    }

    /// Writes a line of data.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.stdout, "{line}")
    }

    /// Writes data as it is.
    pub(crate) fn text(&mut self, text: impl fmt::Display) -> io::Result<()> {
        write!(self.stdout, "{text}")?;
        self.stdout.flush()
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.write_all(bytes)?;
        self.stdout.flush()
    }

    /// Writes bytes to standard error.
    pub(crate) fn error_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stderr.write_all(bytes)?;
        self.stderr.flush()
    }

    /// Writes a line for people, which is not data, to standard error.
    pub(crate) fn note(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.stderr, "{line}")
    }
}

/// Columns of the terminal as the shell exports them, or a guess that fits most.
fn console_width() -> u16 {
    std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(80)
}
