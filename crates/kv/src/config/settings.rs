//! The table of settings: names, what may be set, and what it means to the server.

use super::{Config, WhoMay};
use crate::server::OutputLimit;
use crate::store::EventClass;

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// A number between two bounds.
    Int(i64, i64),
    /// Bytes between two bounds, with a unit: `100`, `1k` (1,000), `1kb` (1,024), and so on with `m` and `g`.
    Bytes(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
    /// Text with a form of its own, which its `apply` looks at.
    Form,
}

/// A setting, as it was read.
#[derive(Clone, Copy, Debug)]
pub enum Read<'a> {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Int`] and [`Kind::Bytes`].
    Int(i64),
    /// Of the others.
    Text(&'a str),
}

impl Read<'_> {
    fn bool(self) -> bool {
        matches!(self, Read::Bool(true))
    }

    fn int(self) -> i64 {
        match self {
            Read::Int(value) => value,
            _ => 0,
        }
    }

    fn text(&self) -> &str {
        match self {
            Read::Text(text) => text,
            _ => "",
        }
    }
}

/// What a setting changes, or what is wrong with it.
type Apply = fn(&mut Config, Read<'_>) -> Result<(), String>;

/// A row of the table.
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// An older name, which is taken too.
    pub alias: Option<&'static str>,
    /// What it may be.
    pub kind: Kind,
    /// What it is unless set.
    pub default: &'static str,
    /// Whether it is decided at the start.
    pub is_fixed: bool,
    /// Whether its value is not shown in logs.
    pub is_secret: bool,
    /// Whether it is shown only to who names it.
    pub is_hidden: bool,
    pub(super) apply: Apply,
}

/// A setting that nothing but `CONFIG GET` looks at.
fn only_kept(_config: &mut Config, _read: Read<'_>) -> Result<(), String> {
    Ok(())
}

const fn setting(name: &'static str, kind: Kind, default: &'static str, apply: Apply) -> Setting {
    Setting {
        name,
        alias: None,
        kind,
        default,
        is_fixed: false,
        is_secret: false,
        is_hidden: false,
        apply,
    }
}

const fn fixed(name: &'static str, kind: Kind, default: &'static str, apply: Apply) -> Setting {
    Setting { is_fixed: true, ..setting(name, kind, default, apply) }
}

impl Setting {
    const fn alias(mut self, name: &'static str) -> Setting {
        self.alias = Some(name);
        self
    }

    const fn hidden(mut self) -> Setting {
        self.is_hidden = true;
        self
    }

    const fn secret(mut self) -> Setting {
        self.is_secret = true;
        self
    }
}

const ANY: i64 = i64::MAX;

/// Policies of `maxmemory-policy`.
pub const POLICIES: &[&str] = &[
    "noeviction",
    "allkeys-lru",
    "volatile-lru",
    "allkeys-random",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lfu",
    "volatile-lfu",
];

