//! Each layer, each kind of fault, and that all faults are told at once.

use std::{ffi::OsString, io::Write, path::Path};

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn flag(key: &'static str, value: &str, flag: &'static str) -> Override {
    Override { key, value: value.into(), flag }
}

fn faults(file: Option<&Path>, env: Vec<(OsString, OsString)>, flags: &[Override]) -> Vec<String> {
    match Config::load(file, env, flags) {
        Err(ConfigError::Faults { faults }) => faults,
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn defaults_are_valid_and_need_nothing() {
    let config = Config::load(None, env(&[("HOME", "/nowhere")]), &[]).unwrap();
    assert_eq!(config.server, ServerConfig::default());
    assert_eq!(config.data.home, Path::new("/nowhere/.local/share/distilface"));
    assert_eq!(config.data.dir, Path::new("/nowhere/.local/share/distilface/db"));
    config.validate().unwrap();
}

#[test]
fn every_key_has_its_words_and_every_word_its_key() {
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    let mut known: Vec<String> = defaults
        .iter()
        .flat_map(|(s, t)| t.as_table().unwrap().keys().map(move |k| format!("{s}.{k}")))
        .collect();
    let mut told: Vec<String> = bounds::KEYS.iter().map(|k| k.name.to_owned()).collect();
    known.sort();
    told.sort();
    assert_eq!(known, told);
}

#[test]
fn every_key_is_explained() {
    for key in bounds::KEYS.iter().map(|k| k.name) {
        let Explained { meaning, allowed, default } = explain(key);
        assert!(meaning.len() > 10 && !allowed.is_empty(), "{key} has no words in config/meaning.rs");
        assert!(!default.is_empty(), "{key}");
    }
    let nothing = Explained { meaning: "", allowed: String::new(), default: String::new() };
    for key in ["no.such", "limits.no_such", "limits", ""] {
        assert_eq!(explain(key), nothing);
    }
}

#[test]
fn the_words_of_a_range_are_made_of_its_numbers() {
    for (key, allowed, default) in [
        ("data.store_cache_bytes", "1048576 to 1099511627776 bytes (1 MiB to 1 TiB)", "201326592"),
        ("data.segment_bytes", "65536 to 1073741824 bytes (64 KiB to 1 GiB)", "67108864"),
        ("data.log_bytes_max", "1048576 to 1099511627776 bytes (1 MiB to 1 TiB)", "268435456"),
        ("data.close_after", "0 (never) to 31536000 seconds", "3600"),
        ("server.request_timeout", "0.001 to 86400 seconds", "60"),
        ("encoder.threads", "0 (all cores) to 1024", "0"),
        ("limits.query_bytes_max", "1 to 1048576 bytes (1 byte to 1 MiB)", "32768"),
        ("limits.message_bytes_max", "65536 to 1073741824 bytes (64 KiB to 1 GiB)", "16777216"),
        ("encoder.device", "\"auto\", \"cpu\", \"openvino\", \"cuda\" or \"cuda:N\"", "\"auto\""),
    ] {
        let explained = explain(key);
        assert_eq!((&*explained.allowed, &*explained.default), (allowed, default), "{key}");
    }
}

/// The documentation of every field of the sections, by key.
fn documented() -> std::collections::BTreeMap<String, String> {
    let file = syn::parse_file(include_str!("../config.rs")).unwrap();
    let mut documented = std::collections::BTreeMap::new();
    for item in &file.items {
        let syn::Item::Struct(section) = item else { continue };
        let name = section.ident.to_string();
        let Some(name) = name.strip_suffix("Config").filter(|name| !name.is_empty()) else { continue };
        for field in &section.fields {
            let lines = field.attrs.iter().filter_map(|attribute| match &attribute.meta {
                syn::Meta::NameValue(syn::MetaNameValue { path, value, .. }) if path.is_ident("doc") => {
                    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = value else {
                        return None;
                    };
                    Some(text.value().trim().to_owned())
                }
                _ => None,
            });
            let key = format!("{}.{}", name.to_lowercase(), field.ident.as_ref().unwrap());
            documented.insert(key, lines.collect::<Vec<_>>().join(" "));
        }
    }
    documented
}

#[test]
fn the_documentation_of_every_key_says_its_unit_its_range_and_its_default() {
    let documented = documented();
    assert_eq!(documented.len(), bounds::KEYS.len());
    for key in &bounds::KEYS {
        let (doc, Explained { meaning, default, .. }) = (&documented[key.name], explain(key.name));
        let (mut parts, mut units) = (Vec::new(), Vec::new());
        match &key.allowed {
            bounds::Allowed::Range(range) => {
                parts.push(range.short());
                parts.push(match range.unit {
                    bounds::Unit::Bytes => format!("Default {}.", bounds::binary(default.parse().unwrap())),
                    bounds::Unit::Things | bounds::Unit::Seconds => format!("Default {default}."),
                });
                units.extend(match range.unit {
                    bounds::Unit::Bytes => Some("bytes"),
                    bounds::Unit::Seconds => Some("seconds"),
                    bounds::Unit::Things => None,
                });
            }
            // Of these the default follows from the environment, or has a name of its own.
            bounds::Allowed::Words(_) if key.name.starts_with("data.") || key.name == "log.filter" => {
                parts.push("Default".to_owned());
            }
            bounds::Allowed::Words(_) => parts.push(format!("Default {}", default.trim_matches('"'))),
        }
        for part in parts {
            assert!(
                doc.replace('`', "").contains(&part),
                "config.rs does not say {part:?} of {}: {doc}",
                key.name
            );
        }
        for unit in units {
            let said = |text: &str| text.to_lowercase().contains(unit);
            assert!(said(doc) && said(meaning), "{} does not say its unit, {unit}", key.name);
        }
    }
}

#[test]
fn every_range_is_checked_at_both_ends() {
    for key in &bounds::KEYS {
        let bounds::Allowed::Range(range) = &key.allowed else { continue };
        let take = |value: f64| faults_of(key.name, value);
        assert_eq!([take(range.min), take(range.max)], [[""; 0]; 2].map(Vec::from), "{}", key.name);
        let step = if range.unit == bounds::Unit::Seconds { 0.0005 } else { 1.0 };
        for beyond in [range.min - step, range.max + step] {
            let faults = take(beyond);
            assert_eq!(faults.len(), 1, "{} = {beyond}: {faults:?}", key.name);
            // A number below zero is none of the key's type.
            let out = beyond < 0.0 || faults[0].contains(&format!("{beyond} is out of bounds"));
            let allowed = explain(key.name).allowed;
            assert!(out && faults[0].ends_with(&format!("; allowed: {allowed}")), "{faults:?}");
        }
    }
}

/// Everything that is wrong where this key has this value and all others have their defaults.
fn faults_of(key: &'static str, value: f64) -> Vec<String> {
    match Config::load(None, vec![], &[flag(key, &value.to_string(), "--flag")]) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Faults { faults }) => faults,
        Err(other) => panic!("{key} = {value}: {other}"),
    }
}

