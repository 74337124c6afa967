//! The settings, by the names that Redis has for them.

mod file;
mod settings;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::report::Level;
use crate::server::{ClientInfo, OutputLimit};
use crate::store::{Keys, Lfu, Limits};
pub use file::{read, rewrite};
pub use settings::{Kind, POLICIES, SETTINGS, Setting, find};

/// When the log is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFsync {
    /// Before a write is answered.
    Always,
    /// Once a second.
    EverySecond,
    /// When the kernel likes.
    No,
}

impl FromStr for AppendFsync {
    type Err = String;

    fn from_str(text: &str) -> Result<AppendFsync, String> {
        Ok(match text {
            "always" => AppendFsync::Always,
            "everysec" => AppendFsync::EverySecond,
            "no" => AppendFsync::No,
            _ => return Err("argument must be always, everysec or no".to_owned()),
        })
    }
}

/// Who may call a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhoMay {
    /// Nobody.
    Nobody,
    /// Clients of this machine.
    Local,
    /// All clients.
    All,
}

/// Which keys go when memory is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Only keys that expire.
    pub only_expiring: bool,
    /// By what they are chosen; `None` evicts nothing.
    pub by: Option<EvictBy>,
}

/// By what keys are chosen to be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictBy {
    /// The longest time without use.
    Lru,
    /// The rarest use.
    Lfu,
    /// Chance.
    Random,
    /// The shortest time to live.
    Ttl,
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Policy, String> {
        let only_expiring = text.starts_with("volatile-");
        let by = match text.rsplit('-').next() {
            Some("noeviction") => None,
            Some("lru") => Some(EvictBy::Lru),
            Some("lfu") => Some(EvictBy::Lfu),
            Some("random") => Some(EvictBy::Random),
            Some("ttl") => Some(EvictBy::Ttl),
            _ => return Err(format!("argument must be one of {}", POLICIES.join(", "))),
        };
        Ok(Policy { only_expiring, by })
    }
}

/// An amount of memory, as such or of `maxmemory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Bytes.
    Bytes(u64),
    /// Percent of `maxmemory`.
    Percent(u64),
}

impl Share {
    /// The bytes where `maxmemory` is this; 0 for no limit, as it is where that has none.
    pub fn of(self, maxmemory: u64) -> u64 {
        match self {
            Share::Bytes(bytes) => bytes,
            Share::Percent(percent) => (u128::from(maxmemory) * u128::from(percent) / 100) as u64,
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let no_share = || "argument must be a memory or percent value".to_owned();
        let Some(percent) = text.strip_suffix('%') else {
            let bytes = bytes(text).and_then(|bytes| u64::try_from(bytes).ok());
            return bytes.map(Share::Bytes).ok_or_else(no_share);
        };
        match percent.parse() {
            Ok(percent @ 0..=100) => Ok(Share::Percent(percent)),
            Ok(101..) => Err("percentage argument must be less or equal to 100".to_owned()),
            Err(_) => Err(no_share()),
        }
    }
}

/// Whether clients of TLS have to have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthClients {
    /// They are not asked for one.
    No,
    /// They may; one that they have is checked.
    Optional,
    /// They have to.
    Yes,
}

impl FromStr for AuthClients {
    type Err = String;

    fn from_str(text: &str) -> Result<AuthClients, String> {
        Ok(match text {
            "no" => AuthClients::No,
            "optional" => AuthClients::Optional,
            "yes" => AuthClients::Yes,
            _ => return Err("argument must be no, optional or yes".to_owned()),
        })
    }
}

