//! Key tables: the names and layouts of tensors in a family of checkpoints.
//!
//! In `zeg` every tensor has one name (`backbone.…` in the image encoder, `text_encoder.…` in the text encoder,
//! `decode_head.…` in a segmentation head) and PyTorch's layout. A key table maps the names of another program to
//! these.
//!
//! In a pattern, `#` stands for the number of a block, and a final `*` for the rest of the name. Both are inserted at
//! the same character of the new name.

use std::collections::BTreeMap;

use crate::{families::FAMILIES, parts::WeightsPart};

/// The layout of a stored matrix, compared with the one in `zeg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredLayout {
    /// The layout is the same.
    Same,
    /// The matrix is transposed: it is stored as `[out, in]` and used as `x @ M`.
    Transposed,
}

/// A rule that makes one tensor in `zeg` from one or several tensors of a file.
#[derive(Debug, Clone, Copy)]
pub struct Rename {
    /// Patterns of names in the file. Several tensors are concatenated along the first dimension.
    pub from: &'static [&'static str],
    /// The name in `zeg`.
    pub to: &'static str,
    /// The stored layout.
    pub layout: StoredLayout,
}

impl Rename {
    /// Returns a rule that renames a tensor.
    pub const fn one(from: &'static [&'static str; 1], to: &'static str) -> Self {
        Self {
            from,
            to,
            layout: StoredLayout::Same,
        }
    }

    /// Returns a rule that renames and transposes a matrix.
    pub const fn transposed(from: &'static [&'static str; 1], to: &'static str) -> Self {
        Self {
            from,
            to,
            layout: StoredLayout::Transposed,
        }
    }

    /// Returns a rule that concatenates query, key and value projections.
    pub const fn stacked(from: &'static [&'static str; 3], to: &'static str) -> Self {
        Self {
            from,
            to,
            layout: StoredLayout::Same,
        }
    }
}

/// Tensors of a file that are ignored because they are not weights.
#[derive(Debug, Clone, Copy)]
pub struct IgnoredKeys {
    /// Pattern of names in the file.
    pub pattern: &'static str,
    /// Why they are not weights.
    pub why: &'static str,
}

/// The names of tensors in one family of files.
///
/// The published families of CLIP and of residual networks are built in. The tables for the checkpoints of a method are
/// passed when a file is opened ([`crate::StateDict::open`]).
#[derive(Debug, Clone, Copy)]
pub struct KeyTable {
    /// The name of the family, for messages.
    pub family: &'static str,
    /// Patterns of names. A file belongs to this family if it has a tensor with one of them. A table without patterns
    /// applies to the files that no other table recognises.
    pub recognised_by: &'static [&'static str],
    /// Renaming rules. The first rule that matches a name is applied; a name that matches none is unchanged.
    pub renames: &'static [Rename],
    /// Tensors that are not weights; these patterns are tried before the rules.
    pub ignored: &'static [IgnoredKeys],
    /// Names in `zeg`, without the prefix of the part, of tensors that models of this family have in addition to those
    /// of CLIP's encoders.
    pub extras: &'static [(WeightsPart, &'static str)],
}

/// The table for files that no other table recognises: they have `zeg`'s own names.
const OWN: KeyTable = KeyTable {
    family: "zeg",
    recognised_by: &[],
    renames: &[],
    ignored: &[],
    extras: &[],
};

/// The tensors of a file that one tensor in `zeg` is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Names in the file, in the order in which they are concatenated.
    pub(crate) parts: Vec<String>,
    pub(crate) layout: StoredLayout,
}

/// The result of applying a key table to the names in a file.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Recipes by name in `zeg`.
    pub(crate) recipes: BTreeMap<String, Recipe>,
    /// Names in the file that are ignored, with the reason.
    pub(crate) ignored: Vec<(String, &'static str)>,
    /// Names in the file whose other parts are missing, with the name in `zeg` that they are a part of.
    pub(crate) incomplete: Vec<(String, String)>,
}

impl KeyTable {
    /// Returns the table that applies to a file with these names.
    ///
    /// The first table that recognises the file applies; `tables` are tried before the built-in families.
    pub(crate) fn detect<'a>(keys: impl Iterator<Item = &'a str>, tables: &[Self]) -> Self {
        let keys: Vec<&str> = keys.collect();
        let occurs = |pattern: &&str| keys.iter().any(|key| captures(pattern, key).is_some());
        let recognises = |table: &&Self| table.recognised_by.iter().any(occurs);
        let is_fallback = |table: &&Self| table.recognised_by.is_empty();
        let built_in = || FAMILIES.iter().find(recognises);
        let fallback = || tables.iter().find(is_fallback);
        let found = tables.iter().find(recognises);
        *found.or_else(built_in).or_else(fallback).unwrap_or(&OWN)
    }

    /// Returns whether a table with patterns applies to a file with these names.
    pub(crate) fn recognises<'a>(keys: impl Iterator<Item = &'a str>, tables: &[Self]) -> bool {
        !Self::detect(keys, tables).recognised_by.is_empty()
    }

    /// Applies the rules to the names in a file.
    pub(crate) fn plan<'a>(&self, names: impl Iterator<Item = &'a str>) -> Plan {
        let mut plan = Plan::default();
        // Concatenated tensors by name in `zeg`, with a slot for each part.
        let mut stacked: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
        for name in names {
            if let Some(ignored) = self
                .ignored
                .iter()
                .find(|ignored| captures(ignored.pattern, name).is_some())
            {
                plan.ignored.push((name.to_owned(), ignored.why));
                continue;
            }
            let matched = self.renames.iter().find_map(|rule| {
                rule.from
                    .iter()
                    .enumerate()
                    .find_map(|(part, pattern)| Some((rule, part, captures(pattern, name)?)))
            });
            let (to, layout, part, of) = match matched {
                Some((rule, part, found)) => {
                    (found.fill(rule.to), rule.layout, part, rule.from.len())
                }
                None => (name.to_owned(), StoredLayout::Same, 0, 1),
            };
            if of > 1 {
                let parts = stacked.entry(to).or_insert_with(|| vec![None; of]);
                if let Some(slot) = parts.get_mut(part) {
                    *slot = Some(name.to_owned());
                }
                continue;
            }
            let parts = vec![name.to_owned()];
            plan.recipes.insert(to, Recipe { parts, layout });
        }
        for (to, parts) in stacked {
            let found: Vec<String> = parts.iter().flatten().cloned().collect();
            if found.len() == parts.len() {
                let layout = StoredLayout::Same;
                plan.recipes.insert(
                    to,
                    Recipe {
                        parts: found,
                        layout,
                    },
                );
            } else {
                plan.incomplete
                    .extend(found.into_iter().map(|name| (name, to.clone())));
            }
        }
        plan
    }
}

