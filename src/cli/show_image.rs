//! `show` of an image: what it is, its layers with where they come from, their files, and what would
//! have to move to somebody who has another image. Reads an image's value; runs nothing.

use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::digest::Digest;
use crate::error::{At, Error, Failure, Result};
use crate::host::fs;
use crate::oci::contents::{Item, Kind};
use crate::oci::descriptor::Platform;
use crate::oci::find::Files;
use crate::oci::have::{Documents, Have, packing_word};
use crate::oci::image::{Image, Layer};
use crate::oci::layout::Named;
use crate::oci::packed::{Unpacker, is_packed};
use crate::oci::untar::Untar;
use crate::recipe::Sink;
use crate::report::text;
use crate::tasks::{contents, layout};

/// What is shown of an image beside what it is.
#[derive(Default)]
pub struct Wanted {
    /// Its files by layer.
    pub files: bool,
    /// Only what it is for one platform.
    pub platform: Option<Platform>,
    /// What moves to somebody who has this, and how that is called.
    pub against: Option<(String, Have)>,
}

/// Where layers may come from: the base, and what was packed, as the task says it.
pub struct Origins {
    /// The base, then one for each entry or group of entries.
    pub names: Vec<String>,
    /// What these place, in the same order, by platform; one without a name is the only one.
    pub layers: Vec<(Option<String>, Vec<Vec<Placed>>)>,
    /// Whether layers may come from nothing of all that: `users` and the like.
    pub others: bool,
}

/// What an entry places.
#[derive(Deserialize)]
pub struct Placed {
    to: String,
    tree: Option<Digest>,
}

impl Placed {
    fn has(&self, cache: &Cache, path: &[u8]) -> Result<bool> {
        let Some(tree) = &self.tree else { return Ok(path == self.to.as_bytes()) };
        let rest = match self.to.as_bytes() {
            b"" => Some(path),
            to => path.strip_prefix(to).and_then(|rest| rest.strip_prefix(b"/")),
        };
        rest.map_or(Ok(false), |rest| Ok(cache.cas.entry(tree, rest)?.is_some()))
    }
}

impl Origins {
    /// What a task says of itself, and the preimage of its key.
    pub fn new(names: Vec<String>, preimage: Option<&Value>) -> Self {
        let what = preimage.map(|preimage| &preimage["what"]);
        let images =
            what.map(|what| what["images"].as_array().map_or(std::slice::from_ref(what), Vec::as_slice));
        let placed = |image: &Value| {
            let layers = image["layers"].as_array().into_iter().flatten();
            let layers = layers.map(|layer| Vec::deserialize(layer).unwrap_or_default());
            (image["platform"].as_str().map(str::to_string), layers.collect())
        };
        let layers = images.into_iter().flatten().map(placed).collect();
        let others = ["remove", "users", "ca_certificates"];
        let others =
            preimage.is_none_or(|preimage| others.iter().any(|name| !preimage["what"][name].is_null()));
        Self { names, layers, others }
    }

    /// The name for a layer: that of the first entry that has one of its files.
    fn of(&self, cache: &Cache, platform: &str, layer: &Layer) -> Result<Option<&str>> {
        // Only a layer that was packed here is a recipe: all others came with the base.
        if !matches!(layer.part, crate::recipe::Part::Recipe { .. }) {
            return Ok(self.names.first().map(String::as_str));
        }
        let mut first = None;
        let mut see = |item: &Item| {
            if first.is_none() && !matches!(item.kind, Kind::Folder | Kind::Removed | Kind::Emptied) {
                first = Some(item.path.clone());
            }
            Ok(())
        };
        contents::each(cache, layer, &mut see)?;
        let Some(path) = first else { return Ok(None) };
        let is_for = |of: &Option<String>| of.as_deref().is_none_or(|of| of == platform);
        let layers = self.layers.iter().filter(|(of, _)| is_for(of)).flat_map(|(_, layers)| layers);
        for (placed, name) in layers.zip(self.names.iter().skip(1)) {
            for placed in placed {
                if placed.has(cache, &path)? {
                    return Ok(Some(name));
                }
            }
        }
        // A base that was made here too.
        Ok(self.names.first().filter(|_| !self.others).map(String::as_str))
    }
}

