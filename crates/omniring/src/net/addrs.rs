//! Addresses and names.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use crate::blocking::offload;

/// What addresses can be had of: an address, a pair of IP address or host name and port, or text
/// such as `localhost:80`.
pub trait ToSocketAddrs {
    /// The addresses if it has them, else the name and port to look up.
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

impl ToSocketAddrs for (String, u16) {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        (self.0.as_str(), self.1).to_lookup()
    }
}

impl ToSocketAddrs for Vec<SocketAddr> {
    fn to_lookup(&self) -> Result<Vec<SocketAddr>, String> {
        Ok(self.clone())
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
/// The error says which name it is about. Dropping the future leaves the thread to finish its
/// look-up alone, which takes as long as the system's resolver is set to wait.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// let addrs = omniring::net::lookup_host("localhost:80").await?;
/// assert!(addrs.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// Outside of a runtime, if there is a name to look up.
pub async fn lookup_host(addrs: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    Resolver::system().lookup_host(addrs).await
}

/// What finds the addresses of names: the system's resolver, or a function of the program's own.
///
/// ```
/// use std::net::Ipv4Addr;
/// use omniring::net::{Connector, Resolver, TcpListener};
/// # omniring::Runtime::new()?.block_on(async {
/// let resolver = Resolver::from_fn(|name| match name {
///     "store" => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
///     _ => Err(std::io::ErrorKind::NotFound.into()),
/// });
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let port = listener.local_addr()?.port();
/// Connector::new().resolver(resolver).connect(("store", port)).await?;
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Resolver(Option<Arc<Lookup>>);

type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    /// The C library's (`getaddrinfo(3)`).
    pub fn system() -> Resolver {
        Resolver::default()
    }

    /// A function from a host's name to its addresses, the best first. It runs on a thread of the
    /// pool and may block; a panic of it comes out of the future that waits for it.
    pub fn from_fn(
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Resolver {
        Resolver(Some(Arc::new(lookup)))
    }

    /// As [`lookup_host`], by this resolver. What is an address is not looked up.
    pub async fn lookup_host(&self, addrs: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
        let name = match addrs.to_lookup() {
            Ok(addrs) if addrs.is_empty() => return Err(not_found("an empty list")),
            Ok(addrs) => return Ok(addrs),
            Err(name) => name,
        };
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot resolve '{name}': {error}"))
        };
        let (host, port) = host_and_port(&name).map_err(failed)?;
        let (host, lookup) = (host.to_owned(), self.0.clone());
        let call = move || match lookup {
            Some(lookup) => Ok(lookup(&host)?.into_iter().map(|ip| (ip, port).into()).collect()),
            None => (host.as_str(), port).to_socket_addrs().map(Vec::from_iter),
        };
        let mut addrs: Vec<SocketAddr> = offload(call).await.map_err(failed)?;
        if addrs.is_empty() {
            return Err(not_found(&name));
        }
        // A hosts file may say the same twice.
        let mut seen = HashSet::new();
        addrs.retain(|&addr| seen.insert(addr));
        Ok(addrs)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Resolver(function)" } else { "Resolver(system)" })
    }
}

#[cold]
fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no address found for '{name}'"))
}

/// The parts of `name:port`; a host in brackets is an address of IPv6, which may have a zone.
fn host_and_port(name: &str) -> io::Result<(&str, u16)> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    let (host, port) =
        name.rsplit_once(':').ok_or_else(|| invalid("it has no port, as in 'name:80'"))?;
    let port = port.parse().map_err(|_| invalid("the port is a number from 0 to 65535"))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host) {
        "" => Err(invalid("the name is empty")),
        host if host.contains('\0') => Err(invalid("the name has a zero byte")),
        host => Ok((host, port)),
    }
}

/// Tries one address after the other: the first success, or the last error.
pub(super) async fn first_of<T>(
    addrs: impl ToSocketAddrs,
    attempt: impl AsyncFn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for addr in lookup_host(addrs).await? {
        match attempt(addr).await {
            Ok(done) => return Ok(done),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("there is at least one address"))
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn a_name_is_split_from_its_port() {
        assert_eq!(host_and_port("localhost:80").unwrap(), ("localhost", 80));
        assert_eq!(host_and_port("[fe80::1%eth0]:443").unwrap(), ("fe80::1%eth0", 443));
        assert_eq!(host_and_port("::1:443").unwrap(), ("::1", 443));
        for name in ["localhost", ":80", "[]:80", "localhost:", "localhost:65536", "a\0b:1", ""] {
            assert!(host_and_port(name).is_err(), "{name}");
        }
    }
}
