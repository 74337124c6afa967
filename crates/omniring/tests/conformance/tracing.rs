//! Spans and events: what a subscriber is told is what has happened, and under whom.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{self, Waker};
use std::time::Duration;

use omniring::fs::File;
use omniring::time::timeout;
use omniring::{Engine, Runtime, spawn, spawn_named, spawn_on, yield_now};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Event, Instrument, Subscriber, info_span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::denial::{Denial, denied};
use crate::harness::{conformance, errno};
use crate::loopback::{start, tcp_pair};

conformance!(
    an_ops_span_says_which_op_it_was_and_how_it_ended,
    an_op_that_is_dropped_ends_when_the_engine_is_done_with_it,
    a_tasks_span_is_a_child_of_who_spawned_it_and_ends_with_it,
    a_future_is_dropped_in_its_tasks_span,
    instrument_works_as_everywhere,
    a_subscriber_may_come_back_in,
    a_runtime_that_starts_says_which_engine_and_why,
    a_hog_is_an_event;
    isolated: cores_start_and_end_and_their_tasks_are_children_of_who_sent_them,
);

const SOON: Duration = Duration::from_secs(30);

/// A span or an event.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: String,
    target: String,
    /// The names of the spans around it, the innermost first.
    within: Vec<String>,
    fields: BTreeMap<String, String>,
    is_closed: bool,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").unwrap();
        self.fields.insert(field.name().to_owned(), text.trim_matches('"').to_owned());
    }
}

/// Keeps everything that omniring and these tests tell.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

/// The place of a span among what was seen.
struct Place(usize);

impl Recorder {
    /// Records what this thread tells as long as the guard lives.
    fn start() -> (Recorder, DefaultGuard) {
        let recorder = Recorder::default();
        let subscriber = Registry::default().with(recorder.clone());
        (recorder, hear(subscriber))
    }

    fn all(&self, name: &str) -> Vec<Seen> {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|seen| seen.name == name).cloned().collect()
    }

    /// Those ops of a kind that have been seen.
    fn ops(&self, opcode: &str) -> Vec<Seen> {
        self.all("op").into_iter().filter(|op| op.field("opcode") == opcode).collect()
    }

    fn task(&self, name: &str) -> Seen {
        let mut tasks = self.all("task");
        tasks.retain(|task| task.field("name") == name);
        assert_eq!(tasks.len(), 1, "{name}: {tasks:?}");
        tasks.pop().unwrap()
    }
}

/// Tells this subscriber what happens on this thread, as long as the guard lives.
///
/// While there is but one dispatcher, tracing-core 0.1.36 asks only the thread that comes by a span or an event
/// for the first time who wants to hear of it (`Rebuilder::JustOne`): the thread of another test, where nobody
/// does, would turn it off for all. Two more that live for ever, and want nothing, spare us that.
fn hear(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static OTHERS: LazyLock<[Dispatch; 2]> =
        LazyLock::new(|| std::array::from_fn(|_| Dispatch::new(NoSubscriber::new())));
    LazyLock::force(&OTHERS);
    tracing::subscriber::set_default(subscriber)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let span = cx.span(id).unwrap();
        let mut seen = Seen {
            name: span.name().to_owned(),
            target: span.metadata().target().to_owned(),
            within: span.scope().skip(1).map(|span| span.name().to_owned()).collect(),
            ..Seen::default()
        };
        attributes.record(&mut seen);
        let mut all = self.0.lock().unwrap();
        span.extensions_mut().insert(Place(all.len()));
        all.push(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        let span = cx.span(id).unwrap();
        let place = span.extensions().get::<Place>().unwrap().0;
        values.record(&mut self.0.lock().unwrap()[place]);
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut seen = Seen { target: event.metadata().target().to_owned(), ..Seen::default() };
        event.record(&mut seen);
        seen.name = seen.field("message").to_owned();
        let scope = cx.event_scope(event).into_iter().flatten();
        seen.within = scope.map(|span| span.name().to_owned()).collect();
        self.0.lock().unwrap().push(seen);
    }

    fn on_close(&self, id: Id, cx: Context<'_, S>) {
        let span = cx.span(&id).unwrap();
        let place = span.extensions().get::<Place>().unwrap().0;
        self.0.lock().unwrap()[place].is_closed = true;
    }
}

