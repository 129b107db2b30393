//! The cluster: what is asked of a Kubernetes API server, and what is said when it does not answer as one would like.
//!
//! Calls block, and none blocks for ever. Objects come as [`Document`]s, like those of files, so that nothing else has to
//! know where an object is from. This decides no policy, and caches nothing.

use std::error::Error;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, GetParams, ListParams, Patch, PatchParams, Request};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::{Client, Config, Resource};
use serde_json::Value;

use crate::cli::ClusterArgs;
use crate::failure::{Failure, Result};
use crate::object::Kind;
use crate::source::Document;

mod pod;
mod proxy;

/// A connection to a cluster.
#[derive(Debug)]
pub struct Cluster {
    runtime: tokio::runtime::Runtime,
    client: ClientOf,
    context: String,
    server: String,
}

/// [`Client`], which has no useful `Debug` of its own.
struct ClientOf(Client);

impl std::fmt::Debug for ClientOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may say nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request may take in all, its retries included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How many objects are asked for at once, as kubectl does.
const PAGE: u32 = 500;
/// Who is named in `metadata.managedFields` for what is changed.
const FIELD_MANAGER: &str = "egressctl";

/// What is being done, for the message if it fails.
#[derive(Clone, Copy)]
struct Deed<'a> {
    verb: &'a str,
    resource: &'a ApiResource,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
}

