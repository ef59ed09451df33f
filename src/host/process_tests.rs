//! Runs real commands, among them hostile ones, and looks for what they leave behind.
#![expect(clippy::disallowed_methods, reason = "looks into `/proc` and at PATH")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};
use crate::host::process::{Captured, Command, Exit, capture, capture_while_heard, run};
use crate::host::stop::Stop;

/// In the environment of all that a command starts, and so a way to find it whatever its parents are.
const MARK: &str = "VCBUILD_TEST_MARK";

static MARKS: AtomicU32 = AtomicU32::new(0);

/// A command with a mark of its own.
struct Marked {
    command: Command,
    mark: String,
}

impl Marked {
    fn argv<S: AsRef<str>>(argv: &[S]) -> Self {
        let mark = format!("{}-{}", std::process::id(), MARKS.fetch_add(1, Ordering::Relaxed));
        Self {
            command: Command {
                argv: argv.iter().map(|word| word.as_ref().into()).collect(),
                dir: "/".into(),
                env: vec![(MARK.into(), mark.as_str().into()), ("PATH".into(), "/usr/bin:/bin".into())],
                timeout: Some(Duration::from_secs(60)),
            },
            mark,
        }
    }

    fn sh(script: &str) -> Self {
        Self::argv(&["sh", "-c", script])
    }

    fn perl(script: &str) -> Self {
        Self::argv(&["perl", "-e", script])
    }

    fn timeout(mut self, seconds: f64) -> Self {
        self.command.timeout = Some(Duration::from_secs_f64(seconds));
        self
    }

    /// Runs and checks that nothing is left.
    fn run(&self, stop: &Stop) -> (Result<Exit>, Vec<u8>) {
        let mut text = Vec::new();
        let exit = run(&self.command, &mut |bytes| text.extend_from_slice(bytes), stop);
        assert_eq!(living(&self.mark), Vec::<i32>::new(), "{:?} left something", self.command.argv);
        (exit, text)
    }
}

/// A wish to stop whose grace is short.
fn stop() -> Stop {
    Stop::new(Duration::from_millis(300)).unwrap()
}

/// Runs a shell script to its end.
fn sh(script: &str) -> (Exit, String) {
    let (exit, text) = Marked::sh(script).run(&stop());
    (exit.unwrap(), String::from_utf8(text).unwrap())
}

