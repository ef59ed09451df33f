//! What an image's layers make together: one tree, with links followed as in a running container
//! (image-spec "Applying Changesets"). Holds names and attributes, no content. Knows no tar.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::oci::contents::{Item, Kind};
use crate::oci::tar::Attributes;

/// Links that are followed on the way to one path, at most, as on Linux.
const MOST_LINKS: usize = 40;

/// The root file system of an image.
#[derive(Default)]
pub struct Root {
    nodes: BTreeMap<Box<[u8]>, Node>,
    layer: u32,
    bytes: usize,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Which layer it comes from, from 0.
    pub layer: u32,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A file of so many bytes.
    File(u64),
    /// A folder.
    Folder,
    /// A symbolic link.
    Link(Box<[u8]>),
    /// A pipe or device.
    Special,
}

impl Root {
    /// An image without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends a layer: what comes now is of the next one.
    pub fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How many bytes all names had that were ever there.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an entry of the current layer.
    pub fn add(&mut self, item: &Item) {
        let Some(path) = self.place(&item.path) else { return };
        let kind = match &item.kind {
            Kind::Removed => {
                if self.nodes.get(&path[..]).is_some_and(|node| node.layer < self.layer) {
                    self.nodes.remove(&path[..]);
                }
                return self.empty(&path);
            }
            Kind::Emptied => return self.empty(&path),
            Kind::Same(target) => {
                let Some(target) = self.place(target) else { return };
                let Some(node) = self.nodes.get(&target[..]).cloned() else { return };
                return self.insert(&path, Node { layer: self.layer, ..node });
            }
            Kind::File => NodeKind::File(item.size),
            Kind::Folder => NodeKind::Folder,
            Kind::Link(target) => NodeKind::Link(target.as_slice().into()),
            Kind::Special => NodeKind::Special,
        };
        if kind != NodeKind::Folder {
            self.clear_below(&path, u32::MAX);
        }
        self.make_parents(&path);
        let Attributes { mode, uid, gid, .. } = item.attributes;
        let (mode, uid, gid) = (mode as u16, uid as u32, gid as u32);
        self.insert(&path, Node { kind, mode, uid, gid, layer: self.layer });
    }

    /// What a program finds at a path, links followed, and where that is.
    pub fn find(&self, path: &[u8]) -> Option<(Vec<u8>, &Node)> {
        let path = self.resolve(path, true)?;
        let node = self.nodes.get(&path[..])?;
        Some((path, node))
    }

