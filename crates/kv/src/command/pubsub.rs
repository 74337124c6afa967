//! Publish and subscribe.

use std::sync::atomic::Ordering;

use super::{Answer, Call, DONE, Spec, flag};
use crate::error::Error;
use crate::protocol::{Args, Reply};
use crate::server::{Client, Logged, Server, Subscriber, Topic};

const FLAGS: u32 = flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::SUBSCRIBED;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::session("subscribe", -2, subscribe).flags(FLAGS).doc(
        "pubsub",
        "2.0.0",
        "O(N), N being the channels",
        "Hear of messages to these channels",
    ),
    Spec::session("unsubscribe", -1, unsubscribe).flags(FLAGS).doc(
        "pubsub",
        "2.0.0",
        "O(N), N being the channels",
        "Hear no more of messages to these channels, or to any",
    ),
    Spec::session("psubscribe", -2, psubscribe).flags(FLAGS).doc(
        "pubsub",
        "2.0.0",
        "O(N), N being the patterns",
        "Hear of messages to all channels that match these patterns",
    ),
    Spec::session("punsubscribe", -1, punsubscribe).flags(FLAGS).doc(
        "pubsub",
        "2.0.0",
        "O(N), N being the patterns",
        "Hear no more of messages by these patterns, or by any",
    ),
    Spec::session("ssubscribe", -2, ssubscribe).flags(FLAGS).doc(
        "pubsub",
        "7.0.0",
        "O(N), N being the channels",
        "Hear of messages to these channels of shards",
    ),
    Spec::session("sunsubscribe", -1, sunsubscribe).flags(FLAGS).doc(
        "pubsub",
        "7.0.0",
        "O(N), N being the channels",
        "Hear no more of messages to these channels of shards, or to any",
    ),
    Spec::data("publish", 3, publish)
        .flags(flag::PUBSUB | flag::LOADING | flag::STALE | flag::FAST | flag::MAY_REPLICATE)
        .doc("pubsub", "2.0.0", "O(N), N being those who hear it", "Send a message to a channel"),
    Spec::data("spublish", 3, spublish)
        .flags(flag::PUBSUB | flag::LOADING | flag::STALE | flag::FAST | flag::MAY_REPLICATE)
        .doc(
            "pubsub",
            "7.0.0",
            "O(N), N being those who hear it",
            "Send a message to a channel of shards",
        ),
    Spec::container(
        "pubsub",
        &[
            Spec::data("channels", -2, channels)
                .flags(flag::PUBSUB | flag::LOADING | flag::STALE)
                .doc(
                    "pubsub",
                    "2.8.0",
                    "O(N), N being the channels",
                    "List the channels that anybody is subscribed to",
                ),
            Spec::data("numsub", -2, numsub).flags(flag::PUBSUB | flag::LOADING | flag::STALE).doc(
                "pubsub",
                "2.8.0",
                "O(N), N being the channels asked for",
                "Count who is subscribed to channels",
            ),
            Spec::data("numpat", 2, numpat).flags(flag::PUBSUB | flag::LOADING | flag::STALE).doc(
                "pubsub",
                "2.8.0",
                "O(1)",
                "Count the patterns that anybody is subscribed to",
            ),
            Spec::data("shardchannels", -2, shardchannels)
                .flags(flag::PUBSUB | flag::LOADING | flag::STALE)
                .doc(
                    "pubsub",
                    "7.0.0",
                    "O(N), N being the channels",
                    "List the channels of shards that anybody is subscribed to",
                ),
            Spec::data("shardnumsub", -2, shardnumsub)
                .flags(flag::PUBSUB | flag::LOADING | flag::STALE)
                .doc(
                    "pubsub",
                    "7.0.0",
                    "O(N), N being the channels asked for",
                    "Count who is subscribed to channels of shards",
                ),
            Spec::data("help", 2, help).flags(flag::LOADING | flag::STALE).doc(
                "pubsub",
                "6.2.0",
                "O(1)",
                "Show what PUBSUB can be asked",
            ),
        ],
    ),
];

fn subscribe(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    add(call, client, args, Topic::Channel)
}

fn psubscribe(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    add(call, client, args, Topic::Pattern)
}

fn ssubscribe(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    add(call, client, args, Topic::ShardChannel)
}

fn unsubscribe(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    remove(call, client, args, Topic::Channel)
}

fn punsubscribe(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    remove(call, client, args, Topic::Pattern)
}

fn sunsubscribe(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    remove(call, client, args, Topic::ShardChannel)
}

fn add(call: &mut Call<'_>, client: &mut Client, args: Args<'_>, topic: Topic) -> Answer {
    for name in args.iter_from(1) {
        if of(client, topic).insert(name.to_vec()) {
            let who = Subscriber { client: client.info.id, core: client.info.core };
            call.server.pubsub.subscribe(topic, name, who);
        }
        confirm(call.reply, client, topic, true, Some(name));
    }
    note(client);
    DONE
}

