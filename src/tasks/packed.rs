//! Layers packed with gzip or zstd, in the cache by their SHA-256, remembered by their diffID: a layer is
//! packed once, whoever wants it. Knows no kind.

use crate::cache::Cache;
use crate::cache::draft::Draft;
use crate::cache::tree::Entry;
use crate::digest::{Blob, Hasher};
use crate::error::Result;
use crate::host::stop::Stop;
use crate::oci::descriptor::{Descriptor, Packing};
use crate::oci::image::{Image, Layer};
use crate::oci::pack::{Pack, Packer, repacked};
use crate::recipe::{Part, Recipe, Sink};

/// The image with its plain layers packed, in a manifest of its own.
pub fn image(cache: &Cache, image: &Image, packer: Packer, stop: &Stop) -> Result<Image> {
    let layers = image.layers().iter().map(|plain| layer(cache, plain, packer, stop));
    repacked(image, layers.collect::<Result<_>>()?)
}

/// A layer, packed if it is plain.
///
/// Errors: `Lost` if its bytes are not there.
pub fn layer(cache: &Cache, plain: &Layer, packer: Packer, stop: &Stop) -> Result<Layer> {
    if Packing::of(&plain.descriptor.media_type)? != Packing::Plain {
        return Ok(plain.clone());
    }
    let blob = blob(cache, plain, packer, stop)?;
    let media_type = packer.packing().media_type();
    let descriptor =
        Descriptor { media_type, digest: blob.digest, size: blob.size, ..plain.descriptor.clone() };
    Ok(Layer { descriptor, diff_id: plain.diff_id, part: Part::Blob(blob) })
}

fn blob(cache: &Cache, plain: &Layer, packer: Packer, stop: &Stop) -> Result<Blob> {
    let preimage = serde_json::json!({ "packed": plain.diff_id, "by": packer.name() });
    if let Some(value) = cache.known(&preimage)
        && let Ok(Some(Entry::File { blob, .. })) = cache.cas.entry(&value, "layer")
        && cache.cas.has(&blob)
    {
        return Ok(blob);
    }
    let mut whole = Recipe::new();
    whole.push(&plain.part);
    let blob = cache.cas.put_with(Hasher::sha256(), |out| {
        let mut pack = Stoppable { pack: Pack::new(packer, out), stop };
        whole.send(&cache.cas, &mut pack)?;
        pack.pack.finish()
    })?;
    let mut draft = Draft::empty(&cache.cas);
    draft.insert(b"layer", Entry::File { mode: 0o644, blob })?;
    cache.remember(preimage, draft.store()?)?;
    Ok(blob)
}

/// Packs until the user asks to stop.
struct Stoppable<'a> {
    pack: Pack<'a>,
    stop: &'a Stop,
}

impl Sink for Stoppable<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stop.check()?;
        self.pack.bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::digest::Digest;
    use crate::error::Error;
    use crate::host::fs;
    use crate::oci::descriptor::Platform;
    use crate::oci::image::NewLayer;
    use crate::oci::settings::Settings;
    use crate::recipe::Content;

    fn world() -> (tempfile::TempDir, Cache, Image, Stop) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let mut recipe = Recipe::new();
        recipe.blob(cache.cas.put(&[b'x'; 3 << 20]).unwrap());
        recipe.inline(&[0; 1024]);
        let part = cache.cas.put_recipe(&recipe).unwrap();
        let digest = cache.content_digest(&part, Hasher::sha256()).unwrap();
        let layer = NewLayer { part, digest, created_by: "x".into() };
        let image = Image::build(None, &Platform::linux("amd64"), &[layer], &Settings::default()).unwrap();
        (folder, cache, image, Stop::new(Duration::ZERO).unwrap())
    }

    #[test]
    fn a_layer_is_packed_once_and_keeps_its_config() {
        let (_folder, cache, plain, stop) = world();
        for (packer, end) in [(Packer::Gzip, "+gzip"), (Packer::Zstd, "+zstd")] {
            let packed = image(&cache, &plain, packer, &stop).unwrap();
            let [one] = packed.layers() else { panic!() };
            assert!(one.descriptor.media_type.ends_with(end));
            assert_eq!(packed.config_bytes(), plain.config_bytes());
            assert_ne!(packed.descriptor().digest, plain.descriptor().digest);
            let Part::Blob(blob) = one.part else { panic!() };
            assert_eq!((blob.digest, blob.size), (one.descriptor.digest, one.descriptor.size));
            assert_eq!(Digest::sha256_of(&cache.cas.read(blob).unwrap()), blob.digest);
            // What is packed already stays.
            assert_eq!(image(&cache, &packed, Packer::Gzip, &stop).unwrap(), packed);
            // Made again if it is lost, to the same bytes.
            fs::remove_file(&cache.cas.path(&blob.digest)).unwrap();
            assert_eq!(image(&cache, &plain, packer, &stop).unwrap(), packed);
            assert!(cache.cas.has(&blob));
            // Remembered: the plain layer is not read a second time.
            let Part::Recipe { recipe, .. } = plain.layers()[0].part.clone() else { panic!() };
            let bytes = cache.cas.read(recipe).unwrap();
            fs::remove_file(&cache.cas.path(&recipe.digest)).unwrap();
            assert_eq!(image(&cache, &plain, packer, &stop).unwrap(), packed);
            fs::remove_file(&cache.cas.path(&blob.digest)).unwrap();
            let lost = image(&cache, &plain, packer, &stop).unwrap_err();
            assert!(matches!(lost, Error::Lost(digest) if digest == recipe.digest));
            cache.cas.put(&bytes).unwrap();
        }
    }
}
