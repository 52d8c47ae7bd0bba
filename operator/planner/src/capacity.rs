//! What fits where: resources of pods and nodes, and packing the one into the other.

use crate::observed::{Allocatable, InstanceType};

impl Allocatable {
    /// How many pods that ask for `request` fit.
    #[must_use]
    pub fn fits(&self, request: &Allocatable) -> u32 {
        let by = |have: u64, need: u64| have.checked_div(need).unwrap_or(u64::MAX);
        let gpus = by(u64::from(self.gpus), u64::from(request.gpus));
        let cpu = by(self.milli_cpu, request.milli_cpu);
        let memory = by(self.memory_mib, request.memory_mib);
        u32::try_from(gpus.min(cpu).min(memory)).unwrap_or(u32::MAX)
    }

    #[must_use]
    pub fn times(&self, count: u32) -> Allocatable {
        Allocatable {
            gpus: self.gpus.saturating_mul(count),
            milli_cpu: self.milli_cpu.saturating_mul(u64::from(count)),
            memory_mib: self.memory_mib.saturating_mul(u64::from(count)),
        }
    }

    #[must_use]
    pub fn plus(&self, other: &Allocatable) -> Allocatable {
        Allocatable {
            gpus: self.gpus.saturating_add(other.gpus),
            milli_cpu: self.milli_cpu.saturating_add(other.milli_cpu),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
        }
    }

    #[must_use]
    pub fn minus(&self, other: &Allocatable) -> Allocatable {
        Allocatable {
            gpus: self.gpus.saturating_sub(other.gpus),
            milli_cpu: self.milli_cpu.saturating_sub(other.milli_cpu),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
        }
    }
}

/// What pods can ask of a node of this type, before DaemonSets.
///
/// CPU: the kubelet reserves 6 % of the first core, 1 % of the second, 0.5 % of the next two, 0.25 % of the rest.
/// Memory: 7.5 % that the hypervisor keeps, 255 MiB + 11 MiB a pod that the kubelet reserves, 100 MiB eviction threshold
/// (EKS image bootstrap; Karpenter's instance type provider). g5.xlarge: 3,920m and 14,162 MiB.
#[must_use]
pub fn allocatable(instance: &InstanceType) -> Allocatable {
    let cores = u64::from(instance.vcpus);
    let reserved_cpu = [(1, 600), (1, 100), (2, 50), (u64::MAX, 25)]
        .iter()
        .fold((cores, 0), |(left, sum), (count, tenth_milli)| {
            let here = left.min(*count);
            (left - here, sum + here * tenth_milli)
        })
        .1
        / 10;
    // Addresses of the default VPC CNI: 58 for 4 and 8 cores, 234 up to 32, 737 above (eni-max-pods.txt).
    let max_pods = match instance.vcpus {
        0..=8 => 58,
        9..=32 => 234,
        _ => 737,
    };
    let hypervisor = (instance.memory_mib * 75).div_ceil(1000);
    Allocatable {
        gpus: instance.gpus,
        milli_cpu: (cores * 1000).saturating_sub(reserved_cpu),
        memory_mib: instance
            .memory_mib
            .saturating_sub(hypervisor + 255 + 11 * max_pods + 100),
    }
}

/// Pods that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub request: Allocatable,
    pub count: u32,
}

/// Room on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bin {
    pub free: Allocatable,
    /// Something was packed into it.
    pub used: bool,
}

/// First-fit decreasing by GPUs, then CPU, then memory. Returns what found no room.
pub fn pack(demands: &[Demand], bins: &mut [Bin]) -> Vec<Demand> {
    let mut sorted = demands.to_vec();
    sorted.sort_by_key(|d| std::cmp::Reverse((d.request.gpus, d.request.milli_cpu, d.request.memory_mib)));
    let mut rest = vec![];
    for mut demand in sorted {
        for bin in &mut *bins {
            let here = bin.free.fits(&demand.request).min(demand.count);
            if here > 0 {
                bin.free = bin.free.minus(&demand.request.times(here));
                bin.used = true;
                demand.count -= here;
            }
            if demand.count == 0 {
                break;
            }
        }
        if demand.count > 0 {
            rest.push(demand);
        }
    }
    rest
}

/// Nodes of `node` room each that hold all demands, and the number of pods that fit on none.
#[must_use]
pub fn nodes_for(demands: &[Demand], node: &Allocatable) -> (u32, u32) {
    let (mut bins, mut too_large) = (Vec::<Bin>::new(), 0);
    let mut sorted = demands.to_vec();
    sorted.sort_by_key(|d| std::cmp::Reverse((d.request.gpus, d.request.milli_cpu, d.request.memory_mib)));
    for demand in sorted {
        let per_node = node.fits(&demand.request);
        if per_node == 0 {
            too_large += demand.count;
            continue;
        }
        let rest = pack(&[demand], &mut bins).iter().map(|d| d.count).sum::<u32>();
        for index in 0..rest.div_ceil(per_node) {
            let here = per_node.min(rest - index * per_node);
            bins.push(Bin {
                free: node.minus(&demand.request.times(here)),
                used: true,
            });
        }
    }
    (u32::try_from(bins.len()).unwrap_or(u32::MAX), too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(gpus: u32, milli_cpu: u64, memory_mib: u64) -> Allocatable {
        Allocatable {
            gpus,
            milli_cpu,
            memory_mib,
        }
    }

    #[test]
    fn allocatable_is_what_nodes_were_measured_to_have() {
        let type_ = |vcpus, gib: u64, gpus| InstanceType {
            name: String::new(),
            vcpus,
            memory_mib: gib * 1024,
            gpus,
        };
        assert_eq!(allocatable(&type_(4, 16, 1)), room(1, 3920, 14_162));
        assert_eq!(allocatable(&type_(96, 1152, 8)), room(8, 95_690, 1_082_712));
    }

    #[test]
    fn packing_respects_every_resource() {
        let node = room(4, 16_000, 60_000);
        let demand = |gpus, cpu, count| Demand {
            request: room(gpus, cpu, 1_000),
            count,
        };
        assert_eq!(nodes_for(&[demand(1, 1_000, 4)], &node), (1, 0));
        assert_eq!(nodes_for(&[demand(1, 9_000, 4)], &node), (4, 0));
        assert_eq!(
            nodes_for(&[demand(3, 1_000, 2), demand(1, 1_000, 2)], &node),
            (2, 0)
        );
        assert_eq!(nodes_for(&[demand(8, 1_000, 3)], &node), (0, 3));
        assert_eq!(nodes_for(&[], &node), (0, 0));
    }

    #[test]
    fn what_finds_no_room_is_returned() {
        let request = room(1, 100, 100);
        let mut bins = vec![
            Bin {
                free: room(1, 1_000, 1_000),
                used: false,
            };
            2
        ];
        let rest = pack(&[Demand { request, count: 5 }], &mut bins);
        assert_eq!(rest, [Demand { request, count: 3 }]);
        assert!(bins.iter().all(|b| b.used));
    }
}
