//! An image in an OCI layout that anybody made: read strictly, with bounded memory and time. Knows no
//! folder and no archive: files come through `Files`.

use std::collections::BTreeMap;

use crate::digest::{Blob, Digest};
use crate::error::{Error, Failure, Result};
use crate::oci::descriptor::{Descriptor, Platform};
use crate::oci::document::{
    DOCKER_INDEX, DOCKER_MANIFEST, Document, INDEX, LONGEST_DOCUMENT, MANIFEST, decode, parse,
};
use crate::oci::image::Image;
use crate::oci::layout::{IMAGE_NAME, LAYOUT, REF_NAME, blob_path};
use crate::oci::quoted;
use crate::oci::reference::Reference;
use crate::recipe::{Content, Part, Recipe};

/// Indexes within indexes, at most.
const DEEPEST: usize = 4;
/// Documents that are read to find one image, at most.
const MOST_READS: usize = 200;

/// The files of a layout.
pub trait Files {
    /// Reads a file whole. Fails, without reading it, if it is longer than `most` bytes.
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>>;

    /// Where a blob's bytes are to be had, if not simply by its digest.
    fn part(&self, _path: &str) -> Result<Option<Part>> {
        Ok(None)
    }
}

/// A layout whose files are parts.
pub struct Parts<'a> {
    /// The parts by path.
    pub files: &'a BTreeMap<String, Part>,
    /// Where their content comes from.
    pub content: &'a dyn Content,
}

impl Files for Parts<'_> {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        let part =
            self.files.get(path).ok_or_else(|| Error::failed(format!("there is no {}", quoted(path))))?;
        if part.size() > most {
            return Err(Error::failed(format!("{} has more than {most} bytes", quoted(path))));
        }
        let mut recipe = Recipe::new();
        recipe.push(part);
        let mut bytes = Vec::new();
        recipe.send(self.content, &mut bytes)?;
        Ok(bytes)
    }

    fn part(&self, path: &str) -> Result<Option<Part>> {
        match self.files.get(path) {
            Some(part) => Ok(Some(part.clone())),
            None => Err(Error::failed(format!("there is no {}", quoted(path)))),
        }
    }
}

/// An image that was found in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The image.
    pub image: Image,
    /// Its names there, as they are written.
    pub names: Vec<String>,
}

/// Finds the image for a platform, and with a name if one is given: as it is written in the layout, or
/// any text that means the same image.
///
/// Manifest and config are read and verified, layers are not. Fails if there is none or if there are
/// several, and on whatever `document::parse` and `Image::new` refuse; indexes may be nested.
pub fn find(files: &dyn Files, platform: &Platform, name: Option<&str>) -> Result<Found> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = decode("`oci-layout`", &files.read(LAYOUT.0, 4096)?)?;
    if layout.image_layout_version != "1.0.0" {
        let version = quoted(layout.image_layout_version);
        return Err(Error::failed(format!("the layout has version {version}, not `1.0.0`")));
    }
    let bytes = files.read("index.json", LONGEST_DOCUMENT)?;
    let Document::Index(index) =
        parse(&bytes, Some(INDEX)).map_err(|error| error.context("`index.json`"))?
    else {
        return Err(Error::failed("`index.json` is a manifest"));
    };
    let tops: Vec<&Descriptor> = index.manifests.iter().filter(|top| is_named(top, name)).collect();
    if let (Some(name), true) = (name, tops.is_empty()) {
        let names = index.manifests.iter().flat_map(names_of).map(quoted);
        return Err(Failure::new(format!("the layout has no image {}", quoted(name)))
            .hint(list("it has", names).unwrap_or_else(|| "its images have no names".to_string()))
            .into());
    }
    let mut search = Search { files, platform, seen: BTreeMap::new(), others: Vec::new() };
    let mut found: Option<Found> = None;
    for top in tops {
        let Some(image) = search.visit(top, 0)? else { continue };
        let names = names_of(top).map(str::to_string);
        match &mut found {
            None => found = Some(Found { image, names: names.collect() }),
            Some(found) if found.image.descriptor() == image.descriptor() => found.names.extend(names),
            Some(_) => {
                let names = index.manifests.iter().flat_map(names_of).map(quoted);
                return Err(Failure::new(format!("the layout has several images for `{platform}`"))
                    .hint(list("say which", names).unwrap_or_else(|| "give them names".to_string()))
                    .into());
            }
        }
    }
    let Some(mut found) = found else {
        let failure = Failure::new(format!("the layout has no image for `{platform}`"));
        let others = search.others.iter().map(|other| quoted(other.to_string()));
        return Err(match list("it has", others) {
            Some(hint) => failure.hint(hint).into(),
            None => failure.into(),
        });
    };
    found.names.sort();
    found.names.dedup();
    found.image.locate(|layer| files.part(&blob_path(&layer.digest)))?;
    Ok(found)
}