/// The settings, by name.
pub const SETTINGS: &[Setting] = &[
    // What has a meaning here.
    setting("active-expire-effort", Kind::Int(1, 10), "1", |config, read| {
        config.active_expire_effort = read.int() as u32;
        Ok(())
    }),
    setting("appendfsync", Kind::Word(&["always", "everysec", "no"]), "always", |config, read| {
        config.appendfsync = read.text().parse()?;
        Ok(())
    }),
    setting("appendonly", Kind::Bool, "yes", |config, read| {
        config.appendonly = read.bool();
        Ok(())
    }),
    setting("auto-aof-rewrite-min-size", Kind::Bytes(0, ANY), "67108864", |config, read| {
        config.rewrite_min_size = read.int() as u64;
        Ok(())
    }),
    setting("auto-aof-rewrite-percentage", Kind::Int(0, i32::MAX as i64), "100", |config, read| {
        config.rewrite_percentage = read.int() as u64;
        Ok(())
    }),
    setting("bind", Kind::Form, "127.0.0.1 -::1", |config, read| {
        config.bind = super::addresses(read.text())?;
        Ok(())
    }),
    setting(
        "client-output-buffer-limit",
        Kind::Form,
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        |config, read| {
            config.output_limits = OutputLimit::read_all(config.output_limits, read.text())?;
            Ok(())
        },
    ),
    setting(
        "client-query-buffer-limit",
        Kind::Bytes(1024 * 1024, ANY),
        "1073741824",
        |config, read| {
            config.client_query_buffer_limit = read.int() as usize;
            Ok(())
        },
    ),
    fixed("databases", Kind::Int(16, 16), "16", only_kept),
    fixed("dir", Kind::Text, ".", |config, read| {
        config.dir = read.text().into();
        Ok(())
    }),
    fixed("enable-debug-command", Kind::Word(&["no", "yes", "local"]), "no", |config, read| {
        config.debug = match read.text() {
            "yes" => WhoMay::All,
            "local" => WhoMay::Local,
            _ => WhoMay::Nobody,
        };
        Ok(())
    }),
    setting("hash-max-listpack-entries", Kind::Int(0, ANY), "512", |config, read| {
        config.limits.hash_max_listpack_entries = read.int() as usize;
        Ok(())
    })
    .alias("hash-max-ziplist-entries"),
    setting("hash-max-listpack-value", Kind::Bytes(0, ANY), "64", |config, read| {
        config.limits.hash_max_listpack_value = read.int() as usize;
        Ok(())
    })
    .alias("hash-max-ziplist-value"),
    setting("hll-sparse-max-bytes", Kind::Bytes(0, ANY), "3000", |config, read| {
        config.limits.hll_sparse_max_bytes = read.int() as usize;
        Ok(())
    }),
    setting("latency-monitor-threshold", Kind::Int(0, ANY), "0", |config, read| {
        config.latency_threshold_ms = read.int() as u64;
        Ok(())
    }),
    setting("latency-tracking", Kind::Bool, "yes", |config, read| {
        config.latency_tracking = read.bool();
        Ok(())
    }),
    setting("latency-tracking-info-percentiles", Kind::Form, "50 99 99.9", |config, read| {
        config.latency_percentiles = super::percentiles(read.text())?;
        Ok(())
    }),
    setting("lfu-decay-time", Kind::Int(0, i32::MAX as i64), "1", |config, read| {
        config.lfu.decay_minutes = read.int() as u32;
        Ok(())
    }),
    setting("lfu-log-factor", Kind::Int(0, i32::MAX as i64), "10", |config, read| {
        config.lfu.log_factor = read.int() as u32;
        Ok(())
    }),
    setting(
        "list-max-listpack-size",
        Kind::Int(i32::MIN as i64, i32::MAX as i64),
        "-2",
        |config, read| {
            config.limits.list_max_listpack_size = read.int();
            Ok(())
        },
    )
    .alias("list-max-ziplist-size"),
    fixed("logfile", Kind::Text, "", |config, read| {
        config.log_file = read.text().into();
        Ok(())
    }),
    setting(
        "loglevel",
        Kind::Word(&["debug", "verbose", "notice", "warning"]),
        "notice",
        |config, read| {
            config.log_level = read.text().parse()?;
            Ok(())
        },
    ),
    setting("maxclients", Kind::Int(1, u32::MAX as i64), "10000", |config, read| {
        config.maxclients = read.int() as usize;
        Ok(())
    }),
    fixed("metrics-port", Kind::Int(0, 65535), "0", |config, read| {
        config.metrics_port = read.int() as u16;
        Ok(())
    }),
    setting("min-replicas-to-write", Kind::Int(0, i32::MAX as i64), "0", |config, read| {
        config.min_replicas_to_write = read.int() as u64;
        Ok(())
    })
    .alias("min-slaves-to-write"),
    setting("min-replicas-max-lag", Kind::Int(0, i32::MAX as i64), "10", |config, read| {
        config.min_replicas_max_lag = read.int() as u64;
        Ok(())
    })
    .alias("min-slaves-max-lag"),
    setting("maxmemory", Kind::Bytes(0, ANY), "0", |config, read| {
        config.maxmemory = read.int() as u64;
        Ok(())
    }),
    setting("maxmemory-clients", Kind::Form, "0", |config, read| {
        config.maxmemory_clients = read.text().parse()?;
        Ok(())
    }),
    setting("maxmemory-policy", Kind::Word(POLICIES), "noeviction", |config, read| {
        config.policy = read.text().parse()?;
        Ok(())
    }),
    setting("maxmemory-samples", Kind::Int(1, 64), "5", |config, read| {
        config.maxmemory_samples = read.int() as usize;
        Ok(())
    }),
    setting("notify-keyspace-events", Kind::Form, "", |config, read| {
        config.events = EventClass::read(read.text())
            .ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned())?;
        Ok(())
    }),
    fixed("ordered-keys", Kind::Bool, "no", |config, read| {
        config.ordered_keys = read.bool();
        Ok(())
    }),
    setting("port", Kind::Int(0, 65535), "6379", |config, read| {
        config.port = read.int() as u16;
        Ok(())
    }),
    setting("proto-max-bulk-len", Kind::Bytes(1024 * 1024, ANY), "536870912", |config, read| {
        config.proto_max_bulk_len = read.int() as u64;
        Ok(())
    }),
    setting("protected-mode", Kind::Bool, "yes", |config, read| {
        config.protected_mode = read.bool();
        Ok(())
    }),
    setting("reads-first", Kind::Bool, "yes", |config, read| {
        config.reads_first = read.bool();
        Ok(())
    }),
    setting("requirepass", Kind::Text, "", |config, read| {
        config.password = read.text().as_bytes().to_vec();
        Ok(())
    })
    .secret(),
    setting("save", Kind::Form, "", |config, read| {
        config.save = super::save_points(read.text())?;
        Ok(())
    }),
    setting("set-max-intset-entries", Kind::Int(0, ANY), "512", |config, read| {
        config.limits.set_max_intset_entries = read.int() as usize;
        Ok(())
    }),
    setting("slowlog-log-slower-than", Kind::Int(-1, ANY), "10000", |config, read| {
        config.slowlog_micros = read.int();
        Ok(())
    }),
    setting("slowlog-max-len", Kind::Int(0, ANY), "128", |config, read| {
        config.slowlog_len = read.int() as usize;
        Ok(())
    }),
    setting("tcp-keepalive", Kind::Int(0, i32::MAX as i64), "300", |config, read| {
        config.tcp_keepalive_s = read.int() as u64;
        Ok(())
    }),
    fixed("tcp-backlog", Kind::Int(0, i32::MAX as i64), "511", |config, read| {
        config.tcp_backlog = read.int() as u32;
        Ok(())
    }),
    setting("timeout", Kind::Int(0, i32::MAX as i64), "0", |config, read| {
        config.timeout_s = read.int() as u64;
        Ok(())
    }),
    fixed("tls-auth-clients", Kind::Word(&["no", "optional", "yes"]), "yes", |config, read| {
        config.tls_auth_clients = read.text().parse()?;
        Ok(())
    }),
    fixed("tls-ca-cert-file", Kind::Text, "", |config, read| {
        config.tls_ca_cert_file = read.text().into();
        Ok(())
    }),
    fixed("tls-cert-file", Kind::Text, "", |config, read| {
        config.tls_cert_file = read.text().into();
        Ok(())
    }),
    fixed("tls-key-file", Kind::Text, "", |config, read| {
        config.tls_key_file = read.text().into();
        Ok(())
    }),
    fixed("tls-port", Kind::Int(0, 65535), "0", |config, read| {
        config.tls_port = read.int() as u16;
        Ok(())
    }),
    setting("tracking-table-max-keys", Kind::Int(0, ANY), "1000000", |config, read| {
        config.tracking_table_max_keys = read.int() as usize;
        Ok(())
    }),
    fixed("unixsocket", Kind::Text, "", |config, read| {
        config.unix_socket = read.text().into();
        Ok(())
    }),
    fixed("unixsocketperm", Kind::Form, "0", |config, read| {
        config.unix_socket_mode = u32::from_str_radix(read.text(), 8)
            .ok()
            .filter(|&mode| mode <= 0o777)
            .ok_or("argument must be octal, up to 777".to_owned())?;
        Ok(())
    }),
    setting("zset-max-listpack-entries", Kind::Int(0, ANY), "128", |config, read| {
        config.limits.zset_max_listpack_entries = read.int() as usize;
        Ok(())
    })
    .alias("zset-max-ziplist-entries"),
    setting("zset-max-listpack-value", Kind::Bytes(0, ANY), "64", |config, read| {
        config.limits.zset_max_listpack_value = read.int() as usize;
        Ok(())
    })
    .alias("zset-max-ziplist-value"),
    // What is kept so that clients and files of Redis find it, and says nothing to this server: it tunes what
    // Redis does in another way, or what comes later.
    setting("acllog-max-len", Kind::Int(0, ANY), "128", only_kept),
    fixed("always-show-logo", Kind::Bool, "no", only_kept),
    fixed("disable-thp", Kind::Bool, "yes", only_kept),
    setting("dynamic-hz", Kind::Bool, "yes", only_kept),
    setting("jemalloc-bg-thread", Kind::Bool, "yes", only_kept),
    setting("oom-score-adj", Kind::Word(&["no", "yes", "relative", "absolute"]), "no", only_kept),
    setting("oom-score-adj-values", Kind::Text, "0 200 800", only_kept),
    setting("proc-title-template", Kind::Text, "{title} {listen-addr} {server-mode}", only_kept),
    setting("repl-disable-tcp-nodelay", Kind::Bool, "no", only_kept),
    setting(
        "repl-diskless-load",
        Kind::Word(&["disabled", "on-empty-db", "swapdb"]),
        "disabled",
        only_kept,
    ),
    setting("repl-diskless-sync", Kind::Bool, "yes", only_kept),
    setting("repl-diskless-sync-delay", Kind::Int(0, i32::MAX as i64), "5", only_kept),
    setting("repl-diskless-sync-max-replicas", Kind::Int(0, i32::MAX as i64), "0", only_kept),
    setting("replica-lazy-flush", Kind::Bool, "no", only_kept),
    setting("replica-priority", Kind::Int(0, i32::MAX as i64), "100", only_kept),
    setting("replica-read-only", Kind::Bool, "yes", only_kept),
    setting("replica-serve-stale-data", Kind::Bool, "yes", only_kept),
    fixed("set-proc-title", Kind::Bool, "yes", only_kept),
    setting("activerehashing", Kind::Bool, "yes", only_kept),
    setting("aof-use-rdb-preamble", Kind::Bool, "yes", only_kept),
    setting("busy-reply-threshold", Kind::Int(0, ANY), "5000", only_kept).alias("lua-time-limit"),
    fixed("daemonize", Kind::Word(&["no"]), "no", only_kept),
    setting("hz", Kind::Int(1, 500), "10", only_kept),
    setting("key-load-delay", Kind::Int(i32::MIN as i64, i32::MAX as i64), "0", only_kept).hidden(),
    setting("lazyfree-lazy-eviction", Kind::Bool, "no", only_kept),
    setting("lazyfree-lazy-expire", Kind::Bool, "no", only_kept),
    setting("lazyfree-lazy-server-del", Kind::Bool, "no", only_kept),
    setting("lazyfree-lazy-user-del", Kind::Bool, "no", only_kept),
    setting("lazyfree-lazy-user-flush", Kind::Bool, "no", only_kept),
    setting("list-compress-depth", Kind::Int(0, i32::MAX as i64), "0", only_kept),
    setting("maxmemory-eviction-tenacity", Kind::Int(0, 100), "10", only_kept),
    setting("rdbchecksum", Kind::Bool, "yes", only_kept),
    setting("rdbcompression", Kind::Bool, "yes", only_kept),
    setting("repl-backlog-size", Kind::Bytes(1, ANY), "1048576", only_kept),
    setting("repl-ping-replica-period", Kind::Int(1, i32::MAX as i64), "10", only_kept),
    fixed("replicaof", Kind::Word(&[""]), "", only_kept).alias("slaveof"),
    setting("sanitize-dump-payload", Kind::Word(&["no", "yes", "clients"]), "no", only_kept),
    setting("stop-writes-on-bgsave-error", Kind::Bool, "yes", only_kept),
    setting("stream-node-max-bytes", Kind::Bytes(0, ANY), "4096", only_kept),
    setting("stream-node-max-entries", Kind::Int(0, ANY), "100", only_kept),
];

/// The setting of that name, in whatever case.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| {
        setting.name.eq_ignore_ascii_case(name)
            || setting.alias.is_some_and(|alias| alias.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::SETTINGS;

    #[test]
    fn the_documentation_lists_all_settings_and_no_others() {
        let text = include_str!("../../../../docs/kv.md");
        let (_, rest) = text.split_once("## Settings").expect("there is such a chapter");
        let (chapter, _) = rest.split_once("\n## ").expect("others follow");
        // Names are in the first column, then in a list.
        let (table, list) = chapter.split_once("Taken so that").expect("a list follows the table");
        let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        let names = cells.chain([list]).flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let documented: BTreeSet<&str> = names.collect();
        let settings: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(documented, settings);
    }
}
