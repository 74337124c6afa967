//! The beginning of a connection: a request in HTTP/1.1, which asks for the page, or to speak WebSocket in
//! a room.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::machine::TryParse;
use async_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use async_tungstenite::tungstenite::http::header::{HOST, ORIGIN, UPGRADE};
use omniring::net::TcpStream;
use omniring::time::timeout;

use crate::rooms::{Refusal, Rooms, Seat};

/// A request has to be there within this time, and to be no longer.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
const REQUEST_LEN_MAX: usize = 8 * 1024;

const PAGE: &str = include_str!("page.html");

/// Somebody who has come in.
pub struct Guest {
    pub seat: Seat,
    /// What came after the request.
    pub rest: Vec<u8>,
}

/// Answers the request; `None` if that was all.
pub async fn open(stream: &TcpStream, rooms: &Rc<Rooms>) -> io::Result<Option<Guest>> {
    let read = timeout(REQUEST_TIME_MAX, read_request(stream)).await;
    let (request, rest) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            answer(stream, "400 Bad Request", &error.to_string()).await?;
            return Ok(None);
        }
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            let what = format!("no whole request within {REQUEST_TIME_MAX:?}");
            answer(stream, "408 Request Timeout", &what).await?;
            return Ok(None);
        }
    };
    if !request.headers().contains_key(UPGRADE) {
        match request.uri().path() {
            "/" => respond(stream, "200 OK", "text/html; charset=utf-8", PAGE).await?,
            _ => answer(stream, "404 Not Found", "there is a page at /").await?,
        }
        return Ok(None);
    }
    let seat = match admit(&request, rooms) {
        Ok(seat) => seat,
        Err((status, why)) => {
            answer(stream, status, &why).await?;
            return Ok(None);
        }
    };
    let response = match create_response(&request) {
        Ok(response) => response,
        Err(error) => {
            answer(stream, "400 Bad Request", &error.to_string()).await?;
            return Ok(None);
        }
    };
    let mut text = Vec::new();
    write_response(&mut text, &response).map_err(io::Error::other)?;
    stream.send_all(text).await.0?;
    Ok(Some(Guest { seat, rest }))
}

/// A seat, or the status and the reason for having none.
fn admit(request: &Request, rooms: &Rc<Rooms>) -> Result<Seat, (&'static str, String)> {
    // Pages of other sites may not make a browser come here.
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some(origin) = header(ORIGIN)
        && origin.split_once("://").map(|(_, host)| host) != header(HOST)
    {
        return Err(("403 Forbidden", format!("pages from {origin} may not connect")));
    }
    let room = request.uri().path().trim_start_matches('/');
    let query = request.uri().query().unwrap_or_default();
    let name = query.split('&').find_map(|part| part.strip_prefix("name="));
    rooms.join(room, name.unwrap_or_default()).map_err(|refusal| match &refusal {
        Refusal::Taken { .. } => ("409 Conflict", refusal.to_string()),
        Refusal::BadName(_) => ("400 Bad Request", format!("{refusal}; ask for /ROOM?name=NAME")),
    })
}

/// A request, and what came after it. Errors of the kind `InvalidData` are the peer's.
async fn read_request(stream: &TcpStream) -> io::Result<(Request, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let received = stream.recv().await?;
        if received.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        all.extend_from_slice(&received);
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        match Request::try_parse(&all).map_err(|error| invalid(error.to_string()))? {
            Some((len, request)) => return Ok((request, all.split_off(len))),
            None if all.len() > REQUEST_LEN_MAX => {
                return Err(invalid(format!("a request of more than {REQUEST_LEN_MAX} bytes")));
            }
            None => {}
        }
    }
}

pub async fn answer(stream: &TcpStream, status: &str, text: &str) -> io::Result<()> {
    respond(stream, status, "text/plain; charset=utf-8", &format!("{text}\n")).await
}

async fn respond(stream: &TcpStream, status: &str, kind: &str, body: &str) -> io::Result<()> {
    let len = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.send_all(response).await.0
}