/// Finds the image for a platform that a descriptor leads to, through indexes or at once.
///
/// Reads, and fails, as `find` does; only the files of documents are asked for.
pub fn find_below(files: &dyn Files, top: &Descriptor, platform: &Platform) -> Result<Image> {
    let mut search = Search { files, platform, seen: BTreeMap::new(), others: Vec::new() };
    if let Some(image) = search.visit(top, 0)? {
        return Ok(image);
    }
    let failure = Failure::new(format!("there is no image for `{platform}`"));
    let others = search.others.iter().map(|other| quoted(other.to_string()));
    Err(match list("there is one for", others) {
        Some(hint) => failure.hint(hint).into(),
        None => failure.into(),
    })
}

/// The platforms of the images in a layout, in the order in which they are found there, each once.
pub fn platforms(files: &dyn Files) -> Result<Vec<Platform>> {
    let bytes = files.read("index.json", LONGEST_DOCUMENT)?;
    let Document::Index(index) =
        parse(&bytes, Some(INDEX)).map_err(|error| error.context("`index.json`"))?
    else {
        return Err(Error::failed("`index.json` is a manifest"));
    };
    // Nobody has it, so that every other one is met.
    let nowhere = Platform { architecture: String::new(), os: String::new(), variant: None };
    let mut search = Search { files, platform: &nowhere, seen: BTreeMap::new(), others: Vec::new() };
    for top in &index.manifests {
        search.visit(top, 0)?;
    }
    let mut found: Vec<Platform> = Vec::new();
    for platform in search.others {
        if !found.iter().any(|known| known.matches(&platform)) {
            found.push(platform);
        }
    }
    Ok(found)
}

/// `it has: a, b`, the first few.
fn list(start: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    let more = if names.len() > 12 { ", …" } else { "" };
    names.truncate(12);
    (!names.is_empty()).then(|| format!("{start}: {}{more}", names.join(", ")))
}

fn names_of(top: &Descriptor) -> impl Iterator<Item = &str> {
    [REF_NAME, IMAGE_NAME].into_iter().filter_map(|key| top.annotations.get(key)).map(String::as_str)
}

fn is_named(top: &Descriptor, name: Option<&str>) -> bool {
    let Some(name) = name else { return true };
    let complete: Option<Reference> = name.parse().ok();
    names_of(top).any(|own| own == name || (complete.is_some() && own.parse().ok() == complete))
}

/// The way through indexes to an image.
struct Search<'a> {
    files: &'a dyn Files,
    platform: &'a Platform,
    /// What each document led to; an image is kept once per document.
    seen: BTreeMap<Digest, Option<Image>>,
    /// The platforms that were met instead.
    others: Vec<Platform>,
}

