//! From a request to the bytes of a file.

use std::convert::Infallible;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE,
};
use hyper::{Method, Request, Response, StatusCode};
use omniring::buf::IoBufExt;
use omniring::fs::File;

use crate::range::Part;

/// Bytes of a file that are read, and sent, at once.
const CHUNK_LEN: usize = 64 * 1024;

/// A text that is there, or the bytes of a file.
pub type FileBody = Either<Full<Bytes>, StreamBody<Chunks>>;

type Chunks = Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>>>>;

/// A directory.
pub struct Files {
    /// Without links.
    root: PathBuf,
}

impl Files {
    pub fn of(directory: &Path) -> io::Result<Files> {
        let root = directory.canonicalize().and_then(|root| match root.is_dir() {
            true => Ok(root),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        let root = root.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
        })?;
        Ok(Files { root })
    }

    pub async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<FileBody>, Infallible> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(refusal.map(Either::Left));
        }
        let (file, path, len) = match self.open(request.uri().path()).await {
            Ok(found) => found,
            Err(error) => {
                let status = match error.kind() {
                    io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
                    io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidInput => StatusCode::NOT_FOUND,
                    _ => {
                        eprintln!("file_server: {}: {error}", request.uri().path());
                        StatusCode::INTERNAL_SERVER_ERROR
                    }
                };
                return Ok(plain(status, "no such file\n").map(Either::Left));
            }
        };
        let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok());
        let (status, bytes) = match Part::parse(range, len) {
            Part::Whole => (StatusCode::OK, 0..len),
            Part::Bytes(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
            Part::Unsatisfiable => {
                let mut refusal = plain(StatusCode::RANGE_NOT_SATISFIABLE, "no such bytes\n");
                refusal.headers_mut().insert(CONTENT_RANGE, header(format!("bytes */{len}")));
                return Ok(refusal.map(Either::Left));
            }
        };
        let (start, end) = (bytes.start, bytes.end);
        let body = match request.method() == Method::HEAD {
            true => Either::Left(Full::default()),
            false => Either::Right(StreamBody::new(chunks(file, start, end))),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, (end - start).into());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(&path)));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if status == StatusCode::PARTIAL_CONTENT {
            headers.insert(CONTENT_RANGE, header(format!("bytes {start}-{}/{len}", end - 1)));
        }
        Ok(response)
    }

    /// The file that a request's path names, its own path, and its length in bytes.
    async fn open(&self, path: &str) -> io::Result<(File, PathBuf, u64)> {
        let relative = relative(path).ok_or(io::ErrorKind::InvalidInput)?;
        let path = self.root.join(relative);
        // Where links lead is known when they have been followed.
        let resolved = omniring::spawn_blocking(move || {
            let path = path.canonicalize()?;
            if path.is_dir() { path.join("index.html").canonicalize() } else { Ok(path) }
        });
        let path = resolved.await.map_err(|error| io::Error::other(error.to_string()))??;
        if !path.starts_with(&self.root) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // A FIFO would have nobody write to it.
        if !omniring::fs::metadata(&path).await?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = File::open(&path).await?;
        let len = file.metadata().await?.len();
        Ok((file, path, len))
    }
}

/// The bytes from `start` to `end`, in chunks.
fn chunks(file: File, start: u64, end: u64) -> Chunks {
    let chunks = stream::try_unfold((file, start), move |(file, at)| async move {
        if at >= end {
            return Ok(None);
        }
        let len = usize::try_from(end - at).map_or(CHUNK_LEN, |left| left.min(CHUNK_LEN));
        let mut buf = Vec::with_capacity(len);
        let mut read = 0;
        while read < len {
            let (result, back) = file.read_at(buf.slice(read..len), at + read as u64).await;
            buf = back.into_inner();
            match result? {
                0 => {
                    let what = "the file became shorter while it was sent";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
                count => read += count,
            }
        }
        Ok(Some((Frame::data(Bytes::from(buf)), (file, at + read as u64))))
    });
    Box::pin(chunks)
}

/// A request's path as one relative to the root: without `..`, and percent-decoded.
fn relative(path: &str) -> Option<PathBuf> {
    let decoded = percent_decoded(path.strip_prefix('/')?)?;
    let path = PathBuf::from(decoded);
    let is_plain = path
        .components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    is_plain.then_some(path)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        bytes.push((digit(0)? * 16 + digit(1)?) as u8);
        rest = after;
    }
    match bytes.contains(&0) {
        true => None,
        false => String::from_utf8(bytes).ok(),
    }
}

fn media_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css",
        "js" | "mjs" => "text/javascript",
        "json" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

fn header(text: String) -> HeaderValue {
    HeaderValue::from_str(&text).expect("digits and a few signs")
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
