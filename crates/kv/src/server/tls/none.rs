//! In place of TLS, where the build has none: what nobody can have, so that nothing else need know of that.

use std::io;
use std::task::{Context, Poll};

use omniring::buf::IoBuf;
use omniring::net::TcpStream;

use crate::config::Config;

#[derive(Clone)]
pub enum Acceptor {}

#[derive(Clone)]
pub enum Stream {}

pub fn acceptor(_config: &Config) -> Result<Acceptor, String> {
    Err("tls-port: this build has no TLS; one with the feature `tls` has".to_owned())
}

impl Acceptor {
    pub async fn accept(&self, _tcp: TcpStream) -> io::Result<Stream> {
        match *self {}
    }
}

impl Stream {
    pub fn poll_recv(&self, _cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        match *self {}
    }

    pub async fn send_all<B: IoBuf>(&self, _buf: B) -> (io::Result<()>, B) {
        match *self {}
    }

    pub async fn end(&self) {
        match *self {}
    }

    pub async fn shutdown(&self) -> io::Result<()> {
        match *self {}
    }
}
