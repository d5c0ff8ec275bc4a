//! The environment variables of Hugging Face's own tools say where the hub and its cache are.

use std::{fs, path::PathBuf};

use super::{Hub, PullError};

const ENDPOINT: &str = "https://huggingface.co";

impl Hub {
    /// Reads `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_HUB_OFFLINE`, with the
    /// meanings and defaults that they have in `huggingface_hub`; `variable` gives the value of one, if it is set.
    ///
    /// # Errors
    /// [`PullError::Environment`], [`PullError::NoCache`].
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, PullError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim_end_matches('/');
        check_endpoint(endpoint)?;
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| {
            let caches = set("XDG_CACHE_HOME").map(PathBuf::from);
            let caches = caches
                .or_else(|| Some(PathBuf::from(set("HOME").or_else(|| set("USERPROFILE"))?).join(".cache")));
            Some(caches?.join("huggingface"))
        });
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join("hub")));
        let cache = cache.ok_or(PullError::NoCache)?;
        let token_path = set("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home?.join("token")));
        // Like Hugging Face's tools: a token that cannot be read is none.
        let token = set("HF_TOKEN").or_else(|| fs::read_to_string(token_path?).ok());
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let offline = set("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"));
        Ok(Hub::new(endpoint, cache, token, offline))
    }
}

/// What hf-hub would end the process for.
fn check_endpoint(endpoint: &str) -> Result<(), PullError> {
    let host = ["http://", "https://"].iter().find_map(|scheme| endpoint.strip_prefix(scheme));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '[' | ']');
    if host.is_some_and(|host| {
        host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') && host.chars().all(plain)
    }) {
        return Ok(());
    }
    Err(PullError::Environment {
        variable: "HF_ENDPOINT",
        value: endpoint.to_owned(),
        expected: "the address of a hub, such as https://huggingface.co",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(set: &[(&str, &str)]) -> Result<Hub, PullError> {
        Hub::from_environment(|name| {
            set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_are_those_of_the_hubs_own_tools() {
        let hub = hub(&[("HOME", "/me"), ("HF_TOKEN", "")]).unwrap();
        assert_eq!((hub.endpoint.as_str(), hub.offline), ("https://huggingface.co", false));
        assert_eq!(hub.cache, PathBuf::from("/me/.cache/huggingface/hub"));
        assert_eq!(hub.token, None);
    }

    #[test]
    fn every_variable_counts() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "from-file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let given =
            hub(&[("HF_HOME", home), ("HF_ENDPOINT", "http://127.0.0.1:1/"), ("HF_HUB_OFFLINE", "yes")])
                .unwrap();
        assert_eq!((given.endpoint.as_str(), given.offline), ("http://127.0.0.1:1", true));
        assert_eq!(given.cache, folder.path().join("hub"));
        assert_eq!(given.token.as_deref(), Some("from-file"));
        let given = hub(&[("HF_HOME", home), ("HF_HUB_CACHE", "/c"), ("HF_TOKEN", " t ")]).unwrap();
        assert_eq!((given.cache, given.token.as_deref()), (PathBuf::from("/c"), Some("t")));
        let given = hub(&[("XDG_CACHE_HOME", "/x"), ("HF_HUB_OFFLINE", "0")]).unwrap();
        assert_eq!((given.cache, given.offline), (PathBuf::from("/x/huggingface/hub"), false));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(matches!(hub(&[]), Err(PullError::NoCache)));
        for endpoint in ["nonsense", "ftp://x", "http://", "http://a b", "https://?"] {
            let error = hub(&[("HOME", "/me"), ("HF_ENDPOINT", endpoint)]).err().unwrap();
            assert!(error.to_string().contains("HF_ENDPOINT"), "{endpoint}");
        }
    }
}