/// Everything that is shown of an image, as data; of one for several platforms what each has, in `images`.
pub fn data(cache: &Cache, value: &Digest, wanted: &Wanted, origins: &Origins) -> Result<Value> {
    let named = match &wanted.platform {
        None => layout::read_all(&cache.cas, value)?,
        Some(platform) => {
            let tags = layout::read_all(&cache.cas, value)?.tags;
            Named { image: layout::read_for(&cache.cas, value, platform)?.image, others: Vec::new(), tags }
        }
    };
    let names: Vec<String> = named.tags.iter().map(ToString::to_string).collect();
    let images = named.images().map(|image| one(cache, image, wanted, origins));
    let mut images = images.collect::<Result<Vec<_>>>()?;
    match images.as_mut_slice() {
        [image] => {
            image["names"] = json!(names);
            Ok(image.take())
        }
        images => Ok(json!({ "digest": named.top().digest, "names": names, "images": images })),
    }
}

/// What is shown of an image for one platform.
fn one(cache: &Cache, image: &Image, wanted: &Wanted, origins: &Origins) -> Result<Value> {
    let (mut layers, platform) = (Vec::new(), image.config().platform.to_string());
    for layer in image.layers() {
        let mut shown = json!({
            "digest": layer.descriptor.digest,
            "diff_id": layer.diff_id,
            "size": layer.descriptor.size,
            "media_type": layer.descriptor.media_type,
            "origin": origins.of(cache, &platform, layer)?,
        });
        if let Some((_, have)) = &wanted.against {
            shown["present"] = have.has(layer).into();
        }
        if wanted.files {
            let mut files = Vec::new();
            contents::each(cache, layer, &mut |item| {
                files.push(file(item));
                Ok(())
            })?;
            shown["files"] = files.into();
        }
        layers.push(shown);
    }
    let config: Value = serde_json::from_slice(image.config_bytes()).unwrap_or_default();
    let mut all = json!({
        "digest": image.descriptor().digest,
        "platform": platform,
        "size": image.layers().iter().map(|layer| layer.descriptor.size).sum::<u64>(),
        "layers": layers,
        "config": config,
    });
    if let Some((name, have)) = &wanted.against {
        all["against"] = against(name, have, image);
    }
    Ok(all)
}

/// What moves to somebody who has something.
fn against(name: &str, have: &Have, image: &Image) -> Value {
    let (present, missing): (Vec<&Layer>, Vec<&Layer>) =
        image.layers().iter().partition(|layer| have.has(layer));
    let sum = |layers: &[&Layer]| layers.iter().map(|layer| layer.descriptor.size).sum::<u64>();
    let top = image.descriptor();
    let config = &image.manifest().config;
    let documents = [(top.digest, top.size), (config.digest, config.size)];
    let documents: u64 =
        documents.iter().filter(|(digest, _)| !have.digests.contains(digest)).map(|(_, size)| size).sum();
    json!({
        "name": name,
        "present": { "layers": present.len(), "bytes": sum(&present) },
        "missing": { "layers": missing.len(), "bytes": sum(&missing) },
        "documents": documents,
    })
}

fn file(item: &Item) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = match &item.kind {
        Kind::File => "file",
        Kind::Folder => "folder",
        Kind::Link(_) => "link",
        Kind::Same(_) => "same",
        Kind::Special => "special",
        Kind::Removed => "removed",
        Kind::Emptied => "emptied",
    };
    let mut shown = json!({ "path": text(&item.path), "kind": kind });
    if !matches!(item.kind, Kind::Removed | Kind::Emptied) {
        shown["mode"] = format!("{:04o}", item.attributes.mode).into();
        shown["uid"] = item.attributes.uid.into();
        shown["gid"] = item.attributes.gid.into();
    }
    match &item.kind {
        Kind::File => shown["size"] = item.size.into(),
        Kind::Link(target) | Kind::Same(target) => shown["target"] = text(target).into(),
        _ => {}
    }
    shown
}

/// The data as people read it.
pub fn page(data: &Value) -> String {
    let Value::Array(images) = &data["images"] else { return page_of(data) };
    let mut out = head(data);
    for image in images {
        out.push_str(&format!("\n{}", page_of(image)));
    }
    out
}

fn head(data: &Value) -> String {
    let text = |value: &Value| text::clean(value.as_str().unwrap_or_default()).into_owned();
    let mut out = format!("digest    {}\n", text(&data["digest"]));
    for name in data["names"].as_array().into_iter().flatten() {
        out.push_str(&format!("name      {}\n", text(name)));
    }
    out
}

