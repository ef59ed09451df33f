//! What an image is made of, as SPDX 2.3 JSON: from what Go and cargo-auditable put into programs, and
//! from the package databases of Debian and Alpine. The same packages give the same bytes. Knows no file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest::Digest;

/// The media type of the document.
pub const SPDX: &str = "application/spdx+json";
/// What cargo-auditable packed, unpacked, in bytes, at most.
const LONGEST_LIST: u64 = 32 << 20;

/// Something that has a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name in its world.
    pub name: String,
    /// Its version; empty if nobody says.
    pub version: String,
    /// Its package URL (purl-spec).
    pub purl: String,
    /// An SPDX expression, if the database says one.
    pub licence: Option<String>,
}

/// A program in the image and what it was built from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Built {
    /// Its path in the image.
    pub path: String,
    /// The program.
    pub program: Package,
    /// What is in it.
    pub parts: Vec<Package>,
}

/// A purl: type, name with its namespace, version, qualifiers.
fn purl(kind: &str, name: &str, version: &str, qualifiers: &[(&str, &str)]) -> String {
    let mut text = format!("pkg:{kind}/{}", escaped(name, "/"));
    if !version.is_empty() {
        text.push_str(&format!("@{}", escaped(version, "")));
    }
    let qualifiers = qualifiers.iter().filter(|(_, value)| !value.is_empty());
    for (at, (key, value)) in qualifiers.enumerate() {
        text.push_str(&format!("{}{key}={}", if at == 0 { '?' } else { '&' }, escaped(value, "")));
    }
    text
}

fn escaped(text: &str, spare: &str) -> String {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) || spare.as_bytes().contains(&byte)
    };
    text.bytes().fold(String::new(), |mut out, byte| {
        match plain(byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

fn package(kind: &str, name: &str, version: &str) -> Package {
    let purl = purl(kind, name, version, &[]);
    Package { name: name.into(), version: version.into(), purl, licence: None }
}

/// What Go put into a program: the content of `.go.buildinfo`. `memory` reads the program's memory, as
/// programs of before Go 1.18 need it (debug/buildinfo).
pub fn go(path: &str, section: &[u8], memory: &dyn Fn(u64, u64) -> Option<Vec<u8>>) -> Option<Built> {
    let (version, info) = go_strings(section, memory)?;
    let info = info.get(16..info.len().checked_sub(16)?)?;
    let (mut name, mut main, mut parts): (String, Option<Package>, Vec<Package>) =
        (String::new(), None, Vec::new());
    for line in String::from_utf8_lossy(info).lines() {
        match line.split('\t').collect::<Vec<_>>().as_slice() {
            ["path", path] => name = (*path).to_string(),
            ["mod", path, version, ..] => main = Some(package("golang", path, known(version))),
            ["dep", path, version, ..] => parts.push(package("golang", path, known(version))),
            ["=>", path, version, ..] => {
                if let Some(last) = parts.last_mut() {
                    *last = package("golang", path, known(version));
                }
            }
            _ => {}
        }
    }
    let version = String::from_utf8_lossy(&version).into_owned();
    let release = version.split(' ').next().unwrap_or_default().trim_start_matches("go").to_string();
    parts.push(package("golang", "stdlib", &release));
    let program = main.unwrap_or_else(|| package("golang", &name, ""));
    Some(Built { path: path.into(), program, parts })
}

/// Go says `(devel)` of what has no version.
fn known(version: &str) -> &str {
    if version == "(devel)" { "" } else { version }
}

/// Go's version and the list of modules.
fn go_strings(section: &[u8], memory: &dyn Fn(u64, u64) -> Option<Vec<u8>>) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = section.windows(14).step_by(16).position(|bytes| bytes == b"\xff Go buildinf:")? * 16;
    let header = section.get(at..at + 32)?;
    let (pointer, flags) = (usize::from(header[14]), header[15]);
    if flags & 2 != 0 {
        let mut rest = section.get(at + 32..)?;
        return Some((counted(&mut rest)?, counted(&mut rest)?));
    }
    let number = |bytes: &[u8]| -> Option<u64> {
        let mut wide = [0; 8];
        wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
        if flags & 1 != 0 {
            wide.get_mut(..bytes.len())?.reverse();
        }
        Some(u64::from_le_bytes(wide))
    };
    let text = |header: u64| -> Option<Vec<u8>> {
        let words = memory(header, 2 * pointer as u64).filter(|words| words.len() == 2 * pointer)?;
        memory(number(&words[..pointer])?, number(&words[pointer..])?)
    };
    if pointer != 4 && pointer != 8 {
        return None;
    }
    Some((
        text(number(&header[16..16 + pointer])?)?,
        text(number(&header[16 + pointer..16 + 2 * pointer])?)?,
    ))
}

fn counted(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (mut length, mut shift) = (0_u64, 0);
    loop {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        length |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
        if shift > 56 {
            return None;
        }
    }
    let text = rest.get(..usize::try_from(length).ok()?)?.to_vec();
    *rest = &rest[text.len()..];
    Some(text)
}

/// What cargo-auditable put into a program: the content of `.dep-v0`.
pub fn cargo(path: &str, section: &[u8]) -> Option<Built> {
    #[derive(Deserialize)]
    struct List {
        packages: Vec<Crate>,
    }
    #[derive(Deserialize)]
    struct Crate {
        name: String,
        version: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        root: bool,
    }
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(section).take(LONGEST_LIST).read_to_end(&mut text).ok()?;
    let list: List = serde_json::from_slice(&text).ok()?;
    let (root, parts): (Vec<Crate>, Vec<Crate>) = list.packages.into_iter().partition(|one| one.root);
    let program = root.first().map(|one| package("cargo", &one.name, &one.version))?;
    // What only ran while it was built is not in it.
    let parts = parts.iter().filter(|one| one.kind != "build");
    let parts = parts.map(|one| package("cargo", &one.name, &one.version)).collect();
    Some(Built { path: path.into(), program, parts })
}

/// `ID` and `VERSION_ID` of `/etc/os-release`.
pub fn distribution(release: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(release);
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches(['"', '\'']).to_string()
    };
    (field("ID"), field("VERSION_ID"))
}

/// The installed packages in dpkg's `status`, or in one file of `status.d`.
pub fn dpkg(status: &[u8], (id, release): &(String, String)) -> Vec<Package> {
    let text = String::from_utf8_lossy(status);
    let (id, distro) = distro(id, release, "debian");
    let packages = text.split("\n\n").filter_map(|stanza| {
        let field =
            |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (name, version) = (field("Package")?, field("Version")?);
        if field("Status").is_some_and(|status| !status.ends_with(" installed")) {
            return None;
        }
        let architecture = field("Architecture").unwrap_or_default();
        let qualifiers = [("arch", architecture), ("distro", distro.as_str())];
        let purl = purl("deb", &format!("{id}/{name}"), version, &qualifiers);
        Some(Package { name: name.into(), version: version.into(), purl, licence: None })
    });
    packages.collect()
}

/// The packages in apk's `installed`.
pub fn apk(installed: &[u8], (id, release): &(String, String)) -> Vec<Package> {
    let text = String::from_utf8_lossy(installed);
    let (id, distro) = distro(id, release, "alpine");
    let packages = text.split("\n\n").filter_map(|stanza| {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let (name, version) = (field("P")?, field("V")?);
        let qualifiers = [("arch", field("A").unwrap_or_default()), ("distro", distro.as_str())];
        let purl = purl("apk", &format!("{id}/{name}"), version, &qualifiers);
        let licence = field("L").map(str::to_string);
        Some(Package { name: name.into(), version: version.into(), purl, licence })
    });
    packages.collect()
}

/// The namespace and the qualifier of a distribution.
fn distro<'a>(id: &'a str, release: &str, usual: &'a str) -> (&'a str, String) {
    let id = if id.is_empty() { usual } else { id };
    (id, if release.is_empty() { String::new() } else { format!("{id}-{release}") })
}

