//! One request and its answer: redirects, credentials, another try when it is worth one. Knows addresses and
//! no documents.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::Place;
use super::auth::Renewed;
use crate::error::{Error, Failure, Result};
use crate::host::http::{Broken, broken, is_passing, retry_after};
use crate::host::node::Trouble;

/// Redirects of one request, at most.
const MOST_REDIRECTS: usize = 10;
/// How often what is shown may have ended before one asks with it, for another found it or it was found here.
const MOST_RENEWALS: u32 = 10;
/// What one found oneself and is refused at once counts for so many: it is rarely that short-lived.
const OWN_RENEWAL: u32 = 4;
/// The longest message of a registry that is read, in bytes.
const LONGEST_WORDS: u64 = 64 << 10;

/// A request without a large body.
pub struct Ask {
    /// What to do.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// More about it.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: Vec<u8>,
}

impl Ask {
    /// A request without anything.
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Vec::new() }
    }

    /// Adds a header; one that cannot be sent is left out.
    pub fn header(&mut self, name: &'static str, value: &str) {
        if let Ok(mut value) = HeaderValue::from_str(value) {
            let name = HeaderName::from_static(name);
            value.set_sensitive(name == AUTHORIZATION);
            self.headers.append(name, value);
        }
    }
}

/// How often something is tried again, and how long is waited before.
pub struct Patience {
    tries: u32,
    all: u32,
}

impl Patience {
    /// Tries in a row that come to nothing.
    const TRIES: u32 = 6;
    /// Tries in all: a line that is cut again and again must end too.
    const ALL: u32 = 200;
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(15);
    /// A registry that wants to be left alone for longer than this is.
    const TOO_LONG: Duration = Duration::from_secs(120);

    /// All of it.
    pub fn new() -> Self {
        Self { tries: 0, all: 0 }
    }

    /// Something came of the last try.
    pub fn renew(&mut self) {
        self.tries = 0;
    }
}

