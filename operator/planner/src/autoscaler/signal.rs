//! One metric and the load: how many replicas it asks for.

use crds::autoscaling::{Autoscaling, Metric, MetricType};

use super::load::{Load, Total, WINDOWS};
use super::window;

/// Around the target nothing changes (HorizontalPodAutoscaler's default).
const TOLERANCE: f64 = 0.1;
/// Rates are rounded where they are measured: 8.0001 replicas are 8.
const MEASURED: f64 = 0.001;
/// A delay moves the number of replicas by a tenth at most: it is not proportional to it.
const STEP: f64 = 0.1;
/// Fewer requests than these say nothing of a 95th percentile.
const ENOUGH_DELAYS: u64 = 20;
/// Delays below this share of the target let replicas go.
const RELAXED: f64 = 0.5;
/// ... if those that stay are not busier than this afterwards.
const BUSY_AFTER_PERCENT: f64 = 70.0;
/// A queue that is noticed where no target says what is too long.
const QUEUE_NOTICED_MS: f64 = 1.0;

/// Replicas that the metric asks for, bounds not regarded; `None`: it cannot be read.
#[must_use]
pub fn recommend(metric: &Metric, spec: &Autoscaling, load: &Load) -> Option<u32> {
    match metric.type_ {
        MetricType::RequestRate => {
            let target = rate_target(metric)?;
            Some(proportional(load.offered(target)?, target, load.current))
        }
        MetricType::GpuUtilization => {
            let target = f64::from(metric.gpu_utilization.as_ref()?.target_percent);
            let total = load.total(|replica| replica.gpu_percent, target)?;
            let asked = proportional(total, target, load.current);
            // A stuck GPU shows 100 % whatever is asked of it.
            let believed = asked <= load.current || load_agrees(spec, load);
            Some(if believed { asked } else { load.current })
        }
        MetricType::QueueDelay => {
            let target = queue_target_ms(metric)?;
            by_delay(target, load)
        }
    }
}

fn rate_target(metric: &Metric) -> Option<f64> {
    Some(f64::from(metric.request_rate.as_ref()?.target_per_replica))
}

fn queue_target_ms(metric: &Metric) -> Option<f64> {
    let target = window::seconds(&metric.queue_delay.as_ref()?.target);
    Some(target.as_secs_f64() * 1000.0)
}

/// `total / target`, rounded up, outside the tolerance; never the other way for want of answers.
fn proportional(total: Total, target: f64, current: u32) -> u32 {
    let at_target = target * f64::from(current.max(1));
    if total.low > at_target * (1.0 + TOLERANCE) {
        return replicas(total.low / target);
    }
    if total.high < at_target * (1.0 - TOLERANCE) {
        return replicas(total.high / target).min(current);
    }
    current
}

fn replicas(wanted: f64) -> u32 {
    // `as` saturates.
    (wanted * (1.0 - MEASURED)).ceil().max(0.0) as u32
}

/// More replicas while the delay is too long, one step at a time: the next one when those of the last one have served for a
/// window of delays, else what was measured before they came would count against them.
fn by_delay(target_ms: f64, load: &Load) -> Option<u32> {
    let current = load.current;
    let step = replicas(f64::from(current) * STEP).max(1);
    if !load.is_known() {
        return None;
    }
    let delay = load.queue_delay_p95_ms().unwrap_or(0.0);
    let seen = load.delays();
    if seen >= ENOUGH_DELAYS && delay > target_ms {
        let grown = load.ready >= current && load.youngest_seconds >= WINDOWS[0];
        return Some(if grown {
            current.saturating_add(step)
        } else {
            current
        });
    }
    let fewer = current.saturating_sub(step).max(1);
    let busy_after = load.busy_percent()? * f64::from(current) / f64::from(fewer);
    let relaxed = seen == 0 || (seen >= ENOUGH_DELAYS && delay < target_ms * RELAXED);
    Some(if relaxed && busy_after < BUSY_AFTER_PERCENT {
        fewer
    } else {
        current
    })
}

/// Whether requests or the queue say too that there is much to do.
fn load_agrees(spec: &Autoscaling, load: &Load) -> bool {
    let queue_target = spec.metrics.iter().filter_map(queue_target_ms).reduce(f64::min);
    let noticed = queue_target.map_or(QUEUE_NOTICED_MS, |target| target * RELAXED);
    let queues =
        load.delays() >= ENOUGH_DELAYS && load.queue_delay_p95_ms().is_some_and(|delay| delay >= noticed);
    let rate_target = spec.metrics.iter().filter_map(rate_target).reduce(f64::min);
    let rate = rate_target.is_some_and(|target| {
        let at_target = target * f64::from(load.current) * (1.0 - TOLERANCE);
        load.offered(target).is_some_and(|total| total.low >= at_target)
    });
    queues || rate || load.refuses()
}
