// Package cluster is the sandbox: namespaces, a Kubernetes control plane, real nodes, and their removal.
//
//	up          removes leftovers, makes the namespaces, waits until the cluster answers      up.go, down.go, turn.go
//	init        process 1 of the namespaces: mounts, addresses, reaps                         init.go
//	supervise   starts every component, serves the control socket                             supervise.go, control.go
//	node        cgroups, bridge, containerd, kubelet                                           node.go, node_config.go
package cluster

import (
	"fmt"
	"os"
	"path/filepath"
)

// Addresses inside the sandbox. 198.18.0.0/15 is reserved for tests of network devices (RFC 2544).
const (
	InsideAddress = "198.18.0.1"
	HostAddress   = "198.18.0.2"
	LinkBits      = "/30"
	NodeRange     = "198.19.0.0/16"
	// KwokRange is the upper half of NodeRange: pods on KWOK nodes, all served by the responder.
	KwokRange    = "198.19.128.0/17"
	ServiceRange = "10.96.0.0/16"
	KubernetesIP = "10.96.0.1"
	HostLink     = "pinnace0"
	InsideLink   = "uplink"
	SystemNode   = "sandbox-system"
	// MaxGPUNodes that are real; each takes a kubelet and a containerd, about 180 MiB.
	MaxGPUNodes = 4
	// CgroupPrefix of the directories of all nodes.
	CgroupPrefix = "pinnace-sandbox-"
)

// Layout is the data directory.
type Layout struct{ Root string }

// DefaultLayout is where the environment variable PINNACE_SANDBOX says, or below /var/tmp.
func DefaultLayout() Layout {
	if root := os.Getenv("PINNACE_SANDBOX"); root != "" {
		return Layout{root}
	}
	return Layout{"/var/tmp/pinnace-sandbox"}
}

func (l Layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.Root}, parts...)...)
}

// Kubeconfig of the administrator, good inside and outside of the sandbox.
func (l Layout) Kubeconfig() string { return l.path("kubeconfig") }

// Control is the unix socket of the supervisor.
func (l Layout) Control() string { return l.path("control.sock") }

// Responder is the unix socket on which the responder takes load scripts.
func (l Layout) Responder() string { return l.path("responder.sock") }

// LoadScript in force.
func (l Layout) LoadScript() string { return l.path("load-script.json") }

// Images that every node imports when it starts.
func (l Layout) Images() string { return l.path("images") }

// AuditLog of the API server: JSON lines, no reads.
func (l Layout) AuditLog() string { return l.path("audit.log") }

// Log of one component.
func (l Layout) Log(name string) string { return l.path("log", name+".log") }

func (l Layout) initFile() string        { return l.path("init.pid") }
func (l Layout) pki(name string) string  { return l.path("pki", name) }
func (l Layout) conf(name string) string { return l.path("conf", name) }
func (l Layout) node(name string) string { return l.path("nodes", name) }
func (l Layout) kube(name string) string { return l.path("conf", name+".kubeconfig") }

// marker is in every data directory of ours: no other directory is ever removed.
func (l Layout) marker() string { return l.path(".pinnace-sandbox") }

func (l Layout) makeDirectories() error {
	if err := os.MkdirAll(l.Root, 0o755); err != nil {
		return err
	}
	// First: without it, what a killed process has made could not be removed.
	if err := os.WriteFile(l.marker(), nil, 0o644); err != nil {
		return err
	}
	for _, name := range []string{"pki", "conf", "log", "images", "nodes", "etcd"} {
		if err := os.MkdirAll(l.path(name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// remove the data directory, if it is one.
func (l Layout) remove() error {
	entries, err := os.ReadDir(l.Root)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(l.marker()); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s holds other things than a sandbox: name another directory", l.Root)
	}
	return os.RemoveAll(l.Root)
}
