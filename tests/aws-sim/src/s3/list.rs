//! ListObjectsV2 over a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{etag, modified};
use crate::clock::iso8601;
use crate::error::{ApiError, ApiResult};
use crate::wire::xml::Xml;

const MAX_KEYS: usize = 1000;
const URL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

#[derive(Debug, Default)]
struct Wanted {
    prefix: String,
    delimiter: String,
    after: String,
    max_keys: usize,
    url_encoded: bool,
}

fn wanted(query: &str) -> ApiResult<Wanted> {
    let mut wanted = Wanted {
        max_keys: MAX_KEYS,
        ..Wanted::default()
    };
    let invalid = |m: String| ApiError::new(400, "InvalidArgument", m);
    let mut token = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "prefix" => wanted.prefix = value.into_owned(),
            "delimiter" => wanted.delimiter = value.into_owned(),
            "start-after" => wanted.after = value.into_owned(),
            "encoding-type" => wanted.url_encoded = value == "url",
            "continuation-token" => {
                let after = value.strip_prefix("after:").map(str::to_owned);
                token = Some(
                    after
                        .ok_or_else(|| invalid("The continuation token provided is incorrect".to_owned()))?,
                );
            }
            "max-keys" => {
                let n: usize = value
                    .parse()
                    .map_err(|_| invalid(format!("max-keys {value} is not a number")))?;
                wanted.max_keys = n.min(MAX_KEYS);
            }
            _ => {}
        }
    }
    if let Some(token) = token {
        wanted.after = token;
    }
    Ok(wanted)
}

pub fn objects(folder: &Path, bucket: &str, query: &str) -> ApiResult<String> {
    let wanted = wanted(query)?;
    let mut all = BTreeMap::new();
    collect(folder, "", &mut all).map_err(|e| ApiError::new(500, "InternalError", e.to_string()))?;
    let (keys, prefixes, next) = select(&wanted, &all);
    let show = |key: &str| {
        if wanted.url_encoded {
            utf8_percent_encode(key, URL).to_string()
        } else {
            key.to_owned()
        }
    };
    let mut xml = Xml::default();
    xml.element("ListBucketResult", |x| {
        x.text("Name", bucket)
            .text("Prefix", show(&wanted.prefix))
            .text("MaxKeys", wanted.max_keys)
            .text("KeyCount", keys.len() + prefixes.len())
            .text("IsTruncated", next.is_some())
            .optional(
                "Delimiter",
                (!wanted.delimiter.is_empty()).then(|| show(&wanted.delimiter)),
            )
            .optional("EncodingType", wanted.url_encoded.then_some("url"))
            .optional("NextContinuationToken", next.map(|n| format!("after:{n}")));
        for (key, about) in keys {
            x.element("Contents", |x| {
                x.text("Key", show(key))
                    .text("LastModified", iso8601(modified(about)))
                    .text("ETag", etag(key, about))
                    .text("Size", about.len())
                    .text("StorageClass", "STANDARD");
            });
        }
        for prefix in prefixes {
            x.element("CommonPrefixes", |x| {
                x.text("Prefix", show(&prefix));
            });
        }
    });
    Ok(xml.finish())
}

type Selected<'a> = (Vec<(&'a str, &'a Metadata)>, BTreeSet<String>, Option<String>);

/// Keys and common prefixes of one page, and where the next page starts.
fn select<'a>(wanted: &Wanted, all: &'a BTreeMap<String, Metadata>) -> Selected<'a> {
    let (mut keys, mut prefixes, mut last) = (Vec::new(), BTreeSet::new(), None);
    for (key, about) in all.range(wanted.prefix.clone()..) {
        let Some(rest) = key.strip_prefix(&wanted.prefix) else {
            break;
        };
        let folded = (!wanted.delimiter.is_empty())
            .then(|| rest.find(&wanted.delimiter))
            .flatten()
            .map(|at| format!("{}{}", wanted.prefix, &rest[..at + wanted.delimiter.len()]));
        let name = folded.clone().unwrap_or_else(|| key.clone());
        if name <= wanted.after || prefixes.contains(&name) {
            continue;
        }
        if keys.len() + prefixes.len() >= wanted.max_keys {
            return (keys, prefixes, last);
        }
        last = Some(name);
        match folded {
            Some(prefix) => {
                prefixes.insert(prefix);
            }
            None => keys.push((key.as_str(), about)),
        }
    }
    (keys, prefixes, None)
}

fn collect(folder: &Path, prefix: &str, into: &mut BTreeMap<String, Metadata>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let about = fs::metadata(entry.path())?;
        if about.is_dir() {
            collect(&entry.path(), &format!("{key}/"), into)?;
        } else {
            into.insert(key, about);
        }
    }
    Ok(())
}
