//! Makes histories with real git (renames, copies, modes, links, binaries, odd names) and checks that each
//! commit's diff makes of the parent exactly the child, and what GNU patch and `git apply` make of it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cases::{Tree, outcome};
use super::differential::{Dice, edited, file, gnu, lines};
use super::note::Said;
use super::reason::Reason;
use super::{Entry, Options};

pub const NAMES: &[&str] = &[
    // GNU patch knows these, also in the header of a rename without hunks.
    "a",
    "b.c",
    "d/e",
    "d/f.h",
    "d/g/h",
    "x.orig",
    // These are quoted, end in a TAB, or take each other's place.
    "with blank",
    "d/two  blanks",
    "tab\there",
    "quo\"te",
    "back\\slash",
    "ünï",
    "new\nline",
    "i/j",
    "i/j/k",
    "d",
    "d/g",
    "-dash",
    "$(cmd)",
    "b.c~",
];

fn text(dice: &mut Dice) -> Vec<u8> {
    let some = lines(dice);
    file(&some, dice)
}

fn binary(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![0];
    for _ in 0..dice.roll(4000) {
        bytes.push(dice.roll(256) as u8);
    }
    bytes
}

fn entry(dice: &mut Dice) -> Entry {
    match dice.roll(8) {
        0 => Entry::Link(["a", "../x", "/abs", "d/e"][dice.roll(4)].into()),
        1 => Entry::File { content: binary(dice), executable: dice.once_in(3) },
        2 => Entry::File { content: Vec::new(), executable: dice.once_in(3) },
        _ => Entry::File { content: text(dice), executable: dice.once_in(4) },
    }
}

/// Puts an entry at a path; what is in its way goes.
fn put(tree: &mut BTreeMap<Vec<u8>, Entry>, path: &[u8], entry: Entry) {
    let inside = [path, b"/"].concat();
    tree.retain(|other, _| {
        !other.starts_with(&inside) && !super::name::folders(path).any(|folder| folder == other)
    });
    tree.insert(path.to_vec(), entry);
}

pub fn changed(entry: Entry, dice: &mut Dice) -> Entry {
    match entry {
        Entry::File { content, executable } if content.first() == Some(&0) => {
            let mut content = content;
            let at = dice.roll(content.len());
            content.splice(at..at, [1, 2, 3]);
            Entry::File { content, executable: executable != dice.once_in(5) }
        }
        Entry::File { content, executable } => {
            let old: Vec<String> = String::from_utf8(content).unwrap().lines().map(str::to_owned).collect();
            let changes = dice.roll(4);
            let new = edited(&old, changes, dice);
            Entry::File { content: file(&new, dice), executable: executable != dice.once_in(5) }
        }
        other if dice.once_in(2) => other,
        _ => Entry::Link(b"elsewhere".to_vec()),
    }
}

/// The next tree of a history.
pub fn step(tree: &Tree, names: &[&str], dice: &mut Dice) -> Tree {
    let mut next = tree.0.clone();
    for _ in 0..1 + dice.roll(4) {
        let paths: Vec<Vec<u8>> = next.keys().cloned().collect();
        let name = names[dice.roll(names.len())].as_bytes();
        if paths.len() < 4 || dice.once_in(4) {
            let entry = entry(dice);
            put(&mut next, name, entry);
            continue;
        }
        let path = &paths[dice.roll(paths.len())];
        match dice.roll(6) {
            0 => {
                next.remove(path);
            }
            1 | 2 => {
                let mut entry = next.remove(path).unwrap();
                if dice.once_in(2) {
                    entry = changed(entry, dice);
                }
                put(&mut next, name, entry);
            }
            3 => {
                let entry = changed(next[path].clone(), dice);
                put(&mut next, name, entry);
            }
            _ => {
                let entry = changed(next[path].clone(), dice);
                next.insert(path.clone(), entry);
            }
        }
    }
    Tree(next)
}

#[expect(clippy::disallowed_methods, reason = "the test makes its histories with git")]
pub fn git(folder: &Path, arguments: &[&str], input: &[u8]) -> (bool, Vec<u8>) {
    let mut command = Command::new("git");
    command.current_dir(folder).args(arguments).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", folder);
    command.env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("git is installed");
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that ends early closes the pipe.
        scope.spawn(move || drop(stdin.write_all(input)));
    });
    let output = child.wait_with_output().unwrap();
    (output.status.success(), output.stdout)
}

