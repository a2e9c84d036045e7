//! Formats numbers as text.

use zeg_base::plural::noun_for;

/// Formats a fraction in percent with two decimals; a dash if it is undefined.
pub(super) fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "–".to_owned(), |value| format!("{:.2}", 100.0 * value))
}

/// Formats a share with few digits and non-breaking spaces: `31 %`, `4.2 %`, `< 0.1 %`.
pub(super) fn share(fraction: f64) -> String {
    spaced(fraction).replace(' ', "\u{a0}")
}

fn spaced(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    if percent > 0.0 && percent < 0.05 {
        "< 0.1 %".to_owned()
    } else if percent < 9.95 {
        format!("{percent:.1} %")
    } else if percent > 99.5 && percent < 100.0 {
        "> 99 %".to_owned()
    } else {
        format!("{percent:.0} %")
    }
}

/// Formats a count with separators: `1,449`.
pub(super) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a count with its noun: `1 image`, `240 images`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{} {}", thousands(count), noun_for(count, noun))
}

/// Formats a duration: `8.4 s`, `12 min 5 s`, `3 h 20 min`.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        return format!("{} min {} s", whole / 60, whole % 60);
    }
    format!("{} h {} min", thousands(whole / 3600), whole % 3600 / 60)
}

/// Formats a JSON value: strings without quotes, 32-bit numbers without the extra digits of 64-bit ones.
pub(super) fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => match number.as_f64() {
            // A 32-bit 0.1 is 0.10000000149011612 as a 64-bit number.
            Some(wide) if number.is_f64() && f64::from(wide as f32).to_bits() == wide.to_bits() => {
                (wide as f32).to_string()
            }
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1449), "1,449");
        assert_eq!(thousands(118_287_001), "118,287,001");
        assert_eq!(counted(1, "image"), "1 image");
        assert_eq!(percent(Some(0.84264)), "84.26");
        assert_eq!(percent(None), "–");
        assert_eq!(
            [0.0, 0.0001, 0.042, 0.0996, 0.314, 0.9997, 1.0].map(spaced),
            [
                "0.0 %", "< 0.1 %", "4.2 %", "10 %", "31 %", "> 99 %", "100 %"
            ]
        );
        assert_eq!(share(0.3), "30\u{a0}%");
        assert_eq!(
            [8.4, 725.0, 12_000.0].map(duration),
            ["8.4 s", "12 min 5 s", "3 h 20 min"]
        );
    }

    #[test]
    fn settings_are_shown_as_they_were_written() {
        let value =
            serde_json::json!({"offset": 0.1_f32, "crop": 512, "mode": "slide", "factor": 0.1});
        let shown: Vec<String> = ["offset", "crop", "mode", "factor"]
            .map(|key| plain(&value[key]))
            .into();
        assert_eq!(shown, ["0.1", "512", "slide", "0.1"]);
    }
}
