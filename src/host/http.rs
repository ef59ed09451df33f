//! HTTP for the files here: one client with the user's proxies and certificates, waited for with an eye on
//! the wish to stop, and words for what went wrong. Knows no registry and no daemon.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::{CONTENT_RANGE, RETRY_AFTER};
use reqwest::{Client, NoProxy, Proxy, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::error::{Error, Failure, Result, io_words};
use crate::host::fs;
use crate::host::node::Watch;
use crate::recipe::{Content, Recipe, Sink};

/// The user's environment.
pub type Env = BTreeMap<OsString, OsString>;

/// How long a server may take to be reached.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(90);
/// How often the wish to stop is looked at during a wait.
const GLANCE: Duration = Duration::from_millis(100);
/// The longest file of certificates, in bytes.
const LONGEST_BUNDLE: u64 = 16 << 20;
/// Pieces on their way from the cache to the network, at most.
const AHEAD: usize = 16;
/// Where systems keep the certificates that everybody trusts.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client.
pub struct Http {
    runtime: Runtime,
    client: Client,
}

impl Http {
    /// A client that trusts what the system trusts (`SSL_CERT_FILE` instead, if it is set) and the
    /// certificates in `ca`, and goes through the proxies of the environment.
    pub fn new(env: &Env, ca: Option<&Path>) -> Result<Self> {
        let mut builder = client(roots(env, ca)?);
        for (name, scheme) in [("HTTPS_PROXY", "https"), ("HTTP_PROXY", "http"), ("ALL_PROXY", "all")] {
            let Some(address) = either_case(env, name).filter(|address| !address.is_empty()) else {
                continue;
            };
            // The address may hold a password: it is not shown.
            let wrong = |_| Error::failed(format!("`{name}` is not the address of a proxy"));
            let proxy = match scheme {
                "https" => Proxy::https(address),
                "http" => Proxy::http(address),
                _ => Proxy::all(address),
            };
            let none = either_case(env, "NO_PROXY").and_then(|list| NoProxy::from_string(&list));
            builder = builder.proxy(proxy.map_err(wrong)?.no_proxy(none));
        }
        Self::of(builder)
    }

    /// A client that speaks to a socket here.
    pub fn socket(path: &Path) -> Result<Self> {
        Self::of(client(RootCertStore::empty()).unix_socket(path.to_path_buf()))
    }

    fn of(builder: reqwest::ClientBuilder) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| Error::failed(format!("start the network: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("network")
            .enable_all()
            .build()
            .map_err(|error| failed(&io_words(&error)))?;
        let client = builder.build().map_err(|error| failed(&error))?;
        Ok(Self { runtime, client })
    }

    /// What requests are made with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for something, unless the user wants to stop.
    pub fn wait<T>(&self, watch: &dyn Watch, what: impl Future<Output = T>) -> Result<T> {
        self.runtime.block_on(async {
            let mut what = std::pin::pin!(what);
            loop {
                watch.check()?;
                match tokio::time::timeout(GLANCE, &mut what).await {
                    Ok(done) => return Ok(done),
                    Err(_) => continue,
                }
            }
        })
    }

    /// Sends a request.
    pub fn send(
        &self,
        watch: &dyn Watch,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Result<Response>> {
        // Its timers need the runtime already when they are made.
        self.wait(watch, async { request.send().await })
    }

    /// Lets some time pass.
    pub fn pause(&self, watch: &dyn Watch, time: Duration) -> Result<()> {
        self.wait(watch, async { tokio::time::sleep(time).await })
    }

    /// The next piece of an answer.
    pub fn piece(
        &self,
        watch: &dyn Watch,
        answer: &mut Response,
    ) -> Result<reqwest::Result<Option<Bytes>>> {
        self.wait(watch, answer.chunk())
    }

    /// Passes on a body without its first bytes: how it ended.
    pub fn pour(
        &self,
        watch: &dyn Watch,
        mut answer: Response,
        mut skip: u64,
        into: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<reqwest::Result<()>> {
        loop {
            let piece = match self.piece(watch, &mut answer)? {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= known as u64;
            into(&piece[known..])?;
            watch.moved((piece.len() - known) as u64);
        }
    }

    /// A whole answer, if it has at most `most` bytes; `None` if it has more.
    pub fn whole(
        &self,
        watch: &dyn Watch,
        mut answer: Response,
        most: u64,
    ) -> Result<reqwest::Result<Option<Vec<u8>>>> {
        let mut bytes = Vec::new();
        loop {
            match self.piece(watch, &mut answer)? {
                Ok(Some(piece)) if bytes.len() as u64 + piece.len() as u64 > most => return Ok(Ok(None)),
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => return Ok(Ok(Some(bytes))),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Sends a request whose body is `what` from the byte `from` on, `length` bytes of it. What the body
    /// could not be read for comes first.
    pub fn stream(
        &self,
        watch: &dyn Watch,
        what: &Recipe,
        (from, length): (u64, u64),
        content: &dyn Content,
        request: impl FnOnce(reqwest::Body) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Result<Response>> {
        let (sender, pieces) = mpsc::channel(AHEAD);
        let counter = Arc::new(AtomicU64::new(0));
        let body = reqwest::Body::wrap(Pieces { pieces, left: length, sent: counter.clone() });
        let request = request(body);
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut sink = Sender { sender, skip: from, left: length, closed: false };
                let read = what.send(content, &mut sink);
                // When the other side has had enough it closes; that is no failure of the content.
                if sink.closed || sink.left == 0 { Ok(()) } else { read }
            });
            let answer = self.send(&Counted { watch, sent: &counter }, request);
            // The body is gone with the request, so the reader ends too.
            let read = match reading.join() {
                Ok(read) => read,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            watch.moved(counter.swap(0, Ordering::Relaxed));
            read?;
            answer
        })
    }
}

fn client(roots: RootCertStore) -> reqwest::ClientBuilder {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(tls) => tls.with_root_certificates(roots).with_no_client_auth(),
        Err(error) => panic!("BUG: the TLS provider has no protocol: {error}"),
    };
    Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .user_agent(concat!("vcbuild/", env!("CARGO_PKG_VERSION")))
}

fn either_case(env: &Env, name: &str) -> Option<String> {
    let value =
        |name: &str| env.get(std::ffi::OsStr::new(name)).map(|value| value.to_string_lossy().into_owned());
    value(&name.to_lowercase()).or_else(|| value(name))
}

/// The certificates that are trusted.
fn roots(env: &Env, ca: Option<&Path>) -> Result<RootCertStore> {
    let own = env.get(std::ffi::OsStr::new("SSL_CERT_FILE")).map(PathBuf::from);
    let system = || BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
    let mut roots = RootCertStore::empty();
    if let Some(path) = own.or_else(system) {
        // Of all the certificates of a system some are too odd to be used.
        roots.add_parsable_certificates(certificates(&path)?);
    }
    if let Some(path) = ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| wrong_bundle(path, &error))?;
        }
    }
    Ok(roots)
}

fn wrong_bundle(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::failed(format!("`{}` is no file of certificates: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let missing = || Error::failed(format!("the certificates `{}` do not exist", path.display()));
    let text = fs::read(path, LONGEST_BUNDLE)?.ok_or_else(missing)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| wrong_bundle(path, &error))?;
    if all.is_empty() {
        return Err(wrong_bundle(path, &"it has none"));
    }
    Ok(all)
}

/// A body that comes in pieces and has a known length.
struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
    sent: Arc<AtomicU64>,
}

/// Tells how much has been sent since the last look.
struct Counted<'a> {
    watch: &'a dyn Watch,
    sent: &'a AtomicU64,
}

impl Watch for Counted<'_> {
    fn moved(&self, bytes: u64) {
        self.watch.moved(bytes);
    }

    fn check(&self) -> Result<()> {
        match self.sent.swap(0, Ordering::Relaxed) {
            0 => {}
            sent => self.watch.moved(sent),
        }
        self.watch.check()
    }

    fn waits(&self) {
        self.watch.waits();
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(piece) => {
                self.left -= piece.len() as u64;
                self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Some(Ok(Frame::data(piece)))
            }
            None => Some(Err(std::io::Error::other("the content ended early"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Where content goes on its way to a body.
struct Sender {
    sender: mpsc::Sender<Bytes>,
    skip: u64,
    left: u64,
    closed: bool,
}

impl Sink for Sender {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skip as u64;
        let rest = &bytes[skip..];
        let rest = &rest[..rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))];
        if rest.is_empty() {
            // All that is wanted has gone: the rest is not read.
            return if self.left == 0 { Err(Error::failed("enough")) } else { Ok(()) };
        }
        if self.sender.blocking_send(Bytes::copy_from_slice(rest)).is_err() {
            self.closed = true;
            return Err(Error::failed("closed"));
        }
        self.left -= rest.len() as u64;
        Ok(())
    }
}

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody is there: why.
    Absent(String),
    /// There is somebody, but not the one who is meant, or not in this way.
    Wrong(Failure),
    /// The line was cut: it is worth another try.
    Cut(String),
}

/// Whether an answer may be another one soon.
pub fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The byte with which an answer begins that was asked for what comes from `from` on (RFC 9110 section 14);
/// `None` if something would be left out.
pub fn begins_at(answer: &Response, from: u64) -> Option<u64> {
    // Who does not know ranges sends it all again.
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Some(0);
    }
    // `bytes 5-9/10`
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split('-').next()?.parse().ok().filter(|start| *start <= from)
}

