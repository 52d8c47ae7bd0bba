//! What each service itself answers when a call goes wrong. Sources: [`crate::assumptions`].

use super::kind::Kind;
use crate::error::ApiError;
use crate::wire::Service;

/// The error that a fault stands for; None: the fault is no refusal.
pub fn refusal(kind: &Kind, service: Service, action: &str) -> Option<ApiError> {
    match kind {
        Kind::Throttled => Some(throttled(service)),
        Kind::InternalError => Some(internal(service)),
        Kind::Unavailable => Some(unavailable(service)),
        Kind::AccessDenied => Some(denied(service, action)),
        Kind::ExpiredToken => Some(expired(service)),
        Kind::Conflict => conflict(service, action),
        _ => None,
    }
}

fn throttled(service: Service) -> ApiError {
    match service {
        Service::Eks => ApiError::new(429, "ThrottlingException", "Rate exceeded"),
        Service::Ec2 => ApiError::new(503, "RequestLimitExceeded", "Request limit exceeded."),
        Service::AutoScaling => ApiError::new(400, "Throttling", "Rate exceeded"),
    }
}

fn internal(service: Service) -> ApiError {
    match service {
        Service::Eks => ApiError::new(500, "ServerException", "Internal server error"),
        Service::Ec2 => ApiError::new(500, "InternalError", "An internal error has occurred"),
        Service::AutoScaling => ApiError::new(
            500,
            "InternalFailure",
            "The request processing has failed because of an unknown error, exception or failure.",
        ),
    }
}

fn unavailable(service: Service) -> ApiError {
    match service {
        Service::Eks => ApiError::new(503, "ServiceUnavailableException", "Service is unavailable"),
        Service::Ec2 => ApiError::new(
            503,
            "Unavailable",
            "The server is overloaded and can't handle the request.",
        ),
        Service::AutoScaling => ApiError::new(
            503,
            "ServiceUnavailable",
            "The request has failed due to a temporary failure of the server.",
        ),
    }
}

fn denied(service: Service, action: &str) -> ApiError {
    let action = format!("{}:{action}", service.name());
    let message = match service {
        Service::Ec2 => format!(
            "You are not authorized to perform this operation. User is not authorized to perform: {action} with an explicit deny in a service control policy"
        ),
        _ => format!(
            "User is not authorized to perform: {action} with an explicit deny in a service control policy"
        ),
    };
    ApiError::new(403, service.denied_code(), message)
}

fn expired(service: Service) -> ApiError {
    match service {
        Service::Eks => ApiError::new(
            403,
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ),
        Service::Ec2 => ApiError::new(400, "RequestExpired", "Request has expired."),
        Service::AutoScaling => ApiError::new(
            403,
            "ExpiredToken",
            "The security token included in the request is expired",
        ),
    }
}

/// Somebody else is at the resource. None: the service has no such answer to this action.
pub fn conflict(service: Service, action: &str) -> Option<ApiError> {
    let (status, code, message) = match (service, action) {
        (Service::Eks, "CreateNodegroup" | "DeleteNodegroup") => {
            (409, "ResourceInUseException", "The specified resource is in use.")
        }
        (Service::Ec2, "CreateLaunchTemplate") => (
            400,
            "InvalidLaunchTemplateName.AlreadyExistsException",
            "Launch template name already in use.",
        ),
        (Service::Ec2, "CreateTags" | "DeleteTags") => (
            400,
            "ConcurrentTagAccess",
            "You can't run simultaneous commands to modify a tag for a specific resource.",
        ),
        (Service::Ec2, "TerminateInstances") => (
            400,
            "IncorrectInstanceState",
            "The instance is in an incorrect state for the requested action.",
        ),
        (Service::AutoScaling, "SetDesiredCapacity" | "TerminateInstanceInAutoScalingGroup") => (
            400,
            "ScalingActivityInProgress",
            "The operation can't be performed because there are scaling activities in progress.",
        ),
        (Service::AutoScaling, _) => (
            500,
            "ResourceContention",
            "You already have a pending update to an Amazon EC2 Auto Scaling resource (for example, an Auto Scaling group, instance, or load balancer).",
        ),
        _ => return None,
    };
    Some(ApiError::new(status, code, message))
}
