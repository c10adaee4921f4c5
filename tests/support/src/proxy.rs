//! The kube-proxy stand-in: Services answer on their cluster IPs, and pass connections on to their ready pods.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::addresses::Addresses;

/// The port at which pods are told to find the API server.
pub fn kubernetes_port() -> u16 {
    if nix::unistd::geteuid().is_root() { 443 } else { 6443 }
}

/// Where the connections to one cluster IP and port go.
#[derive(Clone, Debug, PartialEq)]
struct Backend {
    namespace: String,
    selector: BTreeMap<String, String>,
    port: IntOrString,
}

/// Serves until it is aborted.
pub async fn run(client: Client, addresses: Addresses, server: (String, u16)) {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let at = SocketAddr::from((addresses.kubernetes_service(), kubernetes_port()));
        serve(at, move || {
            let server = server.clone();
            async move { TcpStream::connect((server.0.as_str(), server.1)).await }
        })
        .await;
    });
    let (pods, writer) = reflector::store();
    let mut watched =
        watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff().reflect(writer).boxed();
    tasks.spawn(async move { while watched.next().await.is_some() {} });

    let listeners: Arc<Mutex<HashMap<SocketAddr, (Backend, AbortHandle)>>> = Arc::default();
    let mut known: HashMap<String, Service> = HashMap::new();
    let mut events = watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => known.clear(),
            Ok(watcher::Event::InitApply(service)) => {
                known.insert(service.uid().unwrap_or_default(), service);
                continue;
            }
            Ok(watcher::Event::Apply(service)) => {
                known.insert(service.uid().unwrap_or_default(), service);
            }
            Ok(watcher::Event::Delete(service)) => {
                known.remove(&service.uid().unwrap_or_default());
            }
            Ok(watcher::Event::InitDone) => {}
            Err(_) => continue,
        }
        let wanted: HashMap<_, _> = known.values().flat_map(backends).collect();
        let mut listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|at, (backend, task)| {
            let stays = wanted.get(at) == Some(backend);
            if !stays {
                task.abort();
            }
            stays
        });
        for (at, backend) in wanted {
            listeners.entry(at).or_insert_with(|| {
                let (pods, target) = (pods.clone(), backend.clone());
                let task = tasks.spawn(serve(at, move || connect(pods.clone(), target.clone())));
                (backend, task)
            });
        }
    }
}

/// The addresses of a Service with a selector.
fn backends(service: &Service) -> Vec<(SocketAddr, Backend)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()) else { return Vec::new() };
    let Some(selector) = spec.selector.clone().filter(|selector| !selector.is_empty()) else { return Vec::new() };
    let backend = |port: &ServicePort| {
        let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
        let at = SocketAddr::new(ip, u16::try_from(port.port).ok()?);
        let namespace = service.namespace().unwrap_or_default();
        Some((at, Backend { namespace, selector: selector.clone(), port: target }))
    };
    spec.ports.iter().flatten().filter_map(backend).collect()
}

/// Connects to a ready pod; to the next one if one doesn't answer.
async fn connect(pods: Store<Pod>, backend: Backend) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the Service has no ready pod");
    let mut ready: Vec<_> = pods
        .state()
        .into_iter()
        .filter(|pod| pod.namespace().as_ref() == Some(&backend.namespace) && is_ready(pod))
        .filter(|pod| backend.selector.iter().all(|(label, value)| pod.labels().get(label) == Some(value)))
        .collect();
    // Any order will do, as long as it isn't always the same pod.
    let turn = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |it| it.subsec_nanos());
    let len = ready.len().max(1);
    ready.rotate_left(turn as usize % len);
    for pod in ready {
        let Some(ip) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else { continue };
        let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let named = containers.iter().flat_map(|it| it.ports.iter().flatten());
        let port = match &backend.port {
            IntOrString::Int(port) => Some(*port),
            IntOrString::String(name) => {
                named.into_iter().find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
            }
        };
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { continue };
        match TcpStream::connect((ip.as_str(), port)).await {
            Ok(stream) => return Ok(stream),
            Err(err) => last = err,
        }
    }
    Err(last)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True")
}

/// Listens, and joins each connection with one that `connect` makes; without one it is closed.
async fn serve<F>(at: SocketAddr, connect: impl Fn() -> F)
where
    F: Future<Output = std::io::Result<TcpStream>> + Send + 'static,
{
    let mut complained = false;
    let listener = loop {
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            Err(err) => {
                if !complained {
                    eprintln!("the kube-proxy stand-in can't listen on {at} yet: {err}");
                    complained = true;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((mut near, _)) = listener.accept() => {
                let far = connect();
                connections.spawn(async move {
                    if let Ok(mut far) = far.await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
