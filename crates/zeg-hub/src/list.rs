//! Parser and validation of a list of models.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;
use url::Url;

use crate::{
    HubError,
    registry::{Entry, Format, Manual, Obtain, RemoteFile},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawList {
    #[serde(default)]
    model: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    about: String,
    family: String,
    format: Format,
    licence: String,
    #[serde(default)]
    home: String,
    #[serde(default)]
    file: Vec<RemoteFile>,
    manual: Option<Manual>,
}

/// Parses and validates a list; `origin` says where it comes from and is used in error messages only.
pub(crate) fn parse(text: &str, origin: &str) -> Result<Vec<Entry>, HubError> {
    let invalid = |reason: String| HubError::Registry {
        origin: origin.to_owned(),
        reason,
    };
    let list: RawList = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for raw in list.model {
        let name = raw.name.clone();
        let entry = check(raw).map_err(|reason| invalid(format!("model {name:?}: {reason}")))?;
        if !seen.insert(name.clone()) {
            return Err(invalid(format!("model {name:?} is listed twice")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn check(raw: RawEntry) -> Result<Entry, String> {
    if !is_file_name(&raw.name) || raw.name.chars().any(char::is_uppercase) {
        return Err(
            "a model name consists of lower-case letters, digits, '-', '_' and '.' only".into(),
        );
    }
    let obtain = match (raw.file.is_empty(), raw.manual) {
        (false, None) => {
            check_files(&raw.file)?;
            Obtain::Download(raw.file)
        }
        (true, Some(manual)) => Obtain::Manual(manual),
        (true, None) => {
            return Err("the entry has neither [[model.file]] nor [model.manual]".into());
        }
        (false, Some(_)) => {
            return Err("the entry has both [[model.file]] and [model.manual]".into());
        }
    };
    Ok(Entry {
        name: raw.name,
        aliases: raw.aliases,
        about: raw.about,
        family: raw.family,
        format: raw.format,
        licence: raw.licence,
        home: raw.home,
        obtain,
    })
}

fn check_files(files: &[RemoteFile]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for file in files {
        let name = &file.name;
        if !is_file_name(name) || is_reserved(name) {
            return Err(format!(
                "{name:?} is not a legal name of a file: letters, digits, '-', '_' and '.' are legal, \
                 {:?} and \".part\" are reserved",
                crate::cache::MANIFEST
            ));
        }
        if !seen.insert(name.to_lowercase()) {
            return Err(format!("file {name:?} is listed twice"));
        }
        if file.sha256.as_deref().is_some_and(|sha| !is_sha256(sha)) {
            return Err(format!(
                "file {name:?}: sha256 must have 64 lower-case hexadecimal digits"
            ));
        }
        if file.sources.is_empty() {
            return Err(format!("file {name:?} has no source"));
        }
        for source in &file.sources {
            let address = Url::parse(source).map_err(|error| format!("{source:?}: {error}"))?;
            if !matches!(address.scheme(), "http" | "https") {
                return Err(format!("{source:?} is not an http or https address"));
            }
        }
    }
    Ok(())
}

/// Returns whether the name is a single plain path component on every system.
pub(crate) fn is_file_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends_well = |name: &str| !name.starts_with('.') && !name.ends_with('.');
    (1..=100).contains(&name.len()) && name.chars().all(is_plain) && ends_well(name)
}

/// Returns whether the cache needs this name for its own files.
fn is_reserved(name: &str) -> bool {
    let name = name.to_lowercase();
    name == crate::cache::MANIFEST || name.contains(".part")
}

/// Returns whether the text consists of 64 lower-case hexadecimal digits.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads a text file of at most `limit` bytes.
pub(crate) fn read_short(path: &Path, limit: u64) -> Result<String, HubError> {
    use std::io::Read as _;
    let read = |source| HubError::Read {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(read)?;
    let mut text = String::new();
    file.take(limit.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(read)?;
    if text.len() as u64 > limit {
        return Err(HubError::Registry {
            origin: path.display().to_string(),
            reason: format!("the file is longer than {limit} bytes"),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(extra: &str) -> String {
        format!(
            "[[model]]\nname = 'tiny'\nabout = 'a'\nfamily = 'clip'\nformat = 'safetensors'\nlicence = 'MIT'\n{extra}"
        )
    }

    fn file(name: &str, extra: &str) -> String {
        entry(&format!(
            "[[model.file]]\nname = '{name}'\nsources = ['https://host.test/a']\n{extra}"
        ))
    }

    fn reason(text: &str) -> String {
        parse(text, "test").unwrap_err().to_string()
    }

    #[test]
    fn errors_say_what_is_wrong_with_a_list() {
        let upper = file("a", "").replace("tiny", "Tiny");
        assert!(reason(&upper).contains("lower-case"));
        let path = file("a", "").replace("tiny", "../tiny");
        assert!(reason(&path).contains("lower-case"));
        for name in [
            "../a",
            "a/b",
            "",
            ".hidden",
            "a.",
            "manifest.json",
            "a.part",
            "a b",
        ] {
            assert!(reason(&file(name, "")).contains("name of a file"), "{name}");
        }
        assert!(reason(&file("a", "sha256 = 'ABC'")).contains("64"));
        assert!(reason(&file("a", "size = -1")).contains("size"));
        assert!(reason(&file("a", "colour = 1")).contains("colour"));
        assert!(reason(&entry("")).contains("neither"));
        let both = file("a", "[model.manual]\npage = 'p'\nsteps = 's'");
        assert!(reason(&both).contains("both"));
        let twice = format!("{}\n{}", file("a", ""), file("a", ""));
        assert!(reason(&twice).contains("twice"));
        let disk = file("a", "").replace("https://host.test/a", "file:///etc/passwd");
        assert!(reason(&disk).contains("not an http or https address"));
        let none = file("a", "").replace("['https://host.test/a']", "[]");
        assert!(reason(&none).contains("no source"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z\\[\\]='\"\n. ]{0,200}") {
            let _ = parse(&text, "test");
        }

        #[test]
        fn a_file_name_is_one_component(name in ".{0,20}") {
            if is_file_name(&name) {
                let mut parts = Path::new(&name).components();
                let first = parts.next();
                proptest::prop_assert!(matches!(first, Some(std::path::Component::Normal(_))));
                proptest::prop_assert!(parts.next().is_none());
            }
        }
    }
}
