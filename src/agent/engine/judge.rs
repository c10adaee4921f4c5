//! Whether a set is worth a swap, and whose fault it is if not.

use std::collections::BTreeMap;

use super::check::{Checker, Verdict};
use super::config::Base;
use super::driver::{Driver, Turn, storage, trouble};
use super::plan::Plan;
use super::sets::Set;
use crate::agent::RulesText;
use crate::api::{Fault, NodeFaultReason};

impl Driver {
    fn checker(&self, base: &Base) -> Checker {
        Checker {
            program: self.options.program(),
            arguments: self.command.check_arguments(base, self.options.rule_matching),
            limit: self.options.check_timeout,
        }
    }

    async fn check(&mut self, set: &Set, base: &Base) -> Verdict {
        let (verdict, took) = self.checker(base).dry_run(&self.store.check_config(&set.id)).await;
        if verdict.passed() {
            self.load = took;
        }
        self.observer.checked(verdict.passed(), took);
        verdict
    }

    async fn check_files(&mut self, files: &BTreeMap<String, RulesText>, base: &Base) -> Turn<(Set, Verdict)> {
        let set = self.store.write(base, files, self.options.shape()).map_err(storage)?;
        let verdict = self.check(&set, base).await;
        Ok((set, verdict))
    }

    /// Whether the node's Falco accepts the set of this plan. If it does not, one file is found to be at fault and
    /// barred, and the next plan is without it; where nobody's file is, the node or its base is.
    ///
    /// The control is the same check on this node with the last good files, then with the base alone.
    pub(super) async fn judge(&mut self, plan: &Plan, set: &Set, base: &Base) -> Turn<bool> {
        let verdict = self.check(set, base).await;
        match verdict {
            Verdict::Passed => return Ok(true),
            Verdict::NotRun(why) => return Err(trouble(NodeFaultReason::FalcoDown, why)),
            _ => {}
        }
        let settled = &plan.settled;
        if !plan.candidates.is_empty() {
            let (_, control) = self.check_files(settled, base).await?;
            if control.passed() {
                let all = plan.candidates.len();
                let (count, failing, verdict) = {
                    let files = |count| plan.files(count);
                    self.first_failing(all, files, (set.clone(), verdict), base).await?
                };
                if let Some(candidate) = plan.candidates.get(count - 1) {
                    let fault = if candidate.since.is_some() { Fault::Refused } else { Fault::BaseChanged };
                    let file = (candidate.namespace.clone(), candidate.text.hash.clone());
                    self.bar(file, fault, &failing, &verdict, base).await;
                }
                return Ok(false);
            }
        }
        let (_, alone) = self.check_files(&BTreeMap::new(), base).await?;
        if !alone.passed() {
            return Err(Self::base_at_fault(&alone));
        }
        // The base passes and the last good files do not, on it: those at fault are left out.
        let order: Vec<(String, RulesText)> = settled.iter().map(|(ns, text)| (ns.clone(), text.clone())).collect();
        let files = |count| order.iter().take(count).cloned().collect();
        let last = self.check_files(settled, base).await?;
        if order.is_empty() || last.1.passed() {
            let message = format!("Falco refuses and accepts the same files in turn: {}", last.1.words());
            return Err(trouble(NodeFaultReason::BaseRefused, message));
        }
        let (count, failing, verdict) = self.first_failing(order.len(), files, last, base).await?;
        if let Some((namespace, text)) = order.get(count - 1) {
            let file = (namespace.clone(), text.hash.clone());
            self.bar(file, Fault::BaseChanged, &failing, &verdict, base).await;
        }
        Ok(false)
    }

    fn base_at_fault(alone: &Verdict) -> crate::api::NodeTrouble {
        let what = match alone {
            Verdict::NotRun(why) => return trouble(NodeFaultReason::FalcoDown, why),
            Verdict::Refused(_) => "Falco refuses the base configuration or its rules files",
            _ => "Falco can't check even the base configuration alone",
        };
        trouble(NodeFaultReason::BaseRefused, format!("{what}: {}", alone.words()))
    }

    /// The smallest number of files, in their order, with which the check fails, with that set and its verdict. With
    /// none it passes, with `all` it fails, as `last` says.
    async fn first_failing(
        &mut self,
        all: usize,
        files: impl Fn(usize) -> BTreeMap<String, RulesText>,
        last: (Set, Verdict),
        base: &Base,
    ) -> Turn<(usize, Set, Verdict)> {
        let (mut passing, mut failing, mut found) = (0, all, last);
        while failing - passing > 1 {
            let middle = passing.midpoint(failing);
            let (set, verdict) = self.check_files(&files(middle), base).await?;
            if verdict.passed() {
                passing = middle;
            } else {
                failing = middle;
                found = (set, verdict);
            }
        }
        Ok((failing, found.0, found.1))
    }

    /// A file is not tried again on this base, with what Falco says about it.
    async fn bar(&mut self, file: (String, String), fault: Fault, set: &Set, verdict: &Verdict, base: &Base) {
        let path = self.store.rules_file(&set.id, &file.0);
        let config = self.store.check_config(&set.id);
        let message = match verdict {
            Verdict::Refused(log) => {
                let blamed = self.checker(base).blame(&config, &base.rules_files, &path).await;
                blamed.unwrap_or_else(|| log.replace(&format!("{}/", path.parent().unwrap_or(&path).display()), ""))
            }
            other => other.words(),
        };
        tracing::warn!(namespace = file.0, hash = file.1, ?fault, "{message}");
        self.verdicts.insert(file, (fault, message));
    }
}