/// The settings. A change makes a new copy, which all cores take up before their next command. What each means is
/// in the table [`SETTINGS`].
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Config {
    texts: BTreeMap<&'static str, String>,
    pub limits: Limits,
    pub bind: Vec<IpAddr>,
    pub port: u16,
    pub unix_socket: PathBuf,
    pub unix_socket_mode: u32,
    pub protected_mode: bool,
    pub tcp_backlog: u32,
    pub tcp_keepalive_s: u64,
    pub tls_port: u16,
    pub tls_cert_file: PathBuf,
    pub tls_key_file: PathBuf,
    pub tls_ca_cert_file: PathBuf,
    pub tls_auth_clients: AuthClients,
    pub metrics_port: u16,
    pub log_level: Level,
    pub log_file: PathBuf,
    pub timeout_s: u64,
    pub maxclients: usize,
    pub password: Vec<u8>,
    pub proto_max_bulk_len: u64,
    pub client_query_buffer_limit: usize,
    pub output_limits: [OutputLimit; 3],
    pub events: u32,
    pub dir: PathBuf,
    pub appendonly: bool,
    pub appendfsync: AppendFsync,
    pub rewrite_percentage: u64,
    pub rewrite_min_size: u64,
    /// Snapshots by themselves: seconds, and changes in that time.
    pub save: Vec<(u64, u64)>,
    pub maxmemory: u64,
    pub maxmemory_clients: Share,
    pub min_replicas_to_write: u64,
    pub min_replicas_max_lag: u64,
    pub policy: Policy,
    pub ordered_keys: bool,
    /// Whether durable writers go behind others where these keep a core busy.
    pub reads_first: bool,
    pub maxmemory_samples: usize,
    pub lfu: Lfu,
    pub active_expire_effort: u32,
    pub debug: WhoMay,
    pub tracking_table_max_keys: usize,
    pub slowlog_micros: i64,
    pub slowlog_len: usize,
    pub latency_threshold_ms: u64,
    pub latency_tracking: bool,
    pub latency_percentiles: Vec<f64>,
}

impl Default for Config {
    fn default() -> Config {
        let mut config = Config {
            texts: BTreeMap::new(),
            limits: Limits::default(),
            bind: vec![Ipv4Addr::LOCALHOST.into()],
            port: 0,
            unix_socket: PathBuf::new(),
            unix_socket_mode: 0,
            protected_mode: true,
            tcp_backlog: 0,
            tcp_keepalive_s: 0,
            tls_port: 0,
            tls_cert_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            tls_ca_cert_file: PathBuf::new(),
            tls_auth_clients: AuthClients::Yes,
            metrics_port: 0,
            log_level: Level::Notice,
            log_file: PathBuf::new(),
            timeout_s: 0,
            maxclients: 0,
            password: Vec::new(),
            proto_max_bulk_len: 0,
            client_query_buffer_limit: 0,
            output_limits: [OutputLimit::default(); 3],
            events: 0,
            dir: PathBuf::new(),
            appendonly: false,
            appendfsync: AppendFsync::Always,
            rewrite_percentage: 0,
            rewrite_min_size: 0,
            save: Vec::new(),
            maxmemory: 0,
            maxmemory_clients: Share::Bytes(0),
            min_replicas_to_write: 0,
            min_replicas_max_lag: 0,
            policy: Policy::default(),
            ordered_keys: false,
            reads_first: true,
            maxmemory_samples: 0,
            lfu: Lfu { log_factor: 0, decay_minutes: 0 },
            active_expire_effort: 0,
            debug: WhoMay::Nobody,
            tracking_table_max_keys: 0,
            slowlog_micros: 0,
            slowlog_len: 0,
            latency_threshold_ms: 0,
            latency_tracking: false,
            latency_percentiles: Vec::new(),
        };
        for setting in SETTINGS {
            let set = config.set(setting, setting.default);
            set.expect("the default of a setting is one that it may have");
        }
        config
    }
}

impl Config {
    /// Sets a setting, or says what is wrong with the text.
    pub fn set(&mut self, setting: &'static Setting, text: &str) -> Result<(), String> {
        let (canonical, read_int);
        let read = match setting.kind {
            Kind::Bool => {
                let on = text.eq_ignore_ascii_case("yes");
                if !on && !text.eq_ignore_ascii_case("no") {
                    return Err("argument must be 'yes' or 'no'".to_owned());
                }
                canonical = text.to_ascii_lowercase();
                settings::Read::Bool(on)
            }
            Kind::Int(min, max) => {
                read_int = text
                    .parse()
                    .map_err(|_| "argument couldn't be parsed into an integer".to_owned())?;
                in_bounds(read_int, min, max)?;
                canonical = read_int.to_string();
                settings::Read::Int(read_int)
            }
            Kind::Bytes(min, max) => {
                read_int = bytes(text).ok_or("argument must be a memory value".to_owned())?;
                in_bounds(read_int, min, max)?;
                canonical = read_int.to_string();
                settings::Read::Int(read_int)
            }
            Kind::Word(words) => {
                let lower = text.to_ascii_lowercase();
                if !words.contains(&&lower[..]) {
                    let words = words.join(", ");
                    return Err(format!("argument(s) must be one of the following: {words}"));
                }
                canonical = lower;
                settings::Read::Text(&canonical)
            }
            Kind::Text | Kind::Form => {
                canonical = text.to_owned();
                settings::Read::Text(text)
            }
        };
        (setting.apply)(self, read)?;
        let shown = match setting.name {
            "latency-tracking-info-percentiles" => {
                let texts: Vec<String> =
                    self.latency_percentiles.iter().map(f64::to_string).collect();
                texts.join(" ")
            }
            "notify-keyspace-events" => crate::store::EventClass::write(self.events),
            "client-output-buffer-limit" => OutputLimit::write_all(&self.output_limits),
            _ => canonical,
        };
        self.texts.insert(setting.name, shown);
        Ok(())
    }