impl Cluster {
    /// Finds the cluster as kubectl does: `--kubeconfig`, `$KUBECONFIG`, `~/.kube/config`, and within a pod its service
    /// account. Nothing is asked of it yet.
    ///
    /// # Errors
    ///
    /// A kubeconfig that cannot be used, or none outside of a pod.
    pub fn connect(args: &ClusterArgs) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(format!("no connection can be made: {error}")))?;
        let (context, client, server) = runtime.block_on(async {
            let (context, mut config) = configuration(args).await?;
            config.connect_timeout = Some(CONNECT_TIMEOUT);
            config.read_timeout = Some(READ_TIMEOUT);
            config.write_timeout = Some(READ_TIMEOUT);
            let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
            let client = Client::try_from(config).map_err(|error| {
                Failure::new(format!("context {context}: the kubeconfig is no good: {}", chain(&error)))
            })?;
            Ok::<_, Failure>((context, client, server))
        })?;
        Ok(Cluster { runtime, client: ClientOf(client), context, server })
    }

    /// The context's name; `in-cluster` within a pod.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.context
    }

    /// All objects of a kind, in a namespace or everywhere, page by page. TrafficExtensions, which clusters before Istio
    /// 1.30 do not have, are none there.
    ///
    /// # Errors
    ///
    /// The cluster does not answer, does not permit it, or does not know the kind.
    pub fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Vec<Document>> {
        let resource = resource(kind)?;
        let deed = Deed { verb: "list", resource: &resource, namespace, name: None };
        match self.runtime.block_on(self.pages(&deed.request()?)) {
            Ok(items) => Ok(items.into_iter().map(|item| self.document(&resource, item)).collect()),
            Err(Asked::Kube(kube::Error::Api(status))) if status.code == 404 && kind == Kind::TrafficExtension => {
                Ok(Vec::new())
            }
            Err(error) => Err(self.failure(deed, &error)),
        }
    }

    async fn pages(&self, request: &Request) -> std::result::Result<Vec<Value>, Asked> {
        let mut items = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let mut page = match self.ask(request.list(&params)).await {
                Ok(page) => page,
                // The server keeps the state of a list for some minutes only: then all is read again, at once.
                Err(Asked::Kube(kube::Error::Api(status))) if status.code == 410 && params.continue_token.is_some() => {
                    items.clear();
                    params = ListParams::default();
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() => params.continue_token = Some(token.to_owned()),
                _ => return Ok(items),
            }
        }
    }

    /// Every object that may be a plugin of the filter; with a namespace only those that are on its sidecars.
    ///
    /// # Errors
    ///
    /// As [`Cluster::list`].
    pub fn plugins(&self, root_namespace: &str, namespace: Option<&str>) -> Result<Vec<Document>> {
        self.list_for(&[Kind::WasmPlugin, Kind::TrafficExtension], root_namespace, namespace)
    }

    /// Objects of these kinds in all namespaces, or in the root namespace and this one.
    ///
    /// # Errors
    ///
    /// As [`Cluster::list`].
    pub fn list_for(&self, kinds: &[Kind], root_namespace: &str, namespace: Option<&str>) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        for &kind in kinds {
            match namespace {
                None => documents.extend(self.list(kind, None)?),
                Some(namespace) => {
                    documents.extend(self.list(kind, Some(root_namespace))?);
                    if namespace != root_namespace {
                        documents.extend(self.list(kind, Some(namespace))?);
                    }
                }
            }
        }
        Ok(documents)
    }

    /// One object; `None` if it is not there. For what stands in no namespace, `namespace` is `None`.
    ///
    /// # Errors
    ///
    /// As [`Cluster::list`].
    pub fn find(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Result<Option<Document>> {
        let resource = resource(kind)?;
        let deed = Deed { verb: "get", resource: &resource, namespace, name: Some(name) };
        let request = deed.request()?.get(name, &GetParams::default());
        match self.runtime.block_on(self.ask(request)) {
            Ok(object) => Ok(Some(self.document(&resource, object))),
            Err(Asked::Kube(kube::Error::Api(status))) if is_absent(&status) => Ok(None),
            Err(error) => Err(self.failure(deed, &error)),
        }
    }

    /// Changes an object by a JSON merge patch; with `is_dry_run` the server does all but keep it. A patch that holds
    /// `metadata.resourceVersion` is refused if the object has changed since.
    ///
    /// # Errors
    ///
    /// As [`Cluster::list`]; and the object has changed, or the server refuses what it would become.
    pub fn patch(&self, kind: Kind, namespace: &str, name: &str, patch: &Value, is_dry_run: bool) -> Result<Document> {
        let resource = resource(kind)?;
        let deed = Deed { verb: "patch", resource: &resource, namespace: Some(namespace), name: Some(name) };
        let params = PatchParams {
            dry_run: is_dry_run,
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let request = deed.request()?.patch(name, &params, &Patch::Merge(patch));
        let object = self.runtime.block_on(self.ask(request)).map_err(|error| self.failure(deed, &error))?;
        Ok(self.document(&resource, object))
    }

    async fn ask(&self, request: Asking) -> std::result::Result<Value, Asked> {
        let request = request.map_err(|error| Asked::Kube(kube::Error::BuildRequest(error)))?;
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.client.0.request(request)).await;
        answer.map_err(|_| Asked::TooLong)?.map_err(Asked::Kube)
    }

    /// Elements of a list do not say what they are where Kubernetes itself defines them.
    fn document(&self, resource: &ApiResource, mut object: Value) -> Document {
        if let Some(fields) = object.as_object_mut() {
            fields.entry("apiVersion").or_insert_with(|| resource.api_version.clone().into());
            fields.entry("kind").or_insert_with(|| resource.kind.clone().into());
        }
        Document::from_cluster(&self.context, object)
    }

    fn failure(&self, deed: Deed<'_>, error: &Asked) -> Failure {
        let Deed { verb, resource, namespace, name } = deed;
        let resources = match resource.group.as_str() {
            "" => resource.plural.clone(),
            group => format!("{}.{group}", resource.plural),
        };
        let object = match (namespace, name) {
            (Some(namespace), Some(name)) => format!("{} {namespace}/{name}", resource.kind),
            (None, Some(name)) => format!("{} {name}", resource.kind),
            (Some(namespace), None) => format!("{resources} in namespace {namespace}"),
            (None, None) => format!("{resources} in all namespaces"),
        };
        let (context, server) = (&self.context, &self.server);
        let message = match error {
            Asked::Kube(kube::Error::Api(status)) => match status.code {
                401 => format!(
                    "{server} does not know you ({}); log in again, or choose another context with --context",
                    said(status)
                ),
                403 => format!(
                    "you may not {verb} {object}; ask for a role with the verb `{verb}` on `{resources}` ({})",
                    said(status)
                ),
                404 if !is_absent(status) => format!(
                    "{server} has no {resources}: Istio's CRDs are not installed there; install Istio, or choose another \
                     context with --context"
                ),
                404 => format!("{object} is not there"),
                409 => format!("somebody else has changed {object} meanwhile; run the command again"),
                _ => format!("cannot {verb} {object}: {}", said(status)),
            },
            Asked::Kube(error) => format!(
                "{server} does not answer: {}; is the cluster up, and is it the right one? (--context, --kubeconfig)",
                chain(error)
            ),
            Asked::TooLong => format!(
                "cannot {verb} {object}: {server} has not answered within {} s; try again",
                REQUEST_TIMEOUT.as_secs()
            ),
        };
        Failure::new(format!("context {context}: {message}"))
    }
}

/// A request of kube's, which may be impossible to write.
type Asking = std::result::Result<http::Request<Vec<u8>>, kube::core::request::Error>;

