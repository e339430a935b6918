//! Metrics of the operator, in the text form of OpenMetrics.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// How a pass over a pool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Result {
    /// Something was written.
    Changed,
    /// Nothing was written.
    Unchanged,
    /// It failed and is repeated.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: Result,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CategoryLabel {
    category: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    namespace: String,
    pool: String,
}

/// What is told of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolState {
    /// It serves as declared.
    pub ready: bool,
    /// End of the certificate that it shows, in seconds since 1970.
    pub certificate_end: Option<i64>,
    /// Its users are those of the directory; `None`: it has none.
    pub directory_synced: Option<bool>,
    /// End of the last run over the directory that succeeded, in seconds since 1970.
    pub directory_success: Option<i64>,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    passes: Family<ResultLabel, Counter>,
    failures: Family<CategoryLabel, Counter>,
    writes: Family<KindLabel, Counter>,
    duration: Histogram,
    ready: Family<PoolLabels, Gauge>,
    certificate_end: Family<PoolLabels, Gauge>,
    directory_synced: Family<PoolLabels, Gauge>,
    directory_success: Family<PoolLabels, Gauge>,
}

impl Metrics {
    /// Metrics of an operator of this version.
    pub fn new(version: &str) -> Self {
        let mut registry = Registry::with_prefix("commpool_operator");
        registry.register("build", "Version of the operator", Info::new(vec![("version", version.to_owned())]));
        let passes = Family::default();
        registry.register("passes", "Passes over a pool, by result", passes.clone());
        let failures = Family::default();
        registry.register("failures", "Passes that failed, by category", failures.clone());
        let writes = Family::default();
        registry.register("writes", "Objects and statuses written, by kind", writes.clone());
        let duration = Histogram::new(exponential_buckets(0.005, 2.0, 12));
        registry.register("pass_duration_seconds", "Duration of a pass over a pool", duration.clone());
        let ready = Family::default();
        registry.register("pool_ready", "Whether a pool serves as declared", ready.clone());
        let certificate_end = Family::default();
        registry.register(
            "certificate_not_after_seconds",
            "End of the certificate that a pool shows, in seconds since 1970",
            certificate_end.clone(),
        );
        let directory_synced = Family::default();
        registry.register(
            "directory_synced",
            "Whether the users of a pool with a directory are those of the directory",
            directory_synced.clone(),
        );
        let directory_success = Family::default();
        registry.register(
            "directory_last_success_seconds",
            "End of the last run over the directory that succeeded, in seconds since 1970",
            directory_success.clone(),
        );
        Self {
            registry,
            passes,
            failures,
            writes,
            duration,
            ready,
            certificate_end,
            directory_synced,
            directory_success,
        }
    }

    /// Counts a pass.
    pub fn pass(&self, result: Result, duration: Duration) {
        self.passes.get_or_create(&ResultLabel { result }).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts a failure.
    pub fn failure(&self, category: &'static str) {
        self.failures.get_or_create(&CategoryLabel { category }).inc();
    }

    /// Counts a write.
    pub fn write(&self, kind: &'static str) {
        self.writes.get_or_create(&KindLabel { kind }).inc();
    }

    /// Notes the state of a pool.
    pub fn pool(&self, namespace: &str, pool: &str, state: &PoolState) {
        let labels = PoolLabels { namespace: namespace.to_owned(), pool: pool.to_owned() };
        set(&self.ready, &labels, Some(i64::from(state.ready)));
        set(&self.certificate_end, &labels, state.certificate_end);
        set(&self.directory_synced, &labels, state.directory_synced.map(i64::from));
        set(&self.directory_success, &labels, state.directory_success);
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, namespace: &str, pool: &str) {
        let labels = PoolLabels { namespace: namespace.to_owned(), pool: pool.to_owned() };
        for family in [&self.ready, &self.certificate_end, &self.directory_synced, &self.directory_success] {
            set(family, &labels, None);
        }
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// If a value cannot be written, which no value here can cause.
    pub fn text(&self) -> std::result::Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Sets the value of a pool, or takes its series away.
fn set(family: &Family<PoolLabels, Gauge>, labels: &PoolLabels, value: Option<i64>) {
    match value {
        Some(value) => drop(family.get_or_create(labels).set(value)),
        None => drop(family.remove(labels)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new("1.2.3");
        let directory =
            PoolState { directory_synced: Some(true), directory_success: Some(1_795_500_000), ..PoolState::default() };
        metrics.pool("chat", "demo", &PoolState { ready: true, certificate_end: Some(7), ..directory });
        metrics.pass(Result::Unchanged, Duration::from_millis(3));
        let text = metrics.text().unwrap();
        assert!(text.contains(r#"commpool_operator_pool_ready{namespace="chat",pool="demo"} 1"#), "{text}");
        assert!(text.contains(r#"commpool_operator_passes_total{result="Unchanged"} 1"#), "{text}");
        assert!(text.contains(r#"version="1.2.3""#), "{text}");
        for series in ["directory_synced", "directory_last_success_seconds"] {
            assert!(
                text.contains(&format!("commpool_operator_{series}{{namespace=\"chat\",pool=\"demo\"}}")),
                "{text}"
            );
        }
        metrics.pool("chat", "demo", &PoolState::default());
        assert!(!metrics.text().unwrap().contains("directory_synced{"), "the directory was taken away");
        metrics.forget("chat", "demo");
        assert!(!metrics.text().unwrap().contains("demo"));
    }
}
