//! What containerd has, read from what `ctr` lists, and what that means for an image. Knows no connection.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{Blob, Digest};
use crate::host::index;
use crate::host::node::{Image, Standing, Variant};

/// What kubelet's garbage collection leaves alone.
pub const PINNED: &str = "io.cri-containerd.pinned";

/// What containerd has.
#[derive(Debug, Default)]
pub struct State {
    /// Content, with labels.
    content: BTreeMap<String, Labels>,
    /// Committed snapshots, with their parents.
    snapshots: BTreeMap<String, Option<String>>,
    /// Names, with what they are given to, and labels.
    names: BTreeMap<String, (String, Labels)>,
}

type Labels = BTreeMap<String, String>;

/// Which list a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Of blobs.
    Content,
    /// Of what was unpacked.
    Snapshots,
    /// Of names.
    Images,
}

impl State {
    /// Takes a line of a list; headings are left out.
    pub fn take(&mut self, list: List, line: &str) {
        match list {
            List::Content => {
                // Padding changes with the age: runs of tabs are one.
                let fields: Vec<&str> =
                    line.split('\t').map(str::trim).filter(|field| !field.is_empty()).collect();
                if let [digest, .., labels] = fields.as_slice()
                    && digest.starts_with("sha256:")
                {
                    self.content.insert((*digest).to_string(), read_labels(labels));
                }
            }
            List::Snapshots => {
                let fields: Vec<&str> = line.split_whitespace().collect();
                match fields.as_slice() {
                    [key, "Committed"] => self.snapshots.insert((*key).to_string(), None),
                    [key, parent, "Committed"] => {
                        self.snapshots.insert((*key).to_string(), Some((*parent).to_string()))
                    }
                    _ => None,
                };
            }
            List::Images => {
                let fields: Vec<&str> = line.split_whitespace().collect();
                if let [name, _, digest, .., labels] = fields.as_slice()
                    && digest.starts_with("sha256:")
                {
                    let given = ((*digest).to_string(), read_labels(labels));
                    self.names.insert((*name).to_string(), given);
                }
            }
        }
    }

    fn has(&self, digest: &Digest) -> bool {
        self.content.contains_key(&digest.to_string())
    }

    /// The blobs that are there.
    pub fn held(&self) -> BTreeSet<Digest> {
        self.content.keys().filter_map(|digest| digest.parse().ok()).collect()
    }

    /// Whether what all layers up to this one become is there.
    fn is_unpacked(&self, variant: &Variant, layer: usize) -> bool {
        let mut parent: Option<String> = None;
        variant.layers[..=layer].iter().all(|layer| {
            let name = layer.becomes.to_string();
            let found = self.snapshots.get(&name) == Some(&parent);
            parent = Some(name);
            found
        })
    }

    /// The blobs of a variant that must be sent, layers first.
    pub fn missing(&self, variant: &Variant) -> Vec<Blob> {
        let first = (0..variant.layers.len()).rev().find(|layer| self.is_unpacked(variant, *layer));
        let above = &variant.layers[first.map_or(0, |layer| layer + 1)..];
        let layers = above.iter().map(|layer| layer.blob);
        let top = index::blob(&variant.descriptor).ok();
        let all = layers.chain([variant.config]).chain(top);
        let mut known = BTreeSet::new();
        all.filter(|blob| !self.has(&blob.digest) && known.insert(blob.digest)).collect()
    }

    /// Whether a variant is whole and unpacked, and held together by labels: it cannot be collected as
    /// long as it has a name.
    pub fn is_complete(&self, variant: &Variant, snapshotter: &str) -> bool {
        let label = |digest: &str, name: &str| {
            self.content.get(digest).and_then(|labels| labels.get(name)).cloned()
        };
        let top = variant.descriptor["digest"].as_str().unwrap_or_default();
        let config = variant.config.digest.to_string();
        let (Some(last), true) = (variant.layers.last(), self.missing(variant).is_empty()) else {
            return variant.layers.is_empty() && self.missing(variant).is_empty();
        };
        self.is_unpacked(variant, variant.layers.len() - 1)
            && label(top, "containerd.io/gc.ref.content.config").as_ref() == Some(&config)
            && label(&config, &format!("containerd.io/gc.ref.snapshot.{snapshotter}"))
                == Some(last.becomes.to_string())
    }

    /// Whether a name is given to a variant.
    pub fn is_named(&self, name: &str, variant: &Variant) -> bool {
        self.names.get(name).is_some_and(|(digest, _)| variant.descriptor["digest"] == digest.as_str())
    }

    /// Whether a name is given to a variant and pinned.
    pub fn is_pinned(&self, name: &str, variant: &Variant) -> bool {
        let pinned =
            |(_, labels): &(String, Labels)| labels.get(PINNED).is_some_and(|value| value == "pinned");
        self.is_named(name, variant) && self.names.get(name).is_some_and(pinned)
    }

