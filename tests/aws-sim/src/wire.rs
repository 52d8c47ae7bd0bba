//! The AWS side of the server: request in, one of three protocols, answer out.
//!
//! ```text
//! credential scope -> service, caller
//!   parse    path, query and body -> Call (action, parameters)
//!   hold     before
//!   locked   advance the account, authorize, run the verb, hand node effects on, write the journal
//!   hold     after
//!   answer   JSON or XML
//! ```

pub mod autoscaling;
pub mod ec2;
pub mod eks;
pub mod params;
pub mod sigv4;
pub mod xml;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::account::Account;
use crate::clock::{Clock, SimTime, iso8601};
use crate::error::{ApiError, ApiResult};
use crate::hold::Point;
use crate::iam::Context;
use crate::journal::Entry;
use crate::server::{Access, Sim};
use params::Params;
use xml::Xml;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Eks,
    Ec2,
    AutoScaling,
}

impl Service {
    pub fn from_scope(name: &str) -> Option<Self> {
        match name {
            "eks" => Some(Service::Eks),
            "ec2" => Some(Service::Ec2),
            "autoscaling" => Some(Service::AutoScaling),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Service::Eks => "eks",
            Service::Ec2 => "ec2",
            Service::AutoScaling => "autoscaling",
        }
    }

    fn denied_code(self) -> &'static str {
        match self {
            Service::Eks => "AccessDeniedException",
            Service::Ec2 => "UnauthorizedOperation",
            Service::AutoScaling => "AccessDenied",
        }
    }
}

/// A request whose action and parameters are known.
#[derive(Clone, Debug)]
pub enum Call {
    Eks(eks::Request),
    Query(Service, Params),
}

impl Call {
    fn parse(service: Service, parts: &Parts, body: &[u8]) -> ApiResult<Self> {
        if service == Service::Eks {
            return eks::Request::parse(&parts.method, &parts.uri, body).map(Call::Eks);
        }
        let params = if parts.method == axum::http::Method::POST {
            Params::parse(body)
        } else {
            Params::parse(parts.uri.query().unwrap_or_default().as_bytes())
        };
        Ok(Call::Query(service, params))
    }

    fn action(&self) -> &str {
        match self {
            Call::Eks(request) => request.action(),
            Call::Query(_, params) => params.action(),
        }
    }

    fn parameters(&self) -> Value {
        match self {
            Call::Eks(request) => request.parameters(),
            Call::Query(_, params) => params.to_json(),
        }
    }

    fn run(self, session: &mut Session<'_>) -> ApiResult<Payload> {
        match self {
            Call::Eks(request) => eks::run(session, request).map(Payload::Json),
            Call::Query(Service::AutoScaling, params) => {
                autoscaling::run(session, &params).map(|xml| Payload::Xml(xml.finish()))
            }
            Call::Query(_, params) => ec2::run(session, &params).map(|xml| Payload::Xml(xml.finish())),
        }
    }
}

/// Whether a call changes something, by its name.
pub fn is_mutation(action: &str) -> bool {
    !["Describe", "List", "Get", "Head"]
        .iter()
        .any(|read| action.starts_with(read))
}

/// The inside of an answer, before the envelope of the service.
#[derive(Debug)]
enum Payload {
    Json(Value),
    Xml(String),
}

/// One call on the locked account: what its verb may look at, and the check of its rights.
pub struct Session<'a> {
    pub account: &'a mut Account,
    pub clock: &'a Clock,
    service: Service,
    access: &'a Access,
    access_key: &'a str,
    /// First resource the call was checked on, for the journal.
    resource: Option<String>,
}

impl Session<'_> {
    /// Asks whether the caller may do `action` on `resource`.
    pub fn authorize(&mut self, action: &str, resource: &str, context: &Context) -> ApiResult<()> {
        self.resource.get_or_insert_with(|| resource.to_owned());
        let context = context
            .clone()
            .with("aws:RequestedRegion", &self.account.settings.region);
        if self.access.allows(self.access_key, action, resource, &context) {
            return Ok(());
        }
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {resource} because no identity-based policy allows the {action} action",
            self.caller_arn(),
        );
        Err(ApiError::new(403, self.service.denied_code(), message))
    }

    pub fn caller_arn(&self) -> String {
        let account = &self.account.settings.account_id;
        format!("arn:aws:iam::{account}:user/{}", self.access_key)
    }

    /// Wall clock in the XML services' format.
    pub fn time(&self, at: SimTime) -> String {
        iso8601(self.clock.wall(at))
    }
}