fn quoted(path: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for byte in path {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => quoted.push(char::from(*byte)),
            _ => quoted.push_str(&format!("\\{byte:03o}")),
        }
    }
    quoted + "\""
}

/// Makes the commits of `trees` in a bare repository and gives each commit's diff.
pub fn diffs(folder: &Path, trees: &[Tree]) -> Vec<Vec<u8>> {
    let mut stream = Vec::new();
    for (number, tree) in trees.iter().enumerate() {
        write!(stream, "commit refs/heads/main\ncommitter a <a@b> {number} +0000\ndata 0\n\ndeleteall\n")
            .unwrap();
        for (path, entry) in &tree.0 {
            let (mode, content) = match entry {
                Entry::File { content, executable: true } => ("100755", content),
                Entry::File { content, executable: false } => ("100644", content),
                Entry::Link(target) => ("120000", target),
                Entry::Folder => panic!("{path:?}"),
            };
            write!(stream, "M {mode} inline {}\ndata {}\n", quoted(path), content.len()).unwrap();
            stream.extend_from_slice(content);
            stream.push(b'\n');
        }
    }
    assert!(git(folder, &["init", "-q", "--bare", "repo"], b"").0);
    let repo = folder.join("repo");
    assert!(git(&repo, &["fast-import", "--quiet"], &stream).0);
    let log = [
        "log",
        "--reverse",
        "-p",
        "--binary",
        "-M",
        "-C",
        "--find-copies-harder",
        "--format=commit %H",
        "main",
    ];
    let (good, log) = git(&repo, &log, b"");
    assert!(good);
    let mut diffs: Vec<Vec<u8>> = Vec::new();
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"commit ") {
            diffs.push(Vec::new());
        }
        diffs.last_mut().unwrap().extend_from_slice(line);
    }
    assert_eq!(diffs.len(), trees.len());
    diffs
}

pub fn history(seed: u64, length: usize, names: &[&str]) -> Vec<Tree> {
    let mut dice = Dice::new(seed);
    let mut trees = vec![step(&Tree::default(), names, &mut dice)];
    while trees.len() < length {
        let next = step(trees.last().unwrap(), names, &mut dice);
        if next != trees[trees.len() - 1] {
            trees.push(next);
        }
    }
    trees
}

#[test]
fn each_commit_makes_of_its_parent_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let trees = history(5, 700, NAMES);
    let diffs = diffs(folder.path(), &trees);
    let all = diffs.concat();
    let kinds: &[&[u8]] = &[
        b"\nrename from ",
        b"\ncopy from ",
        b"\nnew file mode 120000",
        b"\nnew file mode 100755",
        b"\nold mode ",
        b"\ndeleted file mode ",
        b"\nliteral ",
        b"\ndelta ",
        b"\n\\ No newline",
        b"\ndiff --git \"a/",
    ];
    for kind in kinds {
        assert!(all.windows(kind.len()).any(|window| window == *kind), "{}", String::from_utf8_lossy(kind));
    }
    for number in 1..trees.len() {
        let shown = String::from_utf8_lossy(&diffs[number]);
        let made = outcome(&trees[number - 1], &diffs[number], &Options::default());
        let (made, applied) = made.unwrap_or_else(|reason| panic!("{reason:?}:\n{shown}"));
        assert_eq!(made, trees[number], "{shown}");
        assert!(applied.notes.is_empty(), "{:?}\n{shown}", applied.notes);
    }
    // A log of several commits goes in commit by commit.
    for start in (0..trees.len() - 6).step_by(5) {
        let log = diffs[start + 1..start + 6].concat();
        let made = outcome(&trees[start], &log, &Options::default());
        let (made, _) =
            made.unwrap_or_else(|reason| panic!("{reason:?}:\n{}", String::from_utf8_lossy(&log)));
        assert_eq!(made, trees[start + 5], "{}", String::from_utf8_lossy(&log));
    }
}

