//! Runs a server on a port, for trying: `serve PORT [CORES] [ENGINE]`.
use omniring_kv::config::Config;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let port = words.next().unwrap_or("6379".into()).parse()?;
    let cores = words.next().unwrap_or("1".into()).parse()?;
    let engine = words.next().unwrap_or("auto".into()).parse()?;
    let mut config = Config::default();
    config.port = port;
    config.appendonly = false;
    Ok(omniring_kv::server::run(config, engine, cores)?)
}
