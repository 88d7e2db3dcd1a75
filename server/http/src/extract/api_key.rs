//! API keys: they determine the project of a request, and its permissions.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::permission::Action;
use deadbeat_services::people::api_key::{Denied, authorise};
use deadbeat_store::connection::asker::Asker;

use crate::error::ApiError;
use crate::extract::peer::client_ip;
use crate::problem::Problem;
use crate::request::{self, SentBy};
use crate::state::AppState;

/// Returns the key of a request: `Authorization: Bearer <key>`, or `X-Api-Key`.
fn presented(request: &HttpRequest) -> Option<&str> {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION.as_str())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    bearer
        .or_else(|| text("x-api-key").map(str::trim))
        .filter(|key| !key.is_empty())
}

/// Returns the access of a request's key, and the project in which the key permits this action. Refuses other requests before their body is read.
async fn access(request: &HttpRequest, action: Action) -> Result<(ProjectId, Access), ApiError> {
    access_of(request, presented(request), action).await
}

/// Like [`access`], of a key that a dialect found elsewhere in the request.
pub(crate) async fn access_of(
    request: &HttpRequest,
    presented: Option<&str>,
    action: Action,
) -> Result<(ProjectId, Access), ApiError> {
    let Some(state) = request.app_data::<web::Data<AppState>>() else {
        return Err(ApiError::new(Problem::Internal, "the server is wired wrongly"));
    };
    let client = client_ip(request, state);
    let access = authorise(&state.services, presented, action, client).await;
    let key = match &access {
        Ok(access) => match access.actor() {
            Actor::Key { id, .. } => Some(id),
            _ => None,
        },
        Err(Denied::Refused { key, .. } | Denied::Limited { key, .. }) => Some(*key),
        Err(_) => None,
    };
    if let Some(key) = key {
        request::sent_by(SentBy::Key(key));
    }
    let access = access?;
    let project = access.may(action)?;
    Asker::Project(project).takes_over();
    Ok((project, access))
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let text = denied.to_string();
        match denied {
            Denied::Missing => Self::new(
                Problem::MissingKey,
                "send the header \"Authorization: Bearer <key>\" or \"X-Api-Key: <key>\"",
            ),
            Denied::Unknown => Self::new(Problem::UnknownKey, text),
            Denied::Refused { .. } => Self::new(Problem::KeyScope, text),
            Denied::Limited { fault, .. } => Self::new(fault.into(), text),
            Denied::Store(error) => error.into(),
        }
    }
}

macro_rules! extract {
    ($($name:ident, $action:ident;)*) => {$(
        #[doc = concat!("A request whose key may do [`Action::", stringify!($action), "`]: in which project, and its access for services.")]
        #[derive(Debug, Clone, Copy)]
        pub struct $name(pub ProjectId, pub Access);

        impl FromRequest for $name {
            type Error = ApiError;
            type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let request = request.clone();
                Box::pin(async move {
                    let (project, access) = access(&request, Action::$action).await?;
                    Ok(Self(project, access))
                })
            }
        }
    )*};
}

extract! {
    MayRead, Read;
    MaySignal, Signal;
    MayChangeMonitors, ChangeMonitors;
    MayAcknowledge, Acknowledge;
    MayManageChannels, ManageChannels;
    MayManageKeys, ManageKeys;
    MayChangeProject, ChangeProject;
    MayReadAudit, ReadAudit;
    MayReadMetrics, ReadMetrics;
    MaySeeMembers, SeeMembers;
    MayManageMembers, ManageMembers;
}
