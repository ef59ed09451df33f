//! Finds processes in `/proc` by parent or by session, and signals them by whole process groups, which
//! the kernel does in one piece even while they fork. Does not know why.
#![expect(clippy::disallowed_methods, reason = "lists `/proc`; the order does not matter")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process, kill_process_group};

/// One process as `/proc/PID/stat` shows it.
#[derive(Clone, Copy, Debug)]
struct Row {
    pid: Pid,
    parent: i32,
    group: i32,
    session: i32,
    dead: bool,
}

/// All processes that can be seen, read one by one; those that end meanwhile may be missing.
fn processes() -> impl Iterator<Item = Row> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let mut stat = [0; 512];
        let size = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut stat).ok()?;
        row(pid, &stat[..size])
    })
}

/// Reads `PID (NAME) STATE PARENT GROUP SESSION …`; the name may hold anything, so the last `)` counts.
fn row(pid: i32, stat: &[u8]) -> Option<Row> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut words = str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    let dead = matches!(words.next()?, "Z" | "X");
    let mut number = || words.next()?.parse().ok();
    Some(Row { pid: Pid::from_raw(pid)?, parent: number()?, group: number()?, session: number()?, dead })
}

/// All descendants of this process.
fn descendants() -> Vec<Row> {
    let mut children = BTreeMap::<i32, Vec<Row>>::new();
    for row in processes() {
        children.entry(row.parent).or_default().push(row);
    }
    let mut found = children.remove(&getpid().as_raw_pid()).unwrap_or_default();
    let mut next = 0;
    while let Some(row) = found.get(next) {
        // Taking a parent's children out ends the walk even if process ids were used again meanwhile.
        found.extend(children.remove(&row.pid.as_raw_pid()).unwrap_or_default());
        next += 1;
    }
    found
}

/// Sends to each of `rows` once. The groups of descendants hold nothing but descendants, except our own.
fn send(rows: &[Row], signal: Signal) {
    let mut groups = BTreeSet::new();
    for row in rows {
        // Fails for those that have ended, and for those that run as another user.
        let _ = match Pid::from_raw(row.group) {
            Some(group) if group != getpgrp() => {
                if groups.insert(row.group) {
                    kill_process_group(group, signal)
                } else {
                    Ok(())
                }
            }
            _ => kill_process(row.pid, signal),
        };
    }
}

/// Asks all descendants to end: SIGTERM, and SIGCONT so that a stopped one can take it.
pub fn terminate() {
    let rows = descendants();
    send(&rows, Signal::TERM);
    send(&rows, Signal::CONT);
}

/// Kills all descendants that can be found. They are stopped first, each as soon as it is seen, until no
/// new one turns up: one that starts another whenever it loses one, or that lives only until it has
/// started another, cannot get ahead. Gives up on that at `end`. Nothing may reap meanwhile, so that
/// process ids are not used again.
pub fn kill(end: Instant) {
    let mut family = BTreeSet::from([getpid().as_raw_pid()]);
    loop {
        let before = family.len();
        for row in processes() {
            if !row.dead && family.contains(&row.parent) && family.insert(row.pid.as_raw_pid()) {
                send(&[row], Signal::STOP);
            }
        }
        if family.len() == before || Instant::now() > end {
            break;
        }
    }
    send(&descendants(), Signal::KILL);
}

/// The process ids of all descendants that are alive.
pub fn alive() -> Vec<i32> {
    descendants().iter().filter(|row| !row.dead).map(|row| row.pid.as_raw_pid()).collect()
}

/// Kills whatever is in a session, for at most a second. To be called soon after its leader was seen:
/// the number is not used again as long as anything is left of the session, but later it may be.
pub fn kill_session(leader: Pid) {
    for _ in 0..100 {
        let left = |row: &Row| row.session == leader.as_raw_pid() && !row.dead;
        let rows: Vec<Row> = processes().filter(left).collect();
        if rows.is_empty() {
            return;
        }
        for row in rows {
            let _ = kill_process(row.pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The numbers of the signals that this process ignores.
pub fn ignored_signals() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).filter(|signal| mask >> (signal - 1) & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let row = row(7, b"7 (a) R 1 2 3 (b) Z 4 5 6 0 -1 0").unwrap();
        assert_eq!((row.parent, row.group, row.session, row.dead), (4, 5, 6, true));
        assert!(super::row(7, b"7 (x) S 1").is_none());
        assert!(super::row(7, b"").is_none());
    }

    #[test]
    fn this_process_is_found() {
        let me = processes().find(|row| row.pid == getpid()).unwrap();
        assert_eq!(Some(me.parent), rustix::process::getppid().map(Pid::as_raw_pid));
        assert!(!me.dead);
    }
}