impl Deed<'_> {
    /// The part of a request's path that says where. Names come from the command line, so they are looked at first.
    fn request(&self) -> Result<Request> {
        for (what, name) in [("namespace", self.namespace), (self.resource.kind.as_str(), self.name)] {
            let is_name = |name: &str| {
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:_~".contains(&byte))
            };
            if let Some(name) = name.filter(|name| !is_name(name)) {
                return Err(Failure::new(format!(
                    "{name:?} cannot be the name of a {what}: use letters, digits, `-` and `.`"
                )));
            }
        }
        Ok(Request::new(DynamicObject::url_path(self.resource, self.namespace)))
    }
}

/// Why a request had no answer.
enum Asked {
    Kube(kube::Error),
    TooLong,
}

/// Whether it is the object that is missing, and not its whole kind: then the server names the object.
fn is_absent(status: &Status) -> bool {
    status.code == 404 && status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

fn said(status: &Status) -> &str {
    if status.message.is_empty() { &status.reason } else { &status.message }
}

/// An error and what caused it, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // The names of kube's own layers tell nobody anything.
    if let (Some(error), true) = (cause, text.starts_with("ServiceError: ")) {
        text = error.to_string();
        cause = error.source();
    }
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

async fn configuration(args: &ClusterArgs) -> Result<(String, Config)> {
    let read = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(error) if args.kubeconfig.is_none() && is_missing(&error) => return within_a_pod(args),
        Err(KubeconfigError::ReadConfig(error, path)) => {
            return Err(Failure::new(format!("{}: the kubeconfig cannot be read: {error}", path.display())));
        }
        Err(error) => return Err(Failure::new(chain(&error))),
    };
    let mut known: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
    known.sort_unstable();
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has: {}", known.join(", ")) };
    let Some(context) = args.context.clone().or_else(|| kubeconfig.current_context.clone()) else {
        return Err(Failure::new(format!("the kubeconfig has no current context; name one with --context; {known}")));
    };
    if kubeconfig.contexts.iter().all(|one| one.name != context) {
        return Err(Failure::new(format!("the kubeconfig has no context {context:?}; {known}")));
    }
    let own_proxy = proxy_of(&kubeconfig, &context);
    let options = KubeConfigOptions { context: Some(context.clone()), cluster: None, user: None };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| Failure::new(format!("context {context}: {}", chain(&error))))?;
    config.proxy_url = proxy::of(&config.cluster_url, own_proxy.as_deref(), |name| std::env::var(name).ok())?;
    Ok((context, config))
}

/// What a context's cluster has as `proxy-url`.
fn proxy_of(kubeconfig: &Kubeconfig, context: &str) -> Option<String> {
    let context = kubeconfig.contexts.iter().find(|one| one.name == context)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|one| one.name == context.cluster)?;
    cluster.cluster.as_ref()?.proxy_url.clone()
}

/// Whether nobody has named a kubeconfig, and there is none at the default place.
fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => {
            error.kind() == std::io::ErrorKind::NotFound
                && std::env::var_os("KUBECONFIG").is_none_or(|text| text.is_empty())
        }
        _ => false,
    }
}

fn within_a_pod(args: &ClusterArgs) -> Result<(String, Config)> {
    if let (None, Ok(config)) = (&args.context, Config::incluster()) {
        return Ok(("in-cluster".to_owned(), config));
    }
    Err(Failure::new(
        "no cluster: there is neither --kubeconfig nor $KUBECONFIG nor ~/.kube/config, and this is no pod; name a file with \
         --kubeconfig",
    ))
}

fn resource(kind: Kind) -> Result<ApiResource> {
    let (group, version, name, plural) = match kind {
        Kind::WasmPlugin => ("extensions.istio.io", "v1alpha1", "WasmPlugin", "wasmplugins"),
        Kind::TrafficExtension => ("extensions.istio.io", "v1alpha1", "TrafficExtension", "trafficextensions"),
        Kind::ServiceEntry => ("networking.istio.io", "v1", "ServiceEntry", "serviceentries"),
        Kind::Sidecar => ("networking.istio.io", "v1", "Sidecar", "sidecars"),
        Kind::EnvoyFilter => ("networking.istio.io", "v1alpha3", "EnvoyFilter", "envoyfilters"),
        Kind::Service => ("", "v1", "Service", "services"),
        Kind::Namespace => ("", "v1", "Namespace", "namespaces"),
        Kind::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
        Kind::Pod => ("", "v1", "Pod", "pods"),
        Kind::Configuration | Kind::Other => {
            return Err(Failure::new("only objects that this program knows can be asked of a cluster"));
        }
    };
    let kind = kube::core::GroupVersionKind::gvk(group, version, name);
    Ok(ApiResource::from_gvk_with_plural(&kind, plural))
}