/// Lays a tree out as files; names that a shell would find odd included.
#[expect(clippy::disallowed_methods, reason = "the test lays out files for other programs")]
pub fn lay_out(tree: &Tree, folder: &Path) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    for (path, entry) in &tree.0 {
        let path = folder.join(std::ffi::OsStr::from_bytes(path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match entry {
            Entry::File { content, executable } => {
                std::fs::write(&path, content).unwrap();
                let mode = if *executable { 0o755 } else { 0o644 };
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            Entry::Link(target) => symlink(std::ffi::OsStr::from_bytes(target), &path).unwrap(),
            Entry::Folder => panic!("{path:?}"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the test reads what other programs wrote")]
pub fn read_back(folder: &Path, base: &Path, tree: &mut Tree) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(base).unwrap().as_os_str().as_bytes().to_vec();
        if kind.is_dir() {
            read_back(&path, base, tree);
        } else if kind.is_symlink() {
            tree.0.insert(
                name,
                Entry::Link(std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()),
            );
        } else if name != b"the.patch" {
            let executable = kind.permissions().mode() & 0o100 != 0;
            tree.0.insert(name, Entry::File { content: std::fs::read(&path).unwrap(), executable });
        }
    }
}

#[test]
fn drifted_trees_agree_with_gnu_patch_and_git_apply() {
    let folder = tempfile::tempdir().unwrap();
    let trees = history(9, 400, &NAMES[..6]);
    let diffs = diffs(folder.path(), &trees);
    let mut dice = Dice::new(3);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for number in 1..trees.len() {
        let mut count = |what: &str| *seen.entry(what.to_owned()).or_default() += 1;
        let diff = &diffs[number];
        let mut tree = trees[number - 1].clone();
        for entry in tree.0.values_mut() {
            if dice.once_in(3) {
                *entry = changed(entry.clone(), &mut dice);
            }
        }
        let ours = outcome(&tree, diff, &Options::default());
        let work = tempfile::tempdir().unwrap();
        lay_out(&tree, work.path());
        let (code, said) = gnu(work.path(), diff, &["-r", "-", "-f"]);
        let code = code.unwrap();
        let mut theirs = Tree::default();
        read_back(work.path(), work.path(), &mut theirs);
        let shown =
            format!("{said}\n{}\nours: {ours:?}\ntheirs: {theirs:?}", String::from_utf8_lossy(diff));
        let has = |what: &[u8]| diff.windows(what.len()).any(|window| window == what);
        match (&ours, code) {
            (Ok((ours, _)), 0) => {
                assert!(*ours == theirs, "{shown}");
                count("same");
                for (kind, what) in [
                    ("renamed", "\nrename from "),
                    ("copied", "\ncopy from "),
                    ("created", "\nnew file mode"),
                    ("deleted", "\ndeleted file mode "),
                ] {
                    if has(what.as_bytes()) {
                        count(kind);
                    }
                }
            }
            (Ok(_), _) => {
                // The second table of `docs/patch.md`: binary data, a file that was renamed before, a link
                // that is renamed or copied as it is.
                let is_known = has(b"\nGIT binary patch")
                    || has(b"\nrename from ") && said.contains("can't find file")
                    || said.contains("is not a regular file")
                        && (has(b"\nrename from ") || has(b"\ncopy from "));
                assert!(is_known, "{shown}");
                count("accepted");
            }
            (Err(reason), 0) => {
                let deliberate =
                    [Reason::Nothing, Reason::Order, Reason::FileEnd, Reason::Exists, Reason::Applied];
                assert!(deliberate.contains(reason), "{shown}");
                count(reason.name());
            }
            (Err(_), _) => count("both refuse"),
        }
        let work = tempfile::tempdir().unwrap();
        lay_out(&tree, work.path());
        let (good, _) = git(work.path(), &["apply", "--whitespace=nowarn"], diff);
        if good && let Ok((ours, applied)) = &ours {
            let mut theirs = Tree::default();
            read_back(work.path(), work.path(), &mut theirs);
            if !applied.notes.iter().any(|note| matches!(note.said, Said::Moved(_))) {
                assert!(*ours == theirs, "git: {shown}");
                count("same as git");
            }
        } else if good {
            count("git alone");
        }
    }
    println!("{seen:?}");
    for what in
        ["same", "renamed", "copied", "created", "deleted", "both refuse", "accepted", "same as git"]
    {
        assert!(seen.contains_key(what), "no case of {what}: {seen:?}");
    }
}
