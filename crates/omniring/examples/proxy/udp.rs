//! Datagrams: a session for each address that sends some, with a socket of its own to the target, so that
//! answers find their way back. A session ends when nothing has come for a while.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use omniring::net::UdpSocket;
use omniring::spawn;
use omniring::time::{Instant, now, sleep, timeout_at};

use crate::Settings;

/// After an error of the socket that is no datagram's, such as want of memory.
const PAUSE: Duration = Duration::from_millis(10);

struct Session {
    /// Connected to the target.
    socket: UdpSocket,
    last: Cell<Instant>,
}

type Sessions = RefCell<HashMap<SocketAddr, Rc<Session>>>;

/// Passes datagrams on for ever.
pub async fn serve(socket: UdpSocket, target: SocketAddr, settings: Settings) {
    let (settings, sessions) = (Rc::new(settings), Rc::new(Sessions::default()));
    loop {
        let (datagram, client) = match socket.recv_from().await {
            Ok(received) => received,
            Err(error) => {
                eprintln!("proxy: nothing received: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let known = sessions.borrow().get(&client).cloned();
        let session = match known {
            Some(session) => session,
            None if sessions.borrow().len() >= settings.sessions_max => {
                settings.complain(client, "dropped a datagram: too many sessions (--sessions-max)");
                continue;
            }
            None => match Session::new(target).await {
                Ok(session) => {
                    sessions.borrow_mut().insert(client, session.clone());
                    drop(spawn({
                        let (session, sessions) = (session.clone(), sessions.clone());
                        let (socket, settings) = (socket.clone(), settings.clone());
                        async move {
                            session.answer(&socket, client, &settings).await;
                            sessions.borrow_mut().remove(&client);
                        }
                    }));
                    session
                }
                Err(error) => {
                    settings.complain(client, format!("no socket for a session: {error}"));
                    continue;
                }
            },
        };
        session.last.set(now());
        // An error here is what became of an earlier one, as a rule that nobody listens there.
        if let Err(error) = session.socket.send(datagram).await.0 {
            settings.complain(client, format!("to {target}: {error}"));
        }
    }
}

impl Session {
    async fn new(target: SocketAddr) -> io::Result<Rc<Session>> {
        let any = match target {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(target).await?;
        Ok(Rc::new(Session { socket, last: Cell::new(now()) }))
    }

    /// Passes the target's answers on to the client until nothing has come for too long.
    async fn answer(&self, to: &UdpSocket, client: SocketAddr, settings: &Settings) {
        loop {
            let deadline = self.last.get() + settings.idle;
            let result = match timeout_at(deadline, self.socket.recv()).await {
                Ok(Ok(datagram)) => {
                    self.last.set(now());
                    to.send_to(datagram, client).await.0.map(drop)
                }
                Ok(Err(error)) => Err(error),
                // Something was sent meanwhile.
                Err(_) if now() < self.last.get() + settings.idle => Ok(()),
                Err(_) => return,
            };
            if let Err(error) = result {
                settings.complain(client, format!("an answer of {}: {error}", settings.target));
                sleep(PAUSE).await;
            }
        }
    }
}