    /// What there is of an image, of which this host needs that variant.
    pub fn standing(&self, image: &Image, variant: &Variant, snapshotter: &str) -> Standing {
        let missing = self.missing(variant);
        let complete = self.is_complete(variant, snapshotter);
        let lacks = |tag: &&String| {
            let fixed = fixed_names(tag, variant);
            !complete || !fixed.iter().all(|name| self.is_pinned(name, variant))
        };
        let mut names: BTreeSet<String> = image.content_tags.iter().filter(lacks).cloned().collect();
        names.extend(image.tags.iter().filter(|tag| !self.is_named(tag, variant)).cloned());
        Standing { missing, names }
    }
}

/// The names that go with a content tag: itself, and its repository with the digest of what it is given
/// to, by which containers are told to be of exactly these bytes.
pub fn fixed_names(tag: &str, variant: &Variant) -> [String; 2] {
    let repository = tag.rsplit_once(':').map_or(tag, |(repository, _)| repository);
    [tag.to_string(), format!("{repository}@{}", variant.descriptor["digest"].as_str().unwrap_or_default())]
}

fn read_labels(text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::host::node::Layer;

    fn digest(n: u8) -> Digest {
        Digest::sha256_of(&[n])
    }

    fn variant() -> Variant {
        let layer = |n: u8| Layer {
            blob: Blob { digest: digest(n), size: u64::from(n) },
            becomes: digest(100 + n),
            media: String::new(),
        };
        Variant {
            platform: "linux/amd64".into(),
            descriptor: json!({ "digest": digest(1), "size": 1 }),
            config: Blob { digest: digest(2), size: 2 },
            layers: vec![layer(3), layer(4)],
        }
    }

    fn sizes(state: &State) -> Vec<u64> {
        state.missing(&variant()).iter().map(|blob| blob.size).collect()
    }

    #[test]
    fn what_was_unpacked_needs_no_blobs() {
        let mut state = State::default();
        assert_eq!(sizes(&state), [3, 4, 2, 1]);
        state.take(List::Snapshots, "KEY PARENT KIND");
        state.take(List::Snapshots, &format!("{}          Committed", digest(103)));
        assert_eq!(sizes(&state), [4, 2, 1]);
        state.take(List::Snapshots, &format!("{} {} Active", digest(104), digest(103)));
        assert_eq!(sizes(&state), [4, 2, 1]);
        state.take(List::Snapshots, &format!("{} {} Committed", digest(104), digest(103)));
        assert_eq!(sizes(&state), [2, 1]);
        state.take(List::Content, "DIGEST\t\t\tSIZE\tAGE\tLABELS");
        let labels = format!(
            "containerd.io/gc.ref.content.config={},containerd.io/distribution.source.x=a,b",
            digest(2)
        );
        state.take(List::Content, &format!("{}\t1.1 kB\t\t2 seconds\t\t{labels}", digest(1)));
        assert_eq!(sizes(&state), [2]);
        state.take(List::Content, &format!("{}\t2 B\t10 minutes\t-", digest(2)));
        assert_eq!(sizes(&state), Vec::<u64>::new());
        assert!(!state.is_complete(&variant(), "overlayfs"));
        let labels = format!("containerd.io/gc.ref.snapshot.overlayfs={}", digest(104));
        state.take(List::Content, &format!("{}\t2 B\t10 minutes\t{labels}", digest(2)));
        assert!(state.is_complete(&variant(), "overlayfs"));
        assert!(!state.is_complete(&variant(), "native"));
    }

    #[test]
    fn a_snapshot_on_another_parent_does_not_count() {
        let mut state = State::default();
        state.take(List::Snapshots, &format!("{} Committed", digest(103)));
        state.take(List::Snapshots, &format!("{} {} Committed", digest(104), digest(9)));
        assert_eq!(sizes(&state), [4, 2, 1]);
    }

    #[test]
    fn names_are_pinned_or_not() {
        let mut state = State::default();
        let row = |name: &str, n: u8, labels: &str| {
            format!(
                "{name}  application/vnd.oci.image.manifest.v1+json {} 35.9 MiB linux/amd64 {labels}",
                digest(n)
            )
        };
        let [tag, by_digest] = fixed_names("docker.io/a/b:vc-1", &variant());
        assert_eq!(by_digest, format!("docker.io/a/b@{}", digest(1)));
        let image =
            Image { content_tags: vec![tag.clone()], tags: vec!["x.y/z:1".into()], ..Image::default() };
        let names = |state: &State| {
            state.names.keys().filter(|name| state.is_pinned(name, &variant())).cloned().collect::<Vec<_>>()
        };
        state.take(List::Images, "REF TYPE DIGEST SIZE PLATFORMS LABELS");
        state.take(List::Images, &row(&tag, 1, "io.cri-containerd.image=managed"));
        assert_eq!(names(&state), Vec::<String>::new());
        state.take(
            List::Images,
            &row(&tag, 1, "io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned"),
        );
        state.take(List::Images, &row(&by_digest, 1, "io.cri-containerd.pinned=pinned"));
        state.take(List::Images, &row("x.y/z:1", 7, "-"));
        assert_eq!(names(&state), [tag.clone(), by_digest]);
        let standing = state.standing(&image, &variant(), "overlayfs");
        assert_eq!(standing.names, BTreeSet::from([tag, "x.y/z:1".to_string()]));
    }
}