/// The living processes that have this mark in their environment.
fn living(mark: &str) -> Vec<i32> {
    let mark = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|&byte| byte == 0).any(|word| word == mark.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// Waits until something is so.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !condition() {
        assert!(Instant::now() < end, "in vain waited for: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn message(result: Result<Exit>) -> String {
    match result {
        Err(Error::Failed(failure)) => failure.message,
        other => panic!("not a failure: {other:?}"),
    }
}

#[test]
fn exit_codes_and_signals_come_through() {
    assert_eq!(sh("exit 0").0, Exit::Code(0));
    assert_eq!(sh("exit 1").0, Exit::Code(1));
    assert_eq!(sh("exit 127").0, Exit::Code(127));
    assert_eq!(sh("exit 255").0, Exit::Code(255));
    assert_eq!(sh("kill -9 $$").0, Exit::Signal(9));
    assert_eq!(sh("kill -SEGV $$").0, Exit::Signal(11));
    assert_eq!(sh("kill -34 $$").0, Exit::Signal(34));
    assert_eq!(Exit::Signal(9).to_string(), "ended by SIGKILL");
    assert_eq!(Exit::Signal(34).to_string(), "ended by signal 34");
    assert_eq!(Exit::Code(2).to_string(), "exit status 2");
}

#[test]
fn output_and_errors_are_one_stream_in_order() {
    let (exit, text) = sh("for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done; exit 3");
    assert_eq!(exit, Exit::Code(3));
    assert_eq!(text, "o1\ne1\no2\ne2\no3\ne3\no4\ne4\no5\ne5\n");
}

#[test]
fn large_output_without_a_line_end_comes_in_small_pieces() {
    let marked = Marked::perl("print 'x' x 1000 for 1..10000; print STDERR 'end'");
    let (mut size, mut largest) = (0, 0);
    let mut output = |bytes: &[u8]| {
        size += bytes.len();
        largest = largest.max(bytes.len());
    };
    assert_eq!(run(&marked.command, &mut output, &stop()).unwrap(), Exit::Code(0));
    assert_eq!(size, 10_000_003);
    assert!(largest <= 64 << 10);
}

#[test]
fn binary_output_is_not_touched() {
    let script = "print join '', map { chr } 0..255; print STDERR chr(0), chr(255), chr(10), chr(27)";
    let (exit, text) = Marked::perl(&format!("$| = 1; {script}")).run(&stop());
    assert_eq!(exit.unwrap(), Exit::Code(0));
    let all: Vec<u8> = (0..=255).chain([0, 255, 10, 27]).collect();
    assert_eq!(text, all);
}

#[test]
fn input_is_nothing() {
    assert_eq!(sh("cat; readlink /proc/self/fd/0").1, "/dev/null\n");
}

#[test]
fn arguments_and_environment_are_exact() {
    let mut marked = Marked::argv(&["env"]);
    marked.command.argv = vec!["/usr/bin/env".into()];
    marked.command.env =
        vec![("A".into(), "".into()), ("B".into(), OsString::from_vec(vec![b'x', 0xff, b'\n', b'=']))];
    let (exit, text) = marked.run(&stop());
    assert_eq!(exit.unwrap(), Exit::Code(0));
    assert_eq!(text, b"A=\nB=x\xff\n=\n");

    let mut marked = Marked::argv(&["printf", "%s|", "", "a b", "$HOME", "*", "'\"\\"]);
    marked.command.argv.push(OsString::from_vec(vec![0xfe]));
    assert_eq!(marked.run(&stop()).1, b"|a b|$HOME|*|'\"\\|\xfe|");
}

#[test]
fn the_environment_of_the_command_does_not_reach_the_launcher() {
    let mut marked =
        Marked::sh("tr '\\0' '\\n' < /proc/$PPID/environ; echo; tr '\\0' ' ' < /proc/$PPID/cmdline");
    marked.command.env.push(("LD_PRELOAD".into(), "".into()));
    let (exit, text) = marked.run(&stop());
    assert_eq!(exit.unwrap(), Exit::Code(0));
    assert!(text.starts_with(b"\nvcbuild __launch "), "{}", String::from_utf8_lossy(&text));
}

#[test]
fn a_command_gets_three_descriptors_and_plain_signals() {
    // Inherited on purpose by whatever forgets to close it.
    let open = fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    // 3 is the folder that `ls` lists.
    assert_eq!(sh("ls /proc/self/fd").1, "0\n1\n2\n3\n");
    let signals = sh("grep -E '^Sig(Blk|Ign)' /proc/self/status").1;
    for line in signals.lines() {
        let (name, mask) = line.split_once(":\t").unwrap();
        // 32 and 33 belong to the C library; its own `posix_spawn` ignores them.
        let mask = u64::from_str_radix(mask, 16).unwrap() & !(3 << 31);
        assert_eq!(mask, 0, "{name}");
    }
    assert_eq!(sh("umask; ulimit -c").1, "0022\n0\n");
    // Its own session, below a launcher that has one too, and no terminal.
    let (_, text) =
        sh("cut -d' ' -f1,4-8 /proc/self/stat; cut -d' ' -f1,4-8 /proc/$PPID/stat; exec 0</dev/tty");
    drop(open);
    let numbers: Vec<Vec<i32>> = text
        .lines()
        .take(2)
        .map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect())
        .collect();
    let [own, launcher] = numbers.try_into().unwrap();
    let [_, group, session, terminal, _] = own[1..] else { panic!("{text}") };
    assert_eq!((group, terminal), (session, 0), "{text}");
    assert_eq!(launcher[3], launcher[0], "{text}");
    assert_ne!(session, launcher[3], "{text}");
    assert!(text.contains("/dev/tty"));
}

