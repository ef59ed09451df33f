//! Writing to a repository: what is there is asked first, blobs are taken over from other repositories, sent
//! in one piece or in many, and an upload that was cut goes on where it ended. Names come last, by the caller.

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};

use super::Place;
use super::call::{Ask, Patience, passing};
use super::pull::{DIGEST, named, text};
use crate::digest::{Blob, Digest};
use crate::error::Result;
use crate::host::http::{broken, retry_after};
use crate::host::node::Trouble;
use crate::recipe::{Content, Part, Recipe};

/// Up to this size a blob is sent with one request; larger ones can go on when they are cut.
const SMALL: u64 = 4 << 20;
/// The pieces for registries that take no larger ones, and the smallest that are worth a try.
const PIECE: u64 = 4 << 20;
const SMALLEST: u64 = 64 << 10;
/// What a large body is.
const BYTES: &str = "application/octet-stream";

/// How a blob came to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The registry had it in another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// An upload that was begun.
struct Session {
    url: Url,
    /// How many bytes are there.
    at: u64,
}

/// What was sent of an upload.
struct Piece {
    /// Whether the blob is whole with it.
    ends: bool,
    /// Its bytes.
    length: u64,
    /// What was shown to the registry.
    shown: Option<HeaderValue>,
}

/// What a step of an upload led to.
enum Step {
    Done(Sent),
    /// Goes on, something having come of it.
    On(Session),
    /// Goes on after a look at what is there.
    Look(Session, String, Option<std::time::Duration>),
    /// The session is gone.
    Anew(String),
    /// The piece was too large.
    Smaller(Session),
}

/// A blob on its way.
struct Load<'a> {
    blob: &'a Blob,
    recipe: Recipe,
    content: &'a dyn Content,
    /// The largest piece.
    most: u64,
}

