//! `XBackendTrafficPolicy`: how much of a Service's traffic may be retries.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_saphyr::Spanned;
use towpath_gateway_core::{RetryBudget, RetryConstraint};

use crate::compile::Work;
use crate::document::Defect;
use crate::gateway::GatewayState;
use crate::objects::Objects;
use crate::resources::leaf::Span;
use crate::resources::traffic::{BackendTrafficPolicySpec, RetryConstraintSpec};
use crate::status::{Refusal, Verdict, condition};
use crate::{ObjectName, Problem, service_policy};

/// Lengths that an interval may have (Gateway API, `BudgetDetails`, `RequestRate`).
const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
/// Most retries that are always allowed (Gateway API, `RequestRate.count`).
const MAX_COUNT: u32 = 1_000_000;

/// Budgets by Service. Of two policies for one Service the older holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryBudgets {
    by_service: HashMap<ObjectName, Arc<RetryBudget>>,
    judged: Vec<(ObjectName, Verdict)>,
}

/// What is wrong with a policy by itself.
pub(crate) fn check(spec: &BackendTrafficPolicySpec, found: &mut Vec<Defect>) {
    let Some(constraint) = &spec.retry_constraint else { return };
    let (budget, rate) = (constraint.budget.as_ref(), constraint.min_retry_rate.as_ref());
    if let Some(percent) = budget.and_then(|b| b.percent.as_ref()).filter(|percent| percent.value > 100) {
        found.push(Defect::new(percent.referenced, "a percentage is 0 to 100"));
    }
    if let Some(count) = rate.and_then(|r| r.count.as_ref()).filter(|c| !(1..=MAX_COUNT).contains(&c.value)) {
        found.push(Defect::new(count.referenced, format!("the count is 1 to {MAX_COUNT}")));
    }
    let intervals = [budget.and_then(|b| b.interval.as_ref()), rate.and_then(|r| r.interval.as_ref())];
    for interval in intervals.into_iter().flatten().filter(|interval| !INTERVALS.contains(&interval.value.0))
    {
        found.push(Defect::new(interval.referenced, "an interval is 1s to 1h"));
    }
}

impl RetryBudgets {
    /// A budget whose constraint did not change goes on counting.
    pub(crate) fn compile(objects: &Objects, before: Option<&Self>, problems: &mut Vec<Problem>) -> Self {
        let mut budgets = Self::default();
        let mut all: Vec<_> = objects.backend_traffic_policies.values().collect();
        all.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        for policy in all {
            if let Some(session) = &policy.spec.session_persistence {
                let message = "`sessionPersistence` of a policy is not served: it has no effect";
                let problem = policy.error(session.referenced, message);
                problems.push(problem.suggest("write it in the rules of the routes"));
            }
            let Some(constraint) = policy.spec.retry_constraint.as_ref().map(constraint) else { continue };
            let mut accepted = Err(Refusal::new("TargetNotFound", "nothing of what it is for is there"));
            for target in &policy.spec.target_refs {
                let Some(service) = service_policy::service(objects, policy, target, problems) else {
                    continue;
                };
                let kept = before.and_then(|before| before.by_service.get(&service));
                let kept = kept.filter(|kept| kept.constraint() == constraint).cloned();
                match budgets.by_service.entry(service) {
                    Entry::Vacant(place) => {
                        place.insert(kept.unwrap_or_else(|| Arc::new(RetryBudget::new(constraint))));
                        accepted = Ok(());
                    }
                    Entry::Occupied(_) => {
                        let message =
                            format!("an older XBackendTrafficPolicy is for {} already", target.name.value);
                        problems.push(policy.warning(target.name.referenced, message.clone()));
                        accepted = accepted.or(Err(Refusal::new("Conflicted", message)));
                    }
                }
            }
            budgets.judged.push((policy.name.clone(), accepted));
        }
        budgets
    }

    /// What bounds retries to a Service.
    pub(crate) fn of(&self, service: &ObjectName) -> Option<Arc<RetryBudget>> {
        self.by_service.get(service).cloned()
    }
}

fn constraint(spec: &RetryConstraintSpec) -> RetryConstraint {
    let default = RetryConstraint::default();
    let (budget, rate) = (spec.budget.as_ref(), spec.min_retry_rate.as_ref());
    let number = |given: Option<&Spanned<u32>>, default| given.map_or(default, |given| given.value);
    let length = |given: Option<&Spanned<Span>>, default| given.map_or(default, |given| given.value.0);
    RetryConstraint {
        percent: number(budget.and_then(|b| b.percent.as_ref()), default.percent),
        interval: length(budget.and_then(|b| b.interval.as_ref()), default.interval),
        min_retries: number(rate.and_then(|r| r.count.as_ref()), default.min_retries),
        min_interval: length(rate.and_then(|r| r.interval.as_ref()), default.min_interval),
    }
}

/// The status of each policy.
pub(crate) fn report(work: &mut Work<'_>, gateways: &[GatewayState<'_>]) {
    let mut items = Vec::new();
    for (name, accepted) in &work.backends.budgets.judged {
        let Some(policy) = work.objects.backend_traffic_policies.get(name) else { continue };
        let conditions = [condition("Accepted", "Accepted", accepted, policy.generation)];
        items.extend(service_policy::status(
            policy,
            &policy.spec.target_refs,
            gateways,
            &work.controller,
            &conditions,
        ));
    }
    work.status.extend(items);
}
