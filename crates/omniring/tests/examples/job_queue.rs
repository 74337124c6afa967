//! The job queue, with a client for beanstalkd that nobody here wrote, and raw bytes for what it would not send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use beanstalkc::Beanstalkc;
use omniring::Runtime;

use crate::program::{Program, fails};

on_some_engines!(
    jobs_come_by_priority_and_are_done_once,
    tubes_on_other_cores_are_as_near,
    a_waiting_client_gets_what_comes,
    what_is_not_done_in_time_or_whose_client_goes_comes_back,
    the_protocol_is_kept_to_the_byte,
    an_address_that_is_taken_is_named,
);

/// Nothing here waits so long.
const SOON: Duration = Duration::from_secs(20);
const NO_TIME: Duration = Duration::ZERO;
const MINUTE: Duration = Duration::from_secs(60);

fn start(runtime: &Runtime) -> Program {
    Program::start("job_queue", &["--cores", "2"], runtime)
}

fn client(queue: &Program) -> Beanstalkc {
    let (host, port) = queue.at.split_once(':').unwrap();
    Beanstalkc::new().host(host).port(port.parse().unwrap()).connect().unwrap()
}

fn stat(client: &mut Beanstalkc, name: &str) -> String {
    client.stats().unwrap().remove(name).unwrap_or_else(|| panic!("no {name}"))
}

fn jobs_come_by_priority_and_are_done_once(runtime: &Runtime) {
    let queue = start(runtime);
    let mut client = client(&queue);
    for (body, priority) in [("third", 7), ("first", 1), ("fourth", 7), ("second", 2)] {
        client.put(body.as_bytes(), priority, NO_TIME, MINUTE).unwrap();
    }
    assert_eq!(stat(&mut client, "current-jobs-ready"), "4");
    for body in ["first", "second", "third", "fourth"] {
        let mut job = client.reserve().unwrap();
        assert_eq!(job.body(), body.as_bytes());
        job.delete().unwrap();
    }
    assert!(client.reserve_with_timeout(NO_TIME).is_err(), "nothing is left");
    assert!(client.delete(1_000).is_err(), "there is no such job");
    let counts = ["current-jobs-ready", "current-jobs-reserved", "total-jobs", "cmd-delete"];
    assert_eq!(counts.map(|name| stat(&mut client, name)), ["0", "0", "4", "4"]);
}

fn tubes_on_other_cores_are_as_near(runtime: &Runtime) {
    let queue = start(runtime);
    let (mut producer, mut worker) = (client(&queue), client(&queue));
    assert_eq!(stat(&mut worker, "cores"), "2");
    let mut ids = Vec::new();
    for at in 0..20 {
        let tube = format!("tube-{at}");
        assert_eq!(producer.use_tube(&tube).unwrap(), tube);
        ids.push(producer.put_default(tube.as_bytes()).unwrap());
        worker.watch(&tube).unwrap();
    }
    // By their numbers both cores have some.
    assert!(ids.iter().any(|id| id % 2 == 0) && ids.iter().any(|id| id % 2 == 1), "{ids:?}");
    assert_eq!(worker.ignore("default").unwrap(), 20);
    let mut bodies: Vec<_> = (0..20)
        .map(|_| {
            let mut job = worker.reserve().unwrap();
            job.touch().unwrap();
            job.delete().unwrap();
            String::from_utf8(job.body().to_vec()).unwrap()
        })
        .collect();
    let mut tubes = producer.tubes().unwrap();
    tubes.retain(|tube| tube != "default");
    tubes.sort();
    bodies.sort();
    assert_eq!(bodies, tubes);
    assert_eq!(worker.stats_tube("tube-7").unwrap()["total-jobs"], "1");
}

fn a_waiting_client_gets_what_comes(runtime: &Runtime) {
    let queue = start(runtime);
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let mut worker = client(&queue);
            thread::spawn(move || {
                worker.watch("other").unwrap();
                let mut done = 0;
                loop {
                    let mut job = worker.reserve_with_timeout(SOON).unwrap();
                    job.delete().unwrap();
                    match job.body() {
                        b"end" => return done,
                        _ => done += 1,
                    }
                }
            })
        })
        .collect();
    let mut producer = client(&queue);
    for at in 0..200 {
        producer.use_tube(if at % 2 == 0 { "default" } else { "other" }).unwrap();
        producer.put_default(b"work").unwrap();
    }
    // The least urgent.
    for _ in 0..4 {
        producer.put(b"end", u32::MAX, NO_TIME, MINUTE).unwrap();
    }
    let done: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(done, 200);
    assert_eq!(stat(&mut producer, "cmd-delete"), "204");
}

