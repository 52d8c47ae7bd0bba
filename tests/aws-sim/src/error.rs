//! An error as an AWS API answers it: code, HTTP status and message. How it is written (JSON or one of
//! two XML shapes) is the wire's business.

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub code: &'static str,
    pub status: u16,
    pub message: String,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            status,
            message: message.into(),
        }
    }

    pub fn is_access_denied(&self) -> bool {
        matches!(
            self.code,
            "AccessDeniedException" | "UnauthorizedOperation" | "AccessDenied"
        )
    }
}

/// Errors of EKS.
pub mod eks {
    use super::ApiError;

    pub fn in_use(message: impl Into<String>) -> ApiError {
        ApiError::new(409, "ResourceInUseException", message)
    }

    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(404, "ResourceNotFoundException", message)
    }

    pub fn limit(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "ResourceLimitExceededException", message)
    }

    pub fn parameter(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "InvalidParameterException", message)
    }

    pub fn request(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "InvalidRequestException", message)
    }
}

/// Errors of EC2.
pub mod ec2 {
    use super::ApiError;

    pub fn client(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::new(400, code, message)
    }

    pub fn missing(parameter: &str) -> ApiError {
        client(
            "MissingParameter",
            format!("The request must contain the parameter {parameter}"),
        )
    }

    pub fn value(message: impl Into<String>) -> ApiError {
        client("InvalidParameterValue", message)
    }
}

/// Errors of Auto Scaling.
pub mod autoscaling {
    use super::ApiError;

    pub fn validation(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "ValidationError", message)
    }
}
