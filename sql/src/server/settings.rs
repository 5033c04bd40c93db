//! What a client sets for its connection.
//!
//! `statement_timeout` and `application_name` have an effect; the others are taken, as drivers and BI
//! tools set many before they ask anything, and change nothing: times are in UTC, dates in ISO form.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::version::{SERVER_VERSION, SERVER_VERSION_NUM};

/// What `SHOW` answers where the client has set nothing.
const SHOWN: [(&str, &str); 22] = [
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("max_identifier_length", "63"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", SERVER_VERSION_NUM),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
];

/// Settings that a client may name without effect.
const FIXED: [&str; 4] = ["timezone", "datestyle", "transaction_read_only", "default_transaction_read_only"];

/// Settings that one connection may make.
const SET_MAX: usize = 256;

/// A connection's settings.
#[derive(Debug)]
pub(super) struct Settings {
    begun: AtomicBool,
    default_timeout: Option<Duration>,
    /// The client's own; zero is none.
    timeout: Mutex<Option<Duration>>,
    set: Mutex<BTreeMap<String, String>>,
}

impl Settings {
    pub(super) fn new(default_timeout: Option<Duration>) -> Self {
        Self {
            begun: AtomicBool::new(false),
            default_timeout,
            timeout: Mutex::default(),
            set: Mutex::default(),
        }
    }

    /// The client has proved itself; `metadata` is what it said at the start.
    pub(super) fn begin(&self, metadata: &HashMap<String, String>) {
        if let Some(name) = metadata.get("application_name") {
            let _ = self.set("application_name", name);
        }
        // options=-c name=value, as PGOPTIONS has it.
        let words = metadata.get("options").map(String::as_str).unwrap_or_default();
        for word in words.split_whitespace() {
            let word = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or(word);
            if let Some((name, value)) = word.split_once('=') {
                let _ = self.set(name, value);
            }
        }
        self.begun.store(true, Ordering::Release);
    }

    /// Whether the client has proved itself.
    pub(super) fn begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// How long a statement may take now.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let own = *self.timeout.lock().unwrap_or_else(PoisonError::into_inner);
        match own {
            None => self.default_timeout,
            Some(own) if own.is_zero() => None,
            own => own,
        }
    }

    /// Sets one; else says why it cannot be.
    pub(super) fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let name = name.to_ascii_lowercase();
        let value = value.trim().trim_matches(['\'', '"']);
        if name == "statement_timeout" {
            let timeout = match value.eq_ignore_ascii_case("default") {
                true => None,
                false => Some(milliseconds(value).ok_or_else(|| {
                    format!("invalid value for parameter \"statement_timeout\": \"{value}\"; write 5s, 500ms or a number of milliseconds")
                })?),
            };
            *self.timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
            return Ok(());
        }
        if FIXED.contains(&name.as_str()) {
            return Ok(());
        }
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.len() >= SET_MAX && !set.contains_key(&name) {
            return Err(format!("more than {SET_MAX} settings"));
        }
        set.insert(name, value.to_owned());
        Ok(())
    }

    /// Forgets one, or all.
    pub(super) fn reset(&self, name: Option<&str>) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name.map(str::to_ascii_lowercase);
        match name.as_deref() {
            Some(name) if name != "statement_timeout" => {
                set.remove(name);
            }
            name => {
                *self.timeout.lock().unwrap_or_else(PoisonError::into_inner) = None;
                if name.is_none() {
                    set.clear();
                }
            }
        }
    }

    /// What one is; `None` where there is no such setting.
    pub(super) fn show(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        if name == "statement_timeout" {
            return Some(self.timeout().map_or_else(|| "0".into(), |t| format!("{}ms", t.as_millis())));
        }
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let default = || SHOWN.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        set.get(&name).cloned().or_else(default)
    }
}

/// `5s`, `500ms`, `1min`, or a number of milliseconds.
fn milliseconds(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let scale = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(scale)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_timeout_counts_before_the_servers() {
        let settings = Settings::new(Some(Duration::from_secs(30)));
        let after = |value: &str| {
            settings.set("statement_timeout", value).unwrap();
            settings.timeout().map(|t| t.as_millis())
        };
        assert_eq!(after("'5s'"), Some(5000));
        assert_eq!(after("250"), Some(250));
        assert_eq!(after("2min"), Some(120_000));
        assert_eq!(after("0"), None);
        assert_eq!(after("DEFAULT"), Some(30_000));
        assert!(settings.set("statement_timeout", "soon").is_err());
        assert_eq!(settings.show("Statement_Timeout").as_deref(), Some("30000ms"));
    }

    #[test]
    fn settings_are_shown_as_set_and_what_has_no_effect_is_not_claimed() {
        let settings = Settings::new(None);
        assert!(!settings.begun());
        let said = [("application_name", "grafana"), ("options", "-c statement_timeout=7s -c geqo=off")];
        settings.begin(&said.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(settings.begun());
        assert_eq!(settings.show("application_name").as_deref(), Some("grafana"));
        assert_eq!(settings.show("geqo").as_deref(), Some("off"));
        assert_eq!(settings.timeout(), Some(Duration::from_secs(7)));
        settings.set("TimeZone", "'Asia/Tokyo'").unwrap();
        assert_eq!(settings.show("TimeZone").as_deref(), Some("UTC"));
        settings.reset(None);
        assert_eq!(settings.show("geqo"), None);
        assert_eq!(settings.show("application_name").as_deref(), Some(""));
    }
}
