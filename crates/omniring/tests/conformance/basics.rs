//! The simplest things, one of each kind.

use std::time::Duration;

use omniring::fs::{self, OpenOptions};
use omniring::net::{TcpListener, TcpStream};
use omniring::{Runtime, spawn, spawn_blocking, yield_now};

use crate::harness::conformance;

conformance!(a_file_is_written_and_read, bytes_go_both_ways_over_tcp, tasks_and_timers_take_turns);

fn a_file_is_written_and_read(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    runtime.block_on(async {
        let file =
            OpenOptions::new().read(true).write(true).create(true).open(&path).await.unwrap();
        let (result, _) = file.write_at(b"hello world".to_vec(), 0).await;
        assert_eq!(result.unwrap(), 11);
        file.sync_all().await.unwrap();
        let (result, buf) = file.read_at(Vec::with_capacity(5), 6).await;
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"world"[..]));
        assert_eq!(file.metadata().await.unwrap().len(), 11);
        file.close().await.unwrap();
        assert_eq!(fs::read(&path).await.unwrap(), b"hello world");
    });
}

fn bytes_go_both_ways_over_tcp(runtime: &Runtime) {
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut buf = Vec::with_capacity(100);
            loop {
                let (result, received) = stream.recv_into(buf).await;
                if result.unwrap() == 0 {
                    return;
                }
                let (result, sent) = stream.send_all(received).await;
                result.unwrap();
                buf = sent;
            }
        });
        let client = TcpStream::connect(addr).await.unwrap();
        for round in 0..100u32 {
            client.send_all(round.to_le_bytes().to_vec()).await.0.unwrap();
            let (result, buf) = client.recv_into(Vec::with_capacity(4)).await;
            assert_eq!((result.unwrap(), &buf[..]), (4, &round.to_le_bytes()[..]));
        }
        drop(client);
        server.await.unwrap();
    });
}

fn tasks_and_timers_take_turns(runtime: &Runtime) {
    runtime.block_on(async {
        let start = omniring::time::now();
        let sleeper = spawn(omniring::time::sleep(Duration::from_millis(20)));
        for _ in 0..1000 {
            yield_now().await;
        }
        assert_eq!(spawn_blocking(|| 6 * 7).await.unwrap(), 42);
        sleeper.await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20));
    });
}