#[test]
fn what_cannot_be_started_is_not_an_exit_code() {
    let stop = stop();
    let failure = |marked: &Marked| message(marked.run(&stop).0);
    assert_eq!(failure(&Marked::argv(&["no-such-cc"])), "start `no-such-cc`: no such file or directory");
    assert_eq!(failure(&Marked::argv(&["/etc/passwd"])), "start `/etc/passwd`: permission denied");
    assert_eq!(failure(&Marked::argv(&["/"])), "start `/`: permission denied");
    assert_eq!(failure(&Marked::argv(&["true", "a\0b"])), "start `true`: nul byte found in provided data");
    let huge = "x".repeat(300_000);
    assert_eq!(failure(&Marked::argv(&["true", &huge])), "start `true`: argument list too long");

    let mut marked = Marked::argv(&["true"]);
    marked.command.dir = "/no/such/dir".into();
    assert_eq!(failure(&marked), "enter `/no/such/dir`: no such file or directory");
    marked.command.dir = "/etc/passwd".into();
    assert_eq!(failure(&marked), "enter `/etc/passwd`: not a directory");

    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    fs::write(&script, "#!/no/such/shell\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let name = script.to_str().unwrap();
    assert_eq!(failure(&Marked::argv(&[name])), format!("start `{name}`: its interpreter does not exist"));
}

#[test]
fn programs_are_found_from_the_folder_and_path_of_the_command() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    let script = dir.path().join("bin/here");
    fs::write(&script, "#!/bin/sh\npwd -P\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let real = dir.path().canonicalize().unwrap();
    let expected: Vec<u8> = [real.as_os_str().as_bytes(), b"\n"].concat();
    for (program, path) in [("bin/here", "/nowhere".into()), ("here", dir.path().join("bin"))] {
        let mut marked = Marked::argv(&[program]);
        marked.command.dir = dir.path().into();
        let path: PathBuf = path;
        marked.command.env[1].1 = path.into();
        assert_eq!(marked.run(&stop()).1, expected);
    }
}

#[test]
fn a_timeout_ends_the_command() {
    let begin = Instant::now();
    let (exit, text) = Marked::sh("echo before; sleep 1000; echo after").timeout(0.2).run(&stop());
    assert_eq!((exit.unwrap(), text.as_slice()), (Exit::TimedOut, b"before\n".as_slice()));
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_command_may_clean_up_after_sigterm_but_not_ignore_it() {
    let (exit, text) =
        Marked::sh("trap 'echo cleaned; exit 5' TERM; while :; do :; done").timeout(0.3).run(&stop());
    assert_eq!((exit.unwrap(), text.as_slice()), (Exit::TimedOut, b"cleaned\n".as_slice()));

    let begin = Instant::now();
    let (exit, _) =
        Marked::sh("trap '' TERM HUP INT; while :; do sleep 0.01; done").timeout(0.2).run(&stop());
    assert_eq!(exit.unwrap(), Exit::TimedOut);
    assert!(begin.elapsed() >= Duration::from_millis(500), "SIGKILL came before the grace was over");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_command_that_says_nothing_is_ended_if_it_should_speak() {
    let silence = Some(Duration::from_millis(400));
    let lively = Marked::sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; echo $i >&2; done; echo end");
    let captured = capture_while_heard(&lively.command, 100, silence, &stop()).unwrap();
    assert_eq!((captured.exit, captured.stdout.as_slice()), (Exit::Code(0), b"end\n".as_slice()));
    let begin = Instant::now();
    let stuck = Marked::sh("echo begin; sleep 1000");
    let error = capture_while_heard(&stuck.command, 100, silence, &stop()).unwrap_err();
    assert_eq!(error.to_string(), "it said nothing for 0 s, and was ended");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(living(&stuck.mark), Vec::<i32>::new());
}

#[test]
fn a_stopped_command_is_ended_too() {
    let (exit, _) = Marked::sh("kill -STOP $$").timeout(0.2).run(&stop());
    assert_eq!(exit.unwrap(), Exit::TimedOut);
}

#[test]
fn grandchildren_end_with_the_command() {
    let begin = Instant::now();
    assert_eq!(sh("(sleep 1000; :) & (sh -c 'sleep 1000 & sleep 1000; :' &) ; exit 4").0, Exit::Code(4));
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[test]
fn the_rest_of_a_pipeline_may_finish() {
    let (exit, text) = sh("(sleep 0.05; echo late) & exit 0");
    assert_eq!((exit, text.as_str()), (Exit::Code(0), "late\n"));
}

#[test]
fn a_daemon_that_changed_its_session_and_holds_the_output_is_ended() {
    let daemon = "use POSIX; fork and exit; setsid; fork and exit; chdir '/'; print 'up'; \
                  $SIG{TERM} = $SIG{HUP} = $SIG{INT} = 'IGNORE'; $| = 1; print 'up'; sleep 1 while 1";
    let begin = Instant::now();
    let (exit, text) = Marked::perl(daemon).run(&stop());
    assert_eq!(exit.unwrap(), Exit::Code(0));
    assert!(text.starts_with(b"up"), "{text:?}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(
        sh("setsid -f sleep 1000; setsid -f sh -c 'setsid -f sleep 1000; sleep 1000'").0,
        Exit::Code(0)
    );
}

#[test]
fn a_family_that_forks_for_ever_is_ended() {
    // Eight lines of descent, each process of which lives only until it has a child; half of them change
    // their session each time. They begin when the command ends, and end by themselves after 30 seconds.
    let hopper = "use POSIX; my $end = time + 30; $SIG{TERM} = 'IGNORE'; $SIG{CHLD} = 'IGNORE'; \
                  pipe my $gate, my $held; for my $i (1..8) { my $pid = fork; \
                  defined $pid or exit 8; next if $pid; close $held; <$gate>; close $gate; \
                  while (time < $end) { fork and POSIX::_exit(0); setsid if $i % 2; \
                  select undef, undef, undef, 0.002 } exit } exit 7";
    let begin = Instant::now();
    let (exit, text) = Marked::perl(hopper).run(&stop());
    assert_eq!((exit.unwrap(), str::from_utf8(&text).unwrap()), (Exit::Code(7), ""));
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

#[test]
fn a_parent_that_replaces_its_children_is_ended() {
    let nursery = "$SIG{TERM} = 'IGNORE'; for (1..3) { fork or last } \
                   while (1) { my $p = fork; if (!$p) { sleep 1000; exit } waitpid $p, 0 }";
    let (exit, _) = Marked::perl(nursery).timeout(0.5).run(&stop());
    assert_eq!(exit.unwrap(), Exit::TimedOut);
}

#[test]
fn the_first_wish_to_stop_is_gentle_and_the_second_is_not() {
    let stop = Stop::new(Duration::from_secs(100)).unwrap();
    let marked = Marked::sh("trap 'echo asked' TERM; echo ready; while :; do :; done");
    let (mut text, mut begin) = (Vec::new(), Instant::now());
    let result = run(
        &marked.command,
        &mut |bytes| {
            text.extend_from_slice(bytes);
            begin = Instant::now();
            stop.ask();
        },
        &stop,
    );
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert_eq!(text, b"ready\nasked\n");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(living(&marked.mark).is_empty());
    // Nothing is started any more.
    assert!(matches!(Marked::sh("exit 0").run(&stop).0, Err(Error::Interrupted)));
}

#[test]
fn a_wish_to_stop_is_seen_at_once() {
    let stop = Stop::new(Duration::from_secs(100)).unwrap();
    let marked = Marked::argv(&["sleep", "1000"]);
    let asker = {
        let (stop, mark) = (stop.clone(), marked.mark.clone());
        thread::spawn(move || {
            eventually("the command", || !living(&mark).is_empty());
            thread::sleep(Duration::from_millis(100));
            stop.ask();
            Instant::now()
        })
    };
    let result = run(&marked.command, &mut |_| {}, &stop);
    let end = Instant::now();
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    let late = end - asker.join().unwrap();
    assert!(late < Duration::from_millis(500), "{late:?}");
}

#[test]
fn many_run_at_once_and_all_are_interrupted() {
    let stop = stop();
    let all: Vec<Marked> = (0..20)
        .map(|_| Marked::sh("setsid -f sleep 1000; trap '' TERM; echo up; sleep 1000; sleep 1000"))
        .collect();
    let begin = Instant::now();
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|marked| scope.spawn(|| marked.run(&stop))).collect();
        eventually("all commands", || all.iter().all(|marked| living(&marked.mark).len() >= 3));
        stop.ask();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (result, _) in results {
        assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn many_run_at_once_and_none_mixes_with_another() {
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                for turn in 0..10 {
                    let code = (number * 10 + turn) % 256;
                    let (exit, text) = sh(&format!("echo {code}; exit {code}"));
                    assert_eq!((exit, text), (Exit::Code(code), format!("{code}\n")));
                }
            });
        }
    });
}

#[test]
fn every_launcher_is_waited_for() {
    for _ in 0..3 {
        sh("sleep 1000 & exit 1");
        let _ = Marked::argv(&["no-such-program"]).run(&stop());
    }
    // Other tests run beside this one: each of their launchers ends.
    let mut seen: Option<Vec<i32>> = None;
    eventually("the end of all launchers that were there", || {
        let now = zombies_of(std::process::id());
        let both = match &seen {
            Some(before) => before.iter().copied().filter(|pid| now.contains(pid)).collect(),
            None => now,
        };
        seen = Some(both);
        seen.as_ref().is_some_and(Vec::is_empty)
    });
}

/// The dead children of a process that nobody has waited for.
fn zombies_of(parent: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((head, tail)) = stat.rsplit_once(") ") else { continue };
        if tail.starts_with(&format!("Z {parent} ")) {
            found.push(head.split(' ').next().unwrap().parse().unwrap());
        }
    }
    found
}

