//! A simulated account in a process of its own, for one test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_eks::config::Credentials;
use aws_sdk_eks::types::NodegroupScalingConfig;
use operator::cloud::eks::{Eks, Settings};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub const CLUSTER: &str = "pinnace-sandbox";
pub const NODE_ROLE: &str = "arn:aws:iam::111122223333:role/pinnace-gpu-node";
const REGION: &str = "us-east-1";

/// Stopped when dropped.
pub struct Simulator {
    process: Child,
    address: SocketAddr,
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Gone already: nothing to stop.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Between two looks at a condition.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("AWS_SIM_BIN") {
        return path.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| workspace().join("target"));
    workspace().join(target).join("debug/aws-sim")
}

impl Simulator {
    /// Hundreds of times faster than the clock.
    pub async fn start() -> Self {
        Self::start_with(&["--time-scale", "600"]).await
    }

    pub async fn start_with(args: &[&str]) -> Self {
        let binary = binary();
        let policy = workspace().join("terraform/modules/operator-iam/policy.json");
        // Freed before the simulator takes it: another process may come in between, so it is tried again.
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = free.local_addr().expect("bound");
            drop(free);
            let process = Command::new(&binary)
                .args(["serve", "--listen", &address.to_string(), "--cluster", CLUSTER])
                .args(["--region", REGION, "--node-role", NODE_ROLE, "--iam-policy"])
                .arg(&policy)
                .args(args)
                .env("RUST_LOG", "warn")
                .stdin(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| {
                    panic!("{}: {error}; `cargo build -p aws-sim` makes it", binary.display())
                });
            let mut simulator = Self { process, address };
            if simulator.is_up().await {
                return simulator;
            }
        }
        panic!("the simulator does not start");
    }

    async fn is_up(&mut self) -> bool {
        for _ in 0..500 {
            if TcpStream::connect(self.address).await.is_ok() {
                return true;
            }
            if self
                .process
                .try_wait()
                .expect("a child of this process")
                .is_some()
            {
                return false;
            }
            pause().await;
        }
        false
    }

    async fn sdk(&self, access_key: &str) -> SdkConfig {
        aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new(access_key, "secret", None, None, "test"))
            .load()
            .await
    }

    /// The seam, bound by the operator's IAM policy.
    pub async fn operator(&self, guard: impl Fn() -> bool + Send + Sync + 'static) -> Eks {
        let settings = Settings {
            cluster: CLUSTER.to_owned(),
            region: REGION.to_owned(),
            endpoint_url: Some(format!("http://{}", self.address)),
        };
        Eks::with_config(
            &self.sdk("AKIAOPERATOR").await,
            settings,
            std::sync::Arc::new(guard),
        )
    }

    /// A group made by somebody else, without our tags.
    pub async fn create_foreign_group(&self, name: &str) {
        let config = aws_sdk_eks::config::Builder::from(&self.sdk("AKIAADMIN").await)
            .endpoint_url(format!("http://{}", self.address))
            .build();
        let sizes = NodegroupScalingConfig::builder()
            .min_size(0)
            .desired_size(0)
            .max_size(1);
        aws_sdk_eks::Client::from_conf(config)
            .create_nodegroup()
            .cluster_name(CLUSTER)
            .nodegroup_name(name)
            .node_role(NODE_ROLE)
            .subnets("subnet-0a1")
            .instance_types("g5.xlarge")
            .scaling_config(sizes.build())
            .send()
            .await
            .expect("the administrator may");
    }

    /// Calls of AWS so far: (action, mutation, outcome).
    async fn journal(&self) -> Vec<(String, bool, String)> {
        let journal = self.sim("GET", "journal", Value::Null).await;
        let entries = journal["entries"].as_array().expect("a list").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        entries
            .filter(|entry| entry["principal"] == "AKIAOPERATOR")
            .map(|entry| {
                (
                    text(&entry["action"]),
                    entry["mutation"] == true,
                    text(&entry["outcome"]),
                )
            })
            .collect()
    }

    pub async fn calls(&self) -> Vec<String> {
        let calls = self.journal().await.into_iter();
        calls.map(|(action, _, _)| action).collect()
    }

    /// Mutations that were carried out.
    pub async fn mutations(&self) -> Vec<String> {
        let calls = self.journal().await.into_iter();
        calls
            .filter(|(_, mutation, outcome)| *mutation && outcome == "OK")
            .map(|(action, _, _)| action)
            .collect()
    }

    pub async fn count(&self, action: &str) -> usize {
        self.calls()
            .await
            .iter()
            .filter(|called| *called == action)
            .count()
    }

    /// Calls that the operator's policy does not allow.
    pub async fn denied(&self) -> Vec<String> {
        let calls = self.journal().await.into_iter();
        calls
            .filter(|(_, _, outcome)| outcome.contains("Denied") || outcome.contains("Unauthorized"))
            .map(|(action, _, _)| action)
            .collect()
    }

    pub async fn set_capacity(&self, instance_type: &str, zone: &str, available: Option<u32>) {
        let body = json!({ "type": instance_type, "zone": zone, "available": available });
        self.sim("PUT", "capacity", body).await;
    }

    /// The next `count` calls are committed, and their answers kept.
    pub async fn hold_answers(&self, action: &str, count: u32) {
        let body = json!({ "action": action, "point": "after", "count": count });
        self.sim("POST", "holds", body).await;
    }

    pub async fn wait_held(&self, action: &str) {
        for _ in 0..500 {
            let holds = self.sim("GET", "holds", Value::Null).await;
            let held = holds["held"].as_array().expect("a list");
            if held.iter().any(|held| held["action"] == action) {
                return;
            }
            pause().await;
        }
        panic!("{action} was not called");
    }

    pub async fn release_holds(&self) {
        self.sim("DELETE", "holds", Value::Null).await;
    }

    /// One request to the control API, and its answer.
    async fn sim(&self, method: &str, path: &str, body: Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = format!(
            "{method} /_sim/{path} HTTP/1.0\r\nhost: sim\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(head.contains(" 200 "), "{method} {path}: {answer}");
        serde_json::from_str(body).expect("JSON")
    }
}
