//! `*` and `?` patterns, as IAM and EC2 filters use them.

/// Whether `text` matches `pattern`, where `*` stands for any run of characters and `?` for one.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to resume when the text after the last star does not fit: (after the star, next text position).
    let mut resume: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                resume = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match resume {
                Some((after_star, at)) => {
                    p = after_star;
                    t = at + 1;
                    resume = Some((after_star, at + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("eks:Describe*", "eks:DescribeCluster", true),
            ("eks:Describe*", "eks:DeleteNodegroup", false),
            (
                "arn:*:nodegroup/demo/*/*",
                "arn:aws:eks:r:1:nodegroup/demo/a/b",
                true,
            ),
            (
                "arn:*:nodegroup/demo/*/*",
                "arn:aws:eks:r:1:nodegroup/other/a/b",
                false,
            ),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*ab", "aab", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
