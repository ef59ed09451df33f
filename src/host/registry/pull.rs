//! Reading from a repository: documents whole and bounded, blobs as streams that go on where they were cut.
//! What does not have its digest is refused.

use std::io::Write;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use super::Place;
use super::call::{Ask, Patience};
use crate::digest::{Blob, Digest, Hasher};
use crate::error::{Error, Result, io_words};
use crate::host::http::{begins_at, broken};
use crate::host::node::Trouble;

/// So much of a blob is worth as many tries as all of it.
const PROGRESS: u64 = 64 << 10;

/// A document of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What the registry says it is, without parameters.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their SHA-256.
    pub digest: Digest,
}

impl Place<'_> {
    /// The document behind a tag or digest, of at most `most` bytes. `accept` is what the caller can read.
    pub fn document(&self, reference: &str, accept: &[&str], most: u64) -> Result<Document, Trouble> {
        let mut ask = Ask::new(Method::GET, self.url(&format!("manifests/{reference}"))?);
        ask.header("accept", &accept.join(", "));
        let doing = format!("read `{}`", named(&self.path, reference));
        let (headers, bytes) = self.read(&ask, &doing, most)?;
        let media_type = text(&headers, "content-type");
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_string();
        let promised = text(&headers, DIGEST);
        let too_long = || self.failed(format!("`{reference}` has more than {most} bytes"));
        let bytes = bytes.ok_or_else(too_long)?;
        let digest = Digest::sha256_of(&bytes);
        for wanted in [promised.as_str(), reference] {
            if let Ok(wanted @ Digest::Sha256(_)) = wanted.parse()
                && wanted != digest
            {
                return Err(self.failed(format!("it sends `{digest}` for `{wanted}`")).into());
            }
        }
        Ok(Document { media_type, bytes, digest })
    }

    /// A small blob whose size need not be known.
    pub fn small(&self, digest: &Digest, most: u64) -> Result<Vec<u8>, Trouble> {
        let ask = Ask::new(Method::GET, self.url(&format!("blobs/{digest}"))?);
        let (_, bytes) = self.read(&ask, &format!("read `{digest}`"), most)?;
        let too_long = || self.failed(format!("`{digest}` has more than {most} bytes"));
        let bytes = bytes.ok_or_else(too_long)?;
        match Digest::sha256_of(&bytes) {
            is if is == *digest => Ok(bytes),
            is => Err(self.failed(format!("it sends `{is}` for `{digest}`")).into()),
        }
    }

    /// Streams a blob. Of what was written nothing counts when this fails.
    pub fn blob(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), Trouble> {
        let (mut hasher, mut done, mut counted) = (blob.digest.hasher(), 0, 0);
        let mut patience = Patience::new();
        while done < blob.size {
            if done - counted >= PROGRESS {
                counted = done;
                patience.renew();
            }
            match self.rest(blob, done, &mut hasher, to)? {
                (more, None) => done += more,
                (more, Some(why)) => {
                    done += more;
                    self.again(&mut patience, &why, None)?;
                }
            }
        }
        match hasher.finish() {
            is if is == blob.digest => Ok(()),
            is => Err(self.failed(format!("it sends `{is}` for `{}`", blob.digest)).into()),
        }
    }

    /// Streams a blob from a byte on: how many came, and why not all of them.
    fn rest(
        &self,
        blob: &Blob,
        from: u64,
        hasher: &mut Hasher,
        to: &mut dyn Write,
    ) -> Result<(u64, Option<String>), Trouble> {
        let mut ask = Ask::new(Method::GET, self.url(&format!("blobs/{}", blob.digest))?);
        ask.header("accept-encoding", "identity");
        if from > 0 {
            ask.header("range", &format!("bytes={from}-"));
        }
        let answer = self.call(&ask)?;
        if !matches!(answer.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Err(self.refused(&format!("read `{}`", blob.digest), answer).into());
        }
        let odd = || self.failed("it goes on at another byte than it was asked for");
        let start = begins_at(&answer, from).ok_or_else(odd)?;
        if let Some(length) = answer.content_length().filter(|length| *length != blob.size - start) {
            let (digest, all) = (blob.digest, length + start);
            return Err(self.failed(format!("it has {all} bytes of `{digest}`, not {}", blob.size)).into());
        }
        let mut done = 0;
        let ended = self.http()?.pour(self.around.watch, answer, from - start, &mut |piece| {
            done += piece.len() as u64;
            if from + done > blob.size {
                let (size, digest) = (blob.size, blob.digest);
                return Err(self.failed(format!("it has more than {size} bytes of `{digest}`")).into());
            }
            hasher.update(piece);
            to.write_all(piece)
                .map_err(|error| Error::failed(format!("keep what came: {}", io_words(&error))))
        })?;
        let why = match ended {
            Ok(()) if from + done < blob.size => Some("the line is cut: it ended early".into()),
            Ok(()) => None,
            Err(error) => Some(self.worth_it(broken(error), &mut Patience::new())?),
        };
        Ok((done, why))
    }
}

/// The header in which registries say the digest of a document.
pub(super) const DIGEST: &str = "docker-content-digest";

pub(super) fn named(path: &str, reference: &str) -> String {
    let between = if reference.starts_with("sha256:") { '@' } else { ':' };
    format!("{path}{between}{reference}")
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string()
}