fn an_ops_span_says_which_op_it_was_and_how_it_ended(runtime: &Runtime) {
    let (recorder, _guard) = Recorder::start();
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        file.write_at("hello", 0).await.0.unwrap();
        for _ in 0..300 {
            file.read_at(Vec::with_capacity(8), 0).await.0.unwrap();
        }
        let error = errno(File::open("/nowhere/at/all").await);
        assert_eq!(error, libc::ENOENT);
    });
    // What has ended since the last turn is told in the next.
    runtime.block_on(omniring::time::sleep(Duration::from_micros(100)));
    let (writes, reads, opens) =
        (recorder.ops("Write"), recorder.ops("Read"), recorder.ops("Open"));
    assert_eq!((writes.len(), reads.len(), opens.len()), (1, 300, 1));
    for op in writes.iter().chain(&reads) {
        assert_eq!(
            (op.field("result"), op.field("errno"), op.is_closed),
            ("5", "", true),
            "{op:?}"
        );
        assert_eq!(op.field("engine"), runtime.engine().name());
        assert_eq!(op.target, "omniring::op");
    }
    let expected = libc::ENOENT.to_string();
    assert_eq!((opens[0].field("errno"), opens[0].is_closed), (&expected[..], true));
}

fn an_op_that_is_dropped_ends_when_the_engine_is_done_with_it(runtime: &Runtime) {
    let (recorder, _guard) = Recorder::start();
    runtime.block_on(async {
        let (_client, server) = tcp_pair().await;
        let mut waiting = server.recv_into(vec![0; 8]);
        assert!(start(&mut waiting).await.is_none());
        assert!(!recorder.ops("Recv")[0].is_closed);
        drop(waiting);
        let ended = async {
            while !recorder.ops("Recv")[0].is_closed {
                yield_now().await;
            }
        };
        timeout(SOON, ended).await.unwrap();
        assert_eq!(recorder.ops("Recv")[0].field("errno"), libc::ECANCELED.to_string());
    });
}

fn a_tasks_span_is_a_child_of_who_spawned_it_and_ends_with_it(runtime: &Runtime) {
    let (recorder, _guard) = Recorder::start();
    runtime.block_on(async {
        let request = info_span!("request");
        let task = request.in_scope(|| {
            spawn_named("outer", async {
                tracing::info!("at work");
                let inner = spawn_named("inner", async {
                    File::open("/dev/null").await.unwrap();
                });
                inner.await.unwrap();
                yield_now().await;
            })
        });
        assert!(!recorder.task("outer").is_closed);
        drop(request);
        task.await.unwrap();
        drop(spawn(nameless()));
        yield_now().await;
    });
    let (outer, inner) = (recorder.task("outer"), recorder.task("inner"));
    assert_eq!(outer.within, ["request"]);
    assert_eq!(inner.within, ["task", "request"]);
    assert_eq!(recorder.all("at work")[0].within, ["task", "request"]);
    assert_eq!(recorder.ops("Open")[0].within, ["task", "task", "request"]);
    assert_eq!((outer.field("core"), &outer.target[..]), ("0", "omniring::task"));
    assert!(outer.is_closed && inner.is_closed && recorder.all("request")[0].is_closed);
    let tasks = recorder.all("task");
    let nameless = tasks.last().unwrap();
    assert!(nameless.field("name").contains("nameless") && nameless.is_closed, "{nameless:?}");
}

async fn nameless() {}

fn a_future_is_dropped_in_its_tasks_span(runtime: &Runtime) {
    struct Tells;
    impl Drop for Tells {
        fn drop(&mut self) {
            tracing::info!("dropped");
        }
    }
    let (recorder, _guard) = Recorder::start();
    runtime.block_on(async {
        let tells = Tells;
        let task = spawn_named("aborted", async move {
            let _tells = tells;
            std::future::pending::<()>().await;
        });
        yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_aborted());
        let tells = Tells;
        let task = spawn_named("panicked", async move {
            let _tells = tells;
            std::panic::resume_unwind(Box::new("quietly"));
        });
        assert!(task.await.is_err());
    });
    let dropped = recorder.all("dropped");
    assert_eq!(dropped.len(), 2);
    assert!(dropped.iter().all(|seen| seen.within == ["task"]), "{dropped:?}");
    assert!(recorder.task("aborted").is_closed && recorder.task("panicked").is_closed);
}

fn instrument_works_as_everywhere(runtime: &Runtime) {
    let (recorder, _guard) = Recorder::start();
    runtime.block_on(async {
        let work = async |name: &'static str| {
            for _ in 0..3 {
                yield_now().await;
                tracing::info!(name, "step");
            }
        };
        let one = spawn(work("one").instrument(info_span!("first")));
        let other = spawn(work("other").instrument(info_span!("second")));
        one.await.unwrap();
        other.await.unwrap();
    });
    let steps = recorder.all("step");
    assert_eq!(steps.len(), 6);
    for step in steps {
        let own = if step.field("name") == "one" { "first" } else { "second" };
        // Made by who spawned the task, which is in no span.
        assert_eq!(step.within, [own], "{step:?}");
    }
}

/// A subscriber that does I/O and spawns whenever it is told something, so often at most: what it does is told
/// as well.
struct Busy(AtomicU32);

impl<S: Subscriber> Layer<S> for Busy {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.work();
    }

    fn on_record(&self, _: &Id, _: &Record<'_>, _: Context<'_, S>) {
        self.work();
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.work();
    }
}

