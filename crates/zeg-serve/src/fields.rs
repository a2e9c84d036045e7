//! The fields of a request, from a form or from JSON, which have the same names and mean the same.

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, FromRequest as _, Multipart, multipart::MultipartError},
    http::{HeaderMap, Request, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value, value::RawValue};
use tokio::runtime::Handle;

use crate::{
    json_body::{self, MOST_OTHERS, members, others_too_long, unknown_field},
    problem::{Code, Problem},
    state::AppState,
};

/// Name of the results of an image without a name.
const UNNAMED: &str = "image";
/// Longest name of an image, in characters.
const MOST_CHARACTERS: usize = 100;

/// The fields of a request.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// The content of the image's file, and its name.
    image: Option<(Bytes, String)>,
    values: Map<String, Value>,
}

impl Fields {
    /// Reads the fields of a request whose body is in memory.
    ///
    /// - `known`: names of the fields that the route takes, besides `image`
    ///
    /// # Errors
    /// Returns a problem if the body has another content type, is malformed, or has an unknown field.
    pub(crate) async fn read(
        state: &AppState,
        headers: HeaderMap,
        body: Bytes,
        known: Vec<&'static str>,
    ) -> Result<Self, Problem> {
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let is_form = match kind.as_str() {
            "multipart/form-data" => true,
            "application/json" => false,
            _ => {
                let detail = if kind.is_empty() {
                    "the request has no content type".to_owned()
                } else {
                    format!("the content type {kind:?} is not read here")
                };
                return Err(
                    Problem::new(Code::UnsupportedMediaType, detail).with_hint(
                        "send multipart/form-data, as `curl -F image=@photo.jpg` does, or application/json",
                    ),
                );
            }
        };
        let room = state.parsing_room(body.len()).await;
        let runtime = Handle::current();
        // A long image takes a while, which must not hold up other connections. The room is held until the work ends,
        // even if nobody waits for it any more.
        let work = move || {
            let fields = if is_form {
                runtime.block_on(Self::of_form(headers, body, &known))
            } else {
                Self::of_json(&body, &known)
            };
            drop(room);
            fields
        };
        let parsed = tokio::task::spawn_blocking(work).await;
        let mut fields = parsed.map_err(Problem::internal)??;
        // `null` is as good as a field that is left out.
        fields.values.retain(|_, value| !value.is_null());
        match fields.values.shift_remove("image_name") {
            None => {}
            Some(Value::String(name)) => {
                if let Some((_, own)) = &mut fields.image {
                    *own = safe_name(&name);
                }
            }
            Some(other) => return Err(wrong("image_name", &other, "a text")),
        }
        Ok(fields)
    }

    async fn of_form(headers: HeaderMap, body: Bytes, known: &[&str]) -> Result<Self, Problem> {
        let mut request = Request::new(Body::from(body));
        *request.headers_mut() = headers;
        // The length was checked when the body was received.
        DefaultBodyLimit::disable().apply(&mut request);
        let form = Multipart::from_request(request, &()).await;
        let mut form = form.map_err(|error| malformed(error.body_text()))?;
        let mut fields = Self::default();
        let mut others = 0;
        while let Some(field) = form.next_field().await.map_err(of_form)? {
            let Some(name) = field.name().map(str::to_owned) else {
                return Err(malformed("a part of the form has no name"));
            };
            if name == "image" {
                if fields.image.is_some() {
                    return Err(malformed("the form has two images"));
                }
                let file_name = safe_name(field.file_name().unwrap_or_default());
                let bytes = field.bytes().await.map_err(of_form)?;
                fields.image = Some((bytes, file_name));
                continue;
            }
            if !known.contains(&name.as_str()) {
                return Err(unknown_field(&name, known));
            }
            let text = field.bytes().await.map_err(of_form)?;
            others += text.len();
            if others > MOST_OTHERS {
                return Err(others_too_long(others));
            }
            let Ok(text) = std::str::from_utf8(&text) else {
                return Err(malformed(format!("the field {name:?} is not UTF-8")));
            };
            match fields.values.get_mut(&name) {
                // A field that is given twice is a list, as `curl -F output=labels -F output=overlay` sends it.
                Some(Value::String(before)) if name == "output" => {
                    before.push(',');
                    before.push_str(text);
                }
                Some(_) => return Err(malformed(format!("the field {name:?} is given twice"))),
                None => {
                    fields.values.insert(name, Value::String(text.to_owned()));
                }
            }
        }
        Ok(fields)
    }

