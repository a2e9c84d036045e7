//! JSON bodies: read within bounds of memory, whatever they hold.
//!
//! A body of many megabytes may be one image in base64, or millions of small values, each of which takes a multiple of its
//! text as a value in memory. So a body is never parsed as a whole: its members are found as pieces of the text, unknown
//! ones are refused where they stand, and only pieces within bounds become values.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use axum::http::{HeaderMap, header};
use serde::de::{self, Deserialize, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};
use zeg_base::{memory::amount, names::did_you_mean};

use crate::problem::{Code, Problem};

/// Most bytes of all values of a request besides the image.
pub(crate) const MOST_OTHERS: usize = 256 << 10;
/// Most values within one JSON value; each takes up to 100 bytes of memory.
const MOST_VALUES: usize = 50_000;

/// The members of a JSON object as pieces of its text.
pub(crate) type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Returns the members of an object, of which all names are known and none is given twice.
///
/// # Errors
/// Returns a problem if the text is no such object.
pub(crate) fn members(
    text: &[u8],
    is_known: impl Fn(&str) -> Result<(), Problem>,
) -> Result<Members<'_>, Problem> {
    let mut problem = None;
    let visitor = MembersVisitor {
        is_known: |name: &str| {
            is_known(name)
                .map_err(|found| problem = Some(found))
                .is_ok()
        },
    };
    let mut parser = serde_json::Deserializer::from_slice(text);
    let found = parser.deserialize_map(visitor);
    let found = found.and_then(|found| parser.end().map(|()| found));
    found.map_err(|error| problem.unwrap_or_else(|| no_json(&error)))
}

/// Returns the problem of a body that is no JSON object.
fn no_json(error: &serde_json::Error) -> Problem {
    Problem::new(
        Code::BadRequest,
        format!("the body is no JSON object: {error}"),
    )
    .with_hint("/docs has a call for every address")
}

struct MembersVisitor<F> {
    is_known: F,
}

impl<'de, F: FnMut(&str) -> bool> Visitor<'de> for MembersVisitor<F> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Members::new();
        while let Some(name) = map.next_key::<String>()? {
            if !(self.is_known)(&name) {
                return Err(de::Error::custom("an unknown field"));
            }
            let value = map.next_value()?;
            if found.insert(name.clone(), value).is_some() {
                return Err(de::Error::custom(format_args!(
                    "the field {name:?} is given twice"
                )));
            }
        }
        Ok(found)
    }
}

/// Returns the problem of a field that an address does not take.
pub(crate) fn unknown_field(name: &str, known: &[&str]) -> Problem {
    let like = did_you_mean(name, known.iter().copied());
    let shown: String = name.chars().take(40).collect();
    Problem::new(Code::BadValue, format!("unknown field {shown:?}{like}"))
        .with_hint(format!("this address takes {}", known.join(", ")))
}

/// Returns the problem of too many bytes besides the image.
pub(crate) fn others_too_long(bytes: usize) -> Problem {
    Problem::new(
        Code::PayloadTooLarge,
        format!(
            "the fields besides the image take {}; at most {} are read",
            amount(bytes as u64),
            amount(MOST_OTHERS as u64)
        ),
    )
    .with_hint("ask for fewer classes at a time")
}

/// Parses a piece of JSON as a value.
///
/// # Errors
/// Returns a problem if it is malformed, or holds too many values.
pub(crate) fn value(text: &str) -> Result<Value, Problem> {
    // Every value but the first follows one of these signs; those within texts are counted, too, which does no harm.
    let values = text.bytes().filter(|byte| b",[{".contains(byte)).count();
    if values > MOST_VALUES {
        return Err(Problem::new(
            Code::PayloadTooLarge,
            format!("a field holds {values} values; at most {MOST_VALUES} are read"),
        )
        .with_hint("ask for fewer classes or points at a time"));
    }
    serde_json::from_str(text).map_err(|error| no_json(&error))
}

