//! Request handlers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, USER_AGENT,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64_NOPAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::fault::{Fault, FaultKind};
use super::pod_streams;
use super::resource::Resource;
use super::selector::Selector;
use super::watch::Watch;
use super::{Shared, Streaming, lock};

type Parameters = HashMap<String, String>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(respond).with_state(shared)
}

async fn respond(
    State(shared): State<Arc<Shared>>,
    Query(parameters): Query<Parameters>,
    request: Request,
) -> Response {
    let uri = request.uri().to_string();
    let user_agent = header(request.headers(), USER_AGENT.as_str());
    let accept_encoding = header(request.headers(), ACCEPT_ENCODING.as_str());
    let settings = lock(&shared.settings).clone();
    let is_compressed = settings.compress && accept_encoding.contains("gzip");
    let received = super::Request { at: Instant::now(), uri: uri.clone(), user_agent, accept_encoding };
    lock(&shared.requests).push(received);
    tokio::time::sleep(settings.slow).await;
    if let Some(token) = &settings.token
        && header(request.headers(), AUTHORIZATION.as_str()) != format!("Bearer {token}")
    {
        return status(401, "Unauthorized", "Unauthorized", None);
    }
    let fault = Fault::take(&mut lock(&shared.faults), &uri);
    if let Some(fault) = fault {
        return fault_response(fault).await;
    }
    let path = request.uri().path();
    if path == "/version" {
        return json_response(
            200,
            &json!({"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"}),
        );
    }
    if let Some(groups) = group_discovery(path) {
        return json_response(200, &groups);
    }
    let programs = lock(&shared.programs).clone();
    if let (Some(programs), ["api", "v1", "namespaces", _, "pods", pod, subresource @ ("exec" | "log")]) =
        (programs, path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice())
    {
        let (pod, subresource) = ((*pod).to_owned(), (*subresource).to_owned());
        return pod_streams::respond(programs, &pod, &subresource, request).await;
    }
    if let Some(version) = path.strip_prefix("/apis/").filter(|rest| rest.matches('/').count() == 1) {
        return discovery(&shared, version, &settings.absent);
    }
    if let (&Method::PATCH, Some(node)) = (request.method(), status_of_node(path)) {
        return patch_conditions(&shared, node, request.into_body()).await;
    }
    let Some((resource, namespace, name)) = Resource::at(path) else { return no_such_page() };
    if settings.absent.iter().any(|plural| plural == resource.plural) {
        return no_such_page();
    }
    if request.method() == Method::POST {
        return create(&shared, resource, request.into_body()).await;
    }
    let parameter = |name: &str| parameters.get(name).cloned().unwrap_or_default();
    let selector = Selector {
        namespace: namespace.clone(),
        labels: parameter("labelSelector"),
        fields: parameter("fieldSelector"),
    };
    match name {
        Some(name) => one(&shared, resource, namespace, &name),
        None if matches!(parameter("watch").as_str(), "true" | "1") => {
            watch(shared, resource, selector, &parameters, settings.streaming, is_compressed)
        }
        None if is_compressed => compressed(list(&shared, resource, &selector, &parameters)).await,
        None => list(&shared, resource, &selector, &parameters),
    }
}

/// The versions and groups, and the resources of the core group, as kubectl requests them.
fn group_discovery(path: &str) -> Option<Value> {
    match path {
        "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        "/api/v1" => {
            let resources = Resource::of_version("v1").map(|resource| {
                json!({
                    "name": resource.plural, "singularName": resource.kind.to_lowercase(), "kind": resource.kind,
                    "namespaced": resource.namespaced, "verbs": ["get", "list", "watch", "create"],
                })
            });
            let resources: Vec<Value> = resources.collect();
            Some(json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": resources}))
        }
        _ => None,
    }
}

/// The resources of a group and version that have objects.
fn discovery(shared: &Shared, version: &str, absent: &[String]) -> Response {
    let store = lock(&shared.store);
    let everything = Selector { namespace: None, labels: String::new(), fields: String::new() };
    let is_served = |resource: &&Resource| {
        !absent.iter().any(|plural| plural == resource.plural)
            && !store.list(resource, &everything, store.revision()).is_empty()
    };
    let resources: Vec<Value> = Resource::of_version(version)
        .filter(is_served)
        .map(|resource| json!({"name": resource.plural, "kind": resource.kind, "namespaced": resource.namespaced}))
        .collect();
    match resources.is_empty() {
        true => no_such_page(),
        false => json_response(
            200,
            &json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources}),
        ),
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn json_response(code: u16, body: &Value) -> Response {
    let code = StatusCode::from_u16(code).expect("a test names a valid status");
    (code, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// A `Status` object of an error.
pub(super) fn error_status(code: u16, reason: &str, message: &str, details: Option<Value>) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason});
    if let Some(details) = details {
        status["details"] = details;
    }
    status["code"] = code.into();
    status
}

