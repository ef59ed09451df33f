//! Hostile and large input: time, memory, panics; and that a patch and its reverse are the identity.

use proptest::prelude::*;

use super::cases::{Tree, outcome};
use super::differential::{Dice, diff, edited, file, lines};
use super::reason::Reason;
use super::section::Hunk;
use super::text::Text;
use super::*;

fn one_file(content: &[u8]) -> Tree {
    Tree([(b"f".to_vec(), Entry::File { content: content.to_vec(), executable: false })].into())
}

/// A file of 5 MB and a patch of 1,000 hunks for it.
fn large() -> (Vec<u8>, Vec<u8>) {
    let mut old: Vec<String> = (0..120_000)
        .map(|at| format!("line {at} of a rather long source file, {}", at * 7 % 1000))
        .collect();
    let text = |lines: &[String]| {
        lines.iter().flat_map(|line| [line.as_bytes(), b"\n"]).flatten().copied().collect::<Vec<u8>>()
    };
    let mut patch = b"--- a/f\n+++ b/f\n".to_vec();
    for hunk in 0..1000 {
        let at = 100 + hunk * 119;
        let line = |offset: usize| &old[at + offset];
        let text =
            format!("@@ -{0},3 +{0},3 @@\n {1}\n-{2}\n+changed\n {3}\n", at + 1, line(0), line(1), line(2));
        patch.extend_from_slice(text.as_bytes());
    }
    old.splice(0..0, (0..50).map(|at| format!("new {at}")));
    (text(&old), patch)
}

#[test]
fn a_thousand_hunks_in_five_megabytes_take_a_moment() {
    let (content, patch) = large();
    assert!(content.len() > 5_000_000);
    let tree = one_file(&content);
    let start = std::time::Instant::now();
    let options = Options::default();
    let parsed = parse("p", &patch, &options).unwrap();
    let applied = apply(&parsed, &tree, &options).unwrap();
    println!("1,000 hunks in 5 MB: {:?}", start.elapsed());
    assert_eq!(applied.notes.len(), 1000);
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn lines_that_are_all_alike_take_no_quadratic_time() {
    // Every place agrees with the hunk in all but its last line, for each of many lines.
    let content = [b"a\n".repeat(200_000), b"c\n".to_vec()].concat();
    let old = 50_000;
    let patch = [
        format!("--- a/f\n+++ b/f\n@@ -1,{0} +1,{0} @@\n", old + 2).into_bytes(),
        b" a\n".repeat(old),
        b"-b\n+q\n c\n".to_vec(),
    ]
    .concat();
    let tree = one_file(&content);
    let start = std::time::Instant::now();
    assert_eq!(outcome(&tree, &patch, &Options::default()).err(), Some(Reason::Mismatch));
    // The same with a last line that the file has, so that the rarest line rules nothing out.
    let patch = String::from_utf8(patch).unwrap().replace("-b\n+q\n c\n", "-c\n+q\n a\n");
    assert_eq!(outcome(&tree, patch.as_bytes(), &Options::default()).err(), Some(Reason::Mismatch));
    assert!(start.elapsed().as_secs() < 10);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_patch_and_its_reverse_are_the_identity(seed in any::<u64>(), changes in 1usize..6, context in 1usize..5) {
        let mut dice = Dice::new(seed);
        let base = lines(&mut dice);
        let old = file(&base, &mut dice);
        let changed = edited(&base, changes, &mut dice);
        let new = file(&changed, &mut dice);
        let text = diff("f", &old, &new, context);
        prop_assume!(!text.is_empty());
        // Text after a line without line end, and insertions without context, have rules of their own.
        let options = Options { zero_context: ZeroContext::Allow, ..Options::default() };
        let mut patch = parse("p", &text, &options).unwrap();
        let there = one_file(&old).with(&apply(&patch, &one_file(&old), &options).unwrap());
        prop_assert_eq!(&there, &one_file(&new));
        for section in &mut patch.sections {
            section.hunks = section.hunks.iter().map(Hunk::reversed).collect();
        }
        let back = there.with(&apply(&patch, &there, &options).unwrap());
        prop_assert_eq!(back, one_file(&old));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = outcome(&Tree::of(&[("f", "1\n2\n3\n")]), &bytes, &Options::default());
    }

    #[test]
    fn mutated_patches_never_panic_and_change_all_or_nothing(seed in any::<u64>()) {
        let mut dice = Dice::new(seed);
        let seeds: &[&str] = &[
            "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n 1\n-2\n+X\n 3\n",
            "diff --git a/f b/g\nsimilarity index 90%\nrename from f\nrename to g\nindex 1..2 100644\n--- a/f\n+++ b/g\n@@ -1,3 +1,3 @@\n 1\n-2\n+X\n 3\n\\ No newline at end of file\n",
            "diff --git \"a/q\\tr\" \"b/q\\tr\"\nnew file mode 100755\nindex 0..1\n--- /dev/null\n+++ \"b/q\\tr\"\n@@ -0,0 +1 @@\n+x\n",
            "diff --git a/b b/b\nindex 1..2 100644\nGIT binary patch\nliteral 10\nUcmV+l0QLU>0RjUA1qKHQ2>`DEE&u=k\n\ndelta 4\nLcmYdfNa6wj0#*Rd\n\n",
            "--- a/f\t1970-01-01 00:00:00 +0000\r\n+++ b/f\t2020-01-01\r\n@@ -1,3 +1,3 @@\r\n 1\r\n-2\r\n+X\r\n 3\r\n",
        ];
        let mut bytes = seeds[dice.roll(seeds.len())].as_bytes().to_vec();
        if dice.once_in(3) {
            bytes.extend_from_slice(seeds[dice.roll(seeds.len())].as_bytes());
        }
        for _ in 0..1 + dice.roll(4) {
            let at = dice.roll(bytes.len().max(1));
            match dice.roll(4) {
                0 if at < bytes.len() => bytes[at] = b"0129-+ @\\\n\r\t\"/ax\xff\0"[dice.roll(18)],
                1 => {
                    bytes.drain(at..(at + dice.roll(8)).min(bytes.len()));
                }
                2 => {
                    let from = dice.roll(bytes.len().max(1));
                    let piece = bytes[from..(from + dice.roll(20)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => bytes.insert(at, b"99999999999999999999"[dice.roll(20)]),
            }
        }
        for already_applied in [AlreadyApplied::Fail, AlreadyApplied::Skip] {
            let options = Options { already_applied, zero_context: ZeroContext::Allow, ..Options::default() };
            let _ = outcome(&Tree::of(&[("f", "1\n2\n3\n"), ("b", "")]), &bytes, &options);
        }
    }

    #[test]
    fn lines_are_cut_after_each_line_end(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..100)) {
        let text = Text::new(&bytes);
        let lines: Vec<&[u8]> = (0..text.count()).map(|at| text.line(at)).collect();
        prop_assert_eq!(lines, bytes.split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>());
    }
}
