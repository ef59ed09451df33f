//! The names of images in containerd, for people to look at. Knows nothing of what is wanted.

use super::state::PINNED;
use super::{Containerd, command};
use crate::host::node::Trouble;
use crate::host::ssh::Talk;

/// Arguments: the command `ctr` quoted for `sh`, and filters.
const SCRIPT: &str = r#"
cmd=$1
shift
c() { eval "$cmd \"\$@\""; }
c --version >/dev/null || { echo "fail ctr"; exit 1; }
c images ls "$@" || { echo "fail list"; exit 1; }
"#;

/// A name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// As it is.
    pub name: String,
    /// What it is given to.
    pub digest: String,
    /// How large that is, in words.
    pub size: String,
    /// Whether it has the label that keeps kubelet from collecting it.
    pub pinned: bool,
}

impl Containerd<'_> {
    /// All content tags, whoever made them, and these names if they are there; in the order of names.
    pub fn names(&self, declared: &[String]) -> Result<Vec<Name>, Trouble> {
        let command = command(self.address, "10s");
        let mut filters = vec![r#"name~=":vc-[0-9a-f]{16}$""#.to_string()];
        filters.extend(declared.iter().map(|name| format!("name==\"{name}\"")));
        let mut argv = vec!["sh", "-c", SCRIPT, "vcbuild", command.as_str()];
        argv.extend(filters.iter().map(String::as_str));
        let mut talk = Talk::start(self.link, &argv, self.who, self.watch)?;
        let mut text = Vec::new();
        talk.stream(&mut text)?;
        let ended = talk.finish()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if ended.status != 0 {
            let step = text.lines().find_map(|line| line.strip_prefix("fail ")).unwrap_or("list");
            // It is not asked twice: what was cut is what it has.
            return Err(match self.explain(step, &ended.said) {
                Trouble::Cut(failure) => failure.into(),
                other => other,
            });
        }
        let mut names: Vec<Name> = text.lines().filter_map(read).collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }
}

/// Reads a row; headings are none.
fn read(line: &str) -> Option<Name> {
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [name, _, digest, number, unit, .., labels] if digest.starts_with("sha256:") => Some(Name {
            name: (*name).to_string(),
            digest: (*digest).to_string(),
            size: format!("{number} {unit}"),
            pinned: labels.split(',').any(|label| label == format!("{PINNED}=pinned")),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        assert_eq!(read("REF TYPE DIGEST SIZE PLATFORMS LABELS"), None);
        let row = |labels: &str| {
            read(&format!(
                "a.b/c:vc-1  application/x  sha256:12  35.9 MiB linux/amd64,linux/arm64 {labels}"
            ))
            .unwrap()
        };
        let name = row("io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned");
        assert_eq!((name.name.as_str(), name.size.as_str(), name.pinned), ("a.b/c:vc-1", "35.9 MiB", true));
        assert!(!row("io.cri-containerd.pinned=").pinned);
        assert!(!row("-").pinned);
    }
}