    fn of_json(body: &[u8], known: &[&str]) -> Result<Self, Problem> {
        let members = members(body, |name| {
            if name == "image" || known.contains(&name) {
                Ok(())
            } else {
                Err(unknown_field(name, known))
            }
        })?;
        let mut fields = Self::default();
        let mut others = 0;
        for (name, raw) in members {
            if name == "image" {
                fields.image = image_of(raw)?.map(|image| (image, safe_name("")));
                continue;
            }
            others += raw.get().len();
            if others > MOST_OTHERS {
                return Err(others_too_long(others));
            }
            fields.values.insert(name, json_body::value(raw.get())?);
        }
        Ok(fields)
    }

    /// Takes the image and its name out of the fields.
    ///
    /// # Errors
    /// Returns a problem if there is no image.
    pub(crate) fn take_image(&mut self) -> Result<(Bytes, String), Problem> {
        let (bytes, name) = self.image.take().ok_or_else(|| {
            Problem::new(Code::BadRequest, "the request has no image")
                .with_hint("send the file in the field `image`: curl -F image=@photo.jpg …")
        })?;
        if bytes.is_empty() {
            return Err(
                Problem::new(Code::UnreadableImage, format!("{name}: the file is empty"))
                    .with_hint("choose another file, or check the path in the call: curl -F image=@photo.jpg …"),
            );
        }
        Ok((bytes, name))
    }

    /// Whether an image was sent.
    pub(crate) fn has_image(&self) -> bool {
        self.image.is_some()
    }

    /// Returns a field as it came.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Returns a field that is a text.
    ///
    /// # Errors
    /// Returns a problem if it is something else.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim())),
            Some(other) => Err(wrong(name, other, "a text")),
        }
    }

    /// Returns a field that is a finite number; in a form it is a text.
    ///
    /// # Errors
    /// Returns a problem if it is something else.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, Problem> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };
        let number = number_of(value);
        number
            .map(Some)
            .ok_or_else(|| wrong(name, value, "a number"))
    }

    /// Returns a field that is a number from 0 to 1.
    ///
    /// # Errors
    /// Returns a problem if it is something else.
    pub(crate) fn share(&self, name: &str) -> Result<Option<f32>, Problem> {
        match self.number(name)? {
            Some(number) if !(0.0..=1.0).contains(&number) => Err(Problem::new(
                Code::BadValue,
                format!("`{name}` is {number}; it must be from 0 to 1"),
            )),
            number => Ok(number.map(|number| number as f32)),
        }
    }

    /// Returns a field that is a whole number of at most `most`.
    ///
    /// # Errors
    /// Returns a problem if it is something else.
    pub(crate) fn count(&self, name: &str, most: u64) -> Result<Option<u64>, Problem> {
        let Some(number) = self.number(name)? else {
            return Ok(None);
        };
        if number.fract() != 0.0 || number < 0.0 || number > most as f64 {
            return Err(Problem::new(
                Code::BadValue,
                format!("`{name}` is {number}; it must be a whole number from 0 to {most}"),
            ));
        }
        Ok(Some(number as u64))
    }

    /// Returns a field that is true or false; absent means false.
    ///
    /// # Errors
    /// Returns a problem if it is something else.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.values.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            // Python writes `True`, and some programs have 0 and 1 only.
            Some(value @ Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" | "" => Ok(false),
                _ => Err(wrong(name, value, "true or false")),
            },
            Some(Value::Number(number)) if number.as_u64().is_some_and(|number| number < 2) => {
                Ok(number.as_u64() == Some(1))
            }
            Some(other) => Err(wrong(name, other, "true or false")),
        }
    }

    /// Returns a field that is a list of texts; in a form they are separated by commas.
    ///
    /// # Errors
    /// Returns a problem if it is something else.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, Problem> {
        let Some(value) = self.values.get(name) else {
            return Ok(Vec::new());
        };
        match value {
            Value::String(text) => {
                let parts = text.split(',').map(|part| part.trim().to_owned());
                Ok(parts.filter(|part| !part.is_empty()).collect())
            }
            Value::Array(entries) => {
                let texts = entries
                    .iter()
                    .map(|entry| entry.as_str().map(str::to_owned));
                let texts: Option<Vec<String>> = texts.collect();
                texts.ok_or_else(|| wrong(name, value, "a list of texts"))
            }
            other => Err(wrong(name, other, "a list of texts")),
        }
    }

    /// Returns a field that is a list of numbers; in a form they are separated by commas.
    ///
    /// # Errors
    /// Returns a problem if it is something else.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<f64>, Problem> {
        let Some(value) = self.values.get(name) else {
            return Ok(Vec::new());
        };
        let numbers: Option<Vec<f64>> = match value {
            Value::String(text) => text.split(',').map(parse).collect(),
            Value::Array(entries) => entries.iter().map(number_of).collect(),
            Value::Number(_) => number_of(value).map(|number| vec![number]),
            _ => None,
        };
        numbers.ok_or_else(|| wrong(name, value, "a list of numbers"))
    }

    /// Returns a field that is a list of points, `[x, y]` each; in a form they are written `x,y; x,y`.
    ///
    /// # Errors
    /// Returns a problem if it is something else.
    pub(crate) fn points(&self, name: &str) -> Result<Vec<[usize; 2]>, Problem> {
        let Some(value) = self.values.get(name) else {
            return Ok(Vec::new());
        };
        let whole = |number: f64| {
            (number.fract() == 0.0 && (0.0..1e9).contains(&number)).then_some(number as usize)
        };
        let pair = |numbers: Option<Vec<f64>>| match numbers?.as_slice() {
            [x, y] => Some([whole(*x)?, whole(*y)?]),
            _ => None,
        };
        let points: Option<Vec<[usize; 2]>> = match value {
            Value::String(text) => text
                .split(';')
                .filter(|part| !part.trim().is_empty())
                .map(|part| pair(part.split(',').map(parse).collect()))
                .collect(),
            Value::Array(entries) => entries
                .iter()
                .map(|entry| pair(entry.as_array()?.iter().map(number_of).collect()))
                .collect(),
            _ => None,
        };
        points.ok_or_else(|| wrong(name, value, "a list of points [x, y] in whole pixels"))
    }
}