fn what_is_not_done_in_time_or_whose_client_goes_comes_back(runtime: &Runtime) {
    let queue = start(runtime);
    let (mut careless, mut careful) = (client(&queue), client(&queue));
    let second = Duration::from_secs(1);
    let id = careless.put(b"late", 1, NO_TIME, second).unwrap();
    let delayed = careless.put(b"delayed", 2, second, MINUTE).unwrap();
    assert_eq!(careless.reserve().unwrap().id(), id);
    assert!(careful.reserve_with_timeout(NO_TIME).is_err(), "one is reserved, one delayed");
    // Both within a second, which is what these have.
    let mut ids = [(); 2].map(|()| careful.reserve_with_timeout(SOON).unwrap().id());
    ids.sort();
    assert_eq!(ids, [id, delayed]);
    assert!(careless.delete(id).is_err(), "it is another's by now");
    assert_eq!(stat(&mut careless, "job-timeouts"), "1");
    careful.release(id, 5, NO_TIME).unwrap();
    assert_eq!(careless.reserve().unwrap().id(), id);
    // One goes, and what it has reserved comes back.
    drop(careful);
    assert_eq!(careless.reserve_with_timeout(SOON).unwrap().id(), delayed);
}

fn the_protocol_is_kept_to_the_byte(runtime: &Runtime) {
    let queue = start(runtime);
    let mut stream = TcpStream::connect(&queue.at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"put 0 0 60 2\r\nab\r\n").unwrap();
    // The number depends on the core.
    let mut inserted = String::new();
    while !inserted.ends_with('\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        inserted.push(byte[0].into());
    }
    assert!(inserted.starts_with("INSERTED ") && inserted.ends_with("\r\n"), "{inserted:?}");
    let mut says = |sent: &[u8], answer: &str| {
        stream.write_all(sent).unwrap();
        let mut received = vec![0; answer.len()];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(String::from_utf8_lossy(&received), answer);
    };
    says(b"put 0 0 60 2\r\nabc\r\n", "EXPECTED_CRLF\r\n");
    says(b"\r\n", "UNKNOWN_COMMAND\r\n");
    says(b"put 0 0 60\r\n", "BAD_FORMAT\r\n");
    says(b"put -1 0 60 2\r\nUSE x\r\n", "BAD_FORMAT\r\nUNKNOWN_COMMAND\r\n");
    says(b"dance\r\nuse -x\r\n", "UNKNOWN_COMMAND\r\nBAD_FORMAT\r\n");
    says(b"ignore default\r\n", "NOT_IGNORED\r\n");
    says(
        b"list-tube-used\r\nlist-tubes-watched\r\n",
        "USING default\r\nOK 14\r\n---\n- default\n\r\n",
    );
    let mut big = b"put 0 0 60 100000\r\n".to_vec();
    big.extend([b'x'; 100_000]);
    big.extend(b"\r\nuse a\r\n");
    says(&big, "JOB_TOO_BIG\r\nUSING a\r\n");
    // The next command waits for its turn.
    says(
        b"watch b\r\nignore default\r\nreserve-with-timeout 0\r\nwatch c\r\n",
        "WATCHING 2\r\nWATCHING 1\r\nTIMED_OUT\r\nWATCHING 2\r\n",
    );
    stream.write_all(b"quit\r\n").unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    // A line without end.
    let mut stream = TcpStream::connect(&queue.at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&[b'x'; 300]).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"BAD_FORMAT");
    queue.terminate();
    assert!(queue.wait().success());
}

fn an_address_that_is_taken_is_named(runtime: &Runtime) {
    let queue = start(runtime);
    let said = fails(2, "job_queue", &["--listen", &queue.at], runtime);
    assert!(said.contains(&queue.at) && said.contains("choose another"), "{said}");
}
