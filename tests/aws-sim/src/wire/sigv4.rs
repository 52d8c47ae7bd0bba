//! Who calls, and which service: read from the credential scope of a Signature Version 4. The signature
//! itself is not verified; there is no secret to verify it with.

use axum::http::HeaderMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub access_key: String,
    pub region: String,
    pub service: String,
}

/// The credential of `Authorization: AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, ...`;
/// None when the request is not signed, an error when it cannot be read.
pub fn credential(headers: &HeaderMap) -> Result<Option<Credential>, String> {
    let Some(header) = headers.get("authorization") else {
        return Ok(None);
    };
    let text = header
        .to_str()
        .map_err(|_| "Authorization is not ASCII".to_owned())?;
    let fields = text
        .strip_prefix("AWS4-HMAC-SHA256")
        .ok_or_else(|| "Authorization is not an AWS4-HMAC-SHA256 signature".to_owned())?;
    let scope = fields
        .split(',')
        .find_map(|f| f.trim().strip_prefix("Credential="))
        .ok_or_else(|| "Authorization has no Credential".to_owned())?;
    let parts: Vec<&str> = scope.split('/').collect();
    match parts[..] {
        [access_key, _date, region, service, "aws4_request"] => Ok(Some(Credential {
            access_key: access_key.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
        })),
        _ => Err(format!("{scope:?} is not a credential scope")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Option<Credential>, String> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value.parse().expect("a header value"));
        credential(&headers)
    }

    #[test]
    fn the_scope_names_caller_region_and_service() {
        let signed = "AWS4-HMAC-SHA256 Credential=AKIA/20261124/us-east-1/eks/aws4_request, SignedHeaders=host, Signature=0";
        let found = parse(signed).expect("readable").expect("signed");
        assert_eq!(
            (&*found.access_key, &*found.region, &*found.service),
            ("AKIA", "us-east-1", "eks")
        );
        assert_eq!(credential(&HeaderMap::new()), Ok(None));
        assert!(parse("Bearer x").is_err());
        assert!(parse("AWS4-HMAC-SHA256 Credential=AKIA/eks").is_err());
    }
}
