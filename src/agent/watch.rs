//! The bundles, as the API server shows them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics::AgentMetrics;
use super::world::{Bundle, Expectations, World};
use super::{RulesText, Wanted};
use crate::api::{FalcoBundle, Rollout};

/// Bundles in one page of the list: each may have a megabyte.
const PAGE: u32 = 50;
/// Events that are taken in before anybody is told.
const TOGETHER: usize = 256;

/// What is known of the API server.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How often all bundles were listed.
    pub lists: u64,
    /// The settled files, and what is wanted here.
    pub expected: Expectations,
}

/// Whom the watch tells.
#[derive(Debug)]
pub struct Outlets {
    /// What this node is to load.
    pub wanted: watch::Sender<Wanted>,
    /// What its report is held against.
    pub seen: watch::Sender<Option<Arc<Seen>>>,
}

/// Watches until `shutdown`.
pub async fn run(
    client: Client,
    node: String,
    state_dir: &Path,
    outlets: &Outlets,
    metrics: &AgentMetrics,
    shutdown: CancellationToken,
) {
    let config = watcher::Config { page_size: Some(PAGE), ..watcher::Config::default().timeout(lifetime(&node)) };
    let events = watcher(Api::<DeserializeGuard<FalcoBundle>>::all(client), config)
        .default_backoff()
        .inspect_err(|err| {
            metrics.watch_restarts_total.inc();
            tracing::warn!(%err, "the watch of the bundles broke off and is begun again");
        })
        .into_stream();
    let mut world = World::new(node);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow(events, &mut world, state_dir, outlets, metrics) => {}
    }
}

/// How long one watch lasts, in seconds: not the same for all agents, or they would march in step.
fn lifetime(node: &str) -> u32 {
    let place = Rollout::place("", node);
    240 + u32::from_str_radix(place.get(..4).unwrap_or_default(), 16).unwrap_or(0) % 240
}

async fn follow(
    events: impl Stream<Item = Result<Event<DeserializeGuard<FalcoBundle>>, watcher::Error>>,
    world: &mut World,
    state_dir: &Path,
    outlets: &Outlets,
    metrics: &AgentMetrics,
) {
    let events = events.ready_chunks(TOGETHER);
    pin_mut!(events);
    let (mut listed, mut lists) = (Vec::new(), 0);
    loop {
        let expiry = world.next_expiry();
        let chunk = tokio::select! {
            chunk = events.next() => match chunk {
                Some(chunk) => chunk,
                None => return,
            },
            () = reached(expiry) => {
                world.expire(Timestamp::now());
                Vec::new()
            }
        };
        for event in chunk.into_iter().flatten() {
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(object) => listed.push(read(object)),
                Event::InitDone => {
                    if !world.listed() {
                        world.remember(in_force(state_dir).await);
                    }
                    world.list(std::mem::take(&mut listed), Timestamp::now());
                    lists += 1;
                }
                Event::Apply(object) => world.apply(read(object)),
                Event::Delete(object) => world.delete(&object.name_any(), Timestamp::now()),
            }
        }
        if world.listed() {
            let (wanted, expected) = (world.wanted(), world.expectations());
            let files = wanted.files.values().filter(|file| file.target.is_some()).count();
            metrics.namespaces.set(files as i64);
            metrics.kept_without_bundle.set(world.kept() as i64);
            // Before what the report is held against: what that calls wanted is wanted already.
            outlets.wanted.send_if_modified(|old| {
                let other = *old != wanted;
                if other {
                    *old = wanted;
                }
                other
            });
            outlets.seen.send_if_modified(|old| {
                let same = old.as_ref().is_some_and(|old| old.lists == lists && old.expected == expected);
                if !same {
                    *old = Some(Arc::new(Seen { lists, expected }));
                }
                !same
            });
        }
    }
}

fn read(object: DeserializeGuard<FalcoBundle>) -> Bundle {
    match object.0 {
        Ok(bundle) => Bundle {
            namespace: bundle.name_any(),
            owner_uid: Some(bundle.spec.namespace_uid.clone()),
            spec: Ok(bundle.spec),
        },
        Err(invalid) => Bundle {
            namespace: invalid.metadata.name.clone().unwrap_or_default(),
            owner_uid: invalid.metadata.owner_references.iter().flatten().next().map(|owner| owner.uid.clone()),
            spec: Err(invalid.error),
        },
    }
}

async fn reached(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let left = at.duration_since(Timestamp::now()).max(SignedDuration::ZERO);
            tokio::time::sleep(left.unsigned_abs()).await;
        }
    }
}

