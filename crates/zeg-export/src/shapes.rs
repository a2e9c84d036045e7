//! The two representations of a region in labelling tools and data sets.

/// Representation of a region.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Shape {
    /// Exact mask, in the run-length code of the format.
    #[default]
    Mask,
    /// Outlines that people can edit. A hole is connected to the outline around it by a cut of zero width, since none
    /// of the formats supports holes.
    Polygons {
        /// Largest distance of the outline from the pixel edges, in pixels; 0 is exact.
        tolerance: f32,
    },
}
