//! The `Range` header, one range only; several are ignored, as S3 does.

/// Start and length; None for the whole object; an error when nothing of the object is in the range.
pub fn parse(header: Option<&str>, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(spec) = header
        .and_then(|h| h.strip_prefix("bytes="))
        .filter(|s| !s.contains(','))
    else {
        return Ok(None);
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Ok(None);
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= size => Err(()),
        (Ok(first), Ok(last)) if last >= first => Ok(Some((first, last.min(size - 1) - first + 1))),
        (Ok(first), Err(_)) if last.is_empty() => Ok(Some((first, size - first))),
        (Err(_), Ok(0)) if first.is_empty() => Err(()),
        (Err(_), Ok(_)) if first.is_empty() && size == 0 => Err(()),
        (Err(_), Ok(suffix)) if first.is_empty() => Ok(Some((size - suffix.min(size), suffix.min(size)))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn first_to_last_open_end_and_suffix() {
        for (header, expected) in [
            ("bytes=0-3", Ok(Some((0, 4)))),
            ("bytes=4-", Ok(Some((4, 6)))),
            ("bytes=8-99", Ok(Some((8, 2)))),
            ("bytes=-3", Ok(Some((7, 3)))),
            ("bytes=-99", Ok(Some((0, 10)))),
            ("bytes=10-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=5-2", Ok(None)),
            ("bytes=0-1,4-5", Ok(None)),
            ("lines=0-1", Ok(None)),
        ] {
            assert_eq!(parse(Some(header), 10), expected, "{header}");
        }
        assert_eq!(parse(None, 10), Ok(None));
        assert_eq!(parse(Some("bytes=0-0"), 0), Err(()));
    }
}
