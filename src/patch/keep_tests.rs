//! Patches that are written again: nothing changed is the identity, what is written makes exactly the
//! wanted tree here, with `git apply` and with GNU patch, and hunks that nobody touched stay.

use super::cases::{Tree, outcome};
use super::differential::{Dice, edited, file, gnu, lines};
use super::histories::{NAMES, changed, diffs, git, history, lay_out, read_back, step};
use super::*;

/// What makes `after` of `before`.
fn wanted(before: &Tree, after: &Tree) -> Wanted {
    let mut wanted = Wanted::new();
    for path in before.0.keys().filter(|path| !after.0.contains_key(*path)) {
        wanted.insert(path.clone(), Change::Remove);
    }
    for (path, entry) in after.0.iter().filter(|(path, entry)| before.0.get(*path) != Some(entry)) {
        let change = match entry.clone() {
            Entry::File { content, executable } => Change::Write { content, executable },
            Entry::Link(target) => Change::Link(target),
            Entry::Folder => panic!("a folder"),
        };
        wanted.insert(path.clone(), change);
    }
    wanted
}

fn rewritten(text: &[u8], before: &Tree, after: &Tree, options: &Options, keep: Keep) -> Vec<u8> {
    let wanted = wanted(before, after);
    let asked = Rewriting { name: "p.patch", text, options, before, wanted: &wanted, keep };
    asked.rewrite().unwrap_or_else(|error| {
        panic!("{error:?}\n{}\n{before:?}\n{after:?}", String::from_utf8_lossy(text))
    })
}

fn again(text: &str, before: &[(&str, &str)], after: &[(&str, &str)]) -> String {
    let (before, after) = (Tree::of(before), Tree::of(after));
    let text = rewritten(text.as_bytes(), &before, &after, &Options::default(), Keep::All);
    String::from_utf8(text).unwrap()
}

/// Checks that git, and GNU patch where it can, make of `before` what we say.
fn others_agree(patch: &[u8], before: &Tree, after: &Tree) -> bool {
    let shown = String::from_utf8_lossy(patch);
    let work = tempfile::tempdir().unwrap();
    lay_out(before, work.path());
    assert!(git(work.path(), &["apply", "--whitespace=nowarn"], patch).0, "git refuses:\n{shown}");
    let mut theirs = Tree::default();
    read_back(work.path(), work.path(), &mut theirs);
    assert!(theirs == *after, "git makes another tree:\n{shown}");
    let work = tempfile::tempdir().unwrap();
    lay_out(before, work.path());
    let (code, _) = gnu(work.path(), patch, &["-r", "-", "-f"]);
    if code != Some(0) {
        return false;
    }
    let mut theirs = Tree::default();
    read_back(work.path(), work.path(), &mut theirs);
    assert!(theirs == *after, "GNU patch makes another tree:\n{shown}");
    true
}

#[test]
fn new_patches_are_taken_by_all_and_say_the_same_again() {
    let trees = history(21, 260, NAMES);
    let options = Options::default();
    let (mut taken, mut all) = (0, 0);
    for pair in trees.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let patch = rewritten(b"", before, after, &options, Keep::All);
        let (made, applied) = outcome(before, &patch, &options).unwrap();
        assert!(made == *after && applied.notes.is_empty());
        assert_eq!(rewritten(&patch, before, after, &options, Keep::All), patch);
        assert_eq!(rewritten(&patch, before, after, &options, Keep::Exact), patch);
        taken += usize::from(others_agree(&patch, before, after));
        all += 1;
    }
    // GNU patch knows neither binary data nor all names.
    assert!(taken * 3 > all, "GNU patch took {taken} of {all}");
}

#[test]
fn patches_of_git_stay_where_nothing_changed_and_change_where_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let trees = history(33, 260, NAMES);
    let diffs = diffs(folder.path(), &trees);
    let options = Options::default();
    let mut dice = Dice::new(4);
    for number in 1..trees.len() {
        let (before, after) = (&trees[number - 1], &trees[number]);
        assert_eq!(rewritten(&diffs[number], before, after, &options, Keep::All), diffs[number]);
        assert_eq!(rewritten(&diffs[number], before, after, &options, Keep::Exact), diffs[number]);
        let mut next = step(after, NAMES, &mut dice);
        if dice.once_in(2) {
            for entry in next.0.values_mut() {
                *entry = changed(entry.clone(), &mut dice);
            }
        }
        if next == *before {
            continue;
        }
        let patch = rewritten(&diffs[number], before, &next, &options, Keep::All);
        assert!(patch.starts_with(diffs[number].split(|b| *b == b'\n').next().unwrap()));
        let (made, _) = outcome(before, &patch, &options).unwrap();
        assert_eq!(made, next);
        others_agree(&patch, before, &next);
    }
}

