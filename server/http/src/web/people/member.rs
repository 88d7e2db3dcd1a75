//! `/members`: who is in a project. Members leave here; admins invite people, change roles and remove members; an owner hands the project over.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use deadbeat_domain::ids::{AccountId, InvitationId, ProjectId};
use deadbeat_domain::limits;
use deadbeat_domain::people::access::Access;
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::people::role::Role;
use deadbeat_services::people::account::session;
use deadbeat_services::people::invitation::{self, NewInvitation};
use deadbeat_services::people::member;
use deadbeat_services::{ServiceError, Services};
use deadbeat_store::page::Page;
use deadbeat_store::people::project;
use serde::Deserialize;
use uuid::Uuid;

use super::csrf::{Fields, SessionForm};
use super::session::{SignedIn, client};
use crate::extract::peer::client_ip;
use crate::state::AppState;
use crate::web::format::Moment;
use crate::web::monitor::dashboard::{ProjectLink, choose};
use crate::web::{Frame, PageError, html, see_other};

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/members")
            .route(web::get().to(page))
            .route(web::method(Method::HEAD).to(page))
            .route(web::post().to(change))
            .default_service(web::to(|| async {
                Err::<HttpResponse, _>(PageError::WrongMethod("GET, HEAD, POST"))
            })),
    );
}

#[derive(Template)]
#[template(path = "project/members.html")]
struct MembersPage {
    frame: Frame,
    form_token: String,
    projects: Vec<ProjectLink>,
    project: String,
    project_id: ProjectId,
    members: Vec<MemberRow>,
    invitations: Vec<InvitationRow>,
    /// The roles that the reader may give. Empty: the reader may not change members.
    roles: Vec<&'static str>,
    is_owner: bool,
    /// The link of the invitation that was just made. Only this answer shows it.
    link: Option<String>,
    refusal: Option<String>,
}

struct MemberRow {
    id: AccountId,
    email: String,
    role: &'static str,
    is_self: bool,
    /// True if the reader may change this member.
    is_changeable: bool,
}

struct InvitationRow {
    id: InvitationId,
    email: Option<String>,
    role: &'static str,
    expires: Moment,
}

#[derive(Debug, Default, Deserialize)]
struct Asked {
    project: Option<Uuid>,
}

/// What a page shows beside the lists.
#[derive(Default)]
struct Extras {
    link: Option<String>,
    refusal: Option<String>,
}

async fn page(
    request: HttpRequest,
    state: Data<AppState>,
    known: SignedIn,
) -> Result<HttpResponse, PageError> {
    let asked = Query::<Asked>::from_query(request.query_string())
        .map_err(|_| PageError::NotFound("page"))?
        .into_inner();
    show(
        &state,
        &known,
        asked.project.map(ProjectId),
        StatusCode::OK,
        Extras::default(),
    )
    .await
}

async fn show(
    state: &AppState,
    known: &SignedIn,
    asked: Option<ProjectId>,
    status: StatusCode,
    extras: Extras,
) -> Result<HttpResponse, PageError> {
    let (reader, now) = (state.reader(), state.now());
    let memberships = project::of_account(&reader, known.account.id).await?;
    let Some(chosen) = choose(&memberships, asked, known.remembered)? else {
        return Ok(see_other("/"));
    };
    let access = chosen.access;
    let project_id = access.may(Action::SeeMembers)?;
    let is_owner = access.may(Action::OwnProject).is_ok();
    let is_admin = access.may(Action::ManageMembers).is_ok();
    let members = member::list(
        &state.services,
        &access,
        Page {
            after: None,
            limit: limits::PROJECT_MEMBERS,
        },
    )
    .await?;
    let invitations = if is_admin {
        let page = Page {
            after: None,
            limit: limits::PROJECT_INVITATIONS,
        };
        invitation::list(&state.services, &access, page).await?
    } else {
        Vec::new()
    };
    let may_give = |role: Role| is_owner || (is_admin && role != Role::Owner);
    let frame = known.frame();
    let page = MembersPage {
        form_token: frame
            .account
            .as_ref()
            .map(|account| account.form_token.clone())
            .unwrap_or_default(),
        frame,
        projects: ProjectLink::all(&memberships, chosen),
        project: chosen.project.name.clone(),
        project_id,
        members: members
            .into_iter()
            .map(|one| MemberRow {
                id: one.account,
                is_self: one.account == known.account.id,
                is_changeable: may_give(one.role),
                email: one.email,
                role: one.role.as_str(),
            })
            .collect(),
        invitations: invitations
            .into_iter()
            .map(|one| InvitationRow {
                id: one.id,
                email: one.email,
                role: one.role.as_str(),
                expires: Moment::at(one.expires_at, now),
            })
            .collect(),
        roles: Role::ALL
            .into_iter()
            .filter(|role| may_give(*role))
            .map(Role::as_str)
            .collect(),
        is_owner,
        link: extras.link,
        refusal: extras.refusal,
    };
    Ok(html(status, &page))
}

