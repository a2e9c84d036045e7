//! Writes the report as a web page: one file without scripts that loads nothing from the network.

use std::io;

use askama::Template;

use super::classes::ClassRow;
use super::content::{Confusion, Content};
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
    confusions: Vec<ShownConfusion<'a>>,
    /// Colours of right and of wrong cells at some shares.
    scale: Vec<Scale>,
    style: &'a str,
    version: &'a str,
    /// Number of evaluations.
    runs: usize,
}

/// A confusion matrix as an image, with the most confused classes.
struct ShownConfusion<'a> {
    confusion: &'a Confusion,
    matrix: Matrix,
}

struct Scale {
    right: String,
    wrong: String,
    text: &'static str,
}

pub(super) fn render(content: &Content) -> io::Result<String> {
    let confusions = content.confusions.iter().map(|confusion| {
        Ok(ShownConfusion {
            matrix: Matrix::of(&confusion.counts, &confusion.classes)?,
            confusion,
        })
    });
    let page = Page {
        content,
        confusions: confusions.collect::<io::Result<_>>()?,
        scale: SHOWN_SHARES
            .map(|(share, text)| Scale {
                right: translucent(RIGHT, opacity(share)),
                wrong: translucent(WRONG, opacity(share)),
                text,
            })
            .into(),
        style: include_str!("../../templates/report/style.css"),
        version: env!("CARGO_PKG_VERSION"),
        runs: content.reports.len(),
    };
    page.render().map_err(io::Error::other)
}

// Templates only call methods, and pass references to them.
#[allow(
    clippy::unused_self,
    clippy::trivially_copy_pass_by_ref,
    clippy::ref_option
)]
impl Page<'_> {
    /// Returns the name of the score of a class.
    fn metric(&self) -> &'static str {
        match self.content.metric {
            Metric::MeanIou => "IoU",
            Metric::Dice => "Dice",
        }
    }

    /// Returns the name of the score of an image.
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

    /// Returns the length of a bar in percent.
    fn length(&self, fraction: &f64) -> String {
        format!("{:.2}", 100.0 * fraction.clamp(0.0, 1.0))
    }

    fn percent(&self, fraction: &Option<f64>) -> String {
        percent(*fraction)
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
