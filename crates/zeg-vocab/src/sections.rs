//! Built-in texts that are divided into sections: a line `[name]` or `[name] default`, then the lines of the section.

/// A section of a built-in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    /// Name between the brackets.
    pub(crate) name: &'static str,
    /// Whether the section is used if none is named.
    pub(crate) is_default: bool,
    /// Everything up to the next section, comments and blank lines included.
    body: &'static str,
}

impl Section {
    /// Returns the lines of the section; see [`lines`].
    pub(crate) fn lines(self) -> impl Iterator<Item = &'static str> {
        lines(self.body)
    }
}

/// Returns the sections of a text; lines before the first section are ignored.
pub(crate) fn sections(text: &'static str) -> impl Iterator<Item = Section> {
    let starts = text.match_indices('[').map(|(at, _)| at);
    let starts = starts.filter(|&at| at == 0 || text[..at].ends_with('\n'));
    starts.filter_map(|at| {
        let rest = &text[at + 1..];
        let section = rest.split_once("\n[").map_or(rest, |(section, _)| section);
        let (head, body) = section.split_once('\n').unwrap_or((section, ""));
        let (name, mark) = head.split_once(']')?;
        Some(Section {
            name,
            is_default: mark.trim() == "default",
            body,
        })
    })
}

/// Returns the trimmed lines of a text without empty lines and comments.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_have_names_a_default_and_lines() {
        let text = "# head\n[a] default\n# why\none [1]\n\n two \n[b]\n[c]\nthree";
        let found: Vec<_> = sections(text)
            .map(|s| (s.name, s.is_default, s.lines().collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            found,
            [
                ("a", true, vec!["one [1]", "two"]),
                ("b", false, vec![]),
                ("c", false, vec!["three"])
            ]
        );
        assert_eq!(sections("nothing").count(), 0);
    }
}
