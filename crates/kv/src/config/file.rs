//! Files of settings: a name and its value in each line, `#` before a remark.

use std::io;
use std::path::Path;

use super::{Config, SETTINGS, find};
use crate::protocol::split_words;

/// Reads a file's text into the settings. An error names the line and what is wrong with it.
pub fn read(config: &mut Config, text: &str) -> Result<(), String> {
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| format!("line {}: {why}: {line:?}", index + 1);
        let words = split_words(line.as_bytes()).ok_or(wrong("a quote is not closed"))?;
        let words: Vec<String> =
            words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let Some((name, values)) = words.split_first() else {
            continue;
        };
        let setting = find(name).ok_or(wrong("no such setting"))?;
        config.set(setting, &values.join(" ")).map_err(|why| wrong(&why))?;
    }
    Ok(())
}

/// Writes the settings into a file: lines of it that set something get the value of now, what differs from
/// its default (or `all` there is) and is not in it is added, and the rest stays. The file is replaced as a whole.
pub fn rewrite(path: &Path, config: &Config, all: bool) -> io::Result<()> {
    let old = std::fs::read_to_string(path)?;
    let mut text = String::new();
    let mut written = Vec::new();
    for line in old.lines() {
        let name = line.split_whitespace().next().unwrap_or("");
        match find(name) {
            Some(setting) => {
                if !written.contains(&setting.name) {
                    written.push(setting.name);
                    text += &line_of(setting.name, config.get(setting));
                }
            }
            None => {
                text += line;
                text.push('\n');
            }
        }
    }
    for setting in SETTINGS {
        let value = config.get(setting);
        if !written.contains(&setting.name) && (all || value != setting.default) {
            text += &line_of(setting.name, value);
        }
    }
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}

fn line_of(name: &str, value: &str) -> String {
    if value.is_empty() || value.contains(['"', '\\', '#', '\'']) {
        return format!("{name} {value:?}\n");
    }
    format!("{name} {value}\n")
}
