//! INFO: what the server knows of itself, in sections.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use super::memory::Usage;
use super::{Answer, Call, DONE, Spec, flag};
use crate::clock;
use crate::protocol::Args;
use crate::store::{DBS, seconds};

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::data("info", -1, info)
    .all_keys(None)
    .flags(flag::LOADING | flag::STALE)
    .doc("server", "1.0.0", "O(1)", "Show what the server knows of itself")];

/// A section: its name, whether it is shown unless asked otherwise, and what writes it.
struct Section {
    title: &'static str,
    is_default: bool,
    write: fn(&mut Text, &mut Call<'_>),
}

const fn section(
    title: &'static str,
    is_default: bool,
    write: fn(&mut Text, &mut Call<'_>),
) -> Section {
    Section { title, is_default, write }
}

const SECTIONS: &[Section] = &[
    section("Server", true, server),
    section("Clients", true, clients),
    section("Memory", true, memory),
    section("Persistence", true, persistence),
    section("Stats", true, stats),
    section("Replication", true, replication),
    section("CPU", true, cpu),
    section("Modules", true, |_, _| {}),
    section("Commandstats", false, commandstats),
    section("Errorstats", true, errorstats),
    section("Latencystats", false, latencystats),
    section("Cluster", true, |text, _| text.field("cluster_enabled", 0)),
    section("Keyspace", true, keyspace),
];

/// Lines of names and values.
#[derive(Default)]
struct Text(String);

impl Text {
    fn field(&mut self, name: &str, value: impl Display) {
        // A string takes everything that is written to it.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    fn fields<V: Display>(&mut self, fields: &[(&str, V)]) {
        fields.iter().for_each(|(name, value)| self.field(name, value));
    }

    /// Bytes, as a number and for people.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), human(bytes));
    }
}

/// Bytes with a unit.
fn human(bytes: u64) -> String {
    let number = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..0x10_0000 => format!("{:.2}K", number / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.2}M", number / f64::from(1 << 20)),
        _ => format!("{:.2}G", number / f64::from(1 << 30)),
    }
}

fn info(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let is_asked = |section: &Section| {
        let asks = |word: &[u8]| match &word.to_ascii_lowercase()[..] {
            b"default" => section.is_default,
            b"all" | b"everything" => true,
            word => word.eq_ignore_ascii_case(section.title.as_bytes()),
        };
        if args.len() == 1 { section.is_default } else { args.iter_from(1).any(asks) }
    };
    let mut text = Text::default();
    for section in SECTIONS.iter().filter(|section| is_asked(section)) {
        if !text.0.is_empty() {
            text.0 += "\r\n";
        }
        text.0 += &format!("# {}\r\n", section.title);
        (section.write)(&mut text, call);
    }
    call.reply.verbatim(b"txt", text.0.as_bytes());
    DONE
}

fn server(text: &mut Text, call: &mut Call<'_>) {
    let now = clock::now_us();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let uptime = (now / 1000).saturating_sub(call.server.started_ms) / 1000;
    let hz = setting(call, "hz");
    let exe = std::env::current_exe().unwrap_or_default();
    text.field("redis_version", crate::REDIS_VERSION);
    text.field("redis_git_sha1", "00000000");
    text.field("redis_git_dirty", 0);
    text.field("redis_build_id", "0");
    text.field("redis_mode", "standalone");
    text.field("omniring_version", env!("CARGO_PKG_VERSION"));
    let (kind, release) = (read("/proc/sys/kernel/ostype"), read("/proc/sys/kernel/osrelease"));
    text.field("os", format_args!("{kind} {release} {}", std::env::consts::ARCH));
    text.field("arch_bits", usize::BITS);
    text.field("multiplexing_api", "omniring");
    text.field("process_id", std::process::id());
    text.field("process_supervised", "no");
    text.field("run_id", &call.server.run_id);
    text.field("tcp_port", call.config.port);
    text.field("server_time_usec", now);
    text.field("uptime_in_seconds", uptime);
    text.field("uptime_in_days", uptime / 86_400);
    text.field("hz", &hz);
    text.field("configured_hz", hz);
    text.field("lru_clock", seconds(now / 1000));
    text.field("executable", exe.display());
    let file = call.server.config_file().map(|file| file.display().to_string());
    text.field("config_file", file.unwrap_or_default());
    text.field("io_threads_active", 0);
    text.field("cores", call.server.shard_count());
}