impl Busy {
    fn work(&self) {
        if omniring::in_runtime()
            && self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
        {
            drop(spawn(async {}));
            let mut stat = pin!(omniring::fs::metadata("/"));
            let _ = stat.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
        }
    }
}

fn a_subscriber_may_come_back_in(runtime: &Runtime) {
    let _guard = hear(Registry::default().with(Busy(AtomicU32::new(500))));
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let task = spawn(async move {
            let lease = server.recv().await.unwrap();
            server.send_all(lease).await.0.unwrap();
        });
        client.send_all("x").await.0.unwrap();
        assert_eq!(&client.recv().await.unwrap()[..], b"x");
        task.await.unwrap();
        // An op with a time limit, which on a ring is linked to it.
        let (result, _) = client.recv_into(vec![0; 1]).with_timeout(SOON).await;
        assert_eq!(result.unwrap(), 0);
    });
}

fn a_runtime_that_starts_says_which_engine_and_why(runtime: &Runtime) {
    let (recorder, _guard) = Recorder::start();
    let engine = runtime.engine();
    let builder = Runtime::builder().engine(engine).allow_unpolled(true);
    let second = builder.build().unwrap();
    let started = recorder.all("driver started");
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].field("engine"), engine.name());
    assert_eq!(started[0].field("choice"), second.engine_choice());
    assert_eq!(recorder.all("core started").len(), 1);
    drop(second);
    assert_eq!(recorder.all("core stopped")[0].field("core"), "0");
}

fn a_hog_is_an_event(runtime: &Runtime) {
    let (recorder, _guard) = Recorder::start();
    let builder = Runtime::builder().engine(runtime.engine()).allow_unpolled(true);
    let watched = builder.report_hogs_to(Duration::from_nanos(1), |_| {}).build().unwrap();
    watched.block_on(async {
        spawn_named("sleeper", async { std::thread::sleep(Duration::from_millis(1)) })
            .await
            .unwrap();
    });
    let told = recorder.all("task kept the core");
    let sleeper = told.iter().find(|seen| seen.field("task") == "sleeper").expect("it is told");
    assert!(sleeper.field("time_us").parse::<u64>().unwrap() >= 1000, "{sleeper:?}");
}

#[test]
fn auto_tells_which_engine_it_passed_over_and_why() {
    denied(Denial::Eperm, || {
        let (recorder, _guard) = Recorder::start();
        let runtime = Runtime::builder().engine(Engine::Auto).build().unwrap();
        let over = recorder.all("engine passed over");
        assert_eq!((over.len(), over[0].field("engine")), (1, "uring"));
        assert_eq!(over[0].field("reason"), Denial::Eperm.reason());
        assert!(over[0].field("remedy").contains("seccomp"), "{over:?}");
        assert_eq!(recorder.all("driver started")[0].field("engine"), runtime.engine().name());
    });
}

/// A waker, which is no task: its panic is the core's.
struct Panics;

impl task::Wake for Panics {
    fn wake(self: Arc<Self>) {
        std::panic::resume_unwind(Box::new("in a waker"));
    }
}

/// With a subscriber of the process's, since each core has a thread.
fn cores_start_and_end_and_their_tasks_are_children_of_who_sent_them(runtime: &Runtime) {
    let recorder = Recorder::default();
    let subscriber = Registry::default().with(recorder.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let builder = Runtime::builder().engine(runtime.engine()).allow_unpolled(true);
    let several = builder.cores(3).pin_cores(false).build().unwrap();
    several.block_on(async {
        let sent = info_span!("request")
            .in_scope(|| spawn_on(1, || async { spawn_named("there", async {}).await.unwrap() }));
        sent.await.unwrap();
        let waker = || Waker::from(Arc::new(Panics));
        let ends = spawn_on(2, move || {
            drop(spawn(async move {
                let mut sleep = pin!(omniring::time::sleep(Duration::from_millis(1)));
                let _ = sleep.as_mut().poll(&mut task::Context::from_waker(&waker()));
                std::future::pending::<()>().await;
            }));
            std::future::pending::<()>()
        });
        assert!(ends.await.unwrap_err().is_aborted());
    });
    drop(several);
    let panicked = recorder.all("core panicked");
    assert_eq!((panicked.len(), panicked[0].field("core")), (1, "2"));
    assert_eq!(panicked[0].field("panic"), "in a waker");
    let there = recorder.task("there");
    assert_eq!(there.field("core"), "1");
    assert_eq!(there.within, ["task", "request"]);
    for event in ["core started", "core stopped"] {
        let mut cores: Vec<_> =
            recorder.all(event).iter().map(|seen| seen.field("core").to_owned()).collect();
        cores.sort();
        assert_eq!(cores, ["0", "1", "2"], "{event}");
    }
}
