# A cluster, and the role of the operator in it. The VPC is yours.

terraform {
  required_version = ">= 1.6"
}

variable "region" {
  description = "Region of the cluster."
  type        = string
  default     = "us-east-1"
}

variable "subnet_ids" {
  description = "Private subnets in at least two zones."
  type        = list(string)
}

provider "aws" {
  region = var.region
}

module "cluster" {
  source     = "../../modules/cluster"
  name       = "recommendations"
  subnet_ids = var.subnet_ids
}

module "operator_iam" {
  source        = "../../modules/operator-iam"
  cluster_name  = module.cluster.name
  region        = var.region
  node_role_arn = module.cluster.gpu_node_role_arn
}

output "gpu_node_role_arn" {
  description = "For spec.nodeRole of a GpuPool."
  value       = module.cluster.gpu_node_role_arn
}

output "operator_role_arn" {
  description = "Bound to the ServiceAccount pinnace-system/pinnace by EKS Pod Identity."
  value       = module.operator_iam.role_arn
}
