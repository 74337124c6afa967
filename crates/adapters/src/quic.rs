//! QUIC: quinn's endpoints on omniring.
//!
//! quinn wants a runtime that is `Send`: its handles may be used on any thread. Omniring's ops and timers
//! are not. So what quinn is given holds neither, but only what both sides share under a lock; a task on
//! the runtime, the home, waits for readiness and deadlines on quinn's behalf and wakes quinn's tasks,
//! which all run there. Datagrams are sent and received with the system calls of quinn's own `quinn-udp`
//! (GSO, GRO, ECN), on whichever thread asks, without waiting.
//!
//! ```
//! use omniring_adapters::quic;
//! use quinn::{ClientConfig, ServerConfig};
//! # use std::sync::Arc;
//!
//! # let cert = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! # let key = quinn::rustls::pki_types::PrivateKeyDer::try_from(cert.signing_key.serialize_der())?;
//! # let certs = vec![cert.cert.der().clone()];
//! # let mut roots = quinn::rustls::RootCertStore::empty();
//! # roots.add(certs[0].clone())?;
//! # let server_config = ServerConfig::with_single_cert(certs, key)?;
//! # let client_config = ClientConfig::with_root_certificates(Arc::new(roots))?;
//! # omniring::Runtime::new()?.block_on(async {
//! let server = quic::server(server_config, "127.0.0.1:0".parse()?)?;
//! let addr = server.local_addr()?;
//! let echo = omniring::spawn(async move {
//!     let connection = server.accept().await.unwrap().await.unwrap();
//!     let (mut send, mut recv) = connection.accept_bi().await.unwrap();
//!     send.write_all(&recv.read_to_end(100).await.unwrap()).await.unwrap();
//!     send.finish().unwrap();
//!     connection.closed().await;
//! });
//! let client = quic::client("127.0.0.1:0".parse()?)?;
//! let connection = client.connect_with(client_config, addr, "localhost")?.await?;
//! let (mut send, mut recv) = connection.open_bi().await?;
//! send.write_all(b"ping").await?;
//! send.finish()?;
//! assert_eq!(recv.read_to_end(100).await?, b"ping");
//! connection.close(0u32.into(), b"done");
//! echo.await.unwrap();
//! client.wait_idle().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod alarms;
mod socket;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use omniring::Explained;
use omniring::sync::mpsc;
use omniring::time::{Instant, now, sleep_until};
use quinn::{AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig};

use self::alarms::{Alarm, Alarms};
use self::socket::Socket;

/// What is to be done at home.
type Errand = Box<dyn FnOnce() + Send>;

/// Omniring as a [`quinn::Runtime`]. It belongs to the omniring runtime that it is made in, and may be
/// used, as everything made with it, from any thread.
///
/// When the omniring runtime ends, quinn's tasks are dropped, and connections end as if their endpoint
/// had been dropped.
#[derive(Clone)]
pub struct Runtime {
    errands: mpsc::UnboundedSender<Errand>,
    alarms: Arc<Alarms>,
}

impl Runtime {
    /// quinn's view of the omniring runtime that the calling code runs in. A task there works for it until
    /// the last clone, and everything made with it, is gone.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[expect(clippy::new_without_default, reason = "it depends on where it is called")]
    pub fn new() -> Runtime {
        let (errands, incoming) = mpsc::unbounded_channel();
        let alarms = Arc::new(Alarms::default());
        drop(omniring::spawn(keep_house(incoming, alarms.clone())));
        Runtime { errands, alarms }
    }

    /// Has it done at home; if there is no home any more, it is dropped.
    fn send_home(&self, errand: impl FnOnce() + Send + 'static) {
        let _ = self.errands.send(Box::new(errand));
    }
}

/// Does errands and watches the clock.
async fn keep_house(mut errands: mpsc::UnboundedReceiver<Errand>, alarms: Arc<Alarms>) {
    let mut sleep = sleep_until(now());
    loop {
        let next = alarms.next();
        if let Some(next) = next
            && next != sleep.deadline()
        {
            sleep.reset(next);
        }
        let mut changed = pin!(alarms.changed());
        let errand = poll_fn(|cx| {
            if let Poll::Ready(errand) = errands.poll_recv(cx) {
                return Poll::Ready(Some(errand));
            }
            let is_due = next.is_some() && Pin::new(&mut sleep).poll(cx).is_ready();
            if is_due || changed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            Poll::Pending
        });
        match errand.await {
            Some(Some(errand)) => errand(),
            Some(None) => return,
            None => alarms.fire(now()),
        }
    }
}

impl quinn::Runtime for Runtime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Alarm::new(self.alarms.clone(), deadline))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.send_home(move || drop(omniring::spawn(future)));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let (socket, watch) = Socket::new(socket)?;
        self.send_home(watch);
        Ok(socket)
    }

    fn now(&self) -> Instant {
        now()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

/// An endpoint that accepts connections at `addr` (port 0 is any free one), and can make some.
///
/// The error names the address, and [`omniring::raw_os_error`] has its errno.
///
/// # Panics
/// Outside of a runtime.
pub fn server(config: ServerConfig, addr: SocketAddr) -> io::Result<Endpoint> {
    endpoint(Some(config), addr)
}

/// An endpoint that makes connections from `addr`, of which the port is 0 as a rule.
///
/// The error names the address, and [`omniring::raw_os_error`] has its errno.
///
/// # Panics
/// Outside of a runtime.
pub fn client(addr: SocketAddr) -> io::Result<Endpoint> {
    endpoint(None, addr)
}

fn endpoint(config: Option<ServerConfig>, addr: SocketAddr) -> io::Result<Endpoint> {
    let socket = std::net::UdpSocket::bind(addr).map_err(|error| match error.raw_os_error() {
        Some(errno) => Explained::new(errno, format!("cannot bind to {addr} for QUIC")).into(),
        None => error,
    })?;
    Endpoint::new(EndpointConfig::default(), config, socket, Arc::new(Runtime::new()))
}
