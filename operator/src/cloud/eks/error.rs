//! Every error of the three SDKs becomes a [`CloudError`] here: operation, resource, AWS's words, and a class.

use std::error::Error;

use aws_sdk_eks::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use planner::observed::CloudErrorClass;

use super::fence::LeaseLost;
use crate::cloud::CloudError;

/// For `map_err` on a call of the SDK.
pub(super) fn failed<E>(operation: &'static str, resource: &str) -> impl FnOnce(SdkError<E>) -> CloudError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    move |error| CloudError {
        operation,
        resource: resource.to_owned(),
        class: class(&error),
        message: message(&error),
    }
}

/// The state of a resource does not allow the operation now, or the resource is somebody else's.
pub(super) fn conflict(operation: &'static str, resource: &str, message: impl Into<String>) -> CloudError {
    refused(CloudErrorClass::Conflict, operation, resource, message.into())
}

pub(super) fn not_found(operation: &'static str, resource: &str) -> CloudError {
    refused(
        CloudErrorClass::NotFound,
        operation,
        resource,
        "does not exist".to_owned(),
    )
}

/// AWS answered without a field that its API promises.
pub(super) fn incomplete(operation: &'static str, resource: &str, field: &str) -> CloudError {
    refused(
        CloudErrorClass::Unavailable,
        operation,
        resource,
        format!("the answer lacks {field}"),
    )
}

fn refused(class: CloudErrorClass, operation: &'static str, resource: &str, message: String) -> CloudError {
    CloudError {
        operation,
        resource: resource.to_owned(),
        class,
        message,
    }
}

pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

fn message<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if lease_lost(error) {
        return LeaseLost.to_string();
    }
    match error.as_service_error() {
        Some(service) => match (service.code(), service.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            (None, _) => DisplayErrorContext(error).to_string(),
        },
        None => match error {
            SdkError::TimeoutError(_) => "no answer in time".to_owned(),
            _ => causes(error),
        },
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| (*cause).source())
}

/// The causes, without the SDK's debug output.
fn causes(error: &(dyn Error + 'static)) -> String {
    chain(error)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn lease_lost(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|cause| cause.is::<LeaseLost>())
}

fn class<E>(error: &SdkError<E>) -> CloudErrorClass
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if lease_lost(error) {
        return CloudErrorClass::Conflict;
    }
    match error {
        SdkError::TimeoutError(_) => CloudErrorClass::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => CloudErrorClass::Timeout,
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) if no_credentials(error) => {
            CloudErrorClass::Denied
        }
        SdkError::ConstructionFailure(_) => CloudErrorClass::Invalid,
        SdkError::ServiceError(answer) => of_answer(
            answer.err().code().unwrap_or_default(),
            answer.err().message().unwrap_or_default(),
            answer.raw().status().as_u16(),
        ),
        _ => CloudErrorClass::Unavailable,
    }
}

