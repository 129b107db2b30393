//! CPU of a process, and what makes two measurements comparable.

use std::fs;
use std::process::Command;
use std::time::Duration;

/// Keeps a process on one CPU: Envoy on one, its client and upstream on the other. Where that cannot be done, the figures
/// are noisier.
#[allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]
pub fn pin(pid: u32, cpu: u32) {
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", &cpu.to_string(), &pid.to_string()]).output();
    if !pinned.is_ok_and(|output| output.status.success()) {
        println!("not pinned to a CPU (taskset): expect noise");
    }
}

/// The time that a process has spent on CPUs: user and system, over all threads.
pub fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("no /proc");
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What was measured of one variant.
pub struct Measured<'a> {
    pub name: &'a str,
    /// The position of the variant without a filter that does otherwise the same.
    pub base: usize,
    /// Microseconds of CPU for each, in each round.
    pub rounds: &'a [f64],
}

/// Prints what each variant takes, what it adds to its base, and how that compares with what the no-op adds to the first.
#[allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]
pub fn print_costs(variants: &[Measured<'_>], noop: usize) {
    println!("{:<48} {:>8} {:>10} {:>12}", "", "us", "added us", "x no-op");
    // Within a round the machine is about as fast for all: what is added is taken round by round.
    let added = |variant: &Measured<'_>, base: usize| {
        let differences = variant.rounds.iter().zip(variants[base].rounds).map(|(cost, base)| cost - base);
        median(&mut differences.collect::<Vec<f64>>())
    };
    let noop = added(&variants[noop], 0);
    for variant in variants {
        let added = added(variant, variant.base);
        let cost = median(&mut variant.rounds.to_vec());
        println!("{:<48} {cost:>8.1} {added:>10.1} {:>12.2}", variant.name, added / noop);
    }
}