#[test]
fn a_value_that_is_misspelt_is_told_what_was_meant() {
    let faults = faults(None, vec![], &[flag("log.format", "jsno", "--flag")]);
    assert!(faults[0].contains("did you mean json?"), "{faults:?}");
}

#[test]
fn later_layers_win() {
    let f = file(
        "[server]\nlisten = \"127.0.0.1:1\"\nrequest_timeout = 5\n[encoder]\nthreads = 1\ndevice = \"cpu\"\n",
    );
    let vars = env(&[("DISTILFACE_SERVER__LISTEN", "127.0.0.1:2"), ("DISTILFACE_ENCODER__THREADS", "2")]);
    let flags = [flag("server.listen", "127.0.0.1:3", "--listen")];
    let loaded = Loaded::read(Some(f.path()), vars, &flags).unwrap();
    assert_eq!(loaded.config.server.listen.port(), 3);
    assert_eq!(loaded.config.encoder.threads, 2);
    assert_eq!(loaded.config.encoder.device, "cpu");
    assert_eq!(loaded.config.server.request_timeout, Duration::from_secs(5));
    assert_eq!(loaded.origin("server.listen"), &Origin::Flag("--listen".into()));
    assert_eq!(loaded.origin("encoder.threads"), &Origin::Variable("DISTILFACE_ENCODER__THREADS".into()));
    assert_eq!(loaded.origin("encoder.device"), &Origin::File { path: f.path().into(), line: 6 });
    assert_eq!(loaded.origin("limits.k_max"), &Origin::Default);
    assert_eq!(loaded.file.as_deref(), Some(f.path()));
}

