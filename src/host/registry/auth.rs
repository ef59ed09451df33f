//! How a registry wants to be told who asks (distribution, "Token Authentication"; RFC 7617), and telling
//! it. Tokens live as long as their place and are never shown.

use std::sync::PoisonError;

use base64::Engine as _;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, Url};
use serde::Deserialize;

use super::call::Ask;
use super::credentials::{self, Credentials};
use super::{Place, api_host};
use crate::error::{Failure, Result};
use crate::host::node::Trouble;

/// The longest answer of a token server, in bytes.
const LONGEST: u64 = 1 << 20;

/// What a registry wants.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// Who has found out what to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// The one who asked.
    Here,
    /// Somebody else, who was refused at the same time.
    Elsewhere,
}

impl Place<'_> {
    /// Finds out what a refusal of what was `shown` asks for, and shows it from now on. Fails if the user has
    /// nothing to show, or nothing else.
    pub(super) fn authorize(
        &self,
        refusal: &Response,
        shown: Option<&HeaderValue>,
    ) -> Result<Renewed, Trouble> {
        let _one = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shown().as_ref() != shown {
            return Ok(Renewed::Elsewhere);
        }
        let Some(challenge) = Challenge::of(refusal.headers()) else {
            return Err(self.failed("it refuses, and does not say what it wants").into());
        };
        let around = &self.around;
        let credentials = credentials::find(around.env, &self.host, &self.path, around.watch)?;
        let header = match (challenge, credentials) {
            (_, Some(Credentials::Bearer(token))) => format!("Bearer {token}"),
            (Challenge::Basic, Some(Credentials::Password(name, word))) => basic(&name, &word),
            (Challenge::Basic, _) => return Err(self.stranger().into()),
            (Challenge::Bearer { realm, service }, credentials) => {
                format!("Bearer {}", self.token(&realm, service.as_deref(), credentials)?)
            }
        };
        let odd = |_| self.failed("the credentials for it cannot be sent: they have odd characters");
        let mut header = HeaderValue::from_str(&header).map_err(odd)?;
        header.set_sensitive(true);
        if Some(&header) == shown {
            return Err(self.stranger().into());
        }
        *self.shown() = Some(header);
        Ok(Renewed::Here)
    }

    /// There is nothing to show, or what was shown is not taken.
    pub(super) fn stranger(&self) -> Failure {
        let shown = self.shown().is_some();
        let why = if shown { "it does not take what we show" } else { "it wants to know who asks" };
        self.failed(why).hint(format!("`docker login {0}` or `podman login {0}`", self.host))
    }

    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        credentials: Option<Credentials>,
    ) -> Result<String, Trouble> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let safe = |url: &Url| url.scheme() == "https" || (self.spec.insecure && url.scheme() == "http");
        let mut url = match Url::parse(realm) {
            Ok(url) if safe(&url) => url,
            _ => return Err(self.failed("it sends us for a token to where no secret may go").into()),
        };
        let mut ask = Ask::new(Method::GET, url.clone());
        let mut query: Vec<(&str, &str)> =
            service.map(|service| ("service", service)).into_iter().collect();
        if let Some(Credentials::Identity(token)) = &credentials {
            let scopes = self.scopes.join(" ");
            query.extend([("grant_type", "refresh_token"), ("client_id", "vcbuild")]);
            query.extend([("scope", scopes.as_str()), ("refresh_token", token)]);
            ask.method = Method::POST;
            ask.header("content-type", "application/x-www-form-urlencoded");
            let mut form = url.clone();
            form.set_query(None);
            form.query_pairs_mut().extend_pairs(&query);
            ask.body = form.query().unwrap_or_default().as_bytes().to_vec();
        } else {
            query.extend(self.scopes.iter().map(|scope| ("scope", scope.as_str())));
            url.query_pairs_mut().extend_pairs(&query);
            ask.url = url;
        }
        if let Some(Credentials::Password(name, word)) = &credentials {
            ask.header("authorization", &basic(name, word));
        }
        let answer = self.call_plain(&ask)?;
        if !answer.status().is_success() {
            let taken = matches!(answer.status().as_u16(), 400 | 401 | 403);
            return Err(match (taken, &credentials) {
                (true, Some(_)) => {
                    let hint = format!("`docker login {}`", self.host);
                    self.failed("its token server does not take the credentials").hint(hint).into()
                }
                (true, None) => self.stranger().into(),
                (false, _) => {
                    let status = answer.status().as_u16();
                    self.failed(format!("its token server answers {status}")).into()
                }
            });
        }
        let odd = || self.failed("its token server answers with something else than a token");
        let bytes = self.whole(answer, LONGEST)?.ok_or_else(odd)?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| odd())?;
        let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
        Ok(token.filter(|token| !token.is_empty()).ok_or_else(odd)?)
    }

    /// Whether what is shown to the registry may be shown to this address too.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.scheme() == self.base.scheme()
            && url.host_str() == self.base.host_str()
            && url.port_or_known_default() == self.base.port_or_known_default()
    }

    /// A failure at this place.
    pub(super) fn failed(&self, why: impl AsRef<str>) -> Failure {
        let own = api_host(&self.host) == self.host;
        let host =
            if own { self.host.clone() } else { format!("{} ({})", self.host, api_host(&self.host)) };
        Failure::new(format!("the registry `{host}`: {}", why.as_ref()))
    }
}

fn basic(name: &str, word: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{word}"));
    format!("Basic {text}")
}

impl Challenge {
    /// The strongest challenge that we can meet (RFC 9110 section 11.6.1).
    fn of(headers: &HeaderMap) -> Option<Self> {
        let all: Vec<&str> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let bearer = all.iter().find_map(|text| {
            let fields = fields(after(text, "bearer")?);
            let field =
                |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            let realm = field("realm").filter(|realm| !realm.is_empty())?;
            Some(Self::Bearer { realm, service: field("service") })
        });
        bearer.or_else(|| all.iter().any(|text| after(text, "basic").is_some()).then_some(Self::Basic))
    }
}

/// What follows the name of a scheme.
fn after<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (name, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    name.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `a="b",c=d` as pairs; names in lower case.
fn fields(text: &str) -> Vec<(String, String)> {
    let (mut found, mut chars) = (Vec::new(), text.chars().peekable());
    while chars.peek().is_some() {
        let name: String = chars.by_ref().take_while(|c| *c != '=').collect();
        let name = name.trim_matches([' ', ',', '\t']).to_lowercase();
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
        } else {
            value.extend(std::iter::from_fn(|| chars.next_if(|c| *c != ',' && *c != ' ')));
        }
        found.push((name, value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let of = |texts: &[&str]| {
            let mut headers = HeaderMap::new();
            for text in texts {
                headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
            }
            Challenge::of(&headers)
        };
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_string) })
        };
        let full = r#"Bearer realm="https://t.example/token?a=b",service="r, x",scope="repository:x:pull""#;
        assert_eq!(of(&[full]), bearer("https://t.example/token?a=b", Some("r, x")));
        assert_eq!(of(&["Basic realm=x", r#"bearer Realm="a\"b""#]), bearer("a\"b", None));
        assert_eq!(of(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(of(&["Bearer service=x", "Digest realm=x", "Bearer realm"]), None);
        assert_eq!(of(&[]), None);
    }
}
