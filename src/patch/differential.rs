//! Compares placement with the real `patch` (GNU 2.7.6) on generated files and diffs: repeated blocks,
//! drift, damaged context, missing final line ends, contexts of 0 to 5 lines, wrong line numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cases::{Tree, outcome};
use super::note::{Moved, Said};
use super::reason::Reason;
use super::{Entry, Options, ZeroContext};

/// A small generator of numbers, the same in every run.
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }
}

/// Lines with repeated blocks and some that occur once.
pub fn lines(dice: &mut Dice) -> Vec<String> {
    let (count, kinds) = (dice.roll(30), 1 + dice.roll(12));
    let mut lines: Vec<String> = Vec::new();
    while lines.len() < count {
        match dice.roll(5) {
            0 if !lines.is_empty() => {
                let from = dice.roll(lines.len());
                let to = (from + 1 + dice.roll(7)).min(lines.len());
                lines.extend_from_within(from..to);
            }
            1 => lines.push(format!("only {}", dice.roll(1000))),
            _ => lines.push(
                ["{", "}", "", "a", "b", "c", "d", "e", "f", "g", "h", "i"][dice.roll(kinds)].to_owned(),
            ),
        }
    }
    lines
}

/// Changes some lines.
pub fn edited(lines: &[String], changes: usize, dice: &mut Dice) -> Vec<String> {
    let mut lines = lines.to_vec();
    for _ in 0..changes {
        let at = dice.roll(lines.len() + 1);
        match dice.roll(4) {
            0 | 1 if at < lines.len() => lines[at] = format!("new {}", dice.roll(20)),
            2 if at < lines.len() => {
                lines.drain(at..(at + 1 + dice.roll(3)).min(lines.len()));
            }
            _ => {
                for _ in 0..=dice.roll(2) {
                    lines.insert(at, ["a", "}", "", "more"][dice.roll(4)].to_owned());
                }
            }
        }
    }
    lines
}

/// Lines as a file, sometimes without the last line end.
pub fn file(lines: &[String], dice: &mut Dice) -> Vec<u8> {
    let mut text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    if dice.once_in(6) {
        text.pop();
    }
    text.into_bytes()
}

/// The diff of two contents as one file's section; empty if they are the same.
pub fn diff(name: &str, old: &[u8], new: &[u8], context: usize) -> Vec<u8> {
    let patch = diffy::DiffOptions::new().set_context_len(context).create_patch_bytes(old, new);
    if patch.hunks().is_empty() {
        return Vec::new();
    }
    let bytes = patch.to_bytes();
    let body = bytes.windows(4).position(|four| four == b"\n@@ ").unwrap() + 1;
    [format!("--- a/{name}\n+++ b/{name}\n").as_bytes(), &bytes[body..]].concat()
}

/// Damages context lines and line numbers, leaving the diff well formed.
fn damaged(diff: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut damaged = Vec::new();
    for line in diff.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"@@ -") && dice.once_in(3) {
            let text = String::from_utf8(line.to_vec()).unwrap();
            let mut words = text.split(' ').map(str::to_owned).collect::<Vec<_>>();
            let shift = dice.roll(13) as i64 - 6;
            for word in &mut words[1..3] {
                let (sign, rest) = word.split_at(1);
                let (start, count) =
                    rest.split_once(',').map_or((rest, None), |(start, count)| (start, Some(count)));
                let start: i64 = start.parse().unwrap();
                let moved = if start == 0 { 0 } else { (start + shift).max(1) };
                *word = count.map_or(format!("{sign}{moved}"), |count| format!("{sign}{moved},{count}"));
            }
            damaged.extend_from_slice(words.join(" ").as_bytes());
        } else if line.starts_with(b" ") && dice.once_in(14) {
            damaged.extend_from_slice(format!(" damage {}\n", dice.roll(3)).as_bytes());
        } else {
            damaged.extend_from_slice(line);
        }
    }
    damaged
}

struct Case {
    file: Vec<u8>,
    diff: Vec<u8>,
}