/// Answers a signed request to EKS, EC2 or Auto Scaling.
pub async fn answer(sim: &Sim, credential: sigv4::Credential, parts: Parts, body: Bytes) -> Response<Body> {
    let id = sim.next_request_id();
    let Some(service) = Service::from_scope(&credential.service) else {
        let error = ApiError::new(
            400,
            "UnknownService",
            format!("{} is not simulated", credential.service),
        );
        return error_response(Service::Ec2, &error, &id);
    };
    let call = match checked(sim, &credential, service, &parts, &body) {
        Ok(call) => call,
        Err(error) => {
            sim.record(refused(service, &parts, &credential, &error));
            return error_response(service, &error, &id);
        }
    };
    let action = call.action().to_owned();
    sim.holds
        .pass(&action, Point::Before, &credential.access_key)
        .await;
    let outcome = perform(sim, service, &credential.access_key, call);
    sim.holds
        .pass(&action, Point::After, &credential.access_key)
        .await;
    match outcome {
        Ok(Payload::Json(value)) => response(StatusCode::OK, "application/json", value.to_string(), &id),
        Ok(Payload::Xml(inner)) => response(
            StatusCode::OK,
            "text/xml;charset=UTF-8",
            envelope(service, &action, &inner, &id),
            &id,
        ),
        Err(error) => error_response(service, &error, &id),
    }
}

fn checked(
    sim: &Sim,
    credential: &sigv4::Credential,
    service: Service,
    parts: &Parts,
    body: &[u8],
) -> ApiResult<Call> {
    if !sim.access.knows(&credential.access_key) {
        let code = match service {
            Service::Eks => "UnrecognizedClientException",
            Service::Ec2 => "AuthFailure",
            Service::AutoScaling => "InvalidClientTokenId",
        };
        return Err(ApiError::new(
            403,
            code,
            "The security token included in the request is invalid.",
        ));
    }
    if credential.region != sim.region {
        let message = format!(
            "Credential should be scoped to a valid region, not '{}'.",
            credential.region
        );
        return Err(ApiError::new(403, "SignatureDoesNotMatch", message));
    }
    Call::parse(service, parts, body)
}

fn refused(service: Service, parts: &Parts, credential: &sigv4::Credential, error: &ApiError) -> Entry {
    Entry {
        service: service.name(),
        action: format!("{} {}", parts.method, parts.uri.path()),
        principal: credential.access_key.clone(),
        outcome: error.code.to_owned(),
        status: error.status,
        denied: error.status == 403,
        message: Some(error.message.clone()),
        ..Entry::default()
    }
}

/// Everything that happens at one moment: no other call sees half of it.
fn perform(sim: &Sim, service: Service, access_key: &str, call: Call) -> ApiResult<Payload> {
    let action = call.action().to_owned();
    let parameters = call.parameters();
    let (outcome, resource) = sim.with_account(|account, clock| {
        let mut session = Session {
            account,
            clock,
            service,
            access: &sim.access,
            access_key,
            resource: None,
        };
        let outcome = call.run(&mut session);
        (outcome, session.resource.unwrap_or_default())
    });
    let mut entry = Entry {
        service: service.name(),
        mutation: is_mutation(&action),
        action,
        principal: access_key.to_owned(),
        resource,
        parameters,
        outcome: "OK".to_owned(),
        status: 200,
        ..Entry::default()
    };
    if let Err(error) = &outcome {
        error.code.clone_into(&mut entry.outcome);
        entry.status = error.status;
        entry.denied = error.is_access_denied();
        entry.message = Some(error.message.clone());
    }
    sim.record(entry);
    outcome
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
                    x.text("Type", "Sender")
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