/// The text of a setting.
fn setting(call: &Call<'_>, name: &str) -> String {
    let found = crate::config::find(name);
    found.map(|setting| call.config.get(setting).to_owned()).unwrap_or_default()
}

fn clients(text: &mut Text, call: &mut Call<'_>) {
    let all = call.server.clients.all();
    let input = all.iter().map(|client| client.input.load(Ordering::Relaxed)).max();
    let output = all.iter().map(|client| client.output.load(Ordering::Relaxed)).max();
    text.fields(&[
        ("connected_clients", all.len()),
        ("cluster_connections", 0),
        ("maxclients", call.config.maxclients),
        ("client_recent_max_input_buffer", input.unwrap_or(0)),
        ("client_recent_max_output_buffer", output.unwrap_or(0)),
        ("blocked_clients", call.server.blocked.load(Ordering::Relaxed)),
        ("tracking_clients", call.server.tracking.counts()[0]),
        ("clients_in_timeout_table", 0),
    ]);
}

fn memory(text: &mut Text, call: &mut Call<'_>) {
    let usage = Usage::now(call);
    let percent = |part: u64, of: u64| part as f64 * 100.0 / of.max(1) as f64;
    text.bytes("used_memory", usage.used);
    text.bytes("used_memory_rss", usage.resident);
    text.bytes("used_memory_peak", usage.peak);
    text.field("used_memory_peak_perc", format_args!("{:.2}%", percent(usage.used, usage.peak)));
    text.field("used_memory_overhead", usage.clients);
    text.field("used_memory_startup", 0);
    text.field("used_memory_dataset", usage.data);
    text.field("used_memory_dataset_perc", format_args!("{:.2}%", percent(usage.data, usage.used)));
    text.field("allocator_allocated", usage.used);
    text.field("allocator_active", usage.resident);
    text.field("allocator_resident", usage.resident);
    text.bytes("total_system_memory", system_memory());
    text.fields(&[
        ("used_memory_lua", 0),
        ("used_memory_vm_eval", 0),
        ("used_memory_scripts_eval", 0),
        ("number_of_cached_scripts", 0),
        ("number_of_functions", 0),
        ("number_of_libraries", 0),
        ("used_memory_vm_functions", 0),
        ("used_memory_functions", 0),
        ("used_memory_scripts", 0),
    ]);
    text.bytes("maxmemory", call.config.maxmemory);
    text.field("maxmemory_policy", setting(call, "maxmemory-policy"));
    let beside = usage.resident.saturating_sub(usage.used);
    let ratio = usage.fragmentation();
    text.field("allocator_frag_ratio", format_args!("{ratio:.2}"));
    text.field("allocator_frag_bytes", beside);
    text.field("mem_fragmentation_ratio", format_args!("{ratio:.2}"));
    text.field("mem_fragmentation_bytes", beside);
    text.fields(&[
        ("mem_not_counted_for_evict", 0),
        ("mem_replication_backlog", 0),
        ("mem_total_replication_buffers", 0),
        ("mem_clients_slaves", 0),
        ("mem_clients_normal", usage.clients),
        ("mem_cluster_links", 0),
        ("mem_aof_buffer", 0),
    ]);
    text.field("mem_allocator", "system");
    text.fields(&[
        ("active_defrag_running", 0),
        ("lazyfree_pending_objects", 0),
        ("lazyfreed_objects", 0),
    ]);
}

