//! Converts between RGB and hue, saturation and value, in OpenCV's conventions for bytes.
//!
//! `cv2.cvtColor` on bytes stores hue in half degrees, 0..180, and saturation and value in 0..=255. The reference
//! pipeline changes colours in these coarse steps, so training images are only the same if the rounding is the same:
//! OpenCV rounds when converting to HSV. When converting back, its vector code truncates, and its scalar code, which
//! handles only the last few columns of a row, rounds; here every pixel is converted as by the vector code. Both
//! directions are tested against OpenCV's results in `tests/golden`.

/// Half degrees in a circle: OpenCV's hue is `0..180`.
pub(crate) const HUES: i32 = 180;

/// Number of fractional bits of the reciprocals that replace divisions.
const POINT: u32 = 12;

/// Returns `scale / n` with [`POINT`] fractional bits; 0 for `n = 0`, where the numerator is 0, too.
const fn reciprocals(scale: u32) -> [i32; 256] {
    let mut table = [0; 256];
    let mut n = 1;
    while n < 256 {
        let numerator = scale << POINT;
        table[n as usize] = ((2 * numerator + n) / (2 * n)) as i32;
        n += 1;
    }
    table
}

/// `255 / n`, because saturation has the range 0..=255.
const SATURATION: [i32; 256] = reciprocals(255);

/// `30 / n`, because each of the six sectors of the colour circle spans 30 half degrees.
const HUE: [i32; 256] = reciprocals(30);

fn round(fixed: i32) -> i32 {
    (fixed + (1 << (POINT - 1))) >> POINT
}

/// Returns the hue, saturation and value of a colour, as `cv2.COLOR_RGB2HSV` computes them.
///
/// value = max, saturation = 255 · (max − min) / max; the hue depends on the largest channel, and of equal channels red
/// comes before green and green before blue.
pub(crate) fn rgb_to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    let (r, g, b, d) = (
        i32::from(red),
        i32::from(green),
        i32::from(blue),
        i32::from(range),
    );
    let offset = if value == red {
        g - b
    } else if value == green {
        b - r + 2 * d
    } else {
        r - g + 4 * d
    };
    let hue = round(offset * HUE[usize::from(range)]);
    let hue = if hue < 0 { hue + HUES } else { hue };
    let saturation = round(d * SATURATION[usize::from(value)]);
    [hue as u8, saturation as u8, value]
}

/// Returns the colour of a hue (`0..180`; larger hues wrap around), saturation and value, as `cv2.COLOR_HSV2RGB`
/// computes it.
///
/// With h in sixths of the circle and f its fractional part, the other levels besides the value v are v·(1 − s),
/// v·(1 − s·f) and v·(1 − s·(1 − f)). The code multiplies by reciprocals instead of dividing, as OpenCV does, because
/// that decides how many ties are rounded.
pub(crate) fn hsv_to_rgb([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    let sixth = f32::from(hue) * (6.0 / 180.0);
    let sector = sixth as u8; // truncates
    let fraction = sixth - f32::from(sector);
    let s = f32::from(saturation) * (1.0 / 255.0);
    let v = f32::from(value) * (1.0 / 255.0);
    let byte = |level: f32| (level * 255.0) as u8; // truncates
    let bottom = byte(v * (1.0 - s));
    let falling = byte(v * (1.0 - s * fraction));
    let rising = byte(v * (1.0 - s + s * fraction));
    match sector % 6 {
        0 => [value, rising, bottom],
        1 => [falling, value, bottom],
        2 => [bottom, value, rising],
        3 => [bottom, falling, value],
        4 => [rising, bottom, value],
        _ => [value, bottom, falling],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `python reference/hsv_golden.py`; each line holds a colour and the colour OpenCV converts it to.
    const TO_HSV: &str = include_str!("../../tests/golden/rgb_to_hsv.csv");
    const TO_RGB: &str = include_str!("../../tests/golden/hsv_to_rgb.csv");

    fn pairs(golden: &str) -> Vec<([u8; 3], [u8; 3])> {
        let triple = |numbers: &[u8]| [numbers[0], numbers[1], numbers[2]];
        golden
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(',').map(|text| text.parse().unwrap()).collect())
            .map(|numbers: Vec<u8>| (triple(&numbers[..3]), triple(&numbers[3..])))
            .collect()
    }

    #[test]
    fn conversion_to_hsv_matches_opencv() {
        let pairs = pairs(TO_HSV);
        assert!(pairs.len() == 1024);
        for (rgb, hsv) in pairs {
            assert_eq!(rgb_to_hsv(rgb), hsv, "of {rgb:?}");
        }
    }

    #[test]
    fn conversion_to_rgb_matches_opencv() {
        let pairs = pairs(TO_RGB);
        assert!(pairs.len() == 1024);
        let mut different = 0;
        for (hsv, rgb) in pairs {
            let found = hsv_to_rgb(hsv);
            let off = found.iter().zip(rgb).map(|(a, b)| a.abs_diff(b)).max();
            assert!(off <= Some(1), "{hsv:?}: {found:?} for {rgb:?}");
            different += usize::from(off != Some(0));
        }
        // Fused multiply-adds in OpenCV's code round 1 in 7,500 of all values of h, s and v differently.
        assert!(different <= 2, "{different} colours are one level off");
    }

    #[test]
    fn greys_stay_as_they_are() {
        for value in 0..=255 {
            assert_eq!(hsv_to_rgb(rgb_to_hsv([value; 3])), [value; 3]);
        }
    }

    #[test]
    fn primary_colours_have_the_expected_hue() {
        assert_eq!(rgb_to_hsv([255, 0, 0]), [0, 255, 255]);
        assert_eq!(rgb_to_hsv([0, 255, 0]), [60, 255, 255]);
        assert_eq!(rgb_to_hsv([0, 0, 255]), [120, 255, 255]);
        assert_eq!(rgb_to_hsv([9, 9, 9]), [0, 0, 9]);
        assert_eq!(rgb_to_hsv([0, 0, 0]), [0, 0, 0]);
        assert_eq!(hsv_to_rgb([30, 255, 255]), [255, 255, 0]);
    }
}