fn remove(call: &mut Call<'_>, client: &mut Client, args: Args<'_>, topic: Topic) -> Answer {
    let names: Vec<Vec<u8>> = if args.len() > 1 {
        args.iter_from(1).map(<[u8]>::to_vec).collect()
    } else {
        of(client, topic).iter().cloned().collect()
    };
    if names.is_empty() {
        confirm(call.reply, client, topic, false, None);
    }
    for name in names {
        if of(client, topic).remove(&name) {
            call.server.pubsub.unsubscribe(topic, &name, client.info.id);
        }
        confirm(call.reply, client, topic, false, Some(&name));
    }
    note(client);
    DONE
}

/// Ends all subscriptions of a client that goes.
pub fn leave(server: &Server, client: &mut Client) {
    for topic in [Topic::Channel, Topic::Pattern, Topic::ShardChannel] {
        for name in std::mem::take(of(client, topic)) {
            server.pubsub.unsubscribe(topic, &name, client.info.id);
        }
    }
    note(client);
    server.feed.remove(client.info.id);
}

fn of(client: &mut Client, topic: Topic) -> &mut std::collections::BTreeSet<Vec<u8>> {
    match topic {
        Topic::Channel => &mut client.channels,
        Topic::Pattern => &mut client.patterns,
        Topic::ShardChannel => &mut client.shard_channels,
    }
}

fn note(client: &Client) {
    client.info.channels.store(client.channels.len(), Ordering::Relaxed);
    client.info.patterns.store(client.patterns.len(), Ordering::Relaxed);
    client.info.shard_channels.store(client.shard_channels.len(), Ordering::Relaxed);
}

fn confirm(reply: &mut Reply, client: &Client, topic: Topic, on: bool, name: Option<&[u8]>) {
    let kind: &[u8] = match (topic, on) {
        (Topic::Channel, true) => b"subscribe",
        (Topic::Channel, false) => b"unsubscribe",
        (Topic::Pattern, true) => b"psubscribe",
        (Topic::Pattern, false) => b"punsubscribe",
        (Topic::ShardChannel, true) => b"ssubscribe",
        (Topic::ShardChannel, false) => b"sunsubscribe",
    };
    reply.push(3);
    reply.bulk(kind);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.count(match topic {
        Topic::ShardChannel => client.shard_channels.len(),
        Topic::Channel | Topic::Pattern => client.subscriptions(),
    });
}

fn publish(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    send(call, args, false)
}

fn spublish(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    send(call, args, true)
}

fn send(call: &mut Call<'_>, args: Args<'_>, is_sharded: bool) -> Answer {
    let deliveries = call.server.pubsub.publish(&args[1], &args[2], is_sharded);
    call.reply.count(deliveries.len());
    call.deliveries.extend(deliveries);
    // Those who follow the log are told, though it is not logged.
    call.server.follow_up(&[Logged { db: call.keys.db(), args }]);
    DONE
}

fn channels(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    list_channels(call, args, false)
}

fn shardchannels(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    list_channels(call, args, true)
}

fn list_channels(call: &mut Call<'_>, args: Args<'_>, is_sharded: bool) -> Answer {
    if args.len() > 3 {
        return Err(Error::arity(if is_sharded {
            "pubsub|shardchannels"
        } else {
            "pubsub|channels"
        }));
    }
    let names = call.server.pubsub.channels(args.get(2), is_sharded);
    call.reply.array(names.len());
    names.iter().for_each(|name| call.reply.bulk(name));
    DONE
}

fn numsub(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    count_subscribers(call, args, false)
}

fn shardnumsub(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    count_subscribers(call, args, true)
}

fn count_subscribers(call: &mut Call<'_>, args: Args<'_>, is_sharded: bool) -> Answer {
    call.reply.map(args.len() - 2);
    for name in args.iter_from(2) {
        call.reply.bulk(name);
        call.reply.count(call.server.pubsub.subscribers(name, is_sharded));
    }
    DONE
}

fn numpat(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.count(call.server.pubsub.patterns());
    DONE
}

fn help(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    super::help(
        call,
        "PUBSUB",
        &[
            ("CHANNELS [<pattern>]", "List the channels with subscribers that match."),
            ("NUMPAT", "Count the patterns that are subscribed to."),
            ("NUMSUB [<channel> ...]", "Count the subscribers of channels."),
            (
                "SHARDCHANNELS [<pattern>]",
                "List the channels of shards with subscribers that match.",
            ),
            ("SHARDNUMSUB [<channel> ...]", "Count the subscribers of channels of shards."),
        ],
    )
}