#[test]
fn one_file_over_and_over() {
    let mut dice = Dice::new(8);
    for _ in 0..1500 {
        let base: Vec<String> = (0..4).flat_map(|_| lines(&mut dice)).collect();
        let mut steps = vec![base];
        for _ in 0..3 {
            let last = steps.last().unwrap();
            let changes = 1 + dice.roll(5);
            steps.push(edited(last, changes, &mut dice));
        }
        let crlf = dice.once_in(4);
        let mut tree = |lines: &[String]| {
            let mut content = file(lines, &mut dice);
            if crlf {
                content = String::from_utf8(content).unwrap().replace('\n', "\r\n").into_bytes();
            }
            Tree([(b"f".to_vec(), Entry::File { content, executable: false })].into())
        };
        let trees: Vec<Tree> = steps.iter().map(|lines| tree(lines)).collect();
        let options = Options::default();
        if trees[0] == trees[1] || trees[0] == trees[2] || trees[3] == trees[0] {
            continue;
        }
        let patch = rewritten(b"words\n", &trees[0], &trees[1], &options, Keep::All);
        let next = rewritten(&patch, &trees[0], &trees[2], &options, Keep::All);
        assert_eq!(outcome(&trees[0], &next, &options).unwrap().0, trees[2]);
        others_agree(&next, &trees[0], &trees[2]);
        // The tree below changes: what the patch makes of it is wanted, without a note.
        let mut below = steps[0].clone();
        below.splice(0..0, ["new top".to_owned(), "another".to_owned()]);
        let below = tree(&below);
        if let Ok((made, _)) = outcome(&below, &patch, &options)
            && made != below
        {
            let exact = rewritten(&patch, &below, &made, &options, Keep::Exact);
            let (same, applied) = outcome(&below, &exact, &options).unwrap();
            assert!(same == made && applied.notes.is_empty());
            others_agree(&exact, &below, &made);
        }
    }
}

/// Twenty-six lines with some replaced.
fn letters(changes: &[(char, &str)]) -> String {
    let line = |letter: char| {
        let change = changes.iter().find(|(known, _)| *known == letter);
        change.map_or(format!("{letter}\n"), |(_, text)| text.to_string())
    };
    ('a'..='z').map(line).collect()
}

const MAIL: &str = "From: somebody\nSubject: two words\n\nWhy.\n---\n f | 4 +-\n\ndiff --git a/f b/f\nindex 1..2 100644\n--- a/f\n+++ b/f\n@@ -1,5 +1,5 @@ odd heading\n a\n b\n-c\n+C\n d\n e\n@@ -18,7 +18,7 @@ another one\n r\n s\n t\n-u\n+U\n v\n w\n x\n-- \n2.30\n";

#[test]
fn only_the_hunk_that_changed_is_written() {
    let first = letters(&[]);
    let patched = letters(&[('c', "C\n"), ('u', "U\n")]);
    assert_eq!(again(MAIL, &[("f", &first)], &[("f", &patched)]), MAIL);
    let edited = letters(&[('c', "C\n"), ('u', "UU\nU2\n")]);
    let expected = MAIL.replace("index 1..2 100644\n", "").replace(
        "@@ -18,7 +18,7 @@ another one\n r\n s\n t\n-u\n+U\n",
        "@@ -18,7 +18,8 @@ q\n r\n s\n t\n-u\n+UU\n+U2\n",
    );
    assert_eq!(again(MAIL, &[("f", &first)], &[("f", &edited)]), expected);
    // The first hunk grows: the second keeps even its header.
    let edited = letters(&[('c', "C\nC2\n"), ('u', "U\n")]);
    let expected = MAIL.replace("index 1..2 100644\n", "").replace(
        "@@ -1,5 +1,5 @@ odd heading\n a\n b\n-c\n+C\n d\n e\n",
        "@@ -1,6 +1,7 @@\n a\n b\n-c\n+C\n+C2\n d\n e\n f\n",
    );
    assert_eq!(again(MAIL, &[("f", &first)], &[("f", &edited)]), expected);
    // A hunk between, a hunk gone, and another file: the trailer stays last.
    let edited = letters(&[('m', "M\n"), ('u', "U\n")]);
    let expected = MAIL
        .replace("index 1..2 100644\n", "")
        .replace(
            "@@ -1,5 +1,5 @@ odd heading\n a\n b\n-c\n+C\n d\n e\n",
            "@@ -10,7 +10,7 @@ i\n j\n k\n l\n-m\n+M\n n\n o\n p\n",
        )
        .replace(
            "-- \n2.30\n",
            "diff --git a/g b/g\nnew file mode 100644\n--- /dev/null\n+++ b/g\n@@ -0,0 +1 @@\n+new\n-- \n2.30\n",
        );
    assert_eq!(again(MAIL, &[("f", &first)], &[("f", &edited), ("g", "new\n")]), expected);
}

