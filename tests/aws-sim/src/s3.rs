//! S3, read only: buckets are the directories of a root, keys the files below. Path style only; anybody may read.

mod list;
mod range;

use std::fs::Metadata;
use std::io::SeekFrom;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::error::{ApiError, ApiResult};
use crate::journal::Entry;
use crate::server::Sim;
use crate::wire::xml::Xml;

pub async fn answer(sim: &Sim, principal: &str, parts: &Parts) -> Response<Body> {
    let path = percent_decode_str(parts.uri.path().trim_start_matches('/'))
        .decode_utf8_lossy()
        .into_owned();
    let (bucket, key) = path.split_once('/').map_or((path.as_str(), ""), |(b, k)| (b, k));
    let action = action(&parts.method, key, parts.uri.query().unwrap_or_default());
    let id = sim.next_request_id();
    let outcome = perform(sim, action, bucket, key, parts).await;
    let mut entry = Entry {
        service: "s3",
        action: action.to_owned(),
        mutation: crate::wire::is_mutation(action),
        principal: principal.to_owned(),
        resource: format!("arn:aws:s3:::{path}"),
        parameters: json!({
            "Bucket": bucket,
            "Key": key,
            "Range": parts.headers.get("range").and_then(|r| r.to_str().ok()),
        }),
        outcome: "OK".to_owned(),
        ..Entry::default()
    };
    let response = outcome.unwrap_or_else(|error| {
        error.code.clone_into(&mut entry.outcome);
        entry.denied = error.is_access_denied();
        entry.message = Some(error.message.clone());
        error_response(&parts.method, &error, &path, &id)
    });
    entry.status = response.status().as_u16();
    sim.record(entry);
    response
}

fn action(method: &Method, key: &str, query: &str) -> &'static str {
    let list = form_urlencoded::parse(query.as_bytes()).any(|(k, v)| k == "list-type" && v == "2");
    match (method, key) {
        (&Method::HEAD, "") => "HeadBucket",
        (&Method::HEAD, _) => "HeadObject",
        (&Method::GET, "") if list => "ListObjectsV2",
        (&Method::GET, "") => "ListObjects",
        (&Method::GET, _) => "GetObject",
        _ => "PutObject",
    }
}

async fn perform(
    sim: &Sim,
    action: &str,
    bucket: &str,
    key: &str,
    parts: &Parts,
) -> ApiResult<Response<Body>> {
    let root = sim.s3_root.as_deref().ok_or_else(|| no_bucket(bucket))?;
    let folder = below(root, bucket)
        .filter(|f| f.is_dir())
        .ok_or_else(|| no_bucket(bucket))?;
    match action {
        "HeadBucket" => Ok(Response::new(Body::empty())),
        "ListObjectsV2" => {
            let query = parts.uri.query().unwrap_or_default().to_owned();
            let bucket = bucket.to_owned();
            let xml = tokio::task::spawn_blocking(move || list::objects(&folder, &bucket, &query))
                .await
                .map_err(|e| ApiError::new(500, "InternalError", e.to_string()))??;
            let mut response = Response::new(Body::from(xml));
            response
                .headers_mut()
                .insert("content-type", HeaderValue::from_static("application/xml"));
            Ok(response)
        }
        "GetObject" | "HeadObject" => object(&folder, key, parts).await,
        _ => Err(ApiError::new(403, "AccessDenied", "This bucket can only be read")),
    }
}

/// A path below `root` that the name cannot lead out of.
fn below(root: &Path, name: &str) -> Option<PathBuf> {
    let relative = Path::new(name);
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_)));
    (plain && !name.is_empty()).then(|| root.join(relative))
}

async fn object(folder: &Path, key: &str, parts: &Parts) -> ApiResult<Response<Body>> {
    let missing = || ApiError::new(404, "NoSuchKey", "The specified key does not exist.");
    let path = below(folder, key).ok_or_else(missing)?;
    let mut file = File::open(&path).await.map_err(|_| missing())?;
    let about = file.metadata().await.map_err(|_| missing())?;
    if !about.is_file() {
        return Err(missing());
    }
    let tag = etag(key, &about);
    if let Some(response) = precondition(&parts.headers, &tag)? {
        return Ok(response);
    }
    let size = about.len();
    let wanted = parts.headers.get("range").and_then(|r| r.to_str().ok());
    let range = range::parse(wanted, size)
        .map_err(|()| ApiError::new(416, "InvalidRange", "The requested range is not satisfiable"))?;
    let (start, length) = range.unwrap_or((0, size));
    let body = if parts.method == Method::HEAD {
        Body::empty()
    } else {
        let failed = |e: std::io::Error| ApiError::new(500, "InternalError", e.to_string());
        file.seek(SeekFrom::Start(start)).await.map_err(failed)?;
        Body::from_stream(ReaderStream::new(file.take(length)))
    };
    let mut response = Response::new(body);
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let headers = response.headers_mut();
    set(headers, "etag", &tag);
    set(headers, "accept-ranges", "bytes");
    set(headers, "content-type", "binary/octet-stream");
    set(headers, "content-length", &length.to_string());
    set(
        headers,
        "last-modified",
        &modified(&about).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
    );
    if range.is_some() {
        set(
            headers,
            "content-range",
            &format!("bytes {start}-{}/{size}", start + length - 1),
        );
    }
    Ok(response)
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// `If-Match` and `If-None-Match`: an error, an answer without a body, or nothing to object.
fn precondition(headers: &HeaderMap, tag: &str) -> ApiResult<Option<Response<Body>>> {
    let lists = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(|v| v.split(',').any(|one| one.trim() == tag || one.trim() == "*"))
    };
    if lists("if-match") == Some(false) {
        let message = "At least one of the pre-conditions you specified did not hold";
        return Err(ApiError::new(412, "PreconditionFailed", message));
    }
    if lists("if-none-match") == Some(true) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        set(response.headers_mut(), "etag", tag);
        return Ok(Some(response));
    }
    Ok(None)
}

fn modified(about: &Metadata) -> Timestamp {
    let since = about
        .modified()
        .ok()
        .and_then(|m| m.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    Timestamp::from_second(i64::try_from(since.as_secs()).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn etag(key: &str, about: &Metadata) -> String {
    let modified = about
        .modified()
        .ok()
        .and_then(|m| m.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    let digest = Sha256::digest(format!("{key}\n{}\n{}", about.len(), modified.as_nanos()));
    let hex: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("\"{hex}\"")
}

fn no_bucket(bucket: &str) -> ApiError {
    ApiError::new(
        404,
        "NoSuchBucket",
        format!("The specified bucket does not exist: {bucket}"),
    )
}

fn error_response(method: &Method, error: &ApiError, resource: &str, id: &str) -> Response<Body> {
    let mut xml = Xml::default();
    xml.element("Error", |x| {
        x.text("Code", error.code)
            .text("Message", &error.message)
            .text("Resource", format!("/{resource}"))
            .text("RequestId", id);
    });
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(xml.finish())
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(response.headers_mut(), "content-type", "application/xml");
    set(response.headers_mut(), "x-amz-request-id", id);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_out_of_the_root() {
        let root = Path::new("/data");
        assert_eq!(below(root, "a/b"), Some(PathBuf::from("/data/a/b")));
        for name in ["", "..", "../x", "a/../../x", "/etc/passwd"] {
            assert_eq!(below(root, name), None, "{name}");
        }
    }
}
