"""What the demo and the tests on a cluster share: a sandbox, a simulated AWS account, the operator, and a client."""
