variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "region" {
  description = "Region of the EKS cluster."
  type        = string
}

variable "node_role_arn" {
  description = "ARN of the IAM role of the GPU nodes; the only role that the operator may pass."
  type        = string
}

variable "role_name" {
  description = "Name of the operator's role."
  type        = string
  default     = "pinnace-operator"
}

variable "namespace" {
  description = "Namespace of the operator."
  type        = string
  default     = "pinnace-system"
}

variable "service_account" {
  description = "ServiceAccount of the operator; the chart names it after the release."
  type        = string
  default     = "pinnace"
}

variable "permissions_boundary" {
  description = "ARN of a permissions boundary for the role."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags for everything that this module makes."
  type        = map(string)
  default     = {}
}