#[test]
fn all_faults_of_all_layers_are_told_at_once() {
    let f = file(concat!(
        "[server]\n",
        "lisen = \"127.0.0.1:1\"\n",
        "request_timeout = \"soon\"\n",
        "[encoder]\n",
        "device = \"gpu\"\n",
        "threads = 5000\n",
        "[surprise]\n",
        "a = 1\n",
    ));
    let vars = env(&[("DISTILFACE_LIMITS__K_MAX", "many"), ("DISTILFACE_LIMITS__KMAX", "3")]);
    let flags = [flag("server.listen", "0.0.0.0:7700", "--listen")];
    let faults = faults(Some(f.path()), vars, &flags);
    let path = f.path().display().to_string();
    for (place, parts) in [
        (format!("{path}:2"), vec!["unknown key server.lisen", "did you mean server.listen?"]),
        (format!("{path}:3"), vec!["server.request_timeout", "soon", "0.001 to 86400 seconds"]),
        (format!("{path}:5"), vec!["encoder.device", "gpu", "openvino"]),
        (format!("{path}:6"), vec!["encoder.threads", "5000", "1024"]),
        (format!("{path}:7"), vec!["unknown key surprise", "data, encoder, limits, log, server"]),
        ("variable DISTILFACE_LIMITS__K_MAX".into(), vec!["limits.k_max", "many", "1 to 1048576"]),
        ("variable DISTILFACE_LIMITS__KMAX".into(), vec!["unknown key", "did you mean limits.k_max?"]),
        ("flag --listen".into(), vec!["server.listen", "0.0.0.0:7700", "--allow-remote"]),
    ] {
        let fault =
            faults.iter().find(|f| f.starts_with(&place)).unwrap_or_else(|| panic!("{place}: {faults:#?}"));
        for part in parts {
            assert!(fault.contains(part), "{part:?} is not in {fault:?}");
        }
    }
    assert_eq!(faults.len(), 8, "{faults:#?}");
    let whole = ConfigError::Faults { faults }.to_string();
    assert!(whole.starts_with("8 faults in the configuration:"), "{whole}");
}

#[test]
fn a_wrong_place_is_named_by_where_the_key_is() {
    let f = file("[server]\ndevice = \"cpu\"\n");
    assert!(faults(Some(f.path()), vec![], &[])[0].contains("did you mean encoder.device?"));
    let f = file("[server]\nbogus = 1\n");
    let fault = faults(Some(f.path()), vec![], &[]).remove(0);
    assert!(fault.contains("unknown key server.bogus; known keys of [server]: "), "{fault}");
    assert!(fault.contains("listen") && !fault.contains("encoder"), "{fault}");
    let f = file("server = 3\n");
    assert!(faults(Some(f.path()), vec![], &[])[0].contains("server is a section"));
    let f = file("[server.listen]\nport = 3\n");
    assert!(faults(Some(f.path()), vec![], &[])[0].contains("server.listen"));
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let f = file("[server]\n\nlisten = = 3\n");
    let faults = faults(Some(f.path()), vec![], &[]);
    assert!(faults[0].starts_with(&format!("{}:3: ", f.path().display())), "{faults:?}");
}

#[test]
fn a_named_file_must_exist_and_the_own_one_may_be_absent() {
    let missing = Path::new("/nowhere/distilface.toml");
    let error = Config::load(Some(missing), vec![], &[]).unwrap_err();
    assert!(
        matches!(error, ConfigError::Read { .. }) && error.to_string().contains("/nowhere/distilface.toml")
    );
    assert!(Config::load(None, env(&[("DISTILFACE_CONFIG", "/nowhere/x.toml")]), &[]).is_err());
    Config::load(None, env(&[("XDG_CONFIG_HOME", "/nowhere")]), &[]).unwrap();

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("distilface")).unwrap();
    std::fs::write(folder.path().join("distilface/config.toml"), "[limits]\nk_max = 5\n").unwrap();
    let own = env(&[("XDG_CONFIG_HOME", folder.path().to_str().unwrap())]);
    assert_eq!(Config::load(None, own.clone(), &[]).unwrap().limits.k_max, 5);
    let other = file("[limits]\nk_max = 6\n");
    assert_eq!(Config::load(Some(other.path()), own, &[]).unwrap().limits.k_max, 6);
}