impl Search<'_> {
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Option<Image>> {
        if descriptor
            .annotations
            .get("vnd.docker.reference.type")
            .is_some_and(|kind| kind == "attestation-manifest")
        {
            return Ok(None);
        }
        if let Some(other) = descriptor.platform.as_ref().filter(|other| !other.matches(self.platform)) {
            self.others.push(other.clone());
            return Ok(None);
        }
        let media_type = descriptor.media_type.as_str();
        if ![MANIFEST, DOCKER_MANIFEST, INDEX, DOCKER_INDEX].contains(&media_type)
            && !media_type.contains("distribution.manifest.v1")
        {
            return Ok(None);
        }
        if let Some(known) = self.seen.get(&descriptor.digest) {
            return Ok(known.clone());
        }
        if self.seen.len() == MOST_READS {
            return Err(Error::failed(format!(
                "after {MOST_READS} documents there is no image for `{}`",
                self.platform
            )));
        }
        let bytes = self.read(descriptor, LONGEST_DOCUMENT)?;
        let found = match parse(&bytes, Some(media_type))? {
            Document::Manifest(manifest) => {
                let config = self.read(&manifest.config, manifest.config.size)?;
                let image = Image::assemble(manifest, bytes, config)?;
                let is = &image.config().platform;
                if is.matches(self.platform) {
                    Some(image)
                } else {
                    self.others.push(is.clone());
                    None
                }
            }
            Document::Index(_) if depth == DEEPEST => {
                return Err(Error::failed(format!("indexes are nested deeper than {DEEPEST}")));
            }
            Document::Index(index) => {
                let mut first = None;
                for inner in &index.manifests {
                    first = self.visit(inner, depth + 1)?;
                    if first.is_some() {
                        break;
                    }
                }
                first
            }
        };
        self.seen.insert(descriptor.digest, found.clone());
        Ok(found)
    }

    fn read(&self, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>> {
        let blob = Blob { digest: descriptor.digest, size: descriptor.size };
        if blob.size > most {
            let (digest, size) = (blob.digest, blob.size);
            return Err(Error::failed(format!(
                "the document `{digest}` has {size} bytes; at most {most} are read"
            )));
        }
        let bytes = self.files.read(&blob_path(&blob.digest), blob.size)?;
        descriptor.verify("the document", &bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::document::{CONFIG, Index, Manifest};
    use crate::oci::layout::{Named, files};
    use crate::oci::samples::{Memory, amd64, new_layer, plain_image};
    use crate::oci::settings::Settings;

    fn named(image: &Image, tags: &[&str]) -> Named {
        Named {
            image: image.clone(),
            others: vec![],
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        }
    }

    fn written(images: &[Named]) -> BTreeMap<String, Part> {
        let list = files(images).unwrap();
        let count = list.len();
        let map: BTreeMap<String, Part> = list.into_iter().collect();
        assert_eq!(map.len(), count);
        map
    }

    fn search(files: &BTreeMap<String, Part>, memory: &Memory, name: Option<&str>) -> Result<Found> {
        find(&Parts { files, content: memory }, &amd64(), name)
    }

    fn words(result: Result<Found>) -> (String, Vec<String>) {
        match result.unwrap_err() {
            Error::Failed(failure) => (failure.message, failure.hints),
            other => panic!("{other}"),
        }
    }

    /// A layout around this index, with these further documents.
    fn around(index: &[u8], documents: &[&[u8]]) -> BTreeMap<String, Part> {
        let mut files: BTreeMap<String, Part> = documents
            .iter()
            .map(|bytes| (blob_path(&Digest::sha256_of(bytes)), Part::Inline(bytes.to_vec())))
            .collect();
        files.insert("oci-layout".into(), Part::Inline(LAYOUT.1.to_vec()));
        files.insert("index.json".into(), Part::Inline(index.to_vec()));
        files
    }

    #[test]
    fn what_is_written_is_found() {
        let mut memory = Memory::default();
        let base = plain_image(&mut memory);
        let layer = new_layer(&mut memory, &[("app", b"x")]);
        let app = Image::build(Some(&base), &amd64(), &[layer], &Settings::default()).unwrap();
        let files = written(&[named(&base, &["b", "a:1"]), named(&app, &["r.example/app:2"])]);
        for name in ["a:1", "docker.io/library/a:1", "docker.io/a:1"] {
            let found = search(&files, &memory, Some(name)).unwrap();
            assert_eq!(
                (found.image, found.names),
                (base.clone(), vec!["docker.io/library/a:1".to_string()])
            );
        }
        assert_eq!(search(&files, &memory, Some("r.example/app:2")).unwrap().image, app);
        let (message, hints) = words(search(&files, &memory, None));
        assert_eq!(message, "the layout has several images for `linux/amd64`");
        let names = "`docker.io/library/a:1`, `docker.io/library/b:latest`, `r.example/app:2`";
        assert_eq!(hints, [format!("say which: {names}")]);
        let (message, hints) = words(search(&files, &memory, Some("c")));
        assert_eq!(
            (message.as_str(), hints),
            ("the layout has no image `c`", vec![format!("it has: {names}")])
        );
        let alone = written(&[named(&app, &[])]);
        let found = search(&alone, &memory, None).unwrap();
        crate::oci::samples::verify(&found.image, &memory).unwrap();
        assert_eq!((found.image, found.names), (app, vec![]));
    }

    #[test]
    fn indexes_may_be_nested_a_little() {
        let mut memory = Memory::default();
        let base = plain_image(&mut memory);
        let mut files = written(&[named(&base, &["x"])]);
        let other = Platform { os: "windows".into(), ..Platform::linux("amd64") };
        let mut wrong = Descriptor::of(MANIFEST, b"not there");
        wrong.platform = Some(other);
        let mut attestation = Descriptor::of(MANIFEST, b"not there either");
        attestation.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        let artifact = Descriptor::of("application/vnd.example+json", b"{}");
        let mut inner = Index::new(vec![wrong, attestation, artifact, base.descriptor()]).encode();
        for depth in 0..6 {
            files.insert(blob_path(&Digest::sha256_of(&inner)), Part::Inline(inner.clone()));
            inner = Index::new(vec![Descriptor::of(INDEX, &inner)]).encode();
            files.insert("index.json".into(), Part::Inline(inner.clone()));
            match search(&files, &memory, None) {
                Ok(found) => assert!(found.image == base && depth < DEEPEST, "{depth}"),
                Err(error) => {
                    assert!(depth >= DEEPEST, "{depth} {error}");
                    assert_eq!(error.to_string(), "indexes are nested deeper than 4");
                }
            }
        }
    }

    #[test]
    fn another_platform_is_named() {
        let mut memory = Memory::default();
        let files = written(&[named(&plain_image(&mut memory), &["x"])]);
        let found = find(&Parts { files: &files, content: &memory }, &Platform::linux("arm64"), None);
        let (message, hints) = words(found);
        assert_eq!(message, "the layout has no image for `linux/arm64`");
        assert_eq!(hints, ["it has: `linux/amd64`"]);
    }

    #[test]
    fn a_missing_wrong_or_long_file_is_refused() {
        let mut memory = Memory::default();
        let image = plain_image(&mut memory);
        let whole = written(&[named(&image, &["x"])]);
        for path in whole.keys() {
            let mut files = whole.clone();
            files.remove(path);
            search(&files, &memory, None).unwrap_err();
            files.insert(path.clone(), Part::Inline(vec![b' '; 9 << 20]));
            search(&files, &memory, None).unwrap_err();
            let size = whole[path].size();
            let huge = Part::Recipe { recipe: Blob::of(b"nobody has this"), size: 1 << 40 };
            files.insert(path.clone(), huge);
            assert!(!matches!(search(&files, &memory, None), Err(Error::Lost(_)) | Ok(_)), "{path}");
            if size < 2000 && !path.starts_with("oci") {
                let mut bytes = memory.part(&whole[path]);
                bytes[5] ^= 1;
                files.insert(path.clone(), Part::Inline(bytes));
                search(&files, &memory, None).unwrap_err();
            }
        }
    }

    #[test]
    fn odd_layouts_are_refused() {
        let memory = Memory::default();
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let manifest = Manifest::new(Descriptor::of(CONFIG, config), vec![], BTreeMap::new()).encode();
        let top = Descriptor::of(MANIFEST, &manifest);
        let index = Index::new(vec![top.clone()]).encode();
        search(&around(&index, &[config, &manifest]), &memory, None).unwrap();
        assert!(search(&around(&manifest, &[config]), &memory, None).is_err());
        let (message, _) = words(search(&around(&Index::new(vec![]).encode(), &[]), &memory, None));
        assert_eq!(message, "the layout has no image for `linux/amd64`");

        let mut long = top.clone();
        long.size = 5 << 20;
        let (message, _) = words(search(&around(&Index::new(vec![long]).encode(), &[]), &memory, None));
        assert!(message.ends_with("has 5242880 bytes; at most 4194304 are read"), "{message}");

        let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        let old_top = Descriptor::of("application/vnd.docker.distribution.manifest.v1+prettyjws", old);
        let (message, _) =
            words(search(&around(&Index::new(vec![old_top]).encode(), &[old]), &memory, None));
        assert_eq!(message, "the image is Docker schema 1, which is not read");

        let mut files = around(&index, &[config, &manifest]);
        let version = br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec();
        files.insert("oci-layout".into(), Part::Inline(version));
        let (message, _) = words(search(&files, &memory, None));
        assert_eq!(message, "the layout has version `2.0.0`, not `1.0.0`");
    }

    #[test]
    fn a_wide_search_ends() {
        let memory = Memory::default();
        let config = br#"{"architecture":"s390x","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let manifests: Vec<Vec<u8>> = (0..300)
            .map(|at: i32| {
                let note = [("at".to_string(), at.to_string())].into();
                Manifest::new(Descriptor::of(CONFIG, config), vec![], note).encode()
            })
            .collect();
        let tops = manifests.iter().map(|bytes| Descriptor::of(MANIFEST, bytes)).collect();
        let documents: Vec<&[u8]> = manifests.iter().map(|bytes| &bytes[..]).chain([&config[..]]).collect();
        let (message, _) = words(search(&around(&Index::new(tops).encode(), &documents), &memory, None));
        assert_eq!(message, "after 200 documents there is no image for `linux/amd64`");
    }
}
