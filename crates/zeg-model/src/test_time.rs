//! Test-time augmentation: a picture is looked at in several sizes and mirrored, and the scores are averaged.
//!
//! Scores are averaged as they are, after calibration. mmsegmentation's `aug_test` averages a softmax over them
//! instead; with sigmoid scores between 0 and 1 that is nearly linear and the best class is almost always the same, but
//! not by definition.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use zeg_image::{LabelMap, RgbImage, flip_horizontal};

use crate::{
    ModelError,
    classes::ClassQueries,
    encoded::EncodedPicture,
    inference::Inference,
    method::Model,
    scan::{Scan, Source, Stages},
    scores::{Labelling, Strip},
};

/// Most looks at a picture.
const MOST_SCALES: usize = 32;

/// How often a picture is looked at; once, as it is, unless said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TestTime {
    /// Factors on the length of the short side.
    pub scales: Vec<f64>,
    /// Look at every size mirrored, too.
    pub flip: bool,
}

impl Default for TestTime {
    fn default() -> Self {
        Self {
            scales: vec![1.0],
            flip: false,
        }
    }
}

impl TestTime {
    /// Checks the numbers.
    ///
    /// # Errors
    /// There is no scale, there are too many, or one is not between 0.05 and 20.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.scales.is_empty() || self.scales.len() > MOST_SCALES {
            return Err(ModelError::Config(format!(
                "test-time scales: there are {}, give 1 to {MOST_SCALES}",
                self.scales.len()
            )));
        }
        match self
            .scales
            .iter()
            .find(|scale| !(0.05..=20.0).contains(*scale))
        {
            Some(scale) => Err(ModelError::Config(format!(
                "test-time scale {scale}: a scale lies between 0.05 and 20"
            ))),
            None => Ok(()),
        }
    }

    /// Settings for one scale: the short side is `short side · scale`, cut to a whole number as mmsegmentation does.
    pub fn scaled(settings: &Inference, picture: &RgbImage, scale: f64) -> Inference {
        #[allow(clippy::float_cmp)]
        // exactly the default; the picture's size must not pass through a float then
        if scale == 1.0 {
            return settings.clone();
        }
        let own = picture.width().min(picture.height()) as usize;
        let short_side = if settings.short_side == 0 {
            own
        } else {
            settings.short_side
        };
        Inference {
            short_side: ((short_side as f64 * scale) as usize).max(1),
            ..settings.clone()
        }
    }
}

/// Labels a picture at its own size, and says where the time went.
///
/// # Errors
/// The settings do not fit the picture, or the device could not be read.
pub fn segment(
    model: &dyn Model,
    picture: &RgbImage,
    queries: &ClassQueries,
    (settings, test_time): (&Inference, &TestTime),
    device: &Device,
) -> Result<(LabelMap, Stages), ModelError> {
    let settings = (settings, test_time);
    let (mut maps, stages) = segment_calibrated(model, picture, queries, settings, (&[], device))?;
    Ok((maps.swap_remove(0), stages))
}

/// Labels a picture at its own size once for every one of `offsets`, which stand for the settings' own seen offset;
/// without any, once with the settings' own. Scores are computed once.
///
/// # Errors
/// The settings do not fit the picture, or the device could not be read.
pub fn segment_calibrated(
    model: &dyn Model,
    picture: &RgbImage,
    queries: &ClassQueries,
    (settings, test_time): (&Inference, &TestTime),
    (offsets, device): (&[f32], &Device),
) -> Result<(Vec<LabelMap>, Stages), ModelError> {
    let plain = without_offset(settings, offsets);
    let mirrored = test_time.flip.then(|| flip_horizontal(picture));
    let looks = [(false, Some(picture)), (true, mirrored.as_ref())];
    let views = views(model, looks, queries, (&plain, test_time), device)?;
    let size = [picture.height() as usize, picture.width() as usize];
    let mut labels = Canvases::new(size, settings, queries, offsets);
    let stages = labels.fill(views)?;
    Ok((labels.finish()?, stages))
}

/// Labels a picture that was encoded before, at its own size, once for every one of `offsets`; without any, once with
/// the settings' own.
///
/// # Errors
/// The device could not be read.
pub fn segment_encoded(
    model: &dyn Model,
    picture: &EncodedPicture,
    queries: &ClassQueries,
    settings: &Inference,
    offsets: &[f32],
) -> Result<(Vec<LabelMap>, Stages), ModelError> {
    let plain = without_offset(settings, offsets);
    let scan = Scan::new(model, Source::Encoded(picture), queries, &plain)?;
    let mut labels = Canvases::new(picture.size(), settings, queries, offsets);
    let stages = labels.fill(vec![(false, scan)])?;
    Ok((labels.finish()?, stages))
}