/// How long the other side wants to be left alone (RFC 9110 section 10.2.3, in seconds).
pub fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(text.trim().parse().ok()?))
}

/// Says what went wrong. No address is in it: there may be secrets in those.
pub fn broken(error: reqwest::Error) -> Broken {
    let (is_connect, is_timeout) = (error.is_connect(), error.is_timeout());
    let error = error.without_url();
    let mut words = io_words(&std::io::Error::other(error.to_string()));
    let mut source = error.source();
    while let Some(inner) = source {
        words = io_words(&std::io::Error::other(inner.to_string()));
        source = inner.source();
    }
    if words.contains("invalid peer certificate") {
        let why = words.split(": ").nth(1).unwrap_or(&words);
        let failure = Failure::new(format!("its certificate is not trusted: {}", certificate_words(why)));
        return Broken::Wrong(failure);
    }
    if words.contains("InvalidContentType") || words.contains("corrupt message") {
        return Broken::Wrong(Failure::new("it does not speak TLS"));
    }
    match (is_connect, is_timeout) {
        (true, true) => Broken::Absent("it cannot be reached: timed out".into()),
        (true, false) => Broken::Absent(words),
        (false, true) => Broken::Cut("it says nothing any more".into()),
        (false, false) => Broken::Cut(words),
    }
}

fn certificate_words(why: &str) -> String {
    let known = [
        ("unknownissuer", "nobody whom we trust has signed it"),
        ("notvalidforname", "it is for another name"),
        ("expired", "it has expired"),
        ("notvalidyet", "it is not valid yet"),
    ];
    // Said with or without blanks, by who knows more or less of it.
    let said = why.to_lowercase().replace(' ', "");
    let found = known.iter().find(|(name, _)| said.contains(name));
    found.map_or_else(|| why.chars().take(200).collect(), |(_, words)| (*words).to_string())
}