/// The document about an image, by its name, its config's digest and when it says it was made.
pub fn document(
    name: &str,
    config: &Digest,
    created: &str,
    packages: &[Package],
    built: &[Built],
) -> Vec<u8> {
    let mut listed: BTreeMap<String, Value> = BTreeMap::new();
    let mut relations: BTreeSet<(String, &str, String)> = BTreeSet::new();
    let image = "SPDXRef-Image".to_string();
    relations.insert(("SPDXRef-DOCUMENT".into(), "DESCRIBES", image.clone()));
    for package in packages {
        let id = id_of(&package.purl);
        listed.insert(id.clone(), shown(&id, package, None));
        relations.insert((image.clone(), "CONTAINS", id));
    }
    for program in built {
        let id = id_of(&format!("{} {}", program.path, program.program.purl));
        listed.insert(id.clone(), shown(&id, &program.program, Some(&program.path)));
        relations.insert((image.clone(), "CONTAINS", id.clone()));
        for part in &program.parts {
            let inner = id_of(&part.purl);
            listed.insert(inner.clone(), shown(&inner, part, None));
            relations.insert((id.clone(), "CONTAINS", inner));
        }
    }
    let whole = json!({
        "SPDXID": image,
        "name": name,
        "versionInfo": config,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": config.hex() }],
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    });
    let all: Vec<Value> = std::iter::once(whole).chain(listed.into_values()).collect();
    let relations: Vec<Value> = relations
        .into_iter()
        .map(|(from, how, to)| {
            json!({ "spdxElementId": from, "relationshipType": how, "relatedSpdxElement": to })
        })
        .collect();
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:vcbuild:spdx:{}", config.hex()),
        "creationInfo": { "created": created, "creators": ["Tool: vcbuild"] },
        "packages": all,
        "relationships": relations,
    });
    match serde_json::to_vec(&document) {
        Ok(bytes) => bytes,
        Err(error) => panic!("BUG: a document cannot be written: {error}"),
    }
}

