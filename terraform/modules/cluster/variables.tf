variable "name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "kubernetes_version" {
  description = "Kubernetes release of the cluster."
  type        = string
  default     = "1.34"
}

variable "subnet_ids" {
  description = "Private subnets in at least two zones, with a route to the registries of the images."
  type        = list(string)
}

variable "endpoint_public_access" {
  description = "Whether the API server answers outside the VPC."
  type        = bool
  default     = false
}

variable "system_instance_types" {
  description = "Instance types of the system nodes; the operator runs there."
  type        = list(string)
  default     = ["m6i.large"]
}

variable "tags" {
  description = "Tags for everything that this module makes."
  type        = map(string)
  default     = {}
}
