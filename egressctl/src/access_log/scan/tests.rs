use std::collections::BTreeMap;

use super::*;

/// Lines of 40 different calls, with blank, foreign and long ones between them.
fn log(lines: usize) -> String {
    let mut text = String::new();
    for number in 0..lines {
        let second = number % 60;
        text += &match number % 50 {
            48 => "\n".to_owned(),
            49 => "some other output\n".to_owned(),
            host => format!(
                "{{\"authority\":\"{}.example\",\"method\":\"GET\",\"upstream_cluster\":\"PassthroughCluster\",\"route_name\":\"allow_any\",\
                 \"downstream_local_address\":\"192.0.2.1:80\",\"start_time\":\"2026-11-25T18:00:{second:02}.000Z\"}}\n",
                host % 40
            ),
        };
    }
    text
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("egressctl-scan-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scan_with(logs: &[PathBuf], threads: usize, table: usize) -> (Scanned, BTreeMap<Vec<u8>, Seen>, usize) {
    let logs = logs.iter().map(|path| (path.clone(), Origin::default())).collect();
    let mut calls: BTreeMap<Vec<u8>, Seen> = BTreeMap::new();
    let mut handed_over = 0;
    let scanned = scan(&Scan { reader: Reader::new(None), logs, threads, table }, |evidence, seen| {
        let mut key = Vec::new();
        evidence.write(&mut key);
        calls.entry(key).and_modify(|known| known.merge(seen)).or_insert(seen);
        handed_over += 1;
        Ok(())
    });
    (scanned.unwrap(), calls, handed_over)
}

#[test]
fn counts_the_same_with_any_number_of_threads_and_any_size_of_table() {
    let folder = Folder::new("threads");
    let logs = [folder.file("a.log", log(20_000).as_bytes()), folder.file("b.log", log(777).trim_end().as_bytes())];
    let (scanned, calls, handed_over) = scan_with(&logs, 1, 1000);
    assert_eq!(handed_over, 40);
    assert_eq!(scanned.lines, 20_777);
    assert_eq!(scanned.skipped.iter().collect::<Vec<_>>(), [(Skip::Blank, 415), (Skip::Foreign, 415)]);
    assert_eq!(calls.values().map(|seen| seen.calls).sum::<u64>() + 830, 20_777);
    let seen = calls.values().next().unwrap();
    assert_eq!(seen.first.unwrap().to_string(), "2026-11-25T18:00:00Z");
    for (threads, table) in [(2, 1000), (7, 1000), (1, 3), (4, 1)] {
        let (other_scanned, other_calls, handed_over) = scan_with(&logs, threads, table);
        assert_eq!((&other_scanned, &other_calls), (&scanned, &calls), "{threads} threads, {table} in a table");
        assert!(handed_over >= 40);
    }
}

#[test]
fn skips_lines_that_are_too_long_and_goes_on_behind_them() {
    let folder = Folder::new("long");
    for length in [BLOCK, BLOCK + 1, BLOCK + 2, 2 * BLOCK, 2 * BLOCK + 1, 5 * BLOCK + 7] {
        for before in [0, 1, 3000] {
            let text = log(before) + &"x".repeat(length) + "\n" + &log(3);
            let (scanned, calls, _) = scan_with(&[folder.file("long.log", text.as_bytes())], 2, 1000);
            let long = if length > BLOCK { Skip::TooLong } else { Skip::Foreign };
            let count = |skip| scanned.skipped.iter().find(|(own, _)| *own == skip).map_or(0, |(_, lines)| lines);
            assert_eq!(scanned.lines, before as u64 + 4, "{length} after {before}");
            assert_eq!(count(Skip::TooLong), u64::from(long == Skip::TooLong), "{length} after {before}");
            assert_eq!(calls.values().map(|seen| seen.calls).sum::<u64>() + scanned.skipped.total(), scanned.lines);
        }
    }
}

#[test]
fn reads_the_last_line_without_a_line_break_and_an_empty_log() {
    let folder = Folder::new("end");
    let (scanned, calls, _) = scan_with(&[folder.file("end.log", log(3).trim_end().as_bytes())], 2, 10);
    assert_eq!((scanned.lines, calls.len()), (3, 3));
    let (scanned, calls, _) = scan_with(&[folder.file("empty.log", b"")], 2, 10);
    assert_eq!((scanned.lines, calls.len()), (0, 0));
}

#[test]
fn says_which_log_cannot_be_read() {
    let scan_of = |path: &str| {
        let logs = vec![(PathBuf::from(path), Origin::default())];
        scan(&Scan { reader: Reader::new(None), logs, threads: 1, table: 1 }, |_, _| Ok(())).unwrap_err().to_string()
    };
    assert_eq!(scan_of("/nowhere/a.log"), "/nowhere/a.log: cannot be read: No such file or directory (os error 2)");
    assert_eq!(scan_of("/"), "/: is a folder; name the files in it");
    let folder = Folder::new("gzip");
    let path = folder.file("a.log.gz", &[0x1f, 0x8b, 8, 0]);
    let path = path.to_str().unwrap();
    let expected = format!("{path}: is compressed; use `gunzip -c {path} |` and - for standard input");
    assert_eq!(scan_of(path), expected);
}
