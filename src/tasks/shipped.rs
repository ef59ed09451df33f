//! An image as it is shipped: its names, its descriptor and its blobs, read from the layout that is the
//! value of an image task. Knows no host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::cas::Cas;
use crate::digest::{Blob, Digest};
use crate::error::{Failure, Result};
use crate::host::index;
use crate::host::node::{Image, Layer, Variant};
use crate::oci::reference::content_tag;
use crate::recipe::{Part, Recipe};
use crate::work::{Inputs, TaskName};

/// The longest index, manifest or config that is read, in bytes.
const LONGEST: u64 = 16 << 20;
/// Indexes within indexes, at most.
const DEEPEST: usize = 4;

/// An image with where its content comes from, by SHA-256.
pub struct Shipped {
    /// The image.
    pub image: Image,
    /// Its content, and that of documents about it.
    pub parts: BTreeMap<Digest, Part>,
    /// Documents about it.
    pub about: Vec<About>,
}

/// A document about an image, as plain data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The manifest that it is about.
    pub subject: Digest,
    /// Its own manifest.
    pub manifest: Blob,
    /// What lists say of that.
    pub descriptor: Value,
    /// Its blobs.
    pub blobs: Vec<Blob>,
}

/// What an image task that is done gave, to be shipped from a project with this name.
pub fn of(task: &TaskName, project: &str, inputs: &Inputs<'_>) -> Result<Shipped> {
    let fallback = fallback_repository(project, task);
    read(&inputs.session.cache.cas, &inputs.value(task), &fallback)
        .map_err(|error| error.context(format_args!("`{task}`")))
}

/// Reads the value of an image task; `fallback` is the repository of an image without tags.
pub fn read(cas: &Cas, value: &Digest, fallback: &str) -> Result<Shipped> {
    let layout = Layout { cas, value };
    let index = layout.json("index.json")?;
    let (mut top, mut tags): (Option<Value>, Vec<String>) = (None, Vec::new());
    let (mut found, mut about) = (Found::default(), Vec::new());
    for entry in entries(&index, "manifests") {
        if entry.get("artifactType").is_some() {
            about.push(layout.about(entry, &mut found.parts)?);
            continue;
        }
        let plain = index::without_name(entry);
        if top.as_ref().is_some_and(|top| *top != plain) {
            return Err(Failure::new("the layout has several images").into());
        }
        top = Some(plain);
        tags.extend(index::name_of(entry).map(str::to_string).filter(|name| !tags.contains(name)));
    }
    let Some(descriptor) = top else { return Err(Failure::new("the layout has no image").into()) };
    let manifest = index::blob(&descriptor)?.digest;
    let mut repositories: Vec<&str> = Vec::new();
    for name in tags.iter().map(|tag| repository(tag)) {
        if !repositories.contains(&name) {
            repositories.push(name);
        }
    }
    if repositories.is_empty() {
        repositories.push(fallback);
    }
    let content_tags = repositories.into_iter().map(|name| content_tag(name, &manifest)).collect();
    layout.collect(&descriptor, 0, &mut found)?;
    let blobs = found.layers.into_iter().chain(found.configs).chain(found.manifests).collect();
    let image = Image { content_tags, tags, descriptor, blobs, variants: found.variants };
    Ok(Shipped { image, parts: found.parts, about })
}

/// The repository of an image without tags.
pub fn fallback_repository(project: &str, task: &TaskName) -> String {
    let instance = task.0.split_once('[').map_or("", |(_, rest)| rest.trim_end_matches(']'));
    let name = match instance {
        "" => task.bare().to_string(),
        _ => format!("{}-{instance}", task.bare()),
    };
    format!("vcbuild.local/{}/{}", component(project), component(&name))
}

/// A text as a component of a repository's name. What has to be changed for that gets some digits of
/// its digest, so that two texts never become one name.
fn component(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let words: Vec<&str> = text.split(['-', '.', '_']).collect();
    if words.iter().all(|word| !word.is_empty() && word.chars().all(is_plain)) {
        return text.to_string();
    }
    let mut plain = String::new();
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            c if is_plain(c) => plain.push(c),
            _ if plain.is_empty() || plain.ends_with('-') => {}
            _ => plain.push('-'),
        }
    }
    let digits = &Digest::of(text.as_bytes()).hex()[..8];
    format!("{}-{digits}", plain.trim_end_matches('-')).trim_start_matches('-').to_string()
}

/// A name without its tag.
pub fn repository(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

fn entries<'a>(document: &'a Value, list: &str) -> &'a [Value] {
    document.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[derive(Default)]
struct Found {
    layers: Vec<Blob>,
    configs: Vec<Blob>,
    manifests: Vec<Blob>,
    variants: Vec<Variant>,
    parts: BTreeMap<Digest, Part>,
}

/// A layout as a tree.
struct Layout<'a> {
    cas: &'a Cas,
    value: &'a Digest,
}