/// The SDK has no type for this at the call: the provider's error is boxed somewhere in the chain.
fn no_credentials(error: &(dyn Error + 'static)) -> bool {
    causes(error).contains("credential")
}

/// Codes that say nothing by their form.
const BY_CODE: &[(&str, CloudErrorClass)] = &[
    ("Throttling", CloudErrorClass::Throttled),
    ("ThrottlingException", CloudErrorClass::Throttled),
    ("ThrottledException", CloudErrorClass::Throttled),
    ("RequestThrottled", CloudErrorClass::Throttled),
    ("RequestThrottledException", CloudErrorClass::Throttled),
    ("RequestLimitExceeded", CloudErrorClass::Throttled),
    ("TooManyRequestsException", CloudErrorClass::Throttled),
    ("SlowDown", CloudErrorClass::Throttled),
    ("RequestTimeout", CloudErrorClass::Timeout),
    ("RequestTimeoutException", CloudErrorClass::Timeout),
    ("AccessDenied", CloudErrorClass::Denied),
    ("AccessDeniedException", CloudErrorClass::Denied),
    ("AuthFailure", CloudErrorClass::Denied),
    ("ExpiredToken", CloudErrorClass::Denied),
    ("ExpiredTokenException", CloudErrorClass::Denied),
    ("IncompleteSignature", CloudErrorClass::Denied),
    ("InvalidClientTokenId", CloudErrorClass::Denied),
    ("InvalidSignatureException", CloudErrorClass::Denied),
    ("MissingAuthenticationToken", CloudErrorClass::Denied),
    ("MissingAuthenticationTokenException", CloudErrorClass::Denied),
    ("OptInRequired", CloudErrorClass::Denied),
    ("RequestExpired", CloudErrorClass::Denied),
    ("SignatureDoesNotMatch", CloudErrorClass::Denied),
    ("UnauthorizedOperation", CloudErrorClass::Denied),
    ("UnrecognizedClientException", CloudErrorClass::Denied),
    ("ConflictException", CloudErrorClass::Conflict),
    ("IdempotentParameterMismatch", CloudErrorClass::Conflict),
    ("ResourceContention", CloudErrorClass::Conflict),
    ("ResourceInUse", CloudErrorClass::Conflict),
    ("ResourceInUseException", CloudErrorClass::Conflict),
    ("ScalingActivityInProgress", CloudErrorClass::Conflict),
];

/// Class of an answer by its code, then by the wording where AWS gives one code to many things, then by its status.
fn of_answer(code: &str, message: &str, status: u16) -> CloudErrorClass {
    let code = code.rsplit('#').next().unwrap_or(code);
    if let Some((_, class)) = BY_CODE.iter().find(|(known, _)| *known == code) {
        return *class;
    }
    if code.contains("AlreadyExists") {
        return CloudErrorClass::Conflict;
    }
    if code.contains("NotFound") {
        return CloudErrorClass::NotFound;
    }
    if code.contains("LimitExceeded") {
        return CloudErrorClass::Quota;
    }
    match (code, message) {
        // Auto Scaling: one code for everything.
        ("ValidationError", m) if m.contains("name not found") => CloudErrorClass::NotFound,
        ("ValidationError", m)
            if m.contains("is not in InService")
                || m.contains("is not part of Auto Scaling group")
                || m.contains("pending delete") =>
        {
            CloudErrorClass::Conflict
        }
        // EKS passes on what EC2 refuses it in the caller's name.
        ("InvalidRequestException" | "InvalidParameterException", m) if m.contains("not authorized") => {
            CloudErrorClass::Denied
        }
        // The template was made a moment ago, and EKS does not see it yet.
        ("InvalidRequestException" | "InvalidParameterException", m)
            if m.contains("LaunchTemplate") && m.contains("NotFound") =>
        {
            CloudErrorClass::Conflict
        }
        _ if status == 429 => CloudErrorClass::Throttled,
        _ if status == 401 || status == 403 => CloudErrorClass::Denied,
        _ if status >= 500 => CloudErrorClass::Unavailable,
        _ => CloudErrorClass::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CloudErrorClass as Class;

    #[rustfmt::skip]
    const ANSWERS: &[(&str, &str, u16, Class)] = &[
        ("ThrottlingException", "Rate exceeded", 400, Class::Throttled),
        ("RequestLimitExceeded", "Request limit exceeded.", 503, Class::Throttled),
        ("", "", 429, Class::Throttled),
        ("ServerException", "Internal server error", 500, Class::Unavailable),
        ("ServiceUnavailable", "The service is unavailable", 503, Class::Unavailable),
        ("UnauthorizedOperation", "You are not authorized to perform this operation.", 403, Class::Denied),
        ("AccessDenied", "User is not authorized to perform: autoscaling:SetDesiredCapacity", 403, Class::Denied),
        ("InvalidRequestException", "You are not authorized to launch instances with this launch template.", 400, Class::Denied),
        ("ResourceLimitExceededException", "Node group limit of 30 exceeded", 400, Class::Quota),
        ("VcpuLimitExceeded", "You have requested more vCPU capacity", 400, Class::Quota),
        ("ResourceInUseException", "NodeGroup already exists with name g", 409, Class::Conflict),
        ("InvalidLaunchTemplateName.AlreadyExistsException", "already in use", 400, Class::Conflict),
        ("ValidationError", "The instance i-1 is not in InService or EnteringStandby or Standby.", 400, Class::Conflict),
        ("ValidationError", "AutoScalingGroup name not found - g not found", 400, Class::NotFound),
        ("ValidationError", "New SetDesiredCapacity value 9 is above max value 5", 400, Class::Invalid),
        ("ResourceNotFoundException", "No node group found for name: g.", 404, Class::NotFound),
        ("InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist", 400, Class::NotFound),
        ("InvalidParameterException", "Requested release version is not valid", 400, Class::Invalid),
    ];

    #[test]
    fn answers_have_a_class() {
        for (code, message, status, expected) in ANSWERS {
            assert_eq!(of_answer(code, message, *status), *expected, "{code}: {message}");
        }
    }
}