fn case(number: usize, dice: &mut Dice) -> Case {
    loop {
        let base = lines(dice);
        let changes = 1 + dice.roll(4);
        let new = edited(&base, changes, dice);
        let context = dice.roll(6);
        let (old_text, new_text) = (file(&base, dice), file(&new, dice));
        let mut diff = diff(&format!("f{number}"), &old_text, &new_text, context);
        if diff.is_empty() {
            continue;
        }
        if dice.once_in(16) {
            // Hunks of another change of the same file: they overlap, or come out of order.
            let other = edited(&base, changes, dice);
            let more = self::diff("", &old_text, &file(&other, dice), context);
            diff.extend(more.split_inclusive(|byte| *byte == b'\n').skip(2).flatten());
        }
        if dice.once_in(3) {
            diff = damaged(&diff, dice);
        }
        let file = match dice.roll(5) {
            0 => old_text,
            1 => new_text,
            _ => {
                let drift = dice.roll(5);
                let mut lines = edited(&base, drift, dice);
                if dice.once_in(3) {
                    let block = lines.iter().take(1 + dice.roll(12)).cloned().collect::<Vec<_>>();
                    lines.splice(0..0, block);
                }
                self::file(&lines, dice)
            }
        };
        return match number % 4 {
            3 => with_crlf(Case { file, diff }, dice),
            _ => Case { file, diff },
        };
    }
}

/// Gives the file, the text of the hunks, the whole patch, or some lines of them CRLF.
fn with_crlf(case: Case, dice: &mut Dice) -> Case {
    let (of_file, of_patch) = (dice.roll(4), dice.roll(4));
    let mut convert = |text: &[u8], style: usize| -> Vec<u8> {
        let lines = text.split_inclusive(|byte| *byte == b'\n').flat_map(|line| {
            let is_header = line.starts_with(b"\\")
                || line == b"\n" && style != 2
                || style == 1 && (line.starts_with(b"--- a/") || line.starts_with(b"+++ b/"));
            match line.strip_suffix(b"\n") {
                Some(line) if !is_header && (style == 1 || style == 2 || style == 3 && dice.once_in(2)) => {
                    [line, b"\r\n"]
                }
                _ => [line, b""],
            }
        });
        lines.flatten().copied().collect()
    };
    Case { file: convert(&case.file, of_file), diff: convert(&case.diff, of_patch) }
}

/// What `patch` did with one file.
#[derive(Debug, Default)]
pub struct Gnu {
    /// Whether a hunk failed or the file was passed over.
    pub failed: bool,
    /// The hunks that it said something about.
    pub moved: Vec<Moved>,
    /// The content afterwards; none if there is no file.
    pub content: Option<Vec<u8>>,
}

