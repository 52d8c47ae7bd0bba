//! Instance types: what DescribeInstanceTypes answers, what a node of the type can allocate, and what an
//! hour of it costs.

use crate::assumptions::SPOT_PRICE_SHARE;

/// Date of the prices below: us-east-1, Linux, on demand (Karpenter's generated table).
pub const PRICES_AS_OF: &str = "2026-07-20";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub name: &'static str,
    pub count: u32,
    pub memory_mib: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceType {
    pub name: &'static str,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub gpu: Option<Gpu>,
    pub usd_per_hour: f64,
    /// Pods by EKS's eni-max-pods table.
    pub max_pods: u32,
    pub interfaces: u32,
    pub addresses_per_interface: u32,
}

/// Whether an hour is paid at the list price or at the spot market's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Purchase {
    #[serde(rename = "ON_DEMAND", alias = "OnDemand")]
    OnDemand,
    #[serde(rename = "SPOT", alias = "Spot")]
    Spot,
}

impl Purchase {
    pub fn as_str(self) -> &'static str {
        match self {
            Purchase::OnDemand => "ON_DEMAND",
            Purchase::Spot => "SPOT",
        }
    }
}

const fn a10g(count: u32) -> Option<Gpu> {
    Some(Gpu {
        name: "A10G",
        count,
        memory_mib: 22_888,
    })
}

#[rustfmt::skip]
pub const INSTANCE_TYPES: &[InstanceType] = &[
    InstanceType { name: "g5.xlarge",    vcpus: 4,   memory_mib: 16 * 1024,   gpu: a10g(1), usd_per_hour: 1.006,     max_pods: 58,  interfaces: 4,  addresses_per_interface: 15 },
    InstanceType { name: "g5.2xlarge",   vcpus: 8,   memory_mib: 32 * 1024,   gpu: a10g(1), usd_per_hour: 1.212,     max_pods: 58,  interfaces: 4,  addresses_per_interface: 15 },
    InstanceType { name: "g5.4xlarge",   vcpus: 16,  memory_mib: 64 * 1024,   gpu: a10g(1), usd_per_hour: 1.624,     max_pods: 234, interfaces: 8,  addresses_per_interface: 30 },
    InstanceType { name: "g5.8xlarge",   vcpus: 32,  memory_mib: 128 * 1024,  gpu: a10g(1), usd_per_hour: 2.448,     max_pods: 234, interfaces: 8,  addresses_per_interface: 30 },
    InstanceType { name: "g5.12xlarge",  vcpus: 48,  memory_mib: 192 * 1024,  gpu: a10g(4), usd_per_hour: 5.672,     max_pods: 737, interfaces: 15, addresses_per_interface: 50 },
    InstanceType { name: "g5.16xlarge",  vcpus: 64,  memory_mib: 256 * 1024,  gpu: a10g(1), usd_per_hour: 4.096,     max_pods: 234, interfaces: 8,  addresses_per_interface: 30 },
    InstanceType { name: "g5.24xlarge",  vcpus: 96,  memory_mib: 384 * 1024,  gpu: a10g(4), usd_per_hour: 8.144,     max_pods: 737, interfaces: 15, addresses_per_interface: 50 },
    InstanceType { name: "g5.48xlarge",  vcpus: 192, memory_mib: 768 * 1024,  gpu: a10g(8), usd_per_hour: 16.288,    max_pods: 345, interfaces: 7,  addresses_per_interface: 50 },
    InstanceType { name: "p4d.24xlarge", vcpus: 96,  memory_mib: 1152 * 1024, gpu: Some(Gpu { name: "A100", count: 8, memory_mib: 40_960 }), usd_per_hour: 21.957_642, max_pods: 737, interfaces: 60, addresses_per_interface: 50 },
    InstanceType { name: "p4de.24xlarge", vcpus: 96, memory_mib: 1152 * 1024, gpu: Some(Gpu { name: "A100", count: 8, memory_mib: 81_920 }), usd_per_hour: 27.447_050, max_pods: 737, interfaces: 60, addresses_per_interface: 50 },
    // One type without a GPU, for what a wrong choice of type does.
    InstanceType { name: "m5.large",     vcpus: 2,   memory_mib: 8 * 1024,    gpu: None,    usd_per_hour: 0.096,     max_pods: 29,  interfaces: 3,  addresses_per_interface: 10 },
];

pub fn instance_type(name: &str) -> Option<&'static InstanceType> {
    INSTANCE_TYPES.iter().find(|t| t.name == name)
}

/// CPU and memory of a node of a type: what it has, and what is left for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeResources {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub allocatable_cpu_milli: u64,
    pub allocatable_memory_mib: u64,
}

impl InstanceType {
    pub fn hourly_usd(&self, purchase: Purchase) -> f64 {
        match purchase {
            Purchase::OnDemand => self.usd_per_hour,
            Purchase::Spot => self.usd_per_hour * SPOT_PRICE_SHARE,
        }
    }

    pub fn is_offered_in(&self, zone_index: usize) -> bool {
        !self.name.starts_with("p4") || zone_index < 2
    }

    /// EKS's reservations: CPU by steps of 6 %, 1 %, 0.5 % (two cores) and 0.25 % of a core; memory 255 MiB
    /// plus 11 MiB a pod plus 100 MiB for eviction, of the 92.5 % that a hypervisor leaves visible.
    /// Reproduces the measured 3,920m / 14,162Mi of g5.xlarge and 95,690m / 1,082,712Mi of p4d.24xlarge.
    pub fn node_resources(&self) -> NodeResources {
        let cores = u64::from(self.vcpus);
        let reserved_in_quarters_of_milli: u64 = (0..cores)
            .map(|core| match core {
                0 => 240,
                1 => 40,
                2 | 3 => 20,
                _ => 10,
            })
            .sum();
        let memory_mib = self.memory_mib * 925 / 1000;
        let reserved_mib = 255 + 11 * u64::from(self.max_pods) + 100;
        NodeResources {
            cpu_milli: cores * 1000,
            memory_mib,
            allocatable_cpu_milli: cores * 1000 - reserved_in_quarters_of_milli.div_ceil(4),
            allocatable_memory_mib: memory_mib.saturating_sub(reserved_mib),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocatable_matches_what_was_measured() {
        let measured = [("g5.xlarge", 3_920, 14_162), ("p4d.24xlarge", 95_690, 1_082_712)];
        for (name, cpu, memory) in measured {
            let node = instance_type(name).expect("in the table").node_resources();
            assert_eq!(
                (node.allocatable_cpu_milli, node.allocatable_memory_mib),
                (cpu, memory),
                "{name}"
            );
        }
    }

    #[test]
    fn the_planned_fleet_costs_what_the_design_says() {
        let g5 = instance_type("g5.xlarge")
            .expect("in the table")
            .hourly_usd(Purchase::OnDemand);
        let p4 = instance_type("p4d.24xlarge")
            .expect("in the table")
            .hourly_usd(Purchase::OnDemand);
        assert_eq!((10_000.0 * g5 + 600.0 * p4).round(), 23_235.0);
    }
}
