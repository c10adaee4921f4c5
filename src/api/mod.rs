//! The custom resources, and nothing else: what developers write, what the controller and the agents tell each other,
//! and what everybody reads. No client, no runtime, no decision lives here.
//!
//! Every reader decodes leniently: unknown fields are dropped, unknown enum values become an `Unknown` variant, and a
//! spec that does not decode concerns that one object only (see [`kube::core::DeserializeGuard`]).

// One printer column after another looks like a repetition to the lint; kube's derive wants them so.
#![allow(clippy::duplicated_attributes)]

mod authored;
mod bundle;
mod catalog;
mod conditions;
mod node;
mod phase;
mod rules_file;

pub use authored::{
    Authored, AuthoredStatus, ExceptionFields, ExceptionSpec, FalcoList, FalcoListSpec, FalcoMacro, FalcoMacroSpec,
    FalcoRule, FalcoRuleSpec, ItemPhase, Priority,
};
pub use bundle::{BundleFile, BundleItem, FalcoBundle, FalcoBundleSpec, Rollout, RolloutKind};
pub use catalog::{CatalogField, CatalogItem, FalcoCatalog, FalcoCatalogSpec};
pub use conditions::{Reason, condition, condition_is, set_condition};
pub use node::{
    AgentPod, FalcoNode, FalcoNodeSpec, FalcoNodeStatus, FalcoState, Fault, NodeFaultReason, NodeNamespace,
    NodeTrouble, Proof, add_to_sum, sum_text, take_from_sum,
};
pub use phase::{Event, Phase};
pub use rules_file::{FailingNode, FalcoRulesFile, FalcoRulesFileSpec, FalcoRulesFileStatus, NodeCounts};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;

/// The API group of every kind.
pub const GROUP: &str = "mumoshu.github.io";
/// The version of every kind.
pub const VERSION: &str = "v1alpha1";
/// The one finalizer, carried by [`FalcoRulesFile`] only.
pub const FINALIZER: &str = "mumoshu.github.io/rules-file";
/// What stands for "no file" wherever a hash is expected.
pub const NONE: &str = "none";

/// Every custom resource definition, in the order in which `crd/` lists them.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        unseen_at_first(FalcoRule::crd()),
        unseen_at_first(FalcoMacro::crd()),
        unseen_at_first(FalcoList::crd()),
        FalcoRulesFile::crd(),
        FalcoBundle::crd(),
        FalcoNode::crd(),
        FalcoCatalog::crd(),
    ]
}

/// Gives objects a status before the controller has seen them. Tools that wait for an object take one without a status
/// for one that is as it should be (kstatus, and with it Flux), and a rule is not in force just because it was written.
fn unseen_at_first(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let unseen = serde_json::json!({ "observedGeneration": -1, "phase": "Pending" });
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let status = schema.and_then(|schema| schema.properties.as_mut()).and_then(|all| all.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(unseen.clone()));
        }
    }
    crd
}