#[test]
fn other_variables_are_left_alone_but_a_forgotten_underscore_is_told() {
    let foreign = [
        ("DISTILFACE_HOME", "/h"),
        ("DISTILFACE_URL", "http://127.0.0.1:1"),
        ("DISTILFACE_SHARED", "/s"),
        ("DISTILFACE_TEST_MODEL", "m"),
        ("DISTILFACE_TEST__X", "m"),
        ("DISTILFACE_PORT", "tcp://10.0.0.1:7700"),
        ("DISTILFACE_PORT_7700_TCP_ADDR", "10.0.0.1"),
        ("DISTILFACE_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = Config::load(None, env(&foreign), &[]).unwrap();
    assert_eq!(config.data.dir, Path::new("/h/db"));
    let faults = faults(None, env(&[("DISTILFACE_SERVER_LISTEN", "127.0.0.1:1")]), &[]);
    assert!(faults[0].contains("did you mean DISTILFACE_SERVER__LISTEN?"), "{faults:?}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_told() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![0xff]);
    let faults = faults(None, vec![("DISTILFACE_DATA__DIR".into(), value)], &[]);
    assert!(faults[0].contains("data.dir") && faults[0].contains("UTF-8"), "{faults:?}");
}

#[test]
fn the_database_follows_the_home_unless_it_has_a_place_of_its_own() {
    let config = Config::load(None, env(&[("DISTILFACE_DATA__HOME", "/h")]), &[]).unwrap();
    assert_eq!(config.data.dir, Path::new("/h/db"));
    let both = env(&[("DISTILFACE_DATA__HOME", "/h"), ("DISTILFACE_DATA__DIR", "/d")]);
    assert_eq!(Config::load(None, both, &[]).unwrap().data.dir, Path::new("/d"));
}

#[test]
fn every_bound_is_checked_and_named() {
    let bad: &[(&str, &[&str])] = &[
        ("data.dir", &[""]),
        ("data.home", &[""]),
        ("data.backups", &["backups", "./backups"]),
        ("data.store_cache_bytes", &["0", "-1", "99999999999999"]),
        ("data.segment_bytes", &["0", "65535", "1073741825"]),
        ("data.log_bytes_max", &["0", "1048575", "99999999999999"]),
        ("data.requests_max", &["0", "10000001"]),
        ("data.open_collections_max", &["0", "65537"]),
        ("data.close_after", &["-1", "nan", "1e9"]),
        ("server.listen", &["example.org:1", "localhost", "127.0.0.1", "192.0.2.1:7700", "[::]:7700"]),
        ("server.metrics_listen", &["", "0.0.0.0:1", "127.0.0.1:7700"]),
        ("server.allow_remote", &["yes"]),
        ("server.request_timeout", &["0", "-1", "nan", "1e9"]),
        ("server.drain_timeout", &["-1", "inf", "9999"]),
        ("server.close_timeout", &["0", "nan", "1e9"]),
        ("server.stream_idle_timeout", &["0", "-1", "nan", "1e9"]),
        ("server.health_timeout", &["0", "nan", "1e9"]),
        ("encoder.model", &[" "]),
        ("encoder.device", &["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU "]),
        ("encoder.precision", &["", "fp64", "INT8"]),
        ("encoder.threads", &["-1", "2000"]),
        ("encoder.batch_tokens_max", &["1"]),
        ("encoder.queue_max", &["0"]),
        ("encoder.query_cache", &["-1", "99999999"]),
        ("encoder.bulk_niceness", &["-1", "20"]),
        ("encoder.models_max", &["0", "1", "1025"]),
        ("encoder.unload_after", &["-1", "31536001", "nan"]),
        ("limits.message_bytes_max", &["1"]),
        ("limits.batch_max", &["0"]),
        ("limits.queries_max", &["0"]),
        ("limits.query_bytes_max", &["0", "2000000"]),
        ("limits.text_bytes_max", &["0", "9999999999"]),
        ("limits.payload_bytes_max", &["0"]),
        ("limits.field_names_max", &["0"]),
        ("limits.k_max", &["0"]),
        ("limits.concurrent_requests_max", &["0"]),
        ("limits.bytes_in_flight_max", &["0", "1023"]),
        ("limits.streams_max", &["0"]),
        ("limits.streams_per_client_max", &["0"]),
        ("log.filter", &[""]),
        ("log.format", &["xml"]),
    ];
    assert_eq!(bad.len(), bounds::KEYS.len(), "a key has no bad value here");
    for &(key, values) in bad {
        for value in values {
            let faults = faults(None, vec![], &[flag(key, value, "--flag")]);
            assert_eq!(faults.len(), 1, "{key}={value}: {faults:?}");
            assert!(faults[0].starts_with(&format!("flag --flag: {key}: ")), "{faults:?}");
            assert!(faults[0].contains("; allowed: "), "{faults:?}");
        }
    }
}

#[test]
fn good_values_at_the_edges_are_taken() {
    for (key, value) in [
        ("server.metrics_listen", "off"),
        ("server.listen", "[::1]:0"),
        ("server.listen", "localhost:7800"),
        ("server.metrics_listen", "localhost:7801"),
        ("server.request_timeout", "0.5"),
        ("server.drain_timeout", "0"),
        ("encoder.device", "cuda:3"),
        ("encoder.model", "none"),
        ("log.format", "json"),
    ] {
        Config::load(None, vec![], &[flag(key, value, "--flag")]).unwrap();
    }
    let flags = [flag("server.listen", "0.0.0.0:1", "-l"), flag("server.allow_remote", "true", "-r")];
    Config::load(None, vec![], &flags).unwrap();
}

#[test]
fn validate_tells_all_of_a_config_made_by_hand() {
    let mut config = Config::default();
    config.limits.k_max = 0;
    config.encoder.device = "gpu".into();
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("limits.k_max") && error.contains("encoder.device"), "{error}");
}

#[test]
fn what_is_printed_reads_back() {
    let mut config = Config::default();
    config.server.metrics_listen = None;
    config.server.drain_timeout = Duration::from_millis(1500);
    let text = toml::to_string(&config).unwrap();
    assert!(text.contains("metrics_listen = \"off\"") && text.contains("drain_timeout = 1.5"), "{text}");
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
}
