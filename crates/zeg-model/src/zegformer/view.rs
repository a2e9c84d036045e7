//! One picture through both stages: regions and what CLIP says of them, then any classes.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::{RgbImage, normalize::Normalization, resize_bilinear};

use super::{
    Regions, ZegFormer,
    config::STRIDE,
    crops::{ClipPicture, QueryMasks},
    fusion::{ClassLogits, Fusion, TRUST},
};
use crate::{
    ModelError,
    dense::ClassQueries,
    inference::Inference,
    scan::Stages,
    scores::{ScoreField, WeightedMasks},
    trace::Trace,
};

/// What both stages know of a picture before classes are asked for.
#[derive(Debug, Clone)]
pub struct RegionView {
    /// Height and width of the picture.
    size: [usize; 2],
    /// Height and width that it was resized to.
    resized: [usize; 2],
    /// Height and width with padding.
    padded: [usize; 2],
    /// `[1, queries, dim]`
    vectors: Tensor<3>,
    masks: QueryMasks,
    /// CLIP's vectors of the queries' crops, `[queries, dim]`; `None` where it is not asked.
    crops: Option<Vec<f32>>,
    /// `[queries]`: which take part.
    wanted: Vec<bool>,
    stages: Stages,
}

impl RegionView {
    /// Looks at a picture.
    ///
    /// - `asked`: the classes that will be asked for, where they are known, so that regions that cannot matter for them
    ///   need not be looked at ([`Inference::least_share`])
    ///
    /// # Errors
    /// The settings do not fit the picture, or the device could not be read.
    pub fn new(
        model: &ZegFormer,
        picture: &RgbImage,
        settings: &Inference,
        asked: Option<&ClassQueries>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        settings.check()?;
        let started = Instant::now();
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (resized_width, resized_height) = settings.resized(width, height);
        let resized = resize_bilinear(picture, resized_width, resized_height);
        let padded = [resized_height, resized_width].map(|side| side.next_multiple_of(STRIDE));
        let values = Normalization::IMAGENET.to_chw_padded(&resized, padded[1], padded[0]);
        let data = TensorData::new(values, [1, 3, padded[0], padded[1]]);
        let prepared = Instant::now();
        let Regions { vectors, masks } =
            model.regions(Tensor::from_data(data, device), &mut Trace::off());
        let [_, queries, h, w] = masks.dims();
        let masks = QueryMasks {
            values: host(masks)?,
            queries,
            grid: [h, w],
        };
        let mut view = Self {
            size: [height, width],
            resized: [resized_height, resized_width],
            padded,
            vectors,
            masks,
            crops: None,
            wanted: vec![true; queries],
            stages: Stages::default(),
        };
        if let Some(asked) = asked.filter(|_| settings.least_share > 0.0) {
            view.wanted = view.influential(model, asked, settings)?;
        }
        if let Some(classifier) = &model.classifier
            && settings.fusion != Fusion::QueryAlone
        {
            let picture = ClipPicture {
                values: Normalization::CLIP.to_chw_padded(&resized, padded[1], padded[0]),
                size: padded,
            };
            let looked = classifier.look(&picture, &view.masks, settings.crops, &view.wanted)?;
            view.crops = Some(looked);
        }
        view.stages = Stages {
            prepare: prepared - started,
            model: prepared.elapsed(),
            ..Stages::default()
        };
        Ok(view)
    }

    /// Height and width of the picture.
    pub fn picture_size(&self) -> [usize; 2] {
        self.size
    }

    /// Height and width that it was resized to.
    pub fn resized(&self) -> [usize; 2] {
        self.resized
    }

    /// Where the time went.
    pub fn stages(&self) -> Stages {
        self.stages
    }

    /// How many crops CLIP was shown at most.
    pub fn looked_at(&self) -> usize {
        let wanted = self.wanted.iter().filter(|wanted| **wanted).count();
        if self.crops.is_some() { wanted } else { 0 }
    }

    /// Scores of pixels for classes.
    ///
    /// # Errors
    /// The device could not be read.
    pub fn field(
        &self,
        model: &ZegFormer,
        queries: &ClassQueries,
        settings: &Inference,
    ) -> Result<ScoreField, ModelError> {
        let classes = queries.seen.len();
        let mut logits = ClassLogits {
            own: self.own_logits(model, queries)?,
            clip: None,
            classes,
        };
        if let (Some(crops), Some(classifier)) = (&self.crops, &model.classifier) {
            let text = queries.crop_text.as_ref().unwrap_or(&queries.text).clone();
            let features = classifier.upload(crops.clone());
            logits.clip = Some(host(classifier.logits(features, text))?);
        }
        let mut scores = logits.scores(settings.fusion, &queries.seen); // [queries, classes]
        let rows = scores.chunks_exact_mut(classes.max(1));
        for (row, _) in rows.zip(&self.wanted).filter(|(_, wanted)| !**wanted) {
            row.fill(0.0);
        }
        let offset = |&seen: &bool| if seen { settings.seen_offset } else { 0.0 };
        let masks = WeightedMasks::new(self.masks.clone(), scores, self.padded);
        let offsets = queries.seen.iter().map(offset).collect();
        Ok(ScoreField::of_masks(masks, classes, self.resized, offsets))
    }

    /// Class logits of the queries' own vectors, "no object" last: `[queries, classes + 1]`.
    fn own_logits(
        &self,
        model: &ZegFormer,
        queries: &ClassQueries,
    ) -> Result<Vec<f32>, ModelError> {
        let predictor = &model.sem_seg_head.predictor;
        host(predictor.class_logits(self.vectors.clone(), queries.text.clone()))
    }

    /// `[queries]`: which could give a pixel the least share of a class, whatever CLIP said: its score is at most 1, and
    /// its mean over n seen classes at most 1/n.
    fn influential(
        &self,
        model: &ZegFormer,
        queries: &ClassQueries,
        settings: &Inference,
    ) -> Result<Vec<bool>, ModelError> {
        let classes = queries.seen.len();
        let own = ClassLogits {
            own: self.own_logits(model, queries)?,
            clip: None,
            classes,
        };
        let own = own.scores(Fusion::QueryAlone, &queries.seen); // [queries, classes]
        let seen = queries.seen.iter().filter(|seen| **seen).count().max(1);
        let (more, less) = (TRUST as f32, 1.0 - TRUST as f32);
        let mean = (1.0 / seen as f32).powf(less);
        let most = |(class, &own): (usize, &f32)| match settings.fusion {
            Fusion::QueryAlone => own,
            Fusion::ClipAlone => 1.0,
            Fusion::SeenUnseen if queries.seen[class] => own.powf(more) * mean,
            Fusion::SeenUnseen | Fusion::AllClasses => own.powf(less),
        };
        let rows = own.chunks_exact(classes.max(1)).enumerate();
        Ok(rows
            .map(|(query, own)| {
                let score = own.iter().enumerate().map(most).fold(0.0, f32::max);
                let peak = 1.0 / (1.0 + (-self.masks.peak(query)).exp());
                score * peak >= settings.least_share
            })
            .collect())
    }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .map_err(|error| ModelError::Config(format!("{error:?}")))
}