/// Not a test: the program that `killing_the_program_ends_everything` kills.
#[test]
#[ignore = "is started by another test"]
fn victim() {
    let Some(mark) = std::env::var_os(MARK) else { return };
    let stop = Stop::new(Duration::from_millis(300)).unwrap();
    let mut marked =
        Marked::sh("trap '' TERM; setsid -f sh -c \"trap '' TERM; sleep 1000; sleep 1000\"; sleep 1000");
    marked.command.env[0].1 = mark;
    let _ = run(&marked.command, &mut |_| {}, &stop);
}

/// Starts `victim` and returns it with its mark, once it has started all of its processes.
fn start_victim() -> (std::process::Child, String) {
    let mark = format!("{}-{}", std::process::id(), MARKS.fetch_add(1, Ordering::Relaxed));
    let child = std::process::Command::new("/proc/self/exe")
        .args(["host::process_tests::victim", "--exact", "--ignored"])
        .env(MARK, &mark)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The victim itself, the command, its two sleeping processes and their shell.
    eventually("the victim's processes", || living(&mark).len() >= 4);
    (child, mark)
}

#[test]
fn killing_the_program_ends_everything() {
    let (mut victim, mark) = start_victim();
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the end of all", || living(&mark).is_empty());
}

#[test]
fn killing_the_launcher_ends_the_command_and_its_session() {
    let marked = Marked::sh("echo $PPID; trap '' TERM; sleep 1000 & (trap '' TERM HUP; sleep 1000; :)");
    let result = run(
        &marked.command,
        &mut |bytes| {
            let launcher: i32 = str::from_utf8(bytes).unwrap().trim().parse().unwrap();
            thread::sleep(Duration::from_millis(100));
            kill_process(Pid::from_raw(launcher).unwrap(), Signal::KILL).unwrap();
        },
        &stop(),
    );
    assert_eq!(message(result), "the launcher of `sh` was ended from outside");
    eventually("the end of all", || living(&marked.mark).is_empty());
}

