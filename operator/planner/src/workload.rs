//! The Kubernetes objects of a model.
