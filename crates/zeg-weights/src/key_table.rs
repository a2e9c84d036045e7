//! Key tables: how a family of checkpoints names its tensors, and how it lays them out.
//!
//! Inside `zeg` a tensor has one name (`backbone.…` the image encoder, `text_encoder.…` the text encoder, `decode_head.…`
//! a segmentation head) and PyTorch's layout. What other programs call it is a table of a family.
//!
//! In the patterns `#` stands for a block's number, and `*` at the end for the rest of a name; both are carried over.

use std::collections::BTreeMap;

use crate::{families::FAMILIES, parts::WeightsPart};

/// How the stored matrix becomes the one that `zeg` computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredLayout {
    /// As it is.
    Same,
    /// Transposed: stored `[out, in]`, used as `x @ M`.
    Transposed,
}

/// Tensors of a file that become one tensor here.
#[derive(Debug, Clone, Copy)]
pub struct Rename {
    /// Patterns of names in the file. Several are put one after the other along their first dimension.
    pub from: &'static [&'static str],
    /// Name here.
    pub to: &'static str,
    /// What is done with the values.
    pub layout: StoredLayout,
}

impl Rename {
    /// Gives a tensor another name.
    pub const fn one(from: &'static [&'static str; 1], to: &'static str) -> Self {
        Self {
            from,
            to,
            layout: StoredLayout::Same,
        }
    }

    /// Gives a matrix another name and transposes it.
    pub const fn transposed(from: &'static [&'static str; 1], to: &'static str) -> Self {
        Self {
            from,
            to,
            layout: StoredLayout::Transposed,
        }
    }

    /// Puts query, key and value projections one after the other.
    pub const fn stacked(from: &'static [&'static str; 3], to: &'static str) -> Self {
        Self {
            from,
            to,
            layout: StoredLayout::Same,
        }
    }
}

/// Tensors of a file that are no weights.
#[derive(Debug, Clone, Copy)]
pub struct IgnoredKeys {
    /// Pattern of names in the file.
    pub pattern: &'static str,
    /// Why they are no weights.
    pub why: &'static str,
}

/// How one family of files names its tensors.
///
/// The families of CLIP's publishers and of residual networks are known; those of a method's checkpoints are handed in
/// where a file is opened ([`crate::StateDict::open`]).
#[derive(Debug, Clone, Copy)]
pub struct KeyTable {
    /// What the family is called in messages.
    pub family: &'static str,
    /// A file is of this family if it holds a tensor of one of these names. A table without any is that of the files
    /// that no other table recognises.
    pub recognised_by: &'static [&'static str],
    /// The first one that fits a name is applied; a name that none fits stays as it is.
    pub renames: &'static [Rename],
    /// What carries no weights; looked at before the renames.
    pub ignored: &'static [IgnoredKeys],
    /// Names here, behind the part's prefix, of tensors that the family's models have beyond those of CLIP's encoders.
    pub extras: &'static [(WeightsPart, &'static str)],
}

/// The table of files that no table recognises: they have `zeg`'s own names.
const OWN: KeyTable = KeyTable {
    family: "zeg",
    recognised_by: &[],
    renames: &[],
    ignored: &[],
    extras: &[],
};

/// How one tensor here is made of tensors in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Names in the file, in the order in which they are put one after the other.
    pub(crate) parts: Vec<String>,
    pub(crate) layout: StoredLayout,
}

/// What a family's rules make of a file's names.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// By name here.
    pub(crate) recipes: BTreeMap<String, Recipe>,
    /// Names in the file with the reason why they are left.
    pub(crate) ignored: Vec<(String, &'static str)>,
    /// Names in the file that lack companions, with the name here that they belong to.
    pub(crate) incomplete: Vec<(String, String)>,
}

impl KeyTable {
    /// Returns the table for a file, told from the names it holds.
    ///
    /// Of several tables that recognise it, the first one holds, those of `tables` before the known families.
    pub(crate) fn detect<'a>(keys: impl Iterator<Item = &'a str>, tables: &[Self]) -> Self {
        let keys: Vec<&str> = keys.collect();
        let holds = |mark: &&str| keys.iter().any(|key| captures(mark, key).is_some());
        let recognises = |table: &&Self| table.recognised_by.iter().any(holds);
        let all_others = |table: &&Self| table.recognised_by.is_empty();
        let known = || FAMILIES.iter().find(recognises);
        let rest = || tables.iter().find(all_others);
        let found = tables.iter().find(recognises).or_else(known).or_else(rest);
        *found.unwrap_or(&OWN)
    }

    /// How the tensors here are made of those of these names.
    pub(crate) fn plan<'a>(&self, names: impl Iterator<Item = &'a str>) -> Plan {
        let mut plan = Plan::default();
        // Stacked tensors by name here, with a place for each part.
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
            let fit = self.renames.iter().find_map(|rule| {
                rule.from
                    .iter()
                    .enumerate()
                    .find_map(|(part, pattern)| Some((rule, part, captures(pattern, name)?)))
            });
            let (to, layout, part, of) = match fit {
                Some((rule, part, found)) => {
                    (found.fill(rule.to), rule.layout, part, rule.from.len())
                }
                None => (name.to_owned(), StoredLayout::Same, 0, 1),
            };
            if of > 1 {
                let parts = stacked.entry(to).or_insert_with(|| vec![None; of]);
                if let Some(place) = parts.get_mut(part) {
                    *place = Some(name.to_owned());
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

/// What `#` and `*` of a pattern stand for in a name.
#[derive(Debug, PartialEq)]
pub(crate) struct Captures<'n> {
    number: &'n str,
    rest: &'n str,
}

impl Captures<'_> {
    /// A pattern with its places filled.
    fn fill(&self, pattern: &str) -> String {
        pattern.replace('#', self.number).replace('*', self.rest)
    }
}

/// Whether a name fits a pattern, and what the places stand for.
pub(crate) fn captures<'n>(pattern: &str, name: &'n str) -> Option<Captures<'n>> {
    let (mut number, mut left) = ("", name);
    let mut pattern = pattern;
    if let Some((before, after)) = pattern.split_once('#') {
        let rest = left.strip_prefix(before)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (found, behind) = rest.split_at_checked(digits).filter(|_| digits > 0)?;
        (number, left, pattern) = (found, behind, after);
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
    fn openai_names_become_reference_names() {
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
    fn query_key_and_value_are_stacked_in_this_order_whatever_the_order_of_names() {
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
    fn patterns_fit_whole_names_alone() {
        assert!(captures("a.#.b", "a.10.b").is_some());
        assert_eq!(captures("a.#.b", "a..b"), None);
        assert_eq!(captures("a.#.b", "a.1x.b"), None);
        assert_eq!(captures("logit_scale", "logit_scale.x"), None);
        let found = captures("a.#.*", "a.3.c.weight").unwrap();
        assert_eq!(found.fill("x.#.y.*"), "x.3.y.c.weight");
    }

    #[test]
    fn tables_of_the_caller_are_tried_first_and_one_without_marks_takes_what_is_left() {
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
    fn every_rule_carries_over_what_it_captures() {
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