/// Returns the text of a JSON string; borrowed if no character of it is escaped.
///
/// Returns `None` if it is no string.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Returns the member of an object with a name, if there is one; other members are passed over.
///
/// # Errors
/// Returns the parser's error if the text is no object.
pub(crate) fn member<'a>(
    object: &'a RawValue,
    name: &str,
) -> Result<Option<&'a RawValue>, serde_json::Error> {
    struct One<'n>(&'n str);
    impl<'de> Visitor<'de> for One<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(key) = map.next_key::<String>()? {
                let value = map.next_value()?;
                if key == self.0 {
                    found = Some(value);
                }
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(object.get()).deserialize_map(One(name))
}

/// The first `MOST` entries of a list as pieces of JSON, and the number of all.
#[derive(Debug, Default)]
pub(crate) struct FirstEntries<'a, const MOST: usize> {
    pub(crate) kept: Vec<&'a RawValue>,
    pub(crate) count: usize,
}

impl<'de: 'a, 'a, const MOST: usize> Deserialize<'de> for FirstEntries<'a, MOST> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<'a, const MOST: usize>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a, const MOST: usize> Visitor<'de> for Entries<'a, MOST> {
            type Value = FirstEntries<'a, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut found = FirstEntries::default();
                while found.count < MOST
                    && let Some(entry) = list.next_element()?
                {
                    found.kept.push(entry);
                    found.count += 1;
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    found.count += 1;
                }
                Ok(found)
            }
        }
        deserializer.deserialize_seq(Entries(std::marker::PhantomData))
    }
}

/// Parses a JSON body of which only the named fields are read; values of other fields are passed over.
///
/// The content type must be JSON: a web page of a stranger cannot send it to this server without being asked first.
///
/// # Errors
/// Returns a problem if it is no JSON object with these fields.
pub(crate) fn read<'a, T: Deserialize<'a>>(
    headers: &HeaderMap,
    body: &'a [u8],
) -> Result<T, Problem> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let detail = format!("the content type is {kind:?}, not application/json");
        return Err(Problem::new(Code::UnsupportedMediaType, detail)
            .with_hint("send the header `Content-Type: application/json`"));
    }
    // An array would be taken for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::new(
            Code::BadRequest,
            "the body cannot be read as JSON: it is no object",
        )
        .with_hint("send an object, as Label Studio does"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body cannot be read as JSON: {error}");
        Problem::new(Code::BadRequest, detail).with_hint("send what Label Studio sends")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_double_members_are_refused() {
        let known = |name: &str| match name {
            "a" | "b" => Ok(()),
            _ => Err(unknown_field(name, &["a", "b"])),
        };
        let found = members(br#"{"a": [1, {"x": 2}], "b": "c"}"#, known).unwrap();
        assert_eq!(found["a"].get(), r#"[1, {"x": 2}]"#);
        assert_eq!(text(found["b"]).unwrap(), "c");
        let problem = members(br#"{"c": 1"#, known).unwrap_err();
        assert_eq!(problem.code(), Code::BadValue);
        for bad in [&br#"{"a": 1, "a": 2}"#[..], b"[1]", b"{", b"{} {}", b"7"] {
            let problem = members(bad, known).unwrap_err();
            assert_eq!(problem.code(), Code::BadRequest, "{problem}");
        }
    }

    #[test]
    fn escaped_texts_and_members_are_found() {
        let raw: &RawValue = serde_json::from_str(r#"{"x": 1, "image": "a\/b"}"#).unwrap();
        let image = member(raw, "image").unwrap().unwrap();
        assert_eq!(text(image).unwrap(), "a/b");
        assert!(member(raw, "y").unwrap().is_none());
        assert!(text(raw).is_none());
    }

    #[test]
    fn many_values_are_refused() {
        let many = format!("[{}1]", "1,".repeat(MOST_VALUES));
        assert_eq!(value(&many).unwrap_err().code(), Code::PayloadTooLarge);
        assert!(value("[1, [2]]").is_ok());
        let list: FirstEntries<3> = serde_json::from_str("[1, 2, 3, 4, 5]").unwrap();
        assert_eq!((list.kept.len(), list.count), (3, 5));
        let list: FirstEntries<3> = serde_json::from_str("[1, 2]").unwrap();
        assert_eq!((list.kept.len(), list.count), (2, 2));
    }
}