/// The settings whose scores are calibrated afterwards, where several offsets are asked for.
fn without_offset(settings: &Inference, offsets: &[f32]) -> Inference {
    match offsets {
        [] => settings.clone(),
        _ => Inference {
            seen_offset: 0.0,
            ..settings.clone()
        },
    }
}

/// The looks at a picture, each with whether it is mirrored.
fn views<'a>(
    model: &'a dyn Model,
    looks: [(bool, Option<&'a RgbImage>); 2],
    queries: &'a ClassQueries,
    (settings, test_time): (&Inference, &TestTime),
    device: &'a Device,
) -> Result<Vec<(bool, Scan<'a>)>, ModelError> {
    test_time.check()?;
    let mut views = Vec::new();
    for &scale in &test_time.scales {
        for (mirror, picture) in looks {
            if let Some(picture) = picture {
                let settings = TestTime::scaled(settings, picture, scale);
                let source = Source::Picture(picture, device);
                views.push((mirror, Scan::new(model, source, queries, &settings)?));
            }
        }
    }
    Ok(views)
}

/// Label maps of one picture, one a seen offset, that are filled from the same scores.
struct Canvases<'a> {
    size: [usize; 2],
    rule: Labelling,
    /// `[classes]`
    seen: &'a [bool],
    /// Empty: the scores are labelled as they come.
    offsets: &'a [f32],
    maps: Vec<Vec<u16>>,
}

impl<'a> Canvases<'a> {
    fn new(
        size: [usize; 2],
        settings: &Inference,
        queries: &'a ClassQueries,
        offsets: &'a [f32],
    ) -> Self {
        Self {
            size,
            rule: Labelling::threshold(settings.threshold),
            seen: &queries.seen,
            offsets,
            maps: vec![vec![0; size[0] * size[1]]; offsets.len().max(1)],
        }
    }

    fn fill(&mut self, mut views: Vec<(bool, Scan)>) -> Result<Stages, ModelError> {
        let [_, width] = self.size;
        // The finest strips suit every view.
        let strips = views.iter().map(|(_, scan)| scan.strips());
        for rows in strips.max_by_key(Vec::len).unwrap_or_default() {
            let mut sum: Option<Strip> = None;
            for (mirror, scan) in &mut views {
                let strip = scan.strip(rows.clone())?;
                let strip = if *mirror { strip.mirrored() } else { strip };
                match &mut sum {
                    Some(sum) => sum.add(&strip),
                    None => sum = Some(strip),
                }
            }
            let Some(mut mean) = sum else { continue };
            mean.divide(views.len());
            for (number, map) in self.maps.iter_mut().enumerate() {
                let labels = &mut map[rows.start * width..rows.end * width];
                match self.offsets.get(number) {
                    Some(&offset) => {
                        let strip = mean.lowered(self.seen, offset);
                        strip.label(&self.rule, labels, None);
                    }
                    None => mean.label(&self.rule, labels, None),
                }
            }
        }
        let mut stages = Stages::default();
        for (_, scan) in &views {
            stages += scan.stages();
        }
        Ok(stages)
    }

    fn finish(self) -> Result<Vec<LabelMap>, ModelError> {
        let [height, width] = self.size;
        let map = |labels| LabelMap::new(width, height, labels);
        let maps = self.maps.into_iter().map(map);
        maps.collect::<Result<_, _>>()
            .map_err(|error| ModelError::Config(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_change_the_short_side_as_mmsegmentation_cuts_it() {
        let picture = RgbImage::new(500, 375);
        let settings = Inference::default();
        let short = |scale| TestTime::scaled(&settings, &picture, scale).short_side;
        assert_eq!((short(1.0), short(0.75), short(1.25)), (512, 384, 640));
        let own = Inference {
            short_side: 0,
            ..settings.clone()
        };
        assert_eq!(TestTime::scaled(&own, &picture, 1.0).short_side, 0);
        assert_eq!(TestTime::scaled(&own, &picture, 0.5).short_side, 187);
    }

    #[test]
    fn scales_out_of_range_are_refused() {
        for scales in [
            vec![],
            vec![0.0],
            vec![1.0, f64::NAN],
            vec![21.0],
            vec![1.0; 33],
        ] {
            let test_time = TestTime {
                scales,
                flip: false,
            };
            assert!(test_time.check().is_err(), "{test_time:?}");
        }
        assert!(TestTime::default().check().is_ok());
    }
}
