//! Derived names. Frozen: a changed name function would orphan a fleet (golden test below).

use sha2::{Digest as _, Sha256};

use crate::plan::GroupName;

/// The first `chars` hex digits of SHA-256 over the parts, separated so that ("a", "bc") and ("ab", "c") differ.
#[must_use]
pub fn hash(parts: &[&str], chars: usize) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part.as_bytes());
    }
    let digest = sha.finalize();
    digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .chars()
        .take(chars)
        .collect()
}

/// Name of a node group: `pn-<pool>-<type>-<shard>-<hash>`, at most 63 characters (EKS).
/// The hash is over cluster, pool uid, type, subnet, spec hash and shard.
#[must_use]
pub fn group_name(
    cluster: &str,
    pool: (&str, &str),
    offering: (&str, &str),
    spec_hash: &str,
    shard: u32,
) -> GroupName {
    let ((pool, uid), (instance_type, subnet)) = (pool, offering);
    let shard = shard.to_string();
    let digest = hash(&[cluster, uid, instance_type, subnet, spec_hash, &shard], 12);
    let pool = truncate(pool, 21);
    let type_ = instance_type.replace('.', "-");
    let type_ = truncate(&type_, 14);
    GroupName(format!("pn-{pool}-{type_}-{shard}-{digest}"))
}

/// Name of the launch template of all shards with one spec hash: `pinnace-<pool>-<hash>`.
#[must_use]
pub fn template_name(cluster: &str, pool: (&str, &str), spec_hash: &str) -> String {
    let (pool, uid) = pool;
    format!(
        "pinnace-{}-{}",
        truncate(pool, 40),
        hash(&[cluster, uid, spec_hash], 12)
    )
}

/// A name for a Kubernetes object from parts, at most `max` characters; what does not fit is replaced by a hash.
#[must_use]
pub fn object_name(parts: &[&str], max: usize) -> String {
    let whole = parts.join("-");
    if whole.len() <= max {
        return whole;
    }
    let digest = hash(parts, 8);
    format!("{}-{digest}", truncate(&whole, max - 9))
}

fn truncate(text: &str, max: usize) -> &str {
    text.get(..max.min(text.len()))
        .unwrap_or(text)
        .trim_end_matches(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_functions_are_frozen() {
        let pool = ("g5-on-demand", "8c0f3b1e-5d1c-4f6a-9a51-1d5d3c8a7b11");
        let group = group_name("prod", pool, ("g5.xlarge", "subnet-a"), "0123456789abcdef", 0);
        assert_eq!(group.0, "pn-g5-on-demand-g5-xlarge-0-9710ca206723");
        assert_eq!(
            template_name("prod", pool, "0123456789abcdef"),
            "pinnace-g5-on-demand-1453be61230e"
        );
        assert_eq!(object_name(&["ranker", "pool", "0"], 63), "ranker-pool-0");
    }

    #[test]
    fn names_fit_their_limits() {
        let long = "x".repeat(63);
        let group = group_name(
            "c",
            (&long, "u"),
            ("p4de.24xlarge-very-long", "subnet-a"),
            "h",
            4_294_967_295,
        );
        assert!(group.0.len() <= 63, "{}", group.0);
        assert!(object_name(&[&long, &long], 63).len() <= 63);
        assert_ne!(object_name(&[&long, "a"], 63), object_name(&[&long, "b"], 63));
    }
}
