//! Three-way merge of one file by git's own algorithm, conflicts marked as git marks them. Knows no patch
//! and no tree.
//!
//! git2's `merge_file` rather than diffy's: the same hunks, the same zealous reduction of conflicts and
//! the same markers as in `git rebase`, which users and their editors know.

use super::Entry;
use super::write::is_binary;

/// What came of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// Both changes are in it; nothing: the file goes.
    Clean(Option<Entry>),
    /// Somebody has to decide. What is to be laid before them, and why.
    Conflict(Option<Entry>, Why),
}

/// Why two changes of a file do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// They change the same lines; those are marked.
    Lines,
    /// The patch changes a file that is not there any more.
    GoneBelow,
    /// The patch deletes a file that was changed.
    ChangedBelow,
    /// There are no lines to merge: links, binary data, or a file and a link.
    NoLines,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lines => "both change the same lines, which are marked",
            Self::GoneBelow => {
                "the file that the patch changes is not there any more; the checkout has the patch's"
            }
            Self::ChangedBelow => {
                "the patch deletes the file, which has changed; the checkout has the new one"
            }
            Self::NoLines => "both change it, and it has no lines to merge; the checkout has the patch's",
        })
    }
}

/// The names of the two sides in the marks.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// The tree as it is now.
    pub ours: &'a str,
    /// The patch.
    pub theirs: &'a str,
}

/// Merges what a patch made of a file (`base` to `theirs`) with what became of it meanwhile (`ours`).
pub fn merge(
    base: Option<&Entry>,
    ours: Option<&Entry>,
    theirs: Option<&Entry>,
    labels: Labels<'_>,
) -> Merged {
    if ours == base {
        return Merged::Clean(theirs.cloned());
    }
    if theirs == base || ours == theirs {
        return Merged::Clean(ours.cloned());
    }
    let (old, our, their) = match (base, ours, theirs) {
        (_, None, theirs) => return Merged::Conflict(theirs.cloned(), Why::GoneBelow),
        (_, ours, None) => return Merged::Conflict(ours.cloned(), Why::ChangedBelow),
        (None, Some(ours), Some(theirs)) => (None, ours, theirs),
        (Some(base), Some(ours), Some(theirs)) => (Some(base), ours, theirs),
    };
    let (Some((ours, our_mode)), Some((theirs, their_mode))) = (text(our), text(their)) else {
        return Merged::Conflict(Some(their.clone()), Why::NoLines);
    };
    let (base, mode) = match old.map(text) {
        None => (&b""[..], None),
        Some(Some((base, mode))) => (base, Some(mode)),
        Some(None) => return Merged::Conflict(Some(their.clone()), Why::NoLines),
    };
    let executable = if mode == Some(their_mode) { our_mode } else { their_mode };
    match lines(base, ours, theirs, labels) {
        Some((content, true)) => Merged::Clean(Some(Entry::File { content, executable })),
        Some((content, false)) => Merged::Conflict(Some(Entry::File { content, executable }), Why::Lines),
        None => Merged::Conflict(Some(their.clone()), Why::NoLines),
    }
}

fn text(entry: &Entry) -> Option<(&[u8], bool)> {
    match entry {
        Entry::File { content, executable } if !is_binary(content) => Some((content, *executable)),
        _ => None,
    }
}

/// The merged lines, and whether there was no conflict.
fn lines(base: &[u8], ours: &[u8], theirs: &[u8], labels: Labels<'_>) -> Option<(Vec<u8>, bool)> {
    if ours == theirs {
        return Some((ours.to_vec(), true));
    }
    // Merging does not start the library by itself; hashing does.
    git2::Oid::hash_object(git2::ObjectType::Blob, b"").ok()?;
    let input = |bytes| {
        let mut input = git2::MergeFileInput::new();
        input.content(bytes);
        input
    };
    let mut options = git2::MergeFileOptions::new();
    let quiet = |text: &str| text.replace('\0', "");
    options.our_label(quiet(labels.ours)).their_label(quiet(labels.theirs)).style_standard(true);
    let (base, ours, theirs) = (input(base), input(ours), input(theirs));
    let merged = git2::merge_file(&base, &ours, &theirs, Some(&mut options)).ok()?;
    Some((merged.content().to_vec(), merged.is_automergeable()))
}

/// Whether a content has the marks of a conflict in it.
pub fn is_marked(content: &[u8]) -> bool {
    let mut lines = content.split(|byte| *byte == b'\n');
    lines.any(|line| line.starts_with(b"<<<<<<< ") || line.starts_with(b">>>>>>> "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: Labels<'_> = Labels { ours: "new", theirs: "the patch" };

    fn file(text: &str) -> Option<Entry> {
        Some(Entry::File { content: text.into(), executable: false })
    }

    #[test]
    fn changes_of_different_lines_go_together() {
        let merged = merge(
            file("1\n2\n3\n4\n5\n").as_ref(),
            file("0\n1\n2\n3\n4\n5\n").as_ref(),
            file("1\n2\n3\n4\nfive\n").as_ref(),
            LABELS,
        );
        assert_eq!(merged, Merged::Clean(file("0\n1\n2\n3\n4\nfive\n")));
    }

    #[test]
    fn the_same_lines_are_marked_as_git_does() {
        let merged = merge(
            file("1\n2\n3\n").as_ref(),
            file("1\nTWO\n3\n").as_ref(),
            file("1\nzwei\n3\n").as_ref(),
            LABELS,
        );
        let marked = "1\n<<<<<<< new\nTWO\n=======\nzwei\n>>>>>>> the patch\n3\n";
        assert_eq!(merged, Merged::Conflict(file(marked), Why::Lines));
        assert!(is_marked(marked.as_bytes()) && !is_marked(b"a\n=======\n"));
    }

    #[test]
    fn files_that_come_and_go() {
        let (old, new, other) = (file("1\n"), file("2\n"), file("3\n"));
        let merge = |base: &Option<Entry>, ours: &Option<Entry>, theirs: &Option<Entry>| {
            merge(base.as_ref(), ours.as_ref(), theirs.as_ref(), LABELS)
        };
        assert_eq!(merge(&old, &old, &None), Merged::Clean(None));
        assert_eq!(merge(&old, &None, &None), Merged::Clean(None));
        assert_eq!(merge(&None, &None, &new), Merged::Clean(new.clone()));
        assert_eq!(merge(&None, &new, &new), Merged::Clean(new.clone()));
        assert_eq!(merge(&old, &None, &new), Merged::Conflict(new.clone(), Why::GoneBelow));
        assert_eq!(merge(&old, &new, &None), Merged::Conflict(new.clone(), Why::ChangedBelow));
        let link = Some(Entry::Link(b"x".to_vec()));
        assert_eq!(merge(&old, &link, &other), Merged::Conflict(other.clone(), Why::NoLines));
        let run = Some(Entry::File { content: b"1\n".to_vec(), executable: true });
        let both = Some(Entry::File { content: b"2\n".to_vec(), executable: true });
        assert_eq!(merge(&old, &new, &run), Merged::Clean(both));
    }
}
