//! Documents about other documents (distribution-spec 1.1 "Listing Referrers"): the registry lists them itself,
//! or, where it knows nothing of that, an index does whose tag is the digest of what they are about. Knows no
//! kind of document.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Place;
use super::call::Ask;
use super::pull::text;
use crate::digest::Digest;
use crate::error::Result;
use crate::host::node::Trouble;

/// What a list is.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The longest list, or part of one, in bytes.
const LONGEST: u64 = 4 << 20;
/// Parts of a list, at most.
const MOST_PARTS: usize = 100;

/// What is about a document, and who says so.
enum Listed {
    /// The registry itself.
    ByRegistry(Vec<Value>),
    /// An index with a tag.
    ByTag(Vec<Value>),
}

impl Listed {
    fn has(&self, document: &Digest) -> bool {
        let (Self::ByRegistry(all) | Self::ByTag(all)) = self;
        let document = document.to_string();
        all.iter().any(|entry| entry["digest"] == document)
    }
}

impl Place<'_> {
    /// Whether a document is there and is listed as being about `subject`.
    pub fn is_about(&self, subject: &Digest, document: &Digest) -> Result<bool, Trouble> {
        Ok(self.listed(subject)?.has(document))
    }

    /// Has a document that is there listed as being about `subject`; `descriptor` is what lists say of it.
    pub fn list_about(
        &self,
        subject: &Digest,
        document: &Digest,
        descriptor: &Value,
    ) -> Result<(), Trouble> {
        match self.listed(subject)? {
            listed if listed.has(document) => Ok(()),
            Listed::ByRegistry(_) => {
                let message = format!("it does not list `{document}` as being about `{subject}`");
                Err(self.failed(message).hint("it may take its time: run again").into())
            }
            Listed::ByTag(mut all) => {
                all.push(descriptor.clone());
                let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": all });
                self.put(&tag(subject), INDEX, list.to_string().as_bytes())
            }
        }
    }

    fn listed(&self, subject: &Digest) -> Result<Listed, Trouble> {
        let (mut all, mut url) = (Vec::new(), self.url(&format!("referrers/{subject}"))?);
        for _ in 0..MOST_PARTS {
            let mut ask = Ask::new(Method::GET, url.clone());
            ask.header("accept", INDEX);
            let answer = self.call(&ask)?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => {
                    return self.listed_by_tag(subject);
                }
                _ => return Err(self.refused(&format!("ask what is about `{subject}`"), answer).into()),
            }
            // `</v2/…?n=…>; rel="next"`
            let link = text(answer.headers(), "link");
            let next = link.strip_prefix('<').and_then(|rest| rest.split_once('>')).map(|(next, _)| next);
            let next = next.and_then(|next| url.join(next).ok()).filter(|next| self.is_own(next));
            let Some(bytes) = self.whole(answer, LONGEST)? else {
                return Err(self.failed(format!("what is about `{subject}` is too long a list")).into());
            };
            match list(&bytes) {
                Some(part) => all.extend(part),
                // Some answer a page for people whatever is asked.
                None => return self.listed_by_tag(subject),
            }
            match next {
                Some(next) => url = next,
                None => return Ok(Listed::ByRegistry(all)),
            }
        }
        Err(self.failed(format!("what is about `{subject}` is a list without an end")).into())
    }

    fn listed_by_tag(&self, subject: &Digest) -> Result<Listed, Trouble> {
        let tag = tag(subject);
        if self.behind(&tag, &[INDEX])?.is_none() {
            return Ok(Listed::ByTag(Vec::new()));
        }
        let document = self.document(&tag, &[INDEX], LONGEST)?;
        let odd = || self.failed(format!("`{tag}` is no index"));
        Ok(Listed::ByTag(list(&document.bytes).ok_or_else(odd)?))
    }
}

/// The entries of an index.
fn list(bytes: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice::<Value>(bytes).ok()?.get_mut("manifests")?.take() {
        Value::Array(entries) => Some(entries),
        _ => None,
    }
}

/// The tag of the index that lists what is about a document.
fn tag(subject: &Digest) -> String {
    subject.to_string().replacen(':', "-", 1)
}
