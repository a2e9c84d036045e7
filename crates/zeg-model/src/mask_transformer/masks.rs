//! Masks of mask queries in main memory.

use crate::resize::taps;

/// Resizes mask logits to the size of the image, bilinearly: `[h, w]` → `[height, width]`.
pub fn enlarge(logits: &[f32], [h, w]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f32> {
    let (rows, columns) = (taps(h, height), taps(w, width));
    let mut values = Vec::with_capacity(height * width);
    let mut line = vec![0.0_f32; w];
    for (top, bottom, fraction) in rows {
        let (top, bottom) = (&logits[top * w..][..w], &logits[bottom * w..][..w]);
        for ((value, a), b) in line.iter_mut().zip(top).zip(bottom) {
            *value = a * (1.0 - fraction) + b * fraction;
        }
        values.extend(columns.iter().map(|&(left, right, fraction)| {
            line[left] * (1.0 - fraction) + line[right] * fraction
        }));
    }
    values
}

/// Computes a softmax in double precision.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits
        .iter()
        .map(|&logit| f64::from(logit - highest).exp())
        .collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
