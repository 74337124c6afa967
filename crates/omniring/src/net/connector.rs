//! Connecting by name: the addresses of a host are tried side by side ("happy eyeballs",
//! RFC 8305), so that one that does not answer costs a moment and not a minute.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use omniring_driver::{Explained, raw_os_error};

use super::{Resolver, TcpSocket, TcpStream, ToSocketAddrs};
use crate::time::{Sleep, sleep};

/// How long an attempt has before the next address is tried beside it (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How to connect: what resolves names, what is set on a socket before it connects, and how long
/// an address has before the next one is tried beside it.
///
/// The addresses are tried in the resolver's order, but with the families taking turns. The next
/// one starts when the one before has failed, or has not answered in the attempt delay; the first
/// to succeed wins, and the others are cancelled and closed.
///
/// ```
/// use omniring::net::{Connector, TcpListener};
/// # omniring::Runtime::new()?.block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let port = listener.local_addr()?.port();
/// let connector = Connector::new().prepare(|socket| socket.set_nodelay(true));
/// let stream = connector.connect(("localhost", port)).await?;
/// assert!(stream.nodelay()?);
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Connector {
    resolver: Resolver,
    attempt_delay: Duration,
    source: Vec<SocketAddr>,
    prepare: Option<Rc<Prepare>>,
}

type Prepare = dyn Fn(&TcpSocket) -> io::Result<()>;

impl Default for Connector {
    fn default() -> Connector {
        Connector::new()
    }
}

impl Connector {
    /// With the system's resolver, from any source address, 250 ms between attempts.
    pub fn new() -> Connector {
        let resolver = Resolver::system();
        Connector { resolver, attempt_delay: ATTEMPT_DELAY, source: Vec::new(), prepare: None }
    }

    /// What resolves names.
    pub fn resolver(mut self, resolver: Resolver) -> Connector {
        self.resolver = resolver;
        self
    }

    /// How long an address has before the next one is tried beside it; RFC 8305 says 100 ms at
    /// least and 2 s at most.
    pub fn attempt_delay(mut self, delay: Duration) -> Connector {
        self.attempt_delay = delay;
        self
    }

    /// Connects from this address; port 0 is any free one. One can be given for each family: where
    /// there are only some of the other family, addresses of that one are not tried.
    pub fn source(mut self, addr: SocketAddr) -> Connector {
        self.source.retain(|other| other.is_ipv4() != addr.is_ipv4());
        self.source.push(addr);
        self
    }

    /// Called on each socket before it connects, to set options. An error ends that attempt.
    pub fn prepare(
        mut self,
        prepare: impl Fn(&TcpSocket) -> io::Result<()> + 'static,
    ) -> Connector {
        self.prepare = Some(Rc::new(prepare));
        self
    }

    /// Connects to the first of the addresses that answers. The error names what does not
    /// resolve, or each address that failed and why; its kind and errno are those of the first
    /// address.
    ///
    /// Dropping the future cancels all attempts and closes their sockets; a look-up of a name goes
    /// on alone.
    pub async fn connect(&self, addrs: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let mut addrs = self.resolver.lookup_host(addrs).await?;
        if !self.source.is_empty() {
            let wanted = addrs[0];
            addrs.retain(|addr| self.source_for(*addr).is_some());
            if addrs.is_empty() {
                let what = format!("no source address of the family of {wanted} was given");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        }
        if let [addr] = addrs[..] {
            return self.attempt(addr).await;
        }
        let mut race = Race { connector: self, left: alternate(addrs), going: Vec::new() };
        race.run().await
    }

    fn source_for(&self, addr: SocketAddr) -> Option<SocketAddr> {
        self.source.iter().copied().find(|source| source.is_ipv4() == addr.is_ipv4())
    }

    async fn attempt(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_for(addr).await?;
        if let Some(prepare) = &self.prepare {
            prepare(&socket)?;
        }
        if let Some(source) = self.source_for(addr) {
            socket.bind(source).await?;
        }
        socket.connect(addr).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("resolver", &self.resolver)
            .field("attempt_delay", &self.attempt_delay)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// The families in turns, beginning with that of the first address.
fn alternate(addrs: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v4 = addrs.first().is_some_and(SocketAddr::is_ipv4);
    let (mut these, mut others): (VecDeque<_>, VecDeque<_>) =
        addrs.into_iter().partition(|addr| addr.is_ipv4() == first_is_v4);
    let mut in_turns = VecDeque::new();
    while let Some(addr) = these.pop_front().or_else(|| others.pop_front()) {
        in_turns.push_back(addr);
        in_turns.extend(others.pop_front());
    }
    in_turns
}

type Attempt<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + 'a>>;

/// Attempts side by side. Dropping it cancels those that are going on.
struct Race<'a> {
    connector: &'a Connector,
    left: VecDeque<SocketAddr>,
    going: Vec<Attempt<'a>>,
}

impl<'a> Race<'a> {
    async fn run(&mut self) -> io::Result<TcpStream> {
        let mut errors = Vec::new();
        while let Some(addr) = self.left.pop_front() {
            let connector: &'a Connector = self.connector;
            self.going.push(Box::pin(connector.attempt(addr)));
            let mut delay = sleep(self.connector.attempt_delay);
            let next = poll_fn(|cx| self.poll_next(cx, Some(&mut delay))).await;
            match next {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => errors.push(error),
                None => {}
            }
        }
        while !self.going.is_empty() {
            match poll_fn(|cx| self.poll_next(cx, None)).await {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => errors.push(error),
                None => {}
            }
        }
        Err(all_failed(errors))
    }

    /// The next attempt that ends, or nothing when the delay is over.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        delay: Option<&mut Sleep>,
    ) -> Poll<Option<io::Result<TcpStream>>> {
        for place in 0..self.going.len() {
            if let Poll::Ready(result) = self.going[place].as_mut().poll(cx) {
                drop(self.going.remove(place));
                return Poll::Ready(Some(result));
            }
        }
        match delay {
            Some(delay) => Pin::new(delay).poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    }
}

/// One error for all attempts, each of which says its address.
#[cold]
fn all_failed(errors: Vec<io::Error>) -> io::Error {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let first = errors.into_iter().next().expect("there is at least one address");
    let what = format!("no address answers; {}", texts.join("; "));
    match raw_os_error(&first) {
        Some(errno) => Explained::new(errno, what).into(),
        None => io::Error::new(first.kind(), what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let [a, b, c] = ["[::1]:1", "[::2]:1", "[::3]:1"].map(addr);
        let [x, y] = ["1.1.1.1:1", "2.2.2.2:1"].map(addr);
        assert_eq!(alternate(vec![a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(alternate(vec![x, a, b, c]), [x, a, b, c]);
        assert_eq!(alternate(vec![x, y]), [x, y]);
        assert_eq!(alternate(vec![]), []);
    }
}