impl Place<'_> {
    /// Whether a blob is there with its size.
    pub fn has(&self, blob: &Blob) -> Result<bool, Trouble> {
        let answer = self.call(&Ask::new(Method::HEAD, self.url(&format!("blobs/{}", blob.digest))?))?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            StatusCode::OK => {
                let length = text(answer.headers(), CONTENT_LENGTH.as_str()).parse::<u64>();
                Ok(length.is_ok_and(|length| length == blob.size))
            }
            _ => Err(self.refused(&format!("look for `{}`", blob.digest), answer).into()),
        }
    }

    /// The document behind a tag or digest.
    pub fn behind(&self, reference: &str, accept: &[&str]) -> Result<Option<Digest>, Trouble> {
        let mut ask = Ask::new(Method::HEAD, self.url(&format!("manifests/{reference}"))?);
        ask.header("accept", &accept.join(", "));
        let answer = self.call(&ask)?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            // Who does not say the digest is taken to have something else.
            StatusCode::OK => Ok(text(answer.headers(), DIGEST).parse().ok()),
            _ => Err(self.refused(&format!("look for `{}`", named(&self.path, reference)), answer).into()),
        }
    }

    /// Gives a tag, or only its digest, to a document whose blobs are there.
    pub fn put(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<(), Trouble> {
        let mut ask = Ask::new(Method::PUT, self.url(&format!("manifests/{reference}"))?);
        ask.header("content-type", media_type);
        ask.body = bytes.to_vec();
        let answer = self.call(&ask)?;
        if answer.status() != StatusCode::CREATED {
            return Err(self.refused(&format!("write `{}`", named(&self.path, reference)), answer).into());
        }
        let (is, said) = (Digest::sha256_of(bytes), text(answer.headers(), DIGEST));
        match said.parse() {
            Ok(said @ Digest::Sha256(_)) if said != is => {
                Err(self.failed(format!("it took `{said}` for `{is}`")).into())
            }
            _ => Ok(()),
        }
    }

    /// Brings a blob that is not there; first from the repository `from` of the same registry.
    pub fn upload(
        &self,
        blob: &Blob,
        part: &Part,
        content: &dyn Content,
        from: Option<&str>,
    ) -> Result<Sent, Trouble> {
        let mut recipe = Recipe::new();
        recipe.push(part);
        let mut load = Load { blob, recipe, content, most: u64::MAX };
        let (mut patience, mut session, mut from) = (Patience::new(), None, from);
        loop {
            let step = match session.take() {
                Some(session) => self.send(&load, session)?,
                None => self.begin(&mut load, from.take())?,
            };
            match step {
                Step::Done(how) => return Ok(how),
                Step::On(next) => {
                    if next.at > 0 {
                        patience.renew();
                    }
                    session = Some(next);
                }
                Step::Smaller(next) => {
                    load.most = load.most.min(blob.size).min(2 * PIECE) / 2;
                    if load.most < SMALLEST {
                        return Err(self.failed("it takes no pieces of a blob, however small").into());
                    }
                    session = self.look(next)?;
                }
                Step::Look(next, why, after) => {
                    let before = next.at;
                    self.again(&mut patience, &why, after)?;
                    session = self.look(next)?;
                    if session.as_ref().is_some_and(|now| now.at > before) {
                        patience.renew();
                    } else if load.most > PIECE {
                        // Some cut the line instead of saying that it is too much.
                        load.most = PIECE;
                    }
                }
                Step::Anew(why) => {
                    self.again(&mut patience, &why, None)?;
                    if self.has(blob)? {
                        return Ok(Sent::Uploaded);
                    }
                }
            }
        }
    }

    /// Begins an upload, or has the blob taken over.
    fn begin(&self, load: &mut Load<'_>, from: Option<&str>) -> Result<Step, Trouble> {
        let mut url = self.url("blobs/uploads/")?;
        if let Some(from) = from {
            let digest = load.blob.digest.to_string();
            url.query_pairs_mut().append_pair("mount", &digest).append_pair("from", from);
        }
        let answer = self.call(&Ask::new(Method::POST, url.clone()))?;
        match answer.status() {
            StatusCode::CREATED if from.is_some() => Ok(Step::Done(Sent::Mounted)),
            StatusCode::ACCEPTED => {
                if let Ok(least) = text(answer.headers(), "oci-chunk-min-length").parse::<u64>() {
                    load.most = load.most.max(least);
                }
                Ok(Step::On(Session { url: self.location(&url, &answer)?, at: 0 }))
            }
            // Some refuse what they cannot take over, instead of beginning an upload.
            _ if from.is_some() => self.begin(load, None),
            _ => Err(self.refused("begin an upload", answer).into()),
        }
    }

    /// Sends the next piece, or ends an upload that is whole.
    fn send(&self, load: &Load<'_>, session: Session) -> Result<Step, Trouble> {
        let Session { url, at } = session;
        let size = load.blob.size;
        let length = (size - at).min(load.most);
        let whole = at == 0 && length == size && size <= SMALL;
        let ends = whole || at == size;
        let (method, target) = match ends {
            true => {
                let mut target = url.clone();
                target.query_pairs_mut().append_pair("digest", &load.blob.digest.to_string());
                (Method::PUT, target)
            }
            false => (Method::PATCH, url.clone()),
        };
        let mut request = self.request(method, target.clone())?.header(CONTENT_TYPE, BYTES);
        if !ends {
            request = request.header(CONTENT_RANGE, format!("{at}-{}", at + length - 1));
        }
        let (http, watch, shown) = (self.http()?, self.around.watch, self.shown().clone());
        let answer = match length {
            0 => http.send(watch, request.header(CONTENT_LENGTH, "0").body(""))?,
            _ => http.stream(watch, &load.recipe, (at, length), load.content, |body| request.body(body))?,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let why = self.worth_it(broken(error), &mut Patience::new())?;
                return Ok(Step::Look(Session { url, at }, why, None));
            }
        };
        self.judge(load, answer, Session { url, at }, &Piece { ends, length, shown })
    }

    fn judge(
        &self,
        load: &Load<'_>,
        answer: Response,
        session: Session,
        piece: &Piece,
    ) -> Result<Step, Trouble> {
        let (status, Piece { ends, length, shown }) = (answer.status(), piece);
        match status {
            StatusCode::CREATED if *ends => {
                let said = text(answer.headers(), DIGEST);
                match said.parse() {
                    Ok(said @ Digest::Sha256(_)) if said != load.blob.digest => {
                        Err(self.failed(format!("it took `{said}` for `{}`", load.blob.digest)).into())
                    }
                    _ => Ok(Step::Done(Sent::Uploaded)),
                }
            }
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT if !*ends => {
                let at = range(&answer).unwrap_or(session.at + length).min(session.at + length);
                let url = self.location(&session.url, &answer)?;
                if at <= session.at {
                    return Ok(Step::Look(Session { url, at }, "it takes nothing".into(), None));
                }
                Ok(Step::On(Session { url, at }))
            }
            StatusCode::UNAUTHORIZED => {
                // A token lives for a minute, and an upload longer.
                self.authorize(&answer, shown.as_ref())?;
                Ok(Step::Look(
                    session,
                    "it does not take what we show".into(),
                    Some(std::time::Duration::ZERO),
                ))
            }
            StatusCode::PAYLOAD_TOO_LARGE if *length > 0 => Ok(Step::Smaller(session)),
            StatusCode::NOT_FOUND => Ok(Step::Anew("it has forgotten an upload".into())),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(Step::Look(session, "it has another part of the blob".into(), None))
            }
            _ => match passing(status) {
                Some(why) => {
                    let after = retry_after(&answer);
                    Ok(Step::Look(session, why, after))
                }
                None => Err(self.refused(&format!("send `{}`", load.blob.digest), answer).into()),
            },
        }
    }

    /// What is there of an upload; `None` if it is gone.
    fn look(&self, session: Session) -> Result<Option<Session>, Trouble> {
        let answer = self.call(&Ask::new(Method::GET, session.url.clone()))?;
        if answer.status() != StatusCode::NO_CONTENT {
            return Ok(None);
        }
        // Some name no place to go on at: then it is the same.
        let url = self.location(&session.url, &answer).unwrap_or(session.url);
        Ok(range(&answer).map(|at| Session { url, at }))
    }
}

/// How many bytes of an upload are there. `0-0` is said for none, too.
fn range(answer: &Response) -> Option<u64> {
    let text = text(answer.headers(), "range");
    let (start, end) = text.trim_start_matches("bytes=").split_once('-')?;
    let end: u64 = end.parse().ok()?;
    (start == "0").then_some(if end == 0 { 0 } else { end + 1 })
}