#[test]
fn names_follow_strip_and_basedir() {
    let (before, after) = (Tree::of(&[("in/f", "1\n")]), Tree::of(&[("in/f", "2\n")]));
    let text = |strip, basedir: Option<&str>| {
        let options = Options { strip, basedir: basedir.map(Into::into), ..Options::default() };
        String::from_utf8(rewritten(b"", &before, &after, &options, Keep::All)).unwrap()
    };
    let head = |text: String| text.lines().take(3).map(str::to_owned).collect::<Vec<_>>().join("|");
    assert_eq!(head(text(0, None)), "diff --git in/f in/f|--- in/f|+++ in/f");
    assert_eq!(head(text(2, None)), "diff --git a/tree/in/f b/tree/in/f|--- a/tree/in/f|+++ b/tree/in/f");
    assert_eq!(head(text(1, Some("in"))), "diff --git a/f b/f|--- a/f|+++ b/f");
    let options = Options { basedir: Some(b"other".to_vec()), ..Options::default() };
    let wanted = wanted(&before, &after);
    let asked = Rewriting {
        name: "p",
        text: b"",
        options: &options,
        before: &before,
        wanted: &wanted,
        keep: Keep::All,
    };
    let error = asked.rewrite().unwrap_err().to_string();
    assert_eq!(error, "`in/f` was changed, but it lies outside of `other`");
}

#[test]
fn offset_and_fuzz_are_refreshed_and_nothing_else() {
    let plain = "Index: f\n=====\n--- f.orig\t2001-01-01\n+++ f\t2002-02-02\n@@ -1,3 +1,3 @@ head\n a\n-b\n+B\n c\n@@ -20,7 +20,7 @@\n t\n u\n v\n-w\n+W\n x\n y\n z\n";
    let options = Options { strip: 0, ..Options::default() };
    let text = |changes: &[(char, &str)]| Tree::of(&[("f", &letters(changes))]);
    let before = text(&[('d', "d\nd2\n"), ('z', "Z\n")]);
    let (after, applied) = outcome(&before, plain.as_bytes(), &options).unwrap();
    assert_eq!(applied.notes.len(), 1);
    let exact = rewritten(plain.as_bytes(), &before, &after, &options, Keep::Exact);
    let expected = plain.replace("@@ -20,7 +20,7 @@", "@@ -21,7 +21,7 @@").replace(" z\n", " Z\n");
    assert_eq!(String::from_utf8(exact).unwrap(), expected);
}

#[test]
fn a_patch_with_crlf_keeps_it() {
    let carried = "--- a/f\r\n+++ b/f\r\n@@ -1,3 +1,3 @@\r\n a\r\n-b\r\n+B\r\n c\r\n";
    let edited = again(carried, &[("f", "a\nb\nc\n")], &[("f", "a\nB\nB2\nc\n")]);
    assert_eq!(edited, "--- a/f\r\n+++ b/f\r\n@@ -1,3 +1,4 @@\r\n a\r\n-b\r\n+B\r\n+B2\r\n c\r\n");
    // The file has CRLF and the patch has not: with the file's own line ends there is no note any more.
    let (before, after) = (Tree::of(&[("f", "a\r\nb\r\nc\r\n")]), Tree::of(&[("f", "a\r\nB\r\nc\r\n")]));
    let plain = carried.replace('\r', "");
    let exact = rewritten(plain.as_bytes(), &before, &after, &Options::default(), Keep::Exact);
    let expected = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\r\n-b\r\n+B\r\n c\r\n";
    assert_eq!(String::from_utf8(exact).unwrap(), expected);
}

#[test]
fn a_move_is_a_rename_and_modes_stand_only_where_they_change() {
    let entry = |text: &str, executable| Entry::File { content: text.into(), executable };
    let tree = |files: &[(&str, Entry)]| {
        Tree(files.iter().map(|(path, entry)| (path.as_bytes().to_vec(), entry.clone())).collect())
    };
    let before = tree(&[
        ("a", entry("same\n", false)),
        ("b", entry("b\n", false)),
        ("l", Entry::Link(b"x".to_vec())),
    ]);
    let after =
        tree(&[("c", entry("same\n", true)), ("b", entry("b\n", true)), ("l", Entry::Link(b"y".to_vec()))]);
    let patch = rewritten(b"", &before, &after, &Options::default(), Keep::All);
    let expected = "diff --git a/b b/b\nold mode 100644\nnew mode 100755\ndiff --git a/a b/c\nold mode 100644\nnew mode 100755\nsimilarity index 100%\nrename from a\nrename to c\ndiff --git a/l b/l\nindex c1b0730e0133cf19e90ef5ff76d85a8c52c77c0f..e25f1814e51570dd3dab8f1e8b48d2b2d32e64cb 120000\n--- a/l\n+++ b/l\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n\\ No newline at end of file\n";
    let shown = String::from_utf8(patch).unwrap();
    let steady =
        |text: &str| text.lines().filter(|line| !line.starts_with("index ")).collect::<Vec<_>>().join("\n");
    assert_eq!(steady(&shown), steady(expected));
    assert!(shown.contains(" 120000\n--- a/l"), "{shown}");
}
