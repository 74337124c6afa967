//! Connections, each with one to the target. Bytes go from socket to socket inside the kernel.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use omniring::net::{TcpListener, TcpStream};
use omniring::time::{Instant, now, sleep, timeout, timeout_at};
use omniring::{TaskGroup, spawn};

use crate::Settings;
use crate::stopping::Open;

/// How long the target may take to accept.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Before the next accept where there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections for ever.
pub async fn serve(listener: TcpListener, settings: Settings, open: Open) {
    let settings = Rc::new(settings);
    loop {
        match listener.accept().await {
            Ok((client, from)) => {
                let (settings, guard) = (settings.clone(), open.enter());
                drop(spawn(async move {
                    if let Err(error) = pass(client, &settings).await {
                        settings.complain(from, error);
                    }
                    drop(guard);
                }));
            }
            // It is the connection's, or there are too many at the moment.
            Err(error) => {
                eprintln!("proxy: no connection taken: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Connects to the target and passes on in both directions until both have ended, one has failed, or
/// nothing has come for too long.
async fn pass(client: TcpStream, settings: &Settings) -> Result<(), String> {
    let target = &settings.target;
    let to_target = |error: io::Error| format!("to {target}: {error}");
    let connecting = TcpStream::connect(&target[..]);
    let server = match timeout(CONNECT_TIME_MAX, connecting).await {
        Ok(connected) => connected.map_err(to_target)?,
        Err(_) => return Err(format!("{target} does not accept within {CONNECT_TIME_MAX:?}")),
    };
    // What comes in pieces is passed on in pieces.
    server.set_nodelay(true).and_then(|()| client.set_nodelay(true)).map_err(to_target)?;
    let last = Rc::new(Cell::new(now()));
    let mut directions = TaskGroup::new();
    directions.spawn(pass_one_way(client.clone(), server.clone(), last.clone()));
    directions.spawn(pass_one_way(server, client, last.clone()));
    loop {
        match timeout_at(last.get() + settings.idle, directions.join_next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(ended))) => ended?,
            Ok(Some(Err(error))) => error.resume(),
            Err(_) if now() < last.get() + settings.idle => {}
            Err(_) => return Err(format!("nothing came for {:?}", settings.idle)),
        }
    }
}

/// Passes on until the end of the stream, and then that: the other direction goes on by itself.
async fn pass_one_way(
    from: TcpStream,
    to: TcpStream,
    last: Rc<Cell<Instant>>,
) -> Result<(), String> {
    let name = |stream: &TcpStream| stream.peer_addr().map_or("?".into(), |addr| addr.to_string());
    let names = (name(&from), name(&to));
    let failed = |error: io::Error| format!("{} to {}: {error}", names.0, names.1);
    while from.forward(&to).await.map_err(failed)? > 0 {
        last.set(now());
    }
    match to.shutdown(Shutdown::Write).await {
        // It has gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result.map_err(failed),
    }
}