/// Memory of the machine, in bytes, from `/proc`; 0 if that does not say.
fn system_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn persistence(text: &mut Text, call: &mut Call<'_>) {
    let state = &call.server.persistence;
    let status = |has_failed: bool| if has_failed { "err" } else { "ok" };
    let is_saving = u64::from(state.is_saving.load(Ordering::Relaxed));
    let save_status = status(state.has_failed.load(Ordering::Relaxed));
    let journal = call.server.journal();
    let is_refusing = journal.is_some_and(|journal| journal.refusal().is_some());
    text.fields(&[
        ("loading", 0),
        ("async_loading", 0),
        ("rdb_changes_since_last_save", state.changes.load(Ordering::Relaxed)),
        ("rdb_bgsave_in_progress", is_saving),
        ("rdb_last_save_time", state.saved_s.load(Ordering::Relaxed)),
    ]);
    text.field("rdb_last_bgsave_status", save_status);
    let slice_us = state.longest_slice_us.load(Ordering::Relaxed);
    text.field("snapshot_longest_slice_us", slice_us);
    text.field("aof_enabled", u8::from(journal.is_some()));
    text.field("aof_rewrite_in_progress", is_saving);
    text.field("aof_rewrite_scheduled", 0);
    text.field("aof_last_bgrewrite_status", save_status);
    text.field("aof_last_write_status", status(is_refusing));
    if let Some(log) = state.log() {
        let ((len, base), figures) = (log.len(), log.figures());
        text.fields(&[
            ("aof_current_size", len),
            ("aof_base_size", base),
            ("aof_sync_us", figures.sync_us),
            ("aof_syncs_at_once", figures.syncs_at_once as u64),
        ]);
    }
}

fn stats(text: &mut Text, call: &mut Call<'_>) {
    let all = &call.server.stats;
    let mut keys = crate::store::Stats::default();
    for shard in call.keys.shards() {
        keys.hits += shard.stats.hits;
        keys.misses += shard.stats.misses;
        keys.expired += shard.stats.expired;
        keys.evicted += shard.stats.evicted;
    }
    let pubsub = &call.server.pubsub;
    let [_, tracked, items, prefixes] = call.server.tracking.counts().map(|count| count as u64);
    text.fields(&[
        ("total_connections_received", all.sum(|core| &core.connections)),
        ("total_commands_processed", all.sum(|core| &core.processed)),
        ("instantaneous_ops_per_sec", call.server.ops_per_second.load(Ordering::Relaxed)),
        ("total_net_input_bytes", all.sum(|core| &core.input)),
        ("total_net_output_bytes", all.sum(|core| &core.output)),
        ("rejected_connections", all.sum(|core| &core.refused)),
        ("sync_full", 0),
        ("sync_partial_ok", 0),
        ("sync_partial_err", 0),
        ("expired_keys", keys.expired),
        ("expire_cycle_cpu_milliseconds", all.sum(|core| &core.expire_micros) / 1000),
        ("evicted_keys", keys.evicted),
        ("evicted_clients", all.sum(|core| &core.evicted_clients)),
        ("keyspace_hits", keys.hits),
        ("keyspace_misses", keys.misses),
        ("pubsub_channels", pubsub.channels(None, false).len() as u64),
        ("pubsub_patterns", pubsub.patterns() as u64),
        ("pubsubshard_channels", pubsub.channels(None, true).len() as u64),
        ("latest_fork_usec", 0),
        ("total_forks", 0),
        ("migrate_cached_sockets", 0),
        ("tracking_total_keys", tracked),
        ("tracking_total_items", items),
        ("tracking_total_prefixes", prefixes),
        ("unexpected_error_replies", 0),
        ("total_error_replies", all.sum(|core| &core.errors)),
        ("total_reads_processed", all.sum(|core| &core.reads)),
        ("total_writes_processed", all.sum(|core| &core.writes)),
    ]);
}

fn replication(text: &mut Text, call: &mut Call<'_>) {
    let id = call.server.replication_id.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    text.field("role", "master");
    text.field("connected_slaves", 0);
    text.field("master_failover_state", "no-failover");
    text.field("master_replid", &*id);
    text.field("master_replid2", "0".repeat(40));
    text.fields(&[
        ("master_repl_offset", 0),
        ("second_repl_offset", -1),
        ("repl_backlog_active", 0),
        ("repl_backlog_size", 0),
        ("repl_backlog_first_byte_offset", 0),
        ("repl_backlog_histlen", 0),
    ]);
}

