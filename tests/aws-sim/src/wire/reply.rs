//! Answers on the wire: JSON or one of two XML shapes, in the envelope of the service.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::xml::Xml;
use super::{Payload, Service};
use crate::error::{ApiError, ApiResult};

pub(super) fn respond(
    service: Service,
    action: &str,
    outcome: ApiResult<Payload>,
    id: &str,
) -> Response<Body> {
    match outcome {
        Ok(Payload::Json(value)) => response(StatusCode::OK, "application/json", value.to_string(), id),
        Ok(Payload::Xml(inner)) => response(
            StatusCode::OK,
            "text/xml;charset=UTF-8",
            envelope(service, action, &inner, id),
            id,
        ),
        Err(error) => error_response(service, &error, id),
    }
}

fn envelope(service: Service, action: &str, inner: &str, id: &str) -> String {
    if service == Service::AutoScaling {
        return format!(
            "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><{action}Result>{inner}</{action}Result><ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
        );
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>{id}</requestId>{inner}</{action}Response>"
    )
}

pub fn error_response(service: Service, error: &ApiError, id: &str) -> Response<Body> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match service {
        Service::Eks => {
            let body = json!({ "__type": error.code, "message": error.message }).to_string();
            let mut answer = response(status, "application/json", body, id);
            answer
                .headers_mut()
                .insert("x-amzn-errortype", HeaderValue::from_static(error.code));
            answer
        }
        Service::Ec2 => {
            let mut xml = Xml::default();
            xml.element("Response", |x| {
                x.element("Errors", |x| {
                    x.element("Error", |x| {
                        x.text("Code", error.code).text("Message", &error.message);
                    });
                })
                .text("RequestID", id);
            });
            response(status, "text/xml;charset=UTF-8", xml.finish(), id)
        }
        Service::AutoScaling => {
            let mut xml = Xml::default();
            xml.element("ErrorResponse", |x| {
                x.element("Error", |x| {
                    x.text(
                        "Type",
                        if status.is_server_error() {
                            "Receiver"
                        } else {
                            "Sender"
                        },
                    )
                    .text("Code", error.code)
                    .text("Message", &error.message);
                })
                .text("RequestId", id);
            });
            response(status, "text/xml;charset=UTF-8", xml.finish(), id)
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String, id: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-amzn-requestid", id);
    }
    answer
}