fn id_of(text: &str) -> String {
    format!("SPDXRef-Package-{}", &Digest::of(text.as_bytes()).hex()[..20])
}

fn shown(id: &str, package: &Package, path: Option<&str>) -> Value {
    // Databases hold words that are no SPDX licence: as a comment they do no harm.
    let mut shown = json!({
        "SPDXID": id,
        "name": package.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.purl,
        }],
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    });
    if !package.version.is_empty() {
        shown["versionInfo"] = package.version.as_str().into();
    }
    if let Some(licence) = &package.licence {
        shown["licenseComments"] = licence.as_str().into();
    }
    if let Some(path) = path {
        shown["packageFileName"] = path.into();
        shown["primaryPackagePurpose"] = "APPLICATION".into();
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn purls(packages: &[Package]) -> Vec<&str> {
        packages.iter().map(|package| package.purl.as_str()).collect()
    }

    #[test]
    fn databases_are_read() {
        let debian = distribution(b"NAME=x\nID=debian\nVERSION_ID=\"12\"\n");
        let status = b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u4\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
            Package: g++\nVersion: 4:12.2.0-3\nDescription: x\n Version: no\n";
        assert_eq!(
            purls(&dpkg(status, &debian)),
            [
                "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12",
                "pkg:deb/debian/g%2B%2B@4:12.2.0-3?distro=debian-12"
            ]
        );
        let installed = b"C:Q1x=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\nF:lib\n\nP:busybox\nV:1.36\n\n";
        let found = apk(installed, &distribution(b""));
        assert_eq!(
            purls(&found),
            ["pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64", "pkg:apk/alpine/busybox@1.36"]
        );
        assert_eq!(found[0].licence.as_deref(), Some("MIT"));
    }

    fn go_section(info: &str) -> Vec<u8> {
        let mut section = b"\xff Go buildinf:\x08\x02".to_vec();
        section.resize(32, 0);
        let framed = format!("{0}{info}{0}", "0123456789abcdef");
        for text in ["go1.22.1 X:y", &framed] {
            let mut length = text.len();
            while length >= 0x80 {
                section.push(length as u8 | 0x80);
                length >>= 7;
            }
            section.push(length as u8);
            section.extend(text.as_bytes());
        }
        section
    }

    #[test]
    fn go_and_cargo_say_what_is_inside() {
        let info = "path\texample.com/cmd/app\nmod\texample.com\t(devel)\t\ndep\tgolang.org/x/sys\tv0.1.0\th1:x\n\
            dep\tgithub.com/a/b\tv1.0.0\n=>\tgithub.com/c/b\tv1.0.1\th1:y\nbuild\tCGO_ENABLED=0\n";
        let built = go("bin/app", &go_section(info), &|_, _| None).unwrap();
        assert_eq!(built.program.purl, "pkg:golang/example.com");
        assert_eq!(
            purls(&built.parts),
            [
                "pkg:golang/golang.org/x/sys@v0.1.0",
                "pkg:golang/github.com/c/b@v1.0.1",
                "pkg:golang/stdlib@1.22.1"
            ]
        );
        let list = r#"{"packages":[{"name":"app","version":"1.0.0","source":"local","root":true,"dependencies":[1]},
            {"name":"serde","version":"1.0.2","source":"crates.io"},{"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"}]}"#;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut zlib, list.as_bytes()).unwrap();
        let built = cargo("bin/app", &zlib.finish().unwrap()).unwrap();
        assert_eq!(
            (built.program.purl.as_str(), purls(&built.parts)),
            ("pkg:cargo/app@1.0.0", vec!["pkg:cargo/serde@1.0.2"])
        );
        assert_eq!(cargo("x", b"no zlib"), None);
    }

    #[test]
    fn the_document_does_not_depend_on_order() {
        let (one, two) = (package("cargo", "a", "1"), package("golang", "b/c", "v2"));
        let program =
            Built { path: "bin/x".into(), program: one.clone(), parts: vec![two.clone(), one.clone()] };
        let config = Digest::sha256_of(b"config");
        let write = |packages: &[Package]| {
            document(
                "example.com/x:1",
                &config,
                "1970-01-01T00:00:00Z",
                packages,
                std::slice::from_ref(&program),
            )
        };
        let text = write(&[one.clone(), two.clone()]);
        assert_eq!(text, write(&[two, one.clone(), one]));
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["packages"].as_array().unwrap().len(), 4);
        assert_eq!(value["relationships"].as_array().unwrap().len(), 6);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), flags in any::<u8>()) {
            let mut section = b"\xff Go buildinf:\x08".to_vec();
            section.push(flags);
            section.extend(&bytes);
            let _ = go("x", &section, &|_, most| Some(vec![7; most.min(64) as usize]));
            let _ = cargo("x", &bytes);
            let _ = dpkg(&bytes, &distribution(&bytes));
            let _ = apk(&bytes, &distribution(&bytes));
        }
    }
}
