//! Labels and taints, which follow Kubernetes' rules and EKS's own.

use std::collections::BTreeMap;

use super::super::request::Taint;
use crate::assumptions as aws;
use crate::error::{ApiError, ApiResult, eks};

/// Labels follow Kubernetes' rules; reserved prefixes are refused.
pub fn check_labels(labels: &BTreeMap<String, String>) -> ApiResult<()> {
    for (key, value) in labels {
        check_label_key(key)?;
        if !value.is_empty() && !is_label_name(value) {
            return Err(label_error(value));
        }
        let reserved = ["kubernetes.io", "k8s.io", "eks.amazonaws.com"];
        let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
        if reserved
            .iter()
            .any(|r| prefix == *r || prefix.ends_with(&format!(".{r}")))
        {
            return Err(eks::parameter(format!(
                "Label cannot contain reserved prefixes [kubernetes.io/, k8s.io/, eks.amazonaws.com/]: {key}"
            )));
        }
    }
    Ok(())
}

fn check_label_key(key: &str) -> ApiResult<()> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    let prefix_ok = prefix.is_none_or(|p| {
        !p.is_empty()
            && p.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
    });
    if key.len() <= 253 && prefix_ok && is_label_name(name) {
        Ok(())
    } else {
        Err(label_error(key))
    }
}

fn is_label_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inner)
}

fn label_error(value: &str) -> ApiError {
    eks::parameter(format!(
        "Invalid value: {value} : field must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    ))
}

pub fn check_taints(taints: &[Taint]) -> ApiResult<()> {
    if taints.len() > aws::MAX_TAINTS {
        return Err(eks::parameter(format!(
            "{} taints are more than {}",
            taints.len(),
            aws::MAX_TAINTS
        )));
    }
    for taint in taints {
        check_label_key(&taint.key)?;
        if let Some(value) = taint
            .value
            .as_deref()
            .filter(|v| !v.is_empty() && !is_label_name(v))
        {
            return Err(label_error(value));
        }
    }
    Ok(())
}
