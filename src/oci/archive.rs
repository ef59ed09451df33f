//! Images as one file, bit-reproducible: docker-archive and oci-archive as recipes. Knows no
//! compression and no file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{Failure, Result};
use crate::oci::descriptor::Packing;
use crate::oci::document::encode;
use crate::oci::layout::{self, Named};
use crate::oci::tar::{Attributes, Writer};
use crate::recipe::{Part, Recipe};

const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: 0 };
const FOLDER: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0 };

/// A tar of an OCI layout. Fails on a name that two images have.
pub fn oci(images: &[Named]) -> Result<Recipe> {
    let mut tar = Writer::default();
    let mut folders = Vec::new();
    for (path, part) in layout::files(images)? {
        for (at, _) in path.match_indices('/') {
            let folder = path[..at].to_string();
            if !folders.contains(&folder) {
                tar.folder(folder.as_bytes(), FOLDER);
                folders.push(folder);
            }
        }
        tar.file(path.as_bytes(), FILE, &part);
    }
    Ok(tar.finish())
}

/// What `docker save` writes and `docker load` reads: `manifest.json` first, then configs, then layers
/// as they are, each once. Fails on a name that two images have.
pub fn docker(images: &[Named]) -> Result<Recipe> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Line {
        config: String,
        repo_tags: Vec<String>,
        layers: Vec<String>,
    }
    let mut lines: Vec<Line> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let (mut configs, mut layers) = (Vec::new(), Vec::new());
    let mut known = BTreeSet::new();
    for (named, mut repo_tags) in images.iter().zip(layout::tags(images)?) {
        if !named.others.is_empty() {
            let name = repo_tags.first().map_or("an image", String::as_str);
            let message =
                format!("`{name}` is for several platforms, and a docker-archive has no place for that");
            let hint =
                "write an `oci-archive` or `oci-layout`, or make an image with one of its `platforms`";
            return Err(Failure::new(message).hint(hint).into());
        }
        let image = &named.image;
        let config = format!("{}.json", image.manifest().config.digest.hex());
        let mut names = Vec::new();
        for layer in image.layers() {
            let end = match Packing::of(&layer.descriptor.media_type)? {
                Packing::Plain => "tar",
                Packing::Gzip => "tar.gz",
                Packing::Zstd => "tar.zst",
            };
            let name = format!("{}.{end}", layer.descriptor.digest.hex());
            if known.insert(name.clone()) {
                layers.push((name.clone(), layer.part.clone()));
            }
            names.push(name);
        }
        // Two manifests can have one config; then they are one image here, as in Docker.
        match places.get(&config) {
            Some(&place) => {
                lines[place].repo_tags.append(&mut repo_tags);
                lines[place].repo_tags.sort();
            }
            None => {
                places.insert(config.clone(), lines.len());
                configs.push((config.clone(), Part::Inline(image.config_bytes().to_vec())));
                lines.push(Line { config, repo_tags, layers: names });
            }
        }
    }
    let mut tar = Writer::default();
    tar.file(b"manifest.json", FILE, &Part::Inline(encode(&lines)));
    for (name, part) in configs.into_iter().chain(layers) {
        tar.file(name.as_bytes(), FILE, &part);
    }
    Ok(tar.finish())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::digest::Digest;
    use crate::oci::image::Image;
    use crate::oci::samples::{Memory, amd64, new_layer, plain_image};
    use crate::oci::settings::Settings;

    fn named(image: &Image, tags: &[&str]) -> Named {
        Named {
            image: image.clone(),
            others: vec![],
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        }
    }

    /// A base, and another image on it.
    fn pair(memory: &mut Memory) -> (Image, Image) {
        let base = plain_image(memory);
        let layer = new_layer(memory, &[("app", b"x")]);
        let app = Image::build(Some(&base), &amd64(), &[layer], &Settings::default()).unwrap();
        (base, app)
    }

    fn members(memory: &Memory, recipe: &Recipe) -> Vec<(String, Vec<u8>)> {
        let bytes = memory.bytes(recipe);
        let mut archive = ::tar::Archive::new(&bytes[..]);
        let members = archive.entries().unwrap().map(|member| {
            let mut member = member.unwrap();
            assert_eq!(member.header().mtime().unwrap(), 0);
            let mut content = Vec::new();
            member.read_to_end(&mut content).unwrap();
            (member.path().unwrap().to_str().unwrap().to_string(), content)
        });
        members.collect()
    }

    #[test]
    fn golden() {
        let mut memory = Memory::default();
        let (base, app) = pair(&mut memory);
        let images = [named(&base, &["b:1", "a:1"]), named(&app, &[])];
        for (recipe, digest) in [
            (docker(&images), "f61a5c5755fd21b6703aad15d768c3c33c9138def1d235baa9012826af06f452"),
            (oci(&images), "78faf8aadd5080d90b19924690bbaf005691d0aa9dbf87cec89c3cb5b86d0482"),
        ] {
            assert_eq!(Digest::sha256_of(&memory.bytes(&recipe.unwrap())).hex(), digest);
        }
    }

    #[test]
    fn an_index_is_in_an_oci_archive_only() {
        let mut memory = Memory::default();
        let (base, app) = pair(&mut memory);
        let several = Named { others: vec![app], ..named(&base, &["x:1"]) };
        let error = docker(std::slice::from_ref(&several)).unwrap_err().to_string();
        assert!(error.starts_with("`docker.io/library/x:1` is for several platforms"), "{error}");
        let archived = members(&memory, &oci(std::slice::from_ref(&several)).unwrap());
        let path = layout::blob_path(&several.top().digest);
        assert!(
            archived.iter().any(|(name, bytes)| *name == path && several.index().as_ref() == Some(bytes))
        );
    }

    #[test]
    fn docker_archives_have_each_layer_once() {
        let mut memory = Memory::default();
        let (base, app) = pair(&mut memory);
        let recipe =
            docker(&[named(&base, &["b:1", "a:1", "a:1"]), named(&app, &["r.example:1/app:2"])]).unwrap();
        let members = members(&memory, &recipe);
        let [first, second, third] = app.layers() else { panic!() };
        let hex = |layer: &crate::oci::image::Layer| layer.diff_id.hex();
        let config = |image: &Image| image.manifest().config.digest.hex();
        assert_eq!(
            String::from_utf8_lossy(&members[0].1),
            format!(
                r#"[{{"Config":"{}.json","RepoTags":["docker.io/library/a:1","docker.io/library/b:1"],"Layers":["{}.tar","{}.tar"]}},{{"Config":"{}.json","RepoTags":["r.example:1/app:2"],"Layers":["{1}.tar","{2}.tar","{}.tar"]}}]"#,
                config(&base),
                hex(first),
                hex(second),
                config(&app),
                hex(third)
            )
        );
        let names: Vec<&str> = members[1..].iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), 5);
        for (name, bytes) in &members[1..] {
            assert_eq!(name.split('.').next().unwrap(), Digest::sha256_of(bytes).hex());
        }
    }

    #[test]
    fn one_name_is_for_one_image() {
        let mut memory = Memory::default();
        let (base, app) = pair(&mut memory);
        for write in [docker, oci] {
            let error = write(&[named(&base, &["x"]), named(&app, &["docker.io/x:latest"])]).unwrap_err();
            assert_eq!(error.to_string(), "two images are named `docker.io/library/x:latest`");
            let digest = base.descriptor().digest;
            assert!(write(&[named(&base, &[&format!("x@{digest}")])]).is_err());
            write(&[named(&base, &["x"]), named(&base, &["x"])]).unwrap();
        }
    }

    #[test]
    fn one_config_is_one_image_for_docker() {
        let mut memory = Memory::default();
        let (base, _) = pair(&mut memory);
        let settings = Settings { annotations: [("a".into(), "b".into())].into(), ..Settings::default() };
        let noted = Image::build(Some(&base), &amd64(), &[], &settings).unwrap();
        let recipe = docker(&[named(&base, &["b"]), named(&noted, &["a"])]).unwrap();
        let members = members(&memory, &recipe);
        assert_eq!(members.len(), 1 + 1 + base.layers().len());
        let text = String::from_utf8_lossy(&members[0].1);
        assert!(text.contains(r#"["docker.io/library/a:latest","docker.io/library/b:latest"]"#), "{text}");
    }

    #[test]
    fn oci_archives_hold_the_layout() {
        let mut memory = Memory::default();
        let (base, app) = pair(&mut memory);
        let images = [named(&base, &["b:1"]), named(&app, &["a"])];
        let archived = members(&memory, &oci(&images).unwrap());
        let listed: Vec<_> = layout::files(&images)
            .unwrap()
            .into_iter()
            .map(|(path, part)| (path, memory.part(&part)))
            .collect();
        let (folders, files): (Vec<_>, Vec<_>) =
            archived.into_iter().partition(|(path, _)| path.ends_with('/'));
        assert_eq!(files, listed);
        assert_eq!(folders.len(), 2);
    }
}
