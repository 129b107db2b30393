//! Logs of any size, in one pass and in bounded memory.
//!
//! One thread reads blocks of whole lines, others count what is in them, each in a table of its own. A table that is full
//! is handed over and begun anew, so memory does not grow with the log, and nothing that is counted depends on how many
//! threads there are or which of them met a line.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use indicatif::{ProgressBar, ProgressStyle};

use super::line::{Format, Reader};
use super::{Evidence, Skip, Skipped, wrapper};
use crate::failure::{Failure, Result};
use crate::time::Time;

/// Which logs to read, and how.
#[derive(clap::Args, Clone, Debug)]
pub struct LogArgs {
    /// Access logs of sidecars, in JSON or text, as Envoy, kubectl logs, a container runtime or a log collector has them;
    /// - is standard input
    #[arg(value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// The format of the logs: a format string of Envoy, or a JSON object of them. Detected if left out: Istio's and Envoy's
    /// own text, and JSON with Istio's field names
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse)]
    pub log_format: Option<Format>,
    /// Namespace of calls whose line does not tell it
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Workload of calls whose line does not tell it
    #[arg(long, value_name = "NAME")]
    pub workload: Option<String>,
    /// How many threads read [default: one for each processor]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
}

/// A log, and what is known of its lines without reading them. Empty is unknown.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// By the path.
    pub namespace: String,
    /// By the path.
    pub pod: String,
    /// By the command line.
    pub assumed_namespace: String,
    /// By the command line.
    pub assumed_workload: String,
}

/// How to read.
#[derive(Debug)]
pub struct Scan {
    /// What reads the lines.
    pub reader: Reader,
    /// The logs; `-` is standard input.
    pub logs: Vec<(PathBuf, Origin)>,
    /// How many threads count.
    pub threads: usize,
    /// How many distinct calls a thread holds before it hands them over.
    pub table: usize,
}

/// How often and when a call was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How often.
    pub calls: u64,
    /// First; `None` where no line has a time.
    pub first: Option<Time>,
    /// Last.
    pub last: Option<Time>,
}

impl Seen {
    /// Once.
    #[must_use]
    pub fn once(at: Option<Time>) -> Self {
        Seen { calls: 1, first: at, last: at }
    }

    /// Adds what was seen elsewhere.
    pub fn merge(&mut self, other: Seen) {
        self.calls += other.calls;
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
    }
}

/// What a log came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// All lines.
    pub lines: u64,
    /// Those that are no calls.
    pub skipped: Skipped,
}

/// How much is read at once, and the longest line, in bytes.
const BLOCK: usize = 1 << 20;

/// How many distinct calls a thread holds: some 300 bytes each.
const TABLE: usize = 1 << 16;

impl LogArgs {
    /// What the arguments ask for.
    ///
    /// # Errors
    ///
    /// No log is named.
    pub fn scan(&self) -> Result<Scan> {
        if self.logs.is_empty() {
            return Err(Failure::new("no access log is named; give files, or - for standard input"));
        }
        let assumed = |text: &Option<String>| text.clone().unwrap_or_default();
        let origin = |path: &PathBuf| {
            let (namespace, pod) = wrapper::of_path(path);
            let assumed_namespace = assumed(&self.namespace);
            Origin { namespace, pod, assumed_namespace, assumed_workload: assumed(&self.workload) }
        };
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Scan {
            reader: Reader::new(self.log_format.clone()),
            logs: self.logs.iter().map(|path| (path.clone(), origin(path))).collect(),
            threads: self.threads.map_or_else(available, usize::from),
            table: TABLE,
        })
    }
}

