//! Numbers for Prometheus.

use std::time::Duration;

use axum::{http::header, response::IntoResponse};
use prometheus_client::{
    encoding::{EncodeLabelSet, prometheus_text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{encodings::Usage, problem::Problem, queue::Depth, work::Times};

/// Upper bounds of the times that are counted together, in seconds.
const SECONDS: [f64; 13] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

/// The numbers of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    stages: Family<StageLabels, Histogram>,
    images: Counter,
    waiting: Gauge,
    running: Gauge,
    encodings: Gauge,
    encoding_bytes: Gauge,
    uploads: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("zeg");
        let requests = Family::default();
        let stages = Family::new_with_constructor(histogram as fn() -> Histogram);
        let images = Counter::default();
        let gauge = Gauge::default;
        let (waiting, running, encodings, encoding_bytes, uploads) =
            (gauge(), gauge(), gauge(), gauge(), gauge());
        registry.register("requests", "Answered requests", requests.clone());
        registry.register(
            "stage_seconds",
            "Time of the stages of a request",
            stages.clone(),
        );
        registry.register("images", "Images that were encoded", images.clone());
        registry.register("queue_waiting", "Requests that wait", waiting.clone());
        registry.register("queue_running", "Requests worked on", running.clone());
        registry.register(
            "encodings",
            "Encoded images that are kept",
            encodings.clone(),
        );
        registry.register(
            "encoding_bytes",
            "Memory of the encoded images that are kept",
            encoding_bytes.clone(),
        );
        registry.register(
            "upload_bytes",
            "Memory of the requests that are received or wait",
            uploads.clone(),
        );
        Self {
            registry,
            requests,
            stages,
            images,
            waiting,
            running,
            encodings,
            encoding_bytes,
            uploads,
        }
    }

    /// Counts an answered request.
    ///
    /// - `route`: pattern of the path, such as `/v1/encodings/{id}`, so that the number of series is bounded
    pub(crate) fn count(&self, route: &str, method: &str, code: u16) {
        let labels = RequestLabels {
            route: route.to_owned(),
            method: method.to_owned(),
            code,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts the times of a request, and the image if it was encoded.
    pub(crate) fn observe(&self, times: &Times) {
        let stages = [
            ("queued", times.queued),
            ("decode", times.decode),
            ("text", times.text),
            ("encode", times.encode),
            ("score", times.score),
            ("write", times.write),
        ];
        for (stage, time) in stages {
            // A stage that a request does not have would make the mean smaller than it is.
            if time == Duration::ZERO && stage != "queued" {
                continue;
            }
            let labels = StageLabels { stage };
            self.stages
                .get_or_create(&labels)
                .observe(time.as_secs_f64());
        }
        if times.encode > Duration::ZERO {
            self.images.inc();
        }
    }

    /// Returns all numbers as text.
    ///
    /// - `uploads`: bytes of the requests that are received or wait
    ///
    /// # Errors
    /// Returns a problem if they cannot be written.
    pub(crate) fn text(
        &self,
        queue: Depth,
        encodings: Usage,
        uploads: usize,
    ) -> Result<impl IntoResponse + use<>, Problem> {
        self.waiting.set(queue.waiting as i64);
        self.running.set(queue.running as i64);
        self.encodings.set(encodings.count as i64);
        self.encoding_bytes.set(encodings.bytes as i64);
        self.uploads.set(uploads as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(Problem::internal)?;
        let kind = (
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        );
        Ok(([kind], text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_routes_and_stages() {
        let metrics = Metrics::new();
        metrics.count("/v1/segment", "POST", 200);
        metrics.count("/v1/segment", "POST", 429);
        metrics.observe(&Times {
            encode: Duration::from_millis(30),
            ..Times::default()
        });
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        for part in [
            "zeg_requests_total{route=\"/v1/segment\",method=\"POST\",code=\"429\"} 1",
            "zeg_stage_seconds_bucket{stage=\"encode\",le=\"0.05\"} 1",
            "zeg_images_total 1",
            "zeg_queue_waiting 0",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("stage=\"text\""), "{text}");
    }
}
