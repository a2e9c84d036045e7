//! The cost of the student: the multiply-accumulates of its convolutions and of its classifier.

use super::{
    config::{MaskClipPlusConfig, StudentHead},
    convolution::Kernel,
    residual::BlockShape,
};

/// The multiply-accumulates of one image, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StudentMacs {
    /// The backbone.
    pub(super) backbone: u64,
    /// Decoder and classifier.
    pub(super) head: u64,
}

/// Returns the multiply-accumulates of a convolution, and the side of its output.
fn of(kernel: Kernel, side: usize) -> (u64, usize) {
    let cells = kernel.cells(side);
    let [output, input, rows, columns] = kernel.shape();
    (
        (cells * cells * output * input * rows * columns) as u64,
        cells,
    )
}

/// Counts the multiply-accumulates for one square image of the configuration's resolution.
pub(super) fn macs(config: &MaskClipPlusConfig, classes: usize) -> StudentMacs {
    let sizes = &config.student;
    let (mut backbone, mut side) = (0, config.resolution);
    let mut add = |kernel: Kernel, side: usize| {
        let (macs, after) = of(kernel, side);
        backbone += macs;
        after
    };
    for kernel in sizes.stem_kernels() {
        side = add(kernel, side);
    }
    side = side.div_ceil(2); // pooling
    let low = side;
    for stage in 0..4 {
        for block in 0..sizes.blocks[stage] {
            let shape = BlockShape::of_student(sizes, stage, block);
            let strided = |kernel| Kernel {
                stride: shape.stride,
                ..kernel
            };
            let before = side;
            add(Kernel::new(shape.input, shape.inner, 1), before);
            side = add(strided(Kernel::new(shape.inner, shape.inner, 3)), before);
            add(Kernel::new(shape.inner, shape.output, 1), side);
            if shape.projects() {
                add(strided(Kernel::new(shape.input, shape.output, 1)), before);
            }
        }
    }
    let (input, dim) = (sizes.stage_output(3), config.embed_dim());
    let mut head = 0;
    let mut add = |kernel: Kernel, side: usize| head += of(kernel, side).0;
    let classified = match config.head {
        StudentHead::DeeplabV2 => {
            (0..4).for_each(|_| add(Kernel::new(input, dim, 3), side));
            side
        }
        StudentHead::DeeplabV3Plus => {
            let mut separable = |input: usize, side: usize| {
                add(Kernel::depthwise(input, 1), side);
                add(Kernel::new(input, dim, 1), side);
            };
            (0..3).for_each(|_| separable(input, side));
            separable(dim + config.low_level, low);
            separable(dim, low);
            add(Kernel::new(input, dim, 1), 1); // on the mean
            add(Kernel::new(input, dim, 1), side);
            add(Kernel::new(5 * dim, dim, 3), side);
            add(Kernel::new(sizes.stage_output(0), config.low_level, 1), low);
            low
        }
    };
    head += (classified * classified * dim * classes) as u64;
    StudentMacs { backbone, head }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        method::Architecture,
        methods::maskclip_plus::{GuideConfig, config::ResidualEncoder},
    };

    fn published(head: StudentHead, background: bool) -> MaskClipPlusConfig {
        let rn50 = ResidualEncoder::by_name("RN50").unwrap();
        MaskClipPlusConfig {
            student: crate::methods::maskclip_plus::config::ResidualSizes::default(),
            head,
            low_level: 48,
            background,
            guide: GuideConfig::Residual {
                sizes: rn50.sizes(),
                embed_dim: rn50.embed_dim,
            },
            as_released: true,
            resolution: 512,
        }
    }

    /// The numbers are those that the reference counts in its own models.
    #[test]
    fn published_students_have_the_published_parameters() {
        for (head, background, trained) in [
            (StudentHead::DeeplabV2, false, 118_025_056),
            (StudentHead::DeeplabV3Plus, true, 102_457_808),
        ] {
            let config = published(head, background);
            let cost = config.cost(20).unwrap();
            assert_eq!(cost.params.trained, trained, "{head:?}");
            // CLIP's RN50 has 38,214,496 with its four projections; that of the queries has no effect.
            let guide = cost.params.all - cost.params.trained;
            assert_eq!(guide, 38_214_496 - (2048 * 2048 + 2048), "{head:?}");
            assert_eq!(config.student.depth(), 101);
        }
    }

    #[test]
    fn a_deeper_decoder_costs_what_its_kernels_do() {
        let macs = macs(&published(StudentHead::DeeplabV2, false), 20);
        // Four kernels of 3×3 from 2048 to 1024 channels on 64×64 cells, and 20 classes.
        let head = 4 * 9 * 2048 * 1024 * 64 * 64 + 64 * 64 * 1024 * 20;
        assert_eq!(macs.head, head);
    }
}