/// Returns a number, or the number that a text states, if it is finite.
fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64().filter(|number| number.is_finite()),
        Value::String(text) => parse(text),
        _ => None,
    }
}

fn parse(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    number.is_finite().then_some(number)
}

/// Returns the image of a JSON body; `null` is none.
fn image_of(raw: &RawValue) -> Result<Option<Bytes>, Problem> {
    if raw.get() == "null" {
        return Ok(None);
    }
    match json_body::text(raw) {
        Some(text) => of_base64(&text).map(Some),
        None => Err(Problem::new(
            Code::BadValue,
            "`image` is no text; send the file as base64",
        )
        .with_hint("in JSON the file is sent as base64; as it is, it is sent by a form")),
    }
}

/// Decodes base64, with or without the beginning of a `data:` address.
fn of_base64(text: &str) -> Result<Bytes, Problem> {
    let text = match text.strip_prefix("data:") {
        Some(rest) => match rest.split_once(";base64,") {
            Some((_, data)) => data,
            None => {
                return Err(Problem::new(
                    Code::BadValue,
                    "`image` is a data: address without base64",
                ));
            }
        },
        None => text,
    };
    let decoded = STANDARD.decode(text.trim_ascii());
    decoded.map(Bytes::from).map_err(|error| {
        Problem::new(Code::BadValue, format!("`image` is no base64: {error}"))
            .with_hint("in JSON the file is sent as base64; as it is, it is sent by a form")
    })
}

/// Returns the last part of a name that a client sent, without what a file system takes for more than a name.
pub(crate) fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let shown = last
        .chars()
        .filter(|c| !c.is_control() && !":*?\"<>|".contains(*c));
    let kept: String = shown.take(MOST_CHARACTERS).collect();
    let kept = kept.trim_matches(['.', ' ']);
    if kept.is_empty() {
        UNNAMED.to_owned()
    } else {
        kept.to_owned()
    }
}

fn wrong(name: &str, value: &Value, expected: &str) -> Problem {
    let shown: String = value.to_string().chars().take(60).collect();
    Problem::new(
        Code::BadValue,
        format!("`{name}` is {shown}; it must be {expected}"),
    )
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadRequest, detail).with_hint("/docs has a call for every address")
}

fn of_form(error: MultipartError) -> Problem {
    malformed(format!(
        "the form is malformed or incomplete: {}",
        error.body_text()
    ))
}

#[cfg(test)]
mod tests;
