//! What the cases made for other tools do not show: messages, notes, options, containment, line ends.

use super::cases::{Tree, outcome};
use super::reason::Reason;
use super::*;
use crate::error::{Error, Failure};

fn refusal(tree: &Tree, patch: &str, options: &Options) -> Failure {
    let parsed = match parse("p.patch", patch.as_bytes(), options) {
        Ok(parsed) => parsed,
        Err(failure) => return failure,
    };
    match apply(&parsed, tree, options) {
        Err(Error::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

fn reason(tree: &Tree, patch: &str, options: &Options) -> Option<Reason> {
    outcome(tree, patch.as_bytes(), options).err()
}

fn notes(tree: &Tree, patch: &str, options: &Options) -> (Tree, Vec<String>) {
    let (tree, applied) = outcome(tree, patch.as_bytes(), options).unwrap();
    (tree, applied.notes.iter().map(ToString::to_string).collect())
}

const EDIT: &str = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n 1\n-2\n+X\n 3\n";

#[test]
fn a_failed_hunk_is_shown_beside_the_nearest_lines() {
    let tree = Tree::of(&[("f", "a\nb\nint main() {\n\tcall(1);\n    other();\n}\nz\n")]);
    let patch = "--- a/f\n+++ b/f\n@@ -1,4 +1,4 @@\n int main() {\n-    call(2);\n+    call(3);\n     other();\n }\n";
    let failure = refusal(&tree, patch, &Options::default());
    assert_eq!(failure.message, "`p.patch` line 3: hunk 1 of `f` does not fit");
    let shown = "  expected                                     | there, from line 3
  int main() {                                 | int main() {
-     call(2);                                 |
+                                              |     call(1);  (line 4)
      other();                                 |     other();
  }                                            | }
not there: `    call(2);`";
    assert_eq!(failure.detail.join("\n"), shown);
    assert_eq!(failure.hints.len(), 1);
}

#[test]
fn blanks_and_line_ends_are_named_as_the_difference() {
    let patch = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n one\n-two\n+X\n three\n";
    let last =
        |text: &str| refusal(&Tree::of(&[("f", text)]), patch, &Options::default()).detail.pop().unwrap();
    assert_eq!(last("one\n\ttwo\nthree\n"), "line 2 differs from the expected one in blanks only");
    assert_eq!(last("one\ntwo\r\nthree\n"), "line 2 ends with CRLF, expected LF");
    assert_eq!(last(""), "not there: `one`");
}

#[test]
fn refusals_name_the_line_of_the_patch() {
    let tree = Tree::of(&[("f", "1\n2\n3\n")]);
    let message = |patch: &str| refusal(&tree, patch, &Options::default()).message;
    assert_eq!(
        message("--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n 1\n-2\n+X\n 3\n+4\n"),
        "`p.patch` line 8: the hunk goes on after the lines that its header counts: `+4`"
    );
    assert_eq!(
        message("--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n 1\n-2\n+X\n"),
        "`p.patch` line 7: the hunk of line 3 is too short: the patch ends, but 1 old and 1 new lines are to come"
    );
    assert_eq!(
        message("text\n--- /etc/passwd\n+++ /etc/passwd\n@@ -1,3 +1,3 @@\n 1\n-2\n+X\n 3\n"),
        "`p.patch` line 2: the name `/etc/passwd` is absolute"
    );
    assert_eq!(
        message("--- a/g\n+++ b/g\n@@ -1 +1 @@\n-1\n+2\n"),
        "`p.patch` line 1: `g` is not in the tree"
    );
}

#[test]
fn offset_fuzz_and_ambiguity_are_noted_with_their_lines() {
    let fit = |text: &str, patch: &str| notes(&Tree::of(&[("f", text)]), patch, &Options::default()).1;
    assert_eq!(
        fit("0\n0\n1\n2\n3\n", EDIT),
        ["`case.patch`: hunk 1 of `f` went to line 3, offset +2 lines"]
    );
    assert_eq!(fit("q\n2\n3\n", EDIT), ["`case.patch`: hunk 1 of `f` went to line 1, fuzz 1"]);
    let patch = "--- a/f\n+++ b/f\n@@ -3,3 +3,3 @@\n a\n-b\n+X\n c\n";
    assert_eq!(
        fit("a\nb\nc\nq\na\nb\nc\n", patch),
        ["`case.patch`: hunk 1 of `f` went to line 5, offset +2 lines; line 1 is as near and fits too"]
    );
    assert_eq!(fit("1\n2\n3\n", EDIT), [""; 0]);
}

#[test]
fn fuzz_can_be_turned_off() {
    let tree = Tree::of(&[("f", "q\n2\n3\n")]);
    assert_eq!(reason(&tree, EDIT, &Options { fuzz: 0, ..Options::default() }), Some(Reason::Mismatch));
}

#[test]
fn line_ends_are_matched_by_content_and_kept() {
    let (tree, said) = notes(&Tree::of(&[("f", "1\r\n2\r\n3\r\n")]), EDIT, &Options::default());
    assert_eq!(tree, Tree::of(&[("f", "1\r\nX\r\n3\r\n")]));
    assert_eq!(said, ["`case.patch`: `f` keeps its CRLF line ends; the patch has LF"]);
    let crlf = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n 1\r\n-2\r\n+X\r\n 3\r\n";
    let (tree, said) = notes(&Tree::of(&[("f", "1\n2\n3\n")]), crlf, &Options::default());
    assert_eq!(tree, Tree::of(&[("f", "1\nX\n3\n")]));
    assert_eq!(said, ["`case.patch`: `f` keeps its LF line ends; the patch has CRLF"]);
    // A file of both styles has no style to keep.
    assert_eq!(
        reason(&Tree::of(&[("f", "1\r\n2\r\n3\n")]), EDIT, &Options::default()),
        Some(Reason::Mismatch)
    );
    // A patch that changes the line ends means them.
    let converts = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-1\n+1\r\n";
    let (tree, said) = notes(&Tree::of(&[("f", "1\n")]), converts, &Options::default());
    assert_eq!((tree, said.len()), (Tree::of(&[("f", "1\r\n")]), 0));
}

#[test]
fn what_is_there_already_fails_or_is_passed_over() {
    let skip = Options { already_applied: AlreadyApplied::Skip, ..Options::default() };
    let create = "--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+n\n";
    let delete = "--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-n\n";
    let rename = "diff --git a/f b/g\nsimilarity index 100%\nrename from f\nrename to g\n";
    let chmod = "diff --git a/f b/f\nold mode 100755\nnew mode 100644\n";
    let cases = [
        (EDIT, Tree::of(&[("f", "0\n1\nX\n3\n")])),
        (create, Tree::of(&[("n", "n\n")])),
        (delete, Tree::of(&[])),
        (rename, Tree::of(&[("g", "any\n")])),
        (chmod, Tree::of(&[("f", "any\n")])),
    ];
    for (patch, tree) in cases {
        assert_eq!(reason(&tree, patch, &Options::default()), Some(Reason::Applied), "{patch}");
        let (after, said) = notes(&tree, patch, &skip);
        assert_eq!(after, tree);
        assert!(said.len() == 1 && said[0].ends_with("has this change already"), "{said:?}");
    }
    // Half of it is not all of it.
    let two = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n-1\n+X\n 2\n@@ -4,2 +4,2 @@\n-4\n+Y\n 5\n";
    let tree = Tree::of(&[("f", "X\n2\n3\n4\n5\n")]);
    assert_eq!(reason(&tree, two, &skip), Some(Reason::Reversed));
}

#[test]
fn zero_context_trusts_line_numbers_within_the_file() {
    let allow = Options { zero_context: ZeroContext::Allow, ..Options::default() };
    let patch = |line: usize| format!("--- a/f\n+++ b/f\n@@ -{line},0 +{} @@\n+X\n", line + 1);
    let tree = Tree::of(&[("f", "1\n2\n")]);
    assert_eq!(reason(&tree, &patch(1), &Options::default()), Some(Reason::Nothing));
    assert_eq!(notes(&tree, &patch(1), &allow).0, Tree::of(&[("f", "1\nX\n2\n")]));
    assert_eq!(notes(&tree, &patch(0), &allow).0, Tree::of(&[("f", "X\n1\n2\n")]));
    assert_eq!(notes(&tree, &patch(2), &allow).0, Tree::of(&[("f", "1\n2\nX\n")]));
    assert_eq!(reason(&tree, &patch(3), &allow), Some(Reason::Nothing));
    assert_eq!(reason(&tree, &patch(9_223_372_036_854_775_806), &allow), Some(Reason::Malformed));
}

#[test]
fn basedir_and_strip_make_the_path() {
    let tree = Tree::of(&[("sub/dir/f", "1\n2\n3\n")]);
    let options = Options { basedir: Some(b"sub/dir".to_vec()), ..Options::default() };
    assert_eq!(notes(&tree, EDIT, &options).0, Tree::of(&[("sub/dir/f", "1\nX\n3\n")]));
    let deep = EDIT.replace("a/f", "x/y/z/f").replace("b/f", "x/y/z/f");
    assert_eq!(
        notes(&tree, &deep, &Options { strip: 3, ..options.clone() }).0,
        Tree::of(&[("sub/dir/f", "1\nX\n3\n")])
    );
    assert_eq!(reason(&tree, &deep, &Options { strip: 4, ..options }), Some(Reason::Name));
}

#[test]
fn nothing_leaves_the_tree() {
    let tree = Tree(
        [
            (b"l".to_vec(), Entry::Link(b"..".to_vec())),
            (b"f".to_vec(), Tree::of(&[("f", "1\n2\n3\n")]).0[&b"f"[..]].clone()),
        ]
        .into(),
    );
    let create = |name: &str| format!("--- /dev/null\n+++ {name}\n@@ -0,0 +1 @@\n+n\n");
    let at = |strip| Options { strip, ..Options::default() };
    for name in [
        "b/../x",
        "../x",
        "/x",
        "b//x/../../y",
        "C:/x",
        "c:x",
        "b/.git/config",
        "b/.GIT/x",
        "\"b/\\056\\056/x\"",
        "b/d/.git",
    ] {
        assert_eq!(
            reason(&tree, &create(name), &at(usize::from(name.starts_with('b') || name.starts_with('"')))),
            Some(Reason::Outside),
            "{name}"
        );
    }
    assert_eq!(reason(&tree, &create("b/l/x"), &at(1)), Some(Reason::Through));
    assert_eq!(reason(&tree, &create("b/f/x"), &at(1)), Some(Reason::Through));
    let moves =
        |to: &str| format!("diff --git a/f b/{to}\nsimilarity index 100%\nrename from f\nrename to {to}\n");
    assert_eq!(reason(&tree, &moves("l/x"), &at(1)), Some(Reason::Through));
    assert_eq!(reason(&tree, &moves("../x"), &at(1)), Some(Reason::Outside));
    assert_eq!(reason(&tree, "--- a/l\n+++ b/l\n@@ -1 +1 @@\n-..\n+/\n", &at(1)), Some(Reason::Type));
}

#[test]
fn a_link_that_an_earlier_patch_made_is_not_followed() {
    let tree = Tree::of(&[("f", "1\n")]);
    let options = Options::default();
    let link = "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n";
    let first = apply(&parse("1.patch", link.as_bytes(), &options).unwrap(), &tree, &options).unwrap();
    let mut overlay = Overlay::new(&tree);
    overlay.lay(first.changes);
    let through = parse("2.patch", b"--- /dev/null\n+++ b/l/x\n@@ -0,0 +1 @@\n+n\n", &options).unwrap();
    let Err(Error::Failed(failure)) = apply(&through, &overlay, &options) else { panic!("was applied") };
    assert_eq!(failure.message, "`2.patch` line 1: `l/x` lies behind `l`, which is a link");
}

#[test]
fn later_patches_see_what_earlier_ones_made() {
    let tree = Tree::of(&[("f", "1\n2\n3\n"), ("d/a", "a\n"), ("d/b", "b\n")]);
    let options = Options::default();
    let mut overlay = Overlay::new(&tree);
    let patches = [
        EDIT.to_owned(),
        EDIT.replace("-2\n", "-X\n").replace("+X\n", "+Y\n"),
        "--- a/d/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n--- a/d/b\n+++ /dev/null\n@@ -1 +0,0 @@\n-b\n"
            .to_owned(),
        "--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+file\n".to_owned(),
    ];
    for text in &patches {
        let applied = apply(&parse("p", text.as_bytes(), &options).unwrap(), &overlay, &options).unwrap();
        overlay.lay(applied.changes);
    }
    assert_eq!(overlay.entry(b"d/a").unwrap(), None);
    let changes: Vec<_> = overlay
        .into_changes()
        .into_iter()
        .map(|(path, change)| (String::from_utf8(path).unwrap(), change))
        .collect();
    let write = |text: &str| Change::Write { content: text.into(), executable: false };
    let expected = [
        ("d", write("file\n")),
        ("d/a", Change::Remove),
        ("d/b", Change::Remove),
        ("f", write("1\nY\n3\n")),
    ];
    assert_eq!(changes, expected.map(|(path, change)| (path.to_owned(), change)));
}

#[test]
fn a_diff_in_the_message_of_a_mail_is_refused() {
    let tree = Tree::of(&[("f", "1\n2\n3\n"), ("g", "1\n2\n3\n")]);
    let head = "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: a <b@c>\nSubject: x\n\n";
    let real = EDIT.replace("/f", "/g");
    let hidden = format!("{head}see:\n{EDIT}\n---\n g | 2 +-\n\n{real}-- \n2.39\n");
    assert_eq!(reason(&tree, &hidden, &Options::default()), Some(Reason::Message));
    let good = format!("{head}text\n---\n g | 2 +-\n\n{real}-- \n2.39\n\n");
    assert_eq!(
        notes(&tree, &good, &Options::default()).0,
        Tree::of(&[("f", "1\n2\n3\n"), ("g", "1\nX\n3\n")])
    );
    // A second mail in the same file starts anew.
    let second = EDIT.replace("-2\n", "-X\n").replace("+X\n", "+Y\n").replace("/f", "/g");
    let both = format!("{good}{head}more\n---\n g | 2 +-\n\n{second}-- \n2.39\n");
    assert_eq!(
        notes(&tree, &both, &Options::default()).0,
        Tree::of(&[("f", "1\n2\n3\n"), ("g", "1\nY\n3\n")])
    );
}

#[test]
fn binary_data_is_bound_to_the_content_it_was_made_for() {
    let forward = "literal 10\nUcmV+l0QLU>0RjUA1qKHQ2>`DEE&u=k\n\n";
    let patch =
        |old: &str| format!("diff --git a/b b/b\nindex 1..2 100644\nGIT binary patch\n{forward}{old}");
    let empty = "literal 0\nHcmV?d00001\n\n";
    let tree = |content: &[u8]| {
        Tree([(b"b".to_vec(), Entry::File { content: content.to_vec(), executable: false })].into())
    };
    let new: Vec<u8> = (0..10).collect();
    assert_eq!(notes(&tree(b""), &patch(empty), &Options::default()).0, tree(&new));
    assert_eq!(reason(&tree(&new), &patch(empty), &Options::default()), Some(Reason::Applied));
    assert_eq!(reason(&tree(b"other"), &patch(empty), &Options::default()), Some(Reason::Binary));
    // Truncated data, another size, no blank line, a letter that is no digit.
    for bad in [
        "literal 0\nHcmV?d0000\n\n",
        "literal 1\nHcmV?d00001\n\n",
        "literal 0\nHcmV?d00001\n",
        "literal 0\nDcmV?d\n\n",
        "literal 0\nH~~~~~~~~~~\n\n",
        "literal 9999999999999\nHcmV?d00001\n\n",
    ] {
        assert_eq!(reason(&tree(b""), &patch(bad), &Options::default()), Some(Reason::Binary), "{bad}");
    }
}