fn status(code: u16, reason: &str, message: &str, details: Option<Value>) -> Response {
    json_response(code, &error_status(code, reason, message, details))
}

fn no_such_page() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

async fn fault_response(kind: FaultKind) -> Response {
    match kind {
        FaultKind::Status { code, retry_after } => {
            let reason = match code {
                400 => "BadRequest",
                403 => "Forbidden",
                410 => "Expired",
                429 => "TooManyRequests",
                503 => "ServiceUnavailable",
                _ => "InternalError",
            };
            let mut response =
                status(code, reason, "a planned fault", retry_after.map(|s| json!({"retryAfterSeconds": s})));
            response.headers_mut().extend(retry_after.map(|seconds| (RETRY_AFTER, seconds.into())));
            response
        }
        FaultKind::Text { code, text } => {
            (StatusCode::from_u16(code).expect("a test names a valid status"), text).into_response()
        }
        FaultKind::Interrupt { text } => {
            let broken = stream::once(async {
                // Sends the head and the text before the connection closes.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("a planned fault"))
            });
            Body::from_stream(stream::iter([Ok(text)]).chain(broken)).into_response()
        }
        FaultKind::Hang => std::future::pending().await,
    }
}

fn one(shared: &Shared, resource: &Resource, namespace: Option<String>, name: &str) -> Response {
    let key = namespace.map_or_else(|| format!("/{name}"), |namespace| format!("/{namespace}/{name}"));
    match lock(&shared.store).get(resource, &key) {
        Some(object) => json_response(200, &object),
        None => {
            let message = format!("{} {name:?} not found", resource.plural);
            status(404, "NotFound", &message, Some(json!({"name": name, "kind": resource.plural})))
        }
    }
}

/// Returns the node whose status has this path.
fn status_of_node(path: &str) -> Option<String> {
    path.strip_prefix("/api/v1/nodes/")?.strip_suffix("/status").map(str::to_owned)
}

