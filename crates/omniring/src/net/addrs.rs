//! Addresses and names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use crate::blocking::offload;

/// What addresses can be had of: an address, a pair of IP address or host name and port, or text
/// such as `localhost:80`.
pub trait ToSocketAddrs {
    /// The address if it is one, else the name and port to look up.
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String>;
}

impl ToSocketAddrs for SocketAddr {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        Ok(vec![*self])
    }
}

impl ToSocketAddrs for [SocketAddr] {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        Ok(self.to_vec())
    }
}

impl ToSocketAddrs for (IpAddr, u16) {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        Ok(vec![(*self).into()])
    }
}

impl ToSocketAddrs for (Ipv4Addr, u16) {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        Ok(vec![(*self).into()])
    }
}

impl ToSocketAddrs for (Ipv6Addr, u16) {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        Ok(vec![(*self).into()])
    }
}

impl ToSocketAddrs for (&str, u16) {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        match self.0.parse::<IpAddr>() {
            Ok(ip) => (ip, self.1).to_lookup(),
            Err(_) => Err(format!("{}:{}", self.0, self.1)),
        }
    }
}

impl ToSocketAddrs for str {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        self.parse().map(|addr| vec![addr]).map_err(|_| self.to_owned())
    }
}

impl ToSocketAddrs for String {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        self.as_str().to_lookup()
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        (**self).to_lookup()
    }
}

/// The addresses of a name, in the order the resolver gives them; at least one. Names are looked
/// up by the C library on a thread of the pool, so that `/etc/hosts` and `nsswitch.conf` count.
///
/// The error says which name it is about.
pub async fn resolve(addrs: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    let name = match addrs.to_lookup() {
        Ok(addrs) => return non_empty(addrs, "an empty list"),
        Err(name) => name,
    };
    let looked_up = name.clone();
    let addrs = offload(move || looked_up.to_socket_addrs().map(Vec::from_iter)).await;
    let addrs = addrs.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot resolve '{name}': {error}"))
    })?;
    non_empty(addrs, &name)
}

fn non_empty(addrs: Vec<SocketAddr>, name: &str) -> io::Result<Vec<SocketAddr>> {
    if addrs.is_empty() {
        let what = format!("no address found for {name}");
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    Ok(addrs)
}

/// Tries one address after the other: the first success, or the last error.
pub(super) async fn first_of<T>(
    addrs: impl ToSocketAddrs,
    attempt: impl AsyncFn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for addr in resolve(addrs).await? {
        match attempt(addr).await {
            Ok(done) => return Ok(done),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("there is at least one address"))
}
