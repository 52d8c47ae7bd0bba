//! The gRPC port: the same requests, through the same admission and queue as over HTTP.
//!
//! `door` admits an infer request by its head, before its message is read; then the generated service decodes the
//! message and calls in here.

pub mod door;

use std::sync::Arc;

use http::StatusCode;
use tonic::{Code, Request, Response, Status};

use super::score::{self, Counts};
use super::state::Serving;
use crate::cascade::Stages;
use crate::protocol::pb::grpc_inference_service_server::GrpcInferenceService;
use crate::protocol::{ApiError, grpc, metadata, pb};
use crate::ready::Ready;
use door::Ticket;

/// An error in gRPC's terms.
pub fn status(error: &ApiError) -> Status {
    let code = match error.status {
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    };
    let mut status = Status::new(code, &error.message);
    if let Some(seconds) = error.retry_after {
        let milliseconds = (seconds * 1000).into();
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", milliseconds);
    }
    status
}

#[derive(Clone)]
pub struct Inference {
    serving: Arc<Serving>,
}

impl Inference {
    pub fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }

    /// The version that the client means; an empty one means the newest.
    fn model(&self, name: &str, version: &str) -> Result<Arc<Ready>, ApiError> {
        let version = Some(version).filter(|version| !version.is_empty());
        self.serving.catalog.find(name, version)
    }

    async fn infer(
        &self,
        ticket: &Ticket,
        request: pb::ModelInferRequest,
        counts: &mut Counts,
    ) -> Result<pb::ModelInferResponse, ApiError> {
        ticket.permit.arrived();
        let ready = self.model(&request.model_name, &request.model_version)?;
        counts.ready = Some(Arc::clone(&ready));
        let stages = Stages::of(&self.serving.catalog, ready)?;
        let mut parsed = grpc::parse(request, stages.models())?;
        let (id, wanted) = (parsed.id.take(), std::mem::take(&mut parsed.outputs));
        let timeout = parsed.terms.timeout;
        parsed.terms.timeout = Some(timeout.map_or(ticket.timeout, |own| own.min(ticket.timeout)));
        let admitted = (Arc::clone(&ticket.permit), ticket.started);
        let answered = score::answer(&self.serving, &stages, parsed, admitted, counts).await?;
        let answer = grpc::encode(&stages.ready.model, id, &wanted, &answered.outputs)?;
        counts.items = answered.items;
        Ok(answer)
    }
}

/// Of a model, or of one of its versions; no name means all models.
pub fn statistics(
    serving: &Serving,
    model: &str,
    version: &str,
) -> Result<pb::ModelStatisticsResponse, ApiError> {
    let wanted = match (model, version) {
        ("", _) => serving.catalog.ready(None),
        (model, "") => {
            serving.catalog.find(model, None)?;
            serving.catalog.ready(Some(model))
        }
        (model, version) => vec![serving.catalog.find(model, Some(version))?],
    };
    Ok(metadata::statistics(&wanted))
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<pb::ServerLiveRequest>) -> Answer<pb::ServerLiveResponse> {
        answer(pb::ServerLiveResponse { live: true })
    }

    async fn server_ready(&self, _: Request<pb::ServerReadyRequest>) -> Answer<pb::ServerReadyResponse> {
        let ready = self.serving.is_ready();
        answer(pb::ServerReadyResponse { ready })
    }

    async fn model_ready(&self, request: Request<pb::ModelReadyRequest>) -> Answer<pb::ModelReadyResponse> {
        let model = request.into_inner();
        let found = self.model(&model.name, &model.version);
        let stages = found.and_then(|ready| Stages::of(&self.serving.catalog, ready));
        let ready = stages.is_ok() && !self.serving.is_draining();
        answer(pb::ModelReadyResponse { ready })
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Answer<pb::ServerMetadataResponse> {
        answer(metadata::server())
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Answer<pb::ModelMetadataResponse> {
        let asked = request.into_inner();
        let ready = self.model(&asked.name, &asked.version);
        let ready = ready.map_err(|error| status(&error))?;
        let versions = self.serving.catalog.ready(Some(&ready.model.name));
        let stages = Stages::known(&self.serving.catalog, ready);
        answer(metadata::model(stages.models(), &versions))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Answer<pb::ModelConfigResponse> {
        let asked = request.into_inner();
        let ready = self.model(&asked.name, &asked.version);
        let ready = ready.map_err(|error| status(&error))?;
        let config = metadata::config(Stages::known(&self.serving.catalog, ready).models());
        answer(pb::ModelConfigResponse { config: Some(config) })
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Answer<pb::ModelStatisticsResponse> {
        let (asked, serving) = (request.into_inner(), &self.serving);
        let counted = statistics(serving, &asked.name, &asked.version);
        answer(counted.map_err(|error| status(&error))?)
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Answer<pb::RepositoryIndexResponse> {
        let mut index = metadata::index(self.serving.catalog.index());
        if request.into_inner().ready {
            index.models.retain(|model| model.state == "READY");
        }
        answer(index)
    }

    async fn model_infer(
        &self,
        mut request: Request<pb::ModelInferRequest>,
    ) -> Answer<pb::ModelInferResponse> {
        let ticket = request.extensions_mut().remove::<Arc<Ticket>>();
        let ticket = ticket.ok_or_else(|| Status::internal("the request was not admitted"))?;
        let mut counts = Counts::of(ticket.trace.clone());
        let result = self.infer(&ticket, request.into_inner(), &mut counts).await;
        ticket.counted(counts);
        ticket.end(result.as_ref().map(|_| ()).map_err(ApiError::clone));
        result.map(Response::new).map_err(|error| status(&error))
    }
}