/// Runs `patch` in `folder` and gives its exit code (none if it crashed) and what it said.
#[expect(clippy::disallowed_methods, reason = "the test compares with another program")]
pub fn gnu(folder: &Path, patch: &[u8], options: &[&str]) -> (Option<i32>, String) {
    std::fs::write(folder.join("the.patch"), patch).unwrap();
    let mut command = Command::new("patch");
    command.current_dir(folder).args(["-p1", "--no-backup-if-mismatch", "-i", "the.patch"]).args(options);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().expect("GNU patch is installed: apt-get install patch");
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Reads what `patch` said about each file.
fn understood(said: &str) -> BTreeMap<String, Gnu> {
    let mut files: BTreeMap<String, Gnu> = BTreeMap::new();
    let mut file = String::new();
    for line in said.lines() {
        if let Some(name) = line.strip_prefix("patching file ") {
            file = name.to_owned();
        } else if line.starts_with("The next patch would ") {
            // A file that is already there, empty or gone is not announced otherwise.
            file = line.trim_end_matches(',').rsplit(' ').next().unwrap_or_default().to_owned();
        }
        let now = files.entry(file.clone()).or_default();
        let words: Vec<&str> = line.split(' ').collect();
        now.failed |= line.contains("FAILED")
            || line.contains("Skipping")
            || line.contains("ignored")
            || line.contains("saving rejects");
        if line.starts_with("Hunk #") && words[2] == "succeeded" {
            let number = |text: &str| text.trim_end_matches(['.', ')', ',']).parse::<i64>().unwrap();
            let after = |word: &str| words.iter().position(|w| *w == word).map(|at| number(words[at + 1]));
            now.moved.push(Moved {
                hunk: number(&words[1][1..]) as usize,
                line: number(words[4]),
                offset: after("(offset").unwrap_or(0),
                fuzz: after("fuzz").unwrap_or(0) as u32,
                also: None,
            });
        }
    }
    files
}

/// Cases per run of `patch`: starting it takes longer than what it does.
const BATCH: usize = 100;

/// Runs both over some cases. A crash of `patch` itself is narrowed down to the case that makes it.
#[expect(clippy::disallowed_methods, reason = "the test lays out files for another program")]
fn run(cases: &[(String, Case)], fuzz: u32, seen: &mut BTreeMap<String, usize>) {
    let folder = tempfile::tempdir().unwrap();
    let mut patch = Vec::new();
    for (name, case) in cases {
        std::fs::write(folder.path().join(name), &case.file).unwrap();
        patch.extend_from_slice(&case.diff);
    }
    let (code, said) = gnu(folder.path(), &patch, &[&format!("-F{fuzz}"), "-r", "-"]);
    let Some(code) = code else {
        if let [(_, _)] = cases {
            *seen.entry("patch crashes".to_owned()).or_default() += 1;
            return;
        }
        let (first, second) = cases.split_at(cases.len() / 2);
        run(first, fuzz, seen);
        return run(second, fuzz, seen);
    };
    assert!(code < 2, "{said}");
    let mut said = understood(&said);
    for (name, case) in cases {
        let mut theirs = said.remove(name).unwrap_or_default();
        theirs.content = std::fs::read(folder.path().join(name)).ok();
        for zero_context in [ZeroContext::Refuse, ZeroContext::Allow] {
            let options = Options { fuzz, zero_context, ..Options::default() };
            compare(name, case, &theirs, &options, seen);
        }
    }
}

#[test]
fn placement_agrees_with_gnu_patch() {
    let mut dice = Dice::new(1);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for batch in 0..60 {
        let cases: Vec<_> =
            (0..BATCH).map(|number| (format!("f{number}"), case(number, &mut dice))).collect();
        run(&cases, [2, 2, 2, 1, 0][batch % 5], &mut seen);
    }
    println!("{seen:?}");
    for what in [
        "same",
        "offset",
        "fuzz",
        "ambiguous",
        "both refuse",
        "order",
        "nothing-compared",
        "file-end",
        "line-ends",
        "line ends by content",
    ] {
        assert!(seen.get(what).is_some_and(|count| *count > 0), "no case of {what}: {seen:?}");
    }
}

fn compare(name: &str, case: &Case, theirs: &Gnu, options: &Options, seen: &mut BTreeMap<String, usize>) {
    let mut count = |what: &str| *seen.entry(what.to_owned()).or_default() += 1;
    let entry = Entry::File { content: case.file.clone(), executable: false };
    let tree = Tree([(name.as_bytes().to_vec(), entry)].into());
    let ours = outcome(&tree, &case.diff, options);
    let mut shown = String::new();
    write!(
        shown,
        "fuzz {}, file:\n{}\npatch:\n{}\ntheirs: {theirs:?}\nours: {ours:?}",
        options.fuzz,
        String::from_utf8_lossy(&case.file),
        String::from_utf8_lossy(&case.diff)
    )
    .unwrap();
    match (ours, theirs.failed) {
        (Ok((after, applied)), false) => {
            if applied.notes.iter().any(|note| matches!(note.said, Said::LineEnds(_))) {
                // It found no line, and put an insertion where its context was all left out.
                assert!(theirs.moved.iter().any(|one| one.fuzz > 0), "{shown}");
                return count("blind");
            }
            let content = after.0.get(name.as_bytes()).map(|entry| match entry {
                Entry::File { content, .. } => content.clone(),
                other => panic!("{other:?}"),
            });
            assert!(content == theirs.content, "another result; {shown}");
            let mut moved = Vec::new();
            for note in applied.notes {
                let Said::Moved(one) = note.said else { panic!("{note}; {shown}") };
                if one.also.is_some() {
                    count("ambiguous");
                }
                if one.offset != 0 || one.fuzz != 0 {
                    moved.push(Moved { also: None, ..one });
                }
            }
            assert!(moved == theirs.moved, "other places; {shown}");
            count("same");
            count(if moved.iter().any(|one| one.fuzz > 0) { "fuzz" } else { "no fuzz" });
            count(if moved.iter().any(|one| one.offset != 0) { "offset" } else { "no offset" });
        }
        (Ok((_, applied)), true)
            if applied.notes.iter().any(|note| matches!(note.said, Said::LineEnds(_))) =>
        {
            count("line ends by content");
        }
        (Ok(_), true) => panic!("GNU patch refuses this; {shown}"),
        (Err(_), true) => count("both refuse"),
        (Err(reason), false) => {
            let deliberate =
                [Reason::Nothing, Reason::Order, Reason::FileEnd, Reason::Exists, Reason::LineEnds];
            // It puts the text of a creation in front of what is there, even if that is the same text.
            let prepends =
                reason == Reason::Applied && case.diff.windows(8).any(|eight| eight == b"@@ -0,0 ");
            // With other line ends, what is there already may be put there again without comparing anything.
            let is_blind = matches!(reason, Reason::Applied | Reason::Reversed)
                && case.file.contains(&b'\r') | case.diff.contains(&b'\r')
                && theirs.moved.iter().any(|one| one.fuzz > 0);
            assert!(
                prepends || is_blind || deliberate.contains(&reason),
                "GNU patch accepts this; {shown}"
            );
            count(reason.name());
        }
    }
}