/// The files of the set that was confirmed last, by namespace: they may be all that is left of a lost world.
async fn in_force(state_dir: &Path) -> BTreeMap<String, RulesText> {
    let set = state_dir.join("good");
    let read = move || {
        let manifest = std::fs::read(set.join("set.json")).ok();
        let manifest: serde_json::Value =
            manifest.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let folder = set.join("rules");
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let files = entries.filter_map(|entry| {
            let path = entry.path();
            let namespace = path.file_name()?.to_str()?.strip_suffix(".yaml")?.to_owned();
            let text = std::fs::read_to_string(&path).ok()?;
            let hash = hex::encode(Sha256::digest(text.as_bytes()));
            let known = &manifest["files"][&namespace]["rules"];
            let object = |rule: &String| known[rule].as_str().unwrap_or_default().to_owned();
            let rules = rule_names(&text).into_iter().map(|rule| (rule.clone(), object(&rule))).collect();
            Some((namespace, RulesText { hash, text, rules }))
        });
        files.collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// The names of the rules of a file that this agent has written.
fn rule_names(text: &str) -> Vec<String> {
    let items: Vec<serde_yaml::Value> = serde_yaml::from_str(text).unwrap_or_default();
    items.iter().filter_map(|item| Some(item.get("rule")?.as_str()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::world::Settled;
    use serde_json::json;

    fn object(name: &str, spec: &serde_json::Value) -> DeserializeGuard<FalcoBundle> {
        let owner = json!([{ "apiVersion": "v1", "kind": "Namespace", "name": name, "uid": "u1" }]);
        let object = json!({
            "apiVersion": "mumoshu.github.io/v1alpha1", "kind": "FalcoBundle",
            "metadata": { "name": name, "ownerReferences": owner }, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    fn target(text: &str) -> serde_json::Value {
        let hash = hex::encode(Sha256::digest(text.as_bytes()));
        json!({ "hash": hash, "items": [{ "name": "x", "ruleName": "x", "text": text }] })
    }

    #[tokio::test]
    async fn what_the_watch_shows_is_what_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let rules = dir.path().join(".sets/1/rules");
        std::fs::create_dir_all(&rules).unwrap();
        std::os::unix::fs::symlink(".sets/1", dir.path().join("good")).unwrap();
        for namespace in ["odd", "gone"] {
            std::fs::write(rules.join(format!("{namespace}.yaml")), "- rule: r1\n").unwrap();
        }
        std::fs::write(rules.join("other.txt"), "").unwrap();

        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(object("a", &json!({ "namespaceUid": "u1", "target": target("- rule: one\n") })))),
            Ok(Event::InitApply(object("odd", &json!({ "namespaceUid": 5 })))),
            Ok(Event::InitApply(object("b", &json!({ "namespaceUid": "u1", "news": true, "target": target("x") })))),
            Ok(Event::InitDone),
            Ok(Event::Apply(object("b", &json!({ "namespaceUid": "u1" })))),
            Ok(Event::Delete(object("b", &json!({ "namespaceUid": "u1" })))),
        ];
        let (wanted_tx, wanted) = watch::channel(Wanted::default());
        let (seen_tx, seen) = watch::channel(None);
        let metrics = AgentMetrics::register(&prometheus::Registry::new()).unwrap();
        let outlets = Outlets { wanted: wanted_tx, seen: seen_tx };
        follow(futures::stream::iter(events), &mut World::new("n1"), dir.path(), &outlets, &metrics).await;

        let wanted = wanted.borrow();
        let texts: Vec<_> = wanted
            .files
            .iter()
            .map(|(name, file)| (name.as_str(), file.target.as_ref().map(|it| (it.text.as_str(), it.rules.len()))))
            .collect();
        assert!(wanted.synced);
        assert_eq!(
            texts,
            [
                ("a", Some(("- rule: one\n", 1))),
                ("gone", Some(("- rule: r1\n", 1))),
                ("odd", Some(("- rule: r1\n", 1))),
            ]
        );
        let seen = seen.borrow().clone().unwrap();
        assert_eq!((seen.lists, &seen.expected["odd"].settled), (1, &Settled::Unknown));
        assert_eq!(seen.expected["gone"].settled, Settled::Nothing);
        assert_eq!((metrics.namespaces.get(), metrics.kept_without_bundle.get()), (3, 1));
    }

    #[test]
    fn watches_of_different_agents_end_at_different_times() {
        let lifetimes: std::collections::BTreeSet<_> = (0..20).map(|node| lifetime(&format!("n{node}"))).collect();
        assert!(lifetimes.len() > 10 && lifetimes.iter().all(|seconds| (240..480).contains(seconds)));
    }
}
