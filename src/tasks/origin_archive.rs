//! A base in an archive: a file of the project, or one that a daemon or containerd writes for us. What packs
//! the archive as a whole is taken off first, into a file that is gone afterwards. Knows no task.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::origin::{Fetching, Reaching};
use super::shipping::failed;
use crate::digest::{Digest, Hasher};
use crate::error::{At, Error, Failure, Result};
use crate::host::process::{self, Command, Exit};
use crate::host::{docker, fs};
use crate::oci::archived::Archived;
use crate::oci::members::Members;
use crate::oci::packed::{Unpacker, is_packed};
use crate::oci::untar::Untar;
use crate::recipe::Sink;

/// How long containerd may take to write an archive.
const LONGEST: Duration = Duration::from_secs(3600);

/// An archive.
pub enum From<'a> {
    /// A file.
    File(&'a Path),
    /// An image of the Docker daemon of this machine.
    Daemon(&'a str),
    /// An image of the containerd of this machine.
    Containerd(&'a str),
}

impl From<'_> {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Daemon(name) => format!("docker-daemon:{name}"),
            Self::Containerd(name) => format!("containerd:{name}"),
        }
    }

    /// The manifest of its image; manifest and config are kept, and the layers of what is not a file here.
    pub fn resolve(&self, reaching: &Reaching<'_>) -> Result<Digest> {
        self.with(reaching, |file, members, found| {
            reaching.keep(found.image.manifest_bytes().to_vec())?;
            reaching.keep(found.image.config_bytes().to_vec())?;
            if !matches!(self, Self::File(_)) {
                store(file, members, found, None, reaching)?;
            }
            Ok(found.image.descriptor().digest)
        })
    }

    /// Stores layers of the image that was pinned.
    pub fn fetch(&self, pinned: &Digest, wanted: &[Digest], reaching: &Reaching<'_>) -> Result<()> {
        self.with(reaching, |file, members, found| {
            self.check(pinned, &found.image.descriptor().digest)?;
            store(file, members, found, Some(wanted), reaching)
        })
    }

    /// Fails unless what is there now is what was pinned.
    pub fn check(&self, pinned: &Digest, now: &Digest) -> Result<()> {
        if pinned == now {
            return Ok(());
        }
        let message = format!("`{}` is not the pinned image any more: it is `{now}`", self.name());
        Err(Failure::new(message).hint("`vcbuild update` moves the pin").into())
    }

    fn with<T>(
        &self,
        reaching: &Reaching<'_>,
        doing: impl FnOnce(&File, &Members, &Archived) -> Result<T>,
    ) -> Result<T> {
        let (scratch, file);
        match self {
            Self::File(path) => {
                file = fs::open_regular(path).at("read", path)?;
                scratch = None;
            }
            _ => {
                let folder = reaching.cache.scratch()?;
                let path = folder.path().join("archive");
                self.export(&path, reaching)?;
                file = fs::open_regular(&path).at("read", &path)?;
                scratch = Some(folder);
            }
        }
        let inside = || {
            let (file, members) = listed(file, reaching)?;
            let found = Archived::read(&file, &members, reaching.platform)?;
            doing(&file, &members, &found)
        };
        let done = inside().map_err(|error| error.context(format!("`{}`", self.name())));
        drop(scratch);
        done
    }

    fn export(&self, to: &Path, reaching: &Reaching<'_>) -> Result<()> {
        match self {
            Self::File(_) => panic!("BUG: a file is there"),
            Self::Daemon(name) => {
                let none = AtomicU64::new(0);
                let watch = Fetching { stop: reaching.stop, tell: reaching.tell, done: &none, total: 0 };
                let socket = docker::usual_socket(&reaching.env.0)?;
                let daemon = docker::Daemon::new(&socket, &watch)?;
                let mut file = fs::create(to).at("write", to)?;
                daemon.save(name, &mut file).map_err(|trouble| failed("the Docker daemon", trouble))
            }
            Self::Containerd(name) => {
                let platform = reaching.platform.to_string();
                let argv = ["ctr", "images", "export", "--platform", &platform];
                let mut argv: Vec<OsString> = argv.map(OsString::from).to_vec();
                argv.extend([to.as_os_str().to_os_string(), name.into()]);
                let mut env: Vec<_> =
                    reaching.env.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                if reaching.env.value("CONTAINERD_NAMESPACE").is_none() {
                    env.push(("CONTAINERD_NAMESPACE".into(), "k8s.io".into()));
                }
                let command = Command { argv, dir: "/".into(), env, timeout: Some(LONGEST) };
                let done = process::capture(&command, 1 << 20, reaching.stop)?;
                if done.exit == Exit::Code(0) {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(&done.stderr).into_owned();
                let lines = said.lines().map(str::to_string);
                Err(Failure::new(format!("`ctr` does not export `{name}`: {}", done.exit))
                    .detail(lines)
                    .into())
            }
        }
    }
}

/// Stores the layers that are wanted; all of them if nobody says which.
fn store(
    file: &File,
    members: &Members,
    found: &Archived,
    wanted: Option<&[Digest]>,
    reaching: &Reaching<'_>,
) -> Result<()> {
    for (layer, place) in found.image.layers().iter().zip(&found.places) {
        let digest = layer.descriptor.digest;
        if wanted.is_some_and(|wanted| !wanted.contains(&digest)) {
            continue;
        }
        let stored = reaching.cache.cas.put_with(Hasher::sha256(), |writer| {
            members.stream(file, *place, &mut |piece| {
                reaching.stop.check()?;
                writer.write_all(piece).at("keep", Path::new("a layer"))
            })
        })?;
        if stored.digest != digest {
            return Err(Error::failed(format!(
                "the layer `{digest}` is damaged: it is `{}`",
                stored.digest
            )));
        }
    }
    Ok(())
}

/// The archive without what packs it, and what is in it.
fn listed(file: File, reaching: &Reaching<'_>) -> Result<(File, Members)> {
    let here = Path::new("an archive");
    let mut magic = [0; 4];
    let read = file.read_at(&mut magic, 0).at("read", here)?;
    if !is_packed(&magic[..read]) {
        let members = Members::list(&file)?;
        return Ok((file, members));
    }
    let size = fs::status_of(&file).at("read", here)?.stamp.size;
    let (mut to, mut members) = (fs::temporary(&reaching.cache.path("tmp"))?, Members::default());
    let into = Unpacked { to: to.as_file_mut(), tar: Untar::new(&mut members), reaching };
    let mut unpacker = Unpacker::new(into, size);
    unpacker.file(&file, size)?;
    unpacker.finish()?.0.tar.finish()?;
    let path = to.path().to_path_buf();
    // Its name goes with `to`; the bytes stay as long as they are open.
    Ok((File::open(&path).at("read", &path)?, members))
}

/// Keeps an archive, and sees at once when it is none.
struct Unpacked<'a> {
    to: &'a mut File,
    tar: Untar<'a>,
    reaching: &'a Reaching<'a>,
}

impl Sink for Unpacked<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.reaching.stop.check()?;
        self.tar.bytes(bytes)?;
        self.to.write_all(bytes).at("write to", &self.reaching.cache.path("tmp"))
    }
}
