//! Names of images, read and completed as Docker does (distribution/reference, "Grammar").
//! Knows no registry: a name is text.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// A complete name of an image: `docker.io/library/debian:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The registry's host, with its port if it has one: `docker.io`.
    pub registry: String,
    /// The path in the registry: `library/debian`.
    pub path: String,
    /// The tag; `latest` if the text had neither tag nor digest.
    pub tag: Option<String>,
    /// The manifest's digest, always SHA-256.
    pub digest: Option<Digest>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = super::quoted(text);
        let wrong = |why: &str| Err(format!("{shown} is not an image name: {why}"));
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => match digest.parse() {
                Ok(digest @ Digest::Sha256(_)) => (rest, Some(digest)),
                _ => return wrong("after `@` there must be `sha256:` and 64 hex digits"),
            },
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return wrong("a tag has 1 to 128 of `A-Za-z0-9_.-` and begins with none of `.-`");
        }
        if name.len() == 64 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return wrong("64 hex digits would be taken for an image's id");
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry_like(first) => (first, path),
            _ => ("docker.io", name),
        };
        if !is_registry(registry) {
            return wrong("before the first `/` there is no host name");
        }
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let path = match registry {
            "docker.io" if !path.contains('/') => format!("library/{path}"),
            _ => path.to_string(),
        };
        if !path.split('/').all(is_component) {
            return wrong(
                "a path has lower-case letters and digits, with single `.`, `_`, `__` or `-` between",
            );
        }
        if registry.len() + 1 + path.len() > 255 {
            return wrong("it is longer than 255 bytes");
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_string()),
            (tag, _) => tag.map(str::to_string),
        };
        Ok(Self { registry: registry.to_string(), path, tag, digest })
    }
}

/// The name under which an image is deployed: it never moves (design, "Content tags").
/// `repository` is complete, `manifest` the digest of the top descriptor.
pub fn content_tag(repository: &str, manifest: &Digest) -> String {
    format!("{repository}:vc-{}", &manifest.hex()[..16])
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    matches!(tag.as_bytes(), [first, rest @ ..]
        if word(*first) && rest.len() < 128 && rest.iter().all(|&c| word(c) || c == b'.' || c == b'-'))
}

/// Whether the text before the first slash is meant as a registry.
fn is_registry_like(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.bytes().any(|c| c.is_ascii_uppercase())
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return !address.is_empty() && address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':');
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = text;
    loop {
        let word = rest.trim_start_matches(plain);
        if word.len() == rest.len() {
            return false;
        }
        if word.is_empty() {
            return true;
        }
        let after = word.trim_start_matches(['.', '_', '-']);
        let separator = &word[..word.len() - after.len()];
        let dashes = separator.trim_matches('-').is_empty() && !separator.is_empty();
        if !dashes && !matches!(separator, "." | "_" | "__") {
            return false;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let hex = "a".repeat(64);
        for (text, whole) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("a/b", "docker.io/a/b:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/debian:x", "docker.io/library/debian:x"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x/y:1", "localhost:5000/x/y:1"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("r.example:443/x", "r.example:443/x:latest"),
            ("[::1]:5000/x:t", "[::1]:5000/x:t"),
            ("HOST/x", "HOST/x:latest"),
            ("a--b__c.d_e", "docker.io/library/a--b__c.d_e:latest"),
            (&format!("x@sha256:{hex}"), &format!("docker.io/library/x@sha256:{hex}")),
            (&format!("x:t@sha256:{hex}"), &format!("docker.io/library/x:t@sha256:{hex}")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), whole, "{text}");
            assert_eq!(whole.parse(), Ok(reference));
        }
    }

    #[test]
    fn wrong_names_are_refused() {
        let long = "a".repeat(250);
        let tag = format!("x:{}", "t".repeat(129));
        let id = "a".repeat(64);
        for text in [
            "",
            ":",
            "@",
            "x:",
            "x:-t",
            "x:.t",
            "x:a b",
            "X",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "a/../b",
            "a___b",
            "a._b",
            "-a",
            "a-",
            "a.",
            "h.:1/x",
            "-h.x/y",
            "h.x:p/y",
            "[]:1/x",
            "x@sha256:00",
            "x@sha512:00",
            "x@",
            "x\n",
            "x y",
            "ä",
            &long,
            &tag,
            &id,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert_eq!(
            "a\x1b/B".parse::<Reference>().unwrap_err(),
            "`a\\u{1b}/B` is not an image name: a path has lower-case letters and digits, with single `.`, `_`, `__` or `-` between"
        );
    }

    #[test]
    fn content_tags_have_sixteen_digits() {
        let digest = Digest::sha256_of(b"");
        assert_eq!(content_tag("docker.io/a/b", &digest), "docker.io/a/b:vc-e3b0c44298fc1c14");
        assert!(content_tag("docker.io/a/b", &digest).parse::<Reference>().is_ok());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_complete(text in "[a-zA-Z0-9.:/@_\\-\\[\\]]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }
    }
}