async fn change(
    request: HttpRequest,
    state: Data<AppState>,
    known: SignedIn,
    form: SessionForm,
) -> Result<HttpResponse, PageError> {
    // The form's token belongs to a session, and that session must still be valid.
    let session = session::find(&state.services, &form.session, &client(&request, &state)).await?;
    if session.is_none_or(|session| session.account.id != known.account.id) {
        return Err(PageError::NotSignedIn);
    }
    let fields = &form.fields;
    let asked = id(fields, "project")
        .map(ProjectId)
        .ok_or(PageError::NotFound("project"))?;
    let memberships = project::of_account(&state.reader(), known.account.id).await?;
    let chosen = choose(&memberships, Some(asked), None)?.ok_or(PageError::NotFound("project"))?;
    let access = chosen.access.from(client_ip(&request, &state));
    match act(&state.services, &access, known.account.id, fields).await {
        Ok(Done::Left) => Ok(see_other("/")),
        Ok(Done::Changed) => Ok(see_other(&format!("/members?project={asked}"))),
        Ok(Done::Invited(link)) => {
            let extras = Extras {
                link: Some(link),
                refusal: None,
            };
            show(&state, &known, Some(asked), StatusCode::CREATED, extras).await
        }
        Err(error) => {
            let (status, refusal) = match &error {
                ServiceError::Conflict(text) => (StatusCode::CONFLICT, text.clone()),
                ServiceError::Limit { .. } => (StatusCode::FORBIDDEN, error.to_string()),
                ServiceError::Invalid(faults) => {
                    let texts: Vec<String> = faults
                        .iter()
                        .map(|fault| format!("{} {}", fault.pointer.trim_start_matches('/'), fault.message))
                        .collect();
                    (StatusCode::UNPROCESSABLE_ENTITY, texts.join("; "))
                }
                _ => return Err(error.into()),
            };
            let extras = Extras {
                link: None,
                refusal: Some(refusal),
            };
            show(&state, &known, Some(asked), status, extras).await
        }
    }
}

/// What a form did.
enum Done {
    Changed,
    Left,
    Invited(String),
}

/// Reads an id from a form.
fn id(fields: &Fields, name: &str) -> Option<Uuid> {
    Uuid::try_parse(fields.get(name)).ok()
}

/// Does what the form asks for.
async fn act(
    services: &Services,
    access: &Access,
    own: AccountId,
    fields: &Fields,
) -> Result<Done, ServiceError> {
    let other = || {
        id(fields, "account")
            .map(AccountId)
            .ok_or(ServiceError::NotFound("member"))
    };
    let role = || Role::parse(fields.get("role")).ok_or(ServiceError::NotFound("role"));
    match fields.get("act") {
        "role" => {
            member::set_role(services, access, other()?, role()?).await?;
        }
        "remove" => member::remove(services, access, other()?).await?,
        "leave" => {
            member::remove(services, access, own).await?;
            return Ok(Done::Left);
        }
        "transfer" => member::transfer(services, access, other()?).await?,
        "withdraw" => {
            let invitation = id(fields, "invitation").ok_or(ServiceError::NotFound("invitation"))?;
            invitation::withdraw(services, access, InvitationId(invitation)).await?;
        }
        "invite" => {
            let new = NewInvitation {
                email: Some(fields.get("email").trim().to_owned()).filter(|email| !email.is_empty()),
                role: role()?,
                seconds: None,
            };
            return Ok(Done::Invited(invitation::create(services, access, new).await?.1));
        }
        _ => return Err(ServiceError::NotFound("action")),
    }
    Ok(Done::Changed)
}
