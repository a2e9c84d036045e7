//! The book under `docs/`: its generated pages are up to date, its links resolve, every page is in the summary.
//!
//! `ZEG_BLESS=1 cargo test --workspace --test book` writes the generated pages instead of comparing them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in tests

#[path = "book/commands.rs"]
mod commands;
#[path = "book/keys.rs"]
mod keys;
#[path = "book/links.rs"]
mod links;
#[path = "book/named.rs"]
mod named;
#[path = "book/output.rs"]
mod output;
#[path = "book/pages.rs"]
mod pages;
#[path = "book/published.rs"]
mod published;
#[path = "book/reference.rs"]
mod reference;
#[path = "book/rows.rs"]
mod rows;
#[path = "book/schema.rs"]
mod schema;