impl Place<'_> {
    /// Waits before another try; fails with why there was none better if it is not worth one.
    pub(super) fn again(
        &self,
        patience: &mut Patience,
        why: &str,
        after: Option<Duration>,
    ) -> Result<(), Trouble> {
        (patience.tries, patience.all) = (patience.tries + 1, patience.all + 1);
        if patience.tries >= Patience::TRIES || patience.all >= Patience::ALL {
            return Err(self.failed(format!("{why} ({} times)", patience.tries)).into());
        }
        if let Some(after) = after.filter(|after| *after > Patience::TOO_LONG) {
            let seconds = after.as_secs();
            return Err(self.failed(format!("{why}, and wants to be left alone for {seconds} s")).into());
        }
        let usual = (Patience::FIRST * 2_u32.pow(patience.tries - 1)).min(Patience::LONGEST);
        Ok(self.http()?.pause(self.around.watch, after.unwrap_or(usual))?)
    }

    /// The address of something of the repository.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.base.join(path).map_err(|_| self.failed("it has an odd name").into())
    }

    /// An address that an answer names.
    pub(super) fn location(&self, from: &Url, answer: &Response) -> Result<Url, Failure> {
        let text = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = text
            .and_then(|text| from.join(text).ok())
            .ok_or_else(|| self.failed("it does not say where to go on"))?;
        let downgrade = url.scheme() != "https" && !(self.spec.insecure && url.scheme() == "http");
        if downgrade {
            return Err(self.failed("it sends us to where the line is not safe"));
        }
        Ok(url)
    }

    /// A request with all that it needs; what is secret goes only to the registry itself.
    pub(super) fn request(&self, method: Method, url: Url) -> Result<RequestBuilder> {
        let own = self.is_own(&url);
        let mut request = self.http()?.client().request(method, url);
        if let Some(header) = self.shown().as_ref().filter(|_| own) {
            request = request.header(AUTHORIZATION, header.clone());
        }
        Ok(request)
    }

    /// The answer to a request, after redirects; what is worth another try gets one.
    pub(super) fn call(&self, ask: &Ask) -> Result<Response, Trouble> {
        let mut tries = 0;
        loop {
            let shown = self.shown().clone();
            let answer = self.call_with(ask, true)?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            if tries >= MOST_RENEWALS {
                return Err(self.stranger().into());
            }
            // Also a token that has expired meanwhile is renewed here.
            tries += match self.authorize(&answer, shown.as_ref())? {
                Renewed::Here => OWN_RENEWAL,
                Renewed::Elsewhere => 1,
            };
        }
    }

    /// The same, not at the registry: nothing is shown that `ask` does not hold.
    pub(super) fn call_plain(&self, ask: &Ask) -> Result<Response, Trouble> {
        self.call_with(ask, false)
    }

    fn call_with(&self, ask: &Ask, own: bool) -> Result<Response, Trouble> {
        let mut patience = Patience::new();
        loop {
            let answer = match self.once(ask, own)? {
                Ok(answer) => answer,
                Err(broken) => {
                    let why = self.worth_it(broken, &mut patience)?;
                    self.again(&mut patience, &why, None)?;
                    continue;
                }
            };
            let Some(why) = passing(answer.status()) else { return Ok(answer) };
            let after = retry_after(&answer);
            self.again(&mut patience, &why, after)?;
        }
    }

    /// Why another try is worth it; fails if none is.
    pub(super) fn worth_it(&self, broken: Broken, patience: &mut Patience) -> Result<String, Trouble> {
        match broken {
            Broken::Cut(why) => Ok(format!("the line is cut: {why}")),
            // One who is not there rarely comes back within seconds.
            Broken::Absent(why) if patience.tries > 0 => Err(Trouble::Unreachable(why)),
            Broken::Absent(why) => Ok(why),
            Broken::Wrong(failure) => {
                let host = &self.host;
                let hint = match failure.message.contains("TLS") {
                    true => format!("if it speaks plain http: `[registry.\"{host}\"] insecure = true`"),
                    false => format!("its own authority goes here: `[registry.\"{host}\"] ca = \"FILE\"`"),
                };
                Err(self.failed(&failure.message).hint(hint).into())
            }
        }
    }

    fn once(&self, ask: &Ask, own: bool) -> Result<Result<Response, Broken>, Trouble> {
        let (http, mut url) = (self.http()?, ask.url.clone());
        for _ in 0..=MOST_REDIRECTS {
            let request = match own {
                true => self.request(ask.method.clone(), url.clone())?,
                false => http.client().request(ask.method.clone(), url.clone()),
            };
            let request = request.headers(ask.headers.clone()).body(ask.body.clone());
            let answer = match http.send(self.around.watch, request)? {
                Ok(answer) => answer,
                Err(error) => return Ok(Err(broken(error))),
            };
            let reads = own && matches!(ask.method, Method::GET | Method::HEAD);
            if !(reads && matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308)) {
                return Ok(Ok(answer));
            }
            url = self.location(&url, &answer)?;
        }
        Err(self.failed("it redirects in circles").into())
    }

    /// Reads something whole: its headers, and its bytes if they are at most `most`.
    pub(super) fn read(
        &self,
        ask: &Ask,
        doing: &str,
        most: u64,
    ) -> Result<(HeaderMap, Option<Vec<u8>>), Trouble> {
        let mut patience = Patience::new();
        loop {
            let answer = self.call(ask)?;
            if answer.status() != StatusCode::OK {
                return Err(self.refused(doing, answer).into());
            }
            let headers = answer.headers().clone();
            match self.http()?.whole(self.around.watch, answer, most)? {
                Ok(bytes) => return Ok((headers, bytes)),
                Err(error) => {
                    let why = self.worth_it(broken(error), &mut Patience::new())?;
                    self.again(&mut patience, &why, None)?;
                }
            }
        }
    }

    /// A whole answer of at most `most` bytes; `None` if it is longer.
    pub(super) fn whole(&self, answer: Response, most: u64) -> Result<Option<Vec<u8>>, Trouble> {
        match self.http()?.whole(self.around.watch, answer, most)? {
            Ok(bytes) => Ok(bytes),
            Err(error) => match broken(error) {
                Broken::Cut(why) | Broken::Absent(why) => {
                    Err(self.failed(format!("the line is cut: {why}")).into())
                }
                Broken::Wrong(failure) => Err(self.failed(failure.message).into()),
            },
        }
    }

    /// What a registry says to something that it does not do.
    pub(super) fn refused(&self, doing: &str, answer: Response) -> Error {
        #[derive(Deserialize)]
        struct Words {
            errors: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
            message: Option<String>,
        }
        let status = answer.status();
        let bytes = self.whole(answer, LONGEST_WORDS).ok().flatten().unwrap_or_default();
        let said =
            serde_json::from_slice::<Words>(&bytes).ok().and_then(|words| words.errors.into_iter().next());
        let said = said.map(|one| one.message.filter(|text| !text.is_empty()).unwrap_or(one.code));
        let said = said.map(|text| format!(" ({})", plain(&text))).unwrap_or_default();
        let failure = self.failed(format!("{doing}: it answers {}{said}", status.as_u16()));
        match status {
            StatusCode::FORBIDDEN => {
                let hint = format!("the user of `docker login {}` may not do that", self.host);
                failure.hint(hint).into()
            }
            _ => failure.into(),
        }
    }
}

/// What somebody else says, in one short line.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Why an answer does not count for ever.
pub fn passing(status: StatusCode) -> Option<String> {
    is_passing(status).then(|| format!("it answers {}", status.as_u16()))
}