    /// The text of a setting.
    pub fn get(&self, setting: &Setting) -> &str {
        self.texts.get(setting.name).map_or("", |text| text)
    }

    /// What commands need of it, put where they see it.
    pub fn apply(&self, keys: &mut Keys) {
        keys.limits = self.limits;
        keys.events_wanted = self.events;
        keys.lfu = (self.policy.by == Some(EvictBy::Lfu)).then_some(self.lfu);
    }

    /// The addresses to listen on at a port; none where that is 0.
    pub fn addrs(&self, port: u16) -> Vec<SocketAddr> {
        let bind = if port == 0 { &[][..] } else { &self.bind };
        bind.iter().map(|&ip| SocketAddr::new(ip, port)).collect()
    }

    /// Whether clients have to say a password first.
    pub fn needs_password(&self) -> bool {
        !self.password.is_empty()
    }

    /// Whether writes are refused because there are no replicas that take them.
    pub fn lacks_replicas(&self) -> bool {
        self.min_replicas_to_write > 0 && self.min_replicas_max_lag > 0
    }

    /// Whether this is the password. Takes as long for a wrong one as for the right one.
    pub fn is_password(&self, password: &[u8]) -> bool {
        let differs = password
            .iter()
            .zip(self.password.iter().cycle())
            .fold(0, |differs, (one, other)| differs | (one ^ other));
        password.len() == self.password.len() && differs == 0
    }

    /// Whether a client is to be disconnected for not reading its replies.
    pub fn is_output_too_large(&self, client: &ClientInfo, queued: usize) -> bool {
        OutputLimit::of(&self.output_limits, client).is_past(queued, client)
    }
}

fn in_bounds(value: i64, min: i64, max: i64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!("argument must be between {min} and {max} inclusive"))
}

/// Bytes, with a unit or without.
pub fn bytes(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let factor = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1024,
        "m" => 1_000_000,
        "mb" => 1024 * 1024,
        "g" => 1_000_000_000,
        "gb" => 1024 * 1024 * 1024,
        _ => return None,
    };
    text[..digits].parse::<i64>().ok()?.checked_mul(factor)
}

/// Addresses between spaces. One with `-` before it may be missing on this machine.
fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let mut addresses = Vec::new();
    for word in text.split_whitespace() {
        let (may_be_missing, name) = match word.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, word),
        };
        let parsed = match name {
            "*" => Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            "::*" => Ok(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)),
            name => name.parse(),
        };
        match parsed {
            Ok(ip) if may_be_missing && std::net::UdpSocket::bind((ip, 0)).is_err() => {}
            Ok(ip) => addresses.push(ip),
            Err(_) => return Err(format!("{name:?} is no address")),
        }
    }
    Ok(addresses)
}

fn save_points(text: &str) -> Result<Vec<(u64, u64)>, String> {
    let numbers: Option<Vec<u64>> = text
        .split_whitespace()
        .map(|word| word.parse().ok().filter(|&number| number > 0))
        .collect();
    let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0);
    let numbers = numbers.ok_or("Invalid save parameters".to_owned())?;
    Ok(numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}

fn percentiles(text: &str) -> Result<Vec<f64>, String> {
    text.split_whitespace()
        .map(|word| {
            let number = word.parse().ok().filter(|number| (0.0..=100.0).contains(number));
            number.ok_or(
                "latency-tracking-info-percentiles should consist of numbers between 0 and 100"
                    .to_owned(),
            )
        })
        .collect()
}
