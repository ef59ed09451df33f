//! Images and the script that imports them as one file, for machines that nobody reaches: the same names and
//! pins as by a connection. Knows no host.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use super::archive::Archive;
use super::script::{COMMON, STAGING};
use super::state::{PINNED, fixed_names};
use super::token;
use crate::digest::{Blob, Digest, Hasher};
use crate::error::{At, Result};
use crate::host::fs;
use crate::host::node::{Image, Variant};
use crate::recipe::{Content, HashSink, Part, Sink};

/// What the script does once it knows where in itself the archives are.
const SCRIPT: &str = r#"
[ $# -gt 0 ] || set -- ctr
cmd="\"$1\""
shift
for word; do cmd="$cmd '$word'"; done
cmd="$cmd -n k8s.io"
say() { echo "$0: $1" >&2; }
[ -n "$size" ] || { say "there are no images for $machine in it"; exit 1; }
sum=$(tail -c "+$at" "$0" | head -c "$size" | sha256sum)
[ "${sum%% *}" = "$digest" ] || { say "it is damaged"; exit 1; }
s=$(snapshotter)
version=$(c --version) || { say "there is no ctr: give it as an argument"; exit 1; }
version=${version##* }
# A run that delivers to this machine meanwhile has staging names, too.
if [ -r /run/containerd ] && command -v flock >/dev/null; then
  exec 9</run/containerd
  flock -w 3600 9 || { say "somebody else is changing images for an hour"; exit 1; }
fi
trap unstage EXIT
unstage
tail -c "+$at" "$0" | head -c "$size" | c images import --snapshotter "$s" - >/dev/null || { say "containerd took it not"; exit 1; }
label=
case $version in 1.*|v1.*) ;; *) label=PINNED=pinned ;; esac
tail -c "+$fixed_at" "$0" | head -c "$fixed_size" | c images import --snapshotter "$s" ${label:+--label "$label"} - >/dev/null || exit 1
[ -n "$label" ] || for n in $fixed; do c images label "$n" PINNED=pinned >/dev/null || exit 1; done
if [ "$tags_size" -gt 0 ]; then
  tail -c "+$tags_at" "$0" | head -c "$tags_size" | c images import --snapshotter "$s" - >/dev/null || exit 1
fi
exit 0
"#;

/// The archives for one platform: all content under staging names, names that never move, declared names.
struct Bundled<'a> {
    platform: String,
    archives: [Archive<'a>; 3],
    tags: bool,
    fixed: Vec<String>,
    digest: Digest,
}

/// A platform with its images and all that they are made of.
type Gathered<'a> = (String, Vec<(&'a Image, &'a Variant)>, Vec<(Blob, Part)>);

/// Writes the file; returns its size. `parts` is where content comes from, by SHA-256.
pub fn write(
    images: &[Image],
    parts: &BTreeMap<Digest, Part>,
    content: &dyn Content,
    to: &Path,
) -> Result<u64> {
    let platforms: BTreeSet<&str> =
        images.iter().flat_map(|image| &image.variants).map(|variant| variant.platform.as_str()).collect();
    let mut all: Vec<Gathered<'_>> = Vec::new();
    for platform in platforms {
        let mut chosen = Vec::new();
        for image in images {
            let variant = image.variants.iter().find(|variant| variant.platform == platform);
            chosen.extend(variant.map(|variant| (image, variant)));
        }
        let mut blobs: Vec<(Blob, Part)> = Vec::new();
        for (_, variant) in &chosen {
            let layers = variant.layers.iter().map(|layer| layer.blob);
            let top = crate::host::index::blob(&variant.descriptor)?;
            for blob in layers.chain([variant.config, top]) {
                let Some(part) = parts.get(&blob.digest) else {
                    panic!("BUG: what only probes is to be bundled")
                };
                if blobs.iter().all(|(known, _)| known.digest != blob.digest) {
                    blobs.push((blob, part.clone()));
                }
            }
        }
        all.push((platform.to_string(), chosen, blobs));
    }
    let token = token();
    let mut platforms = Vec::new();
    for (platform, chosen, blobs) in &all {
        let numbered = chosen.iter().enumerate();
        let staged: Vec<_> = numbered
            .map(|(number, (_, variant))| (format!("{STAGING}{token}-{number}"), &variant.descriptor))
            .collect();
        let mut fixed = Vec::new();
        let mut declared = Vec::new();
        for (image, variant) in chosen {
            for tag in &image.content_tags {
                fixed.extend(fixed_names(tag, variant).map(|name| (name, &variant.descriptor)));
            }
            declared.extend(image.tags.iter().map(|tag| (tag.clone(), &variant.descriptor)));
        }
        let archives =
            [Archive::new(blobs, &staged), Archive::of_names(&fixed), Archive::of_names(&declared)];
        let mut hash = HashSink(Hasher::sha256());
        archives[0].send(content, &mut hash)?;
        platforms.push(Bundled {
            platform: platform.clone(),
            archives,
            tags: !declared.is_empty(),
            fixed: fixed.into_iter().map(|(name, _)| name).collect(),
            digest: hash.0.finish(),
        });
    }
    let (mut head, mut length) = (String::new(), 0);
    // The offsets are part of the text before them.
    while head.len() != length || head.is_empty() {
        length = head.len();
        head = text(&platforms, length as u64);
    }
    let file = fs::temporary(to.parent().unwrap_or(Path::new(".")))?;
    let mut sink = Out { file: file.as_file(), to, size: 0 };
    sink.bytes(head.as_bytes())?;
    for one in &platforms {
        for archive in &one.archives {
            archive.send(content, &mut sink)?;
        }
    }
    let size = sink.size;
    fs::set_mode(file.path(), 0o755)?;
    file.persist(to).map_err(|error| error.error).at("write", to)?;
    Ok(size)
}

/// The script, if it is so long.
fn text(platforms: &[Bundled<'_>], length: u64) -> String {
    let mut out = "#!/bin/sh\n# Images for containerd, by vcbuild. As root: sh FILE [CTR [ARGUMENT...]]\n"
        .to_string();
    out.push_str("machine=$(uname -m)\nsize=\ncase $machine in\n");
    let mut at = length + 1;
    for one in platforms {
        let machines = match one.platform.as_str() {
            "linux/amd64" => "x86_64",
            "linux/arm64" | "linux/arm64/v8" => "aarch64",
            "linux/386" => "i386|i686",
            "linux/arm/v7" => "armv7l",
            "linux/arm/v6" => "armv6l",
            other => other.trim_start_matches("linux/"),
        };
        let sizes: Vec<u64> = one.archives.iter().map(Archive::size).collect();
        let tags = if one.tags { sizes[2] } else { 0 };
        out.push_str(&format!(
            "{machines}) at={at} size={} digest={} fixed_at={} fixed_size={} tags_at={} tags_size={tags} fixed=\"{}\" ;;\n",
            sizes[0],
            one.digest.hex(),
            at + sizes[0],
            sizes[1],
            at + sizes[0] + sizes[1],
            one.fixed.join(" "),
        ));
        at += sizes.iter().sum::<u64>();
    }
    out.push_str("esac\n");
    out.push_str(COMMON);
    out.push_str(&SCRIPT.replace("PINNED", PINNED));
    out
}

/// Writes and counts.
struct Out<'a> {
    file: &'a std::fs::File,
    to: &'a Path,
    size: u64,
}

impl Sink for Out<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at("write", self.to)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}
