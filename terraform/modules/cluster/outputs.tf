output "name" {
  description = "Name of the EKS cluster."
  value       = aws_eks_cluster.this.name
}

output "gpu_node_role_arn" {
  description = "For spec.nodeRole of a GpuPool, and for the module operator-iam."
  value       = aws_iam_role.node["gpu"].arn
}

output "security_group_id" {
  description = "Security group of the cluster, which GPU nodes get by default."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}