/// Reads all logs, and hands every distinct call to `each`, once or several times.
///
/// # Errors
///
/// A log that cannot be read.
pub fn scan(
    scan: &Scan,
    mut each: impl FnMut(&Evidence<'_>, Seen) -> std::result::Result<(), Skip>,
) -> Result<Scanned> {
    let mut logs = open(scan)?;
    let buffers = scan.threads + 2;
    let (free_in, free_out) = sync_channel(buffers);
    let (full_in, full_out) = sync_channel::<Block>(buffers);
    let (tables_in, tables_out) = sync_channel::<Table>(1);
    for _ in 0..buffers {
        // There is room for all of them.
        let _ = free_in.send(Vec::with_capacity(2 * BLOCK));
    }
    let full_out = Mutex::new(full_out);
    let mut total = Scanned::default();
    let read = std::thread::scope(|scope| {
        let reading = scope.spawn(move || read_blocks(&mut logs, &free_out, &full_in));
        let counting: Vec<_> = (0..scan.threads)
            .map(|_| {
                let (full_out, free_in, tables_in) = (&full_out, free_in.clone(), tables_in.clone());
                scope.spawn(move || count_blocks(scan, full_out, &free_in, &tables_in))
            })
            .collect();
        drop((free_in, tables_in));
        for table in tables_out {
            for (bytes, seen) in table {
                if let Some(evidence) = Evidence::read(&bytes)
                    && let Err(skip) = each(&evidence, seen)
                {
                    total.skipped.add(skip, seen.calls);
                }
            }
        }
        for counted in counting {
            let counted = counted.join().map_err(|_| Failure::new("a thread that reads logs has failed"))?;
            total.lines += counted.lines;
            total.skipped.merge(&counted.skipped);
        }
        reading.join().map_err(|_| Failure::new("the thread that reads logs has failed"))?
    });
    let too_long = read?;
    total.lines += too_long;
    total.skipped.add(Skip::TooLong, too_long);
    // Nothing would be denied by a log that cannot be read: no answer is better than that one.
    let foreign = total.skipped.of(Skip::Foreign);
    if foreign > 0 && foreign + total.skipped.of(Skip::Blank) == total.lines {
        return Err(Failure::new(format!(
            "{} is an access log line of a format that is known; name the format with --log-format (or leave it out, if it \
             was given), and look whether the access log is on",
            match foreign {
                1 => "not the only line".to_owned(),
                all => format!("none of {all} lines"),
            }
        )));
    }
    Ok(total)
}

type Table = HashMap<Box<[u8]>, Seen>;

/// Whole lines of one log.
struct Block {
    lines: Vec<u8>,
    log: usize,
}

struct Log {
    name: String,
    input: Box<dyn Read + Send>,
    /// `None` for what has no size.
    size: Option<u64>,
}

fn open(scan: &Scan) -> Result<Vec<Log>> {
    let mut logs = Vec::new();
    for (path, _) in &scan.logs {
        if path.as_os_str() == "-" {
            crate::source::take_stdin()?;
            logs.push(Log { name: "<stdin>".to_owned(), input: Box::new(std::io::stdin()), size: None });
            continue;
        }
        let name = path.display().to_string();
        let fail = |error: std::io::Error| Failure::new(format!("{name}: cannot be read: {error}"));
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(Failure::new(format!("{name}: is a folder; name the files in it")));
        }
        let size = metadata.is_file().then_some(metadata.len());
        if size.is_some() && is_compressed(&file).map_err(fail)? {
            let message = format!("{name}: is compressed; use `gunzip -c {name} |` and - for standard input");
            return Err(Failure::new(message));
        }
        logs.push(Log { name, input: Box::new(file), size });
    }
    Ok(logs)
}

/// Whether a file is one of gzip (RFC 1952, section 2.3.1).
fn is_compressed(mut file: &File) -> std::io::Result<bool> {
    let mut start = Vec::new();
    file.take(2).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start == [0x1f, 0x8b])
}