#[test]
fn ending_the_launcher_gently_ends_all() {
    let (result, _) = Marked::sh("setsid -f sleep 1000; kill -TERM $PPID; sleep 1000").run(&stop());
    assert_eq!(message(result), "the launcher of `sh` was ended from outside");
}

#[test]
fn capture_keeps_the_two_streams_apart_and_bounds_them() {
    let captured = |script: &str, limit| {
        let marked = Marked::sh(script);
        let captured = capture(&marked.command, limit, &stop());
        assert!(living(&marked.mark).is_empty());
        captured
    };
    let Captured { exit, stdout, stderr } = captured("echo out; echo err >&2; exit 2", 100).unwrap();
    assert_eq!((exit, stdout.as_slice(), stderr.as_slice()), (Exit::Code(2), &b"out\n"[..], &b"err\n"[..]));
    let Captured { stdout, stderr, .. } = captured("seq 100000 >&2; echo 123", 4).unwrap();
    assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"123\n"[..], &b"000\n"[..]));
    let begin = Instant::now();
    match captured("trap '' TERM; yes", 1000) {
        Err(Error::Failed(failure)) => assert_eq!(failure.message, "`sh` printed more than 1000 bytes"),
        other => panic!("{other:?}"),
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_slow_reader_does_not_hold_up_a_timeout() {
    let marked = Marked::argv(&["yes"]).timeout(0.2);
    let begin = Instant::now();
    let result = run(&marked.command, &mut |_| thread::sleep(Duration::from_millis(50)), &stop());
    assert_eq!(result.unwrap(), Exit::TimedOut);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_command_that_closes_its_output_is_still_waited_for() {
    let (exit, text) = sh("echo a; exec >&- 2>&-; sleep 0.3; exit 6");
    assert_eq!((exit, text.as_str()), (Exit::Code(6), "a\n"));
}