/// Merges the conditions of a strategic merge patch by their types.
async fn patch_conditions(shared: &Shared, node: String, body: Body) -> Response {
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let patch: Value = match serde_json::from_slice(&bytes) {
        Ok(patch) => patch,
        Err(error) => return status(400, "BadRequest", &error.to_string(), None),
    };
    let mut store = lock(&shared.store);
    let resource = Resource::by_plural("nodes");
    let Some(found) = store.get(resource, &format!("/{node}")) else {
        return status(404, "NotFound", &format!("nodes {node:?} not found"), None);
    };
    let mut object = (*found).clone();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let patched = patch["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let is_patched = |condition: &Value| patched.iter().any(|patch| patch["type"] == condition["type"]);
    let others = conditions.into_iter().filter(|condition| !is_patched(condition));
    object["status"]["conditions"] = others.chain(patched.clone()).collect();
    store.apply(object.clone(), None);
    drop(store);
    shared.changed.send_modify(|tick| *tick += 1);
    json_response(200, &object)
}

async fn create(shared: &Shared, resource: &Resource, body: Body) -> Response {
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let object: Value = match serde_json::from_slice(&bytes) {
        Ok(object) => object,
        Err(error) => return status(400, "BadRequest", &error.to_string(), None),
    };
    let key = resource.key(&object);
    let mut store = lock(&shared.store);
    if store.get(resource, &key).is_some() {
        let message = format!("{} {:?} already exists", resource.plural, object["metadata"]["name"]);
        return status(409, "AlreadyExists", &message, None);
    }
    store.apply(object, None);
    let created = store.get(resource, &key).expect("it was stored just now");
    drop(store);
    shared.changed.send_modify(|tick| *tick += 1);
    json_response(201, &created)
}

fn list(shared: &Shared, resource: &Resource, selector: &Selector, parameters: &Parameters) -> Response {
    let store = lock(&shared.store);
    let number =
        |name: &str| parameters.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let requested = number("resourceVersion");
    if requested > store.revision() {
        let message =
            format!("Timeout: Too large resource version: {requested}, current: {}", store.revision());
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        let mut response =
            status(504, "Timeout", &message, Some(json!({"causes": [cause], "retryAfterSeconds": 1})));
        response.headers_mut().insert(RETRY_AFTER, 1.into());
        return response;
    }
    let (revision, start) = match parameters.get("continue").map(|token| read_token(token)) {
        None => (store.revision(), String::new()),
        Some(Ok(place)) => place,
        Some(Err(message)) => return status(400, "BadRequest", &message, None),
    };
    if revision < store.compacted() {
        let message = "The provided continue parameter is too old to display a consistent list result.";
        return status(410, "Expired", message, None);
    }
    let mut objects = store.list(resource, selector, revision);
    drop(store);
    objects.retain(|(key, _)| start.is_empty() || *key >= start);
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    let limit = usize::try_from(number("limit")).expect("a page fits in memory");
    if limit > 0 && objects.len() > limit {
        metadata["continue"] = write_token(revision, &objects[limit - 1].0).into();
        if !selector.is_some() {
            metadata["remainingItemCount"] = (objects.len() - limit).into();
        }
        objects.truncate(limit);
    }
    let items = objects.iter().map(|(_, object)| without_kind(object));
    let body = json!({"kind": format!("{}List", resource.kind), "apiVersion": resource.version, "metadata": metadata, "items": items.collect::<Vec<_>>()});
    json_response(200, &body)
}

/// Removes `kind` and `apiVersion`, which items of a list do not have.
fn without_kind(object: &Value) -> Value {
    let mut object = object.clone();
    let fields = object.as_object_mut().expect("an object is stored");
    fields.remove("kind");
    fields.remove("apiVersion");
    object
}

/// A continue token, with the fields of the API server's in their order.
fn write_token(revision: u64, last: &str) -> String {
    BASE64_NOPAD
        .encode(format!(r#"{{"v":"meta.k8s.io/v1","rv":{revision},"start":"{last}\u0000"}}"#).as_bytes())
}

fn read_token(token: &str) -> Result<(u64, String), String> {
    let invalid = |e: &dyn std::fmt::Display| format!("continue key is not valid: {e}");
    let bytes = BASE64_NOPAD.decode(token.as_bytes()).map_err(|e| invalid(&e))?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|e| invalid(&e))?;
    match (token["rv"].as_u64(), token["start"].as_str()) {
        (Some(revision), Some(start)) => Ok((revision, start.to_owned())),
        _ => Err(invalid(&"rv or start is missing")),
    }
}

fn watch(
    shared: Arc<Shared>,
    resource: &'static Resource,
    selector: Selector,
    parameters: &Parameters,
    streaming: Streaming,
    is_compressed: bool,
) -> Response {
    let initial = parameters.get("sendInitialEvents").is_some_and(|value| value == "true");
    if initial && streaming == Streaming::GateOff {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        return status(422, "Invalid", message, None);
    }
    let (sender, receiver) = mpsc::channel(16);
    let (commands, receiver_of_commands) = mpsc::unbounded_channel();
    lock(&shared.watches).push(commands);
    let watch = Watch::new(shared, resource, selector, parameters, initial.then_some(streaming));
    tokio::spawn(watch.run(sender, receiver_of_commands));
    let lines = stream::unfold(receiver, async |mut receiver| {
        let line: Result<String, std::io::Error> = receiver.recv().await?;
        Some((line, receiver))
    });
    // An empty chunk first, so that the head of the response does not wait for the first event.
    let begin = stream::iter([Ok::<String, Infallible>(String::new())])
        .map(|line| line.map_err(|never| match never {}));
    let mut response = ([(CONTENT_TYPE, "application/json")], ()).into_response();
    let lines = begin.chain(lines);
    // Watches without a list are never compressed.
    *response.body_mut() = match initial && is_compressed {
        true => {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            Body::from_stream(lines.map(move |line| line.map(|line| flushed(&mut encoder, line.as_bytes()))))
        }
        false => Body::from_stream(lines),
    };
    response
}

/// Compresses bytes so that the client can decompress them before others follow.
fn flushed(encoder: &mut GzEncoder<Vec<u8>>, bytes: &[u8]) -> Vec<u8> {
    encoder.write_all(bytes).and_then(|()| encoder.flush()).expect("memory can be written");
    std::mem::take(encoder.get_mut())
}

/// Compresses the body of a response.
async fn compressed(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("the body is in memory");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&body).expect("memory can be written");
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::from(encoder.finish().expect("memory can be written")))
}