/// Reads the logs in turn; returns how many lines were too long.
fn read_blocks(logs: &mut [Log], free: &Receiver<Vec<u8>>, full: &SyncSender<Block>) -> Result<u64> {
    let sizes: Option<Vec<u64>> = logs.iter().map(|log| log.size).collect();
    let progress = progress(sizes.map(|sizes| sizes.into_iter().sum()));
    let mut too_long = 0;
    for (position, log) in logs.iter_mut().enumerate() {
        let fail = |error: std::io::Error| Failure::new(format!("{}: cannot be read: {error}", log.name));
        let mut rest: Vec<u8> = Vec::new();
        let mut is_in_long_line = false;
        loop {
            // Whoever counts has gone: it has failed, and says so.
            let Ok(mut lines) = free.recv() else {
                return Ok(too_long);
            };
            lines.clear();
            lines.append(&mut rest);
            let count = log.input.by_ref().take(BLOCK as u64).read_to_end(&mut lines).map_err(fail)?;
            progress.inc(count as u64);
            if is_in_long_line {
                match memchr::memchr(b'\n', &lines) {
                    Some(end) => {
                        lines.drain(..=end);
                        is_in_long_line = false;
                    }
                    None => lines.clear(),
                }
            }
            let is_end = count == 0;
            if !is_end {
                match memchr::memrchr(b'\n', &lines) {
                    Some(end) => rest = lines.split_off(end + 1),
                    None if lines.len() > BLOCK => {
                        too_long += 1;
                        is_in_long_line = true;
                        lines.clear();
                    }
                    None => rest = std::mem::take(&mut lines),
                }
            }
            if full.send(Block { lines, log: position }).is_err() || is_end {
                break;
            }
        }
    }
    progress.finish_and_clear();
    Ok(too_long)
}

/// On standard error, if that is a terminal and there is an end to come.
fn progress(size: Option<u64>) -> ProgressBar {
    let Some(size) = size else {
        return ProgressBar::hidden();
    };
    let bar = ProgressBar::new(size);
    let style = ProgressStyle::with_template("{bytes} of {total_bytes} {wide_bar} {bytes_per_sec}, {eta} left");
    style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style))
}

/// What one thread counts.
fn count_blocks(
    scan: &Scan,
    full: &Mutex<Receiver<Block>>,
    free: &SyncSender<Vec<u8>>,
    tables: &SyncSender<Table>,
) -> Scanned {
    let mut counted = Scanned::default();
    let mut table = Table::new();
    let mut key = Vec::new();
    let mut clock = Clock::default();
    loop {
        let block = full.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Block { lines, log }) = block else {
            break;
        };
        let Some((_, origin)) = scan.logs.get(log) else {
            break;
        };
        for line in split(&lines) {
            counted.lines += 1;
            if line.len() > BLOCK {
                counted.skipped.add(Skip::TooLong, 1);
                continue;
            }
            let read = scan.reader.read(line, origin, |evidence, time| {
                evidence.write(&mut key);
                Seen::once(clock.read(time))
            });
            match read {
                Ok(seen) => match table.get_mut(key.as_slice()) {
                    Some(known) => known.merge(seen),
                    None => {
                        if table.len() >= scan.table {
                            // It fails only if nobody listens any more.
                            let _ = tables.send(std::mem::take(&mut table));
                        }
                        table.insert(key.as_slice().into(), seen);
                    }
                },
                Err(skip) => counted.skipped.add(skip, 1),
            }
        }
        // It fails only at the end, when nobody reads any more.
        let _ = free.send(lines);
    }
    let _ = tables.send(table);
    counted
}

/// The lines of a block; the last one may have no line break.
fn split(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(end)?;
        rest = after.get(1..).unwrap_or_default();
        Some(line)
    })
}

/// Times of lines. Lines come by the thousand a second, so the last one is remembered.
#[derive(Default)]
struct Clock {
    text: String,
    time: Option<Time>,
}

impl Clock {
    fn read(&mut self, text: &str) -> Option<Time> {
        // `2026-11-25T18:32:31.546Z` to the second; the fraction does not count, and neither does any other form.
        let second = match text.as_bytes() {
            [.., b'Z'] => text.get(..19).unwrap_or(text),
            _ => text,
        };
        if second != self.text {
            second.clone_into(&mut self.text);
            self.time = Time::parse(text).ok();
        }
        self.time
    }
}

#[cfg(test)]
mod tests;