impl Layout<'_> {
    fn part(&self, path: &str) -> Result<(Part, u64)> {
        let entry = self.cas.entry(self.value, path)?;
        match entry.and_then(|entry| Some((entry.part()?, entry.size()?))) {
            Some(found) => Ok(found),
            None => Err(Failure::new(format!("the layout has no `{path}`")).into()),
        }
    }

    fn json(&self, path: &str) -> Result<Value> {
        let (part, size) = self.part(path)?;
        if size > LONGEST {
            return Err(Failure::new(format!("`{path}` has more than {LONGEST} bytes")).into());
        }
        let (mut recipe, mut bytes) = (Recipe::new(), Vec::new());
        recipe.push(&part);
        recipe.send(self.cas, &mut bytes)?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::new(format!("`{path}`: {error}")).into())
    }

    /// A document about an image.
    fn about(&self, descriptor: &Value, parts: &mut BTreeMap<Digest, Part>) -> Result<About> {
        let manifest = index::blob(descriptor)?;
        let document = self.json(&format!("blobs/sha256/{}", manifest.digest.hex()))?;
        let blobs = entries(&document, "layers").iter().chain(document.get("config"));
        let blobs = blobs.map(index::blob).collect::<Result<Vec<_>>>()?;
        for blob in blobs.iter().chain([&manifest]) {
            self.take(blob, parts)?;
        }
        let subject = index::blob(&document["subject"])?.digest;
        Ok(About { subject, manifest, descriptor: descriptor.clone(), blobs })
    }

    /// Takes a descriptor's blob; false if it is there already.
    fn take(&self, blob: &Blob, parts: &mut BTreeMap<Digest, Part>) -> Result<bool> {
        let path = format!("blobs/sha256/{}", blob.digest.hex());
        let (part, size) = self.part(&path)?;
        if size != blob.size {
            let message = format!("`{path}` has {size} bytes, not {}", blob.size);
            return Err(Failure::new(message).into());
        }
        Ok(parts.insert(blob.digest, part).is_none())
    }

    /// What an image is on hosts of one platform.
    fn variant(&self, descriptor: &Value, manifest: &Value, config: Blob) -> Result<Variant> {
        let said = self.json(&format!("blobs/sha256/{}", config.digest.hex()))?;
        let text = |name: &str| said.get(name).and_then(Value::as_str);
        let parts = [text("os"), text("architecture"), text("variant")];
        let platform = parts.into_iter().flatten().collect::<Vec<_>>().join("/");
        let diffs: Vec<Digest> = entries(&said["rootfs"], "diff_ids")
            .iter()
            .filter_map(|diff| diff.as_str()?.parse().ok())
            .collect();
        let layers = entries(manifest, "layers");
        if diffs.len() != layers.len() {
            let message =
                format!("the image has {} layers, but its config names {}", layers.len(), diffs.len());
            return Err(Failure::new(message).into());
        }
        let mut below: Option<Digest> = None;
        let mut found = Vec::new();
        for (layer, diff) in layers.iter().zip(diffs) {
            let becomes = match below {
                None => diff,
                Some(below) => Digest::sha256_of(format!("{below} {diff}").as_bytes()),
            };
            below = Some(becomes);
            let media = layer["mediaType"].as_str().unwrap_or_default().to_string();
            found.push(Layer { blob: index::blob(layer)?, becomes, media });
        }
        Ok(Variant { platform, descriptor: descriptor.clone(), config, layers: found })
    }

    /// Takes all that a descriptor leads to.
    fn collect(&self, descriptor: &Value, depth: usize, found: &mut Found) -> Result<()> {
        if depth > DEEPEST {
            return Err(Failure::new("the layout has indexes within indexes").into());
        }
        let blob = index::blob(descriptor)?;
        let document = self.json(&format!("blobs/sha256/{}", blob.digest.hex()))?;
        for inner in entries(&document, "manifests") {
            self.collect(inner, depth + 1, found)?;
        }
        for layer in entries(&document, "layers") {
            let layer = index::blob(layer)?;
            if self.take(&layer, &mut found.parts)? {
                found.layers.push(layer);
            }
        }
        if let Some(config) = document.get("config") {
            let config = index::blob(config)?;
            if self.take(&config, &mut found.parts)? {
                found.configs.push(config);
            }
            found.variants.push(self.variant(descriptor, &document, config)?);
        }
        if self.take(&blob, &mut found.parts)? {
            found.manifests.push(blob);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn images_without_tags_have_a_repository() {
        for (task, repository) in [
            ("image.hello", "vcbuild.local/my-project/hello"),
            ("image.component[vn-agent]", "vcbuild.local/my-project/component-vn-agent"),
            ("image.c[1.2_3]", "vcbuild.local/my-project/c-1.2_3"),
        ] {
            assert_eq!(fallback_repository("my-project", &TaskName(task.into())), repository);
        }
        let odd =
            ["image.c[A]", "image.c[a]", "image.c[arch=a,os=b]", "image.c[arch=a-os=b]", "image.c[+]"];
        let all: BTreeSet<String> =
            odd.iter().map(|task| fallback_repository("P Q", &TaskName((*task).into()))).collect();
        assert_eq!(all.len(), odd.len());
        for name in all {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "/.-".contains(c);
            assert!(name.chars().all(fine), "{name}");
            assert!(!name.contains("--") && !name.contains("/-"), "{name}");
        }
    }

    #[test]
    fn a_port_is_not_a_tag() {
        assert_eq!(repository("localhost:5000/x"), "localhost:5000/x");
        assert_eq!(repository("localhost:5000/x:y"), "localhost:5000/x");
    }
}
