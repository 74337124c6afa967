//! Medians, and ratios between runs of the same round.

/// The median; none of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len.is_multiple_of(2) => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        _ => Some(sorted[middle]),
    }
}

/// The median over rounds of `value / base`, both taken from the same round, so
/// that a round in which the machine was busy weighs on both sides alike.
pub fn paired_ratio(values: &[f64], base: &[f64]) -> Option<f64> {
    median(values.iter().zip(base).map(|(value, base)| value / base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn paired_ratio_ignores_a_slow_round() {
        assert_eq!(
            paired_ratio(&[2.0, 20.0, 2.0], &[1.0, 10.0, 1.0]),
            Some(2.0)
        );
    }
}