fn page_of(data: &Value) -> String {
    let string = |value: &Value| text::clean(value.as_str().unwrap_or_default()).into_owned();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut out = head(data);
    let layers = list(&data["layers"]);
    let (size, count) = (text::bytes(number(&data["size"])), text::count(layers.len(), "layer"));
    out.push_str(&format!("platform  {}\nsize      {size} in {count}\n", string(&data["platform"])));
    if let Value::Object(against) = &data["against"] {
        let part = |what: &str| {
            let bytes = text::bytes(number(&against[what]["bytes"]));
            format!("{} in {}", bytes, text::count(number(&against[what]["layers"]) as usize, "layer"))
        };
        let documents = text::bytes(number(&against["documents"]));
        out.push_str(&format!("against   {}\n", string(&against["name"])));
        out.push_str(&format!("present   {}\n", part("present")));
        out.push_str(&format!("to fetch  {}, and {documents} of manifest and config\n", part("missing")));
    }
    for layer in &layers {
        let packing = packing_word(layer["media_type"].as_str().unwrap_or_default());
        let (digest, size) = (string(&layer["digest"]), text::bytes(number(&layer["size"])));
        let origin = layer["origin"].as_str().map(|origin| format!("  from {}", text::clean(origin)));
        let present = match layer["present"].as_bool() {
            Some(true) => "  present",
            Some(false) => "  to fetch",
            None => "",
        };
        out.push_str(&format!(
            "layer     {digest}  {size}  {packing}{}{present}\n",
            origin.unwrap_or_default()
        ));
        for file in list(&layer["files"]) {
            let (kind, path) = (file["kind"].as_str().unwrap_or_default(), string(&file["path"]));
            let target = string(&file["target"]);
            let (letter, tail) = match kind {
                "folder" => ('d', format!("/{path}/").replace("//", "/")),
                "link" => ('l', format!("/{path} -> {target}")),
                "same" => ('h', format!("/{path} = /{target}")),
                "special" => ('c', format!("/{path}")),
                "removed" | "emptied" => {
                    out.push_str(&format!("  {kind:34} /{path}\n"));
                    continue;
                }
                _ => ('-', format!("/{path}")),
            };
            let mode =
                u32::from_str_radix(file["mode"].as_str().unwrap_or_default(), 8).unwrap_or_default();
            let owner = format!("{}:{}", number(&file["uid"]), number(&file["gid"]));
            let size = file["size"].as_u64().map(|size| size.to_string()).unwrap_or_default();
            out.push_str(&format!("  {letter}{} {owner:>9} {size:>13} {tail}\n", mode_words(mode)));
        }
    }
    if layers.iter().all(|layer| layer["files"].is_null()) && data["against"].is_null() {
        out.push_str(&format!("{}\n", serde_json::to_string_pretty(&data["config"]).unwrap_or_default()));
    }
    out
}

fn mode_words(mode: u32) -> String {
    let mut text: Vec<char> = "rwxrwxrwx".chars().collect();
    for (at, letter) in text.iter_mut().enumerate() {
        if mode & (0o400 >> at) == 0 {
            *letter = '-';
        }
    }
    for (bit, at, set, unset) in [(0o4000, 2, 's', 'S'), (0o2000, 5, 's', 'S'), (0o1000, 8, 't', 'T')] {
        if mode & bit != 0 {
            text[at] = if text[at] == 'x' { set } else { unset };
        }
    }
    text.into_iter().collect()
}

/// What somebody has who has this archive, packed or not, or this folder of a layout.
pub fn have(path: &Path) -> Result<Have> {
    let read = || {
        if path.is_dir() {
            return Have::of(&Folder(path));
        }
        let file = fs::open_regular(path).at("read", path)?;
        let size = fs::status_of(&file).at("read", path)?.stamp.size;
        let mut documents = Documents::default();
        let tar = Untar::new(&mut documents);
        let mut start = [0; 4];
        let read = file.read_at(&mut start, 0).at("read", path)?;
        if is_packed(&start[..read]) {
            let mut unpacker = Unpacker::new(tar, size);
            unpacker.file(&file, size)?;
            unpacker.finish()?.0.finish()?;
        } else {
            let mut tar = tar;
            tar.file(&file, size)?;
            tar.finish()?;
        }
        Have::of(&documents)
    };
    read().map_err(|error| match error {
        Error::Failed(failure) => {
            let message = format!("`{}` is no archive or layout: {}", path.display(), failure.message);
            Failure { message, ..failure }.into()
        }
        other => other,
    })
}

/// The folder of a layout.
struct Folder<'a>(&'a Path);

impl Files for Folder<'_> {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        let inside =
            Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let full = self.0.join(path);
        let missing = || Error::failed(format!("`{}` does not exist", full.display()));
        if !inside {
            return Err(missing());
        }
        fs::read(&full, most)?.ok_or_else(missing)
    }
}
