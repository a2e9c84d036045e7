//! The report as a web page: one file, no script, no network.

use std::io;

use askama::Template;

use super::ReportInput;
use super::classes::ClassRow;
use super::content::Content;
use super::matrix::{Matrix, RIGHT, WRONG, opacity};
use super::text::{percent, share, thousands};
use crate::Metric;
use crate::summary::Spread;

/// Shares whose colours the legend of the matrix shows.
const SHOWN_SHARES: [(f64, &str); 4] =
    [(0.01, "1 %"), (0.1, "10 %"), (0.4, "40 %"), (1.0, "100 %")];

#[derive(Template)]
#[template(path = "report/page.html")]
struct Page<'a> {
    content: &'a Content,
    matrix: Option<Matrix>,
    /// Colours of right and of wrong cells at some shares.
    scale: Vec<Scale>,
    style: &'a str,
    version: &'a str,
    runs: usize,
}

struct Scale {
    right: String,
    wrong: String,
    text: &'static str,
}

pub(super) fn render(content: &Content, input: &ReportInput) -> io::Result<String> {
    let classes = input
        .runs
        .first()
        .map(|run| run.evaluation.classes.as_slice());
    let matrix = match (&content.mistakes, classes) {
        (Some(_), Some(classes)) => Some(Matrix::of(&content.confusion, classes)?),
        _ => None,
    };
    let page = Page {
        content,
        matrix,
        scale: SHOWN_SHARES
            .map(|(share, text)| Scale {
                right: translucent(RIGHT, opacity(share)),
                wrong: translucent(WRONG, opacity(share)),
                text,
            })
            .into(),
        style: include_str!("../../templates/report/style.css"),
        version: env!("CARGO_PKG_VERSION"),
        runs: input.runs.len(),
    };
    page.render().map_err(io::Error::other)
}

// A template calls methods only, and gives them references.
#[allow(
    clippy::unused_self,
    clippy::trivially_copy_pass_by_ref,
    clippy::ref_option
)]
impl Page<'_> {
    /// The name of the value that bars show.
    fn metric(&self) -> &'static str {
        match self.content.metric {
            Metric::MeanIou => "IoU",
            Metric::Dice => "Dice",
        }
    }

    /// The name of an image's score.
    fn image_metric(&self) -> &'static str {
        match self.content.metric {
            Metric::MeanIou => "mIoU",
            Metric::Dice => "mDice",
        }
    }

    fn score(&self, row: &ClassRow) -> String {
        self.spread(match self.content.metric {
            Metric::MeanIou => &row.iou,
            Metric::Dice => &row.dice,
        })
    }

    fn spread(&self, spread: &Option<Spread>) -> String {
        percent(spread.map(|spread| spread.mean))
    }

    fn deviation(&self, row: &ClassRow) -> String {
        let spread = match self.content.metric {
            Metric::MeanIou => row.iou,
            Metric::Dice => row.dice,
        };
        let std = spread.and_then(|spread| spread.std);
        std.map(|std| format!("± {:.2}", 100.0 * std))
            .unwrap_or_default()
    }

    /// Length of a bar in percent.
    fn length(&self, fraction: &f64) -> String {
        format!("{:.2}", 100.0 * fraction.clamp(0.0, 1.0))
    }

    fn share(&self, fraction: &f64) -> String {
        share(*fraction)
    }

    fn count(&self, count: &u64) -> String {
        thousands(*count)
    }

    fn colour(&self, colour: &[u8; 3]) -> String {
        zeg_base::hex::colour(*colour)
    }
}

fn translucent([r, g, b]: [u8; 3], opacity: f64) -> String {
    format!("rgba({r}, {g}, {b}, {opacity:.3})")
}
