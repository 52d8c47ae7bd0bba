//! EC2: instances and launch templates, as far as EKS node groups need them.

pub mod instance;
pub mod launch_template;
