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
