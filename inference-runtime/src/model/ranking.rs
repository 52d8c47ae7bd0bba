//! Which candidates of a list are the best, and how far two lists of scores agree on that.

/// Places of the `count` highest of the scores, ranked as answers with `top_k` are: in total order, then by place.
pub fn best(scores: &[f64], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    places.truncate(count);
    places
}

/// How many of the `count` best of one list are among the best of the other.
pub fn agreed(one: &[f64], other: &[f64], count: usize) -> usize {
    let other = best(other, count);
    let one = best(one, count);
    one.iter().filter(|place| other.contains(place)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_scores_the_first_is_the_better_one() {
        assert_eq!(best(&[1.0, 2.0, 2.0, 2.0], 2), [1, 2]);
    }

    #[test]
    fn lists_agree_as_sets() {
        let own = [0.9, 0.8, 0.1, 0.2];
        assert_eq!(agreed(&own, &[0.8, 0.9, 0.1, 0.2], 2), 2);
        assert_eq!(agreed(&own, &[0.9, 0.1, 0.1, 0.5], 2), 1);
    }
}
