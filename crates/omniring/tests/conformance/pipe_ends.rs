//! The ends of pipes and FIFOs as types of their own.

use std::io::{self, Read, Write};
use std::pin::pin;
use std::time::Duration;

use omniring::pipe::{OpenOptions, make_fifo, pipe};
use omniring::time::timeout;
use omniring::{AsyncRead, AsyncWrite, Runtime, spawn};

use crate::harness::{conformance, errno};
use crate::loopback::{recv_to_end, start};
use crate::pipes::let_others_run;

const SOON: Duration = Duration::from_secs(20);

conformance!(
    bytes_go_from_the_sender_to_the_receiver,
    a_receiver_waits_and_sees_the_end,
    a_sender_waits_for_room_and_misses_the_receiver,
    a_dropped_receive_leaves_the_bytes,
    ends_go_out_and_come_in,
    a_fifo_connects_those_who_open_it,
    a_fifo_without_a_receiver_takes_no_sender,
    a_fifo_open_for_both_has_no_end,
    what_is_no_fifo_is_refused,
);

fn bytes_go_from_the_sender_to_the_receiver(runtime: &Runtime) {
    const LEN: usize = 1 << 20;
    runtime.block_on(async {
        let (sender, receiver) = pipe().unwrap();
        assert_eq!(sender.send("hello").await.0.unwrap(), 5);
        let (result, buf) = receiver.recv_into(Vec::with_capacity(3)).await;
        assert_eq!((result.unwrap(), &buf[..]), (3, &b"hel"[..]));
        let (result, buf) = (&receiver).read_exact(vec![0; 2].into_boxed_slice()).await;
        result.unwrap();
        assert_eq!(&buf[..], b"lo");
        let data: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
        let expected = data.clone();
        let sending = spawn(async move { (&sender).write_all(data).await.0 });
        assert!(timeout(SOON, recv_to_end(receiver)).await.unwrap() == expected);
        sending.await.unwrap().unwrap();
    });
}

fn a_receiver_waits_and_sees_the_end(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = pipe().unwrap();
        let mut recv = receiver.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        let clone = sender.clone();
        drop(sender);
        let_others_run().await;
        assert!(start(&mut recv).await.is_none(), "a clone is left");
        clone.close().await.unwrap();
        assert_eq!(timeout(SOON, recv).await.unwrap().0.unwrap(), 0);
        let hang_up = receiver.poll(libc::POLLIN).await.unwrap() as i16;
        assert_eq!(hang_up, libc::POLLHUP);
    });
}

fn a_sender_waits_for_room_and_misses_the_receiver(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = pipe().unwrap();
        let mut sending = pin!(sender.send_all(vec![0; 1 << 20]));
        assert!(timeout(Duration::from_millis(50), &mut sending).await.is_err(), "it is full");
        drop(receiver);
        let error = timeout(SOON, sending).await.unwrap().0.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

fn a_dropped_receive_leaves_the_bytes(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = pipe().unwrap();
        for round in 0..20u8 {
            let mut recv = receiver.recv_into(Vec::with_capacity(8));
            assert!(start(&mut recv).await.is_none());
            drop(recv);
            let_others_run().await;
            sender.send_all(vec![round; 3]).await.0.unwrap();
            let (result, buf) = receiver.recv_into(Vec::with_capacity(8)).await;
            assert_eq!((result.unwrap(), &buf[..]), (3, &[round; 3][..]));
        }
    });
}

fn ends_go_out_and_come_in(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = pipe().unwrap();
        let clone = sender.clone();
        let sender = sender.into_std().map(drop).unwrap_err();
        drop(clone);
        let mut sender = sender.into_std().unwrap();
        let mut recv = receiver.recv_into(Vec::with_capacity(8));
        assert!(start(&mut recv).await.is_none());
        sender.write_all(b"hello").unwrap();
        assert_eq!(timeout(SOON, recv).await.unwrap().1, b"hello");
        let mut receiver = receiver.into_std().unwrap();
        let sender = omniring::pipe::Sender::from_std(sender);
        sender.send_all("again").await.0.unwrap();
        let mut buf = [0; 5];
        receiver.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"again");
        let receiver = omniring::pipe::Receiver::from_std(receiver);
        drop(sender);
        assert_eq!(receiver.recv_into(vec![0; 8]).await.0.unwrap(), 0);
    });
}

fn a_fifo_connects_those_who_open_it(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    runtime.block_on(async {
        make_fifo(&path, 0o600).await.unwrap();
        let taken = make_fifo(&path, 0o600).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        let receiver = timeout(SOON, OpenOptions::new().open_receiver(&path)).await.unwrap();
        let receiver = receiver.unwrap();
        let mut recv = receiver.recv_into(Vec::with_capacity(8));
        if let Some((result, _)) = start(&mut recv).await {
            panic!("it waits for a sender: {result:?}");
        }
        let_others_run().await;
        let sender = OpenOptions::new().open_sender(&path).await.unwrap();
        let_others_run().await;
        sender.send_all("hello").await.0.unwrap();
        assert_eq!(timeout(SOON, recv).await.unwrap().1, b"hello");
        drop(sender);
        assert_eq!(timeout(SOON, receiver.recv_into(vec![0; 8])).await.unwrap().0.unwrap(), 0);
        // The next one comes, and is received from all the same.
        let sender = OpenOptions::new().open_sender(&path).await.unwrap();
        sender.send_all("again").await.0.unwrap();
        let (_, buf) = timeout(SOON, receiver.recv_into(Vec::with_capacity(8))).await.unwrap();
        assert_eq!(buf, b"again");
    });
}

fn a_fifo_without_a_receiver_takes_no_sender(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    runtime.block_on(async {
        make_fifo(&path, 0o600).await.unwrap();
        let opening = OpenOptions::new();
        let error = timeout(SOON, opening.open_sender(&path)).await.unwrap().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("nobody has the FIFO") && text.contains("/fifo"), "{text}");
        assert_eq!(errno(Err::<(), _>(error)), libc::ENXIO);
        let missing = opening.open_sender(dir.path().join("none")).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    });
}

fn a_fifo_open_for_both_has_no_end(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    runtime.block_on(async {
        make_fifo(&path, 0o600).await.unwrap();
        let receiver = OpenOptions::new().read_write(true).open_receiver(&path).await.unwrap();
        for round in 0..3u8 {
            let sender = OpenOptions::new().open_sender(&path).await.unwrap();
            sender.send_all(vec![round]).await.0.unwrap();
            drop(sender);
            let (_, buf) = receiver.recv_into(Vec::with_capacity(8)).await;
            assert_eq!(buf, [round]);
            let mut recv = receiver.recv_into(Vec::with_capacity(8));
            assert!(start(&mut recv).await.is_none());
            let_others_run().await;
            assert!(start(&mut recv).await.is_none());
        }
        drop(receiver);
        let sender = OpenOptions::new().read_write(true).open_sender(&path).await.unwrap();
        sender.send_all("nobody reads this").await.0.unwrap();
    });
}

fn what_is_no_fifo_is_refused(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "contents").unwrap();
    runtime.block_on(async {
        for result in [
            OpenOptions::new().open_sender(&path).await.map(drop),
            OpenOptions::new().open_receiver(&path).await.map(drop),
            OpenOptions::new().open_receiver(dir.path()).await.map(drop),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("is no FIFO"), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"contents");
    });
}