/// The parts of a name that `#` and `*` of a pattern match.
#[derive(Debug, PartialEq)]
pub(crate) struct Captures<'n> {
    number: &'n str,
    rest: &'n str,
}

impl Captures<'_> {
    /// Inserts the parts into a pattern.
    fn fill(&self, pattern: &str) -> String {
        pattern.replace('#', self.number).replace('*', self.rest)
    }
}

/// Matches a name against a pattern; returns `None` if the name does not match.
pub(crate) fn captures<'n>(pattern: &str, name: &'n str) -> Option<Captures<'n>> {
    let (mut number, mut left) = ("", name);
    let mut pattern = pattern;
    if let Some((before, after)) = pattern.split_once('#') {
        let rest = left.strip_prefix(before)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (found, remainder) = rest.split_at_checked(digits).filter(|_| digits > 0)?;
        (number, left, pattern) = (found, remainder, after);
    }
    match pattern.strip_suffix('*') {
        Some(before) => left
            .strip_prefix(before)
            .map(|rest| Captures { number, rest }),
        None => (left == pattern).then_some(Captures { number, rest: "" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_names_are_renamed() {
        let names = [
            "visual.proj",
            "text_projection",
            "transformer.resblocks.0.ln_1.weight",
            "logit_scale",
        ];
        let rules = KeyTable::detect(names.into_iter(), &[]);
        assert_eq!(rules.family, "OpenAI CLIP");
        let plan = rules.plan(names.into_iter());
        let here: Vec<&str> = plan.recipes.keys().map(String::as_str).collect();
        assert_eq!(
            here,
            [
                "backbone.proj",
                "text_encoder.text_projection",
                "text_encoder.transformer.resblocks.0.ln_1.weight"
            ]
        );
        assert_eq!(plan.ignored[0].0, "logit_scale");
    }

    #[test]
    fn query_key_and_value_are_concatenated_in_this_order_whatever_the_order_of_names() {
        let of =
            |which: &str| format!("vision_model.encoder.layers.11.self_attn.{which}_proj.bias");
        let names = [of("k"), of("q"), of("v")];
        let rules = KeyTable::detect(names.iter().map(String::as_str), &[]);
        assert_eq!(rules.family, "Hugging Face CLIP");
        let plan = rules.plan(names.iter().map(String::as_str));
        let recipe = &plan.recipes["backbone.transformer.resblocks.11.attn.in_proj_bias"];
        assert_eq!(recipe.parts, [of("q"), of("k"), of("v")]);
        let plan = rules.plan(names[..2].iter().map(String::as_str));
        assert_eq!(plan.recipes.len(), 0);
        assert_eq!(plan.incomplete.len(), 2);
    }

    #[test]
    fn patterns_match_whole_names_only() {
        assert!(captures("a.#.b", "a.10.b").is_some());
        assert_eq!(captures("a.#.b", "a..b"), None);
        assert_eq!(captures("a.#.b", "a.1x.b"), None);
        assert_eq!(captures("logit_scale", "logit_scale.x"), None);
        let found = captures("a.#.*", "a.3.c.weight").unwrap();
        assert_eq!(found.fill("x.#.y.*"), "x.3.y.c.weight");
    }

    #[test]
    fn tables_of_the_caller_are_tried_first_and_one_without_patterns_is_the_fallback() {
        let mine = KeyTable {
            family: "mine",
            recognised_by: &["head.*"],
            ..OWN
        };
        let rest = KeyTable {
            family: "rest",
            ..OWN
        };
        let family = |keys: &[&'static str], tables: &[KeyTable]| {
            KeyTable::detect(keys.iter().copied(), tables).family
        };
        let both = [rest, mine];
        assert_eq!(family(&["visual.proj", "head.bias"], &both), "mine");
        assert_eq!(family(&["visual.proj"], &both), "OpenAI CLIP");
        assert_eq!(family(&["other"], &both), "rest");
        assert_eq!(family(&["other"], &[mine]), "zeg");
    }

    #[test]
    fn every_rule_inserts_what_it_captures() {
        for family in FAMILIES {
            for rule in family.renames {
                for place in ['#', '*'] {
                    for from in rule.from {
                        assert_eq!(from.contains(place), rule.to.contains(place), "{from}");
                    }
                }
            }
        }
    }
}