fn cpu(text: &mut Text, _call: &mut Call<'_>) {
    /// In which the kernel counts, on every architecture that this runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may have spaces in it; twelve numbers are between it and the times.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let mut ticks = after_name.split_whitespace().skip(11).map(|word| word.parse().unwrap_or(0.0));
    let mut seconds = || ticks.next().unwrap_or(0.0) / TICKS_PER_SECOND;
    let (user, system) = (seconds(), seconds());
    let (user_children, system_children) = (seconds(), seconds());
    for (name, value) in [
        ("used_cpu_sys", system),
        ("used_cpu_user", user),
        ("used_cpu_sys_children", system_children),
        ("used_cpu_user_children", user_children),
    ] {
        text.field(name, format_args!("{value:.6}"));
    }
}

/// All commands, with their subcommands after each.
fn commands() -> impl Iterator<Item = &'static super::Command> {
    super::all().iter().flat_map(|command| std::iter::once(command).chain(&command.subcommands))
}

fn commandstats(text: &mut Text, call: &mut Call<'_>) {
    let stats = &call.server.stats;
    for command in commands() {
        let id = command.id;
        let calls = stats.sum(|core| &core.commands[id].calls);
        let micros = stats.sum(|core| &core.commands[id].micros);
        let rejected = stats.sum(|core| &core.commands[id].rejected);
        let failed = stats.sum(|core| &core.commands[id].failed);
        if calls + rejected + failed == 0 {
            continue;
        }
        let each = micros as f64 / calls.max(1) as f64;
        text.field(
            &format!("cmdstat_{}", command.full_name),
            format_args!(
                "calls={calls},usec={micros},usec_per_call={each:.2},rejected_calls={rejected},\
                 failed_calls={failed}"
            ),
        );
    }
}

fn errorstats(text: &mut Text, call: &mut Call<'_>) {
    let errors = call.server.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for (code, count) in &*errors {
        text.field(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latencystats(text: &mut Text, call: &mut Call<'_>) {
    for command in commands() {
        let times = call.server.stats.times(command.id);
        if times.total() == 0 {
            continue;
        }
        let percentiles: Vec<String> = call
            .config
            .latency_percentiles
            .iter()
            .map(|&percent| format!("p{percent}={:.3}", times.percentile(percent) as f64))
            .collect();
        let name = format!("latency_percentiles_usec_{}", command.full_name);
        text.field(&name, percentiles.join(","));
    }
}

fn keyspace(text: &mut Text, call: &mut Call<'_>) {
    /// Keys whose time to live is looked at.
    const SAMPLES: usize = 20;
    let now_ms = clock::now_ms();
    for db in 0..DBS {
        let (mut keys, mut expires) = (0, 0);
        let mut left: Vec<u64> = Vec::new();
        for shard in call.keys.shards() {
            let crate::store::Shard { dbs, random, .. } = shard;
            let table = &dbs[db];
            keys += table.len();
            expires += table.expiring();
            if table.expiring() > 0 {
                let picks = (0..SAMPLES).filter_map(|_| table.random(random));
                let times = picks.filter_map(|slot| table.expires_ms(slot));
                left.extend(times.map(|at| at.saturating_sub(now_ms)));
            }
        }
        if keys > 0 {
            let average = left.iter().sum::<u64>() / left.len().max(1) as u64;
            let values = format_args!("keys={keys},expires={expires},avg_ttl={average}");
            text.field(&format!("db{db}"), values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::human;
    use crate::server::local::Local;

    #[test]
    fn sections_are_those_asked_for_each_once() {
        let mut local = Local::new(2);
        local.run("SET a 1 EX 100");
        let all = local.run("INFO all cpu");
        assert_eq!(all.matches("# CPU").count(), 1);
        assert!(all.contains("# Commandstats") && all.contains("db0:keys=1,expires=1,avg_ttl="));
        let default = local.run("INFO");
        assert!(!default.contains("# Commandstats") && default.contains("used_memory:"));
        let two = local.run("INFO CPU sentinel keyspace");
        assert!(two.contains("used_cpu_user:") && two.contains("# Keyspace"));
        assert!(!two.contains("# Stats"));
    }

    #[test]
    fn bytes_are_shown_with_a_unit() {
        for (bytes, text) in [(0, "0B"), (1023, "1023B"), (1536, "1.50K"), (5 << 30, "5.00G")] {
            assert_eq!(human(bytes), text);
        }
    }
}
