//! The AWS side of the server: request in, one of three protocols, answer out.
//!
//! ```text
//! credential scope -> service, caller
//!   parse    path, query and body -> Call (action, parameters)
//!   hold     before
//!   locked   advance the account, meet a fault, authorize, run the verb, hand node effects on, write the
//!            journal
//!   hold     after
//!   reply    JSON or XML, or nothing
//! ```

pub mod autoscaling;
pub mod ec2;
pub mod eks;
mod faulty;
pub mod params;
mod reply;
pub mod sigv4;
pub mod xml;

use axum::body::{Body, Bytes};
use axum::http::Response;
use axum::http::request::Parts;
use serde_json::Value;

use crate::account::Account;
use crate::clock::{Clock, SimTime, iso8601};
use crate::error::{ApiError, ApiResult};
use crate::fault::kind::Connection;
use crate::hold::Point;
use crate::iam::Context;
use crate::journal::Entry;
use crate::server::{Access, Sim};
use faulty::{Caller, Done};
use params::{Page, Params};
pub use reply::error_response;
use reply::respond;
use xml::Xml;

/// The caller gets no answer: its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is cut")]
pub struct Cut;

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

    pub fn denied_code(self) -> &'static str {
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

    /// Names of resources that the call speaks of.
    fn names(&self) -> Vec<String> {
        match self {
            Call::Eks(request) => request.names(),
            Call::Query(_, params) => params.names(),
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
    /// Size of pages, whatever the caller asks for.
    page_size: Option<usize>,
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

    /// The items of a page, and the token of the next one.
    pub fn cut<T>(&self, page: Page, items: Vec<T>) -> (Vec<T>, Option<String>) {
        page.at_most(self.page_size).cut(items)
    }

    /// Wall clock in the XML services' format.
    pub fn time(&self, at: SimTime) -> String {
        iso8601(self.clock.wall(at))
    }
}

/// Answers a signed request to EKS, EC2 or Auto Scaling.
pub async fn answer(
    sim: &Sim,
    credential: sigv4::Credential,
    parts: Parts,
    body: Bytes,
) -> Result<Response<Body>, Cut> {
    let id = sim.next_request_id();
    let Some(service) = Service::from_scope(&credential.service) else {
        let error = ApiError::new(
            400,
            "UnknownService",
            format!("{} is not simulated", credential.service),
        );
        return Ok(error_response(Service::Ec2, &error, &id));
    };
    let call = match checked(sim, &credential, service, &parts, &body) {
        Ok(call) => call,
        Err(error) => {
            sim.record(refused(service, &parts, &credential, &error));
            return Ok(error_response(service, &error, &id));
        }
    };
    let action = call.action().to_owned();
    sim.holds
        .pass(&action, Point::Before, &credential.access_key)
        .await;
    let done = perform(sim, service, &credential.access_key, call);
    sim.holds
        .pass(&action, Point::After, &credential.access_key)
        .await;
    if let Some((fault, connection)) = done.silence() {
        if connection == Connection::Held {
            sim.until_removed(fault).await;
        }
        return Err(Cut);
    }
    // Only a call without an answer can have none.
    done.outcome
        .map(|outcome| respond(service, &action, outcome, &id))
        .ok_or(Cut)
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
fn perform(sim: &Sim, service: Service, access_key: &str, call: Call) -> Done {
    let mut entry = Entry {
        service: service.name(),
        mutation: is_mutation(call.action()),
        action: call.action().to_owned(),
        principal: access_key.to_owned(),
        parameters: call.parameters(),
        outcome: "OK".to_owned(),
        status: 200,
        ..Entry::default()
    };
    let done = sim.with_account(|account, clock| {
        let caller = Caller {
            clock,
            service,
            access: &sim.access,
            access_key,
        };
        faulty::run(account, &caller, call)
    });
    entry.resource.clone_from(&done.resource);
    if let Some(hit) = &done.hit {
        entry.fault = Some(hit.mark());
        entry.committed = Some(done.committed);
    }
    match &done.outcome {
        None => {
            "NotPerformed".clone_into(&mut entry.outcome);
            entry.status = 0;
        }
        Some(Err(error)) => {
            error.code.clone_into(&mut entry.outcome);
            entry.status = error.status;
            entry.denied = error.is_access_denied();
            entry.message = Some(error.message.clone());
        }
        Some(Ok(_)) => {}
    }
    sim.record(entry);
    done
}