    /// All paths and what is there, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(path, node)| (&path[..], node))
    }

    /// Where an entry goes: its folder with links followed, and its own name.
    fn place(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.resolve(path, false)
    }

    fn resolve(&self, path: &[u8], last: bool) -> Option<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec).collect();
        let (mut at, mut links) = (Vec::new(), 0);
        while let Some(name) = names.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    let end = at.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                    at.truncate(end);
                    continue;
                }
                _ => {}
            }
            let parent = at.len();
            if parent > 0 {
                at.push(b'/');
            }
            at.extend_from_slice(&name);
            let is_last = names.iter().all(|name| name.is_empty() || name == b".");
            let Some(Node { kind: NodeKind::Link(target), .. }) = self.nodes.get(&at[..]) else { continue };
            if is_last && !last {
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return None;
            }
            at.truncate(if target.starts_with(b"/") { 0 } else { parent });
            names.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
        }
        Some(at)
    }

    fn insert(&mut self, path: &[u8], node: Node) {
        self.bytes += path.len();
        if let NodeKind::Link(target) = &node.kind {
            self.bytes += target.len();
        }
        self.nodes.insert(path.into(), node);
    }

    /// Takes away what lower layers have in a folder.
    fn empty(&mut self, path: &[u8]) {
        self.clear_below(path, self.layer);
    }

    fn clear_below(&mut self, path: &[u8], before: u32) {
        let start = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let range = (Bound::Excluded(start.clone().into_boxed_slice()), Bound::Unbounded);
        let below =
            self.nodes.range::<Box<[u8]>, _>(range).take_while(|(path, _)| path.starts_with(&start));
        let gone = below.filter(|(_, node)| node.layer < before).map(|(path, _)| path.clone());
        for path in gone.collect::<Vec<_>>() {
            self.nodes.remove(&path);
        }
    }

    /// Folders that no layer says are made as they are needed.
    fn make_parents(&mut self, path: &[u8]) {
        for (end, _) in path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/') {
            match self.nodes.get(&path[..end]) {
                Some(Node { kind: NodeKind::Folder, .. }) => return,
                _ => {
                    let kind = NodeKind::Folder;
                    let node = Node { kind, mode: 0o755, uid: 0, gid: 0, layer: self.layer };
                    self.insert(&path[..end], node);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, kind: Kind) -> Item {
        let attributes = Attributes { mode: 0o644, uid: 1, gid: 2, mtime: 0 };
        Item { path: path.into(), kind, attributes, xattrs: Default::default(), size: 3, kept: None }
    }

    fn root(layers: &[Vec<Item>]) -> Root {
        let mut root = Root::new();
        for layer in layers {
            layer.iter().for_each(|item| root.add(item));
            root.next_layer();
        }
        root
    }

    fn file(path: &str) -> Item {
        item(path, Kind::File)
    }

    fn link(path: &str, target: &str) -> Item {
        item(path, Kind::Link(target.into()))
    }

    fn paths(root: &Root) -> Vec<String> {
        root.iter()
            .map(|(path, node)| format!("{} {}", String::from_utf8_lossy(path), node.layer))
            .collect()
    }

    #[test]
    fn upper_layers_add_replace_and_take_away() {
        let lower = vec![file("a/b/c"), file("a/b-"), file("d"), file("e/f"), file("g/h"), file("g/i")];
        let upper = vec![
            file("g/new"),
            item("a/b", Kind::Removed),
            file("d/now-a-folder"),
            file("e"),
            item("g", Kind::Emptied),
        ];
        assert_eq!(
            paths(&root(&[lower.clone(), upper])),
            ["a 0", "a/b- 0", "d 1", "d/now-a-folder 1", "e 1", "g 0", "g/new 1"]
        );
        let all = root(&[lower, vec![item("", Kind::Emptied), file("x")]]);
        assert_eq!(paths(&all), ["x 1"]);
    }

    #[test]
    fn links_are_followed_within_the_image() {
        let root = root(&[
            vec![
                link("lib", "usr/lib"),
                link("lib64", "/usr/lib"),
                item("usr/lib", Kind::Folder),
                link("usr/lib/ld.so", "../../lib/x/ld-2.so"),
                file("usr/lib/x/ld-2.so"),
                link("up", "../../../usr"),
                link("loop", "./loop"),
                link("one", "two"),
                link("two", "one"),
                item("hard", Kind::Same("usr/lib/x/ld-2.so".into())),
            ],
            vec![file("lib/new"), item("lib64/x/ld-2.so", Kind::Folder)],
        ]);
        let at = |path: &[u8]| root.nodes[&root.place(path).unwrap()[..]].clone();
        assert_eq!(root.find(b"/lib64/new").unwrap().0, b"usr/lib/new");
        assert_eq!(root.find(b"up/lib/new").unwrap().0, b"usr/lib/new");
        assert_eq!(root.find(b"/lib64/ld.so").unwrap().1.kind, NodeKind::Folder);
        assert_eq!(at(b"lib64/ld.so").kind, NodeKind::Link(b"../../lib/x/ld-2.so"[..].into()));
        assert_eq!(at(b"hard").kind, NodeKind::File(3));
        for lost in ["loop", "one", "loop/x", "nowhere", "usr/lib/new/x/.."] {
            let found = root.find(lost.as_bytes());
            assert!(found.is_none() || lost.ends_with(".."), "{lost}");
        }
        assert_eq!(at(b"lib").layer, 0);
    }
}
